"""Laws of gradients with respect to log-probs, values and entropies."""

import math
from typing import Any

import torch
from attrs import evolve

from ..applicability import claims
from ..law import Broken, Subject, law
from ..steps import EXACT, Steps, evaluate_loss, gradient_by, require_close, step_cases
from .applicability import has_gradient_by, values_matter


@law(
    "loss",
    cases=lambda subject: step_cases(subject, most=3),
    applies=lambda subject: (
        "it claims to be a surrogate: only its gradient is meaningful, not its value"
        if subject.declares("claims", "surrogate")
        else None
    ),
)
def gradients_of_losses_are_finite_differences(subject: Subject, steps: Steps) -> None:
    """In float64, ∂/∂log π, ∂/∂value and ∂/∂entropy of the summed terms equal finite differences, or lie between the
    two one-sided differences at a kink: no graph is cut, and the reported loss is the one that is minimised.

    Differences of size 1e-6 have errors of half that size times a second derivative of up to 30, and rounding errors of
    1e-13 / 1e-6.
    """
    size = 1e-6
    result = evaluate_loss(subject, steps)
    total = float(result.total.detach())
    for name in ("log_probs", "values", "entropies"):
        if getattr(result.evaluation, name) is None:
            continue
        gradient = result.gradient(name)
        for b in range(len(steps)):
            differences = []
            for sign in (-1, 1):
                shifted: dict[str, Any] = {}
                for column in (
                    name,
                    {"log_probs": "log_ratios", "values": "value_changes"}.get(name, name),
                ):  # keeps those at collection time
                    numbers = list(getattr(steps, column))
                    numbers[b] += sign * size
                    shifted[column] = tuple(numbers)
                differences.append(
                    sign * (float(evaluate_loss(subject, evolve(steps, **shifted)).total.detach()) - total) / size
                )
            tolerance = 1e-4 * (1 + max(map(abs, differences)))
            if not min(differences) - tolerance <= float(gradient[b]) <= max(differences) + tolerance:
                raise Broken(
                    f"∂loss/∂{name} of step {b} is not the derivative of the loss",
                    expected=differences[0]
                    if abs(differences[0] - differences[1]) < tolerance
                    else f"{min(differences)} to {max(differences)}",
                    got=float(gradient[b]),
                    case=steps.rows(gradient=gradient),
                )


@law("loss", source="Sutton & Barto 2018, §13.2", cases=step_cases)
def better_actions_become_more_likely(subject: Subject, steps: Steps) -> None:
    """At ratio 1 a positive advantage increases the log-prob more than an advantage of 0 does, and a negative advantage
    does not: the gradient reaches every log-prob, with the right sign.
    """
    steps = steps.filled(log_ratios=0.0)
    gradient = evaluate_loss(subject, steps).gradient("log_probs")
    without_advantage = evaluate_loss(subject, steps.filled(advantages=0.0)).gradient("log_probs")
    for b, advantage in enumerate(steps.advantages):
        difference = float(gradient[b] - without_advantage[b])
        if (advantage > 0 and not difference < -EXACT) or (advantage < 0 and not difference >= -EXACT):
            raise Broken(
                f"the gradient with respect to the log-prob of step {b}, whose advantage is {advantage}",
                expected="below 0: increases the log-prob"
                if advantage > 0
                else "0 or more: does not increase the log-prob",
                got=difference,
                case=steps.rows(gradient=gradient),
            )


@law("loss", source="Sutton & Barto 2018, §13.2", cases=step_cases)
def zero_advantages_give_no_policy_gradient(subject: Subject, steps: Steps) -> None:
    """If all advantages are 0, the gradient with respect to log-probs is 0 at ratio 1. At other ratios it may only move
    the ratio back towards 1, as a KL penalty does (with the estimators k2 and k3, whose derivative at ratio 1 is 0;
    that of k1 increases the log-prob of every action that was taken).

    This counts all terms, but only through log-probs: entropies are separate inputs.
    """
    steps = steps.filled(advantages=0.0)
    unmoved = steps.filled(log_ratios=0.0)
    unmoved_gradient = evaluate_loss(subject, unmoved).gradient("log_probs")
    require_close(
        "the gradient with respect to the log-prob",
        torch.zeros(len(steps), dtype=torch.float64),
        unmoved_gradient,
        unmoved,
    )
    gradient = evaluate_loss(subject, steps).gradient("log_probs")
    for b, log_ratio in enumerate(steps.log_ratios):
        if not float(gradient[b]) * math.copysign(1, log_ratio) >= -EXACT:
            raise Broken(
                f"the gradient with respect to the log-prob of step {b}, whose ratio is {math.exp(log_ratio):.3g}",
                expected=f"0, or {'above' if log_ratio > 0 else 'below'} 0, so that descent moves the ratio towards 1",
                got=float(gradient[b]),
                case=steps.rows(gradient=gradient),
            )


@law("loss", source="Mnih et al. 2016, arXiv:1602.01783, algorithm S3", cases=step_cases, applies=values_matter)
def the_policys_loss_does_not_move_the_critic(subject: Subject, steps: Steps) -> None:
    """The gradient with respect to values does not depend on log-probs: an advantage computed from the critic's values
    without detaching them would train the critic to make bad actions look good.
    """
    result = evaluate_loss(subject, steps)
    values = result.evaluation.values
    if values is None:
        return
    by_values = gradient_by(result.total, values, create_graph=True)
    mixed = gradient_by(by_values.sum(), result.evaluation.log_probs).double()
    require_close("∂²loss/∂value ∂log π", torch.zeros_like(mixed), mixed, steps)


@law(
    "loss", source="Schulman et al. 2017, arXiv:1707.06347, eq. 9", cases=step_cases, applies=has_gradient_by("values")
)
def the_critic_is_pulled_towards_its_target(subject: Subject, steps: Steps) -> None:
    """Descending ∂loss/∂value never moves a value away from its target, and ∂loss/∂value is not 0 where the value is
    farther from its target than at collection time: with any clipping, a value can return. Does not apply if a
    setting of 0 turns the term off.
    """
    gradient = evaluate_loss(subject, steps).gradient("values")
    rows = zip(steps.values, steps.value_changes, steps.value_targets, strict=True)
    for b, (value, drift, target) in enumerate(rows):
        farther = abs(value - target) > abs(value - drift - target)
        towards = float(gradient[b]) * math.copysign(1, value - target) if value != target else -abs(float(gradient[b]))
        if towards < -EXACT or (farther and not towards > EXACT):
            raise Broken(
                f"the gradient with respect to the value of step {b}: {value}, before {value - drift}, target {target}",
                expected=("above 0" if farther else "0 or above")
                if value > target
                else "below 0"
                if farther
                else "0 or below",
                got=float(gradient[b]),
                case=steps.rows(gradient=gradient),
            )


CERTAIN = 20.0  # nats subtracted: as of a normal distribution with standard deviation 10⁻⁸


@law("loss", source="Mnih et al. 2016, arXiv:1602.01783, §4", cases=step_cases, applies=has_gradient_by("entropies"))
def entropy_is_a_bonus(subject: Subject, steps: Steps) -> None:
    """For a nearly deterministic policy (entropies of −18 nats and less, which densities can have), ∂loss/∂entropy is
    negative: descending the loss increases entropy. A loss that regulates entropy to a target passes, because it
    increases entropies below the target. Does not apply if a setting of 0 turns the term off.
    """
    steps = evolve(steps, entropies=tuple(entropy - CERTAIN for entropy in steps.entropies))
    gradient = evaluate_loss(subject, steps).gradient("entropies")
    if not (gradient < 0).all():
        b = int((~(gradient < 0)).nonzero()[0])
        raise Broken(
            f"the gradient with respect to the entropy of step {b}",
            expected="below 0",
            got=float(gradient[b]),
            case=steps.rows(gradient=gradient),
        )


@law("loss", source="Williams 1992, doi:10.1007/BF00992696, eq. 4", cases=step_cases, applies=claims("policy_gradient"))
def on_the_policy_that_acted_the_gradient_is_minus_the_advantage(subject: Subject, steps: Steps) -> None:
    """∂loss/∂log π(a|s) = −A at ratio 1: the first update is the policy gradient, whatever is clipped later."""
    steps = steps.filled(log_ratios=0.0)
    expected = -torch.tensor(steps.advantages, dtype=torch.float64)
    require_close(
        "the gradient with respect to the log-prob",
        expected,
        evaluate_loss(subject, steps).gradient("log_probs"),
        steps,
    )


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, eq. 7", cases=step_cases, applies=claims("pessimistic"))
def a_clipped_loss_is_no_lower_than_the_unclipped(subject: Subject, steps: Steps) -> None:
    """The part of the loss that depends on the advantage is at least −ρ·A, with the ratio ρ = π/π_old: the smaller of
    the clipped and the unclipped gain counts, so that a good action that became rarer, or a bad one that became more
    frequent, is corrected.
    """
    advantage_loss = (
        evaluate_loss(subject, steps).per_step() - evaluate_loss(subject, steps.filled(advantages=0.0)).per_step()
    )
    for b, (advantage, log_ratio) in enumerate(zip(steps.advantages, steps.log_ratios, strict=True)):
        bound = -math.exp(log_ratio) * advantage
        if float(advantage_loss[b]) < bound - EXACT * (1 + abs(bound)):
            raise Broken(
                f"the loss of step {b}, whose ratio is {math.exp(log_ratio):.3g} and advantage {advantage}",
                expected=f"at least {bound}",
                got=float(advantage_loss[b]),
                case=steps.rows(loss=advantage_loss),
            )
