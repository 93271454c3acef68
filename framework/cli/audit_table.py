"""Prints the results of `framework audit` on a terminal: a table, explanations, and the refused combinations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..audit.samples import BIASED
from . import output

DROPPED_FIRST = ("ms", "cosine", "MSE", "of\n‖∇J‖", "SNR", "cosine,\na batch")  # in this order

IN_WORDS = {"of\n‖∇J‖": "the bias relative to ‖∇J‖", "cosine,\na batch": "the cosine of one batch"}


def show(summary: Mapping[str, Any]) -> None:
    """Print the table and its explanations."""
    from rich import box
    from rich.table import Table

    console = output.console()
    rows = summary["combinations"]
    roles = [role for role in ("estimator", "baseline", "loss") if role != "loss" or is_varied(rows, "loss")]
    columns = {**{role: [row[role] for row in rows] for role in roles}, **dict(table_columns(rows))}
    left_out = []
    for heading in DROPPED_FIRST:  # until the table fits the terminal
        if heading in columns and table_width(columns) > console.width:
            del columns[heading]
            left_out.append(IN_WORDS.get(heading, heading))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in columns:
        table.add_column(heading, justify="left" if heading in roles else "right", overflow="fold")
    for cells_of_row in zip(*columns.values(), strict=True):
        table.add_row(*cells_of_row)
    console.print(table)
    if left_out:
        console.print(f"This terminal is too narrow for {join_words(left_out)}: see {summary['csv']}.")
    for line in explanations(summary):
        console.print(line)
    reasons: dict[str, list[str]] = {}
    for row in summary["refused"]:
        reasons.setdefault(row["reason"], []).append(combination_name(row))
    for reason, names in reasons.items():
        console.print(f"refused: {', '.join(names)}: {reason}")
    scope = "the combination" if len(rows) == 1 else f"each of {len(rows)} combinations"
    console.print(
        f"{summary['episodes']:,} episodes in batches of {summary['batch']} for {scope} in "
        f"{summary['seconds']:.1f} s ({summary['episodes_per_second']:,} episodes/s)",
    )
    console.print(f"{summary['csv']}, {summary['picture']}")


def table_columns(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """The headings and columns that have numbers."""
    if rows[0]["bias"] is not None:
        yield "bias", [f"{row['bias']:.3g} ± {row['noise']:.2g}{'*' * bool(row['biased'])}" for row in rows]
        yield "of\n‖∇J‖", [f"{row['relative_bias'] or 0:.2%}" for row in rows]
    if any(row["expected_bias"] is not None for row in rows):
        yield "exact\nbias", ["" if row["expected_bias"] is None else f"{row['expected_bias']:.3g}" for row in rows]
    yield "variance", [format_number(row["variance"]) for row in rows]
    if rows[0]["mean_squared_error"] is not None:
        yield "MSE", [format_number(row["mean_squared_error"]) for row in rows]
    yield "SNR", [format_optional(row["signal_to_noise"], ".3f") for row in rows]
    if rows[0]["cosine"] is not None:
        yield "cosine", [format_optional(row["cosine"], ".4f") for row in rows]
        yield "cosine,\na batch", [format_optional(row["batch_cosine"], ".3f") for row in rows]
    yield "ms", [f"{1000 * row['seconds']:.2f}" for row in rows]


def table_width(columns: Mapping[str, list[str]]) -> int:
    """A table's width in characters: each column's widest line, and three between columns."""
    lines = [[*heading.split("\n"), *column] for heading, column in columns.items()]
    return sum(max(map(len, column)) + 3 for column in lines)


def format_number(number: float) -> str:
    """A number with four digits, or with all digits before the point.

    >>> format_number(13279.6), format_number(68.0123)
    ('13,280', '68.01')
    """
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def format_optional(value: float | None, pattern: str) -> str:
    """A number; an empty string for None."""
    return "" if value is None else format(value, pattern)


def explanations(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers of this audit mean."""
    rows = summary["combinations"]
    if summary["missing"] is not None:
        yield (
            f"No exact gradient, so neither bias, mean squared error nor cosine: {summary['missing']}. An environment "
            "over finite spaces that can be written down has a method mdp() that returns a TabularMDP: see "
            "docs/bias-and-variance.md. What is left is sampled: variance and signal-to-noise."
        )
    else:
        for (kind, gamma, norm), names in group_by_objective(rows).items():
            of = "" if len(group_by_objective(rows)) == 1 else f" of {join_words(list(dict.fromkeys(names)))}"
            aim = "undiscounted return" if kind == "undiscounted" else f"return discounted by γ = {gamma:g}"
            yield f"The bias{of} is the distance from ∇J, the exact gradient of the {aim}. ‖∇J‖ = {norm:.4g}."
        yield (
            "The number after ± is the bias that chance alone causes with this number of episodes. An asterisk (*) "
            f"marks biased estimates: by more than {BIASED:g} times that number, or by their exact bias."
        )
    yield (
        "The variance and SNR (signal-to-noise ratio) are of the gradient of one episode; MSE (mean squared error), "
        "cosine and ms (milliseconds) are of a batch."
    )
    if summary["critic"] is not None:
        source = "exact" if summary["critic"] == "exact" else "those of the policy's own critic"
        yield f"The values V(s) that estimators and baselines use are {source}."


def join_words(words: Sequence[str]) -> str:
    """Words joined as in a sentence.

    >>> join_words(["ms"]), join_words(["ms", "cosine", "MSE"])
    ('ms', 'ms, cosine and MSE')
    """
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def group_by_objective(rows: list[dict[str, Any]]) -> dict[tuple[str, float, float], list[str]]:
    """Each objective with its γ and ‖∇J‖, and the estimators that are compared with it."""
    groups: dict[tuple[str, float, float], list[str]] = {}
    for row in rows:
        groups.setdefault((row["objective"], row["gamma"], row["gradient"]), []).append(row["estimator"])
    return groups


def is_varied(rows: list[dict[str, Any]], role: str) -> bool:
    """Whether the combinations differ in a role."""
    return len({row[role] for row in rows}) > 1


def combination_name(row: Mapping[str, Any]) -> str:
    """A combination's name."""
    return " × ".join(row[role] for role in ("estimator", "baseline", "loss"))
