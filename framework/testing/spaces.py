"""Small spaces that policies are checked on: random elements, elements at the edges, all elements of finite spaces."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor

INFINITE = np.inf
OBSERVED: tuple["Space[Any]", ...] = (
    Discrete(3),
    Box(-1.0, 1.0, (2,)),
    Discrete(4, start=-1),
    Box(-INFINITE, INFINITE, (3,)),
    Box(0, 255, (2, 3), np.uint8),
    Box(-2.0, 3.0, (2, 2), np.float64),
    MultiDiscrete([2, 3]),
    MultiBinary(2),
    Box(0, 255, (36, 36, 3), np.uint8),  # an image, large enough for the usual three convolutions
)
ACTED: tuple["Space[Any]", ...] = (
    Discrete(3),
    Box(-1.0, 1.0, (1,)),
    MultiDiscrete([2, 3]),
    Discrete(2, start=1),
    Box(-1.0, 3.0, (2,)),
    MultiDiscrete([3, 2], start=[1, -1]),
    MultiBinary(2),
    Box(-INFINITE, INFINITE, (1,)),
    Box(-2.0, 0.5, (1, 2)),
)
WIDE = 64  # numbers of an observation; wider ones are seeded, sampled less often, and printed as a mean
MOST_CHOICES = 4096  # a space with more actions is not enumerated
FAR = 1000.0  # stands for the edge where a space has no bound


def spread(space: "Space[Any]", count: int, seed: int = 0) -> Tensor:
    """Random elements of a space [count, *O]."""
    random = np.random.default_rng(seed)
    shape = (count, *(space.shape or ()))
    array: Any
    if isinstance(space, Discrete):
        array = int(space.start) + random.integers(int(space.n), size=shape)
    elif isinstance(space, Box) and np.isfinite(space.low).all():
        array = space.low + random.random(shape) * (space.high - space.low)
    elif isinstance(space, MultiDiscrete | MultiBinary):
        first, counts = _numbers(space)
        array = first + random.integers(counts, size=shape)
    else:
        array = random.standard_normal(shape)
    return torch.from_numpy(array.astype(space.dtype))


def edges(space: "Space[Any]") -> Tensor:
    """The elements at the edges of a space: all of a Discrete one; of others both corners, or far out if unbounded."""
    if isinstance(space, Discrete):
        return torch.arange(int(space.start), int(space.start) + int(space.n))
    if isinstance(space, MultiDiscrete | MultiBinary):
        first, counts = _numbers(space)
        return torch.from_numpy(np.stack([first, first + counts - 1]).astype(space.dtype))
    assert isinstance(space, Box)
    corners = np.stack([space.low, space.high])
    return torch.from_numpy(np.where(np.isfinite(corners), corners, np.sign(corners) * FAR).astype(space.dtype))


def _numbers(space: Any) -> tuple[Any, Any]:
    """The smallest number in each entry of a MultiDiscrete or MultiBinary space, and how many there are `[*shape]`."""
    if isinstance(space, MultiBinary):
        return np.zeros(space.shape, np.int64), np.full(space.shape, 2)
    return np.asarray(space.start), np.asarray(space.nvec)


def choices(space: "Space[Any]") -> Tensor | None:
    """All actions of a finite space `[K, *A]`; None if the space is not finite, or very large."""
    if isinstance(space, Discrete):
        return torch.arange(int(space.start), int(space.start) + int(space.n))
    if not isinstance(space, MultiDiscrete | MultiBinary):
        return None
    first, counts = (part.reshape(-1) for part in _numbers(space))
    if math.prod(counts.tolist()) > MOST_CHOICES:
        return None
    numbers = itertools.product(*(range(int(f), int(f + n)) for f, n in zip(first, counts, strict=True)))
    return torch.tensor(list(numbers)).reshape(-1, *space.shape)


def spread_actions(space: "Space[Any]", count: int) -> Tensor:
    """The same action several times [count, *A]."""
    all_actions = choices(space)
    action = torch.zeros(space.shape or ()) if all_actions is None else all_actions[0]
    return action.expand(count, *action.shape)
