"""Which term of the loss reaches which part of the policy: checked in a run's first update, and reported on request.

A gradient that does not arrive makes no noise: the run goes on, and learns less. So the first update is differentiated
term by term, and what no term reaches is an error, unless it cannot have been meant to be reached.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import PartError

if TYPE_CHECKING:
    from ..contracts import Evaluation
    from ..run import Run

OUTPUTS = ("log_probs", "entropies", "values")  # by an evaluation
Norms = dict[str, dict[str, float]]


def norms_by_term(run: "Run", terms: Mapping[str, Tensor], evaluate: Any) -> Norms:
    """The 2-norm of each term's gradient, by group of the policy's parameters; no entry where a term does not lead.

    A group is what the policy calls it: a module or parameter that it holds itself, such as `network` or `critic`.

    Args:
        run: the run, before its gradients are made.
        terms: the loss's, summed and divided, with their graph, which is kept.
        evaluate: called without arguments, gives the policy's `Evaluation` of the same batch anew.

    Raises:
        PartError: a parameter is reached by no term, which names the part that does not use it; or a gradient is not a
            number.
    """
    learnt = [(name, one) for name, one in run.policy.named_parameters() if one.requires_grad]
    parameters = [parameter for _, parameter in learnt]
    missed = dict(learnt)
    norms: Norms = {}
    for term, value in terms.items():
        squares: dict[str, float] = {}
        gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
        if value.requires_grad:  # a constant leads nowhere
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        for (name, _), gradient in zip(learnt, gradients, strict=True):
            if gradient is not None:
                missed.pop(name, None)
                group, square = name.partition(".")[0], float(gradient.square().sum())
                if math.isnan(square):
                    _blame_gradient(run, term, name, evaluate())
                squares[group] = squares.get(group, 0.0) + square
        norms[term] = {group: square**0.5 for group, square in squares.items()}
    if missed:
        _blame(run, missed, ", ".join(terms), evaluate())
    return norms


def _blame_gradient(run: "Run", term: str, name: str, evaluation: "Evaluation") -> NoReturn:
    """Raise for a gradient that is not finite, of a term that is: by the policy, if its evaluation has one too."""
    policy = run.config.policy.label
    parameter = dict(run.policy.named_parameters())[name]
    for output in OUTPUTS:
        column = getattr(evaluation, output)
        if column is not None and column.requires_grad:
            (gradient,) = torch.autograd.grad(column.sum(), [parameter], retain_graph=True, allow_unused=True)
            if gradient is not None and bool(gradient.isnan().any()):
                raise PartError(f"{policy}: evaluate: the gradient of {output} by parameter '{name}': not finite (nan)")
    raise PartError(
        f"{run.config.loss.label}: the gradient of term '{term}' by parameter '{name}' of {policy} is not a number, "
        "and the term is one: look for a root, a logarithm or a quotient of 0"
    )


def _blame(run: "Run", missed: Mapping[str, nn.Parameter], terms: str, evaluation: "Evaluation") -> None:
    """Raise for a parameter that ought to be reached; return, where none of them is.

    What moves nothing but values (or entropies) is rightly not reached by a loss that uses none.
    """
    moved: dict[str, set[str]] = {name: set() for name in missed}
    for output in OUTPUTS:
        column = getattr(evaluation, output)
        if column is not None and column.requires_grad:
            gradients = torch.autograd.grad(column.sum(), list(missed.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(missed, gradients, strict=True):
                if gradient is not None:
                    moved[name].add(output)
    for name, what in moved.items():
        if not what:
            raise PartError(
                f"{run.config.policy.label}: no term of the loss reaches parameter '{name}', and what evaluate returns "
                "does not depend on it (was a graph cut by detach or torch.tensor?): use it, leave it out, or freeze "
                "it by requires_grad_(False)"
            )
        wanted = what & {"log_probs", *run.loss_needs}
        if wanted:
            raise PartError(
                f"{run.config.loss.label}: no term ({terms}) reaches parameter '{name}' of "
                f"{run.config.policy.label}, which moves its {' and '.join(sorted(wanted))} "
                "(was a graph cut by detach or torch.tensor?)"
            )


def trace_terms(run: "Run", terms: Mapping[str, Tensor], evaluate: "Callable[[], Evaluation]") -> dict[str, float]:
    """In the first update, or in all with `trace_gradients`: check which parameters each divided term reaches.

    Returns the norms as metrics, if the configuration requests them.
    """
    norms = norms_by_term(run, terms, evaluate)
    run.traced = run.traced or norms
    if not run.config.trace_gradients:
        return {}
    return {f"gradient/{term}/{group}": norm for term, groups in norms.items() for group, norm in groups.items()}
