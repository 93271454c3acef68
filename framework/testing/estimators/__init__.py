"""Laws of return estimators: what every one keeps to, what some claim, and what names of settings promise."""

# isort: off
from . import outputs, dependence, ends, linear, setting_names, rounding  # in the order in which laws are stated

__all__ = ["dependence", "ends", "linear", "outputs", "rounding", "setting_names"]
