"""Losses with a critic: their terms and gradients against the papers' formulas, by hand and without autograd."""

import math

import framework_losses
import pytest
import torch
from attrs import frozen
from framework_losses import ActorCritic, Ppo
from framework_reinforce.score_function import Reinforce
from gymnasium.spaces import Discrete
from hypothesis import assume, given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from torch import nn

import framework
from framework import Action, Batch, Evaluation, RolloutSettings, UpdateSettings
from framework.setup.loading import load

STEPS, OPTIONS = 6, 3
SEEDS = st.integers(0, 2**31)

# Numbers are of size 1 and computed in float64 on both sides: 1e-12 leaves room for a few roundings of 1e-16, and a
# wrong formula misses by far more.
EXACT = {"rtol": 0, "atol": 1e-12}


@frozen(eq=False)
class Case:
    """Logits and values of six steps, their batch, and what the policy says of it, with gradient to both."""

    logits: torch.Tensor  # [B, actions]
    values: torch.Tensor  # [B]
    batch: Batch
    evaluation: Evaluation


def a_case(seed, moved=0.5):
    """Random numbers; the policy's log-probs lie about `moved` from those of the one that acted."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    actions = torch.randint(0, OPTIONS, (STEPS,), generator=generator)
    logits, values = normal(STEPS, OPTIONS).requires_grad_(), normal(STEPS).requires_grad_()
    log_probs = logits.log_softmax(1).gather(1, actions[:, None]).squeeze(1)
    table = logits.log_softmax(1)
    evaluation = Evaluation(log_probs, -(table.exp() * table).sum(1), values)
    batch = Batch(
        actions,
        actions,
        log_probs.detach() + moved * normal(STEPS),
        normal(STEPS),
        normal(STEPS),
        normal(STEPS),
        STEPS,
        2.0,
        values=values.detach() + normal(STEPS),
    )
    return Case(logits, values, batch, evaluation)


def gradient(case, terms, names):
    """Of the summed terms, to the logits and the values; 0 where they have no part."""
    total = sum(terms[name].sum() for name in names)
    found = torch.autograd.grad(total, [case.logits, case.values], allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip((case.logits, case.values), found, strict=True)]


def score(case):
    """∇ log π(a|s) by the logits: 1[a] − π, `[B, actions]`."""
    probabilities = case.logits.detach().softmax(1)
    return nn.functional.one_hot(case.batch.actions, OPTIONS) - probabilities


def entropy_slopes(case):
    """∇H by the logits: −π·(log π + H), `[B, actions]`."""
    table = case.logits.detach().log_softmax(1)
    entropy = -(table.exp() * table).sum(1, keepdim=True)
    return -table.exp() * (table + entropy)


# The laws: each takes the module under test first, so that a mutant can be put in its place.


def law_actor_critic_is_its_formula(module, seed, value, entropy):
    """−A·log π, c_v·(V − G)² and −c_e·H, with their gradients −A·(1[a] − π), 2c_v(V − G), c_e·π·(log π + H)."""
    case = a_case(seed)
    batch, said = case.batch, case.evaluation
    loss = module.ActorCritic(value=value, entropy=entropy)(batch, said)
    errors = said.values.detach() - batch.value_targets
    assert torch.allclose(loss.terms["policy"], -batch.advantages * said.log_probs, **EXACT)
    terms = ["policy", "value"] if value else ["policy"]
    if value:
        assert torch.allclose(loss.terms["value"], value * errors**2, **EXACT)
    by_logits, by_values = gradient(case, loss.terms, terms)
    assert torch.allclose(by_logits, -batch.advantages[:, None] * score(case), **EXACT)
    assert torch.allclose(by_values, 2 * value * errors, **EXACT)
    if entropy:
        assert torch.allclose(loss.terms["entropy"], -entropy * said.entropies, **EXACT)
        by_logits, by_values = gradient(case, loss.terms, ["entropy"])
        assert torch.allclose(by_logits, -entropy * entropy_slopes(case), **EXACT)
        assert not by_values.any()
        assert math.isclose(loss.metrics["entropy"], said.entropies.detach().mean(), abs_tol=1e-12)
    assert loss.terms.keys() == {*terms, *(["entropy"] if entropy else [])}


def law_ppo_is_its_formula(module, seed, clip, dual):
    """Step by step in plain Python: −min(ρA, clip(ρ)A), where A < 0 at most −cA; ∂ = −ρA where ρ counts, else 0."""
    case = a_case(seed)
    batch = case.batch
    loss = module.Ppo(clip=clip, dual_clip=dual)(batch, case.evaluation)
    gradients, clipped = [], 0
    for b in range(STEPS):
        ratio = math.exp(float(case.evaluation.log_probs[b].detach()) - float(batch.log_probs[b]))
        advantage = float(batch.advantages[b])
        gain = min(ratio * advantage, max(1 - clip, min(1 + clip, ratio)) * advantage)
        if dual is not None and advantage < 0:
            gain = max(gain, dual * advantage)
        assert math.isclose(float(loss.terms["policy"][b].detach()), -gain, abs_tol=1e-12)
        assume(min(abs(ratio - kink) for kink in (1 - clip, 1 + clip, dual or 0)) > 1e-9)
        low, high = (0.0, 1 + clip) if advantage > 0 else (1 - clip, dual or math.inf)
        counts = low < ratio < high
        gradients.append(-ratio * advantage if counts else 0.0)
        clipped += abs(ratio - 1) > clip
    by_logits, by_values = gradient(case, loss.terms, ["policy"])
    assert torch.allclose(by_logits, torch.tensor(gradients, dtype=torch.float64)[:, None] * score(case), **EXACT)
    assert not by_values.any()
    assert math.isclose(float(loss.metrics["clipped"]), clipped / STEPS, abs_tol=1e-12)


def law_gradients_equal_finite_differences(module, seed, value_clip):
    """Central differences of PPO's whole loss, with every option on, in a direction of logits, and one of values.

    Within 1e-4 of a kink they are not asked. Error of order h² = 1e-12, and rounding of 1e-15/1e-6: 1e-7 is ample.
    """
    case = a_case(seed)
    batch, said = case.batch, case.evaluation
    loss = module.Ppo(value_clip=value_clip, entropy=0.1, dual_clip=1.5)
    ratios = (said.log_probs - batch.log_probs).exp().detach()
    for kink in (0.8, 1.2, 1.5):
        assume((ratios - kink).abs().min() > 1e-4)
    moved = said.values.detach() - batch.values
    errors = said.values.detach() - batch.value_targets
    held = batch.values + moved.clamp(-value_clip, value_clip) - batch.value_targets
    assume((moved.abs() - value_clip).abs().min() > 1e-4)
    apart = (errors.abs() - held.abs()).abs()
    assume(((apart > 1e-4) | (moved.abs() < value_clip)).all())
    directions = [
        torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1)).double()
        for x in (case.logits, case.values)
    ]

    def total(shift):
        logits, values = (x.detach() + shift * d for x, d in zip((case.logits, case.values), directions, strict=True))
        table = logits.log_softmax(1)
        log_probs = table.gather(1, batch.actions[:, None]).squeeze(1)
        terms = loss(batch, Evaluation(log_probs, -(table.exp() * table).sum(1), values)).terms
        return float(sum(term.sum() for term in terms.values()))

    by_hand = (total(1e-6) - total(-1e-6)) / 2e-6
    found = gradient(case, loss(batch, said).terms, ["policy", "value", "entropy"])
    assert math.isclose(
        sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True)), by_hand, abs_tol=1e-7
    )


def law_the_value_clip_takes_the_larger_error(module, seed, reach):
    """c·max((V − G)², (V_old + clip(V − V_old, ±reach) − G)²); where the second is larger, V has no gradient."""
    case = a_case(seed)
    batch = case.batch
    loss = module.Ppo(value=0.7, value_clip=reach)(batch, case.evaluation)
    gradients = []
    for b in range(STEPS):
        value, old, target = (float(column[b]) for column in (case.values.detach(), batch.values, batch.value_targets))
        near = old + max(-reach, min(reach, value - old))
        assert math.isclose(
            float(loss.terms["value"][b].detach()),
            0.7 * max((value - target) ** 2, (near - target) ** 2),
            abs_tol=1e-12,
        )
        held = abs(value - old) > reach and (near - target) ** 2 > (value - target) ** 2
        gradients.append(0.0 if held else 0.7 * 2 * (value - target))
    assert torch.allclose(
        gradient(case, loss.terms, ["value"])[1], torch.tensor(gradients, dtype=torch.float64), **EXACT
    )


def law_the_clipped_region_has_no_policy_gradient(module, ratio, advantage):
    """Good actions beyond 1 + ε and bad ones below 1 − ε pull no more; the other two corners do, back towards 1."""
    log_prob = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    column = torch.tensor([advantage], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    batch = Batch(zero, zero, zero, column, column, column, 1, 1.0)
    (gradient,) = torch.autograd.grad(
        module.Ppo(value=0.0)(batch, Evaluation(log_prob)).terms["policy"].sum(), log_prob
    )
    beyond = ratio > 1.2 if advantage > 0 else ratio < 0.8
    assert (float(gradient) == 0) == beyond
    assert beyond or math.isclose(float(gradient), -ratio * advantage, rel_tol=1e-12)


def law_where_nothing_has_moved_it_is_reinforce(module, seed):
    """Ratio 1: PPO's gradient is that of −A·log π, whatever the clips; nothing is clipped, and the KL is 0."""
    case = a_case(seed, moved=0.0)
    loss = module.Ppo(clip=0.01, dual_clip=1.1)(case.batch, case.evaluation)
    plain = Reinforce()(case.batch, case.evaluation)
    found, expected = (gradient(case, made.terms, ["policy"])[0] for made in (loss, plain))
    assert torch.allclose(found, expected, **EXACT)
    assert (float(loss.metrics["kl"]), float(loss.metrics["clipped"])) == (0.0, 0.0)


def law_kl_is_never_negative_and_clipped_is_a_share(module, moves):
    """In float32, too, where ρ − 1 is rounded by 6e-8 and log ρ is not: KL is the mean of ρ − 1 − log ρ."""
    zero = torch.zeros(len(moves))
    batch = Batch(zero, zero, zero, zero, zero, zero, len(moves), 1.0)
    metrics = module.Ppo(value=0.0)(batch, Evaluation(torch.tensor(moves, requires_grad=True))).metrics
    kl, clipped = float(metrics["kl"]), float(metrics["clipped"])
    assert 0 <= clipped <= 1
    exact = math.fsum(math.expm1(x) - x for x in torch.tensor(moves).double().tolist()) / len(moves)
    assert kl >= 0
    # expm1 is rounded by 6e-8 of its size, which is below max(|x|, eˣ); means of 20 numbers add as much
    assert math.isclose(kl, exact, abs_tol=4e-7 * max(max(abs(x), math.exp(x)) for x in moves))


COEFFICIENTS = st.sampled_from([0.0, 0.25, 1.0])
LAWS = {
    law_actor_critic_is_its_formula: (SEEDS, COEFFICIENTS, COEFFICIENTS),
    law_ppo_is_its_formula: (SEEDS, st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([None, 1.3, 3.0])),
    law_gradients_equal_finite_differences: (SEEDS, st.sampled_from([0.3, 1.0])),
    law_the_value_clip_takes_the_larger_error: (SEEDS, st.sampled_from([0.2, 1.0])),
    law_the_clipped_region_has_no_policy_gradient: (
        st.sampled_from([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0]),
        st.sampled_from([-2.0, -0.5, 0.5, 2.0]),
    ),
    law_where_nothing_has_moved_it_is_reinforce: (SEEDS,),
    law_kl_is_never_negative_and_clipped_is_a_share: (
        st.lists(st.floats(-3, 3, width=32) | st.floats(-(2**-10), 2**-10, width=32), min_size=1, max_size=20),
    ),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(framework_losses, *drawn))()


EVERY = {
    "reinforce": Reinforce(entropy=0.1),
    "actor_critic": ActorCritic(entropy=0.1),
    "ppo": Ppo(entropy=0.1, value_clip=0.5, dual_clip=2.0),
    "ppo without a critic": Ppo(value=0.0),
}


def test_every_loss_that_is_offered_is_among_these():
    offered = load(["reinforce", "losses"]).offers["loss"]
    assert {type(loss) for loss in EVERY.values()} == {cls for owners in offered.values() for cls in owners.values()}


@pytest.mark.parametrize("cls", [ActorCritic, Ppo, Reinforce])
def test_without_coefficient_no_entropies_are_asked_for(cls):
    assert "entropies" not in cls().needs
    assert "entropies" in cls(entropy=0.1).needs
    case = a_case(1)
    assert "entropy" not in cls()(case.batch, case.evaluation).terms


def test_what_is_needed_follows_the_settings():
    assert Ppo().needs == ActorCritic().needs == {"values"}
    for cls in (Ppo, ActorCritic):
        assert cls(value=0.0).needs == frozenset()
        assert cls(value=0.0, entropy=0.1).needs == {"entropies"}


def test_all_further_options_of_ppo_are_off():
    assert Ppo() == Ppo(clip=0.2, value=0.5, entropy=0.0, value_clip=None, dual_clip=None, target_kl=None)


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (ActorCritic, {"value": -1.0}, "'value' must be >= 0.0: -1.0"),
        (ActorCritic, {"entropy": -1.0}, "'entropy' must be >= 0.0: -1.0"),
        (Ppo, {"clip": 0.0}, "'clip' must be > 0.0: 0.0"),
        (Ppo, {"dual_clip": 1.0}, "'dual_clip' must be > 1.0: 1.0"),
        (Ppo, {"value_clip": 0.0}, "'value_clip' must be > 0.0: 0.0"),
        (Ppo, {"target_kl": 0.0}, "'target_kl' must be > 0.0: 0.0"),
    ],
)
def test_settings_are_refused_when_they_are_made(cls, wrong, message):
    with pytest.raises(ValueError, match=message):
        cls(**wrong)


# In a run


@frozen(eq=False)
class Table:
    """A policy of one table of logits and one of values; both start at zero."""

    gives = frozenset({"values"})

    def build(self, observation_space, action_space):
        assert isinstance(observation_space, Discrete)
        return TablePolicy(int(observation_space.n), int(action_space.n))


class TablePolicy(nn.Module):
    def __init__(self, states, options):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(states, options))
        self.table = nn.Parameter(torch.zeros(states))

    def act(self, inputs, generator):
        probabilities = self.logits.softmax(1).detach()[inputs.observations]
        return Action(torch.multinomial(probabilities, 1, generator=generator).squeeze(1))

    def evaluate(self, inputs, actions, entropies):
        table = self.logits.log_softmax(1)[inputs.observations]
        log_probs = table.gather(1, actions[:, None]).squeeze(1)
        return Evaluation(log_probs, -(table.exp() * table).sum(1) if entropies else None, self.values(inputs))

    def values(self, inputs):
        return self.table[inputs.observations]


def trained(loss, **more):
    options = {"rollout": RolloutSettings(lanes=4, episodes=8), "iterations": 3, **more}
    return framework.train(policy=Table(), loss=loss, optimizer=framework.OptimizerSettings(lr=0.1), **options)


def test_target_kl_ends_an_iterations_updates():
    """Ten epochs of steps of 0.1: without a limit all are made; with one, fewer, and the KL of those made is below."""
    update = UpdateSettings(epochs=10)
    free, held = trained(Ppo(), update=update), trained(Ppo(target_kl=0.01), update=update)
    assert free.metrics["updates"].tolist() == [10] * 3
    assert free.metrics["kl"].max() > 0.01
    assert (held.metrics["updates"] < 10).all()
    assert (held.metrics["updates"] >= 1).all()  # before the first, nothing has moved
    assert (held.metrics["kl"] <= 0.01).all()


@pytest.mark.parametrize("name", EVERY)
def test_in_a_run_every_loss_moves_what_it_judges(name):
    """Logits always; values with a critic only. What the run reports is finite, and KL and share are in range."""
    result = trained(EVERY[name], update=UpdateSettings(epochs=2, minibatches=2))
    assert result.policy.logits.any()
    assert bool(result.policy.table.any()) == (name in ("actor_critic", "ppo"))
    if name.startswith("ppo"):
        assert (result.metrics["kl"] >= 0).all()
        assert ((result.metrics["clipped"] >= 0) & (result.metrics["clipped"] <= 1)).all()


# Mutants

AC, CLIP, KINK = law_actor_critic_is_its_formula, law_ppo_is_its_formula, law_the_clipped_region_has_no_policy_gradient
CLAMP = "ratios.clamp(1 - self.clip, 1 + self.clip)"
KL = "(torch.expm1(log_ratios) - log_ratios).clamp(min=0).mean()"
MUTANTS = {
    "descends the entropy": (AC, ("-coefficient * evaluation.entropies", "coefficient * evaluation.entropies")),
    "adds entropy without coefficient": (AC, ("if not coefficient or", "if")),
    "climbs the wrong way": (
        AC,
        ("evaluation.log_probs * -batch.advantages", "evaluation.log_probs * batch.advantages"),
    ),
    "compares values with returns": (
        AC,
        ("errors = evaluation.values - batch.value_targets", "errors = evaluation.values - batch.returns"),
    ),
    "averages the errors": (AC, ("self.value * errors.square()", "self.value * errors.square().mean().expand(6)")),
    "detaches the critic": (AC, ("errors.square()", "errors.detach().square()")),
    "is optimistic": (CLIP, ("(ratios * costs).clamp(min=least)", "(ratios * costs).clamp(max=least)")),
    "clips above only": (CLIP, (CLAMP, "ratios.clamp(max=1 + self.clip)")),
    "clips dually where it is good, too": (
        CLIP,
        ("torch.where(costs > 0, ", "torch.where(costs > -99, "),
    ),
    "caps the loss from the wrong side": (CLIP, ("losses.clamp(max=self", "losses.clamp(min=self")),
    "counts only what is clipped above": (CLIP, ("(clipped != ratios)", "(clipped < ratios)")),
    "forgets the old policy": (CLIP, ("evaluation.log_probs - batch.log_probs", "evaluation.log_probs")),
    "clips always": (
        KINK,
        ("(ratios * costs).clamp(min=least)", f"{CLAMP} * costs"),
    ),
    "clips never": (KINK, (CLAMP, "ratios")),
    "halves the gradient at 1": (
        law_where_nothing_has_moved_it_is_reinforce,
        ("(ratios * costs).clamp(min=least)", "torch.maximum(ratios * costs, least)"),
    ),
    "takes the smaller error": (
        law_the_value_clip_takes_the_larger_error,
        ("return torch.maximum(errors", "return torch.minimum(errors"),
    ),
    "clips around the target": (
        law_the_value_clip_takes_the_larger_error,
        ("(batch.values + moved - batch.value_targets)", "moved"),
    ),
    "cuts the critic's graph": (
        law_gradients_equal_finite_differences,
        (
            "mse_loss(evaluation.values, batch",
            "mse_loss(evaluation.values.detach(), batch",
        ),
    ),
    "subtracts in float32": (
        law_kl_is_never_negative_and_clipped_is_a_share,
        (KL, "(ratios - 1 - log_ratios).mean()"),
    ),
    "estimates KL by the log alone": (law_kl_is_never_negative_and_clipped_is_a_share, (KL, "(-log_ratios).mean()")),
    "turns the KL round": (
        law_kl_is_never_negative_and_clipped_is_a_share,
        (KL, "(torch.expm1(-log_ratios) + log_ratios).clamp(min=0).mean()"),
    ),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(mutate("framework_losses", change),))
