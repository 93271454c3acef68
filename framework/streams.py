"""Randomness: one generator a purpose, iteration and shard, seeded by a hash, never by arithmetic.

Arithmetic on seeds (`seed + iteration`) makes run 1's second iteration repeat run 2's first. A hash does
not, and because a stream is named by where it is used, there is no generator state to save: a resumed
run asks for the same names and draws the same numbers.
"""

import random
from hashlib import blake2b

import numpy as np
import torch


def derived_seed(seed: int, purpose: str, iteration: int = 0, shard: int = 0) -> int:
    """A 64-bit seed, BLAKE2b of all four. (Of it, torch's CPU generator uses 32 bits.)

    >>> derived_seed(0, "act", 1) != derived_seed(1, "act", 0)
    True
    """
    name = f"{seed}/{purpose}/{iteration}/{shard}".encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")


def generator(
    seed: int, purpose: str, iteration: int = 0, shard: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator on `device`, seeded for this purpose, iteration and shard."""
    made = torch.Generator(device=device)
    made.manual_seed(derived_seed(seed, purpose, iteration, shard))
    return made


def seed_global(device: torch.device, seed: int) -> None:
    """Seed the global generators of torch (CPU and `device`), numpy and Python; they are put back by the caller.

    `torch.manual_seed` would do, and keeps a formatted stack trace for every call on a machine without CUDA.
    """
    seed_torch(device, seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def seed_torch(device: torch.device, seed: int) -> None:
    """Seed torch's alone: numpy's and Python's take 14 µs more."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
