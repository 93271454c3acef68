"""Sampling straight from tables, where the actor is a table of probabilities, too.

A step is one look-up, and everything else about it (reward, flags, log-prob) is gathered for the whole rollout at once.
The distribution is that of stepping the environment with the actor; a law in the tests compares the two.

At few lanes, plain Python follows one episode after the other (0.2 µs a step); at many, numpy steps all lanes together.
"""

import functools

import numpy as np
import torch

from ..collecting.quota import num_continuing
from ..contracts import Array
from .in_turn import sample_in_turn
from .records import Amount, EpisodeTooLongError, LaneState, SampledRows
from .tables import Tables, first_states

FEW_LANES = 64  # up to here Python follows lane by lane
BLOCK = 16  # rows of uniform numbers drawn at once for many lanes


def sample(
    tables: Tables,
    log_probs: Array,
    lanes: int,
    amount: Amount,
    lane_state: LaneState,
    generator: torch.Generator,
    few_lanes: int = FEW_LANES,
) -> SampledRows:
    """Sample whole episodes, or fixed steps from where `lane_state` stands; up to `few_lanes` one after the other."""
    edges = tables.edges(log_probs)
    way = sample_in_turn if lanes <= few_lanes else sample_together
    return way(tables, edges, lanes, amount, lane_state, generator)


def sample_together(
    tables: Tables, edges: Array, lanes: int, amount: Amount, lane_state: LaneState, generator: torch.Generator
) -> SampledRows:
    """All lanes together, in numpy; `at` is each lane's state · width, `born` when its episode began."""
    width, limit, fixed = tables.width, tables.limit, amount.fixed_steps
    columns = [np.repeat(column, width).astype(np.float32) for column in edges.T]
    successors, final = tables.successors * width, tables.final
    rewards = tables.rewards.astype(np.float64)
    home = None if tables.first is None else tables.first * width
    num_started = lanes if amount.episodes is None else min(lanes, amount.episodes)
    if fixed is None:
        at, born, episode_return = (
            first_states(tables, lanes, generator) * width,
            np.zeros(lanes, np.int64),
            np.zeros(lanes),
        )
    else:
        at, born, episode_return = lane_state.states * width, -lane_state.episode_step, lane_state.episode_return
    number = np.arange(lanes)
    stopped = np.where(number < num_started, np.iinfo(np.int64).max, 0)
    who = np.arange(lanes)  # the lanes that are still stepped: narrowed whenever half of them have stopped
    alive = number < num_started
    capacity = fixed or amount.rows
    outcomes, births, episodes = (np.zeros((capacity, lanes), np.int64) for _ in range(3))
    truncations: list[tuple[int, Array]] = []
    finished: list[tuple[Array, Array]] = []
    working, num_steps, t = num_started, 0, 0
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
        num_steps += working
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
            continuing = num_continuing(amount.steps, amount.episodes, len(where), num_started, num_steps)
            number[where[:continuing]] = np.arange(num_started, num_started + continuing)
            num_started += continuing
            working -= len(where) - continuing
            alive[where[continuing:]] = False
            stopped[who[where[continuing:]]] = t
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
    return SampledRows(outcomes[:t], mask, births, episodes[:t], truncated, returns, lengths)
