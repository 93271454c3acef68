"""`framework audit`: bias and variance of the gradient that estimators, baselines and losses make, by the numbers."""

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
from .audit_combinations import FLAGS, Combination, Extra, built, wired
from .looking import at_work, named_record
from .options import is_terminal
from .output import results


def main(arguments: Sequence[str]) -> int:
    """Audit; exit code 0."""
    record, given, below = named_record(arguments, FLAGS)
    directory = None if record is None else record.directory
    combinations = wired(given, below, record)
    kept = [one for one in combinations if one.resolved is not None]
    if not kept:
        raise UsageError(
            "no combination can be wired: " + "; ".join(dict.fromkeys(one.refused for one in combinations))
        )
    assert kept[0].resolved is not None
    extra: Extra = kept[0].resolved.extra
    if not extra.out.parent.is_dir():
        raise UsageError(f"{extra.out} cannot be written: there is no folder {extra.out.parent}")
    runs = built([one.resolved for one in kept if one.resolved is not None], extra.batch)
    first = runs[0]
    with at_work(first), Bar("episode", extra.episodes) as bar:
        if directory is not None:
            trained = read_spaces(directory)
            if trained is not None:
                compare(trained, first.environment, str(directory), first.config.environment.label)
            read_policy(directory, first.policy)
        found = audit(runs, episodes=extra.episodes, critic=extra.critic, on_progress=bar.show)
    summary = summarised(found, runs, kept, [one for one in combinations if one.resolved is None])
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


def summarised(
    found: Audit, runs: Sequence[Run], kept: Sequence[Combination], refused: Sequence[Combination]
) -> dict[str, Any]:
    """All that there is to say, as JSON has it."""
    first = runs[0].config
    rows = [_row(one, run.config.estimator, audited) for one, run, audited in zip(kept, runs, found.rows, strict=True)]
    episodes = found.rows[0].batches * found.rows[0].episodes
    return {
        "environment": first.environment.title,
        "policy": first.policy.name,
        "seed": first.seed,
        "episodes": episodes,
        "batch": found.rows[0].episodes,
        "parameters": len(found.rows[0].mean),
        "critic": found.critic,
        "missing": found.missing,
        "seconds": round(found.seconds, 3),
        "episodes_per_second": round(episodes * len(rows) / found.seconds),
        "combinations": rows,
        "refused": [{**one.names, "reason": one.refused} for one in refused],
    }


def _row(combination: Combination, estimator: Part, audited: Audited) -> dict[str, Any]:
    kind, gamma = objective(estimator.settings)
    known = audited.gradient is not None
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
    told = {name: None if number is None or math.isnan(number) else number for name, number in numbers.items()}
    return {**combination.names, "objective": kind if known else None, "gamma": gamma if known else None, **told}


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
