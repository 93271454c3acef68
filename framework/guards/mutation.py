"""What parts are handed is for reading: who writes into it in a run's first iteration is named.

Others read the same tensors afterwards, so that a run would learn from what was overwritten, without a word. Checksums
of bytes notice what torch's version counters do not: writing through `.data` and through numpy.
"""

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ..errors import PartError

if TYPE_CHECKING:
    from ..run import Run

Record = TypeVar("Record")
NO_CHECK = nullcontext()  # one for all calls: it holds nothing
MOST = 2**22  # bytes of a column that are looked at; of a larger one, evenly spaced rows


def refuse_writes(enabled: bool, label: str, *records: Any) -> AbstractContextManager[None]:
    """If `enabled`: refuse code within that changes a tensor of these records (a rollout, an estimate, a batch).

    Raises:
        PartError: it did; `label` names it.
    """
    return _checked(label, records) if enabled else NO_CHECK


@contextmanager
def _checked(label: str, records: tuple[Any, ...]) -> Iterator[None]:
    before = [(record, _checksums(record)) for record in records]
    yield
    for record, sums in before:
        _compare(label, record, sums)


def remember(run: "Run", stage: str, record: Record) -> Record:
    """What a stage of the core made, before its wrappers see it; until the first update, its checksums are kept."""
    run.checksums = (record, _checksums(record)) if run.traced is None and stage in run.wrappers else None
    return record


def check_unchanged(run: "Run", label: str) -> None:
    """Refuse wrappers that changed it in place; what they return instead is theirs."""
    if run.checksums is not None:
        _compare(label, *run.checksums)
        run.checksums = None


def _compare(label: str, record: Any, sums: dict[str, int]) -> None:
    for name, checksum in _checksums(record).items():
        if checksum != sums[name]:
            column = f"{type(record).__name__.lower()}.{name}"
            raise PartError(
                f"{label}: changed {column} in place, which others read, too: work on a copy, such as {column}.clone()"
            )


def _checksums(record: Any) -> dict[str, int]:
    columns = {name: getattr(record, name) for name in getattr(type(record), "__match_args__", ())}
    return {name: _checksum(column) for name, column in columns.items() if isinstance(column, Tensor)}


def _checksum(column: Tensor) -> int:
    with torch.no_grad():
        rows = column.detach()
        size = rows.numel() * rows.element_size()
        if size > MOST:
            rows = rows.flatten()[:: size // MOST + 1]
        return zlib.crc32(rows.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
