"""Laws of what a loss returns, and of its inputs."""

import math

import torch
from attrs import evolve
from torch import Tensor

from ..law import Broken, Subject, law
from ..steps import Steps, evaluate_loss, require_close, step_cases, tensors


@law("loss", cases=step_cases)
def losses_have_one_number_a_step(subject: Subject, steps: Steps) -> None:
    """Terms are [B], floating point and finite, not summed or averaged, because the core divides. stop_epochs is True
    or False, and each metric is one number.
    """
    result = evaluate_loss(subject, steps)
    for name, term in result.loss.terms.items():
        if not torch.isfinite(term).all():
            raise Broken(f"term '{name}' is not finite", expected="finite", got=term.tolist(), case=steps.rows())
    for name, number in result.loss.metrics.items():
        if not math.isfinite(float(number)):
            raise Broken(f"metric '{name}' is not finite", expected="finite", got=float(number), case=steps.rows())


@law("loss", cases=step_cases)
def metrics_of_losses_carry_no_gradient(subject: Subject, steps: Steps) -> None:
    """Metrics and stop_epochs are detached: recorded with a graph, they would keep the whole update in memory."""
    loss = evaluate_loss(subject, steps).loss
    for name, number in {**loss.metrics, "stop_epochs": loss.stop_epochs}.items():
        if isinstance(number, Tensor) and number.requires_grad:
            raise Broken(f"'{name}' carries a gradient", expected="no graph", got=number.grad_fn, case=steps.rows())


@law("loss", cases=step_cases)
def losses_do_not_modify_their_inputs(subject: Subject, steps: Steps) -> None:
    """A loss changes neither the batch nor the evaluation, and nothing in the batch carries a gradient afterwards.

    All epochs and minibatches share them: advantages standardised in place would be standardised again each time.
    """
    result, columns = evaluate_loss(subject, steps), tensors(steps, torch.float64)
    expected = {
        "advantages": columns["advantages"],
        "log_probs": columns["log_probs"] - columns["log_ratios"],
        "returns": columns["returns"],
        "value_targets": columns["value_targets"],
        "values": columns["values"] - columns["value_changes"],
    }
    for name, before in expected.items():
        after = getattr(result.batch, name)
        if after is None:
            continue
        if after.requires_grad or after.grad is not None:
            raise Broken(f"batch.{name} carries a gradient afterwards", case=steps.rows())
        require_close(f"batch.{name} has changed", before, after.double(), steps, 0.0)
    for name in ("log_probs", "entropies", "values"):
        after = getattr(result.evaluation, name)
        if after is not None:
            require_close(f"evaluation.{name} has changed", columns[name], after.detach().double(), steps, 0.0)


@law("loss", source="docs/reference/contracts.md#needs", cases=step_cases)
def the_declared_needs_are_enough(subject: Subject, steps: Steps) -> None:
    """Without values and entropies, unless `needs` names them, the loss works and its terms are finite."""
    without_extras = evolve(steps, with_optional=False)
    try:
        result = evaluate_loss(subject, without_extras)
    except Broken:
        raise
    except Exception as error:
        available = [word for word in ("values", "entropies") if subject.declares("needs", word)]
        raise Broken(
            f"with only what it needs, it raises {type(error).__name__}: {error}",
            expected=f"a loss computed from log-probs{''.join(f', {word}' for word in available)}",
            got=type(error).__name__,
            case=without_extras.rows(),
        ) from error
    require_close("the terms are not finite", torch.zeros(len(steps)), result.per_step() * 0, without_extras, 0.0)
