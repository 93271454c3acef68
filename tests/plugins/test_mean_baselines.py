"""Baselines from the rollout itself, against their definitions in plain Python."""

import math

import framework_reinforce.mean_baselines as mean_baselines
import pytest
import torch
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from hypothesis import given
from mutants import is_killed, mutate

from framework import PartError
from framework.testing.strategies import Episode, assemble, lanes_of_episodes, real_steps

SEVERAL = lanes_of_episodes(min_lanes=2)


def scores_of(lanes, returns):
    return [sum(estimates) / len(estimates) for estimates in real_steps(lanes, returns)]


def law_batch_mean_is_the_mean_of_scores(cls, lanes):
    rollout = assemble(lanes)
    returns = RewardsToGo(gamma=1.0)(rollout).returns
    per_episode = scores_of(lanes, returns)
    expected = sum(per_episode) / len(per_episode)
    assert all(
        math.isclose(x, expected, abs_tol=1e-5)
        for estimates in real_steps(lanes, cls()(rollout, returns))
        for x in estimates
    )


def law_leave_one_out_means_the_others(cls, lanes):
    rollout = assemble(lanes)
    returns = RewardsToGo(gamma=1.0)(rollout).returns
    per_episode = scores_of(lanes, returns)
    for number, estimates in enumerate(real_steps(lanes, cls()(rollout, returns))):
        others = per_episode[:number] + per_episode[number + 1 :]
        assert all(math.isclose(x, sum(others) / len(others), abs_tol=1e-5) for x in estimates)


def law_padding_is_inert(cls, lanes):
    rollout, padded = assemble(lanes), assemble(lanes, extra_padding=2)
    short, long = (real_steps(lanes, cls()(r, RewardsToGo()(r).returns)) for r in (rollout, padded))
    assert short == long


@given(SEVERAL)
def test_batch_mean_is_the_mean_of_scores(lanes):
    law_batch_mean_is_the_mean_of_scores(mean_baselines.BatchMean, lanes)


@given(SEVERAL)
def test_leave_one_out_is_the_mean_of_the_other_scores(lanes):
    law_leave_one_out_means_the_others(mean_baselines.LeaveOneOut, lanes)


@pytest.mark.parametrize("cls", [mean_baselines.NoBaseline, mean_baselines.BatchMean, mean_baselines.LeaveOneOut])
def test_padding_is_inert(cls):
    given(SEVERAL)(lambda lanes: law_padding_is_inert(cls, lanes))()


@given(SEVERAL)
def test_leave_one_out_advantage_is_that_of_the_batch_mean_times_n_over_n_minus_one(lanes):
    """s − (Σ − s)/(n − 1) = n/(n − 1) · (s − Σ/n): for one score an episode, as total_return gives."""
    rollout = assemble(lanes, dtype=torch.float64)
    returns = TotalReturn(gamma=1.0)(rollout).returns
    count = sum(map(len, lanes))
    alone = (returns - mean_baselines.LeaveOneOut()(rollout, returns))[rollout.mask]
    mean = (returns - mean_baselines.BatchMean()(rollout, returns))[rollout.mask]
    assert torch.allclose(alone, mean * count / (count - 1), atol=1e-12)


def test_small_differences_survive_float32():
    """Two episodes that earn 1000 and 1000.0625: each other's exact score, not a rounded mean."""
    lanes = [[Episode((1000.0,), True, False)], [Episode((1000.0625,), True, False)]]
    rollout = assemble(lanes)
    assert real_steps(lanes, mean_baselines.LeaveOneOut()(rollout, rollout.rewards)) == [[1000.0625], [1000.0]]


def test_leave_one_out_refuses_a_single_episode():
    rollout = assemble([[Episode((1.0,), True, False)]])
    with pytest.raises(
        PartError, match="'leave_one_out' needs at least two episodes in each rollout, and this one has 1"
    ):
        mean_baselines.LeaveOneOut()(rollout, rollout.rewards)


MUTANTS = {
    "averages steps, not episodes": (
        law_batch_mean_is_the_mean_of_scores,
        "BatchMean",
        (
            "mean = episode_means(returns, rollout.episodes, rollout.mask).mean()",
            "mean = returns[rollout.mask].double().mean()",
        ),
    ),
    "divides by all": (
        law_leave_one_out_means_the_others,
        "LeaveOneOut",
        ("/ (counts[groups] - 1)", "/ counts[groups]"),
    ),
    "counts the episode itself": (
        law_leave_one_out_means_the_others,
        "LeaveOneOut",
        ("[groups] - per_episode)", "[groups])"),
    ),
    "averages padding too": (
        law_padding_is_inert,
        "BatchMean",
        ("mean = episode_means(returns, rollout.episodes, rollout.mask).mean()", "mean = returns.double().mean()"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, cls_name, change = MUTANTS[name]
    is_killed(law, SEVERAL, arguments=(getattr(mutate("framework_reinforce.mean_baselines", change), cls_name),))
