"""Scales rewards."""

from collections.abc import Generator
from typing import Any

from attrs import evolve, field, frozen, validators
from framework import Rollout, Run, hookimpl


@frozen
class MyPart:
    """Scale the rewards to learn from; the reported returns stay those of the environment."""

    factor: float = field(default=0.1, validator=validators.gt(0))  # that multiplies each reward

    def build(self, run: Run) -> "MyPartExtension":
        """The extension for one run."""
        return MyPartExtension(self.factor)


class MyPartExtension:
    """Each marked method is a run hook."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    @hookimpl(wrapper=True)
    def collect_rollout(self) -> Generator[None, Rollout, Rollout]:
        """The rollout with scaled rewards."""
        rollout = yield
        return evolve(rollout, rewards=self.factor * rollout.rewards)


@hookimpl
def extensions() -> dict[str, Any]:
    """Offer the extension."""
    return {"my_part": MyPart}
