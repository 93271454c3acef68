"""Linear, and rounding."""

import torch
from torch import Tensor

from ...contracts import Rollout
from ..applicability import claims
from ..counterexamples import same
from ..law import Subject, law
from ..strategies import as_dtype, scaled
from .cases import CONTRACT, judged, returns_of, subtracted, taught


@law("baseline", source="Sutton & Barto 2018, eq. 13.10", cases=judged, applies=claims("linear"))
def baselines_scale_with_returns(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Rewards (now and in earlier rollouts), returns and the critic's values times c: what is subtracted, times c."""
    rollout, earlier, total = case
    expected = subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))
    for factor in (4.0, -0.5):
        now, before = (None if story is None else scaled(story, factor) for story in (rollout, earlier))
        assert now is not None
        got = subtracted(taught(subject, before), now, returns_of(now, total))
        message = f"at {{step}} is not {factor} times as much, as the returns are"
        same(message, rollout, factor * expected, got)


@law("baseline", source=CONTRACT, cases=judged)
def baselines_in_float32_are_near_float64(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Of float32 returns it says what it says of the same in float64, to 1e-4 of the largest."""
    rollout, earlier, total = case
    told: list[Tensor] = []
    for dtype in (torch.float64, torch.float32):
        now, before = (None if story is None else as_dtype(story, dtype) for story in (rollout, earlier))
        assert now is not None
        told.append(subtracted(taught(subject, before), now, returns_of(now, total)))
    same("at {step} is another in float32", rollout, told[0], told[1], tolerance=1e-4)
