"""What is taken out of an environment's `info`: numbers for metrics.csv and masks of actions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen
from gymnasium import spaces

Array = np.ndarray[Any, Any]

OURS = "framework"  # the only key of the `info` that a lane passes on; its value: (numbers or None, mask or None)
DEFAULT_METRICS = ("is_success", "success")


class MisuseError(Exception):
    """The environment returned something that Gymnasium's interface does not have."""


@frozen
class Wanted:
    """What is read out of `info`."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    masks: str = "auto"  # auto, info, method or none
    by_name: bool = field(init=False)  # the user named the metrics, so that one that is no number is an error

    @by_name.default
    def _named(self) -> bool:
        return self.metrics != DEFAULT_METRICS


def look_up(info: Any, name: str) -> Any:
    """The entry `name`, or the nested one that `a.b` or `a.0` leads to; None: there is none.

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


def number(given: Any) -> float | None:
    """The one number that `given` is: of Python, numpy or torch, or an array of one element. None: it is none.

    >>> number(np.array([True])), number(2), number([1.0, 2.0]), number("3")
    (1.0, 2.0, None, None)
    """
    if isinstance(given, float | int | np.number | np.bool_) and not isinstance(given, complex | np.complexfloating):
        try:
            return float(given)
        except OverflowError:  # a whole number beyond all floats
            return None
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        array = np.asarray(given)
    except Exception:
        return None
    if array.size == 1 and array.dtype.kind in "biuf":
        return float(array.reshape(())[()])
    if array.dtype.kind == "O" and array.ndim == 0 and hasattr(given, "__float__"):  # Decimal, Fraction
        return float(given)
    return None


def metric(wanted: Wanted, name: str, info: Any) -> float | None:
    """The number of that name, None where `info` has none.

    Raises:
        MisuseError: it is no number, and the user asked for it by name.
    """
    given = look_up(info, name)
    if given is None:
        return None
    found = number(given)
    if found is None and wanted.by_name:
        raise MisuseError(
            f"metric '{name}': expected one number in info, got {short(given)}: "
            f"name one of several as {name}.KEY or {name}.0"
        )
    return found


def choices(space: spaces.Space[Any]) -> int | None:
    """How many entries a mask of these actions has; None: such actions take no masks."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return int(space.nvec.sum())
    return 2 * int(space.n) if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int) else None


def mask(given: Any, count: int) -> Array | None:
    """A mask as `count` booleans, those of several components one after the other; None: it is no such mask.

    >>> mask([1, 0, 1], 3), mask([0.0, -np.inf, 0.0], 3), mask([1, 0], 3)
    (array([ True, False,  True]), None, None)
    """
    try:
        if isinstance(given, tuple | list) and given and np.ndim(given[0]):
            given = np.concatenate([np.asarray(part).reshape(-1) for part in given])
        array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except Exception:
        return None
    if array.size != count or array.dtype.kind not in "biuf":
        return None
    flags = array.reshape(-1).astype(bool)
    return flags if array.dtype == bool or np.array_equal(array.reshape(-1), flags) else None


def no_mask(given: Any, count: int, space: spaces.Space[Any]) -> str:
    """What is wrong with it, in words."""
    values = ", with other numbers than 0 and 1" if isinstance(given, np.ndarray) and given.size == count else ""
    return f"action mask: expected {count} flags, for {space}, got {short(given)}{values}"


def beyond(numbers: Array, dtype: Any) -> float:
    """The first finite number that the floating-point `dtype` cannot hold."""
    return float(numbers[np.isfinite(numbers) & (np.abs(numbers) > np.finfo(dtype).max)].flat[0])


def short(given: Any) -> str:
    """What was got, in a few words."""
    shape = getattr(given, "shape", None)
    if shape is not None and tuple(shape):
        return f"{type(given).__name__} of shape {list(shape)}"
    text = repr(given)
    return text if len(text) <= 40 else f"{type(given).__name__} {text[:37]}…"
