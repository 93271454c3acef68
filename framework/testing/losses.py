"""The laws of losses: what every loss keeps to, whatever it is the loss of.

A loss is handed a few steps with numbers drawn at random (`steps.py`), and a fresh one is made for each question.
Padding is no concern of theirs: a batch has real steps only.
"""

import math
from typing import Any

import attrs
import torch
from attrs import evolve
from hypothesis import strategies as st
from torch import Tensor

from ..batches import reduce
from .concerns import Reason, allows, claims, needs, set_to
from .law import Broken, Subject, law
from .steps import CONSTANT, EPISODES, EXACT, Steps, ask, compare, several, slopes, steps, tensors
from .variants import bounds


def pulls(word: str) -> Reason:
    """Why a law about a term that pulls at values or entropies does not concern a loss: its coefficient may be 0."""

    def reason(subject: Subject) -> str | None:
        return needs(word)(subject) or (None if _pulls(subject, word) else _turned_off(subject, word))

    return reason


def _turned_off(subject: Subject, word: str) -> str | None:
    """The setting that is 0 or False, and with which another number has a gradient."""
    for field in attrs.fields(type(subject.settings)) if attrs.has(type(subject.settings)) else ():
        value = getattr(subject.settings, field.name)
        if not field.init or not isinstance(value, int | float) or value != 0:
            continue
        name, most = field.alias or field.name, bounds(field)[1]
        other = {name: min(1.0, most / 2) if isinstance(value, float) else type(value)(1)}
        if allows(subject, **other) and _pulls(set_to(subject, **other), word):
            return f"{name} is {value}, which turns this off"
    return None


def _pulls(subject: Subject, word: str) -> bool:
    """Whether a gradient by values or entropies is other than 0 in some step; a loss that cannot say is asked."""
    try:
        return bool(ask(subject, SOME).slopes(word).any())
    except Exception:
        return True


def values_matter(subject: Subject) -> str | None:
    """Why a law about the critic's part in a loss does not concern one."""
    return None if subject.says("needs", "values") or _pulls(subject, "values") else "it does not use values"


def measures(*names: str) -> Reason:
    """Why a law about metrics does not concern a loss."""

    def reason(subject: Subject) -> str | None:
        try:
            known = ask(subject, SOME).loss.metrics
        except Exception:  # another law says so
            known = {}
        return None if {*names} & {*known} else f"it has no metric {' or '.join(names)}"

    return reason


SOME = Steps(  # both signs of all that has one, near and far
    advantages=(1.0, -1.0, 0.5, -0.5),
    log_probs=(-1.0, -0.5, -2.0, -1.5),
    moved=(0.1, -0.1, 0.5, -0.5),
    entropies=(0.5, 1.0, 1.5, 2.0),
    values=(1.0, -1.0, 0.25, 2.0),
    drifted=(0.5, -0.5, 0.05, -0.05),
    value_targets=(0.0, 0.0, 1.0, -1.0),
    returns=(1.0, -1.0, 0.5, -0.5),
)


# Form


@law("loss", cases=steps)
def losses_have_one_number_a_step(subject: Subject, given: Steps) -> None:
    """Terms are [B], floating point and finite: not yet summed or averaged, because the core divides; stop_epochs is
    yes or no, and each metric one number.
    """
    asked = ask(subject, given)
    for name, term in asked.loss.terms.items():
        if not torch.isfinite(term).all():
            raise Broken(f"term '{name}' is not finite", expected="finite", got=term.tolist(), case=given.rows())
    for name, number in asked.loss.metrics.items():
        if not math.isfinite(float(number)):
            raise Broken(f"metric '{name}' is not finite", expected="finite", got=float(number), case=given.rows())


@law("loss", cases=steps)
def metrics_of_losses_carry_no_gradient(subject: Subject, given: Steps) -> None:
    """A metric, and stop_epochs, are detached: kept for the record, a graph would keep the whole update alive."""
    loss = ask(subject, given).loss
    for name, number in {**loss.metrics, "stop_epochs": loss.stop_epochs}.items():
        if isinstance(number, Tensor) and number.requires_grad:
            raise Broken(f"'{name}' carries a gradient", expected="no graph", got=number.grad_fn, case=given.rows())


@law("loss", cases=steps)
def losses_change_nothing_that_they_are_handed(subject: Subject, given: Steps) -> None:
    """Batch and evaluation have the same numbers afterwards, and nothing in the batch carries a gradient.

    All epochs and minibatches share them: advantages standardised in place would be standardised anew each time.
    """
    asked, column = ask(subject, given), tensors(given, torch.float64)
    expected = {
        "advantages": column["advantages"],
        "log_probs": column["log_probs"] - column["moved"],
        "returns": column["returns"],
        "value_targets": column["value_targets"],
        "values": column["values"] - column["drifted"],
    }
    for name, before in expected.items():
        after = getattr(asked.batch, name)
        if after is None:
            continue
        if after.requires_grad or after.grad is not None:
            raise Broken(f"batch.{name} carries a gradient afterwards", case=given.rows())
        compare(f"batch.{name} has changed", before, after.double(), given, 0.0)
    for name in ("log_probs", "entropies", "values"):
        after = getattr(asked.evaluation, name)
        if after is not None:
            compare(f"evaluation.{name} has changed", column[name], after.detach().double(), given, 0.0)


@law("loss", source="docs/reference/contracts.md#needs", cases=steps)
def what_a_loss_says_it_needs_is_enough(subject: Subject, given: Steps) -> None:
    """Values and entropies are None where `needs` does not name them: it works without, and its terms are finite."""
    bare = evolve(given, everything=False)
    try:
        asked = ask(subject, bare)
    except Broken:
        raise
    except Exception as error:
        handed = [word for word in ("values", "entropies") if subject.says("needs", word)]
        raise Broken(
            f"with no more than it needs, it raises {type(error).__name__}: {error}",
            expected=f"a loss made from log-probs{''.join(f', {word}' for word in handed)}",
            got=type(error).__name__,
            case=bare.rows(),
        ) from error
    compare("the terms are not finite", torch.zeros(len(given)), asked.each() * 0, bare, 0.0)


# Steps do not know each other, and the core divides


@law("loss", source="docs/reference/contracts.md#denominators", cases=several)
def each_term_is_its_steps_own(subject: Subject, given: Steps) -> None:
    """A step's terms are the same alone as beside others: no mean, no standardising over the batch, no [B] against
    [B, 1], which would give every step all the others' numbers.
    """
    whole = ask(subject, given).loss.terms
    for b in range(len(given)):
        for name, term in ask(subject, given.at([b])).loss.terms.items():
            together = whole[name].detach().double()
            alone = together.clone()
            alone[b] = float(term.detach())
            compare(f"term '{name}' depends on other steps", alone, together, given)


@law("loss", cases=lambda subject: st.tuples(several(subject), st.randoms(use_true_random=False)))
def steps_of_a_loss_may_come_in_any_order(subject: Subject, case: tuple[Steps, Any]) -> None:
    """Minibatches are shuffled: terms of the same steps in another order are the same terms in that order."""
    given, random = case
    order = random.sample(range(len(given)), len(given))
    moved = given.at(order)
    one, other = ask(subject, given), ask(subject, moved)
    for name, term in one.loss.terms.items():
        compare(f"term '{name}'", term.detach().double()[order], other.loss.terms[name].detach().double(), moved)


@law("loss", source="docs/decisions/0007-denominators-of-minibatches.md", cases=several)
def losses_of_micro_batches_add_up(subject: Subject, given: Steps) -> None:
    """With the whole batch's denominators, the losses and gradients of its pieces sum to its own: per step, per
    episode, and by a constant.
    """
    totals = (len(given), EPISODES)
    cuts = ([0], list(range(1, len(given))))
    for denominator in ("per_step", "per_episode", "constant"):
        sums, pulls = [], []
        for index in (range(len(given)), *cuts):
            asked = ask(subject, given.at(index), totals=totals)
            total = torch.stack(list(reduce(asked.loss, asked.batch, denominator, CONSTANT).values())).sum()
            sums.append(total.detach().double())
            names = [name for name in ("log_probs", "values") if getattr(asked.evaluation, name) is not None]
            pulls.append(torch.stack([asked.slopes(name, total) for name in names]))
        whole, pieces = sums[0].expand(len(given)), torch.stack(sums[1:]).sum().expand(len(given))
        compare(f"{denominator}: pieces do not sum to the whole", whole, pieces, given)
        for name, one, other in zip(names, pulls[0], torch.cat(pulls[1:], 1), strict=True):
            compare(f"{denominator}: gradient by {name}", one, other, given)


@law("loss", source="docs/reference/contracts.md#denominators", cases=steps)
def the_core_alone_divides_losses(subject: Subject, given: Steps) -> None:
    """Terms do not depend on total_steps and total_episodes: the configuration's denominator would count twice."""
    one = ask(subject, given)
    for totals in ((7 * len(given), EPISODES), (len(given), 7 * EPISODES)):
        compare("the terms depend on the denominators", one.each(), ask(subject, given, totals=totals).each(), given)


# Gradients


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
        found = asked.slopes(name)
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
    pull = ask(subject, given).slopes("log_probs")
    none = ask(subject, given.filled(advantages=0.0)).slopes("log_probs")
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
    found = ask(subject, unmoved).slopes("log_probs")
    compare("the gradient by the log-prob", torch.zeros(len(given), dtype=torch.float64), found, unmoved)
    pull = ask(subject, given).slopes("log_probs")
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
    by_values = slopes(asked.total, values, again=True)
    mixed = slopes(by_values.sum(), asked.evaluation.log_probs).double()
    compare("∂²loss/∂value ∂log π", torch.zeros_like(mixed), mixed, given)


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, eq. 9", cases=steps, applies=pulls("values"))
def the_critic_is_pulled_towards_its_target(subject: Subject, given: Steps) -> None:
    """∂loss/∂value never points away from value_targets, and is not 0 where the value is farther from its target than
    when it acted: however a critic's steps are clipped, it can come back. Not asked where a setting of 0 turns it off.
    """
    pull = ask(subject, given).slopes("values")
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
    pull = ask(subject, given).slopes("entropies")
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
    compare("the gradient by the log-prob", expected, ask(subject, given).slopes("log_probs"), given)


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, eq. 7", cases=steps, applies=claims("pessimistic"))
def a_clipped_loss_is_no_lower_than_the_unclipped(subject: Subject, given: Steps) -> None:
    """What depends on the advantage is at least −ρ·A, with the ratio ρ = π/π_old: of the clipped and the unclipped
    gain, the smaller one counts, so that a good action which became rarer, or a bad one more frequent, is mended.
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


# Numbers


LARGE = st.sampled_from([0.0, 20.0, 10.0, -10.0, -20.0, -100.0, -1000.0, -10000.0])
RARE = st.sampled_from([0.0, -200.0])  # as of one of many numbers, or of many at once


@st.composite
def far(draw: st.DrawFn, subject: Subject) -> Steps:
    """Steps that the policy that acted chose often or hardly ever, and the one that is learnt hardly ever or often."""
    given = draw(steps(subject))
    moved = tuple(draw(LARGE) for _ in range(len(given)))
    return evolve(given, moved=moved, log_probs=tuple(min(0.0, move) + draw(RARE) for move in moved))


@law("loss", source="Markov's inequality: E ρ = 1 under the policy that acted, so P(ρ ≥ e²⁰) ≤ e⁻²⁰", cases=far)
def losses_are_finite_for_log_ratios_that_occur(subject: Subject, given: Steps) -> None:
    """In float32, terms and gradients are finite for log-ratios from −10,000, as of a normal distribution far out, to
    20, which one action in 5·10⁸ exceeds: never π/π_old of probabilities that are 0.
    """
    asked = ask(subject, given, torch.float32)
    found = {"loss": asked.each()}
    for name in ("log_probs", "values", "entropies"):
        if getattr(asked.evaluation, name) is not None:
            found[f"gradient by {name}"] = asked.slopes(name)
    for name, numbers in found.items():
        if not torch.isfinite(numbers).all():
            b = int((~torch.isfinite(numbers)).nonzero()[0])
            raise Broken(f"{name} of step {b}", expected="finite", got=float(numbers[b]), case=given.rows(**found))


@law("loss", cases=steps)
def losses_in_float32_are_near_float64(subject: Subject, given: Steps) -> None:
    """Terms, up to 1e-5 of their size: some ten operations that are each rounded by 6e-8, on numbers that both hold."""
    single, double = (ask(subject, given, dtype).each() for dtype in (torch.float32, torch.float64))
    compare("float32", double, single, given, 1e-5)


# Of a whole iteration


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, algorithm 1", cases=steps)
def the_first_update_is_never_skipped(subject: Subject, given: Steps) -> None:
    """stop_epochs is False while the policy is the one that acted: else nothing would ever be learnt."""
    given = given.filled(moved=0.0)
    if bool(ask(subject, given).loss.stop_epochs):
        raise Broken("stop_epochs before anything has moved", expected=False, got=True, case=given.rows())


@st.composite
def small_moves(draw: st.DrawFn, subject: Subject) -> tuple[Steps, float]:
    """Steps whose actions have just the frequencies of the policy that acted; another near it, and KL of the two."""
    counts = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    tilts = draw(st.lists(st.integers(-4, 4), min_size=len(counts), max_size=len(counts)))
    old = [count / sum(counts) for count in counts]
    weights = [p * math.exp(tilt / 40) for p, tilt in zip(old, tilts, strict=True)]
    new = [weight / sum(weights) for weight in weights]
    actions = [action for action, count in enumerate(counts) for _ in range(count)]
    given = draw(steps(subject, most=1)).at([0] * len(actions))
    divergence = sum(p * math.log(p / q) for p, q in zip(old, new, strict=True))
    log_probs = tuple(math.log(new[a]) for a in actions)
    return evolve(given, log_probs=log_probs, moved=tuple(math.log(new[a] / old[a]) for a in actions)), divergence


@law(
    "loss",
    source="Schulman 2020, http://joschu.net/blog/kl-approx.html",
    cases=small_moves,
    applies=measures("kl", "approx_kl"),
)
def a_metric_called_kl_is_one(subject: Subject, case: tuple[Steps, float]) -> None:
    """Metrics `kl` and `approx_kl` are KL(π_old ‖ π), up to a tenth, for a small move in a batch whose actions are as
    frequent as π_old has them: what a limit of the divergence is held against. All three usual estimators pass.
    """
    given, expected = case
    for name in ("kl", "approx_kl"):
        number = ask(subject, given).loss.metrics.get(name)
        if number is not None and abs(float(number) - expected) > 0.1 * expected + EXACT:
            raise Broken(f"metric '{name}'", expected=expected, got=float(number), case=given.rows())
