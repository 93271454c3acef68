"""Laws of environments: seeds, lanes, spaces, ends of episodes, time limits, saved states, and tables.

Environments may be stochastic: laws compare numbers exactly only where they must be the same for any random numbers,
and otherwise test frequencies, with a false alarm rate of 1 in 10⁶.
"""

# isort: off
from . import outputs, seeds, lanes, ends, successors, lengths, extras  # in the order in which laws are stated
from . import tables, frequencies, transitions

__all__ = [
    "ends",
    "extras",
    "frequencies",
    "lanes",
    "lengths",
    "outputs",
    "seeds",
    "successors",
    "tables",
    "transitions",
]
