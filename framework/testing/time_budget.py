"""A budget of time for a part's laws: when to stop looking, and when to stop shrinking what was found.

What counts is processor time, so that a busy machine changes no verdict. Of time that passes while a part sleeps, or
waits for others, a fifth counts: so a part that mostly waits comes to an end, too.
"""

import math
import time

AT_ONCE, PART = 2.0, 0.25  # seconds that a law may take beyond its share, and of what is left
LEAST = 0.1  # seconds of shrinking, whatever is left
WAITS = 5  # seconds on the wall that count as one of the processor's


class Clock:
    """Shares seconds out among laws; what one leaves, the next ones have. Shrinking has a purse of its own.

    A law may take more than its share, where there is enough: the first ones are slow on any part.
    """

    def __init__(self, laws: int = 1, looking: float = math.inf, shrinking: float = math.inf) -> None:
        self.laws, self.left, self.share = laws, [looking, shrinking], 0.0
        self.since = (0.0, 0.0)  # processor's, and on the wall
        self.shrinks = False

    def begin(self) -> None:
        """A law is to be asked."""
        left = max(0.0, self.left[0])
        self._start(max(left / self.laws, min(AT_ONCE, PART * left)), False)

    def found(self) -> None:
        """An example breaks it."""
        self._pay()
        self._start(max(LEAST, PART * self.left[1]), True)

    def end(self) -> None:
        """The law has been asked."""
        self._pay()
        self.laws = max(1, self.laws - 1)

    @property
    def over(self) -> bool:
        """Whether it should stop."""
        return self._spent() > self.share

    def _start(self, share: float, shrinks: bool) -> None:
        self.share, self.shrinks = share, shrinks
        self.since = (time.process_time(), time.perf_counter())

    def _spent(self) -> float:
        return max(time.process_time() - self.since[0], (time.perf_counter() - self.since[1]) / WAITS)

    def _pay(self) -> None:
        self.left[self.shrinks] -= self._spent()
