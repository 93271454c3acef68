"""Results of laws: as a table on a terminal, else for JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from . import output

STYLES = {"passed": "green", "failed": "red", "not decided": "yellow", "not applicable": "dim"}  # of outcomes


def show(report: Any, text: Callable[[Any, Sequence[str]], str]) -> None:
    """Print a table of all laws, then each broken law in full."""
    from rich.table import Table
    from rich.text import Text

    console = output.console()
    table = Table(title=report.part.label, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    table.add_column("law", overflow="fold")
    table.add_column("examples", justify="right")
    room = console.width - sum(map(len, ("not applicable", "examples", "  " * 2)))
    duplicates = [other for _, *others in group_by_cause(report.failed) for other in others]
    for verdict in report.verdicts:
        reason = "raised the same" if verdict in duplicates else verdict.reason
        fits = len(verdict.law.name) + len(": ") + len(reason) <= room
        reason_text = [": " if fits else "\n", (reason, "dim")] if reason else []
        outcome = Text(verdict.outcome, STYLES[verdict.outcome])
        table.add_row(outcome, Text.assemble(verdict.law.name, *reason_text), str(verdict.examples or ""))
    console.print(table)
    for verdict, *others in group_by_cause(report.failed):
        console.print()
        also = [other.law.name for other in others]
        console.print(text(verdict, also), soft_wrap=True)
    counts = {outcome: len(report.of(outcome)) for outcome in STYLES}
    undecided = f"{counts['not decided']} not decided, " if counts["not decided"] else ""
    console.print(
        f"{report.part.label}: {len(report.verdicts)} laws, {counts['passed']} kept, {counts['failed']} broken, "
        f"{undecided}{counts['not applicable']} not applicable; {report.examples} examples in {report.seconds:.1f} s, "
        f"seed {report.seed}",
        soft_wrap=True,
    )


def listing(report: Any, snippet: Callable[[Any], str | None]) -> dict[str, Any]:
    """The same, for JSON."""
    part = report.part
    first = {other: verdict for verdict, *others in group_by_cause(report.failed) for other in others}
    laws = []
    for verdict in report.verdicts:
        entry: dict[str, Any] = {"law": verdict.law.name, "outcome": verdict.outcome, "examples": verdict.examples}
        if verdict.reason:
            entry["reason"] = verdict.reason
        if verdict in first:
            entry |= {"statement": verdict.law.statement, "same_as": first[verdict].law.name}
        elif verdict.outcome == "failed":
            error = verdict.error
            entry |= {
                "statement": verdict.law.statement,
                "settings": None if verdict.subject is None else _plain(verdict.subject.settings),
                "expected": _plain(getattr(error, "expected", None)),
                "got": _plain(getattr(error, "got", None)),
                "case": _plain(getattr(error, "case", ())),
                "snippet": snippet(verdict),
            }
        laws.append(entry)
    return {
        "role": part.role,
        "name": part.name,
        "plugin": part.plugin,
        "passed": not report.failed and not report.undecided and report.unchecked is None,
        "examples": report.examples,
        "seconds": round(report.seconds, 3),
        "seed": report.seed,
        "laws": laws,
    }


def group_by_cause(failed: Sequence[Any]) -> list[list[Any]]:
    """Broken laws, grouped where the part raised the same error in the same place."""
    groups: dict[str, list[Any]] = {}
    for verdict in failed:
        raised = verdict.reason.startswith("raised ")
        groups.setdefault(verdict.reason if raised else verdict.law.name, []).append(verdict)
    return list(groups.values())


def _plain(value: Any) -> Any:
    """A value for JSON; other types as strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if attrs.has(type(value)):
        return {field.name: _plain(getattr(value, field.name)) for field in attrs.fields(type(value)) if field.init}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
