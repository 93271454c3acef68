"""Gradients: by log-probs, values and entropies."""

import math
from typing import Any

import torch
from attrs import evolve

from ..applicability import claims
from ..law import Broken, Subject, law
from ..steps import EXACT, Steps, ask, compare, gradients, steps
from .applicability import pulls, values_matter


@law(
    "loss",
    cases=lambda subject: steps(subject, most=3),
    applies=lambda subject: (
        "it claims to be a surrogate: its gradient is meant, not its value"
        if subject.says("claims", "surrogate")
        else None
    ),
)
def gradients_of_losses_are_finite_differences(subject: Subject, given: Steps) -> None:
    """In float64, ∂/∂log π, ∂/∂value and ∂/∂entropy of the summed terms are those of one-sided differences, or lie
    between the two where there is a kink: no graph is cut, and what is descended is what is reported.

    Steps of 1e-6: off by half a step times a second derivative of up to 30, and by rounding of 1e-13 / 1e-6.
    """
    step = 1e-6
    asked = ask(subject, given)
    middle = float(asked.total.detach())
    for name in ("log_probs", "values", "entropies"):
        if getattr(asked.evaluation, name) is None:
            continue
        found = asked.gradients(name)
        for b in range(len(given)):
            sides = []
            for sign in (-1, 1):
                moves: dict[str, Any] = {}
                for column in (name, {"log_probs": "moved", "values": "drifted"}.get(name, name)):  # what acted stays
                    numbers = list(getattr(given, column))
                    numbers[b] += sign * step
                    moves[column] = tuple(numbers)
                sides.append(sign * (float(ask(subject, evolve(given, **moves)).total.detach()) - middle) / step)
            room = 1e-4 * (1 + max(map(abs, sides)))
            if not min(sides) - room <= float(found[b]) <= max(sides) + room:
                raise Broken(
                    f"∂loss/∂{name} of step {b} is not the slope of the loss",
                    expected=sides[0] if abs(sides[0] - sides[1]) < room else f"{min(sides)} to {max(sides)}",
                    got=float(found[b]),
                    case=given.rows(gradient=found),
                )


@law("loss", source="Sutton & Barto 2018, §13.2", cases=steps)
def better_actions_are_made_likelier(subject: Subject, given: Steps) -> None:
    """On the policy that acted, a positive advantage pulls the log-prob up, more than none would, and a negative one
    does not: the gradient reaches every log-prob, with the right sign.
    """
    given = given.filled(moved=0.0)
    pull = ask(subject, given).gradients("log_probs")
    none = ask(subject, given.filled(advantages=0.0)).gradients("log_probs")
    for b, advantage in enumerate(given.advantages):
        more = float(pull[b] - none[b])
        if (advantage > 0 and not more < -EXACT) or (advantage < 0 and not more >= -EXACT):
            raise Broken(
                f"the gradient by the log-prob of step {b}, whose advantage is {advantage}",
                expected="below 0: up with its log-prob" if advantage > 0 else "0 or more: its log-prob is not raised",
                got=more,
                case=given.rows(gradient=pull),
            )


@law("loss", source="Sutton & Barto 2018, §13.2", cases=steps)
def zero_advantages_give_no_policy_gradient(subject: Subject, given: Steps) -> None:
    """Where no action was better or worse than expected, no log-prob of the policy that acted is moved; and of one
    that has moved, at most back: a penalty of the divergence may do that (of its estimators k2 and k3, whose slope is
    0 where nothing has moved; that of k1 is a bonus for every action that was taken).

    Of all terms, through log-probs: entropies are handed in on their own.
    """
    given = given.filled(advantages=0.0)
    unmoved = given.filled(moved=0.0)
    found = ask(subject, unmoved).gradients("log_probs")
    compare("the gradient by the log-prob", torch.zeros(len(given), dtype=torch.float64), found, unmoved)
    pull = ask(subject, given).gradients("log_probs")
    for b, moved in enumerate(given.moved):
        if not float(pull[b]) * math.copysign(1, moved) >= -EXACT:
            raise Broken(
                f"the gradient by the log-prob of step {b}, whose ratio is {math.exp(moved):.3g}",
                expected="0, or back to where the ratio is 1: "
                + ("above 0, for it is descended" if moved > 0 else "below 0, for it is descended"),
                got=float(pull[b]),
                case=given.rows(gradient=pull),
            )


@law("loss", source="Mnih et al. 2016, arXiv:1602.01783, algorithm S3", cases=steps, applies=values_matter)
def the_policys_loss_does_not_move_the_critic(subject: Subject, given: Steps) -> None:
    """The gradient by values has no log-prob in its graph: an advantage made of the critic's own values, undetached,
    would pull them to where bad actions look good.
    """
    asked = ask(subject, given)
    values = asked.evaluation.values
    if values is None:
        return
    by_values = gradients(asked.total, values, again=True)
    mixed = gradients(by_values.sum(), asked.evaluation.log_probs).double()
    compare("∂²loss/∂value ∂log π", torch.zeros_like(mixed), mixed, given)


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, eq. 9", cases=steps, applies=pulls("values"))
def the_critic_is_pulled_towards_its_target(subject: Subject, given: Steps) -> None:
    """∂loss/∂value never points away from value_targets, and is not 0 where the value is farther from its target than
    when it acted: however a critic's steps are clipped, it can come back. Not asked where a setting of 0 turns it off.
    """
    pull = ask(subject, given).gradients("values")
    rows = zip(given.values, given.drifted, given.value_targets, strict=True)
    for b, (value, drift, target) in enumerate(rows):
        farther = abs(value - target) > abs(value - drift - target)
        towards = float(pull[b]) * math.copysign(1, value - target) if value != target else -abs(float(pull[b]))
        if towards < -EXACT or (farther and not towards > EXACT):
            raise Broken(
                f"the gradient by the value of step {b}: {value}, before {value - drift}, whose target is {target}",
                expected=("above 0" if farther else "0 or above")
                if value > target
                else "below 0"
                if farther
                else "0 or below",
                got=float(pull[b]),
                case=given.rows(gradient=pull),
            )


CERTAIN = 20.0  # nats below what is drawn: as of a normal distribution whose deviation is 10⁻⁸


@law("loss", source="Mnih et al. 2016, arXiv:1602.01783, §4", cases=steps, applies=pulls("entropies"))
def entropy_is_a_bonus(subject: Subject, given: Steps) -> None:
    """Of a policy that is all but certain (entropies of −18 nats and less, as densities have them), ∂loss/∂entropy is
    below 0: descending the loss keeps it from becoming so too early. A loss that steers entropies to a target passes:
    down to it from above, but up from below. Not asked where a setting of 0 turns it off.
    """
    given = evolve(given, entropies=tuple(entropy - CERTAIN for entropy in given.entropies))
    pull = ask(subject, given).gradients("entropies")
    if not (pull < 0).all():
        b = int((~(pull < 0)).nonzero()[0])
        raise Broken(
            f"the gradient by the entropy of step {b}",
            expected="below 0",
            got=float(pull[b]),
            case=given.rows(gradient=pull),
        )


@law("loss", source="Williams 1992, doi:10.1007/BF00992696, eq. 4", cases=steps, applies=claims("policy_gradient"))
def on_the_policy_that_acted_the_gradient_is_minus_the_advantage(subject: Subject, given: Steps) -> None:
    """∂loss/∂log π(a|s) = −A at ratio 1: an iteration begins with the policy gradient, whatever is clipped later."""
    given = given.filled(moved=0.0)
    expected = -torch.tensor(given.advantages, dtype=torch.float64)
    compare("the gradient by the log-prob", expected, ask(subject, given).gradients("log_probs"), given)


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, eq. 7", cases=steps, applies=claims("pessimistic"))
def a_clipped_loss_is_no_lower_than_the_unclipped(subject: Subject, given: Steps) -> None:
    """What depends on the advantage is at least −ρ·A, with the ratio ρ = π/π_old: of the clipped and the unclipped
    gain, the smaller one counts, so that a good action which became rarer, or a bad one more frequent, is corrected.
    """
    gained = ask(subject, given).each() - ask(subject, given.filled(advantages=0.0)).each()
    for b, (advantage, moved) in enumerate(zip(given.advantages, given.moved, strict=True)):
        bound = -math.exp(moved) * advantage
        if float(gained[b]) < bound - EXACT * (1 + abs(bound)):
            raise Broken(
                f"the loss of step {b}, whose ratio is {math.exp(moved):.3g} and advantage {advantage}",
                expected=f"at least {bound}",
                got=float(gained[b]),
                case=given.rows(loss=gained),
            )
