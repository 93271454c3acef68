"""How far an estimator may round."""

import torch

from ...contracts import Rollout
from ..law import Subject, law
from ..strategies import as_dtype
from .cases import CONTRACT, estimate, require_same_estimate, rollout_cases


@law("estimator", source=CONTRACT, cases=rollout_cases)
def float32_is_near_float64(subject: Subject, rollout: Rollout) -> None:
    """In float32 the numbers are those of float64, to 1e-4 of the largest: stories have ten steps of size 2 at most."""
    single, double = (estimate(subject, as_dtype(rollout, dtype)) for dtype in (torch.float32, torch.float64))
    require_same_estimate("{column} at {step} are others in float32", rollout, double, single, tolerance=1e-4)
