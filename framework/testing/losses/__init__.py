"""Laws of losses.

A loss is called on a few steps with random numbers (`steps.py`), and is built anew for each call. There is no padding:
a batch has real steps only.
"""

# isort: off
from . import outputs, denominators, gradients, precision, iterations  # in the order in which laws are stated

__all__ = ["denominators", "gradients", "iterations", "outputs", "precision"]
