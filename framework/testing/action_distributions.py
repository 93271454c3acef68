"""The distribution of actions in one observation: every action of a finite space, or a grid over a density."""

from collections.abc import Iterator

import numpy as np
import torch
from attrs import frozen
from gymnasium.spaces import Box
from torch import Tensor

from ..contracts import Evaluation
from .policy_harness import BuiltPolicy
from .spaces import choices

NUM_SAMPLES = 512  # samples that locate a density
WIDTH, POINTS = 10, {1: 201, 2: 41}  # of the integration grid: ± standard deviations, and points by dimension
MIN_DERIVATIVE = 1e-3  # relative to the largest: where squashing is flatter, float32 cannot distinguish actions
SUM_TOLERANCE, DENSITY_TOLERANCE = 1e-5, 0.03  # errors of sums over actions, and of integrals over a grid


def gradients(total: Tensor, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradient with respect to each parameter; None where the total does not depend on it."""
    if not total.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)


@frozen(eq=False)
class ActionDistribution:
    """Actions `[K, *A]` that represent all actions, with weights `[K]`: weighted, their probabilities sum to 1."""

    actions: Tensor
    weights: Tensor  # float64
    evaluation: Evaluation  # [K], with gradient
    unresolved: float = 0.0  # share of samples whose environment actions float32 cannot distinguish
    positions: Tensor | None = None  # [K] first number of each action; None for finite spaces

    @property
    def probabilities(self) -> Tensor:
        """The probability of each action [K], without gradient."""
        return self.evaluation.log_probs.detach().double().exp() * self.weights


def is_enumerable(built: BuiltPolicy) -> bool:
    """Whether all actions can be enumerated or put on a grid: finite spaces, and actions of one or two numbers."""
    if choices(built.case.action_space) is not None:
        return not hasattr(built.policy, "environment_actions")  # otherwise samples are not in this space
    if not isinstance(built.case.action_space, Box):
        return False
    return built.act(built.case.observations[:1]).actions.numel() in POINTS


def action_distribution(
    built: BuiltPolicy, observation: Tensor, masks: Tensor | None = None
) -> ActionDistribution | None:
    """All actions in one observation [*O] as `evaluate` rates them; None where they cannot be enumerated.

    Densities of one or two numbers are evaluated on a grid over ± ten standard deviations around the mean of samples.
    They may be densities of the sampled action or of the environment's action: whichever integral is closer to 1.
    """
    if not is_enumerable(built):
        return None
    all_actions = choices(built.case.action_space)
    if all_actions is not None:
        masks = None if masks is None else masks.expand(len(all_actions), -1)
        evaluation = built.evaluate(observation.expand(len(all_actions), *observation.shape), all_actions, masks)
        return ActionDistribution(all_actions, torch.ones(len(all_actions), dtype=torch.float64), evaluation)
    samples = built.act(observation.expand(NUM_SAMPLES, *observation.shape), 1).actions
    numbers = samples.reshape(NUM_SAMPLES, -1)
    axes = list(_axes(built, numbers.double()))
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    actions = grid.to(samples.dtype).reshape(-1, *samples.shape[1:])
    evaluation = built.evaluate(observation.expand(len(grid), *observation.shape), actions)
    cells = torch.ones(len(grid), dtype=torch.float64)
    for axis in axes:
        cells = cells * (axis[1] - axis[0])
    steps = torch.stack([axis[1] - axis[0] for axis in axes])
    density = evaluation.log_probs.detach().double().exp()
    of_samples = ActionDistribution(actions, cells, evaluation, positions=grid[:, 0])
    if not hasattr(built.policy, "environment_actions"):
        return of_samples
    derivatives = _derivatives(built, grid, samples, steps)
    least = MIN_DERIVATIVE * float(derivatives.max())
    unresolved = float((_derivatives(built, numbers.double(), samples, steps) < least).double().mean())
    of_environment = ActionDistribution(
        actions, cells * torch.where(derivatives < least, 0.0, derivatives), evaluation, unresolved, grid[:, 0]
    )
    errors = [
        abs(float((density * candidate.weights).sum()) + candidate.unresolved - 1)
        for candidate in (of_samples, of_environment)
    ]
    return of_samples if errors[0] <= errors[1] or not np.isfinite(errors[1]) else of_environment


def _axes(built: BuiltPolicy, numbers: Tensor) -> Iterator[Tensor]:
    """Evenly spaced points for each number of an action, over the range of likely values."""
    space = built.case.action_space
    bounded = isinstance(space, Box) and not hasattr(built.policy, "environment_actions")
    count = POINTS[numbers.shape[1]]
    for k, (mean, deviation) in enumerate(zip(numbers.mean(0), numbers.std(0), strict=True)):
        low, high = float(mean - WIDTH * deviation), float(mean + WIDTH * deviation)
        if bounded:
            low = max(low, float(space.low.reshape(-1)[k]))  # type: ignore[attr-defined]
            high = min(high, float(space.high.reshape(-1)[k]))  # type: ignore[attr-defined]
        yield torch.linspace(low, high, count, dtype=torch.float64)


def _derivatives(built: BuiltPolicy, grid: Tensor, like: Tensor, steps: Tensor) -> Tensor:
    """|da/du| `[K]` of the environment's action a by the sampled action u, where each number is mapped by itself."""

    def environment_action(points: Tensor) -> Tensor:
        return (
            built.environment_actions(points.to(like.dtype).reshape(-1, *like.shape[1:]))
            .double()
            .reshape(len(points), -1)
        )

    width = steps.clamp(max=0.1)  # exact to a hundredth for a tanh
    return ((environment_action(grid + width) - environment_action(grid - width)) / (2 * width)).abs().prod(1)
