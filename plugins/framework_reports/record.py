"""The extension that writes a run's record."""

import contextlib
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from framework import PartError, Run, hookimpl
from framework.recording import (
    ERROR,
    EXTENSIONS,
    GRADIENTS,
    LAST,
    METRICS,
    POLICY,
    MetricsFile,
    attempt,
    clean,
    keep_policy,
    missing,
    write_config,
    write_gradients,
    write_rows,
    write_spaces,
    write_states,
    write_text,
)

RETRY_AFTER = 60.0  # seconds until metrics.csv is tried again after a failed write


@frozen
class Record:
    """Record configuration, plugins, metrics and the final policy in runs/NAME."""

    needs = frozenset({"directory"})

    def build(self, run: Run) -> "Recorder":
        """The extension for one run."""
        return Recorder()


class Recorder:
    """Writes to `run.directory`, before any other observer is called.

    Once the run has started, a file that cannot be written (the disk is full) is a warning; the others are written
    anyway.
    """

    essential = True  # its exceptions end the run; other reports are switched off
    metrics: MetricsFile | None = None
    retry_at = 0.0  # time of the next attempt to write metrics.csv

    @hookimpl(tryfirst=True)
    def run_started(self, run: Run) -> None:
        """Write configuration and spaces; an unwritable folder is an error, because nothing is lost yet."""
        directory = folder(run)
        try:
            write_config(directory, run.config, run.loaded)
            write_spaces(directory, run.environment)
            self.metrics = MetricsFile(directory / METRICS)
        except OSError as error:
            label = run.label_of(self)
            raise PartError(f"{label} cannot write to {directory}: {error.strerror or error}") from error

    @hookimpl(tryfirst=True)
    def iteration_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Write a row, or all rows after a failed write."""
        metrics_file = self.metrics
        assert metrics_file is not None
        if METRICS in run.unwritten and time.monotonic() < self.retry_at:
            metrics_file.torn = True
        elif not attempt(run, METRICS, lambda _: metrics_file.add(metrics, run.history), rescue=False):
            self.retry_at = time.monotonic() + RETRY_AFTER

    @hookimpl(tryfirst=True)
    def run_finished(self, run: Run) -> None:
        """Write the policy, and the state of extensions and baseline."""
        if self.metrics is None:  # interrupted before `run_started`
            self.run_started(run)
        keep_policy(run, run.policy.state_dict(), POLICY)
        self._finish(run)

    @hookimpl(tryfirst=True)
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Write the last finite parameters, if there is a row of metrics, and the traceback."""
        directory = folder(run)
        files = [ERROR]
        if self.metrics is not None and self.metrics.columns:
            try:
                if not (directory / POLICY).is_file() and (state := run.last_good.of(run.policy)):
                    keep_policy(run, state, LAST)
                    files.append(LAST)
                self._finish(run)
            except Exception as second:
                error.add_note(one_line(second))
        elif (metrics := self.metrics) is not None:
            attempt(run, METRICS, lambda _: metrics.close(), rescue=False)
        text = "\n\n".join([one_line(error), "".join(traceback.format_exception(error))])
        if self.metrics is None:  # perhaps because the folder is unwritable, which is the error
            with contextlib.suppress(OSError):
                write_text(directory / ERROR, text)
            return
        attempt(run, ERROR, lambda directory: write_text(directory / ERROR, text))
        error.add_note(missing(run) or f"record: {directory}, with {' and '.join(files)}")

    def _finish(self, run: Run) -> None:
        """Write the other files, whether the run failed or not."""
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
    """The folder of the record."""
    assert run.directory is not None
    return run.directory


def one_line(error: BaseException) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__
