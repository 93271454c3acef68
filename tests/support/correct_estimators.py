"""Simple estimators that satisfy every law; mutants are made from them."""

import torch
from attrs import field, frozen, validators
from mutants import entering

from framework import Estimate, UsageError
from framework.setup.loading import load

LOADED = load()
UNIT = [validators.ge(0.0), validators.le(1.0)]


# Correct estimators that compute step by step: a mutant overrides one of their methods.


@frozen
class Step:
    """One reward plus the discounted value of the successor."""

    needs = frozenset({"values"})
    claims = frozenset({"causal", "linear"})
    gamma: float = field(default=0.99, validator=UNIT)

    def continuing(self, rollout):
        continuing = rollout.mask & ~rollout.terminated & ~rollout.truncated
        return torch.cat([continuing[:-1], continuing[-1:] & False])

    def bootstrap_values(self, rollout):
        return rollout.successor_values

    def rewards(self, rollout):
        return rollout.rewards

    def returns(self, rollout):
        return self.rewards(rollout) + self.gamma * self.bootstrap_values(rollout)

    def targets(self, rollout, returns):
        return returns

    def __call__(self, rollout):
        returns = self.returns(rollout)
        return Estimate(returns, self.targets(rollout, returns))


@frozen
class LambdaReturns(Step):
    """λ-returns: Gₜ = rₜ + γ[(1 − λ)·V(s′ₜ) + λ·Gₜ₊₁] while the trace continues, rₜ + γ·V(s′ₜ) where it is cut."""

    lam: float = field(default=0.95, validator=UNIT)

    def returns(self, rollout):
        rewards, continuing, bootstrap = self.rewards(rollout), self.continuing(rollout), self.bootstrap_values(rollout)
        returns, later = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
        for t in reversed(range(len(rewards))):
            bootstrapped = torch.where(continuing[t], (1 - self.lam) * bootstrap[t] + self.lam * later, bootstrap[t])
            later = returns[t] = rewards[t] + self.gamma * bootstrapped
        return returns


@frozen
class NStepReturns(Step):
    """n-step returns, by their definition."""

    n: int = field(default=3, validator=validators.ge(1))

    def power(self, steps):
        return self.gamma**steps

    def returns(self, rollout):
        rewards, continuing, bootstrap = self.rewards(rollout), self.continuing(rollout), self.bootstrap_values(rollout)
        returns = torch.zeros_like(rewards)
        for lane in range(rewards.shape[1]):
            for t in range(len(rewards)):
                for k in range(self.n):
                    returns[t, lane] += self.gamma**k * rewards[t + k, lane]
                    if k == self.n - 1 or not continuing[t + k, lane]:
                        returns[t, lane] += self.power(k + 1) * bootstrap[t + k, lane]
                        break
        return returns


@frozen
class RewardsToGo(Step):
    """Rewards to go."""

    needs = frozenset({"complete_episodes"})

    def returns(self, rollout):
        rewards, continuing = self.rewards(rollout), self.continuing(rollout)
        returns, later = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
        for t in reversed(range(len(rewards))):
            later = returns[t] = rewards[t] + self.gamma * torch.where(continuing[t], later, 0)
        return returns


def shifted(table):
    """The next row's, 0 below the last."""
    return torch.cat([table[1:], torch.zeros_like(table[:1])])


# Correct estimators that a wrong law might reject


@frozen
class Total:
    """Each episode's return, summed by its number."""

    needs = frozenset({"complete_episodes"})
    claims = frozenset({"linear"})

    def __call__(self, rollout):
        sums = rollout.rewards.new_zeros(int(rollout.episodes.max()) + 1)
        sums.index_add_(0, rollout.episodes[rollout.mask], rollout.rewards[rollout.mask])
        return Estimate(sums[rollout.episodes] * rollout.mask, RewardsToGo(1.0).returns(rollout))


@frozen
class NeverZero(RewardsToGo):
    """γ is inside (0, 1], and it computes in float32."""

    gamma: float = field(default=0.99, validator=[validators.gt(0), validators.le(1)])

    def rewards(self, rollout):
        return rollout.rewards.float()

    def returns(self, rollout):
        return super().returns(rollout).to(rollout.rewards.dtype)


def two_to_four(instance, attribute, value):
    if not 2 <= value <= 4:
        raise UsageError("n: 2, 3 or 4")


@frozen
class TwoToFour(NStepReturns):
    """n is 2, 3 or 4, and a validator says so in the framework's own words."""

    n: int = field(default=3, validator=two_to_four)


@frozen
class VTrace(Step):
    """V-trace with λ (Espeholt et al. 2018, arXiv:1802.01561, remark 2), where returns are r + γ·v(s′)."""

    lam: float = field(default=0.95, validator=UNIT)

    def __call__(self, rollout):
        target = rollout.log_probs if rollout.target_log_probs is None else rollout.target_log_probs
        rho, continuing = (target - rollout.log_probs).exp().clamp(max=1), self.continuing(rollout)
        targets, returns = torch.zeros_like(rollout.rewards), torch.zeros_like(rollout.rewards)
        later = torch.zeros_like(rollout.rewards[0])
        for t in reversed(range(len(targets))):
            bootstrap = rollout.successor_values[t]
            delta = rho[t] * (rollout.rewards[t] + self.gamma * bootstrap - rollout.values[t])
            trace = self.gamma * self.lam * rho[t] * torch.where(continuing[t], later - bootstrap, 0)
            targets[t] = rollout.values[t] + delta + trace
            returns[t] = rollout.rewards[t] + self.gamma * torch.where(continuing[t], later, bootstrap)
            later = targets[t]
        return Estimate(returns * rollout.mask, targets * rollout.mask, rho)


@frozen
class MonteCarloAndTD(RewardsToGo):
    """Rewards to the end of whole episodes, and one-step targets for the critic."""

    needs = frozenset({"complete_episodes", "values"})

    def __call__(self, rollout):
        ends = (rollout.terminated | rollout.truncated).sum()
        assert ends == rollout.episodes[rollout.mask].unique().numel(), "an episode is cut"
        return Estimate(self.returns(rollout), rollout.rewards + self.gamma * rollout.successor_values)


@frozen
class OfVectors(RewardsToGo):
    """Adds to each reward the sum of the observation's vector; does not work for Discrete observations."""

    def rewards(self, rollout):
        return rollout.rewards + (rollout.observations @ torch.ones(2)).masked_fill(~rollout.mask, 0)

    claims = frozenset()


MISTAKABLE = {
    Total: {},
    NeverZero: {"gamma_zero_is_the_immediate_reward": "its settings do not allow gamma = 0"},
    TwoToFour: {
        "n_of_one_is_one_step": "its settings do not allow n = 1",
        "n_beyond_the_end_is_monte_carlo": "its settings do not allow n = 20",
    },
    VTrace: {},
    MonteCarloAndTD: dict.fromkeys(
        ("a_truncation_bootstraps", "the_edge_bootstraps"),
        "it needs complete episodes, and treats every end as the end of the rewards",
    ),
    OfVectors: {},
}


MUTANTS = {}  # name → class, law, source
mutant = entering(MUTANTS)


@mutant("estimates_are_finite", "huggingface/trl#6626, second part")
class DividesByPowers(RewardsToGo):
    """divides by γᵗ, which is 0 for γ = 0: its default settings do nothing wrong"""

    def returns(self, rollout):
        powers = self.gamma**rollout.times
        return super().returns(rollout) * powers / powers
