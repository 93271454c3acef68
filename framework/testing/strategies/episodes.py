"""Lanes of episodes, and rollouts assembled from them."""

from collections.abc import Sequence

import torch
from attrs import evolve, frozen
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ...contracts import Rollout
from .numbers import quarters

REWARDS = st.integers(-8, 8).map(lambda n: n / 4)  # exact in float32, so that sums are, too
TERMINATED, TRUNCATED, BOTH, NO_END = (True, False), (False, True), (True, True), (False, False)
ENDS = st.sampled_from([TERMINATED, TRUNCATED, BOTH])


@frozen
class Episode:
    """The rewards of an episode's steps, and how it ended; an unfinished one has neither flag."""

    rewards: tuple[float, ...]
    terminated: bool
    truncated: bool


def episodes(max_steps: int = 5, ends: SearchStrategy[tuple[bool, bool]] = ENDS) -> SearchStrategy[Episode]:
    """Episodes of at least one step that are terminated, truncated, or both."""
    lengths = st.integers(1, max_steps)
    return st.builds(
        lambda length, rewards, end: Episode(tuple(rewards[:length]), *end), lengths, quarters(max_steps), ends
    )


def lanes_of_episodes(
    min_lanes: int = 1, max_lanes: int = 3, max_episodes: int = 3, max_steps: int = 5, unfinished: bool = False
) -> SearchStrategy[list[list[Episode]]]:
    """Lanes of at least one episode each; with `unfinished`, a lane's last episode may be unfinished."""
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
    """Lanes of episodes as a padded rollout, with episodes numbered lane by lane; observations and actions are 0.

    With `reset_rows` there is a row that is not a real step between episodes, as with Gymnasium's NEXT_STEP autoreset.
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
    """A column `[T, N]` of assembled lanes as one list of numbers per episode."""
    numbers = []
    for n, lane in enumerate(lanes):
        t = 0
        for episode in lane:
            numbers.append([float(table[t + k, n]) for k in range(len(episode.rewards))])
            t += len(episode.rewards)
    return numbers
