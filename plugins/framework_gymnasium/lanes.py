"""Lanes of Gymnasium, stepped together on the host; its three ways to reset a lane become one."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from attrs import evolve
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from torch import Tensor

from framework import Step, UsageError
from framework.tools import own_line, warn

from .guard import IDLE, LaneError, lane_seeds
from .infos import INFO_KEY, Array, InfoSettings, MisuseError, as_number, describe, look_up
from .masks import LaneMasks
from .statistics import merge_statistics
from .vectorised import check_column, check_observations, copy_into, presence_key
from .workers import Processes, describe_activity


class GymnasiumLanes:
    """A vector environment as an `Environment`. All numbers are copied into buffers that are returned at each step.

    Gymnasium resets a lane whose episode ended in one of three ways, and none reaches the loss:

    * `next_step`: the step after the end ignores its action and returns the next episode's first observation. That row
      is not a step of the environment: its `valid` is False.
    * `same_step`: the ending step returns the next episode's first observation, and the last state in `info`, from
      where it is copied into `successors`.
    * `disabled`: lanes that ended are reset here, each with a seed of its own.

    Floating-point observations become float32, whatever the space's dtype. Actions are passed as a copy, because an
    environment may keep them, and an actor writes the next ones into the same buffer.
    """

    resolved: Mapping[str, str]  # the values chosen for settings that were "auto"

    def __init__(
        self, lanes: VectorEnv[Any, Any, Any], autoreset: str, info_settings: InfoSettings, device: torch.device
    ) -> None:
        """Take the spaces from one lane, and make the buffers."""
        self.lanes: Any = lanes
        self.autoreset, self.info_settings, self.device = autoreset, info_settings, device
        self.count = int(lanes.num_envs)
        self.guarded = isinstance(lanes.unwrapped, SyncVectorEnv | AsyncVectorEnv)  # each lane has its `Guard`
        self.observation_space, dtype = _observations(lanes.single_observation_space)
        self.action_space = lanes.single_action_space
        if not isinstance(self.action_space, spaces.Discrete | spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
            raise UsageError(f"environment 'gymnasium': no policy takes actions of {self.action_space}")
        self.has_statistics = self.guarded and bool(lanes.call("statistics")[0])  # type: ignore[attr-defined]
        self.has_suspects = self.guarded and bool(lanes.call("has_suspects")[0])  # type: ignore[attr-defined]
        self.render_fps = lanes.metadata.get("render_fps", 30)
        self.action_masks: Tensor | None = None  # [N, actions] bool; known after the first reset

        def buffer(kind: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros((self.count, *shape), dtype=kind)

        shape = self.observation_space.shape or ()
        observations = buffer(dtype, *shape)
        successors = observations if autoreset == "next_step" else buffer(dtype, *shape)
        columns = {name: torch.full((self.count,), torch.nan) for name in info_settings.metrics}
        self._host = Step(
            observations,
            successors,
            buffer(torch.float32),
            buffer(torch.bool),
            buffer(torch.bool),
            valid=buffer(torch.bool) if autoreset == "next_step" else None,
            metrics=columns or None,
        )
        self._observations, self._successors = observations.numpy(), successors.numpy()
        self._rewards = self._host.rewards.numpy()
        self._terminated, self._truncated = self._host.terminated.numpy(), self._host.truncated.numpy()
        self._valid = None if self._host.valid is None else self._host.valid.numpy()
        self._metrics = {name: column.numpy() for name, column in columns.items()}
        self._masks = LaneMasks(self.action_space, self.count, info_settings.masks, self.guarded)
        self._ended: Array = np.zeros(self.count, bool)
        self._clock = self._episodes = 0
        self._missing = set(info_settings.metrics) if info_settings.is_explicit else set()  # chosen, and never seen

    def reset(self, generator: torch.Generator) -> Tensor:
        """Start new episodes in all lanes, each with a seed drawn from `generator`."""
        try:
            result = self.lanes.reset(seed=lane_seeds(self.lanes, self._draw(generator)))
            if not isinstance(result, tuple | list) or len(result) != 2:
                raise MisuseError(f"reset must return (observations, info), got {describe(result)}")
            observations, info = result
            copy_into(self._observations, self._checked(observations))
            self._masks.reset(info)
            if self._masks.tensor is not None:
                if self._host.action_masks is None:
                    self._host = evolve(self._host, action_masks=self._masks.tensor)
                self.action_masks = self._masks.tensor.to(self.device)
        except Exception as error:
            self._raise(error, "reset of all lanes")
        self._ended[:] = False
        self._clock = 0
        return self._host.observations.to(self.device)

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Step all lanes."""
        array = actions.numpy() if actions.device.type == "cpu" else actions.cpu().numpy()
        array = array.astype(self.action_space.dtype)  # always a copy
        try:
            result = self.lanes.step(array)
            if not isinstance(result, tuple | list) or len(result) != 5:
                got = len(result) if isinstance(result, tuple | list) else describe(result)
                raise MisuseError(
                    f"step must return 5 values: observations, rewards, terminated, truncated, info; got {got}"
                )
            observations, rewards, terminated, truncated, info = result
            observations = self._checked(observations)
            self._clock += 1
            if self._valid is not None:
                np.logical_not(self._ended, out=self._valid)
            self._rewards[:] = rewards if self.guarded else check_column("rewards", rewards, self.count)
            self._terminated[:] = terminated if self.guarded else check_column("terminated", terminated, self.count)
            self._truncated[:] = truncated if self.guarded else check_column("truncated", truncated, self.count)
            np.logical_or(self._terminated, self._truncated, out=self._ended)
            if self._valid is None:
                copy_into(self._successors, observations)
            if self._masks.tensor is not None:
                self._masks.update(info, ~self._ended)
            elif self._masks.may_warn and info:
                self._masks.warn(info, "in a step")
            if self._ended.any():
                observations = self._finish(observations, info, generator)
            copy_into(self._observations, observations)
        except Exception as error:
            self._raise(error, f"step {self._clock} since the last reset of all lanes, actions {array.tolist()}")
        return self._host if self.device.type == "cpu" else self._on_device()

    def busy(self) -> str:
        """Which lanes are in a reset or step, and in which one: for an environment that does not return."""
        status = getattr(self.lanes.unwrapped, "status", None)
        if status is None:
            return f"all lanes, step {self._clock} since their last reset"
        activities = [(lane, status[2 * lane], status[2 * lane + 1]) for lane in range(self.count)]
        return ", ".join(
            f"lane {lane} {describe_activity(activity, clock)}"
            for lane, clock, activity in activities
            if activity != IDLE
        )

    def statistics(self) -> dict[str, Tensor]:
        """The running statistics of the wrappers; empty: no wrapper has any."""
        if not self.has_statistics:
            return {}
        if isinstance(self.lanes.unwrapped, Processes):
            self.lanes.unwrapped.finish_pending()
        return merge_statistics(self.lanes.call("statistics"))

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """Restore the running statistics of every lane's wrappers, and stop updating them."""
        if self.guarded and state:
            self.lanes.call("set_statistics", {name: value.numpy() for name, value in state.items()})

    def render(self) -> Array:
        """The first lane's frame, `[H, W, 3]` uint8; with `render_mode` rgb_array."""
        frames = self.lanes.render()
        if frames is None:
            raise UsageError("environment 'gymnasium' draws only with environment.render_mode rgb_array")
        return np.asarray(frames[0])

    def close(self) -> None:
        """End the lanes' processes and close their windows."""
        if self.lanes.closed:
            return
        names = self._unsaved_wrappers()
        self.lanes.close()
        if names:
            warn(
                f"environment 'gymnasium': what {' and '.join(names)} returns depends on what it saw before. That is "
                "not kept with the policy, and every evaluation begins without it: give the wrapper state_dict() and "
                "load_state_dict(state), or use NormalizeObservation or --policy.normalize instead"
            )
        if self._missing and self._episodes:
            names = ", ".join(sorted(self._missing))
            warn(
                f"environment 'gymnasium': metrics {names}: {self._episodes} episodes ended, and info had no such "
                "number at the end of any"
            )

    def _checked(self, observations: Any) -> Any:
        """Observations that fit the buffers; `Guard` has checked them where each lane has one."""
        if self.guarded:
            return observations
        return check_observations(observations, self._observations, self.lanes.single_observation_space)

    def _unsaved_wrappers(self) -> Sequence[str]:
        """The wrappers that learnt what is not saved; empty where lanes broke."""
        with suppress(Exception):
            if self.has_suspects and self._episodes:
                names: Sequence[str] = self.lanes.call("unsaved_wrappers")[0]
                return names
        return ()

    def _finish(self, observations: Any, info: Any, generator: torch.Generator) -> Any:
        """Record the last steps of episodes; returns what the policy observes next."""
        (ended,) = self._ended.nonzero()
        last = info
        if self.autoreset == "same_step":
            final = info.get("final_obs")
            if final is None:
                raise MisuseError("info has no 'final_obs', which mode same_step gives with an episode's last step")
            for lane in ended.tolist():
                copy_into(self._successors[lane : lane + 1], np.asarray(final[lane])[None], "unsafe", lane)
            last = info.get("final_info", {})
        self._episodes += len(ended)
        for column in self._metrics.values():
            column.fill(np.nan)
        if last:  # else looking for numbers would cost more than the step
            for lane in ended.tolist():
                for column, number in zip(self._metrics.values(), self._episode_metrics(last, lane), strict=True):
                    column[lane] = np.nan if number is None else number
        if self._missing:
            self._missing = {name for name in self._missing if np.isnan(self._metrics[name][ended]).all()}
        if self._masks.tensor is not None:
            self._masks.allow_all(ended)
            if self.autoreset == "same_step":
                self._masks.update(info, self._ended)
        if self.autoreset == "disabled":
            seeds = lane_seeds(self.lanes, self._draw(generator))
            if isinstance(seeds, list):
                seeds = [seed if over else None for seed, over in zip(seeds, self._ended, strict=True)]
            observations, info = self.lanes.reset(seed=seeds, options={"reset_mask": self._ended.copy()})
            observations = self._checked(observations)
            if self._masks.tensor is not None:
                self._masks.update(info, self._ended)
        return observations

    def _episode_metrics(self, last: Any, lane: int) -> Sequence[float | None]:
        """The metrics of an episode that ended in `lane`."""
        if self.guarded:
            numbers: Sequence[float | None] = last[INFO_KEY][lane][0]
            return numbers
        return [self._metric(name, last, lane) for name in self._metrics]

    def _metric(self, name: str, last: Any, lane: int) -> float | None:
        """A metric in the `info` of a vectorised environment: a column of all lanes, or of the lanes in `_name`."""
        column, present = look_up(last, name), look_up(last, presence_key(name))
        if column is None or (present is not None and not np.broadcast_to(present, self.count)[lane]):
            return None
        value = column[lane] if np.ndim(column) else column
        number = None if value is None else as_number(value)
        if number is None and value is not None and self.info_settings.is_explicit:
            raise MisuseError(f"metric '{name}': expected one number per lane in info, got {describe(value)}")
        return number

    def _raise(self, error: Exception, where: str) -> None:
        """Raise a `LaneError`, which names the lane if that is known."""
        if isinstance(error, LaneError):
            raise error
        text = str(error) if isinstance(error, MisuseError) else f"{type(error).__name__}: {error}"
        lane_error = LaneError(f"{where}: {text}")
        lane_error.place = own_line(error)
        raise lane_error from error

    def _draw(self, generator: torch.Generator) -> list[int]:
        drawn: list[int] = torch.randint(2**31 - 1, (self.count,), generator=generator, device=self.device).tolist()
        return drawn

    def _on_device(self) -> Step:
        """The step on `device`, where that is not the host."""
        host = self._host
        return Step(
            host.observations.to(self.device),
            host.successors.to(self.device),
            host.rewards.to(self.device),
            host.terminated.to(self.device),
            host.truncated.to(self.device),
            valid=None if host.valid is None else host.valid.to(self.device),
            action_masks=None if host.action_masks is None else host.action_masks.to(self.device),
            metrics=None if host.metrics is None else {k: column.to(self.device) for k, column in host.metrics.items()},
        )


def _observations(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], torch.dtype]:
    """The space of observations as policies see them, and their dtype."""
    if isinstance(space, spaces.Discrete):
        return space, torch.int64
    if not isinstance(space, spaces.Box):
        raise UsageError(f"environment 'gymnasium': observations of {space} cannot be flattened")
    large = space.dtype == np.uint64 and bool((space.high > np.iinfo(np.int64).max).any())
    if np.issubdtype(space.dtype, np.floating) or large:
        with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32), torch.float32
    if space.dtype == np.uint8:
        return space, torch.uint8
    low, high = space.low.astype(np.int64), space.high.astype(np.int64)
    return spaces.Box(low, high, dtype=np.int64), torch.int64
