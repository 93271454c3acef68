"""Statistics that an environment learns and its policy depends on, such as running means of observations.

An environment with `statistics()` and `load_statistics(state)` is evaluated with the statistics from training. They are
kept on the policy, in its plain attribute `environment_statistics`, and in the record in a file next to the policy's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ..errors import UsageError, warn

ATTRIBUTE = "environment_statistics"


def beside(name: str) -> str:
    """The file with a policy's statistics.

    >>> beside("policy.safetensors")
    'policy.environment.safetensors'
    """
    return name.replace(".safetensors", ".environment.safetensors")


def carried(policy: Any) -> Mapping[str, Tensor]:
    """The statistics kept on a policy; empty: there are none."""
    return getattr(policy, ATTRIBUTE, None) or {}


def keep(policy: Any, environment: Any, label: str) -> None:
    """Keep the present statistics of the training environment on the policy.

    If `statistics()` raises, the policy keeps those that it has, with a warning: the policy itself must not be lost.
    """
    if not hasattr(environment, "statistics"):
        return
    try:
        state = {name: value.detach().cpu().clone() for name, value in environment.statistics().items()}
    except Exception as error:
        warn(f"{label}: statistics() failed, so that none go with the policy: {type(error).__name__}: {error}")
        return
    if state:
        setattr(policy, ATTRIBUTE, state)


def give(policy: Any, environment: Any, label: str) -> None:
    """Load the policy's statistics into an environment; warn if only the environment has statistics."""
    if not hasattr(environment, "load_statistics"):
        return
    state = carried(policy)
    if state:
        environment.load_statistics(state)
    elif names := sorted({name.split(".")[1] for name in environment.statistics()}):
        warn(
            f"{label}: {', '.join(names)} begins without what it learnt in training, so that the policy sees other "
            "numbers than there: evaluate what `framework.train` or `framework.load` returned, or train with "
            "--policy.normalize, which keeps its statistics in the policy"
        )


def read(path: Path, policy: Any) -> None:
    """Read the statistics recorded for the policy at `path`, if any, onto the policy."""
    file = path.with_name(beside(path.name))
    if not file.is_file():
        return
    try:
        state = load_file(file)
    except Exception as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            raise UsageError(
                f"{file}: '{name}' is not finite: the environment's numbers had diverged, or the file is damaged"
            )
    setattr(policy, ATTRIBUTE, state)
