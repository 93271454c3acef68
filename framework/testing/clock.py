"""A budget of time for a part's laws: when to stop looking, and when to stop shrinking what was found."""

import math
import time

AT_ONCE, PART = 0.5, 0.25  # seconds that a law may take beyond its share, and of what is left
LEAST = 0.1  # seconds of shrinking, whatever is left


class Clock:
    """Shares seconds out among laws; what one leaves, the next ones have. Shrinking has a purse of its own.

    A law may take half a second more than its share, where there is enough: the first ones are slow on any part.
    """

    def __init__(self, laws: int = 1, looking: float = math.inf, shrinking: float = math.inf) -> None:
        self.laws, self.left, self.since, self.until = laws, [looking, shrinking], 0.0, 0.0
        self.shrinks = False

    def begin(self) -> None:
        """A law is to be asked."""
        self.since, self.shrinks = time.perf_counter(), False
        left = max(0.0, self.left[0])
        self.until = self.since + max(left / self.laws, min(AT_ONCE, PART * left))

    def found(self) -> None:
        """An example breaks it."""
        self._pay()
        self.since, self.shrinks = time.perf_counter(), True
        self.until = self.since + max(LEAST, PART * self.left[1])

    def end(self) -> None:
        """The law has been asked."""
        self._pay()
        self.laws = max(1, self.laws - 1)

    @property
    def over(self) -> bool:
        """Whether it should stop."""
        return time.perf_counter() > self.until

    def _pay(self) -> None:
        self.left[self.shrinks] -= time.perf_counter() - self.since
