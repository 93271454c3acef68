"""What a loss hands back, and what it is handed."""

import math

import torch
from attrs import evolve
from torch import Tensor

from ..law import Broken, Subject, law
from ..steps import Steps, ask, compare, steps, tensors


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
