"""Laws of return estimators: what every one keeps to, what some claim, and what names of settings promise."""

# isort: off
from . import outputs, reach, ends, linear, named, rounding  # in the order in which laws are stated

__all__ = ["ends", "linear", "named", "outputs", "reach", "rounding"]
