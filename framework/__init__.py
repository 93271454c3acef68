"""Reinforcement learning in which every part is a plugin. Names are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api import evaluate, load, train
    from .config import Config, OptimizerSettings, RolloutSettings, UpdateSettings
    from .contracts import (
        Action,
        Actor,
        Advantages,
        Baseline,
        Batch,
        Environment,
        Estimate,
        Estimator,
        Evaluation,
        Inputs,
        Loss,
        LossFunction,
        Policy,
        Rollout,
        Sequences,
        Stateful,
        Step,
        TabularMDP,
    )
    from .errors import FrameworkError, PartError, UsageError
    from .evaluation import Performance
    from .hookspecs import hookimpl
    from .reporting.metrics_file import read_metrics
    from .result import Result
    from .run import Run
    from .tabular.environment import TabularLanes

_HOMES = {
    "api": ("evaluate", "load", "train"),
    "config": ("Config", "OptimizerSettings", "RolloutSettings", "UpdateSettings"),
    "contracts": (
        *("Action", "Actor", "Advantages", "Baseline", "Batch", "Environment", "Estimate", "Estimator", "Evaluation"),
        *("Inputs", "Loss", "LossFunction", "Policy", "Rollout", "Sequences", "Stateful", "Step", "TabularMDP"),
    ),
    "errors": ("FrameworkError", "PartError", "UsageError"),
    "evaluation": ("Performance",),
    "hookspecs": ("hookimpl",),
    "reporting.metrics_file": ("read_metrics",),
    "result": ("Result",),
    "run": ("Run",),
    "tabular.environment": ("TabularLanes",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022
    "__version__",
    "evaluate", "load", "read_metrics", "train",
    "Config", "OptimizerSettings", "RolloutSettings", "UpdateSettings",
    "Action", "Actor", "Advantages", "Baseline", "Batch", "Environment", "Estimate", "Estimator", "Evaluation",
    "Inputs", "Loss", "LossFunction", "Policy", "Rollout", "Sequences", "Stateful", "Step", "TabularMDP",
    "FrameworkError", "PartError", "UsageError",
    "hookimpl",
    "Performance", "Result", "Run", "TabularLanes",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name's home on first use, so that `--help` need not wait for torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'framework' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
