"""A baseline that remembers what earlier iterations scored."""

from typing import Any

import torch
from attrs import field, frozen, validators
from framework import Rollout, hookimpl
from framework.returns import episode_means
from torch import Tensor


@frozen
class MyPart:
    """An exponentially weighted mean of all earlier iterations' scores; 0 at first."""

    keep: float = field(default=0.9, validator=[validators.ge(0), validators.lt(1)])  # of the old mean, each iteration

    def build(self) -> "MyPartBaseline":
        """One that remembers nothing yet."""
        return MyPartBaseline(self.keep)


class MyPartBaseline:
    """Holds the mean. It judges no episode by its own score, so it biases nothing."""

    def __init__(self, keep: float) -> None:
        self.keep, self.mean = keep, 0.0

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """What is subtracted from `returns` [T, N]."""
        return torch.full_like(returns, self.mean)

    def update(self, rollout: Rollout, returns: Tensor) -> None:
        """Once an iteration, after its last update."""
        score = float(episode_means(returns, rollout.episodes, rollout.mask).mean())
        self.mean = self.keep * self.mean + (1 - self.keep) * score

    def state_dict(self) -> dict[str, Tensor]:
        """The mean."""
        return {"mean": torch.tensor(self.mean, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved mean."""
        self.mean = float(state["mean"])


@hookimpl
def baselines() -> dict[str, Any]:
    """Offer the baseline."""
    return {"my_part": MyPart}
