"""metrics.csv: a row of numbers per iteration, written as it happens, and read back."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..records.files import write_bytes

METRICS = "metrics.csv"


class MetricsFile:
    """Appends rows; when a new column appears, a new file is written and renamed, so that no row is lost."""

    def __init__(self, path: Path) -> None:
        """Make the file; the header comes with the first row."""
        self.path = path
        self.columns: list[str] = []
        self.torn = False  # the last row could not be written whole
        self._file = path.open("wb", buffering=0)

    def add(self, metrics: Mapping[str, float], history: Mapping[str, list[float]]) -> None:
        """Append this iteration's row; `history` holds all rows, in case the file must be rewritten.

        Raises:
            OSError: the disk is full, for example. The next call rewrites all rows.
        """
        fresh = not self.columns
        if self.torn or (not fresh and not metrics.keys() <= set(self.columns)):
            self.rewrite(history)
            return
        columns = list(history) if fresh else self.columns
        row = [metrics.get(name, math.nan) for name in columns]
        text = _lines(([columns] if fresh else []), [row])
        try:
            while text:
                text = text[self._file.write(text) :]
        except OSError:
            self.torn = True
            raise
        self.columns = columns

    def rewrite(self, history: Mapping[str, list[float]]) -> None:
        """Write all rows to a new file that takes the place of the old one.

        Raises:
            OSError: it cannot be written; the old file stays.
        """
        self.torn = True
        self._file.close()  # Windows does not replace an open file
        write_rows(self.path, history)
        self._file = self.path.open("ab", buffering=0)
        self.columns, self.torn = list(history), False

    def close(self) -> None:
        """Flush to the disk, and close the file."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def write_rows(path: Path, history: Mapping[str, list[float]]) -> None:
    """Write a whole table; shorter columns are padded at the end."""
    length = max(map(len, history.values()), default=0)
    padded = [column + [math.nan] * (length - len(column)) for column in history.values()]
    write_bytes(path, _lines([list(history)], zip(*padded, strict=True)))


def _lines(head: Iterable[list[str]], rows: Iterable[Iterable[float]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows(head)
    writer.writerows(["" if number != number else repr(number) for number in row] for row in rows)
    return text.getvalue().encode()


def read_metrics(directory: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """The columns of a record's metrics.csv, by name: float64 `[K]`, an entry per row, NaN where there is no number.

    An incomplete last row, from a run that was killed, is left out.

    Raises:
        UsageError: there is no such file, or it is no table of numbers.

    >>> import framework, tempfile
    >>> directory = f"{tempfile.mkdtemp()}/run"
    >>> _ = framework.train(iterations=3, directory=directory)
    >>> framework.read_metrics(directory)["iteration"]
    array([0., 1., 2.])
    """
    path = Path(directory) / METRICS
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    whole_rows = text[: text.rfind("\n") + 1]
    head, *rows = list(csv.reader(io.StringIO(whole_rows, newline=""))) or [[]]
    try:
        table = [[float(cell) if cell else math.nan for cell in row] for row in rows]
        if any(len(row) != len(head) for row in table):
            raise ValueError("rows of different lengths")
    except ValueError as error:
        raise UsageError(f"{path} is no table of numbers: {error}") from None
    return dict(zip(head, np.array(table, np.float64).reshape(len(table), len(head)).T, strict=True))
