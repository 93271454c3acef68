"""What wrappers have learnt of the numbers that passed through them, which an evaluation needs as training had it.

Gymnasium's `NormalizeObservation` and `NormalizeReward` keep a running mean, variance and count; a wrapper of one's own
is carried if it has `state_dict()` and `load_state_dict(state)`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

RUNNING = ("obs_rms", "return_rms")  # as Gymnasium's wrappers call their running statistics
MOMENTS = ("mean", "var", "count")


def chain(env: Any) -> list[Any]:
    """The wrappers of a lane and its environment, from the outermost."""
    found = [env]
    while isinstance(found[-1], gymnasium.Wrapper):
        found.append(found[-1].env)
    return found


def keeping(env: Any) -> Iterator[tuple[str, Any]]:
    """The wrappers of a lane that keep something, from the innermost, each with its name: `0.NormalizeObservation`."""
    found = 0
    for wrapper in reversed(chain(env)):
        running = any(hasattr(getattr(wrapper, name, None), "count") for name in RUNNING)
        if running or (hasattr(wrapper, "state_dict") and hasattr(wrapper, "load_state_dict")):
            yield f"{found}.{type(wrapper).__name__}", wrapper
            found += 1


def lane_statistics(env: Any) -> dict[str, Any]:
    """Of one lane: name → number or array."""
    state: dict[str, Any] = {}
    for name, wrapper in keeping(env):
        if hasattr(wrapper, "state_dict"):
            state |= {f"{name}.state.{key}": np.array(value) for key, value in wrapper.state_dict().items()}
            continue
        for kind in RUNNING:
            running = getattr(wrapper, kind, None)
            if running is not None:
                state |= {f"{name}.{kind}.{moment}": np.array(getattr(running, moment)) for moment in MOMENTS}
    return state


def set_lane_statistics(env: Any, state: Mapping[str, Any]) -> None:
    """Put it back, and let running statistics stand still from here on."""
    for name, wrapper in keeping(env):
        if hasattr(wrapper, "load_state_dict"):
            begin = f"{name}.state."
            wrapper.load_state_dict(
                {key.removeprefix(begin): value for key, value in state.items() if key.startswith(begin)}
            )
        for kind in RUNNING:
            running = getattr(wrapper, kind, None)
            if running is not None and f"{name}.{kind}.mean" in state:
                for moment in MOMENTS:
                    given = state[f"{name}.{kind}.{moment}"]
                    setattr(running, moment, given if np.ndim(given) else float(given))
        if hasattr(wrapper, "update_running_mean"):
            wrapper.update_running_mean = False


def merged(lanes: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Of all lanes: moments as if one wrapper had seen every lane's numbers; of other wrappers, what lane 0 has.

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
