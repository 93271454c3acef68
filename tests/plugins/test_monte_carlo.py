"""The Monte-Carlo estimators against a float64 oracle, law by law; each law kills a mutant of the code.

What is true of every estimator is in test_laws_estimators.py.
"""

import math

import attrs
import framework_reinforce.monte_carlo as monte_carlo
import pytest
import torch
from expected_gradients import expected_gradient
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from worlds import TabularMDP

from framework import returns
from framework.exact import expected_return
from framework.returns import discounted_sums, episode_means
from framework.testing.strategies import assemble, lanes_of_episodes, mdps, real_steps

GAMMAS = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])


def oracle_rewards_to_go(rewards, gamma):
    """The forward sum of each step's rest: O(T²), Python floats (float64)."""
    return [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]


def oracle_total_return(rewards, gamma):
    return [sum(gamma**k * reward for k, reward in enumerate(rewards))] * len(rewards)


ORACLES = {"RewardsToGo": oracle_rewards_to_go, "TotalReturn": oracle_total_return}


def close(left, right):
    """float32 sums of at most five numbers of size ≤ 2: errors stay below 5 · 10 · 2⁻²³ ≈ 6e-6."""
    return all(math.isclose(a, b, abs_tol=6e-6) for a, b in zip(left, right, strict=True))


# The laws: each takes the class under test first, so that a mutant can be put in its place.


def law_recursion(cls, lanes, gamma):
    """Every real step's return is the oracle's sum of its own episode; which also says that episodes do not leak."""
    returns = cls(gamma=gamma)(assemble(lanes)).returns
    expected = [ORACLES[cls.__name__](episode.rewards, gamma) for lane in lanes for episode in lane]
    assert all(close(a, b) for a, b in zip(real_steps(lanes, returns), expected, strict=True))


def law_value_targets(cls, lanes, gamma):
    """A critic is to predict the rewards to go, whichever estimator."""
    targets = cls(gamma=gamma)(assemble(lanes)).value_targets
    expected = [oracle_rewards_to_go(episode.rewards, gamma) for lane in lanes for episode in lane]
    assert all(close(a, b) for a, b in zip(real_steps(lanes, targets), expected, strict=True))


def law_gamma_zero_sees_one_reward(cls, lanes):
    """γ = 0: the reward itself (to go), the first reward (in total)."""
    returns = real_steps(lanes, cls(gamma=0.0)(assemble(lanes)).returns)
    for estimates, episode in zip(returns, [e for lane in lanes for e in lane], strict=True):
        first = [episode.rewards[0]] * len(estimates)
        assert estimates == (list(episode.rewards) if cls.__name__ == "RewardsToGo" else first)


def law_gamma_one_sums(cls, lanes):
    """γ = 1: plain sums, exact because the stories' rewards are quarters."""
    returns = real_steps(lanes, cls(gamma=1.0)(assemble(lanes)).returns)
    for estimates, episode in zip(returns, [e for lane in lanes for e in lane], strict=True):
        assert estimates == ORACLES[cls.__name__](episode.rewards, 1.0)


def law_padding_is_inert(cls, lanes, gamma, padding):
    """More padding changes no real step, and returns of padding are 0."""
    rollout = assemble(lanes, extra_padding=padding)
    padded = cls(gamma=gamma)(rollout).returns
    assert real_steps(lanes, padded) == real_steps(lanes, cls(gamma=gamma)(assemble(lanes)).returns)
    assert not padded[~rollout.mask].any()


LANES = lanes_of_episodes()
LAWS = {
    law_recursion: (LANES, GAMMAS),
    law_value_targets: (LANES, GAMMAS),
    law_gamma_zero_sees_one_reward: (LANES,),
    law_gamma_one_sums: (LANES,),
    law_padding_is_inert: (LANES, GAMMAS, st.integers(1, 3)),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("cls", [monte_carlo.RewardsToGo, monte_carlo.TotalReturn], ids=lambda cls: cls.__name__)
def test_law(law, cls):
    @given(st.tuples(*LAWS[law]))
    def check(drawn):
        law(cls, *drawn)

    check()


def test_ends_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="expected two equal shapes"):
        returns.rewards_to_go(torch.ones(3, 4), torch.zeros(3, 1, dtype=torch.bool), 0.9)


def _mutant_returns(*change):
    returns = mutate("framework.returns", change)
    return mutate("framework_reinforce.monte_carlo", rewards_to_go=returns.rewards_to_go)


ENDS = "rollout.terminated | rollout.truncated"
TO_GO = f"returns = rewards_to_go(rollout.rewards, {ENDS}, self.gamma)"
MUTANTS = {
    "discounts by γ² a step": (
        law_recursion,
        "RewardsToGo",
        lambda: _mutant_returns("full(ends.shape, gamma,", "full(ends.shape, gamma**2,"),
    ),
    "adds the next reward": (
        law_gamma_zero_sees_one_reward,
        "RewardsToGo",
        lambda: _mutant_returns(
            "sums = terms.clone()\n        _double(sums.numpy()",
            "sums = terms.roll(1, 0)\n        _double(sums.numpy()",
        ),
    ),
    "leaves the last reward out": (
        law_gamma_one_sums,
        "RewardsToGo",
        lambda: _mutant_returns("while span < len(sums):", "while span < len(sums) - 1:"),
    ),
    "earns in padding": (
        law_padding_is_inert,
        "TotalReturn",
        lambda: mutate(
            "framework_reinforce.monte_carlo",
            (
                "targets = rewards_to_go(rollout.rewards,",
                "targets = rewards_to_go(rollout.rewards + 1.0 * ~rollout.mask,",
            ),
        ),
    ),
    "sums from the lane's start": (
        law_recursion,
        "TotalReturn",
        lambda: mutate(
            "framework_reinforce.monte_carlo", ("[:, None] - rollout.times", "[:, None] * rollout.times * 0")
        ),
    ),
    "predicts the total": (
        law_value_targets,
        "TotalReturn",
        lambda: mutate(
            "framework_reinforce.monte_carlo",
            ("return Estimate(returns, targets)", "return Estimate(returns, returns)"),
        ),
    ),
}


def test_every_law_has_a_mutant():
    assert {law for law, _, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, cls_name, make = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(getattr(make(), cls_name),))


@given(LANES, GAMMAS)
def test_float32_is_near_float64(lanes, gamma):
    for cls in (monte_carlo.RewardsToGo, monte_carlo.TotalReturn):
        single, double = (
            cls(gamma=gamma)(assemble(lanes, dtype=dtype)).returns for dtype in (torch.float32, torch.float64)
        )
        assert double.dtype == torch.float64
        assert torch.allclose(single.double(), double, atol=6e-6)
        oracle = [number for lane in lanes for e in lane for number in ORACLES[cls.__name__](e.rewards, gamma)]
        estimates = [number for episode in real_steps(lanes, double) for number in episode]
        assert all(math.isclose(a, b, abs_tol=1e-14) for a, b in zip(estimates, oracle, strict=True))


def test_discounted_sums_refuses_what_it_cannot_sum():
    with pytest.raises(ValueError, match=r"two equal shapes \[T, N\], got \[3, 1\] and \[3, 2\]"):
        discounted_sums(torch.zeros(3, 1), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="floating dtype"):
        discounted_sums(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64))


def law_both_ways_are_the_recursion(double, step, terms, discounts):
    """By doubling or by stepping, on arrays and on tensors: Gₜ = xₜ + dₜ·Gₜ₊₁, in float64 to 1e-12."""
    expected = terms.clone()
    for t in range(len(terms) - 2, -1, -1):
        expected[t] = terms[t] + discounts[t] * expected[t + 1]
    doubled, on_tensors, stepped = terms.clone(), terms.clone(), torch.empty_like(terms)
    double(doubled.numpy(), discounts.numpy().copy())
    double(on_tensors, discounts.clone())
    step(terms.numpy(), discounts.numpy(), stepped.numpy())
    for sums in (doubled, on_tensors, stepped):
        assert torch.allclose(sums, expected, atol=1e-12)


PAIRS = st.tuples(st.integers(1, 70), st.integers(1, 3), st.integers(0, 2**31)).map(
    lambda drawn: [
        torch.rand(drawn[:2], generator=torch.Generator().manual_seed(drawn[2] + k), dtype=torch.float64)
        - 0.5 * (1 - k)
        for k in (0, 1)
    ]
)


@given(PAIRS)
def test_both_ways_are_the_recursion(pair):
    law_both_ways_are_the_recursion(returns._double, returns._step, *pair)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factors[:-span] * factors[span:]", "factors[:-span]"),
        ("factors[:-span] * sums[span:]", "factors[span:] * sums[span:]"),
        ("factors[span:]\n        span *= 2", "factors[span:]\n        span *= 3"),
        ("later = np.add(row, terms[t], out=row)", "later = np.add(row, terms[t - 1], out=row)"),
        ("range(len(terms) - 1, -1, -1)", "range(len(terms) - 1, 0, -1)"),
    ],
)
def test_the_recursion_kills_the_mutant(old, new):
    mutant = mutate("framework.returns", (old, new))
    is_killed(lambda pair: law_both_ways_are_the_recursion(mutant._double, mutant._step, *pair), PAIRS)


@pytest.mark.parametrize("lanes", [1, returns.FEW_LANES, returns.FEW_LANES + 1])
def test_the_number_of_lanes_changes_nothing(lanes):
    terms, discounts = torch.rand(9, lanes), torch.rand(9, lanes)
    alone = [discounted_sums(terms[:, n : n + 1], discounts[:, n : n + 1]) for n in range(lanes)]
    assert torch.allclose(discounted_sums(terms, discounts), torch.cat(alone, 1), atol=2e-6)


@given(LANES)
def test_scores_are_means_over_an_episodes_real_steps(lanes):
    rollout = assemble(lanes, extra_padding=1)
    scores = episode_means(rollout.rewards, rollout.episodes, rollout.mask).tolist()
    expected = [sum(e.rewards) / len(e.rewards) for lane in lanes for e in lane]
    assert all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(scores, expected, strict=True))


def law_expected_gradient_is_that_of_the_discounted_return(monte_carlo, world, gamma, seed):
    """E[Σₜ wₜ·Gₜ·∇log π], enumerated, is ∇J(γ), by autograd through J: with wₜ = γᵗ, or with the total return."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(world.transitions.shape[:2], generator=generator, dtype=torch.float64, requires_grad=True)
    exact = torch.autograd.grad(expected_return(world, logits.softmax(1), gamma), logits)[0]
    for estimator in (monte_carlo.RewardsToGo(gamma, discounted_objective=True), monte_carlo.TotalReturn(gamma)):
        assert unbiased(estimator) == {"unbiased:undiscounted" if gamma == 1 else "unbiased:discounted"}
        assert torch.allclose(expected_gradient(world, logits, weighted(estimator), 0.0), -exact, atol=1e-10)


def unbiased(estimator):
    """What it claims of its expected gradient."""
    return {word for word in estimator.claims if word.startswith("unbiased")}


def weighted(estimator):
    """The estimator with its weights multiplied into its returns, as advantages without a baseline are."""

    def call(rollout):
        estimate = estimator(rollout)
        weights = 1.0 if estimate.weights is None else estimate.weights
        return attrs.evolve(estimate, returns=weights * estimate.returns)

    return call


ENUMERABLE = (mdps(limits=(1, 3)), GAMMAS, st.integers(0, 2**31))


@given(*ENUMERABLE)
def test_expected_gradient_is_that_of_the_discounted_return(world, gamma, seed):
    law_expected_gradient_is_that_of_the_discounted_return(monte_carlo, world, gamma, seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ("[rollout.times]", "[rollout.times * 0]"),
        ("[rollout.times]", "[rollout.times + 1]"),
        ("powers = self.gamma **", "powers = self.gamma * self.gamma **"),
        ("targets.gather(0, firsts)", "targets"),
    ],
    ids=["weighs all alike", "weighs by the next step's power", "discounts once too often", "forgets the past"],
)
def test_expected_gradient_kills_the_mutant_that(change):
    padded = ("torch.arange(len(returns),", "torch.arange(len(returns) + 1,")  # for the mutant that looks one ahead
    mutant = mutate("framework_reinforce.monte_carlo", change, padded)
    is_killed(law_expected_gradient_is_that_of_the_discounted_return, *ENUMERABLE, arguments=(mutant,))


def test_rewards_to_go_alone_has_neither_objectives_gradient():
    """Two steps and the second action earns 1: the gradient is p(1 − p) without the weight, and γ·p(1 − p) for J."""
    world = TabularMDP(
        transitions=torch.tensor([[[0.0, 1.0, 0.0]] * 2, [[0.0, 0.0, 1.0]] * 2, [[0.0, 0.0, 1.0]] * 2]).double(),
        rewards=torch.tensor([[[0.0] * 3] * 2, [[0.0] * 3, [0.0, 0.0, 1.0]], [[0.0] * 3] * 2]).double(),
        start=torch.tensor([1.0, 0.0, 0.0]).double(),
        terminal=torch.tensor([False, False, True]),
        time_limit=2,
    )
    logits = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    exact = torch.autograd.grad(expected_return(world, logits.softmax(1), 0.5), logits)[0]
    plain = -expected_gradient(world, logits, monte_carlo.RewardsToGo(gamma=0.5), 0.0)
    assert exact[1, 1] == pytest.approx(0.5 * 0.25)
    assert plain[1, 1] == pytest.approx(0.25)
    assert unbiased(monte_carlo.RewardsToGo(gamma=0.5)) == set()


@given(LANES, GAMMAS, st.sampled_from([torch.float32, torch.float64]))
def test_weights_are_powers_of_gamma_and_stay_out_of_the_targets(lanes, gamma, dtype):
    """γᵗ from each episode's own start; one rounding each, of 64-bit powers."""
    rollout = assemble(lanes, extra_padding=1, dtype=dtype)
    plain = monte_carlo.RewardsToGo(gamma)(rollout)
    estimate = monte_carlo.RewardsToGo(gamma, discounted_objective=True)(rollout)
    assert plain.weights is None
    assert torch.equal(estimate.returns, plain.returns)
    assert torch.equal(estimate.value_targets, plain.value_targets)
    assert estimate.weights.dtype == dtype
    assert estimate.weights.isfinite().all()
    powers = [[gamma**t for t in range(len(e.rewards))] for lane in lanes for e in lane]
    for estimates, expected in zip(real_steps(lanes, estimate.weights), powers, strict=True):
        assert estimates == pytest.approx(expected, rel=2**-22)
