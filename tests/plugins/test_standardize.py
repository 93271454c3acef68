"""Standardised advantages: the statistics of real steps, within the batch or each minibatch; laws and their mutants."""

import math
import statistics
import warnings

import framework_standardize as standardize
import pytest
import torch
from counting_parts import Spy
from framework_reinforce.monte_carlo import TotalReturn
from framework_standardize import Standardize
from hypothesis import assume, given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from worlds import TabularWorld

import framework
from framework import Advantages, Batch, OptimizerSettings, RolloutSettings, TabularMDP, UpdateSettings
from framework.testing.strategies import assemble, lanes_of_episodes

EPSILON = 1e-8  # the default


def through(wrapper, made, *arguments):
    """What a wrapping hook makes of the stage's result."""
    generator = wrapper(*arguments)
    next(generator)
    with pytest.raises(StopIteration) as returned:
        generator.send(made)
    return returned.value.value


def within_batch(module, rollout, numbers, **settings):
    """The advantages `[T, N]` that come out of a whole rollout."""
    extension = module.Standardize(**settings).build(None)
    return through(extension.estimate_advantages, Advantages(numbers, numbers, numbers), rollout).advantages


def within_minibatch(module, numbers, **settings):
    """The advantages `[B]` that come out of a minibatch."""
    extension = module.Standardize(within="minibatch", **settings).build(None)
    batch = Batch(*([torch.zeros(len(numbers))] * 3), numbers, numbers, numbers, len(numbers), 1.0)
    return through(extension.prepare_batch, batch).advantages


def both(module, rollout, numbers, **settings):
    """The real steps' numbers, standardised in each of the two ways."""
    batch = within_batch(module, rollout, numbers, **settings)[rollout.mask]
    return batch, within_minibatch(module, numbers[rollout.mask], **settings)


def varied(lanes, padding, dtype=torch.float64):
    """A rollout, and advantages that are its rewards: quarters of at most 2, and 0 in padding."""
    rollout = assemble(lanes, padding, dtype)
    assume(len(rollout.rewards[rollout.mask].unique()) > 1)
    return rollout, rollout.rewards


# The laws: each takes the module under test first, so that a mutant can be put in its place.


def law_mean_is_zero_and_deviation_one(module, lanes, padding):
    """Of the real steps, in float32 as in float64.

    At most 45 quarters that are not all equal deviate by at least 0.25/√45 > 0.03: ε takes less than 1e-6 of the
    deviation, and float32 rounds each number, of size < 7, by less than 1e-6.
    """
    for dtype in (torch.float32, torch.float64):
        for changed in both(module, *varied(lanes, padding, dtype)):
            assert changed.dtype == dtype
            assert abs(changed.double().mean()) < 1e-5
            assert abs(changed.double().std() - 1) < 1e-5


def law_formula(module, lanes, padding, center, scale):
    """(A − mean) / (deviation + ε), deviation with n − 1; each half only where it is switched on. In float64."""
    rollout, numbers = varied(lanes, padding)
    real = numbers[rollout.mask].tolist()
    mean = statistics.fmean(real) if center else 0.0
    divisor = statistics.stdev(real) + EPSILON if scale else 1.0
    expected = [(x - mean) / divisor for x in real]
    for changed in both(module, rollout, numbers, center=center, scale=scale):
        assert changed.tolist() == pytest.approx(expected, abs=1e-12)


def law_padding_is_inert(module, lanes, padding, garbage):
    """Padding comes out as 0 whatever stood there, and does not move the real steps."""
    rollout, numbers = assemble(lanes, padding), assemble(lanes, padding).rewards
    garbled = torch.where(rollout.mask, numbers, garbage)
    plain, changed = (within_batch(module, rollout, column) for column in (numbers, garbled))
    assert not changed[~rollout.mask].any()
    assert torch.equal(changed, plain)


def law_equal_advantages_become_zero(module, lanes, number):
    """No spread, nothing to learn: zeros, not NaN, and no warning; a single step is such a batch, too."""
    rollout = assemble(lanes, 1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for changed in both(module, rollout, torch.where(rollout.mask, number, 0.0)):
            assert not changed.any()
        assert not within_minibatch(module, torch.tensor([number])).any()
    assert not warned


def law_nothing_is_mutated(module, lanes, padding):
    """What was handed in stays, in float64 (where nothing need be copied to compute) as in float32."""
    for dtype in (torch.float32, torch.float64):
        rollout = assemble(lanes, padding, dtype)
        numbers = rollout.rewards.clone()
        both(module, rollout, numbers)
        assert torch.equal(numbers, rollout.rewards)


LANES, PADDING = lanes_of_episodes(), st.integers(0, 3)
NUMBERS = st.floats(-100, 100, width=32)
LAWS = {
    law_mean_is_zero_and_deviation_one: (LANES, PADDING),
    law_formula: (LANES, PADDING, st.booleans(), st.booleans()),
    law_padding_is_inert: (LANES, st.integers(1, 3), NUMBERS),
    law_equal_advantages_become_zero: (LANES, NUMBERS),
    law_nothing_is_mutated: (LANES, PADDING),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(standardize, *drawn))()


@given(LANES)
def test_returns_and_value_targets_are_left_alone(lanes):
    """Only advantages change: a critic must learn the returns as they are."""
    rollout = assemble(lanes)
    made = Advantages(rollout.rewards, rollout.rewards + 1, rollout.rewards + 2)
    changed = through(Standardize().build(None).estimate_advantages, made, rollout)
    assert changed.returns is made.returns
    assert changed.value_targets is made.value_targets


def test_a_single_step_cannot_be_scaled():
    """One number has no deviation: centred it is 0, uncentred it stays."""
    assert within_minibatch(standardize, torch.tensor([3.0])).tolist() == [0.0]
    assert within_minibatch(standardize, torch.tensor([3.0]), center=False).tolist() == [3.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"within": "epoch"}, "'within' must be in"), ({"epsilon": 0.0}, "'epsilon' must be > 0.0: 0.0")],
    ids=str,
)
def test_settings_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        Standardize(**settings)


# In a run


class InnerSpy(Spy):
    """Another name, to be chosen beside the first."""


def rows_of(spy):
    """Each rollout's mask and advantages [T, N], as they pass the spy."""
    rollouts, advantages = spy.of("rollout"), spy.of("advantages")
    return [(rollout.mask, one.advantages) for rollout, one in zip(rollouts, advantages, strict=True)]


def minibatches_of(spy):
    """The advantages [B] of each minibatch, as they pass the spy."""
    return [batch.advantages for batch in spy.of("batch")]


UPDATE = UpdateSettings(epochs=2, minibatches=5)


def is_standard(advantages):
    """Returns of a line world spread over several units, so that ε and float32's rounding are far below 1e-5."""
    return abs(advantages.double().mean()) < 1e-5 and abs(advantages.double().std() - 1) < 1e-5


def test_in_a_run_the_whole_batch_is_standardised():
    """What leaves is what came in, standardised over the rollout; the minibatches of an epoch are together standard."""
    before, after = InnerSpy(), Spy()
    framework.train(iterations=2, update=UPDATE, extensions=[before, Standardize(), after])
    assert len(rows_of(after)) == 2
    for (mask, raw), (_, changed) in zip(rows_of(before), rows_of(after), strict=True):
        assert not is_standard(raw[mask])
        assert is_standard(changed[mask])
        assert torch.equal(changed[mask], within_minibatch(standardize, raw[mask]))
        assert not changed[~mask].any()
    for epoch in range(4):
        parts = minibatches_of(after)[5 * epoch : 5 * epoch + 5]
        assert is_standard(torch.cat(parts))
        assert not any(is_standard(part) for part in parts)


def test_in_a_run_each_minibatch_is_standardised():
    """The rollout's advantages are left as they are; each of the 2 · 2 · 5 minibatches is standard by itself."""
    before, after = InnerSpy(), Spy()
    framework.train(iterations=2, update=UPDATE, extensions=[before, Standardize(within="minibatch"), after])
    assert all(torch.equal(one[1], two[1]) for one, two in zip(rows_of(before), rows_of(after), strict=True))
    assert len(minibatches_of(after)) == 20
    for raw, changed in zip(minibatches_of(before), minibatches_of(after), strict=True):
        assert not is_standard(raw)
        assert is_standard(changed)
        assert torch.equal(changed, within_minibatch(standardize, raw))


@pytest.mark.parametrize("within", ["batch", "minibatch"])
def test_where_all_returns_are_equal_nothing_is_learnt(within):
    """Every episode earns 1 in its only step: zero advantages, zero gradients, and SGD leaves the weights alone."""
    world = TabularMDP(
        transitions=torch.tensor([[[0.0, 1.0], [0.0, 1.0]]] * 2, dtype=torch.float64),
        rewards=torch.ones(2, 2, 2),
        start=torch.tensor([1.0, 0.0], dtype=torch.float64),
        terminal=torch.tensor([False, True]),
        time_limit=3,
    )

    def weights(*extensions):
        result = framework.train(
            environment=TabularWorld(world),
            estimator=TotalReturn(),
            extensions=extensions,
            rollout=RolloutSettings(lanes=2, episodes=6),
            update=UpdateSettings(minibatches=6),  # minibatches of a single step
            optimizer=OptimizerSettings("SGD", lr=1.0),
            iterations=1,
        )
        return torch.cat([parameter.detach().flatten() for parameter in result.policy.parameters()])

    one, two = (weights(Standardize(within=within)) for _ in range(2))
    assert torch.isfinite(one).all()
    assert torch.equal(one, two)
    untouched = framework.train(environment=TabularWorld(world), iterations=1, optimizer=OptimizerSettings("SGD", lr=0))
    assert torch.equal(one, torch.cat([p.detach().flatten() for p in untouched.policy.parameters()]))
    assert not torch.equal(one, weights())


@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_standardising_twice_changes_little(numbers):
    """Standard numbers have mean 0 and deviation 1 / (1 + ε/s): a second time divides by as much, no more."""
    assume(statistics.stdev(numbers) > 1e-3)
    once = within_minibatch(standardize, torch.tensor(numbers, dtype=torch.float64))
    twice = within_minibatch(standardize, once)
    assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(once.tolist(), twice.tolist(), strict=True))


# Mutants

WHERE = "torch.where(rollout.mask, changed, 0.0)"
MUTANTS = {
    "divides by n": (law_formula, ("torch.std_mean(real)", "torch.std_mean(real, correction=0)")),
    "takes padding along": (law_padding_is_inert, ("result.advantages[rollout.mask]", "result.advantages.flatten()")),
    "moves padding, too": (law_padding_is_inert, (WHERE, "changed")),
    "centres by the median": (
        law_mean_is_zero_and_deviation_one,
        ("changed = changed - mean", "changed = changed - real.median()"),
    ),
    "scales by the variance": (law_mean_is_zero_and_deviation_one, ("(deviation + ", "(deviation**2 + ")),
    "always centres": (law_formula, ("if self.center:", "if True:")),
    "always scales": (law_formula, ("if self.scale and deviation", "if deviation")),
    "adds no epsilon": (law_equal_advantages_become_zero, ("deviation + self.epsilon", "deviation")),
    "scales a single step": (
        law_equal_advantages_become_zero,
        ("deviation, mean = None, real.mean()", "deviation, mean = real[0] * torch.nan, real.mean()"),
    ),
    "writes into what it was handed": (law_nothing_is_mutated, ("changed = changed - mean", "changed -= mean")),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(mutate("framework_standardize", change),))
