"""Parts that break laws, for `framework check`."""

import json

from attrs import frozen

from framework.cli import main

LEAK = "nothing_leaks_over_a_truncation"


def listing(capsys, *words):
    """Exit code, and what was printed for a machine."""
    code = main(["check", *words])
    return code, json.loads(capsys.readouterr().out)


@frozen
class Raises:
    """Nothing at all."""

    def __call__(self, rollout):
        raise RuntimeError("no such thing")


ODD = """import enum
import math
import sys
from pathlib import Path
import torch
from attrs import Factory, field, frozen
from framework import Estimate, hookimpl
from framework.returns import rewards_to_go

print("imported")

class Mode(enum.Enum):
    A = 1
    B = 2

class Plain:
    pass

@frozen
class Odd:
    needs = frozenset({{"complete_episodes"}})
    mode: Mode = field(factory=lambda: Mode.A)
    other: Mode = Mode.B
    path: Path = Path("here")
    plain: Plain = field(factory=Plain)
    scales: torch.Tensor = field(factory=lambda: torch.ones(2), eq=False)
    clip: float = math.inf
    odd: float = math.nan
    clips: tuple = ((math.inf, 1.0), {{"low": -math.inf}})

    def __call__(self, rollout):
        print("asked")
        {does}
        returns = rewards_to_go(rollout.rewards, rollout.terminated, 0.9)
        return Estimate(returns, returns)

@hookimpl
def estimators():
    return {{"odd": Odd}}
"""
