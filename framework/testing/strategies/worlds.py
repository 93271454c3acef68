"""Tabular worlds."""

import math

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from ...contracts import TabularMDP


@st.composite
def mdps(
    draw: DrawFn,
    states: tuple[int, int] = (2, 4),
    actions: tuple[int, int] = (1, 3),
    limits: tuple[int, int] | None = (1, 4),
    aliased: bool = False,
) -> TabularMDP:
    """Small random tables: probabilities are ratios of small integers, rewards are multiples of 1/2 up to 2 in size.

    The last state is terminal. With `aliased`, the state before it may be terminal, too, and several states may have
    the same observation. The time limit is within `limits`; None: there is no limit, and every action may lead to the
    terminal state, so that episodes end under any policy.
    """
    count, options = draw(st.integers(*states)), draw(st.integers(*actions))
    weights = _whole_numbers(draw, 0, 3, count, options, count)
    if limits is None:
        weights[..., -1] += 1
    weights[..., -1] += weights.sum(-1) == 0
    start = _whole_numbers(draw, 0, 2, count)
    start[-1] = 0
    start[0] += start.sum() == 0
    terminal = torch.zeros(count, dtype=torch.bool)
    terminal[-1] = True
    observations = None
    if aliased:
        terminal[-2] = count > 2 and draw(st.booleans())
        start[-2] = start[-2].masked_fill(terminal[-2], 0)
        start[0] += start.sum() == 0
        if draw(st.booleans()):
            _, observations = torch.unique(_whole_numbers(draw, 0, count - 1, count), return_inverse=True)
    return TabularMDP(
        transitions=weights / weights.sum(-1, keepdim=True),
        rewards=_whole_numbers(draw, -4, 4, count, options, count) / 2,
        start=start / start.sum(),
        terminal=terminal,
        time_limit=None if limits is None else draw(st.integers(*limits)),
        observations=observations,
    )


def _whole_numbers(draw: DrawFn, low: int, high: int, *shape: int) -> Tensor:
    """Integers in float64."""
    count = math.prod(shape)
    return torch.tensor(draw(st.lists(st.integers(low, high), min_size=count, max_size=count))).reshape(shape).double()
