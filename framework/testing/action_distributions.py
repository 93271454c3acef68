"""All that may come of one observation: every action of a finite space, or a grid over a density."""

from collections.abc import Iterator

import numpy as np
import torch
from attrs import frozen
from gymnasium.spaces import Box
from torch import Tensor

from ..contracts import Evaluation
from .policy_harness import Player
from .spaces import choices

DRAWS = 512  # samples that say where a density lies
WIDTH, POINTS = 10, {1: 201, 2: 41}  # of the grid that it is integrated on: ± deviations, and points by dimension
SLIGHT = 1e-3  # where squashing is so much less steep than at its steepest, float32 no longer tells actions apart
SUMS, DENSITIES = 1e-5, 0.03  # how exact sums over actions, and integrals over a grid, are


def gradients(total: Tensor, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
    """By each parameter; None where it has no part."""
    if not total.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)


@frozen(eq=False)
class Outcomes:
    """Actions `[K, *A]` that stand for all, with weights `[K]` in which their probabilities or densities sum to 1."""

    actions: Tensor
    weights: Tensor  # float64
    said: Evaluation  # [K], with gradient
    missing: float = 0.0  # share of samples where float32 does not tell what the environment gets apart
    places: Tensor | None = None  # [K] of a density, the first number of the action

    @property
    def shares(self) -> Tensor:
        """Probability of each [K], without gradient."""
        return self.said.log_probs.detach().double().exp() * self.weights


def can_be_told(player: Player) -> bool:
    """Whether all that may come of an observation can be: of finite spaces, and of one or two numbers."""
    if choices(player.scene.action_space) is not None:
        return not hasattr(player.policy, "environment_actions")  # else what is sampled is not of this space
    if not isinstance(player.scene.action_space, Box):
        return False
    return player.act(player.scene.observations[:1]).actions.numel() in POINTS


def outcomes(player: Player, observation: Tensor, masks: Tensor | None = None) -> Outcomes | None:
    """All actions in one observation [*O] with what `evaluate` says of them; None where this cannot be told.

    Densities are taken on a grid over ± ten deviations around the mean of some samples, of one or two numbers. They
    may be those of what is sampled, or of what the environment gets: of the two, whose sum is nearer to 1.
    """
    if not can_be_told(player):
        return None
    every = choices(player.scene.action_space)
    if every is not None:
        masks = None if masks is None else masks.expand(len(every), -1)
        said = player.judge(observation.expand(len(every), *observation.shape), every, masks)
        return Outcomes(every, torch.ones(len(every), dtype=torch.float64), said)
    drawn = player.act(observation.expand(DRAWS, *observation.shape), 1).actions
    numbers = drawn.reshape(DRAWS, -1)
    axes = list(_axes(player, numbers.double()))
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    actions = grid.to(drawn.dtype).reshape(-1, *drawn.shape[1:])
    said = player.judge(observation.expand(len(grid), *observation.shape), actions)
    cells = torch.ones(len(grid), dtype=torch.float64)
    for axis in axes:
        cells = cells * (axis[1] - axis[0])
    steps = torch.stack([axis[1] - axis[0] for axis in axes])
    density = said.log_probs.detach().double().exp()
    sampled = Outcomes(actions, cells, said, places=grid[:, 0])
    if not hasattr(player.policy, "environment_actions"):
        return sampled
    gradients = _steepness(player, grid, drawn, steps)
    least = SLIGHT * float(gradients.max())
    missing = float((_steepness(player, numbers.double(), drawn, steps) < least).double().mean())
    got = Outcomes(actions, cells * torch.where(gradients < least, 0.0, gradients), said, missing, grid[:, 0])
    apart = [abs(float((density * one.weights).sum()) + one.missing - 1) for one in (sampled, got)]
    return sampled if apart[0] <= apart[1] or not np.isfinite(apart[1]) else got


def _axes(player: Player, numbers: Tensor) -> Iterator[Tensor]:
    """Evenly spaced points of each number of an action, where it may lie."""
    space = player.scene.action_space
    bounded = isinstance(space, Box) and not hasattr(player.policy, "environment_actions")
    count = POINTS[numbers.shape[1]]
    for k, (mean, deviation) in enumerate(zip(numbers.mean(0), numbers.std(0), strict=True)):
        low, high = float(mean - WIDTH * deviation), float(mean + WIDTH * deviation)
        if bounded:
            low = max(low, float(space.low.reshape(-1)[k]))  # type: ignore[attr-defined]
            high = min(high, float(space.high.reshape(-1)[k]))  # type: ignore[attr-defined]
        yield torch.linspace(low, high, count, dtype=torch.float64)


def _steepness(player: Player, grid: Tensor, like: Tensor, steps: Tensor) -> Tensor:
    """|da/du| of what the environment gets by what was sampled `[K]`, where each number is translated by itself."""

    def got(points: Tensor) -> Tensor:
        return player.translated(points.to(like.dtype).reshape(-1, *like.shape[1:])).double().reshape(len(points), -1)

    width = steps.clamp(max=0.1)  # exact to a hundredth for a tanh
    return ((got(grid + width) - got(grid - width)) / (2 * width)).abs().prod(1)
