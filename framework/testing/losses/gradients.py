"""Gradients: by log-probs, values and entropies."""

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
        "it claims to be a surrogate: its gradient is meant, not its value"
        if subject.declares("claims", "surrogate")
        else None
    ),
)
def gradients_of_losses_are_finite_differences(subject: Subject, steps: Steps) -> None:
    """In float64, ∂/∂log π, ∂/∂value and ∂/∂entropy of the summed terms are those of one-sided differences, or lie
    between the two where there is a kink: no graph is cut, and what is descended is what is reported.

    Steps of 1e-6: off by half a step times a second derivative of up to 30, and by rounding of 1e-13 / 1e-6.
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
                ):  # what acted stays
                    numbers = list(getattr(steps, column))
                    numbers[b] += sign * size
                    shifted[column] = tuple(numbers)
                differences.append(
                    sign * (float(evaluate_loss(subject, evolve(steps, **shifted)).total.detach()) - total) / size
                )
            tolerance = 1e-4 * (1 + max(map(abs, differences)))
            if not min(differences) - tolerance <= float(gradient[b]) <= max(differences) + tolerance:
                raise Broken(
                    f"∂loss/∂{name} of step {b} is not the slope of the loss",
                    expected=differences[0]
                    if abs(differences[0] - differences[1]) < tolerance
                    else f"{min(differences)} to {max(differences)}",
                    got=float(gradient[b]),
                    case=steps.rows(gradient=gradient),
                )


@law("loss", source="Sutton & Barto 2018, §13.2", cases=step_cases)
def better_actions_become_more_likely(subject: Subject, steps: Steps) -> None:
    """On the policy that acted, a positive advantage pulls the log-prob up, more than none would, and a negative one
    does not: the gradient reaches every log-prob, with the right sign.
    """
    steps = steps.filled(log_ratios=0.0)
    gradient = evaluate_loss(subject, steps).gradient("log_probs")
    without_advantage = evaluate_loss(subject, steps.filled(advantages=0.0)).gradient("log_probs")
    for b, advantage in enumerate(steps.advantages):
        difference = float(gradient[b] - without_advantage[b])
        if (advantage > 0 and not difference < -EXACT) or (advantage < 0 and not difference >= -EXACT):
            raise Broken(
                f"the gradient by the log-prob of step {b}, whose advantage is {advantage}",
                expected="below 0: up with its log-prob" if advantage > 0 else "0 or more: its log-prob is not raised",
                got=difference,
                case=steps.rows(gradient=gradient),
            )


@law("loss", source="Sutton & Barto 2018, §13.2", cases=step_cases)
def zero_advantages_give_no_policy_gradient(subject: Subject, steps: Steps) -> None:
    """Where no action was better or worse than expected, no log-prob of the policy that acted is moved; and of one
    that has moved, at most back: a penalty of the divergence may do that (of its estimators k2 and k3, whose slope is
    0 where nothing has moved; that of k1 is a bonus for every action that was taken).

    Of all terms, through log-probs: entropies are handed in on their own.
    """
    steps = steps.filled(advantages=0.0)
    unmoved = steps.filled(log_ratios=0.0)
    unmoved_gradient = evaluate_loss(subject, unmoved).gradient("log_probs")
    require_close(
        "the gradient by the log-prob", torch.zeros(len(steps), dtype=torch.float64), unmoved_gradient, unmoved
    )
    gradient = evaluate_loss(subject, steps).gradient("log_probs")
    for b, log_ratio in enumerate(steps.log_ratios):
        if not float(gradient[b]) * math.copysign(1, log_ratio) >= -EXACT:
            raise Broken(
                f"the gradient by the log-prob of step {b}, whose ratio is {math.exp(log_ratio):.3g}",
                expected="0, or back to where the ratio is 1: "
                + ("above 0, for it is descended" if log_ratio > 0 else "below 0, for it is descended"),
                got=float(gradient[b]),
                case=steps.rows(gradient=gradient),
            )


@law("loss", source="Mnih et al. 2016, arXiv:1602.01783, algorithm S3", cases=step_cases, applies=values_matter)
def the_policys_loss_does_not_move_the_critic(subject: Subject, steps: Steps) -> None:
    """The gradient by values has no log-prob in its graph: an advantage made of the critic's own values, undetached,
    would pull them to where bad actions look good.
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
    """∂loss/∂value never points away from value_targets, and is not 0 where the value is farther from its target than
    when it acted: however a critic's steps are clipped, it can come back. Not asked where a setting of 0 turns it off.
    """
    gradient = evaluate_loss(subject, steps).gradient("values")
    rows = zip(steps.values, steps.value_changes, steps.value_targets, strict=True)
    for b, (value, drift, target) in enumerate(rows):
        farther = abs(value - target) > abs(value - drift - target)
        towards = float(gradient[b]) * math.copysign(1, value - target) if value != target else -abs(float(gradient[b]))
        if towards < -EXACT or (farther and not towards > EXACT):
            raise Broken(
                f"the gradient by the value of step {b}: {value}, before {value - drift}, whose target is {target}",
                expected=("above 0" if farther else "0 or above")
                if value > target
                else "below 0"
                if farther
                else "0 or below",
                got=float(gradient[b]),
                case=steps.rows(gradient=gradient),
            )


CERTAIN = 20.0  # nats below what is drawn: as of a normal distribution whose deviation is 10⁻⁸


@law("loss", source="Mnih et al. 2016, arXiv:1602.01783, §4", cases=step_cases, applies=has_gradient_by("entropies"))
def entropy_is_a_bonus(subject: Subject, steps: Steps) -> None:
    """Of a policy that is all but certain (entropies of −18 nats and less, as densities have them), ∂loss/∂entropy is
    below 0: descending the loss keeps it from becoming so too early. A loss that steers entropies to a target passes:
    down to it from above, but up from below. Not asked where a setting of 0 turns it off.
    """
    steps = evolve(steps, entropies=tuple(entropy - CERTAIN for entropy in steps.entropies))
    gradient = evaluate_loss(subject, steps).gradient("entropies")
    if not (gradient < 0).all():
        b = int((~(gradient < 0)).nonzero()[0])
        raise Broken(
            f"the gradient by the entropy of step {b}",
            expected="below 0",
            got=float(gradient[b]),
            case=steps.rows(gradient=gradient),
        )


@law("loss", source="Williams 1992, doi:10.1007/BF00992696, eq. 4", cases=step_cases, applies=claims("policy_gradient"))
def on_the_policy_that_acted_the_gradient_is_minus_the_advantage(subject: Subject, steps: Steps) -> None:
    """∂loss/∂log π(a|s) = −A at ratio 1: an iteration begins with the policy gradient, whatever is clipped later."""
    steps = steps.filled(log_ratios=0.0)
    expected = -torch.tensor(steps.advantages, dtype=torch.float64)
    require_close("the gradient by the log-prob", expected, evaluate_loss(subject, steps).gradient("log_probs"), steps)


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, eq. 7", cases=step_cases, applies=claims("pessimistic"))
def a_clipped_loss_is_no_lower_than_the_unclipped(subject: Subject, steps: Steps) -> None:
    """What depends on the advantage is at least −ρ·A, with the ratio ρ = π/π_old: of the clipped and the unclipped
    gain, the smaller one counts, so that a good action which became rarer, or a bad one more frequent, is corrected.
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
