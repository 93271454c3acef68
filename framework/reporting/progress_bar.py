"""A progress bar: only where standard error is a terminal, drawn at most ten times a second, without a thread.

rich is imported when there is something to draw: it costs time, and importing it draws from Python's random numbers.
"""

import contextlib
import math
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from ..errors import warn

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """Shows how many of a known total are done.

    Args:
        unit: the counted unit, in one word.
        total: the number of units in all.
        beside: text beside the bar, such as `"return {task.fields[mean]}"`, of the fields passed to `show`.
        patience: seconds before it is first drawn.
        every: seconds between two updates, except the last.
        stays: whether the last state stays on the terminal.
    """

    def __init__(
        self, unit: str, total: int, beside: str = "", *, patience: float = 0.0, every: float = 0.1, stays: bool = True
    ) -> None:
        self.unit, self.total, self.beside, self.every, self.stays = unit, total, beside, every, stays
        seen = sys.stderr is not None and sys.stderr.isatty()  # None: closed, as by `2>&-`
        self.next = time.monotonic() + patience if seen else math.inf
        self.first = self.next  # before that not even the last state is drawn
        self.drawn: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def is_due(self, count: int) -> bool:
        """Whether `show` would draw."""
        now = time.monotonic()
        return now >= self.next or (count >= self.total and now >= self.first)

    def show(self, count: int, **fields: Any) -> None:
        """Draw, if it is due."""
        if not self.is_due(count):
            return
        self.next = time.monotonic() + self.every
        try:
            self._draw(count, fields)
        except Exception as error:
            self._switch_off(error)

    def _draw(self, count: int, fields: dict[str, Any]) -> None:
        if self.drawn is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = [TextColumn(self.unit, markup=False), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn()]
            if self.beside:
                columns.insert(3, TextColumn(self.beside, markup=False))
            self.drawn = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=not self.stays)
            self.task = self.drawn.add_task("", total=self.total, **fields)
            self.drawn.start()
        self.drawn.update(self.task, completed=min(count, self.total), refresh=True, **fields)

    def stop(self) -> None:
        """Stop drawing."""
        if self.drawn is not None:
            try:
                self.drawn.stop()
            except Exception as error:
                self._switch_off(error)
            self.drawn = None

    def _switch_off(self, error: Exception) -> None:
        """Warn once and stop drawing: a closed terminal, for example, must not end the work."""
        self.next = self.first = math.inf
        drawn, self.drawn = self.drawn, None
        if drawn is not None:
            with contextlib.suppress(Exception):  # restore standard output and error
                drawn.stop()
        warn(f"the progress bar is switched off: {type(error).__name__}: {error}")


def so_far(episodes: int, steps: int) -> str:
    """The text about steps; it says so if no episode has ended."""
    return f"{steps:,} steps" if episodes else f"no episode has ended yet ({steps:,} steps)"
