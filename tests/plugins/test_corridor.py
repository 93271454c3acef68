"""The corridor's lanes against one lane in plain Python; what can be earned in it with and without memory."""

import framework_corridor as corridor
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate

FORWARD, LEFT, RIGHT = corridor.FORWARD, corridor.LEFT, corridor.RIGHT
CPU = torch.device("cpu")
FIELDS = ("observations", "successors", "rewards", "terminated", "truncated")


class Maze:
    """One lane, shown at each beginning where the goal is: LEFT or RIGHT."""

    def __init__(self, length, goal_reward, miss_reward, max_steps):
        self.length, self.goal_reward, self.miss_reward, self.max_steps = length, goal_reward, miss_reward, max_steps

    def begin(self, goal):
        self.goal, self.place, self.count = goal, 0, 0
        return self.seen()

    def seen(self):
        if self.place == 0:
            return {LEFT: 0, RIGHT: 1}[self.goal]
        return 3 if self.place == self.length else 2

    def step(self, action):
        """The true successor, the reward and both flags."""
        reward, done = self.miss_reward, False
        if self.place == self.length and action != FORWARD:
            done = True
            if action == self.goal:
                reward = self.goal_reward
        elif self.place < self.length and action == FORWARD:
            self.place += 1
            reward = 0.0
        self.count += 1
        return self.seen(), reward, done, 0 < self.max_steps <= self.count


def started(cls, world, count, seed):
    lanes, generator = cls(**world).build(count, CPU), torch.Generator().manual_seed(seed)
    return lanes, generator, lanes.reset(generator).tolist()


def step_rows(lanes, generator, rows):
    """Step through rows of actions `[T][N]`; `[T][N]` tuples of the five fields, copied before the next step."""
    story = []
    for row in rows:
        step = lanes.step(torch.tensor(row), generator)
        story.append(list(zip(*(getattr(step, name).tolist() for name in FIELDS), strict=True)))
    return story


@st.composite
def worlds(draw):
    length = draw(st.integers(1, 4))
    limits = st.one_of(st.just(0), st.integers(length + 1, length + 6))
    rewards = {"goal_reward": st.floats(0.5, 8.0, width=32), "miss_reward": st.floats(-2.0, 0.0, width=32)}
    return {"length": length, "max_steps": draw(limits), **{name: draw(strategy) for name, strategy in rewards.items()}}


WORLDS, SEEDS = worlds(), st.integers(0, 2**31)
ROWS = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        st.lists(st.sampled_from([FORWARD, FORWARD, LEFT, RIGHT]), min_size=count, max_size=count),
        min_size=1,
        max_size=25,
    )
)


# The laws: each takes the settings class under test first, so that a mutant can be put in its place.


def law_each_lane_is_a_maze(cls, world, rows, seed):
    """Successors, rewards and flags are the maze's; what is seen next is the successor or, after an end, a sign."""
    lanes, generator, first = started(cls, world, len(rows[0]), seed)
    mazes = [Maze(**world) for _ in rows[0]]
    assert [maze.begin((LEFT, RIGHT)[sign]) for maze, sign in zip(mazes, first, strict=True)] == first
    for row, seen in zip(rows, step_rows(lanes, generator, rows), strict=True):
        for maze, action, (observation, *outcome) in zip(mazes, row, seen, strict=True):
            assert outcome == list(maze.step(action))
            if outcome[2] or outcome[3]:
                assert observation in (0, 1)
                maze.begin((LEFT, RIGHT)[observation])
            else:
                assert observation == outcome[0]


def law_goals_are_fair_and_independent(cls, seed):
    """4000 episodes of one step's walk and a turn, in 4 lanes: each side half the time, whatever the last one was.

    Five deviations of 4000 fair coins are 0.04, of the 2000 that follow one side 0.056.
    """
    lanes, generator, first = started(cls, {"length": 1}, 4, seed)
    story = step_rows(lanes, generator, [[FORWARD] * 4, [LEFT] * 4] * 1000)
    sides = np.array([first, *[[lane[0] for lane in row] for row in story[1::2]]])
    assert abs(sides.mean() - 0.5) < 0.04
    before, after = sides[:-1], sides[1:]
    assert abs(after[before == 0].mean() - 0.5) < 0.056
    assert abs((sides[:, 0] == sides[:, 1]).mean() - 0.5) < 0.08  # of 1001


def law_saved_lanes_go_on_as_if_never_left(cls, world, rows, more, seed):
    """Other lanes that are handed the state tell the same from there on; what was saved stays as it was."""
    count = len(rows[0])
    lanes, generator, _ = started(cls, world, count, seed)
    step_rows(lanes, generator, rows)
    saved = lanes.state_dict()
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    onward = [(row * count)[:count] for row in more]
    expected = step_rows(lanes, torch.Generator().manual_seed(1), onward)
    assert all(torch.equal(saved[name], kept[name]) for name in kept)
    other = cls(**world).build(count, CPU)
    other.load_state_dict(saved)
    assert step_rows(other, torch.Generator().manual_seed(1), onward) == expected


def law_reset_begins_anew(cls, world, rows, seed):
    """After a reset the lanes tell what new ones do, wherever they stood."""
    lanes, generator, first = started(cls, world, len(rows[0]), seed)
    expected = step_rows(lanes, generator, rows)
    again = torch.Generator().manual_seed(seed)
    assert lanes.reset(again).tolist() == first
    assert step_rows(lanes, again, rows) == expected


LAWS = {
    law_each_lane_is_a_maze: (WORLDS, ROWS, SEEDS),
    law_goals_are_fair_and_independent: (st.integers(0, 5),),
    law_saved_lanes_go_on_as_if_never_left: (WORLDS, ROWS, ROWS, SEEDS),
    law_reset_begins_anew: (WORLDS, ROWS, SEEDS),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(corridor.Corridor, *drawn))()


# What can be earned


def expected_return(world, policy):
    """Exactly, of a policy [observation][action] without memory: the probability of each place, forward in time."""
    total = 0.0
    for goal in (LEFT, RIGHT):
        standing = {0: 1.0}
        for _ in range(world["max_steps"]):
            following = {}
            for place, probability in standing.items():
                for action in (FORWARD, LEFT, RIGHT):
                    maze = Maze(**world)
                    maze.begin(goal)
                    maze.place = place
                    chance = probability * policy[maze.seen()][action]
                    _, reward, done, _ = maze.step(action)
                    total += chance * reward / 2
                    if not done:
                        following[maze.place] = following.get(maze.place, 0.0) + chance
            standing = following
    return total


LIMITED = WORLDS.filter(lambda world: world["max_steps"] > 0)
CHANCES = st.lists(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(any), min_size=4, max_size=4)


@given(LIMITED, CHANCES)
def test_without_memory_the_mean_of_both_rewards_is_the_most(world, weights):
    """At the junction LEFT has one probability q, whatever the sign was: an episode that turns earns at most
    q·goal + (1 − q)·miss on the left, (1 − q)·goal + q·miss on the right; one that does not has stood still at least
    once and earns at most miss. So the mean of both is at most (goal + miss) / 2, which walking straight on earns.
    """
    most = (world["goal_reward"] + world["miss_reward"]) / 2
    policy = [[weight / sum(row) for weight in row] for row in weights]
    assert expected_return(world, policy) <= most + 1e-9
    for q in (0.0, 0.3, 1.0):
        straight = [[1.0, 0.0, 0.0]] * 3 + [[0.0, q, 1 - q]]
        assert expected_return(world, straight) == pytest.approx(most)


@given(WORLDS, SEEDS)
def test_with_memory_the_goal_is_always_found(world, seed):
    """Walk to the junction and turn to where the sign had pointed: every episode earns the goal's reward, no less."""
    count = 6
    lanes, generator, seen = started(corridor.Corridor, world, count, seed)
    for _ in range(3):
        turn = [(LEFT, RIGHT)[sign] for sign in seen]
        story = step_rows(lanes, generator, [[FORWARD] * count] * world["length"] + [turn])
        earned = np.array([[lane[2] for lane in row] for row in story]).sum(0)
        assert earned.tolist() == [world["goal_reward"]] * count
        assert all(lane[3] for lane in story[-1])
        seen = [lane[0] for lane in story[-1]]


def test_the_defaults_are_the_sources():
    """Bakker 2001: 4 for the right turn, −0.1 for the wrong one and for standing still, 0 for a step."""
    defaults = corridor.Corridor()
    assert (defaults.goal_reward, defaults.miss_reward) == (4.0, -0.1)


def test_spaces_and_action_names():
    lanes = corridor.Corridor().build(2, CPU)
    assert (lanes.observation_space.n, lanes.observation_space.start) == (4, 0)
    assert (lanes.action_space.n, lanes.action_space.start) == (3, 0)
    assert [lanes.action_names[action] for action in (FORWARD, LEFT, RIGHT)] == ["FORWARD", "LEFT", "RIGHT"]
    assert not hasattr(lanes, "mdp")  # what is observed is no state


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "'length' must be >= 1: 0"),
        ({"max_steps": -1}, "'max_steps' must be >= 0: -1"),
        ({"length": 5, "max_steps": 5}, r"'max_steps' must be 0 or more than 'length' \(5\): 5"),
        ({"miss_reward": 0.1}, "'miss_reward'"),
        ({"goal_reward": float("inf")}, "'goal_reward'"),
    ],
    ids=str,
)
def test_settings_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        corridor.Corridor(**settings)


MUTANTS = {
    "turns too early": (law_each_lane_is_a_maze, ("FORWARD, places == length", "FORWARD, places + 1 >= length")),
    "pays for the other side": (law_each_lane_is_a_maze, ("self._sides + LEFT", "RIGHT - self._sides")),
    "pays for every turn": (
        law_each_lane_is_a_maze,
        ("step.terminated & (actions == self._sides + LEFT)", "step.terminated.clone()"),
    ),
    "takes a reward for each step": (law_each_lane_is_a_maze, (".masked_fill_(moved, 0.0)", "")),
    "shows the sign everywhere": (
        law_each_lane_is_a_maze,
        ("torch.where(self._places == 0, self._sides, onward)", "torch.where(self._places < 2, self._sides, onward)"),
    ),
    "is late by one step": (law_each_lane_is_a_maze, ("torch.ge(self._clock", "torch.gt(self._clock")),
    "never restarts the clock": (law_each_lane_is_a_maze, ("self._clock *= continues", "pass")),
    "draws anew within an episode": (
        law_each_lane_is_a_maze,
        ("torch.where(over, torch.empty_like", "torch.where(over | ~over, torch.empty_like"),
    ),
    "keeps the side": (law_goals_are_fair_and_independent, ("self._sides.copy_(torch.where(over", "(torch.where(over")),
    "draws one side for all": (
        law_goals_are_fair_and_independent,
        ("torch.empty_like(places).random_", "torch.empty_like(places[:1]).random_"),
    ),
    "saves where, but not the side": (
        law_saved_lanes_go_on_as_if_never_left,
        ('"sides": self._sides.clone()', '"sides": torch.zeros_like(self._sides)'),
    ),
    "saves its own buffers": (
        law_saved_lanes_go_on_as_if_never_left,
        ('"clock": self._clock.clone()', '"clock": self._clock'),
    ),
    "resets where, but not since when": (law_reset_begins_anew, ("self._clock.zero_()", "pass")),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(mutate("framework_corridor", change).Corridor,))
