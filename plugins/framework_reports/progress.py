"""The progress bar: only where standard error is a terminal, drawn at most ten times a second, without a thread.

rich is imported when there is something to draw: it costs time, and importing it draws from Python's random numbers.
"""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from framework import Run, hookimpl

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

EVERY = 0.1  # seconds between two drawings


@frozen
class Progress:
    """Show iteration, mean return, mean length and steps per second while the run works."""

    def build(self, run: Run) -> "ProgressBar":
        """The extension for one run."""
        return ProgressBar()


class ProgressBar:
    """Draws on standard error."""

    bar: "Bar | None" = None
    drawn = 0.0

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Draw the empty bar."""
        if run.quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("iteration"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("return {task.fields[mean]}  length {task.fields[length]}  {task.fields[speed]} steps/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self.task = self.bar.add_task("", total=run.config.iterations, mean="-", length="-", speed="-")
        self.bar.start()

    @hookimpl
    def iteration_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Draw, if it is time to."""
        now = time.monotonic()
        if self.bar is None or (now - self.drawn < EVERY and run.iteration + 1 < run.config.iterations):
            return
        self.drawn = now
        recent = run.recent_returns
        self.bar.update(
            self.task,
            completed=run.iteration + 1,
            mean=f"{sum(recent) / len(recent):.2f}" if recent else "-",
            length=f"{metrics['mean_length']:.1f}",
            speed=f"{run.steps / metrics['seconds']:,.0f}",
        )
        self.bar.refresh()

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """Leave the last state standing."""
        if self.bar is not None:
            self.bar.stop()

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Likewise, so that the error is printed below it."""
        if self.bar is not None:
            self.bar.stop()
