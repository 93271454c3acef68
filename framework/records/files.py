"""Files that are written whole or not at all: under a temporary name, flushed to the disk, then renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PART = ".part"  # what the temporary name ends in


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the temporary path to write to; at the end the file there takes its name, over one that has it.

    After a power cut there is the old file or the new one, and if the block raises, the old one.
    """
    temporary = path.with_name(path.name + PART)
    temporary.unlink(missing_ok=True)  # a killed process's, whose mode may be another
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none."""
    with whole(path) as temporary:
        temporary.write_bytes(content)


def _sync(folder: Path) -> None:
    """Put a folder's names on the disk; where a folder cannot be opened, as on Windows, nothing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
