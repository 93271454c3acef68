"""Densities of Gaussian policies: they integrate to one, samples follow them, actions fit the space."""

import math

import framework_policies.gaussian as gaussian
import numpy as np
import pytest
import torch
from framework_policies import Gaussian
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from policy_laws import (
    DENSITIES,
    DEVIATIONS,
    ENVIRONMENTS,
    MEANS,
    built,
    law_densities_are_torchs,
    law_densities_integrate_to_one,
    law_samples_are_normal,
    law_the_environment_gets_actions_of_its_space,
    one_number,
)
from scipy.stats import norm

from framework import Inputs


@given(*DENSITIES)
def test_densities_are_torchs(observations, actions, kind, seed):
    law_densities_are_torchs(gaussian, observations, actions, kind, seed)


@given(st.booleans(), MEANS, DEVIATIONS)
def test_densities_integrate_to_one(squash, mean, deviation):
    law_densities_integrate_to_one(gaussian, squash, mean, deviation)


@given(st.floats(-3, 3), st.floats(0.1, 5))
def test_squashed_entropies_are_as_exact_as_they_say(mean, deviation):
    """Off by 1e-7 for σ ≤ 1, 2e-4 for σ ≤ 2 and 0.03 for σ ≤ 5, of −∫ p·log p = H(u) + E[log(1 − tanh²u)] + log 1.

    The expectation by the trapezoidal rule over ±10 deviations, whose error is far below 1e-9 for so smooth a function.
    """
    policy = one_number(None, True, mean, deviation, Box(-1.0, 1.0, (1,)))
    z = np.linspace(-10, 10, 20_001)
    u = np.abs(mean + deviation * z)
    gradients = 2 * (math.log(2) - u - np.log1p(np.exp(-2 * u)))
    expected = norm(0, deviation).entropy() + np.trapezoid(gradients * norm.pdf(z), z)
    entropies = policy.evaluate(Inputs(torch.zeros(1, dtype=torch.int64)), torch.zeros(1, 1), True).entropies
    # float32 nodes and weights, 32 of them, add 1e-6
    allowed = 1e-6 + (1e-7 if deviation <= 1 else 2e-4 if deviation <= 2 else 0.03)
    assert entropies.item() == pytest.approx(expected, abs=allowed)


@pytest.mark.parametrize("deviation", ["global", "state"])
def test_samples_are_normal(deviation):
    law_samples_are_normal(gaussian, deviation, 1)


@given(*ENVIRONMENTS)
def test_the_environment_gets_actions_of_its_space(space, squash, seed):
    law_the_environment_gets_actions_of_its_space(gaussian, space, squash, seed)


def test_actions_without_bounds_are_left_as_they_are():
    policy = built("Gaussian", Discrete(1), Box(-np.inf, np.inf, (2,)), dtype=torch.float32)
    u = torch.tensor([[1e30, -3.0]])
    assert torch.equal(policy.environment_actions(u), u)


@pytest.mark.parametrize("deviation", ["global", "state"])
def test_the_first_deviation_is_the_one_asked_for(deviation):
    """Learnt globally it is exactly that; as output, e to the outputs' power times it."""
    policy = Gaussian(deviation=deviation, initial_deviation=0.25).build(Discrete(1), Box(-1.0, 1.0, (3,)))
    if deviation == "state":
        with torch.no_grad():
            for parameter in policy.network.network[-1].parameters():
                parameter.zero_()
    u = torch.zeros(1, 3)
    entropy = policy.evaluate(Inputs(torch.tensor([0])), u, True).entropies.item()
    assert entropy == pytest.approx(3 * norm(0, 0.25).entropy(), abs=1e-5)


@pytest.mark.parametrize("u", [-40.0, -12.0, 12.0, 40.0])
def test_densities_far_out_are_finite_and_right(u):
    """1 − tanh²u is 0 in float32 beyond |u| = 9; its logarithm is 2·(log 2 − |u|), give or take e^(−2|u|)."""
    policy = one_number(None, True, 0.0, 1.0, Box(-1.0, 1.0, (1,))).float()
    said = policy.evaluate(Inputs(torch.tensor([0])), torch.tensor([[u]]), False)
    expected = norm.logpdf(u) - 2 * (math.log(2) - abs(u))
    assert said.log_probs.item() == pytest.approx(expected, rel=1e-6)
