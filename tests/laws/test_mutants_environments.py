"""Bugs that were found in environments elsewhere break the law that they should."""

import numpy as np
import pytest
import torch
from attrs import evolve
from correct_environments import Deterministic, Drift, EnvironmentSettings, FromHome, PureDrift, Stochastic, Strip
from gymnasium.spaces import Box
from mutants import broken

from framework import Step
from framework.parts import Part

# Mutants: bugs that existed elsewhere, each as a small change of a correct environment


class OneStepShort(Stochastic):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        early = (self._clock == 3) & ~step.terminated
        step.truncated.logical_or_(early)
        self._clock *= ~early
        return step


class LimitIsAnEnd(Stochastic):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.terminated.logical_or_(step.truncated)
        return step


class OneClockForAllLanes(Stochastic):
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
    """Episodes end as with Gymnasium's NEXT_STEP, but the reset row is not marked as invalid."""

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


class ClockSurvivesEpisodes(Deterministic):
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
        actions *= 0.3  # scaled to the range of the motors
        return self.x + actions + torch.rand(self.count, 1, generator=generator) / 10


class KeepsTheTensor(Drift):
    """Keeps the last action, for smoothing: the tensor itself instead of a copy."""

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


class NormalisedOverLanes(Deterministic):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.rewards.sub_(step.rewards.mean())
        return step


class LogOfNothing(Deterministic):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.rewards.log_()
        return step


class FallEndsTheEpisode(Stochastic):
    """Falling back to 0 ends the episode in `step`, but not in the tables."""

    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.terminated.logical_or_(step.successors == 0)
        return step


class EndIsNoEnd(Stochastic):
    def step(self, actions, generator):
        step = super().step(actions, generator)
        step.terminated.zero_()
        return step


class PaysForTheStateLeft(Stochastic):
    def mdp(self):
        return evolve(super().mdp(), rewards=super().mdp().rewards.transpose(0, 2))


class ActionsSwitched(Stochastic):
    def step(self, actions, generator):
        return super().step(1 - actions, generator)


class OtherChancesThanSaid(Stochastic):
    def mdp(self):
        transitions = super().mdp().transitions.clone()
        transitions[:, 0] = torch.tensor([0.8, 0.1, 0.1, 0.0])
        return evolve(super().mdp(), transitions=transitions)


class RowsDoNotSumToOne(Stochastic):
    def mdp(self):
        transitions = super().mdp().transitions.clone()
        transitions[1, 0] *= 0.925
        return evolve(super().mdp(), transitions=transitions)


class NegativeChances(Stochastic):
    """Cut points of the unit interval that were not sorted."""

    def mdp(self):
        transitions = super().mdp().transitions.clone()
        transitions[0, 0] = torch.tensor([0.7, -0.4, 0.7, 0.0])
        return evolve(super().mdp(), transitions=transitions)


class ClockIsNotRestored(Stochastic):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "clock": torch.zeros_like(state["clock"])})


class StateIsNoCopy(Stochastic):
    def state_dict(self):
        return {"states": self._at, "clock": self._clock}


class GroupsPartAgain(Stochastic):
    """Lanes 0 and 1 are in one group, but each draws its next start separately."""

    mdp = None

    def __init__(self, count):
        super().__init__(count)
        self.groups = torch.arange(count) // 2

    def reset(self, generator):
        super().reset(generator)
        self._at.copy_(self._at[self.groups * 2])
        return self._step.observations.copy_(self._at)


class NothingAllowedAtTheEdge(Stochastic):
    """In state 2 both actions are masked, each for a different reason."""

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


MUTANTS = {  # bug: (the mutant, source, the law that finds it); None: no source found
    "a time limit that comes a step early": (
        OneStepShort,
        "https://github.com/MaximilianB2/pc-gym/issues/45",
        "the_time_limit_is_kept",
    ),
    "a time limit reported as termination": (
        LimitIsAnEnd,
        "https://github.com/MaximilianB2/pc-gym/issues/45 and https://github.com/rlworkgroup/garage/pull/1118",
        "steps_follow_the_tables",
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
    "the next episode's first observation in place of the last, where all start in the same state": (
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
    "a reset row reported as a step": (
        ResetRowIsAStep,
        "https://github.com/vwxyzjn/cleanrl/issues/499",
        "successors_are_where_the_episode_ended",
    ),
    "the last step masked instead of the reset row": (EndIsNoStep, None, "invalid_rows_only_follow_ends"),
    "a step counter that survives reset": (
        ClockSurvivesReset,
        "https://github.com/Farama-Foundation/Gymnasium/issues/885",
        "reset_clears_all_state",
    ),
    "a step counter that survives the episode": (
        ClockSurvivesEpisodes,
        "https://github.com/Farama-Foundation/Metaworld/pull/407",
        "every_episode_is_like_the_first",
    ),
    "a step counter that survives the episode, in a stochastic environment": (
        ClockSurvivesChance,
        "https://github.com/Farama-Foundation/Metaworld/pull/407",
        "later_episodes_are_as_long_as_the_first",
    ),
    "the same stream in two lanes": (OneStreamForTwo, None, "lanes_have_independent_randomness"),
    "the same seed in every lane": (
        OneSeedForAll,
        "https://github.com/hill-a/stable-baselines/issues/79",
        "lanes_have_independent_randomness",
    ),
    "a pure step without the time limit": (TransitionWithoutLimit, None, "transition_matches_step"),
    "a pure step that starts all episodes in the same state": (TransitionBeginsAtHome, None, "transition_matches_step"),
    "a pure step with less noise": (TransitionSlipsLess, None, "transition_matches_step"),
    "a pure step that draws its own random numbers": (TransitionDrawsItself, None, "transition_matches_step"),
    "a pure step that modifies the state it is given": (TransitionInPlace, None, "transition_matches_step"),
    "a seed that is accepted and not used": (
        SeedNotUsed,
        "https://github.com/MaximilianB2/pc-gym/issues/44",
        "the_same_seed_gives_the_same_steps",
    ),
    "a reset that seeds numpy's global generator": (
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
        "observations_are_in_the_space",
    ),
    "observations that lag a step behind": (
        ObservationsLag,
        "https://github.com/Farama-Foundation/SuperSuit/pull/116",
        "observations_differ_from_successors_only_at_ends",
    ),
    "one lane's observations in all of them": (
        OneLanesViewForAll,
        "https://github.com/sail-sg/envpool/pull/325",
        "lanes_do_not_disturb_each_other",
    ),
    "rewards centred over the lanes": (NormalisedOverLanes, None, "lanes_do_not_depend_on_the_number_of_lanes"),
    "the logarithm of a reward of 0": (LogOfNothing, None, "rewards_are_finite"),
    "a fall that ends the episode": (
        FallEndsTheEpisode,
        "https://github.com/brett-daley/gym-classics/issues/6",
        "steps_follow_the_tables",
    ),
    "terminal states that do not end": (
        EndIsNoEnd,
        "https://github.com/openai/gym/pull/429",
        "steps_follow_the_tables",
    ),
    "rewards of the wrong state": (
        PaysForTheStateLeft,
        "https://github.com/jmacglashan/burlap/pull/150",
        "steps_follow_the_tables",
    ),
    "two actions exchanged": (
        ActionsSwitched,
        "https://github.com/openai/gym/issues/72",
        "steps_follow_the_tables",
    ),
    "other probabilities than in the tables": (
        OtherChancesThanSaid,
        "https://github.com/Farama-Foundation/Gymnasium/issues/161",
        "steps_are_as_frequent_as_the_tables_say",
    ),
    "a row of probabilities that does not sum to 1": (
        RowsDoNotSumToOne,
        "https://github.com/MatthewJA/Inverse-Reinforcement-Learning/issues/1",
        "tables_describe_an_mdp",
    ),
    "negative probabilities": (NegativeChances, None, "tables_describe_an_mdp"),
    "a step counter that is not restored": (
        ClockIsNotRestored,
        "https://github.com/stanfordnmbl/osim-rl/issues/131",
        "restored_lanes_continue_identically",
    ),
    "a saved state that goes on changing": (
        StateIsNoCopy,
        None,
        "restored_lanes_continue_identically",
    ),
    "lanes of a group that diverge after an episode": (GroupsPartAgain, None, "groups_share_their_starts"),
    "a mask that allows no action": (NothingAllowedAtTheEdge, None, "an_action_is_always_allowed"),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", MUTANTS)
def test_a_law_finds(wrong, loaded):
    mutant, _, law = MUTANTS[wrong]
    reported = broken(law, Part("environment", "mutant", "tests", EnvironmentSettings(mutant)), loaded)
    assert reported.case or reported.expected is not None or "generator" in str(reported) or "copy" in str(reported)
