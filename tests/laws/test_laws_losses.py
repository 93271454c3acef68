"""Laws of losses: built-in losses satisfy them, and losses with historical bugs do not."""

from collections.abc import Callable

import pytest
import torch
from attrs import evolve, field, frozen, validators
from framework_losses import ActorCritic, Ppo
from framework_reinforce import Reinforce
from mutants import EXAMPLES, is_killed

from framework import Loss
from framework.parts import Part
from framework.setup.loading import load
from framework.testing.checking import check, laws
from framework.testing.law import Subject

LOADED = load(["reinforce", "losses"])
LAWS = {law.name: law for law in laws("loss")}
BUILT_IN = [
    Reinforce(),
    Reinforce(entropy=0.1),
    ActorCritic(),
    ActorCritic(value=0.0),
    ActorCritic(entropy=0.1),
    Ppo(),
    Ppo(clip=0.1, entropy=0.1),
    Ppo(value=0.0),
    Ppo(value_clip=0.25),
    Ppo(dual_clip=1.5),
    Ppo(target_kl=0.01),
    Ppo(entropy=0.1, value_clip=0.5, dual_clip=3.0, target_kl=0.02),
]


ONE_OF_EACH = {type(loss): loss for loss in BUILT_IN}.values()  # the last, with most of its terms


@pytest.mark.parametrize(
    "loss",
    [pytest.param(loss, marks=[] if loss in ONE_OF_EACH else [pytest.mark.slow]) for loss in BUILT_IN],
    ids=repr,
)
def test_every_built_in_loss_satisfies_the_laws(loss):
    report = check(loss, "loss", examples=EXAMPLES, loaded=LOADED)
    assert [(verdict.law.name, verdict.reason, verdict.case) for verdict in report.failed] == []
    assert len(report.verdicts) == len(laws("loss"))


def test_every_offered_loss_is_among_these():
    offered = {cls for owners in LOADED.offers["loss"].values() for cls in owners.values()}
    assert {type(loss) for loss in BUILT_IN} == offered


# Correct losses that differ from the built-in ones


@frozen
class WithCoefficients:
    """An actor-critic loss whose needs are declared on its class, whatever its coefficients."""

    needs = frozenset({"values", "entropies"})
    value_coefficient: float = field(default=0.5, validator=validators.ge(0))
    entropy_coefficient: float = field(default=0.01, validator=[validators.ge(0), validators.lt(0.5)])

    def __call__(self, batch, evaluation):
        errors = (evaluation.values - batch.value_targets).square()
        bonus = -self.entropy_coefficient * evaluation.entropies
        return Loss(
            {"policy": reinforce(batch, evaluation), "value": self.value_coefficient * errors, "entropy": bonus}
        )


@pytest.mark.slow
@pytest.mark.parametrize("values", [0.0, 0.5])
@pytest.mark.parametrize("entropies", [0.0, 0.01])
def test_a_coefficient_may_turn_a_term_off(values, entropies):
    """Of 0, also by default: the report says that the setting turns the law off, and no law is broken."""
    report = check(WithCoefficients(values, entropies), "loss", examples=EXAMPLES, loaded=LOADED)
    assert [(verdict.law.name, verdict.reason, verdict.case) for verdict in report.failed] == []
    subject = Subject(Part("loss", "it", "tests", WithCoefficients(values, entropies)), LOADED)
    for law, name, number in (
        ("the_critic_is_pulled_towards_its_target", "value_coefficient", values),
        ("entropy_is_a_bonus", "entropy_coefficient", entropies),
    ):
        assert LAWS[law].applies(subject) == (None if number else f"{name} is 0.0, which turns this off")


@frozen
class Detached(WithCoefficients):
    """A critic without a gradient, for which a coefficient of 0 is not the reason."""

    def __call__(self, batch, evaluation):
        return super().__call__(batch, evolve(evaluation, values=evaluation.values.detach()))


@pytest.mark.parametrize("values", [0.0, 0.5])
def test_a_coefficient_of_0_hides_no_missing_graph(values):
    (verdict,) = check(Detached(values), "loss", only=["the_critic_is_pulled_towards_its_target"]).verdicts
    assert verdict.outcome == "failed"


PENALTIES = {
    "k2": lambda moved: 0.5 * moved.square(),
    "k3": lambda moved: moved.exp() - 1 - moved,
    "k3 the other way": lambda moved: (-moved).clamp(max=20).exp() - 1 + moved.clamp(min=-20),  # finite for all moves
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PENALTIES)
def test_a_kl_penalty_is_allowed(name):
    """Schulman et al. 2017, arXiv:1707.06347, eq. 8; estimators by Schulman 2020, Approximating KL Divergence."""

    def rule(batch, evaluation):
        moved = evaluation.log_probs - batch.log_probs
        return Loss({"policy": -moved.exp() * batch.advantages, "kl": 0.5 * PENALTIES[name](moved)})

    report = check(Mutant(rule), "loss", examples=EXAMPLES, loaded=LOADED)
    assert [(verdict.law.name, verdict.reason, verdict.case) for verdict in report.failed] == []


def test_a_penalty_that_increases_the_divergence_is_not():
    def rule(batch, evaluation):
        moved = evaluation.log_probs - batch.log_probs
        return Loss({"policy": -moved.exp() * batch.advantages, "kl": -0.5 * moved.square()})

    report = check(Mutant(rule), "loss", examples=EXAMPLES, loaded=LOADED)
    assert [verdict.law.name for verdict in report.failed] == ["zero_advantages_give_no_policy_gradient"]


def test_entropies_may_be_regulated_to_a_target():
    def rule(batch, evaluation):
        return Loss({"policy": reinforce(batch, evaluation), "entropy": (evaluation.entropies - 0.5).square()})

    report = check(Mutant(rule, frozenset({"entropies"})), "loss", examples=EXAMPLES, loaded=LOADED)
    assert [(verdict.law.name, verdict.reason, verdict.case) for verdict in report.failed] == []


def test_laws_of_missing_terms_are_not_applicable():
    report = check(Mutant(lambda *given: Loss({"policy": reinforce(*given)})), "loss", examples=2, loaded=LOADED)
    reasons = {verdict.law.name: verdict.reason for verdict in report.of("not applicable")}
    assert reasons["a_metric_called_kl_is_the_kl_divergence"] == "it has no metric kl or approx_kl"
    assert reasons["the_policys_loss_does_not_move_the_critic"] == "it does not use values"


# Mutants: losses with bugs that were found elsewhere


@frozen
class Mutant:
    """A loss from a function of batch and evaluation."""

    rule: Callable
    needs: frozenset = frozenset()
    claims: frozenset = frozenset()

    def __call__(self, batch, evaluation):
        return self.rule(batch, evaluation)


MUTANTS = {}


def mutant(law, source, needs=(), claims=()):
    """Register a bug: the law that kills it, and where it was found."""

    def enter(rule):
        name = rule.__name__.replace("_", " ")
        MUTANTS[name] = (law, source, Mutant(rule, frozenset(needs), frozenset(claims)))
        return rule

    return enter


def reinforce(batch, evaluation):
    return -batch.advantages * evaluation.log_probs


def ratio_of(batch, evaluation):
    return (evaluation.log_probs - batch.log_probs).exp()


def clipped(ratios):
    return ratios.clamp(0.8, 1.2)


@mutant(
    "each_term_depends_on_its_step_only",
    "RLinf/RLinf issue 1568: OpenPI PPO critic loss silently broadcasts [B] values against [B, 1] returns",
    needs={"values"},
)
def values_B_against_targets_B_1(batch, evaluation):  # noqa: N802
    errors = (evaluation.values - batch.value_targets.unsqueeze(1)).square().mean(0)
    return Loss({"policy": reinforce(batch, evaluation), "value": errors})


@mutant(
    "each_term_depends_on_its_step_only",
    "PacktPublishing/Deep-Reinforcement-Learning-Hands-On issue 33: values not squeezed, advantages become [B, B]",
    needs={"values"},
)
def advantages_B_B_averaged(batch, evaluation):  # noqa: N802
    advantages = batch.returns - evaluation.values.detach().unsqueeze(1)
    errors = (evaluation.values - batch.value_targets).square()
    return Loss({"policy": (-advantages * evaluation.log_probs).mean(0), "value": errors})


@mutant("each_term_depends_on_its_step_only", "no source found")
def advantages_divided_by_their_variance(batch, evaluation):
    advantages = batch.advantages / (batch.advantages.var(correction=0) + 1e-8)
    return Loss({"policy": -advantages * evaluation.log_probs})


@mutant(
    "each_term_depends_on_its_step_only",
    "DLR-RM/stable-baselines3 issue 325: NaN if a single observation is sampled (advantages standardised in the loss)",
)
def advantages_standardised_in_every_minibatch(batch, evaluation):
    centred = batch.advantages - batch.advantages.mean()
    return Loss({"policy": -centred / (centred.square().mean().sqrt() + 1e-8) * evaluation.log_probs})


@mutant(
    "each_term_depends_on_its_step_only",
    "Farama-Foundation/Gymnasium issue 1336: the mean of all log-probs is multiplied by each return",
)
def the_mean_log_prob_for_every_step(batch, evaluation):
    return Loss({"policy": -batch.advantages * evaluation.log_probs.mean()})


@mutant(
    "steps_of_a_loss_may_come_in_any_order",
    "micdoh/XLRON PR 50: a scan in the loss chains steps that were drawn anew, as if each led to the next",
)
def advantages_summed_over_the_minibatch(batch, evaluation):
    advantages = batch.advantages.flip(0).cumsum(0).flip(0)
    return Loss({"policy": -advantages * evaluation.log_probs})


@mutant(
    "losses_in_float32_are_near_float64",
    "PrimeIntellect-ai/prime-rl PR 568: fix ratio bf16 accumulation (here, unless float64 is passed in)",
)
def log_ratios_in_bfloat16(batch, evaluation):
    moved = evaluation.log_probs - batch.log_probs
    moved = moved if moved.dtype == torch.float64 else (moved / 3).bfloat16().to(moved.dtype) * 3
    return Loss({"policy": -moved.exp() * batch.advantages})


@mutant(
    "losses_have_one_number_a_step", "no source found; the usual form of a loss elsewhere, and here the core divides"
)
def a_mean_instead_of_terms(batch, evaluation):
    return Loss({"policy": reinforce(batch, evaluation).mean()})


@mutant(
    "losses_of_micro_batches_add_up",
    "PrimeIntellect-ai/prime-rl PR 583: micro-batches normalised by their own number of tokens, not the batch's",
)
def micro_batches_divided_by_their_own_size(batch, evaluation):
    return Loss({"policy": reinforce(batch, evaluation) / len(batch.advantages)})


@mutant(
    "losses_do_not_divide_by_the_totals",
    "unslothai/unsloth-zoo PR 1023: divided by the count in the loss and by the trainer once more",
)
def divided_twice(batch, evaluation):
    return Loss({"policy": reinforce(batch, evaluation) / batch.total_steps})


@mutant(
    "losses_do_not_modify_their_inputs",
    "recursionpharma/gflownet issue 61: tensors of a batch are modified after it was made, and trained on again",
)
def advantages_centred_in_place(batch, evaluation):
    batch.advantages.sub_(0.5)
    return Loss({"policy": reinforce(batch, evaluation)})


@mutant(
    "metrics_of_losses_carry_no_gradient",
    "alexhernandezgarcia/gflownet PR 133: a running loss without detach keeps every graph; memory grows fast",
)
def a_metric_with_its_graph(batch, evaluation):
    terms = reinforce(batch, evaluation)
    return Loss({"policy": terms}, {"policy_loss": terms.mean()})


@mutant(
    "the_declared_needs_are_enough",
    "no source found",
)
def entropies_used_but_not_asked_for(batch, evaluation):
    return Loss({"policy": reinforce(batch, evaluation), "entropy": -0.01 * evaluation.entropies})


@mutant(
    "better_actions_become_more_likely",
    "kengz/SLM-Lab PR 133: torch.tensor makes log-probs a new tensor, detached from the graph; nothing learnt",
)
def log_probs_cut_by_torch_tensor(batch, evaluation):
    log_probs = torch.tensor(evaluation.log_probs.tolist(), dtype=batch.advantages.dtype)
    return Loss({"policy": -batch.advantages * log_probs})


@mutant(
    "better_actions_become_more_likely",
    "no source found; muupan/async-rl issue 22 asks whether pi_loss has the wrong sign, and it has not",
)
def the_return_is_descended(batch, evaluation):
    return Loss({"policy": -reinforce(batch, evaluation)})


@mutant(
    "better_actions_become_more_likely",
    "alexis-jacq/Pytorch-DPPO issue 3: it should clamp the ratio, not surr1",
)
def the_gain_is_clamped_not_the_ratio(batch, evaluation):
    gain = ratio_of(batch, evaluation) * batch.advantages
    return Loss({"policy": -torch.minimum(gain, clipped(gain))})


@mutant(
    "on_the_policy_that_acted_the_gradient_is_minus_the_advantage",
    "thu-ml/tianshou issue 433: dual clip max(min(surr1, surr2), c·A) for positive advantages, too",
    claims={"policy_gradient"},
)
def a_dual_clip_where_actions_are_good(batch, evaluation):
    ratios = ratio_of(batch, evaluation)
    gain = torch.minimum(ratios * batch.advantages, clipped(ratios) * batch.advantages)
    return Loss({"policy": -torch.maximum(gain, 5.0 * batch.advantages)})


@mutant(
    "a_clipped_loss_is_no_lower_than_the_unclipped",
    "tensorforce/tensorforce issue 106: the minimum of clipped and unclipped is missing",
    claims={"policy_gradient", "pessimistic"},
)
def clipped_without_the_minimum(batch, evaluation):
    return Loss({"policy": -clipped(ratio_of(batch, evaluation)) * batch.advantages})


@mutant(
    "a_clipped_loss_is_no_lower_than_the_unclipped",
    "takuseno/ppo issue 3: the minimum is taken before multiplying by the advantage",
    claims={"policy_gradient", "pessimistic"},
)
def the_minimum_before_the_advantage(batch, evaluation):
    ratios = ratio_of(batch, evaluation)
    return Loss({"policy": -torch.minimum(ratios, clipped(ratios)) * batch.advantages})


@mutant(
    "gradients_of_losses_are_finite_differences",
    "tensorforce/tensorforce issue 312: the ratio is always 1, old log-probs are recomputed from the new policy",
    claims={"policy_gradient"},
)
def old_log_probs_of_the_new_policy(batch, evaluation):
    ratios = (evaluation.log_probs - evaluation.log_probs.detach()).exp()
    return Loss({"policy": -ratios * batch.advantages})


@mutant(
    "losses_are_finite_for_log_ratios_that_occur",
    "MorvanZhou/Reinforcement-learning-with-tensorflow issue 163: ratio = pi.prob(a) / oldpi.prob(a) becomes NaN",
)
def a_ratio_of_probabilities(batch, evaluation):
    return Loss({"policy": -evaluation.log_probs.exp() / batch.log_probs.exp() * batch.advantages})


@mutant(
    "gradients_of_losses_are_finite_differences",
    "PufferAI/PufferLib PR 584: rounded to half precision, the ratio moves in jumps (and is not 1 where nothing moved)",
)
def ratios_in_half_precision(batch, evaluation):
    return Loss({"policy": -ratio_of(batch, evaluation).bfloat16().double() * batch.advantages})


@mutant(
    "the_policys_loss_does_not_move_the_critic",
    "muupan/async-rl issue 12 and keras-team/keras-io issue 194: advantage = R − v, through which the gradient flows",
    needs={"values"},
)
def advantages_of_attached_values(batch, evaluation):
    advantages = batch.returns - evaluation.values
    errors = (evaluation.values - batch.value_targets).square()
    return Loss({"policy": -advantages * evaluation.log_probs, "value": errors})


@mutant(
    "the_critic_is_pulled_towards_its_target",
    "jsboige/CoursIA PR 15256: value loss detached from the graph, critic never trained",
    needs={"values"},
)
def a_critic_that_is_never_trained(batch, evaluation):
    errors = (evaluation.values.detach() - batch.value_targets).square()
    return Loss({"policy": reinforce(batch, evaluation), "value": errors})


@mutant(
    "the_critic_is_pulled_towards_its_target",
    "ray-project/ray issue 2233: the value loss takes the minimum of clipped and unclipped, not the maximum",
    needs={"values"},
)
def the_smaller_of_two_value_errors(batch, evaluation):
    near = batch.values + (evaluation.values - batch.values).clamp(-0.2, 0.2)
    errors = torch.minimum((evaluation.values - batch.value_targets).square(), (near - batch.value_targets).square())
    return Loss({"policy": reinforce(batch, evaluation), "value": errors})


@mutant(
    "entropy_is_a_bonus",
    "google-deepmind/open_spiel issue 962: the entropy loss has the wrong sign, entropy is minimised",
    needs={"entropies"},
)
def entropy_is_minimised(batch, evaluation):
    return Loss({"policy": reinforce(batch, evaluation), "entropy": 0.01 * evaluation.entropies})


@mutant(
    "zero_advantages_give_no_policy_gradient",
    "MrSyee/pg-is-all-you-need issue 37: policy_loss += entropy_weight · −log_prob, called entropy maximisation",
)
def log_probs_as_entropies(batch, evaluation):
    return Loss({"policy": reinforce(batch, evaluation), "entropy": 0.01 * -evaluation.log_probs})


@mutant(
    "the_first_update_is_never_skipped",
    "no source found; tensorforce/tensorforce issue 105 has a KL that is always 0, which a limit with ≥ would stop at",
)
def stops_at_a_divergence_of_zero(batch, evaluation):
    kl = (batch.log_probs - evaluation.log_probs.detach()).mean()
    return Loss({"policy": reinforce(batch, evaluation)}, stop_epochs=kl >= 0)


@mutant(
    "a_metric_called_kl_is_the_kl_divergence",
    "huggingface/trl PR 168: policykl is the mean of log π − log π_old, the wrong way round",
)
def kl_the_wrong_way_round(batch, evaluation):
    kl = (evaluation.log_probs.detach() - batch.log_probs).mean()
    return Loss({"policy": reinforce(batch, evaluation)}, {"kl": kl})


@mutant(
    "a_metric_called_kl_is_the_kl_divergence",
    "Rolv-Arild/rocket-learn PR 12: KL = (e^ratio − 1) − ratio, with the ratio where its logarithm should be",
)
def kl_of_the_ratio_itself(batch, evaluation):
    ratios = ratio_of(batch, evaluation).detach()
    return Loss({"policy": reinforce(batch, evaluation)}, {"approx_kl": (ratios.exp() - 1 - ratios).mean()})


@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_with(name):
    law, _, loss = MUTANTS[name]
    subject = Subject(Part("loss", name, "tests", loss), LOADED)
    assert LAWS[law].applies(subject) is None
    is_killed(LAWS[law].check, LAWS[law].cases(subject), arguments=(subject,))


def test_a_counterexample_shrinks_to_few_steps():
    """Two steps, one with a value target that must not affect the other."""
    *_, loss = MUTANTS["values B against targets B 1"]
    (verdict,) = check(loss, "loss", only=["each_term_depends_on_its_step_only"], loaded=LOADED).verdicts
    assert verdict.outcome == "failed"
    (given,) = verdict.case
    assert len(given) == 2
    assert sum(number != 0 for number in (*given.values, *given.value_targets)) == 1
    assert len(verdict.error.case) == 2  # rows to be shown
