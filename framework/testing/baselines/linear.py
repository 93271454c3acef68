"""Laws of linear baselines, and of rounding."""

import torch
from torch import Tensor

from ...contracts import Rollout
from ..applicability import claims
from ..counterexamples import require_close
from ..law import Subject, law
from ..strategies import as_dtype, scaled
from .cases import CONTRACT, baseline_cases, baseline_values, returns_of, updated_baseline


@law("baseline", source="Sutton & Barto 2018, eq. 13.10", cases=baseline_cases, applies=claims("linear"))
def baselines_scale_with_returns(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """If rewards (also of earlier rollouts), returns and the critic's values are scaled by c, so is the baseline."""
    rollout, earlier, total = case
    expected = baseline_values(updated_baseline(subject, earlier), rollout, returns_of(rollout, total))
    for factor in (4.0, -0.5):
        now, before = (None if each is None else scaled(each, factor) for each in (rollout, earlier))
        assert now is not None
        got = baseline_values(updated_baseline(subject, before), now, returns_of(now, total))
        message = f"at {{step}} is not {factor} times as large, although the returns are"
        require_close(message, rollout, factor * expected, got)


@law("baseline", source=CONTRACT, cases=baseline_cases)
def baselines_in_float32_are_near_float64(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """In float32 a baseline has the same values as in float64, up to 1e-4 of the largest."""
    rollout, earlier, total = case
    values: list[Tensor] = []
    for dtype in (torch.float64, torch.float32):
        now, before = (None if each is None else as_dtype(each, dtype) for each in (rollout, earlier))
        assert now is not None
        values.append(baseline_values(updated_baseline(subject, before), now, returns_of(now, total)))
    require_close("at {step} differs in float32", rollout, values[0], values[1], tolerance=1e-4)
