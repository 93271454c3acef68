"""What a world is: the equations of one step, written once for Python's floats, numpy's arrays and torch's tensors."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from gymnasium.spaces import Box, Space

State = Sequence[Any]  # V variables: a float each or, of all lanes, a float64 array [N] each


@frozen
class Arithmetic:
    """What the equations need beside operators."""

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
    # `min` and `max` take thrice the time; NaN stays NaN, as in arrays
    lambda number, lowest, highest: lowest if number < lowest else highest if number > highest else number,
    lambda angle: math.remainder(angle, math.tau),
)


@frozen(eq=False)
class World:
    """The two functions take the arithmetic first; they do not change what they are handed."""

    observation_space: Box
    action_space: Space[Any]  # of one number
    starts: tuple[tuple[float, float], ...]  # V times the lowest and the highest first value
    advance: Callable[[Arithmetic, State, Any], tuple[State, Any, Any]]  # by an action: state, reward, is it over?
    observe: Callable[[Arithmetic, State], State]  # what is seen of a state
    action_names: tuple[str, ...] | None = None

    def begin(self, drawn: Any) -> list[Any]:
        """A first state, of V numbers drawn from [0, 1)."""
        return [
            lowest + (highest - lowest) * share for (lowest, highest), share in zip(self.starts, drawn, strict=True)
        ]
