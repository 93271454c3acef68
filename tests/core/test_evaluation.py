"""Evaluations: exactly n whole episodes, repeated bit for bit, apart from training, with the right statistics."""

import numpy as np
import pytest
import torch
from evaluation_laws import (
    CARELESS,
    RANDOM,
    RETURNS,
    WORLDS,
    fork,
    law_an_evaluation_repeats_bit_for_bit,
    law_exactly_so_many_whole_episodes_are_played,
    law_long_episodes_count_in_full,
    law_nothing_is_left_changed,
    law_randomness_is_never_that_of_training,
    law_statistics_are_scipys,
    uniform,
)
from framework_line_world import LineWorld
from framework_policies import Tabular
from gymnasium.spaces import Discrete
from hypothesis import given
from hypothesis import strategies as st
from worlds import Lanes

import framework
from framework import Performance
from framework import evaluation as evaluations
from framework.exact import expected_return

UNIFORM = torch.full((5, 2), 0.5, dtype=torch.float64)


@given(*WORLDS)
def test_exactly_so_many_whole_episodes_are_played(world, tables, episodes, lanes, seed):
    law_exactly_so_many_whole_episodes_are_played(evaluations, world, tables, episodes, lanes, seed)


FEW_LANES = st.sampled_from([1, 7, 16, 300, 1024])


@pytest.mark.slow
@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("lanes", [1, 7, 300, 1024])
def test_long_episodes_count_in_full(tables, lanes):
    law_long_episodes_count_in_full(evaluations, tables, lanes, 0)


@pytest.mark.slow
@pytest.mark.parametrize("goal", [2, 4])
@pytest.mark.parametrize("lanes", [1, 16, 64])
def test_a_sampled_evaluation_agrees_with_the_exact_expectation(goal, lanes):
    """Within five standard errors of J, for the uniform policy; its time limit included."""
    environment = LineWorld(goal=goal)
    policy = Tabular().build(Discrete(goal + 1), Discrete(2))
    played = framework.evaluate(policy, environment, episodes=2000, lanes=lanes, seed=goal)
    mdp = environment.build(1, torch.device("cpu")).mdp()
    exact = float(expected_return(mdp, UNIFORM[: goal + 1], 1.0))
    assert abs(played.mean - exact) < 5 * played.standard_error


@given(*RANDOM)
def test_an_evaluation_repeats_bit_for_bit(tables, lanes, seed):
    law_an_evaluation_repeats_bit_for_bit(evaluations, tables, lanes, seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_randomness_is_never_that_of_training(seed):
    law_randomness_is_never_that_of_training(evaluations, seed)


@given(*CARELESS)
def test_nothing_is_left_changed(own, inner, seed):
    law_nothing_is_left_changed(evaluations, own, inner, seed)


def test_modes_are_put_back_if_a_part_raises():
    policy = uniform(fork(), fast=False)
    policy.act = lambda inputs, generator: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluations.play(policy, Lanes(fork(), 1, False), 1, 1, seed=0)
    assert policy.training


@given(RETURNS)
def test_statistics_are_scipys(returns):
    law_statistics_are_scipys(evaluations, returns)


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_the_interval_covers_the_mean_of_normal_returns_19_times_in_20(count):
    """Student's theorem. Of 4000 samples, the share that covers has a standard deviation of √(0.05·0.95/4000) = 0.0034;
    allowed are five."""
    samples = np.random.default_rng(count).normal(3.0, 2.0, (4000, count))
    intervals = (Performance(sample, np.ones(count, np.int64)).interval for sample in samples)
    covered = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert abs(covered - 0.95) < 5 * 0.0034


@pytest.mark.slow
def test_the_interval_covers_the_expected_return_of_the_line_world_about_as_often():
    """Returns of the uniform policy are far from normal (skewness −1.9). Of 1000 evaluations of 100 episodes, the share
    has a standard deviation of 0.0069; the interval's own error is of the order of skewness²/E. 0.946 was seen."""
    mdp = LineWorld().build(1, torch.device("cpu")).mdp()
    exact = float(expected_return(mdp, UNIFORM, 1.0))
    policy, environment = uniform(mdp), Lanes(mdp, 100, True)
    intervals = [evaluations.play(policy, environment, 100, 100, seed=seed).interval for seed in range(1000)]
    covered = np.mean([low <= exact <= high for low, high in intervals])
    assert abs(covered - 0.95) < 0.03
