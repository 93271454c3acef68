"""Policies with memory and environments for them."""

import torch
from gymnasium.spaces import Discrete

from framework import Step

CPU = torch.device("cpu")
CLOSE = {"rtol": 0, "atol": 1e-10}  # float64 sums of some ten numbers of order 1, through a dozen steps: 1e-14 at most


class Patchy:
    """Everything is drawn: what is seen, allowed and earned, which episodes end and how; with reset rows or not.

    `successors_seen` keeps each step's successors.
    """

    observation_space = Discrete(5, start=-1)
    action_space = Discrete(3, start=2)

    def __init__(self, count, reset_rows, masked):
        self.count, self.reset_rows, self.masked = count, reset_rows, masked
        self.successors_seen = []

    def observe(self, generator):
        return torch.randint(-1, 4, (self.count,), generator=generator)

    def allow(self, generator):
        if not self.masked:
            return None
        allowed = torch.rand(self.count, 3, generator=generator) < 0.6
        allowed[:, 0] |= ~allowed.any(1)
        return allowed

    def reset(self, generator):
        self.waiting = torch.zeros(self.count, dtype=torch.bool)
        if self.masked:
            self.action_masks = self.allow(generator)
        return self.observe(generator)

    def step(self, actions, generator):
        terminated, truncated = ((torch.rand(self.count, generator=generator) < 0.2) & ~self.waiting for _ in range(2))
        successors, valid = self.observe(generator), ~self.waiting if self.reset_rows else None
        ended = terminated | truncated
        observations = torch.where(ended, self.observe(generator), successors)
        self.successors_seen.append(successors)
        if self.reset_rows:
            observations, self.waiting = successors, ended
        rewards = torch.randn(self.count, generator=generator)
        return Step(observations, successors, rewards, terminated, truncated, valid, self.allow(generator))


def remembering(module, seed=0, observations=Patchy.observation_space, actions=Patchy.action_space):
    """A small policy with weights of its own, far from uniform, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = module.Recurrent(hidden=(5,), activation="tanh", embedding=3, memory=4).build(observations, actions)
        for parameter in policy.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return policy.double()
