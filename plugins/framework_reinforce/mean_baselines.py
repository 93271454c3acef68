"""Baselines that need no critic. An episode's *score* is the mean of its returns over its real steps."""

import torch
from attrs import frozen
from torch import Tensor

from framework import PartError, Rollout
from framework.returns import episode_means


@frozen
class NoBaseline:
    """Nothing is subtracted."""

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """Zeros `[T, N]`."""
        return torch.zeros_like(returns)


@frozen
class BatchMean:
    """The mean of all episodes' scores.

    An episode's own score is in it, which shrinks the expected gradient by the factor 1 − 1/E of E episodes
    (exactly so for one score an episode, as total_return gives).
    """

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """One number, everywhere in `[T, N]`."""
        mean = episode_means(returns, rollout.episodes, rollout.mask).mean()
        return mean.to(returns.dtype).expand_as(returns)


@frozen
class LeaveOneOut:
    """The mean of the other episodes' scores (RLOO): independent of the judged episode, so nothing is biased.

    Source: Kool et al. 2019 (Buy 4 REINFORCE samples, get a baseline for free!); Ahmadian et al. 2024,
    arXiv:2402.14740, §2.3.
    """

    needs = frozenset({"complete_episodes"})

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """For each step `[T, N]` the mean score of all episodes but its own; refuses fewer than two."""
        scores = episode_means(returns, rollout.episodes, rollout.mask)
        if len(scores) < 2:
            raise PartError(
                "baseline 'leave_one_out' needs at least two episodes in each rollout, and this one has 1: "
                "ask for more (rollout.episodes, rollout.steps)"
            )
        others = (scores.sum() - scores) / (len(scores) - 1)
        return others[rollout.episodes].to(returns.dtype)
