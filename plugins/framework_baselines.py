"""Baselines: a constant, means by time and by group, those that remember earlier rollouts, and the critic.

Each declares in `claims` whether subtracting it leaves the expected gradient as it was ("neutral"): it does if neither
the action itself nor what follows it has a part in it.
"""

import math
from typing import Any

import torch
from attrs import define, field, frozen, validators
from torch import Tensor

from framework import Rollout, hookimpl
from framework.returns import episode_groups, episode_means

LINEAR = frozenset({"linear"})
NEUTRAL = frozenset({"neutral"})


@frozen
class Constant:
    """A constant, the same for all steps."""

    claims = NEUTRAL
    value: float = field(default=0.0, validator=[validators.gt(-math.inf), validators.lt(math.inf)])
    """number that is subtracted from the returns"""

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """The number, everywhere in `[T, N]`, in float64."""
        return torch.full_like(returns, self.value, dtype=torch.float64)


@frozen
class TimeMean:
    """The mean return of all steps at the same time within their episodes.

    A step's own return is in its mean: where only one episode lasts so long, nothing is learnt from its step.
    """

    needs = frozenset({"complete_episodes"})
    claims = LINEAR

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """For each step `[T, N]` the mean over the steps at its time index, in float64."""
        times = (rollout.times * rollout.mask).reshape(-1)
        weights = rollout.mask.reshape(-1).double()
        sums = torch.bincount(times, weights * returns.reshape(-1))
        means = sums / torch.bincount(times, weights).clamp(min=1)
        return means[rollout.times]


@frozen
class GroupMean:
    """The mean over all episodes with the same start of their mean returns.

    With `total_return` that shrinks the expected gradient by 1 − 1/G of G episodes; with other estimators it changes
    its direction, too. The baseline of GRPO, which also scales by the group's deviation: Shao et al. 2024,
    arXiv:2402.03300, §4.1.2. Dr. GRPO's advantage is this alone (its denominator is constant): Liu et al. 2025,
    arXiv:2503.20783.
    """

    needs = frozenset({"complete_episodes", "groups"})
    claims = LINEAR

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """For each step `[T, N]` the mean of its episode's group, in float64."""
        per_episode = episode_means(returns, rollout.episodes, rollout.mask)
        groups = episode_groups(rollout.groups, rollout.episodes, rollout.mask)
        means = torch.bincount(groups, per_episode) / torch.bincount(groups).clamp(min=1)
        return means[groups][rollout.episodes]


@frozen
class MovingAverage:
    """An exponentially weighted mean of earlier rollouts' means over episodes; 0 in the first rollout.

    After k rollouts with means s₁ … sₖ: (1 − d)·Σᵢ dᵏ⁻ⁱ·sᵢ / (1 − dᵏ), divided as Adam's moments are (Kingma & Ba
    2015, arXiv:1412.6980, §3), so that the zero before the first does not count.
    """

    claims = LINEAR | NEUTRAL
    decay: float = field(default=0.9, validator=[validators.ge(0.0), validators.lt(1.0)])
    """weight of the past at each rollout, 0 to 1"""

    def build(self) -> "MovingAverageBaseline":
        """The average for one run."""
        return MovingAverageBaseline(self.decay)


@define(eq=False)
class MovingAverageBaseline:
    """The average itself."""

    decay: float
    sum: float = 0.0
    weight: float = 0.0

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """One number, everywhere in `[T, N]`, in float64."""
        return torch.full_like(returns, self.sum / self.weight if self.weight else 0.0, dtype=torch.float64)

    def update(self, rollout: Rollout, returns: Tensor) -> None:
        """Take in a rollout's mean over its episodes."""
        mean = float(episode_means(returns, rollout.episodes, rollout.mask).mean())
        self.sum = self.decay * self.sum + (1 - self.decay) * mean
        self.weight = self.decay * self.weight + (1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Sum and weight."""
        return {"state": torch.tensor([self.sum, self.weight], dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put them back."""
        self.sum, self.weight = state["state"].tolist()


@frozen
class LinearFeatures:
    """A ridge regression of the last rollout's returns on o, o², t, t², t³ and 1; 0 in the first rollout.

    Fitted after a rollout's updates and used for the next one, so that no step is compared with its own return.
    Observations are clipped to ±10, times counted in hundreds of steps. Source: Duan et al. 2016, arXiv:1604.06778.
    """

    claims = LINEAR | NEUTRAL
    ridge: float = field(default=1e-5, validator=validators.gt(0.0))  # weight of the penalty on squared coefficients

    def build(self) -> "LinearFeaturesBaseline":
        """The regression for one run."""
        return LinearFeaturesBaseline(self.ridge)


@define(eq=False)
class LinearFeaturesBaseline:
    """Its coefficients."""

    ridge: float
    coefficients: Tensor | None = None

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """What the features predict, `[T, N]`, in float64."""
        if self.coefficients is None:
            return torch.zeros_like(returns)
        return features(rollout) @ self.coefficients.to(returns.device)

    def update(self, rollout: Rollout, returns: Tensor) -> None:
        """Fit to a rollout's real steps: β = (XᵀX + ridge·I)⁻¹Xᵀy.

        By orthogonal factors of X with √ridge·I below it: in XᵀX, rounding may drown the ridge (o, o² and 1 are one
        direction where the observation never changes).
        """
        inputs, targets = features(rollout)[rollout.mask], returns[rollout.mask].double()
        penalty = math.sqrt(self.ridge) * torch.eye(inputs.shape[1], dtype=torch.float64, device=inputs.device)
        inputs, targets = torch.cat([inputs, penalty]), torch.cat([targets, targets.new_zeros(len(penalty))])
        self.coefficients = torch.linalg.lstsq(inputs, targets.unsqueeze(1), driver="gels").solution.squeeze(1)

    def state_dict(self) -> dict[str, Tensor]:
        """The coefficients, once there are some."""
        return {} if self.coefficients is None else {"coefficients": self.coefficients.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put them back."""
        coefficients = state.get("coefficients")
        self.coefficients = None if coefficients is None else coefficients.clone()


def features(rollout: Rollout) -> Tensor:
    """o, o², t, t², t³ and 1 of each step, `[T, N, 2·O + 4]`, in float64."""
    shape = rollout.mask.shape
    observations = rollout.observations.reshape(*shape, -1).double().clamp(-10, 10)
    times = rollout.times.double().unsqueeze(-1) / 100
    return torch.cat([observations, observations**2, times, times**2, times**3, torch.ones_like(times)], -1)


@frozen
class Value:
    """The value V(s) of the policy's critic, before the updates."""

    needs = frozenset({"values"})
    claims = LINEAR | NEUTRAL

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """V(sₜ) `[T, N]`."""
        assert rollout.values is not None
        return rollout.values


@hookimpl
def baselines() -> dict[str, Any]:
    """Offer the baselines."""
    return {
        "constant": Constant,
        "group_mean": GroupMean,
        "linear_features": LinearFeatures,
        "moving_average": MovingAverage,
        "time_mean": TimeMean,
        "value": Value,
    }
