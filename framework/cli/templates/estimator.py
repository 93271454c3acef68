"""Rewards to go, discounted from the episode's start."""

from typing import Any

from attrs import field, frozen, validators
from framework import Estimate, Rollout, hookimpl
from framework.returns import rewards_to_go


@frozen
class MyPart:
    """Rewards to go, weighted by γᵗ: the gradient of the discounted return (Sutton & Barto 2018, §13.3)."""

    needs = frozenset({"complete_episodes"})
    claims = frozenset({"unbiased:discounted"})
    gamma: float = field(default=0.99, validator=[validators.ge(0), validators.le(1)])  # discount per step

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns, value targets and weights, each [T, N]; a truncation counts as the end."""
        returns = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, self.gamma)
        return Estimate(returns, returns, weights=self.gamma ** rollout.times.to(returns.dtype))


@hookimpl
def estimators() -> dict[str, Any]:
    """Offer the estimator."""
    return {"my_part": MyPart}
