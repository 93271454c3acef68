"""The dynamics of an environment, written once for Python's floats, numpy's arrays and torch's tensors."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from gymnasium.spaces import Box, Space

State = Sequence[Any]  # V variables, each a float or, for all lanes, a float64 array [N]


@frozen
class Arithmetic:
    """The functions that the equations use besides operators."""

    sin: Callable[[Any], Any]
    cos: Callable[[Any], Any]
    clip: Callable[[Any, float, float], Any]  # a number, the lowest, the highest
    wrap: Callable[[Any], Any]  # an angle (rad) to within ±π


def _arrays(module: Any) -> Arithmetic:
    return Arithmetic(
        module.sin,
        module.cos,
        lambda numbers, lowest, highest: numbers.clip(lowest, highest),
        lambda angles: angles - math.tau * (angles / math.tau).round(),
    )


NUMPY, TORCH = _arrays(np), _arrays(torch)
FLOATS = Arithmetic(
    math.sin,
    math.cos,
    # `min` and `max` take three times as long; NaN stays NaN, as in arrays
    lambda number, lowest, highest: lowest if number < lowest else highest if number > highest else number,
    lambda angle: math.remainder(angle, math.tau),
)


@frozen(eq=False)
class Dynamics:
    """Spaces, first states, and two functions that take the arithmetic first and do not change their arguments."""

    observation_space: Box
    action_space: Space[Any]  # of one number
    starts: tuple[tuple[float, float], ...]  # V pairs: the range of each variable's first value
    advance: Callable[[Arithmetic, State, Any], tuple[State, Any, Any]]  # by an action: state, reward, terminated
    observe: Callable[[Arithmetic, State], State]  # the observation of a state
    action_names: tuple[str, ...] | None = None

    def begin(self, drawn: Any) -> list[Any]:
        """A first state, from V random numbers of [0, 1)."""
        return [
            lowest + (highest - lowest) * share for (lowest, highest), share in zip(self.starts, drawn, strict=True)
        ]
