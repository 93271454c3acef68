"""`framework audit`: measures bias and variance of the gradient for combinations of estimator, baseline and loss."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..audit import Audit, audit, objective
from ..audit.samples import Audited
from ..errors import UsageError
from ..parts import Part
from ..records.record import read_policy, read_spaces
from ..reporting.progress_bar import Bar
from ..run import Run
from ..spaces import compare
from .audit_combinations import FLAGS, Combination, Extra, build_runs, resolve_combinations
from .output import is_terminal, results
from .recorded_run import closing_run, take_record


def main(arguments: Sequence[str]) -> int:
    """Audit; exit code 0."""
    record, rest, record_settings = take_record(arguments, FLAGS)
    directory = None if record is None else record.directory
    combinations = resolve_combinations(rest, record_settings, record)
    usable = [combination for combination in combinations if combination.resolved is not None]
    if not usable:
        raise UsageError(
            "no combination can be wired: "
            + "; ".join(dict.fromkeys(combination.refused for combination in combinations))
        )
    assert usable[0].resolved is not None
    extra: Extra = usable[0].resolved.extra
    if not extra.out.parent.is_dir():
        raise UsageError(f"{extra.out} cannot be written: there is no folder {extra.out.parent}")
    runs = build_runs([combination.resolved for combination in usable if combination.resolved is not None], extra.batch)
    first = runs[0]
    with closing_run(first), Bar("episode", extra.episodes) as bar:
        if directory is not None:
            trained = read_spaces(directory)
            if trained is not None:
                compare(trained, first.environment, str(directory), first.config.environment.label)
            read_policy(directory, first.policy)
        result = audit(runs, episodes=extra.episodes, critic=extra.critic, on_progress=bar.show)
    summary = summarise(
        result, runs, usable, [combination for combination in combinations if combination.resolved is None]
    )
    summary["policy"] = first.config.policy.name if directory is None else str(directory)
    summary |= {"csv": str(extra.out) + ".csv", "picture": str(extra.out) + ".png"}
    _write(summary)
    with results():
        if is_terminal():
            from .audit_table import show

            show(summary)
        else:
            print(json.dumps(summary))
    return 0


def summarise(
    result: Audit, runs: Sequence[Run], usable: Sequence[Combination], refused: Sequence[Combination]
) -> dict[str, Any]:
    """The results, for JSON."""
    first = runs[0].config
    rows = [
        _row(combination, run.config.estimator, audited)
        for combination, run, audited in zip(usable, runs, result.rows, strict=True)
    ]
    episodes = result.rows[0].batches * result.rows[0].episodes
    return {
        "environment": first.environment.title,
        "policy": first.policy.name,
        "seed": first.seed,
        "episodes": episodes,
        "batch": result.rows[0].episodes,
        "parameters": len(result.rows[0].mean),
        "critic": result.critic,
        "missing": result.missing,
        "seconds": round(result.seconds, 3),
        "episodes_per_second": round(episodes * len(rows) / result.seconds),
        "combinations": rows,
        "refused": [{**combination.names, "reason": combination.refused} for combination in refused],
    }


def _row(combination: Combination, estimator: Part, audited: Audited) -> dict[str, Any]:
    kind, gamma = objective(estimator.settings)
    has_exact = audited.gradient is not None
    numbers: dict[str, float | None] = {
        "bias": audited.bias,
        "noise": audited.noise,
        "relative_bias": audited.relative_bias,
        "expected_bias": audited.expected_bias,
        "biased": audited.is_biased,
        "gradient": None if audited.gradient is None else float(audited.gradient.norm()),
        "variance": audited.variance,
        "variance_error": audited.variance_error,
        "mean_squared_error": audited.mean_squared_error,
        "signal_to_noise": audited.signal_to_noise,
        "cosine": audited.cosine,
        "batch_cosine": audited.batch_cosine,
        "steps": audited.steps,
        "seconds": audited.seconds,
    }
    values = {name: None if number is None or math.isnan(number) else number for name, number in numbers.items()}
    return {
        **combination.names,
        "objective": kind if has_exact else None,
        "gamma": gamma if has_exact else None,
        **values,
    }


def _write(summary: Mapping[str, Any]) -> None:
    """The CSV file and the picture."""
    from .audit_picture import draw

    rows = [*summary["combinations"], *({**row, "refused": row["reason"]} for row in summary["refused"])]
    columns = [*summary["combinations"][0], "refused"]
    try:
        with open(summary["csv"], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        draw(summary).savefig(summary["picture"], dpi=150)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
