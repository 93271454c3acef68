"""What Gymnasium's own vectorised environments return, checked for all lanes at once as `guard` does for each."""

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from .infos import OURS, Array, MisuseError, beyond, choices, mask, no_mask, short


def taken(given: Any, buffer: Array, space: spaces.Space[Any]) -> Array:
    """Observations as they fit the buffer `[N, *O]`: of its shape, and numbers of their space.

    Raises:
        MisuseError: they do not fit.
    """
    if type(given) is np.ndarray and given.dtype == buffer.dtype and given.shape == buffer.shape:
        return given  # at once: this is done every step
    array = _array(given)
    if array.shape != buffer.shape or array.dtype.kind not in "biuf":
        raise MisuseError(f"observations: expected numbers of shape {list(buffer.shape)}, got {short(given)}")
    whole = space.dtype is not None and space.dtype.kind != "f" and array.dtype != space.dtype
    if whole and not np.array_equal(array.astype(space.dtype), array):
        raise MisuseError(f"observations: {array.dtype} with numbers that are no {space.dtype}, which the space has")
    return array


def copy_into(
    buffer: Array, given: Array, casting: Literal["same_kind", "unsafe"] = "same_kind", first: int = 0
) -> None:
    """Copy observations of lanes from `first` on into the buffer that policies see.

    Raises:
        MisuseError: a number is finite in float64, and float32 cannot hold it.
    """
    if given.dtype == buffer.dtype:
        np.copyto(buffer, given)
        return
    with np.errstate(over="raise"):
        try:
            np.copyto(buffer, given, casting=casting)
        except FloatingPointError:
            number = beyond(given, buffer.dtype)
            lane = first + int((given == number).nonzero()[0][0])
            raise MisuseError(
                f"lane {lane}: observation: {number:g} is beyond float32, in which policies compute"
            ) from None


def one_a_lane(name: str, given: Any, count: int) -> Array:
    """Rewards or flags `[N]`; `[N, 1]` is accepted."""
    if type(given) is np.ndarray and given.shape == (count,) and given.dtype.kind in "biuf":
        return given
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


def unused_mask(info: Any, guarded: bool, lanes: int, space: spaces.Space[Any]) -> str | None:
    """Why the masks in `info` are none; empty: they are masks. None: there are no masks in it."""
    if guarded:
        found = [told[1] for told in info.get(OURS, ()) if told is not None and told[1] is not None]
        return next((why for why in found if isinstance(why, str)), "") if found else None
    given, count = info.get("action_mask"), choices(space)
    if given is None or count is None:
        return None
    return no_mask(given, lanes * count, space) if rows_of_masks(info, lanes, count) is None else ""


def _array(given: Any) -> Array:
    return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
