"""The line world's lanes against the notebook's world, one lane in plain Python; each law kills a mutant."""

import framework_line_world as line_world
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate

LEFT, RIGHT = line_world.LEFT, line_world.RIGHT
CPU = torch.device("cpu")


class NotebookWorld:
    """The notebook's `step`, `is_done` and `reset`, with its 100-step loop as a time limit."""

    def __init__(self, goal, step_reward, goal_reward, max_steps):
        self.goal, self.step_reward, self.goal_reward, self.max_steps = goal, step_reward, goal_reward, max_steps
        self.reset()

    def reset(self):
        self.state, self.count = 0, 0

    def step(self, action):
        """What `step_rows` tells of a lane: the next observation, the true successor, the reward and both flags."""
        self.state = max(0, self.state - 1) if action == LEFT else min(self.goal, self.state + 1)
        self.count += 1
        successor, done = self.state, self.state == self.goal
        late = self.max_steps > 0 and self.count >= self.max_steps
        if done or late:
            self.reset()
        return self.state, successor, self.goal_reward if done else self.step_reward, done, late


FIELDS = ("observations", "successors", "rewards", "terminated", "truncated")


def step_rows(lanes, rows):
    """Step through rows of actions `[T][N]`; `[T][N]` tuples of the five fields, copied before the next step."""
    story = []
    for row in rows:
        step = lanes.step(torch.tensor(row), torch.Generator())
        story.append(list(zip(*(getattr(step, name).tolist() for name in FIELDS), strict=True)))
    return story


def started(cls, world, count):
    lanes = cls(**world).build(count, CPU)
    return lanes, lanes.reset(torch.Generator()).tolist()


REWARDS = st.floats(-1e6, 1e6, width=32)  # a Step's rewards are float32, so that every one of these is exact
WORLDS = st.fixed_dictionaries(
    {"goal": st.integers(1, 5), "step_reward": REWARDS, "goal_reward": REWARDS, "max_steps": st.integers(0, 8)}
)
ROWS = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        st.lists(st.sampled_from([LEFT, RIGHT, RIGHT]), min_size=count, max_size=count), min_size=1, max_size=25
    )
)


# The laws: each takes the settings class under test first, so that a mutant can be put in its place.


def law_each_lane_is_the_notebooks_world(cls, world, rows):
    """Observations, true successors, rewards and flags of every lane and step are those of a notebook's world."""
    lanes, first = started(cls, world, len(rows[0]))
    oracles = [NotebookWorld(**world) for _ in rows[0]]
    assert first == [oracle.state for oracle in oracles]
    for row, seen in zip(rows, step_rows(lanes, rows), strict=True):
        assert seen == [oracle.step(action) for oracle, action in zip(oracles, row, strict=True)]


def law_lanes_are_independent(cls, world, rows):
    """Lanes stepped together tell what each tells alone."""
    together = step_rows(started(cls, world, len(rows[0]))[0], rows)
    for n in range(len(rows[0])):
        alone = step_rows(started(cls, world, 1)[0], [[row[n]] for row in rows])
        assert [row[n] for row in together] == [row[0] for row in alone]


def law_the_limit_truncates_and_the_goal_terminates(cls, goal, limit):
    """Always RIGHT from 0: the episode ends at min(goal, limit), with the flag of whichever it was, or with both."""
    world = {"goal": goal, "step_reward": -1.0, "goal_reward": 10.0, "max_steps": limit}
    end = min(goal, limit) if limit else goal
    story = step_rows(started(cls, world, 1)[0], [[RIGHT]] * (2 * end))
    for k, ((observation, successor, _, terminated, truncated),) in enumerate(story):
        steps = k % end + 1  # the second episode tells the first again
        assert successor == steps
        assert observation == (0 if steps == end else steps)
        assert (terminated, truncated) == (steps == goal, steps == limit)


def law_tables_and_steps_agree(cls, world):
    """`mdp()` gives each non-terminal state and action the successor, reward and end that `step` does."""
    mdp = cls(**world).build(1, CPU).mdp()
    goal = world["goal"]
    assert (mdp.transitions.sum(-1) == 1).all()
    assert (mdp.transitions >= 0).all()
    assert mdp.start.sum() == 1
    assert mdp.terminal.tolist() == [False] * goal + [True]
    assert mdp.time_limit == (world["max_steps"] or None)

    # one lane for each state and action: LEFT at the wall until it is time to walk to the state
    pairs = [(state, action) for state in range(goal) for action in (LEFT, RIGHT)]
    lanes, first = started(cls, {**world, "max_steps": 0}, len(pairs))
    assert all(mdp.start[state] == 1 for state in first)
    approach = [[RIGHT if goal - t < state else LEFT for state, _ in pairs] for t in range(1, goal + 1)]
    story = step_rows(lanes, [*approach, [action for _, action in pairs]])
    assert [state for state, *_ in story[-2]] == [state for state, _ in pairs]
    for (state, action), (_, successor, reward, terminated, _) in zip(pairs, story[-1], strict=True):
        assert mdp.transitions[state, action, successor] == 1
        assert mdp.rewards[state, action, successor] == reward
        assert mdp.terminal[successor] == terminated


def law_saved_lanes_go_on_as_if_never_left(cls, world, rows, more):
    """Other lanes that are handed the state tell the same from there on; what was saved stays as it was."""
    count = len(rows[0])
    lanes, _ = started(cls, world, count)
    step_rows(lanes, rows)
    saved = lanes.state_dict()
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    onward = [(row * count)[:count] for row in more]
    expected = step_rows(lanes, onward)
    assert all(torch.equal(saved[name], kept[name]) for name in kept)
    other = cls(**world).build(count, CPU)
    other.load_state_dict(saved)
    assert step_rows(other, onward) == expected


def law_reset_begins_anew(cls, world, rows):
    """After a reset the lanes tell what new ones do, wherever they stood."""
    lanes, first = started(cls, world, len(rows[0]))
    expected = step_rows(lanes, rows)
    assert lanes.reset(torch.Generator()).tolist() == first
    assert step_rows(lanes, rows) == expected


def law_observations_are_in_the_space(cls, world, rows):
    """First observations, next ones and successors are elements of `observation_space`, as integers."""
    lanes, first = started(cls, world, len(rows[0]))
    seen = first + [state for row in step_rows(lanes, rows) for lane in row for state in lane[:2]]
    assert all(isinstance(state, int) and lanes.observation_space.contains(state) for state in seen)


GOALS_AND_LIMITS = (st.integers(1, 6), st.integers(0, 7))
LAWS = {
    law_each_lane_is_the_notebooks_world: (WORLDS, ROWS),
    law_lanes_are_independent: (WORLDS, ROWS),
    law_the_limit_truncates_and_the_goal_terminates: GOALS_AND_LIMITS,
    law_tables_and_steps_agree: (WORLDS,),
    law_saved_lanes_go_on_as_if_never_left: (WORLDS, ROWS, ROWS),
    law_reset_begins_anew: (WORLDS, ROWS),
    law_observations_are_in_the_space: (WORLDS, ROWS),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(line_world.LineWorld, *drawn))()


def test_without_a_limit_nothing_is_ever_truncated():
    """`max_steps=0`: a thousand steps at the wall end no episode; with a limit of a thousand the last one does."""
    for limit, expected in ((0, False), (1000, True)):
        lanes = line_world.LineWorld(max_steps=limit).build(2, CPU)
        lanes.reset(torch.Generator())
        step = None
        for _ in range(1000):
            assert step is None or not (step.terminated | step.truncated).any()
            step = lanes.step(torch.zeros(2, dtype=torch.int64), torch.Generator())
        assert step.truncated.tolist() == [expected] * 2
    assert line_world.LineWorld(max_steps=0).build(1, CPU).mdp().time_limit is None


def test_the_defaults_are_the_notebooks():
    """Its `step` pays −1 and, on reaching 4, 10; its training loop stops an episode after 100 steps."""
    defaults = line_world.LineWorld()
    assert (defaults.goal, defaults.step_reward, defaults.goal_reward, defaults.max_steps) == (4, -1.0, 10.0, 100)


def test_spaces_and_action_names():
    lanes = line_world.LineWorld(goal=3).build(2, CPU)
    assert (lanes.observation_space.n, lanes.observation_space.start) == (4, 0)  # the goal is a state, too
    assert (lanes.action_space.n, lanes.action_space.start) == (2, 0)
    assert (lanes.action_names[LEFT], lanes.action_names[RIGHT]) == ("LEFT", "RIGHT")


@given(WORLDS, ROWS)
def test_nothing_is_drawn_and_actions_are_left_alone(world, rows):
    """The world is deterministic: a generator that it is handed stays where it was, and so do the actions."""
    lanes = line_world.LineWorld(**world).build(len(rows[0]), CPU)
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    lanes.reset(generator)
    for row in rows:
        actions = torch.tensor(row)
        lanes.step(actions, generator)
        assert actions.tolist() == row
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goal": 0}, "'goal' must be >= 1: 0"),
        ({"goal": -3}, "'goal' must be >= 1: -3"),
        ({"max_steps": -1}, "'max_steps' must be >= 0: -1"),
        ({"step_reward": float("nan")}, "'step_reward'"),
        ({"goal_reward": float("inf")}, "'goal_reward'"),
    ],
    ids=str,
)
def test_settings_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        line_world.LineWorld(**settings)


LIMIT = "torch.ge(clock, self._limit, out=step.truncated)"
GOING = "continues = ~(step.terminated | step.truncated)"
OBSERVE = "torch.mul(step.successors, continues, out=step.observations)"
MUTANTS = {
    "is late by one step": (
        law_the_limit_truncates_and_the_goal_terminates,
        (LIMIT, LIMIT.replace("torch.ge", "torch.gt")),
    ),
    "takes the limit for the world's end": (
        law_the_limit_truncates_and_the_goal_terminates,
        (GOING, f"step.terminated.logical_or_(step.truncated); {GOING}"),
    ),
    "forgets the limit at the goal": (
        law_the_limit_truncates_and_the_goal_terminates,
        (GOING, f"{GOING}; step.truncated.logical_and_(~step.terminated)"),
    ),
    "takes no limit for a limit of none": (
        law_the_limit_truncates_and_the_goal_terminates,
        ("settings.max_steps or torch.iinfo(torch.int64).max", "settings.max_steps"),
    ),
    "lets LEFT lead round to the goal": (
        law_each_lane_is_the_notebooks_world,
        ("(states - 1).clamp(min=0)", "(states - 1) % (settings.goal + 1)"),
    ),
    "pays one state too early": (
        law_each_lane_is_the_notebooks_world,
        ("self._successor == settings.goal", "self._successor >= settings.goal - 1"),
    ),
    "hides the true successor": (
        law_each_lane_is_the_notebooks_world,
        (OBSERVE, f"{OBSERVE}; step.successors.mul_(continues)"),
    ),
    "shows the terminal state": (
        law_each_lane_is_the_notebooks_world,
        (OBSERVE, "step.observations.copy_(step.successors)"),
    ),
    "never restarts the clock": (law_each_lane_is_the_notebooks_world, ("clock *= continues", "pass")),
    "keeps one clock for all lanes": (law_lanes_are_independent, ("clock *= continues", "clock *= continues.all()")),
    "swaps the actions in the table": (
        law_tables_and_steps_agree,
        ("self._successor.reshape(count, 2)", "self._successor.reshape(count, 2).flip(1)"),
    ),
    "swaps the rewards in the table": (
        law_tables_and_steps_agree,
        ("self._reward.reshape(count, 2, 1)", "self._reward.reshape(count, 2, 1).flip(1)"),
    ),
    "keeps the limit from the table": (
        law_tables_and_steps_agree,
        ("time_limit=self.settings.max_steps or None", "time_limit=None"),
    ),
    "saves where, but not since when": (
        law_saved_lanes_go_on_as_if_never_left,
        ('"clock": self._clock.clone()', '"clock": torch.zeros_like(self._clock)'),
    ),
    "saves its own buffers": (
        law_saved_lanes_go_on_as_if_never_left,
        ("self._step.observations.clone()", "self._step.observations"),
    ),
    "resets where, but not since when": (law_reset_begins_anew, ("self._clock.zero_()", "pass")),
    "has a state too few": (
        law_observations_are_in_the_space,
        ("self.observation_space = Discrete(settings.goal + 1)", "self.observation_space = Discrete(settings.goal)"),
    ),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(mutate("framework_line_world", change).LineWorld,))
