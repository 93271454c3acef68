"""The extension that keeps a run's record, row by row."""

import contextlib
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from framework import PartError, Run, hookimpl
from framework.records.record import (
    ERROR,
    EXTENSIONS,
    GRADIENTS,
    LAST,
    METRICS,
    POLICY,
    MetricsFile,
    clean,
    write_config,
    write_gradients,
    write_rows,
    write_spaces,
    write_states,
    write_text,
)
from framework.records.rescue import attempt, keep_policy, missing

AGAIN = 60.0  # seconds until metrics.csv is tried again, once the disk refused it


@frozen
class Record:
    """Record configuration, plugins, metrics and the final policy in runs/NAME."""

    needs = frozenset({"directory"})

    def build(self, run: Run) -> "Recorder":
        """The extension for one run."""
        return Recorder()


class Recorder:
    """Writes `run.directory`, before any other observer is told.

    Once the run has started, a file that cannot be written (the disk is full) is a warning; the others are written all
    the same.
    """

    essential = True  # what it raises is an error of the run: it is not switched off, as other reports are
    metrics: MetricsFile | None = None
    again = 0.0  # when metrics.csv is tried again

    @hookimpl(tryfirst=True)
    def run_started(self, run: Run) -> None:
        """What is known before the first step; nothing is lost yet, so that a folder that takes no file is an error."""
        directory = folder(run)
        try:
            write_config(directory, run.config, run.loaded)
            write_spaces(directory, run.environment)
            self.metrics = MetricsFile(directory / METRICS)
        except OSError as error:
            whose = run.label_of(self)
            raise PartError(f"{whose} cannot write to {directory}: {error.strerror or error}") from error

    @hookimpl(tryfirst=True)
    def iteration_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """A row; all rows again, once there is space again."""
        written = self.metrics
        assert written is not None
        if METRICS in run.unwritten and time.monotonic() < self.again:
            written.torn = True
        elif not attempt(run, METRICS, lambda _: written.add(metrics, run.history), rescue=False):
            self.again = time.monotonic() + AGAIN

    @hookimpl(tryfirst=True)
    def run_finished(self, run: Run) -> None:
        """The policy, and what extensions and baseline keep."""
        if self.metrics is None:  # interrupted before this was told of the start
            self.run_started(run)
        keep_policy(run, run.policy.state_dict(), POLICY)
        self._finish(run)

    @hookimpl(tryfirst=True)
    def run_failed(self, run: Run, error: BaseException) -> None:
        """The last good parameters, if there are any rows to go with them, and the traceback."""
        directory = folder(run)
        found = [ERROR]
        if self.metrics is not None and self.metrics.columns:
            try:
                if not (directory / POLICY).is_file() and (state := run.last_good.of(run.policy)):
                    keep_policy(run, state, LAST)
                    found.append(LAST)
                self._finish(run)
            except Exception as second:
                error.add_note(in_a_line(second))
        elif (metrics := self.metrics) is not None:
            attempt(run, METRICS, lambda _: metrics.close(), rescue=False)
        text = "\n\n".join([in_a_line(error), "".join(traceback.format_exception(error))])
        if self.metrics is None:  # perhaps because the folder takes no file, which is said already
            with contextlib.suppress(OSError):
                write_text(directory / ERROR, text)
            return
        attempt(run, ERROR, lambda directory: write_text(directory / ERROR, text))
        error.add_note(missing(run) or f"record: {directory}, with {' and '.join(found)}")

    def _finish(self, run: Run) -> None:
        """What a record has beside the policy, whether the run failed or not."""
        metrics, traced = self.metrics, run.traced
        assert metrics is not None
        if metrics.torn:
            attempt(run, METRICS, lambda directory: write_rows(directory / METRICS, run.history))
            with contextlib.suppress(OSError):
                metrics.close()
        else:
            attempt(run, METRICS, lambda _: metrics.close(), rescue=False)
        if traced is not None:
            attempt(run, GRADIENTS, lambda directory: write_gradients(directory, traced))
        try:
            attempt(run, EXTENSIONS, lambda directory: write_states(directory, run))
        finally:
            clean(folder(run))


def folder(run: Run) -> Path:
    """Where the record goes."""
    assert run.directory is not None
    return run.directory


def in_a_line(error: BaseException) -> str:
    """What is said of a failure where there is no room for a traceback."""
    return " ".join(str(error).split()) or type(error).__name__
