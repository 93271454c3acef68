"""Parity with the notebook: its formulas written anew, step by step, for one environment."""

import math

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import nn
from torch.distributions import Categorical as Distribution

import framework
from framework import RolloutSettings
from framework.config import DEFAULTS
from framework.learning.batches import flatten, reduce
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.stages import Core


class Agent(nn.Module):
    """The notebook's network."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def distribution(self, state):
        logits = self.network(self.embedding(torch.tensor([state])))
        return Distribution(logits=logits, validate_args=False)  # of its numbers, none is checked: half the time


def rewards_to_go(rewards, gamma):
    current, reversed_returns = 0.0, []
    for reward in reversed(rewards):
        current = reward + gamma * current
        reversed_returns.append(current)
    return reversed_returns[::-1]


def walk(agent, choose=None):
    """One episode: states, actions, rewards, log-probs with their graphs."""
    state, steps = 0, []
    for _ in range(100):
        if state == 4:
            break
        distribution = agent.distribution(state)
        action = distribution.sample()
        following = max(0, state - 1) if action.item() == 0 else min(4, state + 1)
        steps.append((state, action.item(), 10.0 if following == 4 else -1.0, distribution.log_prob(action)))
        state = following
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradients_equal_the_notebooks(seed, dtype):
    """Same weights, same episodes: loss and every gradient agree to 1e-6.

    In float64 component by component. In float32 both sides round sums of some 130 terms of size up to 10, so there the
    difference is compared with the gradient's norm.
    """
    loaded = load()
    run = build(configure(loaded, {**DEFAULTS, "reports": [], "seed": seed}), loaded, Core())
    rollout = run.hook.collect_rollout(run=run)
    rollout = evolve(rollout, rewards=rollout.rewards.to(dtype), log_probs=rollout.log_probs.to(dtype))
    run.policy.to(dtype)
    agent = Agent().to(dtype)
    agent.load_state_dict(run.policy.state_dict())

    batch = flatten(rollout, run.hook.estimate_advantages(run=run, rollout=rollout))
    loss = run.hook.compute_loss(run=run, batch=batch)
    ours = sum(reduce(loss, batch, "per_step").values())
    ours.backward()

    terms = []
    for n in range(rollout.mask.shape[1]):
        episode, rewards = [], []
        for t in range(len(rollout.mask)):
            if not rollout.mask[t, n]:
                continue
            distribution = agent.distribution(rollout.observations[t, n].item())
            episode.append(distribution.log_prob(rollout.actions[t, n]))
            rewards.append(rollout.rewards[t, n].item())
            if rollout.terminated[t, n] or rollout.truncated[t, n]:
                terms += [p * g for p, g in zip(episode, rewards_to_go(rewards, 0.99), strict=True)]
                episode, rewards = [], []
        assert not episode
    theirs = -torch.stack(terms).mean()
    theirs.backward()

    assert math.isclose(ours.item(), theirs.item(), rel_tol=1e-6)
    for (name, mine), other in zip(run.policy.named_parameters(), agent.parameters(), strict=True):
        size = 1.0 if dtype == torch.float64 else max(1.0, float(other.grad.norm()))
        assert (mine.grad - other.grad).abs().max() < 1e-6 * size, name


def notebook_training(seed):
    """The notebook's loop: 100 updates of exactly 128 steps; returns P(RIGHT) by state."""
    torch.manual_seed(seed)
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    for _ in range(100):
        log_probs, returns = [], []
        while len(log_probs) < 128:
            steps = walk(agent)
            log_probs += [log_prob for _, _, _, log_prob in steps]
            returns += rewards_to_go([reward for _, _, reward, _ in steps], 0.99)
        terms = [p * g for p, g in zip(log_probs[:128], returns[:128], strict=True)]
        optimizer.zero_grad()
        (-torch.stack(terms).mean()).backward()
        optimizer.step()
    return [agent.distribution(state).probs[0, 1].item() for state in range(4)]


def our_training(seed):
    """The default run for 100 updates: one lane, so that a batch is 128 steps and the rest of the last episode."""
    result = framework.train(seed=seed, rollout=RolloutSettings(lanes=1, steps=128))
    with torch.no_grad():
        table = result.policy.table().exp()
    return table[:4, 1].tolist(), result.run.steps


@pytest.mark.slow
def test_trained_like_the_notebook_it_learns_as_much():
    """Seeds 0 to 19 of each, fixed beforehand: each state's mean P(RIGHT) is at least the notebook's, less 3 errors.

    Steps: the notebook takes 12,800; we finish the last episode of each batch, so ours are counted and printed.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        theirs = np.array([notebook_training(seed) for seed in range(20)])
    assert torch.get_num_threads() == threads
    trained = [our_training(seed) for seed in range(20)]
    ours, steps = np.array([row for row, _ in trained]), [count for _, count in trained]
    error = np.sqrt(ours.var(0, ddof=1) / 20 + theirs.var(0, ddof=1) / 20)
    print(
        f"\nP(RIGHT) ours {ours.mean(0).round(3)}, notebook {theirs.mean(0).round(3)}, standard error {error.round(3)}"
    )
    print(f"steps a run: ours {np.mean(steps):,.0f}, notebook 12,800")
    assert (ours.mean(0) > theirs.mean(0) - 3 * error).all()
