"""How much a shard collects, and which lanes therefore go on after an episode."""

import numpy as np

from ..contracts import Array


def num_continuing(steps: int | None, episodes: int | None, ended: int, started: int, taken: int) -> int:
    """Of `ended` lanes, how many begin another episode, after `started` episodes and `taken` steps of all lanes.

    Whole episodes are collected until `episodes` have been started, or until `steps` have been taken; episodes that
    have started are finished. With neither (fixed steps), every lane begins another one.
    """
    if episodes is not None:
        return min(ended, episodes - started)
    return 0 if steps is not None and taken >= steps else ended


class Quota:
    """The lanes that are still stepped, while a rollout is collected."""

    def __init__(self, lanes: int, steps: int | None, episodes: int | None) -> None:
        self.steps, self.episodes = steps, episodes
        self.num_started = lanes if episodes is None else min(lanes, episodes)  # episodes
        self.num_running = self.num_started  # lanes
        self.num_steps = 0
        self.running = np.arange(lanes) < self.num_started  # [N]

    @property
    def num_ended(self) -> int:
        """Episodes that have ended."""
        return self.num_started - self.num_running

    def count(self, real: Array | None) -> None:
        """Count the steps of a row: of all running lanes, or of the `real` ones `[N]` bool among them."""
        self.num_steps += self.num_running if real is None else int(np.count_nonzero(real))

    def end(self, ended: Array, count: int) -> None:
        """Where episodes `ended` `[N]` bool, `count` of them: lanes begin another one, or stop."""
        continuing = num_continuing(self.steps, self.episodes, count, self.num_started, self.num_steps)
        self.num_started += continuing
        if continuing < count:
            self.num_running -= count - continuing
            self.running[ended.nonzero()[0][continuing:]] = False
