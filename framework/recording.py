"""What a report may use to write a record, which `framework.load`, `evaluate` and `show` read back.

Each file is written whole or not at all; one that cannot be written goes to a temporary folder (`attempt`). The files
are named `POLICY`, `LAST`, `METRICS`, `EXTENSIONS`, `GRADIENTS` and `ERROR`.
"""

from .records.record import (
    ERROR,
    EXTENSIONS,
    GRADIENTS,
    LAST,
    METRICS,
    POLICY,
    MetricsFile,
    clean,
    write_config,
    write_gradients,
    write_rows,
    write_spaces,
    write_states,
    write_text,
)
from .records.rescue import attempt, keep_policy, missing

__all__ = [
    "ERROR",
    "EXTENSIONS",
    "GRADIENTS",
    "LAST",
    "METRICS",
    "POLICY",
    "MetricsFile",
    "attempt",
    "clean",
    "keep_policy",
    "missing",
    "write_config",
    "write_gradients",
    "write_rows",
    "write_spaces",
    "write_states",
    "write_text",
]
