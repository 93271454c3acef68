"""Rollouts as stories that Hypothesis tells and shrinks: lanes of whole episodes, and their assembly into `[T, N]`."""

import random

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


NO_END, TERMINATED, TRUNCATED, BOTH = (False, False), (True, False), (False, True), (True, True)


@st.composite
def valued_rollouts(draw, max_steps=8, max_lanes=3, min_lanes=1, dtype=torch.float64, whole=False):
    """Rollouts as the runner makes them for a critic: values, successor values, and log-probs of two policies.

    Lanes may be unfinished at the edge (not if `whole`, where every lane ends and is then padded), have reset rows
    after an end, and end in any way. All numbers are quarters of up to 2 in size.
    """
    steps, lanes = draw(st.integers(1, max_steps)), draw(st.integers(min_lanes, max_lanes))
    kinds = st.sampled_from([NO_END, NO_END, NO_END, TERMINATED, TRUNCATED, BOTH])
    few = min(lanes, 8)  # the structure of many lanes repeats; their numbers do not
    ends = [draw(st.lists(kinds, min_size=steps, max_size=steps)) for _ in range(few)]
    resets = draw(st.lists(st.booleans(), min_size=few, max_size=few))
    lengths = [draw(st.integers(1, steps)) if whole else steps for _ in range(few)]
    seed = draw(st.integers(0, 2**31))
    return tell(steps, lanes, ends, resets, lengths, seed, dtype, whole)


def tell(steps, lanes, ends, resets, lengths, seed, dtype=torch.float64, whole=False):
    """The rollout of `valued_rollouts`: what the runner knows, lane by lane and row by row."""
    numbers = random.Random(seed)
    quarters = [n / 4 for n in range(-8, 9)]
    table = lambda kind: torch.zeros(steps, lanes, dtype=kind)  # noqa: E731
    floats = ("rewards", "values", "successor_values", "log_probs", "target_log_probs")
    columns = {name: table(dtype) for name in floats}
    columns |= {name: table(torch.bool) for name in ("terminated", "truncated", "mask")}
    columns |= {name: table(torch.int64) for name in ("times", "episodes")}
    number = -1
    for n in range(lanes):
        length, resetting, time = lengths[n % len(lengths)], False, 0
        for t in range(length):
            if resetting:
                resetting = False
                continue
            kind = ends[n % len(ends)][t]
            if kind == NO_END and whole and t == length - 1:
                kind = TERMINATED
            number += time == 0
            row = {name: numbers.choice(quarters) for name in floats[:2]}
            row |= {name: -abs(numbers.choice(quarters)) for name in floats[3:]}
            row |= {"terminated": kind[0], "truncated": kind[1], "mask": True, "times": time, "episodes": number}
            for name, entry in row.items():
                columns[name][t, n] = entry
            time = 0 if any(kind) else time + 1
            resetting = any(kind) and resets[n % len(resets)]
    for n in range(lanes):
        for t in range(steps):
            if columns["mask"][t, n] and not columns["terminated"][t, n]:
                cut = columns["truncated"][t, n] or t == steps - 1
                columns["successor_values"][t, n] = numbers.choice(quarters) if cut else columns["values"][t + 1, n]
    shape = (steps, lanes)
    spaces = {name: torch.zeros(shape, dtype=torch.int64) for name in ("observations", "actions")}
    return Rollout(**columns, **spaces)


def tables_of(rollout):
    """Name and table `[T, N]` of everything that a rollout has."""
    fields = ((field.name, getattr(rollout, field.name)) for field in rollout.__attrs_attrs__)
    return {name: table for name, table in fields if table is not None and table.ndim == 2}
