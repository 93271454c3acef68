"""Monte-Carlo returns: of the whole episode, and of what follows each step."""

from attrs import field, frozen, validators

from framework import Estimate, Rollout
from framework.returns import episode_sums, rewards_to_go

GAMMA = [validators.ge(0.0), validators.le(1.0)]


@frozen
class RewardsToGo:
    """What was earned from each step on, discounted from there: Gₜ = Σ_{k≥t} γ^{k−t} rₖ.

    With γ < 1 the gradient lacks the factor γᵗ and is that of neither objective (Nota & Thomas 2020,
    arXiv:1906.07073); with γ = 1 it is that of the undiscounted return. Source: Sutton & Barto 2018, §13.3.
    """

    needs = frozenset({"complete_episodes"})
    gamma: float = field(default=0.99, validator=GAMMA)  # discount a step, 0 to 1

    @property
    def claims(self) -> frozenset[str]:
        """Unbiased where nothing is discounted."""
        return frozenset({"unbiased:undiscounted"} if self.gamma == 1 else ())

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`; a truncation counts as the end."""
        returns = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, self.gamma)
        return Estimate(returns, returns)


@frozen
class TotalReturn:
    """The whole episode's discounted return, the same at each of its steps: G = Σₖ γᵏ rₖ.

    Source: Williams 1992, doi:10.1007/BF00992696, §5 (episodic REINFORCE).
    """

    needs = frozenset({"complete_episodes"})
    gamma: float = field(default=0.99, validator=GAMMA)  # discount a step, 0 to 1

    @property
    def claims(self) -> frozenset[str]:
        """Unbiased for the objective with this discount."""
        return frozenset({"unbiased:undiscounted" if self.gamma == 1 else "unbiased:discounted"})

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`; the value targets are the rewards to go, for a critic predicts what is to come."""
        targets = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, self.gamma)
        discounted = rollout.rewards.double() * self.gamma ** rollout.times.double()
        totals, _ = episode_sums(discounted, rollout.episodes, rollout.mask)
        returns = totals[rollout.episodes].to(rollout.rewards.dtype).masked_fill(~rollout.mask, 0)
        return Estimate(returns, targets)
