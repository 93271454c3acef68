"""Losses with a critic: actor-critic (A2C) and proximal policy optimisation (PPO)."""

from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor
from torch.nn import functional

from framework import Batch, Evaluation, Loss, hookimpl
from framework.tools import Section

COEFFICIENT = validators.ge(0.0)
OPTIONAL = validators.optional(validators.gt(0.0))


def needed(value: float, entropy: float) -> frozenset[str]:
    """What terms with these coefficients need."""
    return frozenset({"values"} if value else ()) | frozenset({"entropies"} if entropy else ())


def entropy_terms(coefficient: float, evaluation: Evaluation) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The entropy bonus as a term, and the mean entropy as a metric; neither without a coefficient."""
    if not coefficient or evaluation.entropies is None:
        return {}, {}
    return {"entropy": -coefficient * evaluation.entropies}, {"entropy": evaluation.entropies.detach().mean()}


@frozen
class ActorCriticLoss(Section):
    """The loss of advantage actor-critic (A2C): −A·log π(a|s) and the critic's squared error.

    Source: Mnih et al. 2016, arXiv:1602.01783, §4 and algorithm S3.
    """

    claims = frozenset({"policy_gradient"})
    value: float = field(default=0.5, validator=COEFFICIENT)  # coefficient of the critic's squared error; 0: no critic
    entropy: float = field(default=0.0, validator=COEFFICIENT)  # coefficient of the entropy bonus

    @property
    def needs(self) -> frozenset[str]:
        """Values, if there is to be a critic; entropies, where they count."""
        return needed(self.value, self.entropy)

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        """Terms `policy`, `value` and `entropy` (those with a coefficient), each [B]."""
        terms = {"policy": evaluation.log_probs * -batch.advantages}
        if self.value:
            assert evaluation.values is not None
            errors = evaluation.values - batch.value_targets
            terms["value"] = self.value * errors.square()
        entropy, metrics = entropy_terms(self.entropy, evaluation)
        return Loss({**terms, **entropy}, metrics)


@frozen
class PPO(Section):
    """The clipped loss of PPO: −min(ρ·A, clip(ρ, 1 − ε, 1 + ε)·A) with the ratio ρ = π(a|s)/π_old(a|s).

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9. Without a critic (`value` 0) its terms are those of
    GRPO without the KL penalty: Shao et al. 2024, arXiv:2402.03300, eq. 3.
    """

    clip: float = field(default=0.2, validator=validators.gt(0.0))
    """ε, the largest change of the ratio ρ from 1 that counts"""
    value: float = field(default=0.5, validator=COEFFICIENT)  # coefficient of the critic's squared error; 0: no critic
    entropy: float = field(default=0.0, validator=COEFFICIENT)  # coefficient of the entropy bonus
    value_clip: float | None = field(default=None, validator=OPTIONAL)
    """largest change of a value that lowers the critic's error; None: no limit"""
    dual_clip: float | None = field(default=None, validator=validators.optional(validators.gt(1.0)))
    """largest ratio that counts at negative advantages (Ye et al. 2020, arXiv:1912.09729, eq. 5); None: no limit"""
    target_kl: float | None = field(default=None, validator=OPTIONAL)
    """KL divergence from the policy that acted (in nats) that ends the iteration's updates; None: no limit"""

    @property
    def needs(self) -> frozenset[str]:
        """Values, if there is to be a critic; entropies, where they count."""
        return needed(self.value, self.entropy)

    @property
    def claims(self) -> frozenset[str]:
        """A dual clip is no bound from below: it ends how bad a loss may be."""
        return frozenset({"policy_gradient"} if self.dual_clip else {"policy_gradient", "pessimistic"})

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        """Terms `policy`, `value` and `entropy` (those with a coefficient), each [B]; metrics `kl` and `clipped`."""
        costs = -batch.advantages
        log_ratios = evaluation.log_probs - batch.log_probs
        ratios = log_ratios.exp()
        with torch.no_grad():
            clipped = ratios.clamp(1 - self.clip, 1 + self.clip)
            least = clipped * costs  # where it is chosen, the clipped ratio is a constant
            share = (clipped != ratios).mean(dtype=ratios.dtype)
            # ρ − 1 − log ρ estimates KL(π_old ‖ π) without bias and is never negative, but for the rounding of ρ near 1
            kl = (torch.expm1(log_ratios) - log_ratios).clamp(min=0).mean()
            stop = False if self.target_kl is None else kl > self.target_kl
        losses = (ratios * costs).clamp(min=least)
        if self.dual_clip is not None:
            losses = torch.where(costs > 0, losses.clamp(max=self.dual_clip * costs), losses)
        terms = {"policy": losses}
        if self.value:
            terms["value"] = self.value * self._squared_errors(batch, evaluation)
        entropy, metrics = entropy_terms(self.entropy, evaluation)
        return Loss({**terms, **entropy}, {**metrics, "kl": kl, "clipped": share}, stop_epochs=stop)

    def _squared_errors(self, batch: Batch, evaluation: Evaluation) -> Tensor:
        assert evaluation.values is not None
        errors = functional.mse_loss(evaluation.values, batch.value_targets, reduction="none")
        if self.value_clip is None:
            return errors
        assert batch.values is not None
        moved = (evaluation.values - batch.values).clamp(-self.value_clip, self.value_clip)
        return torch.maximum(errors, (batch.values + moved - batch.value_targets).square())


ActorCritic, Ppo = ActorCriticLoss, PPO  # their names before


@hookimpl
def losses() -> dict[str, Any]:
    """Offer the losses."""
    return {"actor_critic": ActorCriticLoss, "ppo": PPO}
