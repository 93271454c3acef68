"""Lanes of Gymnasium, stepped together on the host; its three ways to reset become one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, VectorEnv
from torch import Tensor

from framework import Step, UsageError

from .making import LaneError, seeds

Array = np.ndarray[Any, Any]


class GymnasiumLanes:
    """A vector environment as an `Environment`. All numbers are copied into buffers that are handed out each step.

    Gymnasium resets a lane whose episode ended in one of three ways, and none reaches the loss:

    * `next_step`: the step after the end ignores its action and returns the next episode's first observation. That row
      is no step of the world: its `valid` is False.
    * `same_step`: the ending step returns the next episode's first observation, and the last state in `info`, from
      where it comes into `successors`.
    * `disabled`: lanes that ended are reset here, each with a seed of its own.

    Floating-point observations become float32, whatever the space has.
    """

    def __init__(self, lanes: VectorEnv[Any, Any, Any], autoreset: str, metrics: Sequence[str], device: torch.device):
        """Take the spaces from one lane, and make the buffers."""
        self.lanes, self.autoreset, self.device = lanes, autoreset, device
        self.count = int(lanes.num_envs)
        self.observation_space, dtype = _observations(lanes.single_observation_space)
        self.action_space = lanes.single_action_space
        if not isinstance(self.action_space, spaces.Discrete | spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
            raise UsageError(f"environment 'gymnasium': no policy takes actions of {self.action_space}")
        self.render_fps = lanes.metadata.get("render_fps", 30)

        def buffer(kind: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros((self.count, *shape), dtype=kind)

        shape = self.observation_space.shape or ()
        observations = buffer(dtype, *shape)
        successors = observations if autoreset == "next_step" else buffer(dtype, *shape)
        told_metrics = {name: torch.full((self.count,), torch.nan) for name in metrics}
        self._host = Step(
            observations,
            successors,
            buffer(torch.float32),
            buffer(torch.bool),
            buffer(torch.bool),
            valid=buffer(torch.bool) if autoreset == "next_step" else None,
            metrics=told_metrics or None,
        )
        self._seen, self._reached = observations.numpy(), successors.numpy()
        self._rewards = self._host.rewards.numpy()
        self._over, self._out = self._host.terminated.numpy(), self._host.truncated.numpy()
        self._valid = None if self._host.valid is None else self._host.valid.numpy()
        self._metrics = {name: column.numpy() for name, column in told_metrics.items()}
        self._ended: Array = np.zeros(self.count, bool)
        self._clock = 0

    def reset(self, generator: torch.Generator) -> Tensor:
        """New episodes everywhere, each lane with a seed drawn from `generator`."""
        observations, _ = self.lanes.reset(seed=seeds(self.lanes, self._draw(generator)))
        np.copyto(self._seen, observations, casting="same_kind")
        self._ended[:] = False
        self._clock = 0
        return self._host.observations.to(self.device)

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Step all lanes."""
        given = actions.numpy() if actions.device.type == "cpu" else actions.cpu().numpy()
        if given.dtype != self.action_space.dtype:
            given = given.astype(self.action_space.dtype)
        try:
            observations, rewards, terminated, truncated, info = self.lanes.step(given)
        except LaneError:
            raise
        except Exception as error:
            where = f"step {self._clock} since the last reset of all lanes, actions {given.tolist()}"
            raise LaneError(f"{where}: {type(error).__name__}: {error}") from error
        self._clock += 1
        if self._valid is not None:
            np.logical_not(self._ended, out=self._valid)
        self._rewards[:] = rewards
        self._over[:] = terminated
        self._out[:] = truncated
        np.logical_or(self._over, self._out, out=self._ended)
        if self._valid is None:
            np.copyto(self._reached, observations, casting="same_kind")
        if self._ended.any():
            observations = self._finish(observations, info, generator)
        np.copyto(self._seen, observations, casting="same_kind")
        return self._host if self.device.type == "cpu" else self._elsewhere()

    def render(self) -> Array:
        """The first lane's picture, `[H, W, 3]` uint8; with `render_mode` rgb_array."""
        frames = self.lanes.render()
        if frames is None:
            raise UsageError("environment 'gymnasium' draws only with environment.render_mode rgb_array")
        return np.asarray(frames[0])

    def close(self) -> None:
        """End the lanes' processes and close their windows."""
        if self.lanes.closed:
            return
        if isinstance(self.lanes.unwrapped, AsyncVectorEnv):
            # one that died, or was interrupted, in the middle of a step never answers
            state = getattr(self.lanes.unwrapped, "_state", None)
            self.lanes.close(terminate=getattr(state, "value", "default") != "default")
        else:
            self.lanes.close()

    def _finish(self, observations: Any, info: Any, generator: torch.Generator) -> Any:
        """What the last steps of episodes say; returns what the policy sees next."""
        (ended,) = self._ended.nonzero()
        last = info
        if self.autoreset == "same_step":
            final = info["final_obs"]
            for lane in ended:
                self._reached[lane] = final[lane]
            last = info.get("final_info", {})
        for name, column in self._metrics.items():
            column[:] = np.nan
            numbers = last.get(name)
            if numbers is not None:  # of the lanes in `_name`, or of all
                known = np.broadcast_to(last.get(f"_{name}", True), self.count) & self._ended
                given = np.broadcast_to(np.asarray(numbers, object), self.count)
                for where in known.nonzero()[0].tolist():
                    column[where] = _number(name, where, given[where])
        if self.autoreset == "disabled":
            drawn = seeds(self.lanes, self._draw(generator))
            if isinstance(drawn, list):
                drawn = [seed if over else None for seed, over in zip(drawn, self._ended, strict=True)]
            observations, _ = self.lanes.reset(seed=drawn, options={"reset_mask": self._ended.copy()})
        return observations

    def _draw(self, generator: torch.Generator) -> list[int]:
        drawn: list[int] = torch.randint(2**31 - 1, (self.count,), generator=generator, device=self.device).tolist()
        return drawn

    def _elsewhere(self) -> Step:
        """The step on the lanes' device, where that is not the host."""
        host = self._host
        return Step(
            host.observations.to(self.device),
            host.successors.to(self.device),
            host.rewards.to(self.device),
            host.terminated.to(self.device),
            host.truncated.to(self.device),
            valid=None if host.valid is None else host.valid.to(self.device),
            metrics=None if host.metrics is None else {k: column.to(self.device) for k, column in host.metrics.items()},
        )


def _number(name: str, lane: int, given: Any) -> float:
    try:
        return float(given)
    except (TypeError, ValueError):
        raise LaneError(f"metrics '{name}': expected a number, got {given!r} in lane {lane}") from None


def _observations(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], torch.dtype]:
    """The space of observations as policies see them, and their dtype."""
    if isinstance(space, spaces.Discrete):
        return space, torch.int64
    if not isinstance(space, spaces.Box):
        raise UsageError(f"environment 'gymnasium': observations of {space} cannot be laid flat")
    if np.issubdtype(space.dtype, np.floating):
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32), torch.float32
    if space.dtype == np.uint8:
        return space, torch.uint8
    low, high = space.low.astype(np.int64), space.high.astype(np.int64)
    return spaces.Box(low, high, dtype=np.int64), torch.int64
