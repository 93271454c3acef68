"""Checks of what Gymnasium's own vectorised environments return, for all lanes at once; `guard` checks single lanes."""

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from .infos import INFO_KEY, Array, MisuseError, as_mask, describe, first_overflow, mask_problem, mask_size


def check_observations(observations: Any, buffer: Array, space: spaces.Space[Any]) -> Array:
    """Observations as an array that fits the buffer `[N, *O]`: of its shape, and with numbers of their space.

    Raises:
        MisuseError: they do not fit.
    """
    if (
        type(observations) is np.ndarray and observations.dtype == buffer.dtype and observations.shape == buffer.shape
    ):  # the usual case first: this runs every step
        return observations
    array = _as_array(observations)
    if array.shape != buffer.shape or array.dtype.kind not in "biuf":
        raise MisuseError(f"observations: expected numbers of shape {list(buffer.shape)}, got {describe(observations)}")
    is_converted = space.dtype is not None and space.dtype.kind != "f" and array.dtype != space.dtype
    if is_converted and not np.array_equal(array.astype(space.dtype), array):
        raise MisuseError(f"observations: {array.dtype} with numbers that the space's dtype {space.dtype} cannot hold")
    return array


def copy_into(
    buffer: Array, observations: Array, casting: Literal["same_kind", "unsafe"] = "same_kind", first: int = 0
) -> None:
    """Copy observations of the lanes from `first` on into the buffer that policies see.

    Raises:
        MisuseError: a number is finite in float64, and float32 cannot hold it.
    """
    if observations.dtype == buffer.dtype:
        np.copyto(buffer, observations)
        return
    with np.errstate(over="raise"):
        try:
            np.copyto(buffer, observations, casting=casting)
        except FloatingPointError:
            number = first_overflow(observations, buffer.dtype)
            lane = first + int((observations == number).nonzero()[0][0])
            raise MisuseError(
                f"lane {lane}: observation: {number:g} is beyond float32, in which policies compute"
            ) from None


def check_column(name: str, values: Any, count: int) -> Array:
    """Rewards or flags `[N]`; `[N, 1]` is accepted."""
    if type(values) is np.ndarray and values.shape == (count,) and values.dtype.kind in "biuf":
        return values
    array = _as_array(values)
    if array.size != count or array.dtype.kind not in "biuf":
        raise MisuseError(f"{name}: expected {count} numbers, one per lane, got {describe(values)}")
    return array.reshape(count)


def presence_key(name: str) -> str:
    """The key of Gymnasium's flags `[N]` that say which lanes have the entry `name`.

    >>> presence_key("episode.r")
    'episode._r'
    """
    path, dot, last = name.rpartition(".")
    return f"{path}{dot}_{last}"


def read_masks(info: Any, lanes: int, count: int) -> Array | None:
    """The masks in `info`, `[N, actions]`; None: there are none."""
    entries = info.get("action_mask")
    if isinstance(entries, np.ndarray) and entries.dtype == object:  # one entry per lane; None: it has no mask
        rows = np.ones((lanes, count), bool)
        for lane, entry in enumerate(entries):
            if entry is not None:
                mask = as_mask(entry, count)
                if mask is None:
                    return None
                rows[lane] = mask
        return rows
    masks = None if entries is None else as_mask(entries, lanes * count)
    return None if masks is None else masks.reshape(lanes, count)


def unused_mask_reason(info: Any, guarded: bool, lanes: int, space: spaces.Space[Any]) -> str | None:
    """Why the entries of `info` are not masks; empty: they are masks. None: there are no entries."""
    if guarded:
        masks = [entry[1] for entry in info.get(INFO_KEY, ()) if entry is not None and entry[1] is not None]
        return next((reason for reason in masks if isinstance(reason, str)), "") if masks else None
    entries, count = info.get("action_mask"), mask_size(space)
    if entries is None or count is None:
        return None
    return mask_problem(entries, lanes * count, space) if read_masks(info, lanes, count) is None else ""


def _as_array(values: Any) -> Array:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
