"""Numbers that are not finite: which part they come from, and what caused them.

What is wrong is looked for when a number already is: in a loss (`blame_loss`), a gradient (`blame_gradient`), or in
parameters (`check_parameters`). While all is well, a sum of the gradient is looked at in each update, and one of the
parameters in each iteration.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..contracts import Batch, Evaluation, Loss
from ..errors import PartError
from ..run import Run
from . import checks
from .blame import label_of_functions, labels_in
from .gradient_flow import OUTPUTS, norms_by_term

HUGE = 1e8  # a parameter of this size has been thrown there


def is_finite(run: Run, gradients: bool = False) -> bool:
    """Whether what is learnt is, or its gradients: one kernel where they are one vector."""
    learnt = run.parameters
    whole = learnt.gradient if gradients else learnt.stepped[0].detach()
    tensors = [whole] if learnt.views else _learnt(run, gradients)
    sums = [tensor.sum() for tensor in tensors]
    if not sums or math.isfinite(
        (sums[0] if len(sums) == 1 else torch.stack([one.double() for one in sums]).sum()).item()
    ):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)  # a sum of finite numbers may overflow


def _learnt(run: Run, gradients: bool) -> list[Tensor]:
    if not gradients:
        return [parameter.detach() for parameter in run.parameters.parameters]
    return [parameter.grad for parameter in run.parameters.parameters if parameter.grad is not None]


def check_parameters(run: Run, label: str | None = None) -> None:
    """Refuse parameters that are not finite after a step, or after what the part `label` did.

    Raises:
        PartError: it names the optimizer, with learning rate and gradient; or the wrappers of its step.
    """
    if is_finite(run):
        return
    wrappers = " or ".join(run.wrappers.get("apply_gradients", ()))
    for name, parameter in run.policy.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            what = f"parameter '{name}' of {run.config.policy.label} is not finite"
            if label is not None:
                raise PartError(f"{label}: {what}, and was before")
            if wrappers and run.loss_metrics:  # the step itself was looked at
                raise PartError(f"{wrappers}: apply_gradients: {what}, and was after the step")
            raise PartError(f"{_optimizer(run)}: {what} {_cause(run)}")


def check_step(run: Run) -> None:
    """The same right after a step, where extensions wrap it and may change what it did."""
    if run.wrappers.get("apply_gradients") and not is_finite(run):
        run.loss_metrics.clear()  # so that it is the optimizer's
        check_parameters(run)


def thrown_away(run: Run, error: BaseException) -> PartError | None:
    """Of an error of policy or loss, if the optimizer has made parameters huge: the optimizer's."""
    label = run.config.policy.label
    if not isinstance(error, PartError) or not str(error).startswith((label, run.config.loss.label)):
        return None
    for name, parameter in run.policy.named_parameters():
        size = float(parameter.detach().abs().max()) if parameter.numel() else 0.0
        if size > HUGE:
            named = PartError(f"{_optimizer(run)}: parameter '{name}' of {label} is {size:.3g} {_cause(run)}\n{error}")
            named.__cause__ = error.__cause__ or error
            return named
    return None


def _optimizer(run: Run) -> str:
    return f"optimizer '{run.config.optimizer.name}'"


def _cause(run: Run) -> str:
    rate = float(run.optimizer.param_groups[0]["lr"])
    updates = len(run.loss_metrics)
    when = f"after update {updates} of iteration {run.iteration}" if updates else f"after iteration {run.iteration}"
    norm = run.loss_metrics[-1].get("grad_norm") if updates else None
    gradient = "gradients were finite" if norm is None else f"the gradient's norm was {float(norm):.3g}"
    return f"{when}: {gradient}, the learning rate is {rate:g}; a smaller one, or optimizer.options, may help"


def blame_gradient(run: Run, terms: dict[str, Tensor], evaluate: Callable[[], Evaluation]) -> NoReturn:
    """Raise for gradients that are not finite, of a loss that is.

    Args:
        run: the run, before its step.
        terms: the loss's, summed and divided, anew and with their graph.
        evaluate: as for `norms_by_term`.
    """
    differentiable = [term for term in terms.values() if term.requires_grad]
    for name, parameter in run.policy.named_parameters():
        if parameter.grad is None or bool(torch.isfinite(parameter.grad).all()):
            continue
        what = f"the gradient by parameter '{name}' of {run.config.policy.label}"
        hooks: dict[int, Any] = dict(parameter._backward_hooks or {})
        if parameter._backward_hooks:
            parameter._backward_hooks.clear()
        gradients = [
            torch.autograd.grad(term, [parameter], retain_graph=True, allow_unused=True)[0] for term in differentiable
        ]
        if hooks and all(one is None or bool(torch.isfinite(one).all()) for one in gradients):
            raise PartError(
                f"{label_of_functions(run, *hooks.values())}: {what} is not finite, and was before a hook of it"
            )
        norms_by_term(run, terms, evaluate)  # raises, if it is not a number
        raise PartError(f"{run.config.loss.label}: {what} is not finite, and the loss is")
    raise PartError(f"{run.config.loss.label}: its gradient is not finite, and the loss is")


def check_loss(run: Run, loss: Loss, terms: dict[str, float], evaluate: Callable[[], Evaluation]) -> None:
    """Refuse a loss without a gradient, or one whose divided `terms` are not finite; `evaluate` as in `blame_loss`."""
    if not any(term.requires_grad for term in loss.terms.values()):
        label = run.config.loss.label
        raise PartError(f"{label}: its terms carry no gradient (was a graph cut by detach or torch.tensor?)")
    if not math.isfinite(sum(terms.values())):
        before = None if run.minibatch is None else run.minibatch.make()
        assert run.batch is not None
        blame_loss(run, loss, before, evaluate, functools.partial(run.stages.compute_loss, run, run.batch))


def blame_loss(run: Run, loss: Loss, given: Batch | None, evaluate: Callable[[], Evaluation], core: Any) -> NoReturn:
    """Raise for a loss that is not finite.

    Args:
        run: the run, with its batch.
        loss: what the stage gave.
        given: the batch before extensions prepared it.
        evaluate: gives the policy's `Evaluation` of the batch anew.
        core: called without arguments, gives the loss anew without what extensions make of it.
    """
    batch = run.batch
    assert batch is not None
    check_parameters(run, None if run.loss_metrics else labels_in(run))
    _check_columns(run, batch, given)
    check_said(run, evaluate)
    if run.wrappers.get("compute_loss") and not _terms_not_finite(core()):
        label = _first_to(_terms_not_finite, run, "compute_loss", batch=batch)
        for name, term in loss.terms.items():
            checks.finite(f"{label}: compute_loss: term '{name}'", term.detach())
    for name, term in loss.terms.items():
        checks.finite(f"{run.config.loss.label}: term '{name}'", term.detach())
    raise PartError(f"{run.config.loss.label}: the summed loss is not finite")


def _terms_not_finite(loss: Loss) -> bool:
    return not all(bool(torch.isfinite(term).all()) for term in loss.terms.values())


def _first_to(is_wrong: Callable[[Any], bool], run: Run, stage: str, **arguments: Any) -> str:
    """The innermost wrapper of a stage after which its result is so: it is done again, with ever more of them."""
    hooks = getattr(run.hook, stage).get_hookimpls()
    wrapping = [one for one in run.extensions.values() if any(hook.plugin is one for hook in hooks)]
    for count, extension in enumerate(wrapping, 1):
        if is_wrong(run.manager.subset_hook_caller(stage, wrapping[count:])(run=run, **arguments)):
            return run.label_of(extension)
    return " or ".join(run.wrappers[stage])


def _check_columns(run: Run, batch: Batch, given: Batch | None) -> None:
    """Refuse what extensions made of the batch, or before of the rollout."""
    for name in ("observations", *checks.NUMBERS):
        column = getattr(batch, name)
        if column is None or not column.is_floating_point() or bool(torch.isfinite(column).all()):
            continue
        before = None if given is None else getattr(given, name)
        prepared = before is not None and before.shape == column.shape and bool(torch.isfinite(before).all())
        for stage in ("prepare_batch",) if prepared else ("estimate_advantages", "collect_rollout", "prepare_batch"):
            if wrappers := run.wrappers.get(stage):
                label = " or ".join(wrappers)
                if stage == "prepare_batch" and given is not None:
                    wrong = functools.partial(_is_not_finite, name)
                    label = _first_to(wrong, run, stage, batch=given)
                checks.finite(f"{label}: {stage}: {name}", column)


def _is_not_finite(name: str, batch: Batch) -> bool:
    return not bool(torch.isfinite(getattr(batch, name)).all())


def check_said(run: Run, evaluate: Callable[[], Evaluation]) -> None:
    """Refuse a policy if its evaluation of the last batch is not finite."""
    after = f" after {run.iteration} iterations" if run.iteration else ""
    with torch.no_grad():
        evaluation = evaluate()
    for name in OUTPUTS:
        tensor = getattr(evaluation, name)
        if tensor is not None:
            checks.finite(f"{run.config.policy.label}: evaluate: {name}{after}", tensor)
