"""Small environments that satisfy every law; mutants are made from them."""

import numpy as np
import torch
from attrs import evolve, frozen
from gymnasium.spaces import Box

from framework import Step, TabularLanes, TabularMDP

# Correct environments


def tables(limit=4):
    """States 0 to 2 and terminal state 3; two stochastic actions; starts in 0 or 1; all r(s, a, s′) are different."""
    transitions = torch.zeros(4, 2, 4, dtype=torch.float64)
    transitions[:, 0] = torch.tensor([0.1, 0.6, 0.3, 0.0])
    transitions[:, 1] = torch.tensor([0.0, 0.2, 0.5, 0.3])
    rewards = torch.arange(32, dtype=torch.float64).reshape(4, 2, 4)
    start = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    return TabularMDP(transitions, rewards, start, torch.tensor([False, False, False, True]), limit)


class Stochastic(TabularLanes):
    """A stochastic environment with tables."""

    def __init__(self, count):
        super().__init__(tables(), count)


class Deterministic(TabularLanes):
    """States 0, 1, 2 in a row: action 1 moves right, 0 left; deterministic, without `mdp`."""

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
    """A number near 0 that actions push up or down, until it is beyond ½ or after six steps."""

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
    """The same with a pure `transition`."""

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


class Slippery(Deterministic):
    """In one of a thousand steps the other action is taken."""

    def likely(self, transitions):
        return 0.999 * transitions + 0.001 * transitions.flip(1)


class LateRandomness(Deterministic):
    """Rewards are random from step 41 on; the first forty steps are deterministic."""

    limit, taken = 30, 0

    def step(self, actions, generator):
        step, self.taken = super().step(actions, generator), self.taken + 1
        if self.taken > 40:
            step.rewards.copy_(torch.rand(len(actions), generator=generator))
        return step


class Forbidding(Stochastic):
    """In state 0 action 1 is masked, and raises."""

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
    """Each episode starts at 0."""

    def begin(self, generator):
        return torch.zeros(self.count, 1)


class Strip(TabularLanes):
    """Four states in a row, starting in the first; actions sometimes slip; without `mdp`."""

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


class ReturnsToStart(TabularLanes):
    """Out and back: the terminal state has the same observation as the start, and there is no time limit."""

    mdp = None

    def __init__(self, count):
        transitions = torch.zeros(4, 2, 4, dtype=torch.float64)
        transitions[0, :, 1] = transitions[1, :, 2] = transitions[2, 0, 1] = transitions[2, 1, 3] = transitions[
            3, :, 3
        ] = 1
        start, end = torch.tensor([1.0, 0, 0, 0]), torch.tensor([False, False, False, True])
        seen = torch.tensor([0, 1, 2, 0])
        super().__init__(TabularMDP(transitions, torch.ones_like(transitions), start, end, None, seen), count)


class Dial(TabularLanes):
    """A dial of ten numbers, and a limit of ten steps: each episode ends where it starts."""

    mdp = None

    def __init__(self, count):
        transitions = torch.eye(10, dtype=torch.float64).roll(1, 1).unsqueeze(1).repeat(1, 2, 1)
        never = torch.zeros(10, dtype=torch.bool)
        super().__init__(TabularMDP(transitions, torch.ones_like(transitions), torch.eye(10)[0], never, 10), count)


@frozen
class EnvironmentSettings:
    """Settings that build one of the classes here."""

    lanes: type = Stochastic

    def build(self, num_envs, device):
        return self.lanes(num_envs)
