"""REINFORCE for discrete actions: policy, return estimators, baselines and loss."""

from typing import Any

from framework import hookimpl

from .categorical import Categorical
from .mean_baselines import BatchMean, LeaveOneOut, NoBaseline
from .monte_carlo import RewardsToGo, TotalReturn
from .score_function import REINFORCE, Reinforce

__all__ = [
    "REINFORCE",
    "BatchMean",
    "Categorical",
    "LeaveOneOut",
    "NoBaseline",
    "Reinforce",
    "RewardsToGo",
    "TotalReturn",
]


@hookimpl
def policies() -> dict[str, Any]:
    """Offer the categorical policy."""
    return {"categorical": Categorical}


@hookimpl
def estimators() -> dict[str, Any]:
    """Offer the two Monte-Carlo returns."""
    return {"rewards_to_go": RewardsToGo, "total_return": TotalReturn}


@hookimpl
def baselines() -> dict[str, Any]:
    """Offer no baseline, and two that come from the rollout itself."""
    return {"batch_mean": BatchMean, "leave_one_out": LeaveOneOut, "none": NoBaseline}


@hookimpl
def losses() -> dict[str, Any]:
    """Offer the score-function loss."""
    return {"reinforce": REINFORCE}


@hookimpl
def recipes() -> dict[str, Any]:
    """Offer the default parts as a recipe."""
    return {
        "reinforce": {
            "policy": {"name": "categorical"},
            "estimator": {"name": "rewards_to_go"},
            "baseline": {"name": "none"},
            "loss": {"name": "reinforce"},
        }
    }
