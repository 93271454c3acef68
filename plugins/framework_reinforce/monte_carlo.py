"""Monte-Carlo returns: of the whole episode, and of what follows each step."""

import torch
from attrs import field, frozen, validators

from framework import Estimate, Rollout
from framework.returns import rewards_to_go
from framework.tools import Section

GAMMA = [validators.ge(0.0), validators.le(1.0)]


@frozen
class RewardsToGo(Section):
    """Rewards-to-go: the rewards from each step on, discounted from that step: Gₜ = Σ_{k≥t} γ^{k−t} rₖ.

    With γ < 1 the gradient lacks the factor γᵗ and is that of neither objective (Nota & Thomas 2020,
    arXiv:1906.07073); with γ = 1 it is that of the undiscounted return. `discounted_objective` gives each step the
    weight γᵗ, t counted from its episode's start. Source: Sutton & Barto 2018, §13.3 (the boxed algorithm has γᵗ).
    """

    needs = frozenset({"complete_episodes"})
    gamma: float = field(default=0.99, validator=GAMMA)  # discount per step, 0 to 1
    discounted_objective: bool = False  # weight each step by γᵗ: the gradient of the discounted return

    @property
    def claims(self) -> frozenset[str]:
        """Unbiased where nothing is discounted, or where the weights are there, too."""
        claimed = {"causal", "linear"}
        if self.gamma == 1:
            claimed.add("unbiased:undiscounted")
        elif self.discounted_objective:
            claimed.add("unbiased:discounted")
        return frozenset(claimed)

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`, which are the critic's targets, too; a truncation counts as the end."""
        returns = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, self.gamma)
        if not self.discounted_objective:
            return Estimate(returns, returns)
        powers = self.gamma ** torch.arange(len(returns), dtype=torch.float64, device=returns.device)
        return Estimate(returns, returns, powers.to(returns.dtype)[rollout.times])


@frozen
class TotalReturn(Section):
    """The discounted return of the whole episode, the same for each of its steps: G = Σₖ γᵏ rₖ.

    Source: Williams 1992, doi:10.1007/BF00992696, §5 (episodic REINFORCE).
    """

    needs = frozenset({"complete_episodes"})
    gamma: float = field(default=0.99, validator=GAMMA)  # discount per step, 0 to 1

    @property
    def claims(self) -> frozenset[str]:
        """Unbiased for the objective with this discount."""
        return frozenset({"linear", "unbiased:undiscounted" if self.gamma == 1 else "unbiased:discounted"})

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`; the value targets are the rewards to go, for a critic predicts what is to come."""
        targets = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, self.gamma)
        firsts = torch.arange(len(targets), device=targets.device)[:, None] - rollout.times  # rows of the first steps
        returns = targets.gather(0, firsts)
        return Estimate(returns, targets)
