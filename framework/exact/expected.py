"""The exact expected gradient of an estimator, a baseline and a loss: the weighted mean over all possible rollouts.

Rollouts are laid out as the runner does it for a fixed number of whole episodes. The parts are called on each rollout
separately, because they may use all of it; their results are differentiated and averaged in float64.
"""

import math
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ..contracts import Batch, Evaluation, Inputs, Loss, Rollout, TabularMDP
from ..errors import PartError
from ..guards import checks
from ..learning.advantages import compute_advantages
from ..learning.batches import flatten, reduce
from .gradients import gradient
from .policy import evaluate_table, in_float64, trainable_parameters, vector_jacobian_product
from .rollouts import MOST_ROLLOUTS, Episodes
from .trajectories import format_count


def zero_baseline(rollout: Rollout, returns: Tensor) -> Tensor:
    """A baseline of zeros."""
    return torch.zeros_like(returns)


def score_function(batch: Batch, evaluation: Evaluation) -> Loss:
    """−A·log π(a|s), whose gradient is the policy gradient (Williams 1992, doi:10.1007/BF00992696, eq. 4)."""
    return Loss({"policy": evaluation.log_probs * -batch.advantages})


@frozen(eq=False)
class Moments:
    """Mean and variance of a gradient estimate over all rollouts; flat vectors `[P]` of all trainable parameters."""

    mean: Tensor
    variance: Tensor
    rollouts: int  # number of different rollouts


@frozen(eq=False)
class Bias:
    """An expected gradient `got` and the exact gradient of the objective; each `[P]`."""

    exact: Tensor
    got: Tensor

    @property
    def norm(self) -> float:
        """‖E[ĝ] − ∇J‖."""
        return float((self.got - self.exact).norm())

    @property
    def relative(self) -> float:
        """‖E[ĝ] − ∇J‖ / ‖∇J‖; infinite if only ∇J is 0."""
        whole = float(self.exact.norm())
        return self.norm / whole if whole else (math.inf if self.norm else 0.0)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between both; NaN if one of them is 0."""
        lengths = float(self.exact.norm() * self.got.norm())
        return float(self.exact @ self.got) / lengths if lengths else math.nan


def expected_gradient(mdp: TabularMDP, policy: nn.Module, estimator: Any, *parts: Any, **how: Any) -> Tensor:
    """E[ĝ] `[P]`: the mean of `gradient_moments`; see there for the arguments."""
    return gradient_moments(mdp, policy, estimator, *parts, **how).mean


def bias(mdp: TabularMDP, policy: nn.Module, gamma: float, estimator: Any, *parts: Any, **how: Any) -> Bias:
    """The expected gradient and ∇J for this γ, within the world's time limit; arguments as for `gradient_moments`."""
    return Bias(gradient(mdp, policy, gamma), expected_gradient(mdp, policy, estimator, *parts, **how))


def gradient_moments(
    mdp: TabularMDP,
    policy: nn.Module,
    estimator: Any,
    baseline: Any = zero_baseline,
    loss: Any = score_function,
    *,
    episodes: int = 1,
    lanes: int | None = None,
    denominator: str = "per_episode",
    constant: float = 1.0,
    critic: Tensor | None = None,
    groups: bool = False,
) -> Moments:
    """Mean and variance of ĝ = −∇loss, the ascent direction of one update from one rollout.

    Args:
        mdp: a tabular world with a time limit.
        policy: a module; it is copied and used in float64.
        estimator, baseline, loss: settings, or what their `build()` returned (with its state). They are called once per
            rollout, and a call must not change their state.
        episodes: number of episodes per rollout. All tuples of so many trajectories are enumerated, so the number of
            rollouts is the number of trajectories to this power.
        lanes: number of lanes, to which episodes are assigned as in the runner; None: one per episode.
        denominator, constant: as in the configuration of `update`.
        critic: V of each state `[S]`, or of each time step and state `[L + 1, S]`, for `values` and `successor_values`;
            None: the policy's own `values`, if a part needs them.
        groups: all episodes of a rollout start in the same state, which is drawn once.

    Raises:
        ValueError: there is no time limit; there are too many rollouts (the message says how many); an episode may
            start in a terminal state; or a part needs values and there are none.
        PartError: a part breaks its contract.

    A loss depends on the parameters only through the evaluation of each step (log π(a|o), entropies and values), whose
    entries come from a small table. So each rollout is differentiated with respect to the table, and the table with
    respect to the parameters.
    """
    built_parts = [_built_part(part) for part in (estimator, baseline, loss)]
    needs = {word for part in (estimator, baseline, loss) for word in getattr(part, "needs", ())}
    policy_copy = in_float64(policy)
    policy_table = PolicyTable.of(mdp, policy_copy, "entropies" in needs)
    if critic is None and "values" in needs:
        critic = _own_critic(mdp, policy_copy)
    all_episodes = Episodes.of(mdp, policy_table.log_probs.detach(), critic)
    count = len(all_episodes.lengths) ** episodes
    if count > MOST_ROLLOUTS:
        raise ValueError(
            f"{format_count(count)} rollouts of {episodes} of {len(all_episodes.lengths):,} episodes each, and at most "
            f"{MOST_ROLLOUTS:,} are enumerated: take fewer episodes, or a shorter time limit"
        )
    table_gradients, probabilities = [], []
    for chance, rollout in all_episodes.rollouts(episodes, lanes or episodes, groups):
        batch = flatten(rollout, compute_advantages(rollout, built_parts[0], built_parts[1]))
        table_gradients.append(policy_table.gradients(batch, built_parts[2], denominator, constant))
        probabilities.append(chance)
    gradients = policy_table.to_parameters(torch.stack(table_gradients), policy_copy)
    weights = torch.tensor(probabilities, dtype=torch.float64, device=gradients.device)
    mean = weights @ gradients
    return Moments(mean, weights @ (gradients - mean).square(), len(table_gradients))


def _built_part(part: Any) -> Any:
    return part.build() if hasattr(part, "build") else part


def _own_critic(mdp: TabularMDP, policy: Any) -> Tensor:
    if not hasattr(policy, "values"):
        raise ValueError("a part needs values, and the policy has none: pass a critic")
    seen = mdp.seen
    with torch.no_grad():
        return policy.values(Inputs(torch.arange(int(seen.max()) + 1, device=seen.device)))[seen]  # type: ignore[no-any-return]


@frozen(eq=False)
class PolicyTable:
    """A policy's evaluation of every observation and action, with gradient: the inputs of a loss."""

    actions: int
    log_probs: Tensor  # [O·A]
    entropies: Tensor | None  # [O·A], the same for all actions
    values: Tensor | None  # [O·A], the same for all actions

    @classmethod
    def of(cls, mdp: TabularMDP, policy: nn.Module, entropies: bool) -> "PolicyTable":
        """The table of a policy for all pairs of observation and action."""
        evaluation = evaluate_table(mdp, policy, entropies)
        return cls(mdp.transitions.shape[1], evaluation.log_probs, evaluation.entropies, evaluation.values)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The columns that are not None."""
        columns = {"log_probs": self.log_probs, "entropies": self.entropies, "values": self.values}
        return {name: column for name, column in columns.items() if column is not None}

    def gradients(self, batch: Batch, loss: Any, denominator: str, constant: float) -> Tensor:
        """−∂loss/∂ each entry of the table, `[columns · O·A]`; 0 if the loss asks to stop the epochs."""
        index = batch.observations * self.actions + batch.actions
        leaves = {name: column.detach()[index].requires_grad_() for name, column in self.columns.items()}
        result: Loss = loss(batch, Evaluation(**leaves))
        checks.loss("the loss", result, index.shape)
        reduced = reduce(result, batch, denominator, constant)
        total = torch.stack(list(reduced.values())).sum()
        if not total.requires_grad:
            raise PartError("the loss: its terms carry no gradient (was a graph cut by detach or torch.tensor?)")
        size = len(self.log_probs)
        gradients = torch.zeros(len(leaves) * size, dtype=torch.float64, device=index.device)
        if result.stop_epochs:
            return gradients
        table_gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for number, part in enumerate(table_gradients):
            if part is not None:
                gradients.index_add_(0, index + number * size, part.double(), alpha=-1)
        return gradients

    def to_parameters(self, gradients: Tensor, policy: nn.Module) -> Tensor:
        """Gradients with respect to parameters `[K, P]`, from those with respect to the table `[K, columns · O·A]`."""
        parameters = list(trainable_parameters(policy).values())
        table = torch.cat(list(self.columns.values()))
        parameter_gradients = torch.zeros(
            len(gradients), sum(parameter.numel() for parameter in parameters), dtype=torch.float64
        )
        parameter_gradients = parameter_gradients.to(gradients.device)
        for index in gradients.any(0).nonzero().flatten().tolist():
            if not table.requires_grad:
                break
            parameter_gradients.addr_(gradients[:, index], vector_jacobian_product(table[index], parameters))
        return parameter_gradients
