"""What a baseline hands back."""

from typing import Any

import torch
from hypothesis import reject
from hypothesis import strategies as st

from ...contracts import Rollout
from ...errors import PartError
from ..counterexamples import finite, rows, same, unwritten
from ..law import Broken, Subject, law
from ..strategies import copied
from .cases import CONTRACT, judged, returns_of, subtracted, taught


@law("baseline", source=CONTRACT, cases=judged)
def baselines_have_the_returns_shape(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """What is subtracted is a tensor `[T, N]`, time-major, as the returns are: nothing is broadcast later."""
    rollout, earlier, total = case
    subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))


@law("baseline", source=CONTRACT, cases=judged)
def baselines_are_finite(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """They are floating point, and no number is NaN or infinite, in padding either, nor before anything was learnt."""
    rollout, earlier, total = case
    told = subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))
    if not told.is_floating_point():
        raise Broken("is not floating point", expected="a floating dtype", got=told.dtype)
    finite("is", rollout, told)


@law("baseline", source=CONTRACT, cases=judged, examples=20)
def baselines_carry_no_gradient(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """What is subtracted carries no gradient, not even one to parameters of the baseline's own."""
    rollout, earlier, total = case
    with torch.enable_grad():
        told = subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))
    if told.requires_grad:
        raise Broken("carries a gradient", expected="none", got=str(told.grad_fn), case=rows(rollout))


@law("baseline", source=CONTRACT, cases=judged)
def baselines_leave_what_they_are_handed(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Neither the rollout nor the returns are written to, by the call or by `update`."""
    rollout, earlier, total = case
    made, returns = taught(subject, earlier), returns_of(rollout, total)
    handed, given = copied(rollout), returns.clone()
    try:
        made(handed, given)
    except PartError:
        reject()
    if hasattr(made, "update"):
        made.update(handed, given)
    if not torch.equal(given, returns):
        raise Broken("writes into the returns", case=rows(rollout, expected=returns, got=given))
    unwritten(rollout, handed)


@law("baseline", source=CONTRACT, cases=lambda subject: st.tuples(judged(subject), judged(subject)), examples=30)
def calling_teaches_nothing(subject: Subject, case: tuple[Any, Any]) -> None:
    """What it says does not change with what else it was asked meanwhile: only `update` teaches."""
    (rollout, earlier, total), (other, _, _) = case
    returns = returns_of(rollout, total)
    made = taught(subject, earlier)
    first = subtracted(made, rollout, returns).clone()
    subtracted(made, other, returns_of(other))
    again = subtracted(made, rollout, returns)
    same("at {step} says something else when asked again", rollout, first, again)
