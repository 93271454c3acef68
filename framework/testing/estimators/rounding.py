"""The law of an estimator's rounding errors."""

import torch

from ...contracts import Rollout
from ..law import Subject, law
from ..strategies import as_dtype
from .cases import CONTRACT, estimate, require_same_estimate, rollout_cases


@law("estimator", source=CONTRACT, cases=rollout_cases)
def float32_is_near_float64(subject: Subject, rollout: Rollout) -> None:
    """In float32 an estimate is the same as in float64, up to 1e-4 of the largest number."""
    single, double = (estimate(subject, as_dtype(rollout, dtype)) for dtype in (torch.float32, torch.float64))
    require_same_estimate("{column} at {step} differ in float32", rollout, double, single, tolerance=1e-4)
