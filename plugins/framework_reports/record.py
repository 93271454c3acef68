"""The extension that keeps a run's record, row by row."""

import traceback
from collections.abc import Mapping

from attrs import frozen

from framework import Run, hookimpl
from framework.record import (
    ERROR,
    METRICS,
    MetricsFile,
    write_config,
    write_gradients,
    write_policy,
    write_spaces,
    write_states,
    write_text,
)


@frozen
class Record:
    """Keep configuration, plugins, metrics, the final policy and states in runs/NAME."""

    needs = frozenset({"directory"})

    def build(self, run: Run) -> "Recorder":
        """The extension for one run."""
        return Recorder()


class Recorder:
    """Writes `run.directory`."""

    metrics: MetricsFile | None = None

    @hookimpl
    def run_started(self, run: Run) -> None:
        """What is known before the first step."""
        assert run.directory is not None
        write_config(run.directory, run.config, run.loaded)
        write_spaces(run.directory, run.environment)
        self.metrics = MetricsFile(run.directory / METRICS)

    @hookimpl
    def iteration_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """A row."""
        assert self.metrics is not None
        self.metrics.add(metrics, run.history)

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """The policy, and what extensions and baseline keep."""
        if self.metrics is None:  # interrupted before this was told of the start
            self.run_started(run)
        assert self.metrics is not None
        self.metrics.close()
        assert run.directory is not None
        write_policy(run.directory, run.policy)
        if run.traced is not None:
            write_gradients(run.directory, run.traced)
        write_states(run.directory, run)

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """The traceback."""
        if self.metrics is not None:
            self.metrics.close()
        assert run.directory is not None
        write_text(run.directory / ERROR, "".join(traceback.format_exception(error)))
