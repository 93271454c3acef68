"""The extensions that are on by default and only watch: progress bar, record, plot."""

from typing import Any

from framework import hookimpl

from .plot import Plot
from .progress import Progress
from .record import Record

__all__ = ["Plot", "Progress", "Record"]


@hookimpl
def extensions() -> dict[str, Any]:
    """Offer the three."""
    return {"plot": Plot, "progress": Progress, "record": Record}
