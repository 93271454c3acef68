"""Laws of return estimators: for all estimators, for those that make claims, and for conventional setting names."""

# isort: off
from . import outputs, dependence, ends, linear, setting_names, rounding  # in the order in which laws are stated

__all__ = ["dependence", "ends", "linear", "outputs", "rounding", "setting_names"]
