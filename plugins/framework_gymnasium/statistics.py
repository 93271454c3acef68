"""The running statistics of wrappers, which an evaluation takes over from training.

Gymnasium's `NormalizeObservation` and `NormalizeReward` keep a running mean, variance and count; a wrapper of your own
is included if it has `state_dict()` and `load_state_dict(state)`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

RUNNING = ("obs_rms", "return_rms")  # as Gymnasium's wrappers call their running statistics
MOMENTS = ("mean", "var", "count")


def wrapper_chain(env: Any) -> list[Any]:
    """The wrappers of a lane and its environment, the outermost first."""
    wrappers = [env]
    while isinstance(wrappers[-1], gymnasium.Wrapper):
        wrappers.append(wrappers[-1].env)
    return wrappers


def stateful_wrappers(env: Any) -> Iterator[tuple[str, Any]]:
    """The wrappers of a lane that have state, the innermost first, each with its name: `0.NormalizeObservation`."""
    number = 0
    for wrapper in reversed(wrapper_chain(env)):
        running = any(hasattr(getattr(wrapper, name, None), "count") for name in RUNNING)
        if running or (hasattr(wrapper, "state_dict") and hasattr(wrapper, "load_state_dict")):
            yield f"{number}.{type(wrapper).__name__}", wrapper
            number += 1


def lane_statistics(env: Any) -> dict[str, Any]:
    """The statistics of one lane: name → number or array."""
    state: dict[str, Any] = {}
    for name, wrapper in stateful_wrappers(env):
        if hasattr(wrapper, "state_dict"):
            state |= {f"{name}.state.{key}": np.array(value) for key, value in wrapper.state_dict().items()}
            continue
        for kind in RUNNING:
            running = getattr(wrapper, kind, None)
            if running is not None:
                state |= {f"{name}.{kind}.{moment}": np.array(getattr(running, moment)) for moment in MOMENTS}
    return state


def set_lane_statistics(env: Any, state: Mapping[str, Any]) -> None:
    """Restore the statistics of one lane, and stop updating them."""
    for name, wrapper in stateful_wrappers(env):
        if hasattr(wrapper, "load_state_dict"):
            begin = f"{name}.state."
            wrapper.load_state_dict(
                {key.removeprefix(begin): value for key, value in state.items() if key.startswith(begin)}
            )
        for kind in RUNNING:
            running = getattr(wrapper, kind, None)
            if running is not None and f"{name}.{kind}.mean" in state:
                for moment in MOMENTS:
                    value = state[f"{name}.{kind}.{moment}"]
                    setattr(running, moment, value if np.ndim(value) else float(value))
        if hasattr(wrapper, "update_running_mean"):
            wrapper.update_running_mean = False


def merge_statistics(lanes: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The statistics of all lanes: moments as if one wrapper had seen all numbers; of other wrappers, those of lane 0.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), 2.1.
    """
    state: dict[str, Tensor] = {}
    for key in lanes[0]:
        name, _, moment = key.rpartition(".")
        if moment not in MOMENTS or name.rpartition(".")[2] not in RUNNING:
            state[key] = torch.as_tensor(lanes[0][key]).clone()
        elif moment == "mean":
            counts = [float(lane[f"{name}.count"]) for lane in lanes]
            total = sum(counts)
            mean = sum(n * lane[key] for n, lane in zip(counts, lanes, strict=True)) / total
            squares = sum(
                n * (lane[f"{name}.var"] + (lane[key] - mean) ** 2) for n, lane in zip(counts, lanes, strict=True)
            )
            for part, value in ((key, mean), (f"{name}.var", squares / total), (f"{name}.count", total)):
                state[part] = torch.as_tensor(np.asarray(value, np.float64)).clone()
    return state
