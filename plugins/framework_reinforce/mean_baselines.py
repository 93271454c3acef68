"""Baselines that need no critic. They average the mean returns (over its real steps) of each episode."""

import torch
from attrs import frozen
from torch import Tensor

from framework import PartError, Rollout
from framework.returns import episode_groups, episode_means

LINEAR = frozenset({"linear"})
NEUTRAL = frozenset({"neutral"})


@frozen
class NoBaseline:
    """Nothing is subtracted."""

    claims = LINEAR | NEUTRAL

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """Zeros `[T, N]`."""
        return torch.zeros_like(returns)


@frozen
class BatchMean:
    """The mean over all episodes of their mean returns.

    An episode's own mean is in it, which shrinks the expected gradient by the factor 1 − 1/E of E episodes
    (exactly so for one return an episode, as total_return gives).
    """

    claims = LINEAR

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """One number, everywhere in `[T, N]`, in float64."""
        mean = episode_means(returns, rollout.episodes, rollout.mask).mean()
        return mean.expand_as(returns)


@frozen
class LeaveOneOut:
    """The mean over the other episodes (RLOO), independent of the episode itself if collected by number.

    Collected by size, an episode's length has a part in which others there are, and biases their mean a little. Where
    lanes are grouped, the others are those of its group, which began where it did. Source: Kool et al. 2019 (Buy 4
    REINFORCE samples, get a baseline for free!); Ahmadian et al. 2024, arXiv:2402.14740, §2.3.
    """

    needs = frozenset({"complete_episodes"})
    claims = LINEAR | NEUTRAL

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """For each step `[T, N]` the mean of its group's other episodes, in float64; refuses a single one."""
        per_episode = episode_means(returns, rollout.episodes, rollout.mask)
        groups = episode_groups(rollout.groups, rollout.episodes, rollout.mask)
        counts = torch.bincount(groups)
        alone = (counts == 1).nonzero()
        if len(alone):
            where = "rollout, and this one" if rollout.groups is None else f"group, and group {int(alone[0])}"
            raise PartError(
                f"baseline 'leave_one_out' needs at least two episodes in each {where} has 1: "
                "ask for more (rollout.episodes, rollout.steps)"
            )
        others = (torch.bincount(groups, per_episode)[groups] - per_episode) / (counts[groups] - 1)
        return others[rollout.episodes]
