"""The progress bar of a run."""

from collections.abc import Collection, Mapping

from attrs import frozen

from framework import Run, hookimpl
from framework.bars import Bar


@frozen
class Progress:
    """Show iteration, mean return and length of the last 100 episodes, and steps per second while the run works."""

    def build(self, run: Run) -> "ProgressBar":
        """The extension for one run."""
        return ProgressBar()


class ProgressBar:
    """Draws on standard error."""

    bar: Bar | None = None

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Draw the empty bar."""
        if run.quiet:
            return
        beside = "return {task.fields[mean]}  length {task.fields[length]}  {task.fields[speed]} steps/s"
        steps = run.config.steps
        unit, total = ("iteration", run.config.iterations) if steps is None else ("step", steps)
        self.bar = Bar(unit, total or 1, beside)
        self.bar.show(0, mean="-", length="-", speed="-")

    @hookimpl
    def iteration_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Draw, if it is time to."""
        done = run.iteration + 1 if run.config.steps is None else run.steps
        if self.bar is None or not self.bar.is_due(done):
            return
        self.bar.show(
            done,
            mean=_mean(run.recent_returns, ".2f"),
            length=_mean(run.recent_lengths, ".1f"),
            speed=f"{run.steps / metrics['seconds']:,.0f}",
        )

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


def _mean(numbers: Collection[float], pattern: str) -> str:
    return format(sum(numbers) / len(numbers), pattern) if numbers else "-"
