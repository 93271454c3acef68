"""Rollouts as the runner collects them."""

from typing import Any

import torch
from attrs import evolve
from gymnasium.spaces import Space
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from ...contracts import Rollout
from .changes import excerpt, next_values
from .episodes import Episode, assemble, episodes, lanes_of_episodes
from .numbers import quarters
from .spaces import elements


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
    """Rollouts as the runner collects them.

    Args:
        draw: passed by Hypothesis.
        whole: True: whole episodes, padded at the end; False: cut at an edge, with unfinished episodes; None: either.
        values: with a critic's values, successor values and log-probs of another policy; None: either.
        min_lanes, max_lanes: number of lanes.
        min_episodes: minimum number of episodes, whole or not; with `groups`, in each group.
        groups: with groups of lanes.
        observation_space, action_space: spaces of the elements; without, elements are 0 to 3 and 0 to 2.
        dtype: dtype of rewards, values and log-probs.
    """
    whole = draw(st.booleans()) if whole is None else whole
    values = draw(st.booleans()) if values is None else values
    num_different = min(max_lanes, 8)  # with many lanes, their structure repeats, not their numbers
    lanes = draw(lanes_of_episodes(min(min_lanes, num_different), num_different, 2, unfinished=not whole))
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
        if not _has_enough_episodes(rollout, owners, min_episodes):  # then use whole episodes
            rollout = assemble([_closed(lane) for lane in lanes], padding, dtype, resets)
    rollout = excerpt(rollout)
    columns: dict[str, Any] = {"groups": torch.tensor(owners) if groups else None}
    if not whole:  # the first episode of each lane may have begun in an earlier rollout
        carried = rollout.times * 0 + draw(st.integers(0, 2))
        began = (rollout.times == 0) & rollout.mask
        columns["times"] = rollout.times + carried * (began.cumsum(0) == 1) * rollout.mask
    steps, count = rollout.mask.shape
    place = torch.arange(steps)[:, None] + 2 * torch.arange(count)  # different from neighbouring steps
    for name, space, size in (("observations", observation_space, 4), ("actions", action_space, 3)):
        columns[name] = place % size if space is None else draw(elements(space, steps, count))
    rollout = evolve(rollout, **columns)
    return evolve(rollout, **draw(_numbers(rollout))) if values else rollout


def orders(rollout: Rollout) -> SearchStrategy[list[int]]:
    """Permutations of a rollout's lanes."""
    return st.permutations(range(rollout.mask.shape[1]))


def _cut(rollout: Rollout) -> Rollout:
    """Cut after the row in which the first lane runs out of steps."""
    missing = rollout.mask.flip(0).long().argmax(0)  # rows below a lane's last step
    return excerpt(rollout, rows=slice(0, len(rollout.mask) - int(missing.max())))


def _closed(lane: list[Episode]) -> list[Episode]:
    """The lane with its last episode terminated if it was unfinished."""
    open_ended = not (lane[-1].terminated or lane[-1].truncated)
    return [*lane[:-1], evolve(lane[-1], terminated=True)] if open_ended else lane


def _has_enough_episodes(rollout: Rollout, owners: list[int], min_episodes: int) -> bool:
    """Whether each group has enough episodes."""
    episode_owners = {(owners[n], int(rollout.episodes[t, n])) for t, n in rollout.mask.nonzero().tolist()}
    return all(sum(owner == group for owner, _ in episode_owners) >= min_episodes for group in set(owners))


@st.composite
def _numbers(draw: DrawFn, rollout: Rollout) -> dict[str, Tensor]:
    """Values, successor values and log-probs of two policies for the real steps."""
    mask, names = rollout.mask, ("values", "successors", "log_probs", "target_log_probs")
    count = int(mask.sum())
    drawn = torch.tensor(draw(quarters(count * len(names))), dtype=rollout.rewards.dtype)
    drawn = drawn.reshape(count, len(names)).T  # step by step, so that numbers stay the same with fewer steps
    columns = {}
    for name, numbers in zip(names, drawn, strict=True):
        column = torch.zeros_like(rollout.rewards)
        column[mask] = -numbers.abs() if name.endswith("log_probs") else numbers
        columns[name] = column
    beyond = columns.pop("successors")
    return columns | {"successor_values": next_values(rollout, columns["values"], beyond)}
