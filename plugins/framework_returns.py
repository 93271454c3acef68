"""Return estimators that bootstrap from a critic: n-step, TD(0), λ-returns, GAE, V-trace."""

from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor

from framework import Estimate, Rollout, hookimpl
from framework.returns import continues, lambda_returns, n_step_returns, vtrace_targets
from framework.tools import Section

UNIT = [validators.ge(0.0), validators.le(1.0)]


@frozen
class _Bootstrapping(Section):
    """What they share: a critic values each successor, 0 where the world ended; truncations and edges bootstrap."""

    needs = frozenset({"values"})
    claims = frozenset({"causal", "linear"})
    gamma: float = field(default=0.99, validator=UNIT)  # discount per step, 0 to 1


@frozen
class NStep(_Bootstrapping):
    """N-step returns: n rewards, then the critic's value: Gₜ = rₜ + … + γⁿ⁻¹·rₜ₊ₙ₋₁ + γⁿ·V(sₜ₊ₙ).

    Source: Sutton & Barto 2018, eq. 7.1. With baseline `value`, and n no less than a rollout's steps, the advantage of
    A2C: Mnih et al. 2016, arXiv:1602.01783, §4.
    """

    n: int = field(default=5, validator=validators.ge(1))  # number of rewards before the critic's value

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`, which are the critic's targets, too."""
        returns = n_step_returns(rollout.rewards, _successors(rollout), _going(rollout), self.gamma, self.n)
        return Estimate(returns, returns)


@frozen
class TD0(_Bootstrapping):
    """One reward, then the critic's value: Gₜ = rₜ + γ·V(sₜ₊₁).

    Source: Sutton & Barto 2018, eq. 6.2.
    """

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`, which are the critic's targets, too."""
        returns = torch.add(rollout.rewards, _successors(rollout), alpha=self.gamma).detach_()
        return Estimate(returns, returns)


@frozen
class LambdaReturns(_Bootstrapping):
    """λ-returns: all n-step returns, averaged with weights of λ: Gₜ = rₜ + γ[(1 − λ)·V(sₜ₊₁) + λ·Gₜ₊₁].

    With baseline `value` the advantage is GAE(γ, λ): Schulman et al. 2016, arXiv:1506.02438, eq. 16. Source: Sutton &
    Barto 2018, eq. 12.18.
    """

    lam: float = field(default=0.95, validator=UNIT)  # λ, 0 to 1; 0: TD(0), 1: Monte Carlo

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`, which are the critic's targets, too."""
        returns = lambda_returns(rollout.rewards, _successors(rollout), _going(rollout), self.gamma, self.lam)
        return Estimate(returns, returns)


@frozen
class GAE(LambdaReturns):
    """Generalised advantage estimation: λ-returns together with the baseline `value`.

    Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    """

    implies = {"baseline": "value"}  # noqa: RUF012


@frozen
class VTrace(_Bootstrapping):
    """V-trace: returns of another policy μ, corrected by clipped ratios π/μ.

    Targets vₜ = V(sₜ) + ρₜδₜ + γcₜ(vₜ₊₁ − V(sₜ₊₁)), returns rₜ + γvₜ₊₁, weights ρₜ, where ρₜ = min(ρ̄, π/μ) and
    cₜ = min(c̄, π/μ). Where the rollout has no log-probs of another policy, π = μ. Source: Espeholt et al. 2018,
    arXiv:1802.01561, eq. 1 and §4.2.
    """

    rho_clip: float = field(default=1.0, validator=validators.gt(0.0))
    """ρ̄, bound of the ratio π/μ that decides what the critic converges to"""
    c_clip: float = field(default=1.0, validator=validators.gt(0.0))
    """c̄, bound of the ratio π/μ that decides how far corrections reach back; at most ρ̄ in the paper"""

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns, targets and weights `[T, N]`."""
        assert rollout.values is not None
        successors, continues = _successors(rollout), _going(rollout)
        target = rollout.log_probs if rollout.target_log_probs is None else rollout.target_log_probs
        ratios = torch.sub(target.detach(), rollout.log_probs.detach()).exp_()
        weights = ratios.clamp(max=self.rho_clip)
        traces = ratios.clamp_(max=self.c_clip)
        targets = vtrace_targets(rollout.rewards, rollout.values, successors, continues, weights, traces, self.gamma)
        following = successors.detach().clone()
        torch.where(continues[:-1], targets[1:], following[:-1], out=following[:-1])
        return Estimate(following.mul_(self.gamma).add_(rollout.rewards.detach()), targets, weights)


def _successors(rollout: Rollout) -> Tensor:
    assert rollout.successor_values is not None
    return rollout.successor_values


def _going(rollout: Rollout) -> Tensor:
    return continues(rollout.terminated, rollout.truncated, rollout.mask)


Gae = GAE  # its name before


@hookimpl
def estimators() -> dict[str, Any]:
    """Offer the estimators."""
    return {"gae": GAE, "lambda_returns": LambdaReturns, "n_step": NStep, "td0": TD0, "vtrace": VTrace}
