"""The progress bar: only where standard error is a terminal, drawn at most ten times a second, without a thread."""

import time
from collections.abc import Mapping

from attrs import frozen
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from framework import Run, hookimpl

EVERY = 0.1  # seconds between two drawings


@frozen
class Progress:
    """Show iteration, mean return, mean length and steps per second while the run works."""

    def build(self, run: Run) -> "ProgressBar":
        """The extension for one run."""
        return ProgressBar()


class ProgressBar:
    """Draws on standard error."""

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Draw the empty bar."""
        console = Console(stderr=True)
        self.bar = Bar(
            TextColumn("iteration"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("return {task.fields[mean]}  length {task.fields[length]}  {task.fields[speed]} steps/s"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            disable=run.quiet or not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=run.config.iterations, mean="-", length="-", speed="-")
        self.bar.start()
        self.drawn = 0.0

    @hookimpl
    def iteration_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Draw, if it is time to."""
        now = time.monotonic()
        if self.bar.disable or (now - self.drawn < EVERY and run.iteration + 1 < run.config.iterations):
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
        self.bar.stop()

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Likewise, so that the error is printed below it."""
        if hasattr(self, "bar"):
            self.bar.stop()
