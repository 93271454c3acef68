"""Sampling straight from tables, where the actor is a table of probabilities, too.

A step is one look-up, and everything else about it (reward, flags, log-prob) is gathered for the whole rollout at once.
The distribution is that of stepping the environment with the actor; a law in the tests compares the two.

At few lanes, plain Python follows one episode after the other (0.2 µs a step); at many, numpy steps all lanes together.
"""

import functools
import heapq
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, count, islice, repeat

import numpy as np
import torch
from attrs import frozen

from ..guards.episode_limit import MOST
from .tables import Array, Tables, first_states

FEW_LANES = 64  # up to here Python follows lane by lane
CHUNK = 256  # uniform numbers drawn at once for it
STRETCH = 64  # steps that it walks at once
BLOCK = 16  # rows of uniform numbers drawn at once for many lanes


@frozen(eq=False)
class Trajectories:
    """What a shard walked: `[T, N]` outcomes and accounts, and the episodes that ended."""

    outcomes: Array  # int64; 0 in padding
    mask: Array  # bool
    times: Array  # int64
    episodes: Array  # int64
    truncated: Array  # bool
    returns: Array  # [E] of ended episodes
    lengths: Array  # [E]


@frozen(eq=False)
class LaneState:
    """Where the lanes are, between rollouts of fixed steps; written in place."""

    states: Array  # [N] int64
    episode_step: Array  # [N] int64 steps of the unfinished episode
    episode_return: Array  # [N] float64 its return


@frozen(eq=False)
class Amount:
    """What to collect: one of the three."""

    steps: int | None
    episodes: int | None
    fixed_steps: int | None
    rows: int = 64  # time steps that it will about take
    most: int = MOST  # steps of a whole episode


class EpisodeTooLongError(Exception):
    """A whole episode took more steps than it may."""

    def __init__(self, lane: int) -> None:
        super().__init__(lane)
        self.lane = lane


def sample(
    tables: Tables, log_probs: Array, lanes: int, amount: Amount, lane_state: LaneState, generator: torch.Generator
) -> Trajectories:
    """Sample whole episodes, or fixed steps from where `lane_state` stands."""
    edges = tables.edges(log_probs)
    return (_sample_in_turn if lanes <= FEW_LANES else _sample_together)(
        tables, edges, lanes, amount, lane_state, generator
    )


def _sample_in_turn(
    tables: Tables, edges: Array, lanes: int, amount: Amount, lane_state: LaneState, generator: torch.Generator
) -> Trajectories:
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
) -> Trajectories:
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
    return Trajectories(walked, mask, times, episodes, truncated, episode_return, lengths)


def _chunks(generator: torch.Generator) -> Iterator[list[float]]:
    while True:
        yield torch.rand(CHUNK, generator=generator, dtype=torch.float64).tolist()


def _sample_together(
    tables: Tables, edges: Array, lanes: int, amount: Amount, lane_state: LaneState, generator: torch.Generator
) -> Trajectories:
    """All lanes together, in numpy; `at` is each lane's state · width, `born` when its episode began."""
    width, limit, fixed = tables.width, tables.limit, amount.fixed_steps
    columns = [np.repeat(column, width).astype(np.float32) for column in edges.T]
    successors, final = tables.successors * width, tables.final
    rewards = tables.rewards.astype(np.float64)
    home = None if tables.first is None else tables.first * width
    begun = lanes if amount.episodes is None else min(lanes, amount.episodes)
    if fixed is None:
        at, born, episode_return = (
            first_states(tables, lanes, generator) * width,
            np.zeros(lanes, np.int64),
            np.zeros(lanes),
        )
    else:
        at, born, episode_return = lane_state.states * width, -lane_state.episode_step, lane_state.episode_return
    number = np.arange(lanes)
    stopped = np.where(number < begun, np.iinfo(np.int64).max, 0)
    who = np.arange(lanes)  # the lanes that are still stepped: narrowed whenever half of them have stopped
    alive = number < begun
    capacity = fixed or amount.rows
    outcomes, births, episodes = (np.zeros((capacity, lanes), np.int64) for _ in range(3))
    truncations: list[tuple[int, Array]] = []
    finished: list[tuple[Array, Array]] = []
    working, taken, t = begun, 0, 0
    due = amount.most if fixed is None else -1  # when the oldest episode may be too long
    used = BLOCK
    gained, ended = np.empty(lanes), np.empty(lanes, bool)
    take = functools.partial(np.take, mode="clip")  # no index is out of range; looking for one takes a quarter longer
    while working and t != fixed:
        if t == capacity:
            outcomes, births, episodes = (np.concatenate([a, np.zeros_like(a)]) for a in (outcomes, births, episodes))
            capacity *= 2
        if 2 * working <= len(who):
            who, at, born, number = who[alive], at[alive], born[alive], number[alive]
            episode_return, gained, ended = episode_return[alive], gained[:working], np.empty(working, bool)
            alive, used = np.ones(working, bool), BLOCK
        if used == BLOCK:
            rows = torch.rand(BLOCK, len(who), generator=generator).numpy()
            buffer, chosen, used = np.empty(len(who), np.float32), np.empty(len(who), bool), 0
        whole = len(who) == lanes
        outcome = outcomes[t] if whole else np.empty(len(who), np.int64)
        outcome[:] = at
        for column in columns:
            take(column, at, out=buffer)
            np.less_equal(buffer, rows[used], out=chosen)
            np.add(outcome, chosen, out=outcome)
        used += 1
        if whole:
            births[t], episodes[t] = born, number
        else:
            outcomes[t, who], births[t, who], episodes[t, who] = outcome, born, number
        take(successors, outcome, out=at)
        episode_return += take(rewards, outcome, out=gained)
        taken += working
        t += 1
        take(final, outcome, out=ended)
        if limit is not None:
            late = born == t - limit
            late &= ~ended
            late &= alive
            if late.any():
                truncations.append((t - 1, who[late]))
                ended |= late
        (where,) = ended.nonzero()
        if len(where):
            at[where] = home if home is not None else first_states(tables, len(where), generator) * width
            if working < len(who):
                where = where[alive[where]]
            finished.append((episode_return[where], t - born[where]))
            episode_return[ended] = 0.0
            born[ended] = t
            going = len(where)
            if amount.episodes is not None:
                going = min(going, amount.episodes - begun)
            elif amount.steps is not None and taken >= amount.steps:
                going = 0
            number[where[:going]] = np.arange(begun, begun + going)
            begun += going
            working -= len(where) - going
            alive[where[going:]] = False
            stopped[who[where[going:]]] = t
        if t == due and working:
            oldest = np.where(alive, born, t).argmin()
            if t - born[oldest] >= amount.most:
                raise EpisodeTooLongError(int(who[oldest]))
            due = int(born[oldest]) + amount.most
    if fixed is not None:
        lane_state.states[:], lane_state.episode_step[:], lane_state.episode_return[:] = (
            at // width,
            t - born,
            episode_return,
        )
    episode_step = np.arange(t)[:, None]
    mask = episode_step < stopped
    truncated = np.zeros((t, lanes), bool)
    for time, where in truncations:
        truncated[time, where] = True
    returns = np.concatenate([scores for scores, _ in finished]) if finished else np.zeros(0)
    lengths = np.concatenate([counts for _, counts in finished]) if finished else np.zeros(0, np.int64)
    births = births[:t]
    np.subtract(episode_step, births, out=births)  # times; of padding, too, whose number is masked
    return Trajectories(outcomes[:t], mask, births, episodes[:t], truncated, returns, lengths)
