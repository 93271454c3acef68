"""Writes the files of a record although the disk is full: each by itself, if necessary to a temporary folder."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from ..errors import warn
from ..run import Run
from .environment_state import beside, carried, keep
from .record import write_tensors


def attempt(run: Run, name: str, write: Callable[[Path], object], *, rescue: bool = True) -> bool:
    """Write a file of the record with `write`, a function of the folder; returns whether that worked.

    A full disk does not end the run: the failure is a warning, once per file, and is listed in `run.unwritten`. With
    `rescue` the file is written to a temporary folder instead, if possible.
    """
    directory = run.directory
    assert directory is not None
    try:
        write(directory)
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        run.unwritten.pop(name, None)
        return True
    if name not in run.unwritten:
        warn(f"{directory / name} cannot be written: {reason}")
    run.unwritten[name] = reason
    if not rescue:
        return False
    with suppress(OSError):
        if run.unwritten_directory is None:
            run.unwritten_directory = Path(tempfile.mkdtemp(prefix=f"framework-{directory.name}-"))
        write(run.unwritten_directory)
        run.unwritten[name] += f", so it was written to {run.unwritten_directory}"
    return False


def keep_policy(run: Run, state: Mapping[str, Tensor], name: str) -> bool:
    """Write a state of the run's policy, and the environment's statistics; returns whether it is in the record."""
    written = attempt(run, name, lambda directory: write_tensors(directory / name, state))
    keep(run.policy, run.environment, run.config.environment.label)
    if statistics := carried(run.policy):
        attempt(run, beside(name), lambda directory: write_tensors(directory / beside(name), statistics))
    return written


def missing(run: Run) -> str:
    """The missing files of the record, in a sentence; empty if there are none."""
    files = "; ".join(f"{name} ({reason})" for name, reason in run.unwritten.items())
    return f"the record {run.directory} is not complete: {files}" if files else ""
