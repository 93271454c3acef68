"""Laws of baselines: for all baselines, for those with state, and for those that make claims."""

# isort: off
from . import outputs, dependence, neutral, linear, state  # in the order in which laws are stated

__all__ = ["dependence", "linear", "neutral", "outputs", "state"]
