"""Laws of what a baseline returns."""

from typing import Any

import torch
from hypothesis import reject
from hypothesis import strategies as st

from ...contracts import Rollout
from ...errors import PartError
from ..counterexamples import require_close, require_finite, require_unchanged, rows
from ..law import Broken, Subject, law
from ..strategies import copied
from .cases import CONTRACT, baseline_cases, baseline_values, returns_of, updated_baseline


@law("baseline", source=CONTRACT, cases=baseline_cases)
def baselines_have_the_returns_shape(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """A baseline is a tensor `[T, N]`, time-major, like the returns: nothing is broadcast later."""
    rollout, earlier, total = case
    baseline_values(updated_baseline(subject, earlier), rollout, returns_of(rollout, total))


@law("baseline", source=CONTRACT, cases=baseline_cases)
def baselines_are_finite(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Baselines are floating point, and no number is NaN or infinite, also in padding and before the first update."""
    rollout, earlier, total = case
    values = baseline_values(updated_baseline(subject, earlier), rollout, returns_of(rollout, total))
    if not values.is_floating_point():
        raise Broken("is not floating point", expected="a floating dtype", got=values.dtype)
    require_finite("is", rollout, values)


@law("baseline", source=CONTRACT, cases=baseline_cases, examples=20)
def baselines_carry_no_gradient(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """A baseline carries no gradient, not even to parameters of its own."""
    rollout, earlier, total = case
    with torch.enable_grad():
        values = baseline_values(updated_baseline(subject, earlier), rollout, returns_of(rollout, total))
    if values.requires_grad:
        raise Broken("carries a gradient", expected="no gradient", got=str(values.grad_fn), case=rows(rollout))


@law("baseline", source=CONTRACT, cases=baseline_cases)
def baselines_do_not_modify_their_inputs(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Neither the call nor `update` writes to the rollout or the returns."""
    rollout, earlier, total = case
    baseline, returns = updated_baseline(subject, earlier), returns_of(rollout, total)
    passed, passed_returns = copied(rollout), returns.clone()
    try:
        baseline(passed, passed_returns)
    except PartError:
        reject()
    if hasattr(baseline, "update"):
        baseline.update(passed, passed_returns)
    if not torch.equal(passed_returns, returns):
        raise Broken("writes into the returns", case=rows(rollout, expected=returns, got=passed_returns))
    require_unchanged(rollout, passed)


@law(
    "baseline",
    source=CONTRACT,
    cases=lambda subject: st.tuples(baseline_cases(subject), baseline_cases(subject)),
    examples=30,
)
def calling_does_not_change_the_baseline(subject: Subject, case: tuple[Any, Any]) -> None:
    """A baseline's values do not depend on other calls in between: only `update` changes its state."""
    (rollout, earlier, total), (other, _, _) = case
    returns = returns_of(rollout, total)
    baseline = updated_baseline(subject, earlier)
    first = baseline_values(baseline, rollout, returns).clone()
    baseline_values(baseline, other, returns_of(other))
    again = baseline_values(baseline, rollout, returns)
    require_close("at {step} differs when called again", rollout, first, again)
