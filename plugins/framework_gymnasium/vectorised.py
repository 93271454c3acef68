"""What Gymnasium's own vectorised environments return, checked for all lanes at once as `guard` does for each."""

from typing import Any

import numpy as np
from gymnasium import spaces

from .infos import Array, MisuseError, mask, short


def taken(given: Any, buffer: Array, space: spaces.Space[Any]) -> Array:
    """Observations as they fit the buffer `[N, *O]`: of its shape, and numbers of their space.

    Raises:
        MisuseError: they do not fit.
    """
    array = _array(given)
    if array.shape != buffer.shape or array.dtype.kind not in "biuf":
        raise MisuseError(f"observations: expected numbers of shape {list(buffer.shape)}, got {short(given)}")
    whole = space.dtype is not None and space.dtype.kind != "f" and array.dtype != space.dtype
    if whole and not np.array_equal(array.astype(space.dtype), array):
        raise MisuseError(f"observations: {array.dtype} with numbers that are no {space.dtype}, which the space has")
    return array


def one_a_lane(name: str, given: Any, count: int) -> Array:
    """Rewards or flags `[N]`; `[N, 1]` is accepted."""
    array = _array(given)
    if array.size != count or array.dtype.kind not in "biuf":
        raise MisuseError(f"{name}: expected {count} numbers, one a lane, got {short(given)}")
    return array.reshape(count)


def masked(name: str) -> str:
    """The entry that tells which lanes have an entry.

    >>> masked("episode.r")
    'episode._r'
    """
    path, dot, last = name.rpartition(".")
    return f"{path}{dot}_{last}"


def rows_of_masks(info: Any, lanes: int, count: int) -> Array | None:
    """The masks in `info`, `[N, actions]`; None: there are none."""
    given = info.get("action_mask")
    if isinstance(given, np.ndarray) and given.dtype == object:  # one entry a lane, None where it says nothing
        rows = np.ones((lanes, count), bool)
        for lane, entry in enumerate(given):
            if entry is not None:
                found = mask(entry, count)
                if found is None:
                    return None
                rows[lane] = found
        return rows
    found = None if given is None else mask(given, lanes * count)
    return None if found is None else found.reshape(lanes, count)


def _array(given: Any) -> Array:
    return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
