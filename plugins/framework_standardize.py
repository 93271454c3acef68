"""Standardised advantages: centred and scaled, within the batch, each minibatch or each group."""

from collections.abc import Generator
from typing import Any, Literal

import torch
from attrs import evolve, field, frozen, validators
from torch import Tensor

from framework import Advantages, Batch, Rollout, hookimpl
from framework.returns import episode_groups, episode_means
from framework.tools import Section


@frozen
class Standardize(Section):
    """Standardise advantages: subtract their mean and divide by their standard deviation.

    Within a group, mean and deviation are those of its episodes' mean advantages. With
    `total_return` and `group_mean` that is GRPO's advantage: Shao et al. 2024, arXiv:2402.03300, §4.1.2.
    """

    claims = frozenset({"pure"})
    within: Literal["batch", "minibatch", "group"] = field(
        default="batch", validator=validators.in_(("batch", "minibatch", "group"))
    )
    """steps whose mean and deviation are used: all of them, those of a minibatch, or a group's episode means"""
    center: bool = True  # subtract the mean
    scale: bool = True  # divide by the standard deviation (of a sample, n − 1)
    epsilon: float = field(default=1e-8, validator=validators.gt(0.0))  # number added to the deviation

    @property
    def needs(self) -> frozenset[str]:
        """Groups, where they count."""
        return frozenset({"groups"} if self.within == "group" else ())

    def build(self, run: Any) -> "BatchStandardizer | MinibatchStandardizer | GroupStandardizer":
        """The extension for one run."""
        if self.within == "group":
            return GroupStandardizer(self)
        return BatchStandardizer(self) if self.within == "batch" else MinibatchStandardizer(self)

    def standardized(self, advantages: Tensor, real: Tensor) -> Tensor:
        """`advantages` standardised by the statistics of `real` (some of them, flat); computed in float64."""
        changed = advantages.double()
        real = changed if real is advantages else real.double()
        if len(real) > 1:
            deviation, mean = torch.std_mean(real)
        else:
            deviation, mean = None, real.mean()
        if self.center:
            changed = changed - mean
        if self.scale and deviation is not None:
            changed = changed / (deviation + self.epsilon)
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


class GroupStandardizer:
    """Wraps the estimation of advantages."""

    def __init__(self, settings: Standardize) -> None:
        """Keep the settings."""
        self.settings = settings

    @hookimpl(wrapper=True)
    def estimate_advantages(self, rollout: Rollout) -> Generator[None, Advantages, Advantages]:
        """By the mean advantages of each group's episodes; a single one is not scaled. Padding stays 0."""
        result = yield
        advantages = result.advantages.double()
        per_episode = episode_means(advantages, rollout.episodes, rollout.mask)
        groups = episode_groups(rollout.groups, rollout.episodes, rollout.mask)
        counts = torch.bincount(groups)
        # counted from the group's lowest mean, so that equal ones are exactly 0
        lowest = per_episode.new_full((len(counts),), torch.inf).scatter_reduce(0, groups, per_episode, "amin")[groups]
        means = (torch.bincount(groups, per_episode - lowest) / counts)[groups]
        variances = torch.bincount(groups, (per_episode - lowest - means).square()) / (counts - 1)
        if self.settings.center:
            advantages = advantages - lowest[rollout.episodes] - means[rollout.episodes]
        if self.settings.scale:
            divisors = torch.where(counts > 1, variances.sqrt() + self.settings.epsilon, 1.0)[groups]
            advantages = advantages / divisors[rollout.episodes]
        changed = torch.where(rollout.mask, advantages, 0.0).to(result.advantages.dtype)
        return evolve(result, advantages=changed)


@hookimpl
def extensions() -> dict[str, Any]:
    """Offer the extension."""
    return {"standardize": Standardize}
