"""Laws of what an estimator returns."""

import torch
from torch import Tensor

from ...contracts import Estimate, Rollout
from ..counterexamples import require_finite, require_unchanged, rows
from ..law import Broken, Subject, law
from ..strategies import as_dtype, copied
from .cases import CONTRACT, columns_of, estimate, require_same_estimate, rollout_cases, with_changed_numbers


@law("estimator", source=CONTRACT, cases=rollout_cases)
def estimates_have_the_rollouts_shape(subject: Subject, rollout: Rollout) -> None:
    """Returns, value targets and weights are tensors `[T, N]`, time-major, like the rollout."""
    for name, column in columns_of(estimate(subject, rollout)).items():
        shape = list(column.shape) if isinstance(column, Tensor) else type(column).__name__
        if shape != list(rollout.mask.shape):
            raise Broken(f"{name} have another shape", expected=list(rollout.mask.shape), got=shape, case=rows(rollout))


@law("estimator", source=CONTRACT, cases=rollout_cases)
def estimates_have_the_rewards_dtype(subject: Subject, rollout: Rollout) -> None:
    """Returns, value targets and weights have the dtype of the rewards, for float32 and float64."""
    for dtype in (torch.float32, torch.float64):
        for name, column in columns_of(estimate(subject, as_dtype(rollout, dtype))).items():
            if column.dtype != dtype:
                raise Broken(f"{name} of {dtype} rewards have another dtype", expected=dtype, got=column.dtype)


@law("estimator", source=CONTRACT, cases=rollout_cases)
def estimates_are_finite(subject: Subject, rollout: Rollout) -> None:
    """No number is NaN or infinite, also in padding, where it would break masked sums."""
    for name, column in columns_of(estimate(subject, rollout)).items():
        require_finite(f"{name} are", rollout, column)


@law("estimator", source=CONTRACT, cases=rollout_cases, examples=20)
def estimates_carry_no_gradient(subject: Subject, rollout: Rollout) -> None:
    """Estimates carry no gradient, not even to parameters of the estimator's own."""
    with torch.enable_grad():
        result = estimate(subject, rollout)
    for name, column in columns_of(result).items():
        if column.requires_grad:
            raise Broken(
                f"{name} carry a gradient", expected="no gradient", got=str(column.grad_fn), case=rows(rollout)
            )


@law("estimator", source=CONTRACT, cases=rollout_cases)
def estimators_do_not_modify_the_rollout(subject: Subject, rollout: Rollout) -> None:
    """The estimator does not write to the rollout."""
    passed = copied(rollout)
    subject.make()(passed)
    require_unchanged(rollout, passed)


@law("estimator", source=CONTRACT, cases=with_changed_numbers, examples=30)
def estimators_keep_no_state(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The same rollout gives the same estimate, whatever rollouts were estimated in between."""
    rollout, other = case
    estimator = subject.make()
    first = estimator(copied(rollout))
    first = Estimate(**{name: column.clone() for name, column in columns_of(first).items()})
    estimator(copied(other))
    require_same_estimate("{column} at {step} differ when estimated again", rollout, first, estimator(copied(rollout)))
