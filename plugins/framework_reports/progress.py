"""The progress bar of a run."""

import time
from collections.abc import Collection, Mapping
from functools import partial

from attrs import frozen

from framework import Run, hookimpl
from framework.tools import Bar, so_far


@frozen
class Progress:
    """Show iteration, mean return and length of the last 100 episodes, and steps per second during the run."""

    def build(self, run: Run) -> "ProgressBar":
        """The extension for one run."""
        return ProgressBar()


class ProgressBar:
    """Draws on standard error."""

    bar: Bar | None = None
    began = 0.0  # seconds

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Draw the empty bar."""
        if run.quiet:
            return
        steps = run.config.steps
        unit, total = ("iteration", run.config.iterations) if steps is None else ("step", steps)
        self.bar = Bar(unit, total or 1, "{task.fields[text]}")
        self.bar.show(0, text=_returns(run))
        self.began = time.perf_counter()
        for shard in run.shards:
            shard.on_progress = partial(self._collecting, run)

    def _collecting(self, run: Run, steps: int, ended: int) -> None:
        """Draw during a rollout, which may be long, if it is due."""
        done = run.iteration if run.config.steps is None else run.steps
        if self.bar is not None and self.bar.is_due(done):
            self._draw(run, done, run.steps + steps, run.episodes + ended)

    @hookimpl
    def iteration_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Draw, if it is due."""
        done = run.iteration + 1 if run.config.steps is None else run.steps
        if self.bar is not None and self.bar.is_due(done):
            self._draw(run, done, run.steps, run.episodes)

    def _draw(self, run: Run, done: int, steps: int, episodes: int) -> None:
        assert self.bar is not None
        speed = f"{steps / (time.perf_counter() - self.began):,.0f} steps/s"
        self.bar.show(done, text=f"{_returns(run) if episodes else so_far(episodes, steps)}  {speed}")

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """Keep the last state on the terminal."""
        for shard in run.shards:
            shard.on_progress = None
        if self.bar is not None:
            self.bar.stop()

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """The same, so that the error is printed below the bar."""
        self.run_finished(run)


def _returns(run: Run) -> str:
    return f"return {_mean(run.recent_returns, '.2f')}  length {_mean(run.recent_lengths, '.1f')}"


def _mean(numbers: Collection[float], pattern: str) -> str:
    return format(sum(numbers) / len(numbers), pattern) if numbers else "-"
