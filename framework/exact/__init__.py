"""Exact results for tabular worlds: values, visits, the gradient of the objective, and expected gradient estimates.

Everything is computed from the tables of a `TabularMDP`; nothing is sampled. Use float64.
"""

from .expected import Bias, Moments, bias, expected_gradient, gradient_moments
from .gradients import ROUTES, by_name, gradient
from .policy import SoftmaxTable, action_probabilities
from .trajectories import Trajectories, count_trajectories, trajectories
from .values import (
    action_values,
    advantages,
    expected_return,
    state_values,
    timed_action_values,
    timed_state_values,
    timed_visitation,
    visitation,
)

__all__ = [
    "ROUTES",
    "Bias",
    "Moments",
    "SoftmaxTable",
    "Trajectories",
    "action_probabilities",
    "action_values",
    "advantages",
    "bias",
    "by_name",
    "count_trajectories",
    "expected_gradient",
    "expected_return",
    "gradient",
    "gradient_moments",
    "state_values",
    "timed_action_values",
    "timed_state_values",
    "timed_visitation",
    "trajectories",
    "visitation",
]
