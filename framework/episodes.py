"""Where episodes end and begin while lanes are stepped, and what follows from that for a whole rollout."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import define, field, frozen
from torch import Tensor

Array = np.ndarray[Any, Any]
NONE = np.zeros(0, np.int64)


@frozen(eq=False)
class Finished:
    """The episodes that ended in a rollout, as the environment scored them."""

    returns: Array  # [E] undiscounted
    lengths: Array  # [E] steps
    metrics: dict[str, Array] = field(factory=dict)  # each [E]; NaN: not given

    @property
    def told(self) -> dict[str, float]:
        """The mean of each metric, over the episodes of which it was given; no others."""
        known = {name: numbers[~np.isnan(numbers)] for name, numbers in self.metrics.items()}
        return {name: float(numbers.mean()) for name, numbers in known.items() if len(numbers)}

    @classmethod
    def none(cls) -> "Finished":
        """No episode."""
        return cls(np.zeros(0), NONE)

    @classmethod
    def together(cls, parts: "Sequence[Finished]") -> "Finished":
        """The episodes of all parts, one after the other."""
        names = dict.fromkeys(name for part in parts for name in part.metrics)
        return cls(
            np.concatenate([part.returns for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            {name: np.concatenate([part.metrics.get(name, part.returns * np.nan) for part in parts]) for name in names},
        )


@frozen(eq=False)
class Ends:
    """Successors of steps where an episode was cut and not ended by the world: what a critic must still value."""

    times: Tensor  # [K]
    lanes: Tensor  # [K]
    observations: Tensor  # [K, *O]
    state: Tensor | None = None  # [K, *H] the policy's memory after those steps

    def only(self, which: Tensor) -> "Ends":
        """Those at `which` [K] bool."""
        state = None if self.state is None else self.state[which]
        return Ends(self.times[which], self.lanes[which], self.observations[which], state)


@frozen(eq=False)
class Turn:
    """A row in which episodes ended: in which lanes, and how many of these, the first ones, begin another."""

    row: int
    lanes: Array  # [K] int64
    going: int
    returns: Array  # [K] float64
    told: dict[str, Array]  # metrics, each [K]


@define(eq=False)
class Turns:
    """What is noted of a rollout while its lanes are stepped; the first `begun` have an episode from the start."""

    begun: int
    turns: list[Turn] = field(factory=list)
    last: list[tuple[int, Array, Array, Tensor, Tensor | None]] = field(factory=list)

    def leave(self, row: int, lanes: Array, final: Array, successors: Tensor, state: Tensor | None) -> None:
        """Keep the last states of `lanes` [K], and the memory after them; `final` [N] bool: the world ended."""
        index = torch.from_numpy(lanes)
        self.last.append((row, lanes, final[lanes], successors[index], None if state is None else state[index]))

    def columns(self, steps: int, clock: Array, valid: Array | None) -> tuple[Array, Array, Array]:
        """Mask, times and episode numbers `[T, N]`; `clock` `[N]`, the steps of each lane's episode, moves on.

        A time is the count of real steps since the lane's last turn; where `mask` is False it means nothing.
        """
        lanes, begun = len(clock), self.begun
        numbers = np.zeros((steps + 1, lanes), np.int64)
        stopped = np.zeros((steps + 1, lanes), bool)
        since = np.full((steps + 1, lanes), np.iinfo(np.int64).min)
        numbers[0], stopped[0, begun:], since[0] = np.arange(lanes), True, -clock
        for turn in self.turns:
            numbers[turn.row + 1, turn.lanes[: turn.going]] = range(begun, begun + turn.going)
            stopped[turn.row + 1, turn.lanes[turn.going :]] = True
            begun += turn.going
        mask = ~np.logical_or.accumulate(stopped)[:steps]
        taken = np.broadcast_to(np.arange(steps + 1)[:, None], since.shape)
        if valid is not None:
            mask &= valid
            taken = np.concatenate([np.zeros_like(since[:1]), np.cumsum(mask, 0)])
        for turn in self.turns:
            since[turn.row + 1, turn.lanes] = taken[turn.row + 1, turn.lanes]
        times = taken - np.maximum.accumulate(since)
        clock[:] = times[-1]
        return mask, times[:-1], np.maximum.accumulate(numbers)[:-1]

    def finished(self, times: Array) -> Finished:
        """The episodes that ended, in the order in which they did; `times` as `columns` has them."""
        parts = [Finished(turn.returns, times[turn.row, turn.lanes] + 1, turn.told) for turn in self.turns]
        return Finished.together([Finished.none(), *parts])

    def ends(self, observations: Tensor) -> tuple[Ends, Tensor]:
        """All that was left, and which of it was cut and not ended by the world `[K]` bool; like `observations`."""
        if not self.last:
            none = torch.zeros(0, dtype=torch.int64, device=observations.device)
            return Ends(none, none, observations[:0]), none.bool()
        rows, lanes, final, successors, states = zip(*self.last, strict=True)
        times = np.repeat(rows, [len(some) for some in lanes])
        columns = (torch.from_numpy(array) for array in (times, np.concatenate(lanes), ~np.concatenate(final)))
        where, which, cut = (column.to(observations.device) for column in columns)
        state = None if states[0] is None else torch.cat(states)
        return Ends(where, which, torch.cat(successors), state), cut
