"""Exact values and gradients: the design's numbers, brute force, and the Monte-Carlo gradient that must agree."""

import math

import pytest
import torch
from attrs import evolve
from framework_line_world import LineWorld
from hypothesis import given
from hypothesis import strategies as st
from worlds import enumerate_episodes

import framework
from framework import RolloutSettings, TabularMDP
from framework.batches import flatten
from framework.exact import expected_return, state_values
from framework.run import build
from framework.testing.strategies import mdps
from framework.training import Core

LIMITS = {
    None: ([-9, -7, -3, 3], [4, 9, 10, 7]),  # DESIGN.md §10; by hand: V(3) = ½·10 + ½·(V(2) − 1), and so on
    100: ([-8.986, -6.988, -2.991, 3.005], [3.972, 8.931, 9.922, 6.949]),
}


def line_world_gradient(limit):
    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), time_limit=limit)
    differences = torch.zeros(5, dtype=torch.float64, requires_grad=True)  # logit of RIGHT minus that of LEFT
    probabilities = torch.stack([torch.sigmoid(-differences), torch.sigmoid(differences)], 1)
    values = state_values(mdp, probabilities, 1.0)
    (gradient,) = torch.autograd.grad(expected_return(mdp, probabilities, 1.0), differences)
    return values.detach()[:4], gradient[:4]


@pytest.mark.parametrize("limit", LIMITS)
def test_line_world_has_the_designs_values_and_gradient(limit):
    values, gradient = line_world_gradient(limit)
    expected_values, expected_gradient = LIMITS[limit]
    tolerance = 1e-9 if limit is None else 5e-4  # half a unit of the last digit quoted
    assert torch.allclose(values, torch.tensor(expected_values, dtype=torch.float64), atol=tolerance)
    assert torch.allclose(gradient, torch.tensor(expected_gradient, dtype=torch.float64), atol=tolerance)


@given(mdps(), st.sampled_from([0.0, 0.5, 1.0]))
def test_expected_return_is_the_mean_over_all_episodes(world, gamma):
    probabilities = torch.full(world.transitions.shape[:2], 1 / world.transitions.shape[1], dtype=torch.float64)
    brute = sum(
        p * sum(gamma**t * reward for t, (_, _, reward) in enumerate(steps))
        for p, steps, _ in enumerate_episodes(world, probabilities)
    )
    assert math.isclose(float(expected_return(world, probabilities, gamma)), brute, abs_tol=1e-9)


@given(mdps(), st.sampled_from([0.5, 0.9]))
def test_a_long_limit_is_no_limit(world, gamma):
    """γᵀ·|V| bounds the difference: 0.9⁴⁰⁰·20 < 1e-16."""
    probabilities = torch.full(world.transitions.shape[:2], 1 / world.transitions.shape[1], dtype=torch.float64)
    endless, long = (state_values(evolve(world, time_limit=limit), probabilities, gamma) for limit in (None, 400))
    assert torch.allclose(endless, long, atol=1e-9)


def test_a_policy_that_never_ends_has_no_undiscounted_value():
    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), time_limit=None)
    always_left = torch.tensor([[1.0, 0.0]] * 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="some episode never ends"):
        state_values(mdp, always_left, 1.0)
    assert math.isclose(float(state_values(mdp, always_left, 0.9)[0]), -10.0, abs_tol=1e-9)  # −1/(1 − γ)


def uniform_categorical(policy):
    with torch.no_grad():
        policy.network[-1].weight.zero_()
        policy.network[-1].bias.zero_()


@pytest.mark.slow
@pytest.mark.parametrize("max_steps", [0, 100])
def test_monte_carlo_gradient_agrees_with_the_exact_one(max_steps):
    """REINFORCE with rewards-to-go, γ = 1, 200,000 episodes by number: within six standard errors in each component.

    The gradient by logit difference is taken by hand from what the framework's own stages collected and estimated.
    """
    sums, squares, count = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 0
    config, loaded = _config(max_steps)
    run = build(config, loaded, Core())
    uniform_categorical(run.policy)
    while count < 200_000:
        rollout = run.hook.collect_rollout(run=run)
        advantages = run.hook.estimate_advantages(run=run, rollout=rollout)
        batch = flatten(rollout, advantages)
        episodes = rollout.episodes[rollout.mask]
        number = int(episodes.max()) + 1
        assert number == 20_000
        score = (batch.actions.double() - 0.5) * batch.advantages.double()  # ∇ of log π(a|s) is a − P(RIGHT)
        per_episode = torch.zeros(number, 4, dtype=torch.float64)
        per_episode.index_put_((episodes, batch.observations), score, accumulate=True)
        sums += per_episode.sum(0)
        squares += per_episode.square().sum(0)
        count += number
        run.iteration += 1
    mean = sums / count
    error = ((squares / count - mean.square()) / count).sqrt()
    exact = line_world_gradient(max_steps or None)[1]
    deviations = (mean - exact) / error
    print(f"\nlimit {max_steps}: {mean.tolist()} against {exact.tolist()}; in standard errors {deviations.tolist()}")
    assert deviations.abs().max() < 6


def _config(max_steps):
    import attrs

    from framework.config import DEFAULTS, configure
    from framework.plugins import load

    loaded = load()
    tree = {**DEFAULTS, "reports": [], "rollout": {"lanes": 1000, "episodes": 20_000}}
    tree["environment"] = {"name": "line_world", "max_steps": max_steps}
    tree["estimator"] = {"name": "rewards_to_go", "gamma": 1.0}
    return attrs.evolve(configure(loaded, tree), seed=7), loaded


def test_training_reaches_the_best_return():
    """After 300 updates sampled episodes come near the best return, 7."""
    result = framework.train(iterations=300, seed=0, rollout=RolloutSettings(episodes=32))
    assert result.recent_returns.mean() > 5.5  # the uniform policy's is −9


@given(st.integers(2, 5), st.integers(0, 2**31))
def test_without_discount_and_limit_a_world_that_need_not_end_has_no_value(states, seed):
    """Random transitions among the others, none into the terminal state: refused, and not solved by rounding."""
    generator = torch.Generator().manual_seed(seed)
    transitions = torch.rand(states + 1, 2, states + 1, generator=generator, dtype=torch.float64)
    transitions[..., -1] = 0
    transitions /= transitions.sum(-1, keepdim=True)
    terminal = torch.arange(states + 1) == states
    start = torch.ones(states + 1, dtype=torch.float64) / (states + 1)
    world = TabularMDP(transitions, torch.ones_like(transitions), start, terminal)
    uniform = torch.full((states + 1, 2), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="V does not exist"):
        state_values(world, uniform, 1.0)
    values = state_values(world, uniform, 0.5)
    assert torch.allclose(values[:-1], torch.tensor(2.0, dtype=torch.float64))  # 1 + 1/2 + 1/4 + …
