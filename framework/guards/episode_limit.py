"""A look at whole episodes now and then while they are collected: how far they are, and whether one never ends.

Steps are not counted for it. The rows that are kept say when each lane's episode began, and they are read in the row
where the oldest one would be too long; progress is reported about four times a second.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from attrs import frozen

from ..contracts import Array
from ..errors import PartError
from ..parts import Part

OnProgress = Callable[[int, int], object]  # is called with steps, and how many episodes ended; 0: none has

MOST = 100_000  # steps of an episode, by default
NEVER = sys.maxsize
FIRST = 1  # row after which progress is first reported; in a slow environment a row may take a second
EVERY = 0.25  # seconds from then on
TIME_LIMITS = ("max_episode_steps", "max_steps")  # what environments call the setting


@frozen
class EpisodeLimit:
    """How many steps an episode may take."""

    steps: int = MOST
    remedy: str = "give the environment a time limit, or raise max_episode_steps"

    @classmethod
    def of_rollouts(cls, steps: int, environment: Part) -> "EpisodeLimit":
        """For training, with the settings that help."""
        names = attrs.fields_dict(type(environment.settings))
        known = [f"set environment.{name}" for name in TIME_LIMITS if name in names]
        limit = known[0] if known else "give the environment a time limit"
        return cls(steps, f"{limit}, collect rollout.fixed_steps, or raise rollout.max_episode_steps")

    def error(self, label: str, lane: int) -> PartError:
        """The error of an episode that does not end."""
        return PartError(f"{label}: lane {lane}: an episode has not ended after {self.steps:,} steps: {self.remedy}")


class EpisodeWatch:
    """Of one rollout; `due` is the row behind which `look` is called next."""

    def __init__(self, label: str, episode_limit: EpisodeLimit | None, on_progress: OnProgress | None) -> None:
        self.label, self.episode_limit, self.on_progress = label, episode_limit, on_progress
        self._late = NEVER if episode_limit is None else episode_limit.steps
        self._next = NEVER if on_progress is None else FIRST
        self._row, self._seconds = 0, time.perf_counter()
        self.due = min(self._late, self._next)

    def look(self, t: int, taken: int, ended: int, rows: dict[str, Any], alive: Array) -> None:
        """After `t` rows [t, N] and `taken` steps, `ended` episodes of which ended; `alive` [N] lanes go on.

        Raises:
            PartError: an episode has taken as many steps as it may.
        """
        if self.on_progress is not None and t >= self._next:
            self.on_progress(taken, ended)
            now = time.perf_counter()
            pace = (t - self._row) / max(now - self._seconds, 1e-9)
            self._row, self._seconds = t, now
            self._next = t + min(max(1, int(pace * EVERY)), 4 * t)
        if self.episode_limit is not None and t >= self._late:
            ages = np.where(alive, _ages(t, rows), 0)
            oldest = int(ages.argmax())
            if ages[oldest] >= self.episode_limit.steps:
                raise self.episode_limit.error(self.label, oldest)
            self._late = t + self.episode_limit.steps - int(ages[oldest])
        self.due = min(self._late, self._next)


def _ages(t: int, rows: dict[str, Any]) -> Array:
    """The real steps [N] of each lane's unfinished episode."""
    terminated, truncated = (_on_host(rows[name][:t]) for name in ("terminated", "truncated"))
    ended = terminated | truncated
    real = _on_host(rows["valid"][:t]) if "valid" in rows else np.ones_like(ended)
    ended &= real
    begun = np.where(ended.any(0), t - ended[::-1].argmax(0), 0)
    counts = np.concatenate([np.zeros((1, ended.shape[1]), np.int64), real.cumsum(0)])
    ages: Array = counts[-1] - np.take_along_axis(counts, begun[None], 0)[0]
    return ages


def _on_host(column: Any) -> Array:
    return column if isinstance(column, np.ndarray) else np.asarray(column.cpu())
