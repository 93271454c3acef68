"""A time budget for checking the laws of a part: when to stop searching, and when to stop shrinking.

Processor time counts, so that a busy machine changes no verdict. A fifth of wall-clock time counts, too, so that the
check of a part that mostly sleeps or waits comes to an end.
"""

import math
import time

OVERDRAFT, FRACTION = (
    2.0,
    0.25,
)  # a law may exceed its share: up to so many seconds, and up to this fraction of the rest
MIN_SHRINKING = 0.1  # seconds for shrinking, even if nothing is left
WALL_SECONDS = 5  # seconds of wall-clock time that count as one second of processor time


class TimeBudget:
    """Divides seconds among laws; what one law leaves goes to the next ones. Shrinking has a separate budget.

    A law may exceed its share while enough is left: the first laws are slow for every part.
    """

    def __init__(self, laws: int = 1, searching: float = math.inf, shrinking: float = math.inf) -> None:
        self.laws, self.remaining, self.share = laws, [searching, shrinking], 0.0
        self.since = (0.0, 0.0)  # processor time, and wall-clock time
        self.shrinking = False

    def start_law(self) -> None:
        """Call before a law is checked."""
        remaining = max(0.0, self.remaining[0])
        self._start_timer(max(remaining / self.laws, min(OVERDRAFT, FRACTION * remaining)), False)

    def start_shrinking(self) -> None:
        """Call when an example breaks the law."""
        self._charge()
        self._start_timer(max(MIN_SHRINKING, FRACTION * self.remaining[1]), True)

    def finish_law(self) -> None:
        """Call after a law was checked."""
        self._charge()
        self.laws = max(1, self.laws - 1)

    @property
    def exceeded(self) -> bool:
        """Whether the current law has used its share."""
        return self._spent() > self.share

    def _start_timer(self, share: float, shrinking: bool) -> None:
        self.share, self.shrinking = share, shrinking
        self.since = (time.process_time(), time.perf_counter())

    def _spent(self) -> float:
        return max(time.process_time() - self.since[0], (time.perf_counter() - self.since[1]) / WALL_SECONDS)

    def _charge(self) -> None:
        self.remaining[self.shrinking] -= self._spent()
