"""What `framework audit` prints for a person: a table, what it is measured against, and what was refused."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..audit.samples import BIASED
from . import output

EXPENDABLE = ("ms", "cosine", "MSE", "of\n‖∇J‖", "SNR", "cosine,\na batch")  # the first goes first

IN_WORDS = {"of\n‖∇J‖": "the bias relative to ‖∇J‖", "cosine,\na batch": "the cosine of one batch"}


def show(summary: Mapping[str, Any]) -> None:
    """Print all of it."""
    from rich import box
    from rich.table import Table

    console = output.console()
    rows = summary["combinations"]
    roles = [role for role in ("estimator", "baseline", "loss") if role != "loss" or several(rows, "loss")]
    columns = {**{role: [row[role] for row in rows] for role in roles}, **dict(cells(rows))}
    left_out = []
    for heading in EXPENDABLE:  # where a terminal is narrow
        if heading in columns and width(columns) > console.width:
            del columns[heading]
            left_out.append(IN_WORDS.get(heading, heading))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in columns:
        table.add_column(heading, justify="left" if heading in roles else "right", overflow="fold")
    for cells_of_row in zip(*columns.values(), strict=True):
        table.add_row(*cells_of_row)
    console.print(table)
    if left_out:
        console.print(f"This terminal is too narrow for {listed(left_out)}: see {summary['csv']}.")
    for line in said(summary):
        console.print(line)
    reasons: dict[str, list[str]] = {}
    for row in summary["refused"]:
        reasons.setdefault(row["reason"], []).append(named(row))
    for reason, names in reasons.items():
        console.print(f"refused: {', '.join(names)}: {reason}")
    whose = "the combination" if len(rows) == 1 else f"each of {len(rows)} combinations"
    console.print(
        f"{summary['episodes']:,} episodes in batches of {summary['batch']} for {whose} in "
        f"{summary['seconds']:.1f} s ({summary['episodes_per_second']:,} episodes/s)",
    )
    console.print(f"{summary['csv']}, {summary['picture']}")


def cells(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Headings and columns, those that have numbers."""
    if rows[0]["bias"] is not None:
        yield "bias", [f"{row['bias']:.3g} ± {row['noise']:.2g}{'*' * bool(row['biased'])}" for row in rows]
        yield "of\n‖∇J‖", [f"{row['relative_bias'] or 0:.2%}" for row in rows]
    if any(row["expected_bias"] is not None for row in rows):
        yield "exact\nbias", ["" if row["expected_bias"] is None else f"{row['expected_bias']:.3g}" for row in rows]
    yield "variance", [spelt(row["variance"]) for row in rows]
    if rows[0]["mean_squared_error"] is not None:
        yield "MSE", [spelt(row["mean_squared_error"]) for row in rows]
    yield "SNR", [number(row["signal_to_noise"], ".3f") for row in rows]
    if rows[0]["cosine"] is not None:
        yield "cosine", [number(row["cosine"], ".4f") for row in rows]
        yield "cosine,\na batch", [number(row["batch_cosine"], ".3f") for row in rows]
    yield "ms", [f"{1000 * row['seconds']:.2f}" for row in rows]


def width(columns: Mapping[str, list[str]]) -> int:
    """Characters that a table takes: each column's widest line, and three between."""
    lines = [[*heading.split("\n"), *column] for heading, column in columns.items()]
    return sum(max(map(len, column)) + 3 for column in lines)


def spelt(given: float) -> str:
    """With four digits, or all before the point.

    >>> spelt(13279.6), spelt(68.0123)
    ('13,280', '68.01')
    """
    return f"{given:,.0f}" if given >= 1000 else f"{given:.4g}"


def number(given: float | None, pattern: str) -> str:
    """A number; nothing where it does not exist."""
    return "" if given is None else format(given, pattern)


def said(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers mean, as far as it depends on the audit."""
    rows = summary["combinations"]
    if summary["missing"] is not None:
        yield (
            f"No exact gradient, so neither bias, mean squared error nor cosine: {summary['missing']}. An environment "
            "over finite spaces that can be written down has a method mdp() that returns a TabularMDP: see "
            "docs/bias-and-variance.md. What is left is sampled: variance and signal-to-noise."
        )
    else:
        for (kind, gamma, norm), names in against(rows).items():
            whose = "" if len(against(rows)) == 1 else f" of {listed(list(dict.fromkeys(names)))}"
            aim = "undiscounted return" if kind == "undiscounted" else f"return discounted by γ = {gamma:g}"
            yield f"The bias{whose} is the distance from ∇J, the exact gradient of the {aim}. ‖∇J‖ = {norm:.4g}."
        yield (
            "After ± stands the bias that chance alone leaves in so many episodes. An asterisk (*) marks estimates "
            f"that are biased beyond doubt: by more than {BIASED:g} times that, or by their exact bias."
        )
    yield (
        "The variance and SNR (signal-to-noise ratio) are of the gradient of one episode; MSE (mean squared error), "
        "cosine and ms (milliseconds) are of a batch."
    )
    if summary["critic"] is not None:
        source = "exact" if summary["critic"] == "exact" else "those of the policy's own critic"
        yield f"The values V(s) that estimators and baselines use are {source}."


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> listed(["ms"]), listed(["ms", "cosine", "MSE"])
    ('ms', 'ms, cosine and MSE')
    """
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def against(rows: list[dict[str, Any]]) -> dict[tuple[str, float, float], list[str]]:
    """Each objective with its γ and ‖∇J‖, and the estimators that are held against it."""
    found: dict[tuple[str, float, float], list[str]] = {}
    for row in rows:
        found.setdefault((row["objective"], row["gamma"], row["gradient"]), []).append(row["estimator"])
    return found


def several(rows: list[dict[str, Any]], role: str) -> bool:
    """Whether the combinations differ in a role."""
    return len({row[role] for row in rows}) > 1


def named(row: Mapping[str, Any]) -> str:
    """A combination by its names."""
    return " × ".join(row[role] for role in ("estimator", "baseline", "loss"))
