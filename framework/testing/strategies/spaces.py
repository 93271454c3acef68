"""Spaces, and elements of them."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from .numbers import digits, quarters


def spaces() -> "SearchStrategy[Space[Any]]":
    """Observation spaces: Discrete, Box (of several shapes and bounds), MultiDiscrete, MultiBinary."""
    firsts = st.sampled_from([0, 0, 2])
    discrete = st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), firsts)
    shapes = st.sampled_from([(1,), (3,), (), (2, 2)])
    bounds = st.sampled_from([(-1.0, 1.0), (-np.inf, np.inf), (0.0, np.inf)])
    box = st.builds(
        lambda shape, ends: Box(np.float32(ends[0]), np.float32(ends[1]), shape, np.float32), shapes, bounds
    )
    pictures = st.just(Box(0, 255, (2, 3), np.uint8))
    counts = st.lists(st.integers(1, 3), min_size=1, max_size=3)
    several = st.builds(lambda nvec, start: MultiDiscrete(nvec, start=[start] * len(nvec)), counts, firsts)
    flags: Any = st.integers(1, 3).map(MultiBinary)
    return st.one_of(discrete, box, pictures, several, flags)


def action_spaces() -> "SearchStrategy[Space[Any]]":
    """Action spaces: Discrete, a bounded Box, MultiDiscrete."""
    discrete = st.integers(1, 4).map(Discrete)
    box = st.integers(1, 3).map(lambda size: Box(np.float32(-1), np.float32(2), (size,), np.float32))
    several = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(MultiDiscrete)
    return st.one_of(discrete, box, several)


@st.composite
def elements(draw: DrawFn, space: "Space[Any]", *leading: int) -> Tensor:
    """Elements of a space, `[*leading, *shape]`, in the dtype that the runner uses; edges included."""
    shape = (*leading, *(space.shape or ()))
    count = int(np.prod(shape, dtype=int))
    if isinstance(space, Box):
        return _of_box(space, draw(quarters(count)), shape)
    if isinstance(space, Discrete):
        most, first = np.full(count, int(space.n)), np.full(count, int(space.start))
    elif isinstance(space, MultiDiscrete):
        most, first = (np.broadcast_to(each, shape).reshape(-1) for each in (space.nvec, space.start))
    elif isinstance(space, MultiBinary):
        most, first = np.full(count, 2), np.full(count, 0)
    else:
        raise NotImplementedError(f"elements of {space}: draw them by its own `sample`")
    limit = int(most.max(initial=1)) - 1
    numbers = draw(digits(count, limit + 1))
    whole = first + np.minimum(np.array(numbers, dtype=np.int64), most - 1)  # `shape` may hold spaces of one element
    return torch.from_numpy(whole.reshape(shape).astype(space.dtype))


def _of_box(space: Box, numbers: list[float], shape: tuple[int, ...]) -> Tensor:
    """Numbers from −2 to 2, mapped to each bounded interval from end to end; not mapped where it is unbounded."""
    place = (np.array(numbers, dtype=np.float64).reshape(shape) + 2) / 4  # 0 to 1
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(invalid="ignore"):
        inside = low + place * (high - low)
    above, below = low + 4 * place, high - 4 * place
    closed, bounded_below, bounded_above = np.isfinite(high - low), np.isfinite(low), np.isfinite(high)
    chosen = np.where(closed, inside, np.where(bounded_below, above, np.where(bounded_above, below, 4 * place - 2)))
    return torch.from_numpy(chosen.astype(space.dtype))
