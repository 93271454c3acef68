"""The metrics of an iteration: counted by the run, reported by the loss, and measured by extensions."""

import math
import time
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from ..errors import PartError
from ..kinds import shown
from ..run import RECENT, Run
from .observers import responses


def measure(run: Run, steps: int, began: float) -> dict[str, float]:
    """The metrics of this iteration; `began` is the start of the run."""
    returns, lengths = run.finished.returns, run.finished.lengths
    count = len(returns)
    run.steps += steps
    run.episodes += count
    run.recent_returns.extend(returns[-RECENT:].tolist())
    run.recent_lengths.extend(lengths[-RECENT:].tolist())
    mean = float(returns.sum()) / count if count else math.nan
    deviation = math.sqrt(float(np.square(returns - mean).sum()) / (count - 1)) if count > 1 else math.nan
    metrics = {
        "iteration": run.iteration,
        "steps": run.steps,
        "episodes": run.episodes,
        "mean_return": mean,
        "std_return": deviation,
        "mean_length": float(lengths.sum()) / count if count else math.nan,
    }
    metrics |= {f"environment/{name}": number for name, number in run.finished.mean_metrics.items()}
    if run.config.optimizer.schedule != "constant":
        metrics["lr"] = float(run.optimizer.param_groups[0]["lr"])
    updates = run.loss_metrics
    for name in dict.fromkeys(name for row in updates for name in row):
        if name in metrics:
            raise PartError(f"{run.config.loss.label}: metric '{name}' is the run's own: give it another name")
        label = f"{run.config.loss.label}: metric '{name}'"
        values = [_as_float(label, row[name]) for row in updates if name in row]
        metrics[name] = sum(values) / len(values)
    owners = dict.fromkeys((*metrics, "updates", "seconds", "steps_per_second"), "the run or its loss")
    measured = _measured(run, owners) if run.hook.measure.get_hookimpls() else {}
    elapsed = time.perf_counter() - began
    duration, run.seconds = elapsed - run.seconds, elapsed
    metrics |= {
        "updates": len(updates),
        "seconds": elapsed,
        "steps_per_second": steps / duration if duration else math.nan,
    }
    metrics |= measured
    metrics = {**dict.fromkeys(run.history, math.nan), **metrics}
    for name, number in metrics.items():
        if name not in run.history:
            run.history[name] = [math.nan] * run.iteration
        run.history[name].append(number)
    return metrics


def _as_float(label: str, number: Any) -> float:
    try:
        return float(number)
    except (OverflowError, ValueError, TypeError, RuntimeError):
        raise PartError(f"{label}: expected a number that a float can hold, got {shown(number)}") from None


def _measured(run: Run, owners: dict[str, str]) -> dict[str, float]:
    """The metrics that extensions measure; `owners`: the label of the owner of each name."""
    measured: dict[str, float] = {}
    for extension, answer in responses(run, "measure"):
        label = run.label_of(extension)
        if not isinstance(answer, Mapping):
            raise PartError(f"{label}: measure: expected a dict from name to number, or None, got {answer!r}")
        for name, number in answer.items():
            if not isinstance(name, str) or not isinstance(number, Real):
                raise PartError(f"{label}: measure: expected names with a number each, got {name!r}: {shown(number)}")
            if name in owners:
                raise PartError(f"{label}: measure: '{name}' is a number of {owners[name]}: give it another name")
            owners[name] = label
            measured[name] = _as_float(f"{label}: measure: '{name}'", number)
    return measured
