"""Files that are written whole or not at all: under a temporary name, flushed to the disk, then renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PART = ".part"  # suffix of temporary names


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end the file is renamed to `path`, and replaces a file there.

    After a power cut there is the old file or the new one; if the block raises, the old one.
    """
    temporary = path.with_name(path.name + PART)
    temporary.unlink(missing_ok=True)  # left by a killed process, perhaps with another mode
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
    """Flush a folder's entries to the disk; does nothing where folders cannot be opened, as on Windows."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
