"""Rollouts for baselines, and how their numbers are compared."""

import torch
from attrs import evolve
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from hypothesis import strategies as st

from framework.testing.strategies import REWARDS, Episode, assemble, lanes_of_episodes

TOGO, TOTAL = RewardsToGo(gamma=1.0), TotalReturn(gamma=1.0)

# Rewards are quarters of at most 2, and an episode has at most 5 steps: every sum of them is exact in float32 as in
# float64, so that only divisions round, by less than 1e-14 of numbers of at most 10.
EXACT = 1e-12


@st.composite
def grouped(draw, min_episodes=1):
    """Lanes of one to three episodes, and each lane's group: numbers from 0 to 2, some perhaps left out."""
    lanes = draw(lanes_of_episodes(min_lanes=2, max_lanes=5))
    groups = draw(st.lists(st.integers(0, 2), min_size=len(lanes), max_size=len(lanes)))
    for group in set(groups):
        members = [lane for lane, its in zip(lanes, groups, strict=True) if its == group]
        while sum(map(len, members)) < min_episodes:
            members[0].append(Episode((draw(REWARDS),), True, False))
    return lanes, groups


def make_rollout(lanes, padding=0, groups=None, observed=(), dtype=torch.float32):
    """A rollout whose observations are set apart: 3 numbers a step, cycling through `observed`."""
    rollout = assemble(lanes, padding, dtype)
    # by episode and time, so that padding does not move what a step observes
    index = (rollout.episodes * 7 + rollout.times * 3)[..., None] + torch.arange(3)
    numbers = torch.tensor(observed or [0.0])
    return evolve(
        rollout, observations=numbers[index % len(numbers)], groups=None if groups is None else torch.tensor(groups)
    )


def by_episode(lanes, groups):
    """The group of every episode, in order."""
    return [group for lane, group in zip(lanes, groups, strict=True) for _ in lane]


OBSERVED = st.lists(st.integers(-40, 40).map(lambda n: n / 2), min_size=1, max_size=40)
LANES = lanes_of_episodes()
STATEFUL = ("MovingAverage", "LinearFeatures")


# Mutants

BASELINES, MEANS = "framework_baselines", "framework_reinforce.mean_baselines"
