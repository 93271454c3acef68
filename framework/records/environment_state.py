"""What an environment has learnt that its policy cannot do without: running means of observations, say.

An environment with `statistics()` and `load_statistics(state)` is evaluated with what the training's one had learnt.
The state goes with the policy, as its plain attribute `environment_statistics`, and lies in the record beside it.
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
    """The statistics that go with a policy; empty: none do."""
    return getattr(policy, ATTRIBUTE, None) or {}


def keep(policy: Any, environment: Any, label: str) -> None:
    """Let the statistics of the training's environment, as they are now, go with the policy.

    Where they cannot be had, the policy keeps those that it has, with a warning: they are no reason to lose it.
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
    """Evaluate with them; warn where the environment keeps statistics and the policy brings none."""
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
    """Put what lies in a record beside the policy `path` back on the policy, if anything does."""
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
                f"{file}: '{name}' is not finite: the environment's numbers had diverged, or the file broke"
            )
    setattr(policy, ATTRIBUTE, state)
