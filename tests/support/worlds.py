"""Tabular worlds as real environments: the step interface and the tables describe the same world."""

import torch
from attrs import frozen
from framework_networks.softmax import TableActor
from gymnasium.spaces import Discrete

from framework import Action, Evaluation, Step, TabularMDP
from framework.tabular.shard import shard_of


@frozen(eq=False)
class TabularWorld:
    """An environment's settings from a `TabularMDP`; `tables=False` hides the tables."""

    world: TabularMDP
    tables: bool = True

    def build(self, num_envs, device):
        return Lanes(self.world, num_envs, self.tables)


class Lanes:
    """Steps a `TabularMDP` literally: draw a successor, look up the reward, compare the clock."""

    def __init__(self, world, num_envs, tables):
        self.world, self.count = world, num_envs
        self.observation_space = Discrete(len(world.start))
        self.action_space = Discrete(world.transitions.shape[1])
        if tables:
            self.mdp = lambda: world

    def reset(self, generator):
        self.clock = torch.zeros(self.count, dtype=torch.int64)
        self.states = self.first(self.count, generator)
        return self.states

    def first(self, count, generator):
        return torch.multinomial(self.world.start, count, replacement=True, generator=generator)

    def step(self, actions, generator):
        rows = self.world.transitions[self.states, actions]
        successors = torch.multinomial(rows, 1, generator=generator).squeeze(1)
        rewards = self.world.rewards[self.states, actions, successors].float()
        terminated = self.world.terminal[successors]
        self.clock = self.clock + 1
        truncated = self.clock >= (self.world.time_limit or 2**60)
        ended = terminated | truncated
        self.states = torch.where(ended, self.first(self.count, generator), successors)
        self.clock = torch.where(ended, 0, self.clock)
        return Step(self.states, successors, rewards, terminated, truncated)


def enumerate_episodes(world, probabilities):
    """Every possible episode of a world with a time limit: (probability, [(s, a, r)], terminated), by brute force."""
    episodes = []

    def extend(probability, steps, state):
        if len(steps) == world.time_limit or (steps and world.terminal[state]):
            episodes.append((probability, steps, bool(world.terminal[state])))
            return
        for action, p in enumerate(probabilities[state].tolist()):
            for successor, q in enumerate(world.transitions[state, action].tolist()):
                if p * q > 0:
                    reward = float(world.rewards[state, action, successor])
                    extend(probability * p * q, [*steps, (state, action, reward)], successor)

    for state, probability in enumerate(world.start.tolist()):
        if probability > 0:
            extend(probability, [], state)
    return episodes


class TabularPolicy(torch.nn.Module):
    """A table of logits and one of values; `fast` offers the table as actor, as `categorical` does."""

    def __init__(self, logits, values=None, fast=True):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.table = torch.nn.Parameter(torch.zeros(len(logits)) if values is None else values)
        self.fast = fast

    def act(self, inputs, generator):
        probabilities = self.logits.softmax(1).detach()[inputs.observations]
        return Action(torch.multinomial(probabilities, 1, generator=generator).squeeze(1))

    def evaluate(self, inputs, actions, entropies):
        return Evaluation(self.logits.log_softmax(1)[inputs.observations, actions])

    def values(self, inputs):
        return self.table[inputs.observations]

    def actor(self):
        return TableActor(self.logits.detach().log_softmax(1)) if self.fast else None


def shard(world, tables, lanes, seed=0, number=0, **amount):
    """A shard of a tabular world; `amount` is one of steps, episodes and fixed_steps."""
    environment = Lanes(world, lanes, tables)
    amounts = {"steps": None, "episodes": None, "fixed_steps": None, **amount}
    return shard_of(
        environment=environment,
        lanes=lanes,
        **amounts,
        seed=seed,
        number=number,
        device=torch.device("cpu"),
        labels=("environment 'world' (plugin tests)", "policy 'table' (plugin tests)"),
    )
