"""`framework check`: put a part, or all that a plugin offers, to the laws of its role."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import attrs
import tyro
from attrs import field, frozen, validators

from ..config import settings_tree, validate
from ..errors import UsageError
from .options import is_terminal

SIGNS = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "not applicable": "[dim]not applicable[/]"}


@frozen
class Flags:
    """Put parts to the laws of their roles, and show what breaks one.

    WHAT is FILE.py, the name of a part (NAME, PLUGIN:NAME or ROLE:NAME), of an installed plugin, or a module's path.
    """

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WHAT")]
    quick: Annotated[bool, tyro.conf.arg(help="a few cases a law: seconds, for while one writes")] = False
    role: Annotated[str | None, tyro.conf.arg(help="only parts of this role")] = None
    examples: Annotated[int | None, tyro.conf.arg(help="cases a law (100; with --quick, 15)")] = field(
        default=None, validator=validators.optional(validators.ge(1))
    )
    seed: Annotated[int, tyro.conf.arg(help="of the cases: the same are drawn again")] = 0


def main(arguments: Sequence[str]) -> int:
    """Check; exit code 0: all laws are kept, 1: one is broken."""
    words = list(arguments)
    if not words or (words[0].startswith("-") and not {"-h", "--help"} & set(words)):
        raise UsageError("check what? framework check NAME | MODULE | FILE.py [OPTIONS]")
    with attrs.validators.disabled():
        flags = tyro.cli(Flags, args=words, prog="framework check")
    validate("", flags)
    try:
        from ..testing import checking, choosing, telling
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise UsageError("checking needs Hypothesis: pip install framework-rl[testing]") from None
    loaded, parts = choosing.chosen(flags.what, flags.role)
    lawful = [part for part in parts if checking.laws(part.role)]
    if not lawful:
        raise UsageError(f"there are no laws of {' and '.join(sorted({part.role + 's' for part in parts}))} to check")
    examples = flags.examples or (checking.QUICK if flags.quick else checking.EXAMPLES)
    total = sum(len(checking.laws(part.role)) for part in lawful)
    bar = _Bar(total)
    reports = []
    try:
        for part in lawful:
            told = bar.told(part.label)
            reports.append(checking.check(part, examples=examples, seed=flags.seed, loaded=loaded, told=told))
    finally:
        bar.stop()

    def text(verdict: Any) -> str:
        return telling.as_text(verdict, loaded, flags.seed, examples)

    def snippet(verdict: Any) -> str | None:
        if verdict.subject is None:
            return None
        return telling.snippet(verdict.law.name, verdict.subject.part, verdict.case, loaded, flags.seed, examples)

    if is_terminal():
        for report in reports:
            _print(report, text)
    else:
        print(json.dumps([_listing(report, snippet) for report in reports], indent=2, default=str, allow_nan=False))
    return int(any(report.failed for report in reports))


class _Bar:
    """The law that is asked, on standard error, if that is a terminal."""

    def __init__(self, total: int) -> None:
        self.progress: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
            self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.progress.add_task("", total=total)
            self.progress.start()

    def told(self, label: str) -> Callable[[Any], None]:
        """What is called with each law of one part."""

        def show(law: Any) -> None:
            if self.progress is not None:
                self.progress.update(self.task, advance=1, description=f"{label}: {law.name}")

        return show

    def stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()


def _print(report: Any, text: Callable[[Any], str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=report.part.label, title_justify="left")
    table.add_column("law", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("")
    for verdict in report.verdicts:
        told = f"{verdict.examples} cases" if verdict.outcome == "passed" else verdict.reason
        table.add_row(verdict.law.name, SIGNS[verdict.outcome], escape(told))
    console.print(table)
    for verdict in report.failed:
        console.print()
        console.print(text(verdict), markup=False, highlight=False, soft_wrap=True)
    counts = {outcome: len(report.of(outcome)) for outcome in SIGNS}
    console.print(
        f"{report.part.label}: {len(report.verdicts)} laws, {counts['passed']} kept, {counts['failed']} broken, "
        f"{counts['not applicable']} not applicable; {report.examples} cases in {report.seconds:.1f} s, "
        f"seed {report.seed}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _listing(report: Any, snippet: Callable[[Any], str | None]) -> dict[str, Any]:
    part = report.part
    laws = []
    for verdict in report.verdicts:
        entry: dict[str, Any] = {"law": verdict.law.name, "outcome": verdict.outcome, "examples": verdict.examples}
        if verdict.reason:
            entry["reason"] = verdict.reason
        if verdict.outcome == "failed":
            error = verdict.error
            entry |= {
                "statement": verdict.law.statement,
                "settings": None if verdict.subject is None else settings_tree(verdict.subject.settings),
                "expected": _plain(getattr(error, "expected", None)),
                "got": _plain(getattr(error, "got", None)),
                "case": [{name: _plain(cell) for name, cell in row.items()} for row in getattr(error, "case", ())],
                "snippet": snippet(verdict),
            }
        laws.append(entry)
    return {
        "role": part.role,
        "name": part.name,
        "plugin": part.plugin,
        "passed": not report.failed,
        "examples": report.examples,
        "seconds": round(report.seconds, 3),
        "seed": report.seed,
        "laws": laws,
    }


def _plain(value: Any) -> Any:
    """As JSON has it; a number that it cannot hold, as a word."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | bool | int | float | list) else str(value)
