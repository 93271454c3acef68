"""A budget of time for a part's laws: when to stop looking, and when to stop shrinking what was found.

What counts is processor time, so that a busy machine changes no verdict. Of time that passes while a part sleeps, or
waits for others, a fifth counts: so a part that mostly waits comes to an end, too.
"""

import math
import time

OVERDRAFT, FRACTION = 2.0, 0.25  # seconds that a law may take beyond its share, and of what is left
MIN_SHRINKING = 0.1  # seconds of shrinking, whatever is left
WALL_SECONDS = 5  # seconds on the wall that count as one of the processor's


class TimeBudget:
    """Shares seconds out among laws; what one leaves, the next ones have. Shrinking has a purse of its own.

    A law may take more than its share, where there is enough: the first ones are slow on any part.
    """

    def __init__(self, laws: int = 1, searching: float = math.inf, shrinking: float = math.inf) -> None:
        self.laws, self.remaining, self.share = laws, [searching, shrinking], 0.0
        self.since = (0.0, 0.0)  # processor's, and on the wall
        self.shrinking = False

    def start_law(self) -> None:
        """A law is to be asked."""
        remaining = max(0.0, self.remaining[0])
        self._start_timer(max(remaining / self.laws, min(OVERDRAFT, FRACTION * remaining)), False)

    def start_shrinking(self) -> None:
        """An example breaks it."""
        self._charge()
        self._start_timer(max(MIN_SHRINKING, FRACTION * self.remaining[1]), True)

    def finish_law(self) -> None:
        """The law has been asked."""
        self._charge()
        self.laws = max(1, self.laws - 1)

    @property
    def exceeded(self) -> bool:
        """Whether it should stop."""
        return self._spent() > self.share

    def _start_timer(self, share: float, shrinking: bool) -> None:
        self.share, self.shrinking = share, shrinking
        self.since = (time.process_time(), time.perf_counter())

    def _spent(self) -> float:
        return max(time.process_time() - self.since[0], (time.perf_counter() - self.since[1]) / WALL_SECONDS)

    def _charge(self) -> None:
        self.remaining[self.shrinking] -= self._spent()
