"""The random numbers of the process: taken, and put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class Randomness:
    """The state of the global generators of torch, numpy and Python."""

    def __init__(self) -> None:
        """Read it."""
        self.torch = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        self.numpy: Any = np.random.get_state()
        self.python = random.getstate()

    def put_back(self) -> list[str]:
        """Set it; the names of the generators that had moved."""
        moved = []
        if not torch.equal(torch.get_rng_state(), self.torch):
            torch.set_rng_state(self.torch)
            moved.append("torch's global generator")
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        now: Any = np.random.get_state()
        if now[2:] != self.numpy[2:] or not np.array_equal(now[1], self.numpy[1]):
            np.random.set_state(self.numpy)
            moved.append("numpy's global generator")
        if random.getstate() != self.python:
            random.setstate(self.python)
            moved.append("Python's global generator")
        return moved


@contextmanager
def same_randomness() -> Iterator[None]:
    """Leave the global generators of torch, numpy and Python as they are now."""
    randomness = Randomness()
    try:
        yield
    finally:
        randomness.put_back()
