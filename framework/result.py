"""What a run leaves behind."""

from pathlib import Path
from typing import Any

import attrs
import numpy as np
from attrs import frozen
from torch import nn

from .config import Config
from .contracts import Array, PolicyModule
from .errors import UsageError
from .run import Run


@frozen(eq=False)
class Result:
    """What a run left behind. It can be pickled and copied, as a process pool does: then without the working parts.

    In a copy, `run` has its settings, numbers and policy; environments, optimizer, working parts and hooks are None.
    """

    policy: PolicyModule  # trained, an nn.Module
    metrics: dict[str, Array]  # each float64, with an entry an iteration
    recent_returns: Array  # float64, of the last (at most 100) training episodes
    recent_lengths: Array  # int64, steps of the same episodes
    stop_reasons: tuple[str, ...]
    directory: Path | None
    config: Config
    run: Run  # how far it came, and its working parts

    @classmethod
    def of(cls, run: Run) -> "Result":
        """The result of a run that has ended."""
        metrics = {name: np.array(numbers, np.float64) for name, numbers in run.history.items()}
        recent = np.array(run.recent_returns), np.array(run.recent_lengths, np.int64)
        return cls(run.policy, metrics, *recent, tuple(run.stop_reasons), run.directory, run.config, run)

    def __repr__(self) -> str:
        """In a notebook: what came out, in a line."""
        recent = self.recent_returns
        mean = ""
        if len(recent):
            spread = f" ± {recent.std(ddof=1):.2f}" if len(recent) > 1 else ""
            mean = f"mean return {recent.mean():.2f}{spread} over the last {len(recent)} episodes, "
        return f"<Result: {self.run.iteration} iterations, {mean}record: {self.directory or 'none'}>"


def policy_of(given: Any) -> Any:
    """The policy itself; `UsageError` for what is none, with the way to one."""
    if isinstance(given, Result):
        return given.policy
    missing = [name for name in ("act", "evaluate") if not callable(getattr(given, name, None))]
    if isinstance(given, nn.Module) and not missing:
        return given
    if isinstance(given, type):
        got = f"the class {given.__name__}"
    elif isinstance(given, str | Path):
        got = f"{str(given)!r}: framework.load({str(given)!r}) reads the policy of a record"
    elif isinstance(given, nn.Module):
        got = f"a {type(given).__name__} without {' and '.join(missing)}()"
    elif attrs.has(type(given)):
        got = f"settings, {given!r}: framework.train(policy=…) trains one"
    else:
        got = "None" if given is None else f"a {type(given).__name__}"
    raise UsageError(f"policy must be a trained policy, as framework.load and framework.train give it, got {got}")
