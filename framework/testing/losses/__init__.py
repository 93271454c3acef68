"""The laws of losses: what every loss keeps to, whatever it is the loss of.

A loss is handed a few steps with numbers drawn at random (`steps.py`), and a fresh one is made for each question.
Padding is no concern of theirs: a batch has real steps only.
"""

# isort: off
from . import outputs, denominators, gradients, precision, iterations  # in the order in which laws are stated

__all__ = ["denominators", "gradients", "iterations", "outputs", "precision"]
