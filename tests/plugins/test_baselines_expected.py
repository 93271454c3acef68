"""Known relations between baselines, and what each does to the expected gradient."""

import itertools
import math

import framework_baselines
import framework_reinforce.mean_baselines as mean_baselines
import pytest
import torch
from attrs import evolve
from baseline_cases import EXACT, LANES, MEANS, OBSERVED, STATEFUL, TOGO, TOTAL, by_episode, grouped, make_rollout
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mutants import is_killed, mutate
from worlds import enumerate_episodes

from framework import TabularMDP
from framework.exact import expected_return
from framework.testing.strategies import Episode, assemble, mdps, real_steps

# Limits


@given(grouped(2))
def test_leave_one_out_advantage_is_that_of_the_group_mean_times_n_over_n_minus_one(story):
    """s − (Σ − s)/(n − 1) = n/(n − 1) · (s − Σ/n): per group of n episodes, for one score an episode."""
    lanes, groups = story
    rollout = make_rollout(lanes, groups=groups, dtype=torch.float64)
    returns = TOTAL(rollout).returns
    alone = returns - mean_baselines.LeaveOneOut()(rollout, returns)
    mean = returns - framework_baselines.GroupMean()(rollout, returns)
    owners = by_episode(lanes, groups)
    for number, (one, two) in enumerate(zip(real_steps(lanes, alone), real_steps(lanes, mean), strict=True)):
        n = owners.count(owners[number])
        assert one == pytest.approx([x * n / (n - 1) for x in two], abs=EXACT)


@given(LANES)
def test_of_one_group_group_mean_is_batch_mean_and_leave_one_out_is_that_without_groups(lanes):
    rollout = make_rollout(lanes, groups=[0] * len(lanes))
    returns = TOGO(rollout).returns
    one, two = (cls()(rollout, returns) for cls in (framework_baselines.GroupMean, mean_baselines.BatchMean))
    assert torch.allclose(one[rollout.mask], two[rollout.mask], rtol=0, atol=EXACT)
    if sum(map(len, lanes)) > 1:
        alone = mean_baselines.LeaveOneOut()
        assert torch.equal(alone(rollout, returns), alone(evolve(rollout, groups=None), returns))


@given(LANES)
def test_where_nothing_is_subtracted_returns_are_the_advantage(lanes):
    rollout = assemble(lanes)
    returns = TOGO(rollout).returns
    assert not mean_baselines.NoBaseline()(rollout, returns).any()
    for name in STATEFUL:  # in the first rollout
        assert not getattr(framework_baselines, name)().build()(rollout, returns).any()


@given(LANES)
def test_of_equal_lengths_time_mean_averages_to_the_batch_mean(lanes):
    """With one number an episode and as many steps in each, every time index has the mean of all of them."""
    lanes = [[Episode((*episode.rewards, 0, 0, 0, 0)[:5], True, False) for episode in lane] for lane in lanes]
    rollout = assemble(lanes)
    returns = TOTAL(rollout).returns
    one, two = (cls()(rollout, returns) for cls in (framework_baselines.TimeMean, mean_baselines.BatchMean))
    assert torch.allclose(one[rollout.mask], two[rollout.mask], rtol=0, atol=EXACT)


@given(OBSERVED, st.lists(st.integers(-4, 4), min_size=10, max_size=10))
def test_linear_features_recover_a_return_that_is_linear_in_them(observed, coefficients):
    """Two lanes of 30 steps, y = x·β: predicted, up to what the ridge of 1e-9 takes.

    That is ridge·σ/(σ² + ridge)·|β| in the direction of each singular value σ of X, largest at σ = √ridge: of 10
    directions, with |β| ≤ 4·√10, less than 10 · 13 · 1.6e-5 = 2.1e-3.
    """
    long = [[Episode((1.0,) * 30, True, False)]] * 2
    rollout = make_rollout(long, observed=observed, dtype=torch.float64)
    inputs = framework_baselines.features(rollout)
    returns = inputs @ torch.tensor(coefficients, dtype=torch.float64)
    baseline = framework_baselines.LinearFeatures(ridge=1e-9).build()
    baseline.update(rollout, returns)
    assert torch.allclose(baseline(rollout, returns), returns, rtol=0, atol=2.1e-3)


def test_linear_features_of_a_state_that_never_changes_stay_finite():
    """All features are then one direction; t³ of 10⁴ steps, 10⁶, drowns the ridge in XᵀX: still the mean return.

    Rounded by 1e-16 · 2·10⁶/√ridge < 1e-7.
    """
    rollout = assemble([[Episode((1.0, 3.0), True, False)]] * 2)
    rollout = evolve(rollout, observations=torch.full((2, 2, 1), 10.0), times=torch.full((2, 2), 10**4))
    baseline = framework_baselines.LinearFeatures().build()
    baseline.update(rollout, rollout.rewards)
    assert baseline(rollout, rollout.rewards).flatten().tolist() == pytest.approx([2.0] * 4, abs=1e-6)


def test_small_differences_survive_float32():
    """Scores 1.0 and 1 + 2⁻¹⁷, summed by the thousand: means are exact, and so are float32 returns less them."""
    low, high = 1.0, 1.0 + 2.0**-17
    lanes = [[Episode((low,), True, False)], [Episode((high,), True, False)]] * 1000
    rollout = evolve(assemble(lanes), groups=torch.zeros(2000, dtype=torch.int64))
    half = 2.0**-18
    for cls in (framework_baselines.GroupMean, framework_baselines.TimeMean, mean_baselines.BatchMean):
        advantages = (rollout.rewards - cls()(rollout, rollout.rewards)).float()
        assert advantages.unique().tolist() == [-half, half]
    remembered = framework_baselines.MovingAverage().build()
    remembered.update(rollout, rollout.rewards)
    advantages = rollout.rewards - remembered(rollout, rollout.rewards)
    assert advantages.abs().tolist()[0] == pytest.approx([half] * 2000, abs=1e-15)  # (1 − d)·s / (1 − d) rounds


# What they do to the expected gradient, of all episodes that there are


def expected_gradient(world, probabilities, baseline, count=2):
    """E[Σ over `count` episodes of ΣA·∇log π] / count with total_return, by enumerating all their combinations."""
    episodes = enumerate_episodes(world, probabilities)
    lanes = [[Episode(tuple(r for _, _, r in steps), over, not over)] for _, steps, over in episodes]
    total = torch.zeros_like(probabilities)
    for chosen in itertools.product(range(len(episodes)), repeat=count):
        rollout = assemble([lanes[k] for k in chosen], dtype=torch.float64)
        states = torch.zeros_like(rollout.observations)
        for lane, k in enumerate(chosen):
            states[: len(episodes[k][1]), lane] = torch.tensor([state for state, _, _ in episodes[k][1]])
        rollout = evolve(rollout, observations=states)
        returns = TOTAL(rollout).returns
        advantages = (returns - baseline(rollout, returns)).tolist()
        probability = math.prod(episodes[k][0] for k in chosen)
        for lane, k in enumerate(chosen):
            for t, (state, action, _) in enumerate(episodes[k][1]):  # ∇ log π(a|s) = 1[a] − π(·|s), in the row of s
                weight = probability / count * advantages[t][lane]
                total[state] -= weight * probabilities[state]
                total[state, action] += weight
    return total


SMALL = mdps(states=(2, 3), actions=(2, 2), limits=(1, 2))
ENUMERATED = settings(max_examples=8)


def exact_gradient(world, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(expected_return(world, logits.softmax(1), 1.0), logits)[0]


def law_neutral(cls, world, seed):
    """E[ΣA·∇log π] = ∇J, by brute force over pairs of episodes; ∇J by autograd through the Bellman equation."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(world.transitions.shape[:2], generator=generator, dtype=torch.float64)
    assume(len(enumerate_episodes(few(world), logits.softmax(1))) <= 16)  # 256 pairs
    found = expected_gradient(few(world), logits.softmax(1), cls())
    assert torch.allclose(found, exact_gradient(few(world), logits), rtol=0, atol=1e-10)


def few(world):
    """The same world with at most two successors a state and action, so that pairs of its episodes can be counted."""
    kept = world.transitions.topk(min(2, len(world.start)), dim=-1)
    thinned = torch.zeros_like(world.transitions).scatter(-1, kept.indices, kept.values)
    return evolve(world, transitions=thinned / thinned.sum(-1, keepdim=True))


@ENUMERATED
@given(SMALL, st.integers(0, 2**31))
def test_leave_one_out_leaves_the_expected_gradient_unchanged(world, seed):
    law_neutral(mean_baselines.LeaveOneOut, world, seed)


@ENUMERATED
@given(SMALL, st.integers(0, 2**31), st.sampled_from([-5.0, 0.5, 100.0]))
def test_a_constant_leaves_the_expected_gradient_unchanged(world, seed, value):
    law_neutral(lambda: framework_baselines.Constant(value), world, seed)


@ENUMERATED
@given(SMALL, st.integers(0, 2**31))
def test_what_earlier_rollouts_taught_leaves_the_expected_gradient_unchanged(world, seed):
    """Fitted on some other rollout and kept, a number or a function of the state and time is neutral."""
    earlier = assemble([[Episode((1.0, 2.0, -1.0), True, False)], [Episode((0.5, 2.0), True, False)]])
    earlier = evolve(earlier, observations=torch.tensor([[0, 1], [1, 0], [1, 0]]))
    for name in STATEFUL:
        baseline = getattr(framework_baselines, name)().build()
        baseline.update(earlier, TOGO(earlier).returns)
        law_neutral(lambda baseline=baseline: baseline, world, seed)


@ENUMERATED
@given(SMALL, st.integers(0, 2**31), st.integers(2, 3))
def test_the_batch_mean_shrinks_the_expected_gradient_by_one_over_the_episodes(world, seed, count):
    """E[ΣA·∇log π] = (1 − 1/E)·∇J exactly, with total_return; the same of time_mean in episodes of one step."""
    world = few(world) if count == 2 else evolve(few(world), time_limit=1)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(world.transitions.shape[:2], generator=generator, dtype=torch.float64)
    assume(len(enumerate_episodes(world, logits.softmax(1))) <= 16)
    shrunk = (1 - 1 / count) * exact_gradient(world, logits)
    means = [mean_baselines.BatchMean()]
    if world.time_limit == 1:
        means.append(framework_baselines.TimeMean())
    for mean in means:
        found = expected_gradient(world, logits.softmax(1), mean, count)
        assert torch.allclose(found, shrunk, rtol=0, atol=1e-10)


def test_claims_are_as_proved():
    offered = {**framework_baselines.baselines(), "none": mean_baselines.NoBaseline}
    offered |= {"leave_one_out": mean_baselines.LeaveOneOut, "batch_mean": mean_baselines.BatchMean}
    assert {name for name, cls in offered.items() if "neutral" in getattr(cls, "claims", ())} == {
        *("constant", "leave_one_out", "linear_features", "moving_average", "none", "value")
    }


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        ("Constant", {"value": math.nan}, "'value'"),
        ("Constant", {"value": math.inf}, "'value' must be < inf"),
        ("MovingAverage", {"decay": 1.0}, "'decay' must be < 1.0: 1.0"),
        ("MovingAverage", {"decay": -0.1}, "'decay' must be >= 0.0: -0.1"),
        ("LinearFeatures", {"ridge": 0.0}, "'ridge' must be > 0.0: 0.0"),
    ],
)
def test_settings_are_refused_when_they_are_made(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(framework_baselines, cls)(**settings)


def test_neutrality_kills_the_mutant_that_counts_the_episode_itself():
    mutant = mutate(MEANS, ("[groups] - per_episode)", "[groups])")).LeaveOneOut
    is_killed(law_neutral, SMALL, st.integers(0, 2**31), arguments=(mutant,))


def test_neutrality_is_not_trivial():
    """One state, two actions, rewards 0 and 4, even odds: ∇J = ∓1, and the enumeration finds it."""
    world = TabularMDP(
        transitions=torch.tensor([[[0.0, 1.0]] * 2] * 2, dtype=torch.float64),
        rewards=torch.tensor([[[0.0, 0.0], [0.0, 4.0]]] * 2, dtype=torch.float64),
        start=torch.tensor([1.0, 0.0], dtype=torch.float64),
        terminal=torch.tensor([False, True]),
        time_limit=1,
    )
    found = expected_gradient(world, torch.full((2, 2), 0.5, dtype=torch.float64), mean_baselines.LeaveOneOut())
    assert found.tolist() == [[-1.0, 1.0], [0.0, 0.0]]
