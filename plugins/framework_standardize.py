"""Standardised advantages: centred and scaled, within the batch or each minibatch."""

from collections.abc import Generator
from typing import Any, Literal

import torch
from attrs import evolve, field, frozen, validators
from torch import Tensor

from framework import Advantages, Batch, Rollout, hookimpl


@frozen
class Standardize:
    """Advantages minus their mean, over their standard deviation."""

    within: Literal["batch", "minibatch"] = field(default="batch", validator=validators.in_(("batch", "minibatch")))
    """of which steps mean and deviation are taken"""
    center: bool = True  # subtract the mean
    scale: bool = True  # divide by the standard deviation (n − 1)
    epsilon: float = field(default=1e-8, validator=validators.gt(0.0))  # added to the deviation

    def build(self, run: Any) -> "BatchStandardizer | MinibatchStandardizer":
        """The extension for one run."""
        return BatchStandardizer(self) if self.within == "batch" else MinibatchStandardizer(self)

    def standardized(self, advantages: Tensor, real: Tensor) -> Tensor:
        """`advantages` standardised by the statistics of `real` (some of them, flat); computed in float64."""
        real = real.double()
        mean = real.mean()
        changed = advantages.double()
        if self.center:
            changed = changed - mean
        if self.scale and len(real) > 1:
            changed = changed / (real.std() + self.epsilon)
        return changed.to(advantages.dtype)


class BatchStandardizer:
    """Wraps the estimation of advantages."""

    def __init__(self, settings: Standardize) -> None:
        """Keep the settings."""
        self.settings = settings

    @hookimpl(wrapper=True)
    def estimate_advantages(self, rollout: Rollout) -> Generator[None, Advantages, Advantages]:
        """Over the rollout's real steps; padding stays 0."""
        result = yield
        real = result.advantages[rollout.mask]
        changed = self.settings.standardized(result.advantages, real)
        return evolve(result, advantages=torch.where(rollout.mask, changed, 0.0))


class MinibatchStandardizer:
    """Wraps the preparation of each minibatch."""

    def __init__(self, settings: Standardize) -> None:
        """Keep the settings."""
        self.settings = settings

    @hookimpl(wrapper=True)
    def prepare_batch(self) -> Generator[None, Batch, Batch]:
        """Over the minibatch."""
        batch = yield
        return evolve(batch, advantages=self.settings.standardized(batch.advantages, batch.advantages))


@hookimpl
def extensions() -> dict[str, Any]:
    """Offer the extension."""
    return {"standardize": Standardize}
