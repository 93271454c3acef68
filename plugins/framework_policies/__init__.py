"""Policies beyond the categorical: with a critic, over continuous and over several discrete
actions, with memory, and as a table."""

from typing import Any

from framework import hookimpl

from .actor_critic import ActorCritic
from .gaussian import Gaussian
from .multi_categorical import MultiCategorical
from .recurrent import Recurrent
from .tabular import Tabular

__all__ = ["ActorCritic", "Gaussian", "MultiCategorical", "Recurrent", "Tabular"]


@hookimpl
def policies() -> dict[str, Any]:
    """Offer the policies, each with a critic."""
    return {
        "actor_critic": ActorCritic,
        "gaussian": Gaussian,
        "multi_categorical": MultiCategorical,
        "recurrent": Recurrent,
        "tabular": Tabular,
    }
