"""Scaled rewards: divided by the running standard deviation of the discounted return so far."""

from collections.abc import Generator
from typing import Any

import torch
from attrs import evolve, field, frozen, validators
from torch import Tensor

from framework import Rollout, hookimpl
from framework.returns import discounted_sums
from framework.tools import Section, merge_moments


@frozen
class ScaleRewards(Section):
    """Divide rewards by √(Var R + ε), where Rₜ = rₜ + γ·Rₜ₋₁ starts again with every episode of a lane.

    The variance is that of R over the real steps of all rollouts, this one included. Source: Engstrom et al. 2020,
    arXiv:2005.12729, algorithm 1; ε, clipping and the new beginnings are those of VecNormalize in OpenAI's baselines.
    """

    gamma: float = field(default=0.99, validator=[validators.ge(0.0), validators.le(1.0)])
    """discount per step, 0 to 1; best the estimator's own"""
    clip: float = field(default=10.0, validator=validators.gt(0.0))  # largest absolute value of a scaled reward
    epsilon: float = field(default=1e-8, validator=validators.gt(0.0))  # number added to the variance

    def build(self, run: Any) -> "RewardScaler":
        """The extension for one run."""
        return RewardScaler(self)


class RewardScaler:
    """Wraps collecting; keeps the moments of R, and where each lane stands."""

    def __init__(self, settings: ScaleRewards) -> None:
        """Begin with no steps, and nothing carried over."""
        self.settings = settings
        self.count = torch.zeros((), dtype=torch.int64)
        self.mean, self.variance = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        self.carried = torch.zeros((), dtype=torch.float64)  # [N] R of unfinished episodes, once there are lanes

    @hookimpl(wrapper=True)
    def collect_rollout(self) -> Generator[None, Rollout, Rollout]:
        """Take the rollout's R in, then scale its rewards."""
        rollout = yield
        returns = self.returns_so_far(rollout)
        count, mean, variance = (moment.to(returns.device) for moment in (self.count, self.mean, self.variance))
        self.count, self.mean, self.variance = merge_moments(count, mean, variance, returns[rollout.mask])
        scaled = rollout.rewards.double() / torch.sqrt(self.variance + self.settings.epsilon)
        return evolve(rollout, rewards=scaled.clamp(-self.settings.clip, self.settings.clip).to(rollout.rewards.dtype))

    def returns_so_far(self, rollout: Rollout) -> Tensor:
        """Rₜ = rₜ + γ(1 − endₜ₋₁)·Rₜ₋₁ `[T, N]` in float64, from where each lane stood; moves it on."""
        gamma = self.settings.gamma
        rewards = torch.where(rollout.mask, rollout.rewards.double(), 0.0)
        continues = (~(rollout.terminated | rollout.truncated)).double()
        rewards[0] += gamma * self.carried.to(rewards.device)
        discounts = gamma * torch.cat([torch.zeros_like(continues[:1]), continues[:-1]])
        # forward in time is backward in time turned round
        returns = discounted_sums(rewards.flip(0), discounts.flip(0)).flip(0)
        self.carried = returns[-1] * continues[-1]
        return returns

    def state_dict(self) -> dict[str, Tensor]:
        """Moments, and where each lane stands."""
        return {
            "count": self.count.clone(),
            "mean": self.mean.clone(),
            "variance": self.variance.clone(),
            "carried": self.carried.clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put them back."""
        self.count, self.mean, self.variance, self.carried = (
            state[name].clone() for name in ("count", "mean", "variance", "carried")
        )


@hookimpl
def extensions() -> dict[str, Any]:
    """Offer the extension."""
    return {"scale_rewards": ScaleRewards}
