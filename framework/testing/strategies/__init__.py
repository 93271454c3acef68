"""Hypothesis strategies for laws: rollouts, spaces and their elements, tabular worlds.

Batches are in `steps.py`.

Rollouts are drawn as lanes of episodes, so that a counterexample shrinks to one or two episodes of two or three steps.
Rewards, values and log-probs are multiples of 1/4 up to 2 in size: sums and halves of them are exact in float32.
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
