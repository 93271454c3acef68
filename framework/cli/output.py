"""Standard output is for a command's result only; what parts and their processes print goes to standard error.

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


_redirected: list[_Standard] = []


@contextmanager
def redirected(ends: bool = False) -> Iterator[None]:
    """Redirect standard output to standard error, except in `results`; characters that the encoding lacks are replaced.

    `ends`: the process ends with the command, so that what `atexit` prints goes to standard error, too.
    """
    _open_closed_descriptors()
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
    _redirected.append(standard)
    sys.stdout = own_stream = _open_stderr(sys.stderr)
    try:
        yield
    finally:
        _redirected.pop()
        with suppress(OSError, ValueError):
            sys.stdout.flush()  # a part may have replaced it
        _flush(own_stream, STDERR)
        _flush(sys.stderr, STDERR)
        if not ends:
            sys.stdout, sys.stderr = streams
            _restore(standard, errors)


def _open_stderr(stderr: TextIO) -> TextIO:
    """A separate stream to standard error, because a part may wrap, change or close `sys.stdout`."""
    if _descriptor(stderr) != STDERR:
        return stderr
    buffer = _StaysOpen(io.FileIO(STDERR, "w", closefd=False))
    return io.TextIOWrapper(buffer, stderr.encoding, "backslashreplace", line_buffering=True)


class _StaysOpen(io.BufferedWriter):
    """Not closed by a wrapper of `sys.stdout.buffer` that is garbage-collected."""

    def close(self) -> None:
        """Only flush."""
        self.flush()


def _restore(standard: _Standard, errors: list[tuple[io.TextIOWrapper, str | None]]) -> None:
    if standard.descriptor is not None:
        _flush_c()
        os.dup2(standard.descriptor, STDOUT)
        os.close(standard.descriptor)
    for stream, handler in errors:
        stream.reconfigure(errors=handler)


@contextmanager
def results(encoding: str | None = None) -> Iterator[None]:
    """In this block `sys.stdout` is standard output. A reader that has left, such as `| head`, is not an error.

    `encoding`: for a format that requires one.

    Raises:
        OutputError: standard output is closed, or its device is full.
    """
    standard = _redirected[-1] if _redirected else _Standard(sys.stdout, None)
    stream, redirected = standard.stream, sys.stdout
    if stream is None:
        raise OutputError("standard output is closed")
    if standard.descriptor is not None:
        _flush(redirected, STDERR)
        _flush_c()
        os.dup2(standard.descriptor, STDOUT)
    sys.stdout = stream
    previous_encoding = stream.encoding if encoding and isinstance(stream, io.TextIOWrapper) else None
    try:
        if previous_encoding is not None:
            stream.reconfigure(encoding=encoding)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            stream.flush()
    except OSError as error:
        _flush(stream, STDOUT)
        if error.errno in (errno.EPIPE, errno.EIO):  # the reader has left
            return
        raise OutputError(f"standard output cannot be written: {error.strerror or error}") from None
    finally:
        if previous_encoding is not None:
            stream.reconfigure(encoding=previous_encoding)  # type: ignore[attr-defined]
        sys.stdout = redirected
        if standard.descriptor is not None:
            os.dup2(STDERR, STDOUT)


def standard_output() -> TextIO | None:
    """The stream that `results` prints to; None: it is closed."""
    return _redirected[-1].stream if _redirected else sys.stdout


def console(stderr: bool = False) -> "Console":
    """A console that prints text as it is, without markup or emoji: a name may contain brackets or `:cat:`."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def _flush(stream: TextIO | None, descriptor: int) -> None:
    """Write what is buffered, or drop it: otherwise Python would try again at exit, and fail."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        if _descriptor(stream) != descriptor:
            return
        saved, devnull = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, descriptor)
        with suppress(OSError, ValueError):
            stream.flush()
        os.dup2(saved, descriptor)
        os.close(saved)
        os.close(devnull)


def _flush_c() -> None:
    """Flush the output of C libraries."""
    with suppress(OSError, TypeError, AttributeError):  # not on Windows
        ctypes.CDLL(None).fflush(None)


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _open_closed_descriptors() -> None:
    """Otherwise the next file that is opened would become standard output, and receive what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            devnull = os.open(os.devnull, os.O_RDWR)
            os.dup2(devnull, descriptor)
            if devnull != descriptor:
                os.close(devnull)
            else:
                os.set_inheritable(descriptor, True)


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    stream = standard_output()
    return stream is not None and stream.isatty()  # None: closed, as by `>&-`
