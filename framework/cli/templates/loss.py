"""A loss that clips the probability ratio."""

from typing import Any

from attrs import field, frozen, validators
from framework import Batch, Evaluation, Loss, hookimpl


@frozen
class MyPart:
    """−A·min(π/π_old, 1 + ε) where A > 0, and −A·π/π_old elsewhere."""

    epsilon: float = field(default=0.2, validator=validators.gt(0))  # limit of the ratio's increase

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        """One value per step [B], with gradient, neither summed nor averaged."""
        ratio = (evaluation.log_probs - batch.log_probs).exp()
        counted = ratio.clamp(max=1 + self.epsilon).where(batch.advantages > 0, ratio)
        return Loss({"policy": -batch.advantages * counted})


@hookimpl
def losses() -> dict[str, Any]:
    """Offer the loss."""
    return {"my_part": MyPart}
