"""Rollouts as stories that Hypothesis tells and shrinks: lanes of whole episodes, and their assembly into `[T, N]`."""

import torch
from attrs import evolve, frozen
from hypothesis import strategies as st

from framework import Rollout

REWARDS = st.integers(-8, 8).map(lambda n: n / 4)  # exact in float32, so that sums are, too


@frozen
class Episode:
    """Rewards of its steps, and how it ended."""

    rewards: tuple[float, ...]
    terminated: bool
    truncated: bool


def episodes():
    """One to five steps; the world's end, the time limit, or both at once."""
    ends = st.sampled_from([(True, False), (False, True), (True, True)])
    return st.builds(
        lambda rewards, end: Episode(tuple(rewards), *end), st.lists(REWARDS, min_size=1, max_size=5), ends
    )


def lanes_of_episodes(min_lanes=1, max_lanes=3):
    """Some lanes of one to three whole episodes."""
    return st.lists(st.lists(episodes(), min_size=1, max_size=3), min_size=min_lanes, max_size=max_lanes)


def assemble(lanes, extra_padding=0, dtype=torch.float32):
    """Lanes of episodes as a padded rollout; observations and actions count up, to be told apart."""
    longest = max(sum(len(episode.rewards) for episode in lane) for lane in lanes) + extra_padding
    shape = (longest, len(lanes))
    rewards = torch.zeros(shape, dtype=dtype)
    terminated, truncated, mask = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    times, numbers = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
    number = 0
    for n, lane in enumerate(lanes):
        t = 0
        for episode in lane:
            for k, reward in enumerate(episode.rewards):
                rewards[t, n], mask[t, n], times[t, n], numbers[t, n] = reward, True, k, number
                t += 1
            terminated[t - 1, n], truncated[t - 1, n] = episode.terminated, episode.truncated
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


def permute_lanes(rollout, order):
    """The same rollout with its lanes in another order."""
    columns = (
        "observations",
        "actions",
        "log_probs",
        "rewards",
        "terminated",
        "truncated",
        "mask",
        "times",
        "episodes",
    )
    return evolve(rollout, **{name: getattr(rollout, name)[:, order] for name in columns})


def real_steps(lanes, table):
    """`[T, N]` read back as one list of numbers an episode."""
    told = []
    for n, lane in enumerate(lanes):
        t = 0
        for episode in lane:
            told.append([float(table[t + k, n]) for k in range(len(episode.rewards))])
            t += len(episode.rewards)
    return told
