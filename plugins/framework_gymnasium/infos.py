"""What is read from an environment's `info`: numbers for metrics.csv and action masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen
from gymnasium import spaces

Array = np.ndarray[Any, Any]

INFO_KEY = "framework"  # the only key of the `info` that a lane returns; its value: (numbers or None, mask or None)
DEFAULT_METRICS = ("is_success", "success")


class MisuseError(Exception):
    """The environment returned a value that does not follow Gymnasium's interface."""


@frozen
class InfoSettings:
    """Which entries of `info` are read."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    masks: str = "auto"  # auto, info, method or none
    is_explicit: bool = field(init=False)  # the user named the metrics, so a value that is not a number is an error

    @is_explicit.default
    def _default(self) -> bool:
        return self.metrics != DEFAULT_METRICS


def look_up(info: Any, name: str) -> Any:
    """The entry `name`, or the nested one at `a.b` or `a.0`; None: there is none.

    >>> look_up({"episode": {"r": 3.0}, "success": [True, False]}, "episode.r")
    3.0
    """
    if isinstance(info, Mapping):
        if name in info:
            return info[name]
        first, dot, rest = name.partition(".")
        while dot:
            if first in info:
                return look_up(info[first], rest)
            more, dot, rest = rest.partition(".")
            first = f"{first}.{more}"
        return None
    first, dot, rest = name.partition(".")
    if first.isdigit() and isinstance(info, Sequence | np.ndarray) and not isinstance(info, str):
        if int(first) >= len(info):
            return None
        return look_up(info[int(first)], rest) if dot else info[int(first)]
    return None


def as_number(value: Any) -> float | None:
    """`value` as a float: a number of Python, numpy or torch, or an array of one element. None: it is not a number.

    >>> as_number(np.array([True])), as_number(2), as_number([1.0, 2.0]), as_number("3")
    (1.0, 2.0, None, None)
    """
    if isinstance(value, float | int | np.number | np.bool_) and not isinstance(value, complex | np.complexfloating):
        try:
            return float(value)
        except OverflowError:  # an integer too large for a float
            return None
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except Exception:
        return None
    if array.size == 1 and array.dtype.kind in "biuf":
        return float(array.reshape(())[()])
    if array.dtype.kind == "O" and array.ndim == 0 and hasattr(value, "__float__"):  # Decimal, Fraction
        return float(value)
    return None


def read_metric(settings: InfoSettings, name: str, info: Any) -> float | None:
    """The metric `name`; None where `info` does not have it.

    Raises:
        MisuseError: it is not a number, and the user chose the metrics.
    """
    value = look_up(info, name)
    if value is None:
        return None
    number = as_number(value)
    if number is None and settings.is_explicit:
        raise MisuseError(
            f"metric '{name}': expected one number in info, got {describe(value)}: "
            f"name one of several as {name}.KEY or {name}.0"
        )
    return number


def mask_size(space: spaces.Space[Any]) -> int | None:
    """How many entries a mask of these actions has; None: such actions take no masks."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return int(space.nvec.sum())
    return 2 * int(space.n) if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int) else None


def as_mask(value: Any, count: int) -> Array | None:
    """A mask as `count` booleans, those of several components one after the other; None: `value` is not such a mask.

    >>> as_mask([1, 0, 1], 3), as_mask([0.0, -np.inf, 0.0], 3), as_mask([1, 0], 3)
    (array([ True, False,  True]), None, None)
    """
    try:
        if isinstance(value, tuple | list) and value and np.ndim(value[0]):
            value = np.concatenate([np.asarray(part).reshape(-1) for part in value])
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except Exception:
        return None
    if array.size != count or array.dtype.kind not in "biuf":
        return None
    flags = array.reshape(-1).astype(bool)
    return flags if array.dtype == bool or np.array_equal(array.reshape(-1), flags) else None


def mask_problem(value: Any, count: int, space: spaces.Space[Any]) -> str:
    """Why `value` is not a mask, in words."""
    values = ", with other numbers than 0 and 1" if isinstance(value, np.ndarray) and value.size == count else ""
    return f"action mask: expected {count} flags, for {space}, got {describe(value)}{values}"


def first_overflow(numbers: Array, dtype: Any) -> float:
    """The first finite number that the floating-point `dtype` cannot hold."""
    return float(numbers[np.isfinite(numbers) & (np.abs(numbers) > np.finfo(dtype).max)].flat[0])


def describe(value: Any) -> str:
    """A value in a few words, for an error message."""
    shape = getattr(value, "shape", None)
    if shape is not None and tuple(shape):
        return f"{type(value).__name__} of shape {list(shape)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} {text[:37]}…"
