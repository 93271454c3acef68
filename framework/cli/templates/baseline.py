"""A baseline from the returns of earlier iterations."""

from typing import Any

import torch
from attrs import field, frozen, validators
from framework import Rollout, hookimpl
from framework.returns import episode_means
from torch import Tensor


@frozen
class MyPart:
    """An exponentially weighted mean of all earlier iterations' returns; 0 at first."""

    keep: float = field(
        default=0.9, validator=[validators.ge(0), validators.lt(1)]
    )  # weight of the old mean in each iteration

    def build(self) -> "MyPartBaseline":
        """The baseline, with mean 0."""
        return MyPartBaseline(self.keep)


class MyPartBaseline:
    """Holds the mean. It does not depend on the episode it is subtracted from, so it adds no bias."""

    def __init__(self, keep: float) -> None:
        self.keep, self.mean = keep, 0.0

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """The values to subtract from `returns` [T, N]."""
        return torch.full_like(returns, self.mean)

    def update(self, rollout: Rollout, returns: Tensor) -> None:
        """Once an iteration, after its last update."""
        latest = float(episode_means(returns, rollout.episodes, rollout.mask).mean())
        self.mean = self.keep * self.mean + (1 - self.keep) * latest

    def state_dict(self) -> dict[str, Tensor]:
        """The mean."""
        return {"mean": torch.tensor(self.mean, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the mean."""
        self.mean = float(state["mean"])


@hookimpl
def baselines() -> dict[str, Any]:
    """Offer the baseline."""
    return {"my_part": MyPart}
