"""What is sampled from tables, and from where on."""

from attrs import frozen

from ..contracts import Array
from ..guards.episode_limit import MOST


@frozen(eq=False)
class SampledRows:
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
