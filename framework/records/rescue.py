"""Files of a record where the disk refuses: each by itself, elsewhere if need be, and what is missing is said."""

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
    """Write a file of the record, by a function of the folder; whether it lies there.

    What the disk refuses is warned of once, and kept in `run.unwritten`: a full disk fails no run. With `rescue` it is
    written to a temporary folder instead, if that takes it.
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
        run.unwritten[name] += f", so that it lies in {run.unwritten_directory}"
    return False


def keep_policy(run: Run, state: Mapping[str, Tensor], name: str) -> bool:
    """Write a state of the run's policy, and what goes with it of the environment; whether it lies in the record."""
    written = attempt(run, name, lambda directory: write_tensors(directory / name, state))
    keep(run.policy, run.environment, run.config.environment.label)
    if learnt := carried(run.policy):
        attempt(run, beside(name), lambda directory: write_tensors(directory / beside(name), learnt))
    return written


def missing(run: Run) -> str:
    """What the record lacks, in a sentence; empty if nothing."""
    files = "; ".join(f"{name} ({reason})" for name, reason in run.unwritten.items())
    return f"the record {run.directory} is not complete: {files}" if files else ""
