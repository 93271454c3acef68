"""Standard output holds a command's result alone; what parts and their processes print goes to standard error.

A result is printed within `results()`. Everywhere else `sys.stdout` is standard error, and so is file descriptor 1,
which libraries in C and child processes write to.
"""

import ctypes
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import attrs

from ..errors import FrameworkError

if TYPE_CHECKING:
    from rich.console import Console

STDOUT, STDERR = 1, 2  # file descriptors


class OutputError(FrameworkError):
    """A result cannot be printed: standard output is closed, or its device is full."""


@attrs.define
class _Standard:
    """Standard output as it was, and a duplicate of its file descriptor where that is 1."""

    stream: TextIO | None
    descriptor: int | None


_kept: list[_Standard] = []


@contextmanager
def kept(ends: bool = False) -> Iterator[None]:
    """Keep standard output for results; characters that a terminal's encoding lacks are replaced, not refused.

    `ends`: the process ends with the command, and what is printed while it does, as by `atexit`, is no result either.
    """
    _open_what_is_closed()
    streams = sys.stdout, sys.stderr
    if sys.stderr is None:  # as by `2>&-`
        sys.stderr = open(STDERR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
    errors = [(stream, stream.errors) for stream in streams if isinstance(stream, io.TextIOWrapper)]
    for stream, handler in errors:
        if handler == "strict" or (handler == "surrogateescape" and not stream.encoding.lower().startswith("utf")):
            stream.reconfigure(errors="replace")
    standard = _Standard(sys.stdout, None)
    if _descriptor(sys.stdout) == STDOUT:
        with suppress(OSError):
            sys.stdout.flush()
        standard.descriptor = os.dup(STDOUT)
        os.dup2(STDERR, STDOUT)
    _kept.append(standard)
    sys.stdout = aside = _beside(sys.stderr)
    try:
        yield
    finally:
        _kept.pop()
        with suppress(OSError, ValueError):
            sys.stdout.flush()  # a part may have put a stream of its own there
        _flush(aside, STDERR)
        _flush(sys.stderr, STDERR)
        if not ends:
            sys.stdout, sys.stderr = streams
            _give_back(standard, errors)


def _beside(stderr: TextIO) -> TextIO:
    """A stream to standard error of its own: a part may wrap, change or close what it finds as `sys.stdout`."""
    if _descriptor(stderr) != STDERR:
        return stderr
    buffer = _StaysOpen(io.FileIO(STDERR, "w", closefd=False))
    return io.TextIOWrapper(buffer, stderr.encoding, "backslashreplace", line_buffering=True)


class _StaysOpen(io.BufferedWriter):
    """A wrapper of `sys.stdout.buffer` closes it when it is thrown away."""

    def close(self) -> None:
        """Flush alone."""
        self.flush()


def _give_back(standard: _Standard, errors: list[tuple[io.TextIOWrapper, str | None]]) -> None:
    if standard.descriptor is not None:
        _flush_c()
        os.dup2(standard.descriptor, STDOUT)
        os.close(standard.descriptor)
    for stream, handler in errors:
        stream.reconfigure(errors=handler)


@contextmanager
def results(encoding: str | None = None) -> Iterator[None]:
    """Within it `sys.stdout` is standard output. A reader who left, as `| head` or a closed terminal, is no error.

    `encoding` is that of a format which prescribes one.

    Raises:
        OutputError: standard output is closed, or its device is full.
    """
    standard = _kept[-1] if _kept else _Standard(sys.stdout, None)
    stream, usual = standard.stream, sys.stdout
    if stream is None:
        raise OutputError("standard output is closed")
    if standard.descriptor is not None:
        _flush(usual, STDERR)
        _flush_c()
        os.dup2(standard.descriptor, STDOUT)
    sys.stdout = stream
    before = stream.encoding if encoding and isinstance(stream, io.TextIOWrapper) else None
    try:
        if before is not None:
            stream.reconfigure(encoding=encoding)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            stream.flush()
    except OSError as error:
        _flush(stream, STDOUT)
        if error.errno in (errno.EPIPE, errno.EIO):  # whoever read it has left
            return
        raise OutputError(f"standard output cannot be written: {error.strerror or error}") from None
    finally:
        if before is not None:
            stream.reconfigure(encoding=before)  # type: ignore[attr-defined]
        sys.stdout = usual
        if standard.descriptor is not None:
            os.dup2(STDERR, STDOUT)


def standard_output() -> TextIO | None:
    """The stream that `results` prints to; None: it is closed."""
    return _kept[-1].stream if _kept else sys.stdout


def console(stderr: bool = False) -> "Console":
    """A console that prints text as it is: a name may hold brackets, and `:cat:` is no picture."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def _flush(stream: TextIO | None, descriptor: int) -> None:
    """Write what is buffered; what cannot be written is dropped, or Python would try again when it ends, and fail."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        if _descriptor(stream) != descriptor:
            return
        usual, nothing = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, descriptor)
        with suppress(OSError, ValueError):
            stream.flush()
        os.dup2(usual, descriptor)
        os.close(usual)
        os.close(nothing)


def _flush_c() -> None:
    """Write what libraries in C have printed and not yet flushed."""
    with suppress(OSError, TypeError, AttributeError):  # Windows has no such handle
        ctypes.CDLL(None).fflush(None)


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _open_what_is_closed() -> None:
    """Else the next file that is opened would be standard output, and get what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, descriptor)
            if nothing != descriptor:
                os.close(nothing)
            else:
                os.set_inheritable(descriptor, True)
