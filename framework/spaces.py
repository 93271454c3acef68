"""Spaces as JSON, and whether two of them are the same: Gymnasium's spaces cannot be written to a file themselves.

`Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, and `Dict` and `Tuple` of these.
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces import Space

from .errors import UsageError, warn

Spaces = tuple["Space[Any]", "Space[Any]"]  # of observations, of actions
JSON = dict[str, Any]
ATTRIBUTE = "_framework_spaces"  # of a policy that was built here: the spaces it was built for


def to_json(space: "Space[Any]") -> JSON | None:
    """What JSON can hold of a space, exactly; None for a kind that this file does not know."""
    kind = type(space)
    if isinstance(space, spaces.Box) and kind is spaces.Box:
        bounds = {"low": _numbers(space.low), "high": _numbers(space.high)}
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete) and kind is spaces.Discrete:
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiDiscrete) and kind is spaces.MultiDiscrete:
        counts = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        return {"type": "MultiDiscrete", **counts, "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiBinary) and kind is spaces.MultiBinary:
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, spaces.Dict | spaces.Tuple) and kind in (spaces.Dict, spaces.Tuple):
        keys = list(space.spaces) if isinstance(space, spaces.Dict) else [None] * len(space.spaces)
        inner = [to_json(one) for one in (space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces)]
        if None in inner or not all(key is None or isinstance(key, str) for key in keys):
            return None
        return {"type": kind.__name__, "spaces": inner, **({"keys": keys} if kind is spaces.Dict else {})}
    return None


def from_json(written: Any) -> "Space[Any]":
    """The space that `to_json` wrote.

    Raises:
        ValueError: it is nothing that `to_json` writes.
    """
    try:
        kind = written["type"]
        if kind == "Box":
            shape, dtype = tuple(written["shape"]), np.dtype(written["dtype"])
            low, high = (_array(written[bound], shape, dtype) for bound in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
        if kind == "Discrete":
            dtype = np.dtype(written["dtype"])
            unusual: Any = {} if dtype == np.int64 else {"dtype": dtype.type}  # Gymnasium 1.0 knows no other
            return spaces.Discrete(written["n"], start=written["start"], **unusual)
        if kind == "MultiDiscrete":
            dtype = np.dtype(written["dtype"])
            counts, start = (np.array(written[key], dtype) for key in ("nvec", "start"))
            return spaces.MultiDiscrete(counts, dtype.type, start=start)
        if kind == "MultiBinary":
            return spaces.MultiBinary(written["n"])
        if kind == "Dict":
            inner = [from_json(one) for one in written["spaces"]]
            return spaces.Dict(list(zip(written["keys"], inner, strict=True)))
        if kind == "Tuple":
            return spaces.Tuple([from_json(one) for one in written["spaces"]])
    except (KeyError, TypeError, AttributeError, AssertionError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    raise ValueError(f"no space of type {kind!r}")


def _numbers(array: Any) -> Any:
    """A bound as JSON has it: one number where all are equal; infinities, which JSON has not, as words."""
    if array.size and (array == array.flat[0]).all():
        array = array.flat[0]
    return _worded(array.tolist())


def _worded(value: Any) -> Any:
    if isinstance(value, list):
        return [_worded(entry) for entry in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _array(value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    def number(entry: Any) -> Any:
        if isinstance(entry, list):
            return [number(one) for one in entry]
        return float(entry) if isinstance(entry, str) else entry

    return np.broadcast_to(np.array(number(value), dtype), shape).copy()


def fits(trained: "Space[Any]", met: "Space[Any]") -> bool:
    """Whether a policy built for one space can be used with the other: the same kind, shape and dtype.

    The bounds of a Box may differ.
    """
    if isinstance(trained, spaces.Box) and isinstance(met, spaces.Box):
        return trained.shape == met.shape and trained.dtype == met.dtype
    if isinstance(trained, spaces.Dict) and isinstance(met, spaces.Dict):
        same = list(trained.spaces) == list(met.spaces)
        return same and all(fits(one, met.spaces[key]) for key, one in trained.spaces.items())
    if isinstance(trained, spaces.Tuple) and isinstance(met, spaces.Tuple):
        same = len(trained.spaces) == len(met.spaces)
        return same and all(fits(one, other) for one, other in zip(trained.spaces, met.spaces, strict=True))
    return bool(trained == met)


def compare(trained: Spaces, environment: Any, policy: str, label: str) -> None:
    """Whether a policy can play in this environment; warns where only the bounds of a Box differ.

    Args:
        trained: the spaces of observations and of actions that the policy was built for.
        environment: a working one.
        policy: how to call the policy.
        label: how to call the environment.

    Raises:
        UsageError: it cannot; names both spaces.
    """
    met = environment.observation_space, environment.action_space
    for what, one, other in zip(("observations", "actions"), trained, met, strict=True):
        if not fits(one, other):
            raise UsageError(
                f"{policy} was trained on {what} {one}, and {label} has {what} {other}: "
                "choose the environment and settings that it was trained with"
            )
        if one != other:
            warn(f"{policy} was trained on {what} {one}, and {label} has {what} {other}: other bounds")
