"""Sampling at few lanes: plain Python follows one episode after the other (0.2 µs a step), then each gets its place."""

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, count, islice, repeat

import numpy as np
import torch

from ..contracts import Array
from .records import Amount, EpisodeTooLongError, LaneState, SampledRows
from .tables import Tables, first_states

CHUNK = 256  # uniform numbers drawn at once for it
STRETCH = 64  # steps that it walks at once


def sample_in_turn(
    tables: Tables, edges: Array, lanes: int, amount: Amount, lane_state: LaneState, generator: torch.Generator
) -> SampledRows:
    """One episode after the other, in plain Python; then each in its place."""
    stream = _Stream(tables, edges, lanes, generator)
    if amount.fixed_steps is None:
        lane_state.episode_return[:] = 0.0
        lasts, where, begins = _assign_lanes(stream, lanes, amount)
        return _lay_out(tables, stream.path, lanes, lasts, where, begins, lane_state)
    steps, clocks = amount.fixed_steps, lane_state.episode_step.copy()
    for lane in range(lanes):
        lane_state.states[lane], lane_state.episode_step[lane] = stream.extend(
            int(lane_state.states[lane]), int(clocks[lane]), steps
        )
    lasts = np.array(sorted({*stream.ends, *range(steps, lanes * steps + 1, steps)}))
    firsts = np.concatenate([[0], lasts[:-1]])
    return _lay_out(tables, stream.path, lanes, lasts, firsts // steps, firsts % steps, lane_state, clocks)


class _Stream:
    """Outcomes one after the other, and where episodes end: each time behind the last step of one."""

    def __init__(self, tables: Tables, edges: Array, lanes: int, generator: torch.Generator) -> None:
        self.rows, self.width, self.limit = edges.tolist(), tables.width, tables.limit
        self.successors = np.where(tables.final, -1, tables.successors).tolist()
        self.noise = chain.from_iterable(_chunks(generator))
        self.starts: Iterator[int] = (
            chain.from_iterable(first_states(tables, lanes, generator).tolist() for _ in repeat(None))
            if tables.first is None
            else repeat(tables.first)
        )
        self.path: list[int] = []
        self.ends: list[int] = []

    def extend(self, state: int, episode_step: int, steps: int) -> tuple[int, int]:
        """Add n steps, from the `episode_step`-th of an episode on; returns state and episode step after them."""
        rows, width, successors, path, limit = self.rows, self.width, self.successors, self.path, self.limit
        began = len(path) - episode_step
        due = -1 if limit is None else began + limit
        for place, uniform in enumerate(islice(self.noise, steps), len(path) + 1):
            outcome = state * width + bisect_right(rows[state], uniform)
            path.append(outcome)
            state = successors[outcome]
            if state < 0 or place == due:
                self.ends.append(place)
                state, began = next(self.starts), place
                due = -1 if limit is None else place + limit
        return state, len(path) - began


def _assign_lanes(stream: _Stream, lanes: int, amount: Amount) -> tuple[Array, Array, Array]:
    """Of each whole episode: where it ends on the stream, its lane, and the row where it begins; each `[E]`.

    What happens in an episode does not depend on its lane, so the n-th of the stream is the n-th to begin, in the lane
    that comes free first. Until none begins any more, no lane has stopped: the steps taken by row t are t for each.
    What the stream has beyond the last episode is forgotten.
    """
    ends = stream.ends
    most, steps = (None, amount.steps or 0) if amount.episodes is None else (amount.episodes, 0)
    free = [(0, lane) for lane in range(lanes if most is None else min(lanes, most))]
    first, place, at_once = 0, (next(stream.starts), 0), len(free)
    where: list[int] = []
    begins: list[int] = []
    for number in count():
        row, lane = free[0]
        if number >= at_once and (lanes * row >= steps if most is None else number >= most):
            break
        while number == len(ends):
            if place[1] >= amount.most:
                raise EpisodeTooLongError(lane)
            place = stream.extend(*place, STRETCH)
        if ends[number] - first > amount.most:
            raise EpisodeTooLongError(lane)
        where.append(lane)
        begins.append(row)
        heapq.heapreplace(free, (row + ends[number] - first, lane))
        first = ends[number]
    return np.array(ends[: len(where)]), np.array(where), np.array(begins)


def _lay_out(
    tables: Tables,
    path: list[int],
    lanes: int,
    lasts: Array,
    where: Array,
    begins: Array,
    lane_state: LaneState,
    clocks: Array | None = None,
) -> SampledRows:
    """The sampled episodes in their lanes and rows; in row 0, a lane's first one continues at its episode step."""
    steps = int(lasts[-1])
    firsts = np.zeros_like(lasts)
    firsts[1:] = lasts[:-1]
    counts = lasts - firsts
    outcomes, place = np.array(path[:steps]), np.arange(steps)
    lengths, since, numbers = counts, -firsts, np.arange(len(lasts))
    episode_return = np.add.reduceat(tables.rewards.take(outcomes), firsts, dtype=np.float64)
    if clocks is not None:
        order = np.lexsort((where, begins))  # in which they began
        numbers[order] = np.arange(len(lasts))
        before = np.where(begins == 0, clocks[where], 0)
        lengths, since = counts + before, before - firsts
        episode_return += np.where(begins == 0, lane_state.episode_return[where], 0.0)
    rows = int((begins + counts).max())
    index = place * lanes + np.repeat((begins - firsts) * lanes + where, counts)
    tables_of = np.zeros((3, rows * lanes), np.int64)
    tables_of[0, index] = outcomes
    tables_of[1, index] = place + np.repeat(since, counts)
    tables_of[2, index] = np.repeat(numbers, counts)
    flags = np.zeros((2, rows * lanes), bool)
    flags[0, index] = True
    final = tables.final.take(outcomes[lasts - 1])
    ended = final if tables.limit is None else final | (lengths == tables.limit)
    if tables.limit is not None:
        flags[1, index[lasts - 1]] = ended & ~final
    if clocks is not None:
        lane_state.episode_return[:] = 0.0
        lane_state.episode_return[where[~ended]] = episode_return[~ended]
        done = order[ended[order]]
        episode_return, lengths = episode_return[done], lengths[done]
    mask, truncated = flags.reshape(2, rows, lanes)
    walked, times, episodes = tables_of.reshape(3, rows, lanes)
    return SampledRows(walked, mask, times, episodes, truncated, episode_return, lengths)


def _chunks(generator: torch.Generator) -> Iterator[list[float]]:
    while True:
        yield torch.rand(CHUNK, generator=generator, dtype=torch.float64).tolist()
