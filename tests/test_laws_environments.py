"""Laws of environments: all that come with the framework keep them, and bugs that others had are found by name."""

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from framework_classic import Acrobot, CartPole, MountainCar, Pendulum
from framework_corridor import Corridor
from framework_gymnasium import Gymnasium
from framework_line_world import LineWorld
from framework_tabular_worlds import Cliff, RandomMDP, ShortCorridor
from gymnasium.spaces import Box
from mutants import EXAMPLES, broken

from framework import Step, TabularLanes, TabularMDP
from framework.parts import Part
from framework.setup.loading import load
from framework.testing import check
from framework.testing.environments.chance import fisher
from framework.testing.environments.frequencies import chi_square

SOUND = {
    "line_world": LineWorld(),
    "line_world in groups": LineWorld(group_size=2, max_steps=5),
    "line_world of one step": LineWorld(goal=1, max_steps=1),
    "line_world without limit": LineWorld(max_steps=0),
    "corridor": Corridor(),
    "short_corridor": ShortCorridor(),
    "cliff": Cliff(),
    "random_mdp": RandomMDP(),
    "random_mdp, larger": RandomMDP(states=9, actions=3, branching=4, seed=3),
    "cartpole": CartPole(),
    "pendulum": Pendulum(),
    "mountain_car": MountainCar(max_steps=20),
    "acrobot": Acrobot(max_steps=20),
    **{
        f"{id}, {autoreset}": Gymnasium(id=id, vectorization_mode="sync", autoreset=autoreset)
        for id in ("CartPole-v1", "FrozenLake-v1")
        for autoreset in ("next_step", "same_step", "disabled")
    },
    "CartPole-v1, vectorised": Gymnasium(id="CartPole-v1"),
    "CliffWalking-v1": Gymnasium(id="CliffWalking-v1", max_episode_steps=20),
}


@pytest.fixture(scope="module")
def loaded():
    return load()


ALIKE = {  # not in the quick profile: in much the same code as others are, or slow
    "line_world of one step", "line_world without limit", "random_mdp, larger", "CartPole-v1, same_step",
    "CartPole-v1, disabled", "FrozenLake-v1, next_step", "FrozenLake-v1, disabled", "CliffWalking-v1",
    "CartPole-v1, vectorised", "acrobot", "mountain_car", "short_corridor", "CartPole-v1, next_step", "pendulum",
    "cliff", "FrozenLake-v1, same_step",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in SOUND]
)
def test_what_comes_with_the_framework_keeps_every_law(name, loaded):
    report = check(SOUND[name], "environment", examples=min(EXAMPLES, 10), loaded=loaded)
    assert [(verdict.law.name, verdict.reason, verdict.error) for verdict in report.failed] == []
    assert len(report.of("passed")) >= 10


# Worlds that are sound, to be broken


def tables(limit=4):
    """States 0 to 2 and the end, 3; two actions with chance; episodes begin in 0 or 1; every r(s, a, s′) is another."""
    transitions = torch.zeros(4, 2, 4, dtype=torch.float64)
    transitions[:, 0] = torch.tensor([0.1, 0.6, 0.3, 0.0])
    transitions[:, 1] = torch.tensor([0.0, 0.2, 0.5, 0.3])
    rewards = torch.arange(32, dtype=torch.float64).reshape(4, 2, 4)
    start = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    return TabularMDP(transitions, rewards, start, torch.tensor([False, False, False, True]), limit)


class Chancy(TabularLanes):
    """A world with chance and tables."""

    def __init__(self, count):
        super().__init__(tables(), count)


class Certain(TabularLanes):
    """0, 1, 2 in a row: action 1 goes on, 0 back; without chance, and without tables that tell of it."""

    mdp = None
    limit = 5

    def __init__(self, count):
        transitions = torch.zeros(3, 2, 3, dtype=torch.float64)
        for state in range(3):
            transitions[state, 0, max(0, state - 1)] = transitions[state, 1, min(2, state + 1)] = 1
        rewards = torch.arange(18, dtype=torch.float64).reshape(3, 2, 3)
        start, end = torch.tensor([1.0, 0, 0]), torch.tensor([False, False, True])
        super().__init__(TabularMDP(self.likely(transitions), rewards, start, end, self.limit), count)

    def likely(self, transitions):
        return transitions


class Drift:
    """A number near 0 that drifts to where actions push it, until it is beyond ½ or six steps are over."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, count):
        self.count = count
        self.x, self.clock = torch.zeros(count, 1), torch.zeros(count, dtype=torch.int64)

    def begin(self, generator):
        return torch.rand(self.count, 1, generator=generator) / 10 - 0.05

    def reset(self, generator):
        self.x, self.clock = self.begin(generator), torch.zeros(self.count, dtype=torch.int64)
        return self.x

    def move(self, actions, generator):
        noise = torch.rand(self.count, 1, generator=generator) / 10
        return self.x + 0.3 * actions.clamp(-1, 1) + noise

    def step(self, actions, generator):
        successors = self.move(actions, generator)
        self.clock = self.clock + 1
        terminated, truncated = (successors.abs() > 0.5).squeeze(1), self.clock >= 6
        ended = terminated | truncated
        self.x = torch.where(ended[:, None], self.begin(generator), successors)
        self.clock = self.clock * ~ended
        return Step(self.x, successors, -successors.abs().squeeze(1), terminated, truncated)


class PureDrift(Drift):
    """The same, with its step as a pure function."""

    transition_noise = 2

    def state_dict(self):
        return {"x": self.x.clone(), "clock": self.clock.clone()}

    def load_state_dict(self, state):
        self.x, self.clock = state["x"].clone(), state["clock"].clone()

    def transition(self, state, actions, noise):
        noise = noise.float()
        successors = state["x"] + 0.3 * actions.clamp(-1, 1) + noise[:, :1] / 10
        clock = state["clock"] + 1
        terminated, truncated = (successors.abs() > 0.5).squeeze(1), clock >= 6
        ended = terminated | truncated
        after = {"x": torch.where(ended[:, None], noise[:, 1:] / 10 - 0.05, successors), "clock": clock * ~ended}
        return after, Step(after["x"], successors, -successors.abs().squeeze(1), terminated, truncated)


class Slippery(Certain):
    """Once in a thousand steps the other action is taken."""

    def likely(self, transitions):
        return 0.999 * transitions + 0.001 * transitions.flip(1)


class LateChance(Certain):
    """From its 41st step on rewards are drawn; who looks at forty sees no chance."""

    limit, taken = 30, 0

    def step(self, actions, generator):
        step, self.taken = super().step(actions, generator), self.taken + 1
        if self.taken > 40:
            step.rewards.copy_(torch.rand(len(actions), generator=generator))
        return step


class Forbidding(Chancy):
    """In state 0 action 1 is forbidden, and raises."""

    @property
    def action_masks(self):
        allowed = torch.ones(len(self._at), 2, dtype=torch.bool)
        allowed[:, 1] = self._at != 0
        return allowed

    def step(self, actions, generator):
        if not bool(self.action_masks.gather(1, actions[:, None]).all()):
            raise ValueError("this is forbidden")
        return evolve(super().step(actions, generator), action_masks=self.action_masks)


class FromHome(Drift):
    """Each episode begins at 0."""

    def begin(self, generator):
        return torch.zeros(self.count, 1)


class Strip(TabularLanes):
    """Four places in a row, from the first; one slips now and then; without tables that tell of it."""

    mdp = None

    def __init__(self, count):
        transitions = torch.zeros(4, 2, 4, dtype=torch.float64)
        for at in range(4):
            for action in range(2):
                for to, chance in ((at + 2 * action - 1, 0.8), (at - 2 * action + 1, 0.2)):
                    transitions[at, action, min(max(to, 0), 3)] += chance
        end = torch.tensor([False, False, False, True])
        super().__init__(
            TabularMDP(transitions, torch.ones_like(transitions), (~end).double() * torch.eye(4)[0], end, 8), count
        )


class Round(TabularLanes):
    """Out and back: the end looks as the start does, and no limit comes before it."""

    mdp = None

    def __init__(self, count):
        transitions = torch.zeros(4, 2, 4, dtype=torch.float64)
        transitions[0, :, 1] = transitions[1, :, 2] = transitions[2, 0, 1] = transitions[2, 1, 3] = transitions[
            3, :, 3
        ] = 1
        start, end = torch.tensor([1.0, 0, 0, 0]), torch.tensor([False, False, False, True])
        seen = torch.tensor([0, 1, 2, 0])
        super().__init__(TabularMDP(transitions, torch.ones_like(transitions), start, end, None, seen), count)


class Clockwork(TabularLanes):
    """A dial of ten numbers, and a limit of ten steps: each episode ends where it begins."""

    mdp = None

    def __init__(self, count):
        transitions = torch.eye(10, dtype=torch.float64).roll(1, 1).unsqueeze(1).repeat(1, 2, 1)
        never = torch.zeros(10, dtype=torch.bool)
        super().__init__(TabularMDP(transitions, torch.ones_like(transitions), torch.eye(10)[0], never, 10), count)


@frozen
class World:
    """Settings of one of the classes here."""

    lanes: type = Chancy

    def build(self, num_envs, device):
        return self.lanes(num_envs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lanes", [Chancy, Certain, Drift, PureDrift, Slippery, LateChance, Forbidding, FromHome, Strip, Round, Clockwork]
)
def test_the_worlds_to_be_broken_are_sound(lanes, loaded):
    report = check(World(lanes), "environment", examples=EXAMPLES, loaded=loaded)
    assert [(verdict.law.name, verdict.reason) for verdict in report.failed] == []


def verdict_of(law, lanes, loaded):
    return check(World(lanes), "environment", only=[law], examples=100, loaded=loaded).verdicts[0]


def test_who_draws_is_not_without_chance(loaded):
    """Even if in all that was looked at nothing happened that happens rarely; or if nothing was drawn so soon."""
    verdict = verdict_of("every_episode_is_like_the_first", Slippery, loaded)
    assert (verdict.outcome, verdict.reason) == ("not applicable", "leaves something to chance")
    assert verdict_of("every_episode_is_like_the_first", LateChance, loaded).outcome == "passed"


@pytest.mark.parametrize("law", ["the_time_limit_is_kept", "steps_are_as_frequent_as_the_tables_say"])
def test_what_is_forbidden_is_not_done(law, loaded):
    assert verdict_of(law, Forbidding, loaded).outcome == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [Round, Clockwork])
def test_where_ends_tell_nothing_a_law_says_so(lanes, loaded):
    verdict = verdict_of("successors_are_where_the_episode_ended", lanes, loaded)
    assert verdict.outcome == "not applicable"
    assert "episodes ended as the next began, always alike: too few were truncated to tell" in verdict.reason


@pytest.mark.slow
def test_too_few_ends_tell_nothing(loaded):
    endless = type("Endless", (Drift,), {"move": lambda self, actions, generator: self.x})
    endless.step = lambda self, *given: evolve(Drift.step(self, *given), truncated=torch.zeros(self.count, dtype=bool))
    verdict = verdict_of("successors_are_where_the_episode_ended", endless, loaded)
    assert verdict.outcome == "not applicable"
    assert verdict.reason == "only 0 episodes ended with the next one beginning in the same row: too few to tell"
    verdict = verdict_of("later_episodes_are_as_long_as_the_first", endless, loaded)
    assert (verdict.outcome, verdict.reason) == (
        "not applicable",
        "only 32 first episodes and 0 later ones were seen, of at most 250 steps",
    )


# Mutants: what others got wrong, each as the smallest change of a sound world


class OneStepShort(Chancy):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        early = (self._clock == 3) & ~step.terminated
        step.truncated.logical_or_(early)
        self._clock *= ~early
        return step


class LimitIsAnEnd(Chancy):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.terminated.logical_or_(step.truncated)
        return step


class OneClockForAllLanes(Chancy):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        self._clock[:] = self._clock.min()
        return step


class FirstForLast(Drift):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        return evolve(step, successors=step.observations)


class FirstForLastFromHome(FromHome):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        return evolve(step, successors=step.observations)


class FirstForLastOnTheStrip(Strip):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        return evolve(step, successors=step.observations.clone())


class OneBufferForBoth(Drift):
    def __init__(self, count):
        super().__init__(count)
        self.buffer = torch.zeros(count, 1)

    def step(self, actions, generator):
        step = super().step(actions, generator)
        final = self.buffer.copy_(step.successors)
        return evolve(step, successors=final, observations=self.buffer.copy_(step.observations))


class ResetRowIsAStep(Drift):
    """Episodes end as under Gymnasium's NEXT_STEP, and nothing says that the next row is no step."""

    over = torch.zeros(0, dtype=torch.bool)

    def reset(self, generator):
        self.over = torch.zeros(self.count, dtype=torch.bool)
        return super().reset(generator)

    def step(self, actions, generator):
        successors = torch.where(self.over[:, None], self.begin(generator), self.move(actions, generator))
        self.clock = torch.where(self.over, 0, self.clock + 1)
        rewards = torch.where(self.over, 0.0, -successors.abs().squeeze(1))
        terminated, truncated = (successors.abs() > 0.5).squeeze(1), self.clock >= 6
        self.x, self.over = successors, terminated | truncated
        return Step(self.x, successors, rewards, terminated, truncated, valid=self.valid())

    def valid(self):
        return None


class EndIsNoStep(ResetRowIsAStep):
    def valid(self):
        return ~self.over


class ClockSurvivesReset(Drift):
    def reset(self, generator):
        self.x = self.begin(generator)
        return self.x


class ClockSurvivesEpisodes(Certain):
    def step(self, actions, generator):
        before = self._clock.clone()
        step = super().step(actions, generator)
        self._clock.copy_(torch.where(step.terminated, before, self._clock))
        return step


class ClockSurvivesChance(Strip):
    def step(self, actions, generator):
        before = self._clock.clone()
        step = super().step(actions, generator)
        self._clock.copy_(before + 1)
        return step


class OneStreamForTwo(Drift):
    """The second and the third lane draw the same."""

    def begin(self, generator):
        return self.shared(super().begin(generator))

    def move(self, actions, generator):
        noise = self.shared(torch.rand(self.count, 1, generator=generator) / 10)
        return self.x + 0.3 * actions.clamp(-1, 1) + noise

    def shared(self, numbers):
        numbers[2:3] = numbers[1:2]
        return numbers


class OneSeedForAll(Drift):
    def begin(self, generator):
        return super().begin(generator)[:1].expand(self.count, 1).clone()

    def move(self, actions, generator):
        noise = torch.rand(1, generator=generator) / 10
        return self.x + 0.3 * actions + noise


class SeedNotUsed(Drift):
    def begin(self, generator):
        return torch.from_numpy(np.random.uniform(-0.05, 0.05, (self.count, 1)).astype(np.float32))


class SeedsEverybody(Drift):
    def reset(self, generator):
        np.random.seed(int(torch.randint(1000, (1,), generator=generator)))
        return super().reset(generator)

    def begin(self, generator):
        return torch.from_numpy(np.random.uniform(-0.05, 0.05, (self.count, 1)).astype(np.float32))


class ClipsInPlace(Drift):
    def move(self, actions, generator):
        actions *= 0.3  # scaled to what the motors take
        return self.x + actions + torch.rand(self.count, 1, generator=generator) / 10


class KeepsTheTensor(Drift):
    """Remembers the last action, to be smooth; and keeps what it was handed instead of a copy."""

    last = None

    def reset(self, generator):
        self.last = None
        return super().reset(generator)

    def move(self, actions, generator):
        before, self.last = self.last, actions
        return super().move(actions if before is None else (actions + before) / 2, generator)


class EndsOutside(Drift):
    observation_space = Box(-0.5, 0.5, (1,), np.float32)


class ObservationsLag(Drift):
    def step(self, actions, generator):
        before = self.x
        step = super().step(actions, generator)
        ended = (step.terminated | step.truncated)[:, None]
        return evolve(step, observations=torch.where(ended, step.observations, before))


class OneLanesViewForAll(Drift):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        seen = step.observations[:1].expand(self.count, 1)
        return evolve(step, observations=seen, successors=step.successors[:1].expand(self.count, 1))


class NormalisedOverLanes(Certain):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.rewards.sub_(step.rewards.mean())
        return step


class LogOfNothing(Certain):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.rewards.log_()
        return step


class FallEndsTheEpisode(Chancy):
    """Falling back to 0 ends the episode in the steps, and in the tables it does not."""

    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.terminated.logical_or_(step.successors == 0)
        return step


class EndIsNoEnd(Chancy):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.terminated.zero_()
        return step


class PaysForTheStateLeft(Chancy):
    def mdp(self):
        return evolve(super().mdp(), rewards=super().mdp().rewards.transpose(0, 2))


class ActionsSwitched(Chancy):
    def step(self, actions, generator):
        return super().step(1 - actions, generator)


class OtherChancesThanSaid(Chancy):
    def mdp(self):
        transitions = super().mdp().transitions.clone()
        transitions[:, 0] = torch.tensor([0.8, 0.1, 0.1, 0.0])
        return evolve(super().mdp(), transitions=transitions)


class RowsDoNotSumToOne(Chancy):
    def mdp(self):
        transitions = super().mdp().transitions.clone()
        transitions[1, 0] *= 0.925
        return evolve(super().mdp(), transitions=transitions)


class NegativeChances(Chancy):
    """Cut points of the unit interval that were not sorted."""

    def mdp(self):
        transitions = super().mdp().transitions.clone()
        transitions[0, 0] = torch.tensor([0.7, -0.4, 0.7, 0.0])
        return evolve(super().mdp(), transitions=transitions)


class ClockIsNotRestored(Chancy):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "clock": torch.zeros_like(state["clock"])})


class StateIsNoCopy(Chancy):
    def state_dict(self):
        return {"states": self._at, "clock": self._clock}


class GroupsPartAgain(Chancy):
    """Lanes 0 and 1 are of one group; each draws its next start alone."""

    mdp = None

    def __init__(self, count):
        super().__init__(count)
        self.groups = torch.arange(count) // 2

    def reset(self, generator):
        super().reset(generator)
        self._at.copy_(self._at[self.groups * 2])
        return self._step.observations.copy_(self._at)


class NothingAllowedAtTheEdge(Chancy):
    """In state 2 each action is forbidden for a reason of its own."""

    mdp = None

    def masks(self, states):
        return (states != 2)[:, None].expand(-1, 2)

    def reset(self, generator):
        first = super().reset(generator)
        self.action_masks = self.masks(first)
        return first

    def step(self, actions, generator):
        step = super().step(actions, generator)
        return evolve(step, action_masks=self.masks(step.observations))


class TransitionWithoutLimit(PureDrift):
    def transition(self, state, actions, noise):
        after, step = super().transition({**state, "clock": torch.ones_like(state["clock"])}, actions, noise)
        return after, step


class TransitionBeginsAtHome(PureDrift):
    def transition(self, state, actions, noise):
        return super().transition(state, actions, noise * torch.tensor([1.0, 0.0]) + torch.tensor([0.0, 0.5]))


class TransitionSlipsLess(PureDrift):
    def transition(self, state, actions, noise):
        return super().transition(state, actions, noise * 0.2 + 0.4)


class TransitionDrawsItself(PureDrift):
    def transition(self, state, actions, noise):
        return super().transition(state, actions, torch.rand_like(noise))


class TransitionInPlace(PureDrift):
    def transition(self, state, actions, noise):
        state["clock"] += 0 * state["clock"] + 1
        return super().transition({**state, "clock": state["clock"] - 1}, actions, noise)


MUTANTS = {  # what is wrong: (the mutant, where it was so, the law that finds it); None: no source found
    "a time limit that comes a step early": (
        OneStepShort,
        "https://github.com/MaximilianB2/pc-gym/issues/45",
        "the_time_limit_is_kept",
    ),
    "a time limit that is told as the world's end": (
        LimitIsAnEnd,
        "https://github.com/MaximilianB2/pc-gym/issues/45 and https://github.com/rlworkgroup/garage/pull/1118",
        "steps_are_those_of_the_tables",
    ),
    "one step counter for all lanes": (
        OneClockForAllLanes,
        "https://github.com/mani-skill/ManiSkill/issues/520",
        "the_time_limit_is_kept",
    ),
    "the next episode's first observation in place of the last": (
        FirstForLast,
        "https://github.com/google-deepmind/mujoco_playground/issues/305",
        "successors_are_where_the_episode_ended",
    ),
    "the next episode's first observation in place of the last, where all begin alike": (
        FirstForLastFromHome,
        "https://github.com/google-deepmind/mujoco_playground/issues/305",
        "successors_are_where_the_episode_ended",
    ),
    "the same among few places": (
        FirstForLastOnTheStrip,
        "https://github.com/google-deepmind/mujoco_playground/issues/305",
        "successors_are_where_the_episode_ended",
    ),
    "a last observation in a buffer that the reset overwrites": (
        OneBufferForBoth,
        "https://github.com/Farama-Foundation/Gymnasium/pull/1715",
        "successors_are_where_the_episode_ended",
    ),
    "a reset row that is told as a step": (
        ResetRowIsAStep,
        "https://github.com/vwxyzjn/cleanrl/issues/499",
        "successors_are_where_the_episode_ended",
    ),
    "the last step masked instead of the reset row": (EndIsNoStep, None, "a_row_that_is_no_step_follows_an_end"),
    "a step counter that survives reset": (
        ClockSurvivesReset,
        "https://github.com/Farama-Foundation/Gymnasium/issues/885",
        "reset_forgets_what_was_before",
    ),
    "a step counter that survives the episode": (
        ClockSurvivesEpisodes,
        "https://github.com/Farama-Foundation/Metaworld/pull/407",
        "every_episode_is_like_the_first",
    ),
    "a step counter that survives the episode, in a world with chance": (
        ClockSurvivesChance,
        "https://github.com/Farama-Foundation/Metaworld/pull/407",
        "later_episodes_are_as_long_as_the_first",
    ),
    "the same stream in two lanes": (OneStreamForTwo, None, "lanes_have_chance_of_their_own"),
    "the same seed in every lane": (
        OneSeedForAll,
        "https://github.com/hill-a/stable-baselines/issues/79",
        "lanes_have_chance_of_their_own",
    ),
    "a pure step without the time limit": (TransitionWithoutLimit, None, "transitions_are_steps"),
    "a pure step that begins episodes all alike": (TransitionBeginsAtHome, None, "transitions_are_steps"),
    "a pure step of less chance": (TransitionSlipsLess, None, "transitions_are_steps"),
    "a pure step that draws by itself": (TransitionDrawsItself, None, "transitions_are_steps"),
    "a pure step that moves the state it is handed": (TransitionInPlace, None, "transitions_are_steps"),
    "a seed that is taken and not used": (
        SeedNotUsed,
        "https://github.com/MaximilianB2/pc-gym/issues/44",
        "the_same_seed_tells_the_same",
    ),
    "a reset that seeds numpy for everybody": (
        SeedsEverybody,
        "https://github.com/ugr-sail/sinergym/issues/512",
        "the_global_generators_are_left_alone",
    ),
    "actions that the environment rescales in place": (
        ClipsInPlace,
        "https://github.com/rlworkgroup/garage/issues/273 and https://github.com/mees/calvin/issues/29",
        "actions_are_only_read",
    ),
    "actions that are kept by reference": (
        KeepsTheTensor,
        None,
        "actions_are_only_read",
    ),
    "a last observation outside the space": (
        EndsOutside,
        "https://github.com/openai/gym/issues/88",
        "what_is_seen_is_in_the_space",
    ),
    "observations that lag a step behind": (
        ObservationsLag,
        "https://github.com/Farama-Foundation/SuperSuit/pull/116",
        "only_an_end_parts_observations_from_successors",
    ),
    "one lane's observations in all of them": (
        OneLanesViewForAll,
        "https://github.com/sail-sg/envpool/pull/325",
        "lanes_do_not_disturb_each_other",
    ),
    "rewards centred over the lanes": (NormalisedOverLanes, None, "a_lane_alone_tells_what_it_tells_among_others"),
    "the logarithm of a reward of nothing": (LogOfNothing, None, "rewards_are_finite"),
    "a fall that ends the episode": (
        FallEndsTheEpisode,
        "https://github.com/brett-daley/gym-classics/issues/6",
        "steps_are_those_of_the_tables",
    ),
    "terminal states that do not end": (
        EndIsNoEnd,
        "https://github.com/openai/gym/pull/429",
        "steps_are_those_of_the_tables",
    ),
    "rewards of the wrong state": (
        PaysForTheStateLeft,
        "https://github.com/jmacglashan/burlap/pull/150",
        "steps_are_those_of_the_tables",
    ),
    "two actions exchanged": (
        ActionsSwitched,
        "https://github.com/openai/gym/issues/72",
        "steps_are_those_of_the_tables",
    ),
    "other probabilities than are said": (
        OtherChancesThanSaid,
        "https://github.com/Farama-Foundation/Gymnasium/issues/161",
        "steps_are_as_frequent_as_the_tables_say",
    ),
    "a row of probabilities that misses 1": (
        RowsDoNotSumToOne,
        "https://github.com/MatthewJA/Inverse-Reinforcement-Learning/issues/1",
        "tables_describe_a_world",
    ),
    "negative probabilities": (NegativeChances, None, "tables_describe_a_world"),
    "a clock that is not restored": (
        ClockIsNotRestored,
        "https://github.com/stanfordnmbl/osim-rl/issues/131",
        "lanes_put_back_go_on_as_if_never_left",
    ),
    "a saved state that goes on changing": (
        StateIsNoCopy,
        None,
        "lanes_put_back_go_on_as_if_never_left",
    ),
    "lanes of a group that part after an episode": (GroupsPartAgain, None, "groups_share_their_starts"),
    "a mask that allows nothing": (NothingAllowedAtTheEdge, None, "something_is_always_allowed"),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", MUTANTS)
def test_a_law_finds(wrong, loaded):
    mutant, _, law = MUTANTS[wrong]
    told = broken(law, Part("environment", "mutant", "tests", World(mutant)), loaded)
    assert told.case or told.expected is not None or "generator" in str(told) or "copy" in str(told)


def test_chi_square_is_pearsons():
    """16 of 20 where 10 are expected: χ² = 7.2 with one degree of freedom, whose tail is erfc(√3.6) = 0.00729."""
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert chi_square(torch.tensor([16.0, 4.0]), half) == pytest.approx(0.007290358, rel=1e-6)
    assert chi_square(torch.tensor([1.0, 0.0]), half) == 1.0  # too few to say anything
    assert chi_square(torch.tensor([9.0, 1.0]), torch.tensor([1.0, 0.0])) == 0.0  # impossible


def test_fishers_test_is_the_tea_taster_s():
    """All four of four cups right: 1 in C(8, 4) = 70; three or more: 17 in 70 (Fisher 1935, chapter II)."""
    assert fisher(4, 0, 0, 4) == pytest.approx(1 / 70)
    assert fisher(3, 1, 1, 3) == pytest.approx(17 / 70)
    assert fisher(0, 4, 4, 0) == 1


def test_a_sound_environment_is_called_unsound_as_seldom_as_promised():
    """Of 2000 multinomial counts with small cells, p < 1 % comes in 1 % of cases, within six standard errors."""
    generator = torch.Generator().manual_seed(0)
    chances = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01], dtype=torch.float64)
    drawn = torch.multinomial(chances.expand(2000, 5), 200, replacement=True, generator=generator)
    found = [chi_square(torch.bincount(row, minlength=5).double(), chances) for row in drawn]
    assert sum(p < 0.01 for p in found) / 2000 < 0.01 + 6 * (0.01 * 0.99 / 2000) ** 0.5
