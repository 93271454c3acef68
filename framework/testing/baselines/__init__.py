"""Laws of baselines: what every one keeps to, what those with state do, and what the claims promise."""

# isort: off
from . import outputs, dependence, neutral, linear, state  # in the order in which laws are stated

__all__ = ["dependence", "linear", "neutral", "outputs", "state"]
