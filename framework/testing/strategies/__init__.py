"""Cases for laws, as Hypothesis draws and shrinks them: rollouts, spaces and their elements, finite worlds.

Batches are in `steps.py`.

A rollout is told as a story, lanes of episodes, so that a counterexample shrinks to an episode or two of two or three
steps. Rewards, values and log-probs are quarters of up to 2 in size: sums and halves of them are exact in float32.
"""

from .changes import NUMBERS, as_dtype, copied, excerpt, next_values, padded, permute_lanes, scaled, tables_of
from .episodes import (
    BOTH,
    ENDS,
    NO_END,
    REWARDS,
    TERMINATED,
    TRUNCATED,
    Episode,
    assemble,
    episodes,
    lanes_of_episodes,
    real_steps,
)
from .numbers import quarters
from .rollouts import orders, rollouts
from .spaces import action_spaces, elements, spaces
from .worlds import mdps

__all__ = [  # noqa: RUF022
    "Episode", "assemble", "episodes", "lanes_of_episodes", "real_steps",
    "BOTH", "ENDS", "NO_END", "REWARDS", "TERMINATED", "TRUNCATED",
    "orders", "quarters", "rollouts",
    "NUMBERS", "as_dtype", "copied", "excerpt", "next_values", "padded", "permute_lanes", "scaled", "tables_of",
    "action_spaces", "elements", "spaces",
    "mdps",
]  # fmt: skip
