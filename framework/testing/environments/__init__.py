"""What every environment must keep to: seeds, lanes, spaces, ends, time limits, saved states, and its tables.

Chance is an environment's own affair: laws compare number by number only what must be the same whatever was drawn, and
ask of the rest how often it happens, so seldom wrongly that no sound environment ever sees it (1 in 10⁶).
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
