"""The randomness of an environment: its own generator, and the global ones."""

import copy
import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..law import Subject
from .stepping import ActionPlan, equal, lane_counts, make_environment, run_plan, spaces_of

ALARM = 1e-6  # probability of rejecting a correct environment


@contextmanager
def globally_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python, and restore them afterwards."""
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` formats a stack trace each time
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])
        random.setstate(saved[2])


def random_plan(subject: Subject, count: int, rows: int, seed: int = 0) -> ActionPlan:
    """A plan of random actions from the whole space; the same each time."""
    space = copy.deepcopy(spaces_of(subject)[1])
    space.seed(seed)
    return ActionPlan(
        count, seed, tuple(tuple(np.asarray(space.sample()).tolist() for _ in range(count)) for _ in range(rows))
    )


def is_stochastic(subject: Subject) -> bool:
    """Whether it draws from its generator at reset or in forty steps; what depends on the draws may be a rare event."""
    if "chance" not in subject.cache:
        generator, count = torch.Generator().manual_seed(0), lane_counts(subject)[0]
        before = generator.get_state()
        with make_environment(subject, count) as environment:
            run_plan(environment, random_plan(subject, count, 40), generator=generator)
        subject.cache["chance"] = not equal(before, generator.get_state())
    return bool(subject.cache["chance"])


def fisher(hits: int, misses: int, other_hits: int, other_misses: int) -> float:
    """Fisher's exact test: the probability of at least so many hits in the first of two groups with equal hit rates.

    Source: Fisher 1922, doi:10.2307/2340521; one-sided, given the group sizes and the number of hits.
    """
    size, marked, total = hits + misses, hits + other_hits, hits + misses + other_hits + other_misses
    ways = (math.comb(marked, k) * math.comb(total - marked, size - k) for k in range(hits, min(size, marked) + 1))
    return sum(ways) / math.comb(total, size)


def most_frequent_start_share(subject: Subject) -> float:
    """The share of the most frequent first observation of lane 0, in 64 resets."""
    if "usual start" not in subject.cache:
        count, generator = lane_counts(subject)[0], torch.Generator().manual_seed(1)
        with make_environment(subject, count) as environment:
            starts = [environment.reset(generator)[0].numpy().tobytes() for _ in range(64)]
        subject.cache["usual start"] = Counter(starts).most_common(1)[0][1] / len(starts)
    return float(subject.cache["usual start"])
