"""Where gradients flow, and that they are the right numbers."""

import math

import attrs
import framework_reinforce.score_function as score_function
import pytest
import torch
from expected_gradients import expected_gradient
from framework_reinforce.categorical import Categorical
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate

from framework import Batch, Evaluation, Inputs
from framework.config import DEFAULTS
from framework.learning.batches import flatten, reduce, select
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.stages import Core
from framework.testing.strategies import mdps

DENOMINATORS = ("per_step", "per_episode", "constant")


def a_run(**sections):
    loaded = load()
    return build(configure(loaded, {**DEFAULTS, "reports": [], **sections}), loaded, Core())


def a_batch(run):
    rollout = run.hook.collect_rollout(run=run)
    return flatten(rollout, run.hook.estimate_advantages(run=run, rollout=rollout))


def gradients(run, batch, denominator="per_step", constant=3.0):
    loss = run.hook.compute_loss(run=run, batch=batch)
    total = sum(reduce(loss, batch, denominator, constant).values())
    return torch.autograd.grad(total, list(run.policy.parameters()))


def test_the_loss_reaches_every_parameter():
    for loss in ({"name": "reinforce"}, {"name": "reinforce", "entropy": 0.1}):
        run = a_run(loss=loss)
        for (name, _), gradient in zip(run.policy.named_parameters(), gradients(run, a_batch(run)), strict=True):
            assert gradient.abs().sum() > 0, name


def test_nothing_flows_into_returns_baselines_or_rewards():
    run = a_run(baseline={"name": "batch_mean"})
    batch = a_batch(run)
    for name in ("advantages", "returns", "value_targets", "log_probs"):
        assert not getattr(batch, name).requires_grad, name
    probe = {name: getattr(batch, name).clone().requires_grad_() for name in ("returns", "value_targets", "log_probs")}
    loss = run.loss(attrs.evolve(batch, **probe), run.policy.evaluate(Inputs(batch.observations), batch.actions, False))
    total = sum(term.sum() for term in loss.terms.values())
    assert torch.autograd.grad(total, list(probe.values()), allow_unused=True) == (None, None, None)


def law_gradient_is_the_score_function_formula(loss_cls, seed):
    """∇ = −Σ A·∇log π / n, with ∇log π(a|s) by logits = 1[a] − π, by hand and without autograd."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    actions = torch.randint(0, 3, (6,), generator=generator)
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        by_hand = -advantages[:, None] * (torch.nn.functional.one_hot(actions, 3) - logits.softmax(1)) / 6
    logits.requires_grad_()
    log_probs = logits.log_softmax(1).gather(1, actions[:, None]).squeeze(1)
    batch = Batch(actions, actions, log_probs.detach(), advantages, advantages, advantages, 6, 2.0)
    loss = loss_cls()(batch, Evaluation(log_probs))
    (gradient,) = torch.autograd.grad(sum(reduce(loss, batch, "per_step").values()), logits)
    assert torch.allclose(gradient, by_hand, atol=1e-14)


@given(st.integers(0, 2**31))
def test_gradient_is_the_score_function_formula(seed):
    law_gradient_is_the_score_function_formula(score_function.Reinforce, seed)


POLICY_TERM = '"policy": evaluation.log_probs * -batch.advantages'
MUTANTS = {
    "climbs the wrong way": (POLICY_TERM, '"policy": evaluation.log_probs * batch.advantages'),
    "forgets the advantage's sign": (POLICY_TERM, '"policy": evaluation.log_probs * -batch.advantages.abs()'),
    "forgets the logarithm": (POLICY_TERM, '"policy": evaluation.log_probs.exp() * -batch.advantages'),
    "averages before the core divides": (
        POLICY_TERM,
        '"policy": evaluation.log_probs * -batch.advantages / len(batch.advantages)',
    ),
    "broadcasts [B] against [B, 1]": (
        POLICY_TERM,
        '"policy": (evaluation.log_probs * -batch.advantages[:, None]).mean(0)',
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_formula_kills_the_mutant_that(name):
    mutant = mutate("framework_reinforce.score_function", MUTANTS[name])
    is_killed(law_gradient_is_the_score_function_formula, st.integers(0, 2**31), arguments=(mutant.Reinforce,))


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_gradient_equals_finite_differences(denominator, entropy):
    """Central differences in float64: error of order h² = 1e-12 and rounding 1e-16 / 1e-6, so 1e-7 is ample."""
    run = a_run(loss={"name": "reinforce", "entropy": entropy}, rollout={"lanes": 2, "episodes": 3})
    batch = attrs.evolve(batch := a_batch(run), advantages=batch.advantages.double())
    run.policy.double()
    exact = gradients(run, batch, denominator)
    generator = torch.Generator().manual_seed(0)
    for parameter, gradient in zip(run.policy.parameters(), exact, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        totals = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6 * direction
                loss = run.hook.compute_loss(run=run, batch=batch)
                totals.append(float(sum(reduce(loss, batch, denominator, 3.0).values())))
                parameter -= sign * 1e-6 * direction
        assert math.isclose((totals[0] - totals[1]) / 2e-6, float((gradient * direction).sum()), abs_tol=1e-7)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_micro_batches_add_up_to_the_whole_batch(denominator):
    run = a_run(loss={"name": "reinforce", "entropy": 0.05})
    batch = attrs.evolve(batch := a_batch(run), advantages=batch.advantages.double())
    run.policy.double()
    whole = gradients(run, batch, denominator)
    totals = {"total_steps": batch.total_steps, "total_episodes": batch.total_episodes}
    parts = [
        gradients(run, attrs.evolve(select(batch, index), **totals), denominator)
        for index in torch.arange(batch.total_steps).split(37)
    ]
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.allclose(one, sum(several), atol=1e-12)


@pytest.mark.slow
@given(mdps(limits=(1, 3)), st.sampled_from([-5.0, 0.5, 100.0]), st.integers(0, 2**31))
def test_a_constant_baseline_leaves_the_expected_gradient_unchanged(world, constant, seed):
    """E[∇log π] = 0 in every state, enumerated and not sampled; and the expectation is −∇J, by autograd through J."""
    from framework.exact import expected_return

    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(world.transitions.shape[:2], generator=generator, dtype=torch.float64, requires_grad=True)
    exact = torch.autograd.grad(expected_return(world, logits.softmax(1), 1.0), logits)[0]
    for estimator in (RewardsToGo(gamma=1.0), TotalReturn(gamma=1.0)):
        plain = expected_gradient(world, logits, estimator, 0.0)
        shifted = expected_gradient(world, logits, estimator, constant)
        assert torch.allclose(plain, shifted, atol=1e-10)
        assert torch.allclose(plain, -exact, atol=1e-10)


def test_a_baseline_that_looks_at_the_action_changes_it():
    """The mutant of the law above: a "constant" that is the first reward depends on the action, and is caught."""
    from worlds import TabularMDP

    from framework.exact import expected_return

    world = TabularMDP(
        transitions=torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]], dtype=torch.float64),
        rewards=torch.tensor([[[0.0, 1.0], [0.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64),
        start=torch.tensor([1.0, 0.0], dtype=torch.float64),
        terminal=torch.tensor([False, True]),
        time_limit=1,
    )
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)

    class Peeking:
        def __call__(self, rollout):
            estimate = RewardsToGo(gamma=1.0)(rollout)
            return attrs.evolve(estimate, returns=estimate.returns - 0.5 * rollout.rewards[0])

    exact = torch.autograd.grad(expected_return(world, logits.softmax(1), 1.0), logits)[0]
    assert torch.allclose(expected_gradient(world, logits, RewardsToGo(gamma=1.0), 0.0), -exact)
    assert not torch.allclose(expected_gradient(world, logits, Peeking(), 0.0), -exact)


def test_policies_over_discrete_and_box_observations_learn_every_parameter():
    from gymnasium.spaces import Box, Discrete

    for space in (Discrete(7), Box(-1.0, 1.0, (2, 3))):
        policy = Categorical(hidden=(5, 4)).build(space, Discrete(3))
        observations = torch.stack([torch.as_tensor(space.sample()) for _ in range(16)])
        evaluation = policy.evaluate(Inputs(observations), torch.randint(0, 3, (16,)), True)
        total = (evaluation.log_probs * torch.randn(16)).sum() + evaluation.entropies.sum()
        for gradient in torch.autograd.grad(total, list(policy.parameters())):
            assert gradient.abs().sum() > 0
