"""Cases for laws, as Hypothesis draws and shrinks them: rollouts, spaces and their elements, finite worlds.

Batches are in `steps.py`.

A rollout is told as a story, lanes of episodes, so that a counterexample shrinks to an episode or two of two or three
steps. Rewards, values and log-probs are quarters of up to 2 in size: sums and halves of them are exact in float32.
"""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import evolve, fields, frozen
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from ..contracts import Rollout, TabularMDP

REWARDS = st.integers(-8, 8).map(lambda n: n / 4)  # exact in float32, so that sums are, too
TERMINATED, TRUNCATED, BOTH, NO_END = (True, False), (False, True), (True, True), (False, False)
ENDS = st.sampled_from([TERMINATED, TRUNCATED, BOTH])
SIZES = [0, *(sign * n / 4 for n in range(1, 9) for sign in (1, -1))]  # 17 quarters, the simplest first
PLACES, FEW, MANY = 5, 20, 400  # digits of a draw; numbers that are drawn, and then repeat; above, they are seeded


# Stories: lanes of episodes


@frozen
class Episode:
    """Rewards of its steps, and how it ended; an unfinished one did not."""

    rewards: tuple[float, ...]
    terminated: bool
    truncated: bool


def episodes(max_steps: int = 5, ends: SearchStrategy[tuple[bool, bool]] = ENDS) -> SearchStrategy[Episode]:
    """At least one step; the world's end, the time limit, or both at once."""
    lengths = st.integers(1, max_steps)
    return st.builds(lambda length, told, end: Episode(tuple(told[:length]), *end), lengths, quarters(max_steps), ends)


def lanes_of_episodes(
    min_lanes: int = 1, max_lanes: int = 3, max_episodes: int = 3, max_steps: int = 5, unfinished: bool = False
) -> SearchStrategy[list[list[Episode]]]:
    """Some lanes of at least one whole episode each; with `unfinished`, a lane's last one may go on at the edge."""
    lane = st.lists(episodes(max_steps), min_size=1, max_size=max_episodes)
    if unfinished:
        lane = st.builds(_left_open, lane, st.booleans())
    return st.lists(lane, min_size=min_lanes, max_size=max_lanes)


def _left_open(lane: list[Episode], unfinished: bool) -> list[Episode]:
    return [*lane[:-1], evolve(lane[-1], terminated=False, truncated=False)] if unfinished else lane


def assemble(
    lanes: Sequence[Sequence[Episode]],
    extra_padding: int = 0,
    dtype: torch.dtype = torch.float32,
    reset_rows: bool = False,
) -> Rollout:
    """Lanes of episodes as a padded rollout, episodes numbered lane by lane; observations and actions are 0.

    With `reset_rows`, a row that is no real step lies between episodes, as Gymnasium's NEXT_STEP has it.
    """
    between = int(reset_rows)
    lengths = [sum(len(episode.rewards) + between for episode in lane) - between for lane in lanes]
    shape = (max(lengths) + extra_padding, len(lanes))
    rewards = torch.zeros(shape, dtype=dtype)
    terminated, truncated, mask = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    times, numbers = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
    number = 0
    for n, lane in enumerate(lanes):
        t = 0
        for episode in lane:
            steps = len(episode.rewards)
            rows = slice(t, t + steps)
            rewards[rows, n] = torch.tensor(episode.rewards, dtype=dtype)
            mask[rows, n], times[rows, n], numbers[rows, n] = True, torch.arange(steps), number
            t += steps
            terminated[t - 1, n], truncated[t - 1, n] = episode.terminated, episode.truncated
            t += between
            number += 1
    return Rollout(
        observations=torch.zeros(shape, dtype=torch.int64),
        actions=torch.zeros(shape, dtype=torch.int64),
        log_probs=torch.zeros(shape, dtype=dtype),
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        mask=mask,
        times=times,
        episodes=numbers,
    )


def real_steps(lanes: Sequence[Sequence[Episode]], table: Tensor) -> list[list[float]]:
    """`[T, N]` of assembled lanes read back as one list of numbers an episode."""
    told = []
    for n, lane in enumerate(lanes):
        t = 0
        for episode in lane:
            told.append([float(table[t + k, n]) for k in range(len(episode.rewards))])
            t += len(episode.rewards)
    return told


# Rollouts


@st.composite
def rollouts(
    draw: DrawFn,
    *,
    whole: bool | None = None,
    values: bool | None = None,
    min_lanes: int = 1,
    max_lanes: int = 3,
    min_episodes: int = 1,
    groups: bool = False,
    observation_space: "Space[Any] | None" = None,
    action_space: "Space[Any] | None" = None,
    dtype: torch.dtype = torch.float64,
) -> Rollout:
    """Rollouts as the runner makes them.

    Args:
        draw: Hypothesis's own.
        whole: only whole episodes, padded below; False: cut at an edge, where episodes may go on; None: either.
        values: with a critic's values, successor values and log-probs of another policy; None: either.
        min_lanes, max_lanes: how many lanes.
        min_episodes: at least so many, whole or not, in all; with `groups`, in each group.
        groups: with groups of lanes.
        observation_space, action_space: of what elements are drawn; without, they count up to 3 and to 2.
        dtype: of rewards, values and log-probs.
    """
    whole = draw(st.booleans()) if whole is None else whole
    values = draw(st.booleans()) if values is None else values
    different = min(max_lanes, 8)  # the structure of many lanes repeats; their numbers do not
    lanes = draw(lanes_of_episodes(min(min_lanes, different), different, 2, unfinished=not whole))
    lanes = [lanes[n % len(lanes)] for n in range(max(min_lanes, len(lanes)))]
    owners = [draw(st.integers(0, 1)) for _ in lanes] if groups else [0] * len(lanes)
    for group in set(owners):
        members = [lane for lane, owner in zip(lanes, owners, strict=True) if owner == group]
        while sum(map(len, members)) < min_episodes:
            members[0].insert(0, draw(episodes(2)))
    padding, resets = draw(st.integers(0, 1)), draw(st.booleans())
    rollout = assemble(lanes, padding, dtype, resets)
    if not whole:
        rollout = _cut(rollout)
        if not _enough(rollout, owners, min_episodes):  # as whole ones, then
            rollout = assemble([_closed(lane) for lane in lanes], padding, dtype, resets)
    rollout = excerpt(rollout)
    columns: dict[str, Any] = {"groups": torch.tensor(owners) if groups else None}
    if not whole:  # the first episode of each lane may have begun in an earlier rollout
        carried = rollout.times * 0 + draw(st.integers(0, 2))
        began = (rollout.times == 0) & rollout.mask
        columns["times"] = rollout.times + carried * (began.cumsum(0) == 1) * rollout.mask
    steps, count = rollout.mask.shape
    place = torch.arange(steps)[:, None] + 2 * torch.arange(count)  # told apart from their neighbours
    for name, space, size in (("observations", observation_space, 4), ("actions", action_space, 3)):
        columns[name] = place % size if space is None else draw(elements(space, steps, count))
    rollout = evolve(rollout, **columns)
    return evolve(rollout, **draw(_numbers(rollout))) if values else rollout


def _cut(rollout: Rollout) -> Rollout:
    """Down to the row in which the first lane is out of steps."""
    missing = rollout.mask.flip(0).long().argmax(0)  # rows below a lane's last step
    return excerpt(rollout, rows=slice(0, len(rollout.mask) - int(missing.max())))


def _closed(lane: list[Episode]) -> list[Episode]:
    """A lane whose last episode has an end."""
    open_ended = not (lane[-1].terminated or lane[-1].truncated)
    return [*lane[:-1], evolve(lane[-1], terminated=True)] if open_ended else lane


def _enough(rollout: Rollout, owners: list[int], min_episodes: int) -> bool:
    """Whether each group has so many episodes."""
    found = {(owners[n], int(rollout.episodes[t, n])) for t, n in rollout.mask.nonzero().tolist()}
    return all(sum(owner == group for owner, _ in found) >= min_episodes for group in set(owners))


@st.composite
def _numbers(draw: DrawFn, rollout: Rollout) -> dict[str, Tensor]:
    """What a critic and two policies say of the real steps."""
    mask, names = rollout.mask, ("values", "successors", "log_probs", "target_log_probs")
    count = int(mask.sum())
    drawn = torch.tensor(draw(quarters(count * len(names))), dtype=rollout.rewards.dtype)
    drawn = drawn.reshape(count, len(names)).T  # step by step: fewer steps have the same numbers
    columns = {}
    for name, numbers in zip(names, drawn, strict=True):
        column = torch.zeros_like(rollout.rewards)
        column[mask] = -numbers.abs() if name.endswith("log_probs") else numbers
        columns[name] = column
    values, beyond = columns["values"], columns.pop("successors")
    following = torch.cat([values[1:], torch.zeros_like(values[:1])])
    cut = rollout.truncated.clone()
    cut[-1] = True
    columns["successor_values"] = torch.where(cut, beyond, following).masked_fill(rollout.terminated | ~mask, 0)
    return columns


def quarters(count: int) -> SearchStrategy[list[float]]:
    """So many quarters of up to 2 in size."""
    return _digits(count, len(SIZES)).map(lambda digits: [SIZES[digit] for digit in digits])


@st.composite
def _digits(draw: DrawFn, count: int, base: int) -> list[int]:
    """So many whole numbers below `base`, as digits of a few large ones: one draw is a tenth of a millisecond.

    Numbers of up to 24 bits are drawn evenly. How many are drawn hardly depends on `count`, so that what comes after
    stays the same where a case shrinks.
    """
    if count > MANY:
        numbers = random.Random(draw(st.integers(0, 2**31)))
        return [numbers.randrange(base) for _ in range(count)]
    drawn = [draw(st.integers(0, base**PLACES - 1)) for _ in range(1 if count <= PLACES else FEW // PLACES)]
    digits = [number // base**place % base for number in drawn for place in range(PLACES)]
    return [digits[place % len(digits)] for place in range(count)]


def tables_of(rollout: Rollout) -> dict[str, Tensor]:
    """Name and column `[T, N, …]` of everything that a rollout has of each step."""
    columns = {field.name: getattr(rollout, field.name) for field in fields(Rollout)}
    return {name: column for name, column in columns.items() if column is not None and name not in ("groups", "state")}


def excerpt(rollout: Rollout, rows: Any = slice(None), lanes: Any = slice(None)) -> Rollout:
    """Some rows and lanes of a rollout, in the order that is asked for; episodes are numbered as they begin.

    A lane that is asked for twice has episodes of its own each time.
    """
    columns: dict[str, Any] = {name: column[rows][:, lanes] for name, column in tables_of(rollout).items()}
    for name in ("groups", "state"):
        column = getattr(rollout, name)
        columns[name] = None if column is None else column[lanes]
    mask = columns["mask"]
    lane = torch.arange(mask.shape[1]).expand_as(mask)
    pairs = list(zip(lane[mask].tolist(), columns["episodes"][mask].tolist(), strict=True))
    known = {pair: new for new, pair in enumerate(dict.fromkeys(pairs))}
    columns["episodes"] = torch.zeros(mask.shape, dtype=torch.int64)
    columns["episodes"][mask] = torch.tensor([known[pair] for pair in pairs], dtype=torch.int64)
    return Rollout(**columns)


def permute_lanes(rollout: Rollout, order: Sequence[int]) -> Rollout:
    """The same rollout with its lanes in another order, and the numbers of its episodes as they were."""
    columns: dict[str, Any] = {name: column[:, order] for name, column in tables_of(rollout).items()}
    for name in ("groups", "state"):
        column = getattr(rollout, name)
        columns[name] = None if column is None else column[order]
    return Rollout(**columns)


# Spaces and their elements


def spaces() -> "SearchStrategy[Space[Any]]":
    """Spaces of observations: Discrete, Box (of several shapes and bounds), MultiDiscrete, MultiBinary."""
    firsts = st.sampled_from([0, 0, 2])
    discrete = st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), firsts)
    shapes = st.sampled_from([(1,), (3,), (), (2, 2)])
    bounds = st.sampled_from([(-1.0, 1.0), (-np.inf, np.inf), (0.0, np.inf)])
    box = st.builds(
        lambda shape, ends: Box(np.float32(ends[0]), np.float32(ends[1]), shape, np.float32), shapes, bounds
    )
    pictures = st.just(Box(0, 255, (2, 3), np.uint8))
    counts = st.lists(st.integers(1, 3), min_size=1, max_size=3)
    several = st.builds(lambda nvec, start: MultiDiscrete(nvec, start=[start] * len(nvec)), counts, firsts)
    flags: Any = st.integers(1, 3).map(MultiBinary)
    return st.one_of(discrete, box, pictures, several, flags)


def action_spaces() -> "SearchStrategy[Space[Any]]":
    """Spaces of actions: Discrete, a bounded Box, MultiDiscrete."""
    discrete = st.integers(1, 4).map(Discrete)
    box = st.integers(1, 3).map(lambda size: Box(np.float32(-1), np.float32(2), (size,), np.float32))
    several = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(MultiDiscrete)
    return st.one_of(discrete, box, several)


@st.composite
def elements(draw: DrawFn, space: "Space[Any]", *leading: int) -> Tensor:
    """Elements of a space, `[*leading, *shape]`, in the dtype in which the runner hands them out; edges included."""
    shape = (*leading, *(space.shape or ()))
    count = int(np.prod(shape, dtype=int))
    if isinstance(space, Box):
        return _of_box(space, draw(quarters(count)), shape)
    if isinstance(space, Discrete):
        most, first = np.full(count, int(space.n)), np.full(count, int(space.start))
    elif isinstance(space, MultiDiscrete):
        most, first = (np.broadcast_to(each, shape).reshape(-1) for each in (space.nvec, space.start))
    elif isinstance(space, MultiBinary):
        most, first = np.full(count, 2), np.full(count, 0)
    else:
        raise NotImplementedError(f"elements of {space}: draw them by its own `sample`")
    limit = int(most.max(initial=1)) - 1
    numbers = draw(_digits(count, limit + 1))
    whole = first + np.minimum(np.array(numbers, dtype=np.int64), most - 1)  # `shape` may hold spaces of one element
    return torch.from_numpy(whole.reshape(shape).astype(space.dtype))


def _of_box(space: Box, numbers: list[float], shape: tuple[int, ...]) -> Tensor:
    """Quarters from −2 to 2, laid over each bounded interval from end to end; where it is open, as they are."""
    place = (np.array(numbers, dtype=np.float64).reshape(shape) + 2) / 4  # 0 to 1
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(invalid="ignore"):
        inside = low + place * (high - low)
    above, below = low + 4 * place, high - 4 * place
    closed, bounded_below, bounded_above = np.isfinite(high - low), np.isfinite(low), np.isfinite(high)
    chosen = np.where(closed, inside, np.where(bounded_below, above, np.where(bounded_above, below, 4 * place - 2)))
    return torch.from_numpy(chosen.astype(space.dtype))


# Finite worlds


@st.composite
def mdps(
    draw: DrawFn,
    states: tuple[int, int] = (2, 4),
    actions: tuple[int, int] = (1, 3),
    limits: tuple[int, int] | None = (1, 4),
    aliased: bool = False,
) -> TabularMDP:
    """Small worlds of random tables: probabilities are ratios of small whole numbers, rewards halves of up to 2.

    The last state is terminal. With `aliased`, perhaps the one before it is, too, and perhaps states show what others
    show, so that no policy can tell them apart. Time is limited by one of `limits` steps; None: not at all, and then
    every action may lead to the end, so that each episode has one, whatever the policy.
    """
    count, options = draw(st.integers(*states)), draw(st.integers(*actions))
    weights = _whole_numbers(draw, 0, 3, count, options, count)
    if limits is None:
        weights[..., -1] += 1
    weights[..., -1] += weights.sum(-1) == 0
    start = _whole_numbers(draw, 0, 2, count)
    start[-1] = 0
    start[0] += start.sum() == 0
    terminal = torch.zeros(count, dtype=torch.bool)
    terminal[-1] = True
    observations = None
    if aliased:
        terminal[-2] = count > 2 and draw(st.booleans())
        start[-2] = start[-2].masked_fill(terminal[-2], 0)
        start[0] += start.sum() == 0
        if draw(st.booleans()):
            _, observations = torch.unique(_whole_numbers(draw, 0, count - 1, count), return_inverse=True)
    return TabularMDP(
        transitions=weights / weights.sum(-1, keepdim=True),
        rewards=_whole_numbers(draw, -4, 4, count, options, count) / 2,
        start=start / start.sum(),
        terminal=terminal,
        time_limit=None if limits is None else draw(st.integers(*limits)),
        observations=observations,
    )


def _whole_numbers(draw: DrawFn, low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers in float64."""
    count = int(np.prod(shape))
    return torch.tensor(draw(st.lists(st.integers(low, high), min_size=count, max_size=count))).reshape(shape).double()
