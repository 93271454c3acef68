"""Lanes of Gymnasium, stepped together on the host; its three ways to reset become one."""

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

from .guard import OUTSIDE, LaneError, seeds
from .infos import OURS, Array, MisuseError, Wanted, choices, look_up, number, short
from .statistics import merged
from .vectorised import copy_into, masked, one_a_lane, rows_of_masks, taken, unused_mask
from .workers import Processes, activity


class GymnasiumLanes:
    """A vector environment as an `Environment`. All numbers are copied into buffers that are handed out each step.

    Gymnasium resets a lane whose episode ended in one of three ways, and none reaches the loss:

    * `next_step`: the step after the end ignores its action and returns the next episode's first observation. That row
      is no step of the world: its `valid` is False.
    * `same_step`: the ending step returns the next episode's first observation, and the last state in `info`, from
      where it comes into `successors`.
    * `disabled`: lanes that ended are reset here, each with a seed of its own.

    Floating-point observations become float32, whatever the space has. Actions are handed over as a copy, for an
    environment may keep them and an actor writes the next ones into the same buffer.
    """

    resolved: Mapping[str, str]  # what settings that were "auto" came to

    def __init__(self, lanes: VectorEnv[Any, Any, Any], autoreset: str, wanted: Wanted, device: torch.device):
        """Take the spaces from one lane, and make the buffers."""
        self.lanes: Any = lanes
        self.autoreset, self.wanted, self.device = autoreset, wanted, device
        self.count = int(lanes.num_envs)
        self.guarded = isinstance(lanes.unwrapped, SyncVectorEnv | AsyncVectorEnv)  # each lane has its `Guard`
        self.observation_space, dtype = _observations(lanes.single_observation_space)
        self.action_space = lanes.single_action_space
        if not isinstance(self.action_space, spaces.Discrete | spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
            raise UsageError(f"environment 'gymnasium': no policy takes actions of {self.action_space}")
        self.learns = self.guarded and bool(lanes.call("statistics")[0])  # type: ignore[attr-defined]
        self.watches = self.guarded and bool(lanes.call("watches")[0])  # type: ignore[attr-defined]
        self.render_fps = lanes.metadata.get("render_fps", 30)
        self.action_masks: Tensor | None = None  # [N, actions] bool; known after the first reset

        def buffer(kind: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros((self.count, *shape), dtype=kind)

        shape = self.observation_space.shape or ()
        observations = buffer(dtype, *shape)
        successors = observations if autoreset == "next_step" else buffer(dtype, *shape)
        columns = {name: torch.full((self.count,), torch.nan) for name in wanted.metrics}
        self._host = Step(
            observations,
            successors,
            buffer(torch.float32),
            buffer(torch.bool),
            buffer(torch.bool),
            valid=buffer(torch.bool) if autoreset == "next_step" else None,
            metrics=columns or None,
        )
        self._seen, self._reached = observations.numpy(), successors.numpy()
        self._rewards = self._host.rewards.numpy()
        self._over, self._out = self._host.terminated.numpy(), self._host.truncated.numpy()
        self._valid = None if self._host.valid is None else self._host.valid.numpy()
        self._metrics = {name: column.numpy() for name, column in columns.items()}
        self._masks: Array | None = None
        self._seeks = wanted.masks == "auto" and choices(self.action_space) is not None  # masks that are not used
        self._ended: Array = np.zeros(self.count, bool)
        self._clock = self._episodes = 0
        self._missing = set(wanted.metrics) if wanted.by_name else set()  # asked for by name, and not come yet

    def reset(self, generator: torch.Generator) -> Tensor:
        """New episodes everywhere, each lane with a seed drawn from `generator`."""
        try:
            result = self.lanes.reset(seed=seeds(self.lanes, self._draw(generator)))
            if not isinstance(result, tuple | list) or len(result) != 2:
                raise MisuseError(f"reset must return (observations, info), got {short(result)}")
            observations, info = result
            copy_into(
                self._seen,
                observations if self.guarded else taken(observations, self._seen, self.lanes.single_observation_space),
            )
            self._allow_first(info)
        except Exception as error:
            self._raise(error, "reset of all lanes")
        self._ended[:] = False
        self._clock = 0
        return self._host.observations.to(self.device)

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Step all lanes."""
        given = actions.numpy() if actions.device.type == "cpu" else actions.cpu().numpy()
        given = given.astype(self.action_space.dtype)  # a copy, always
        try:
            result = self.lanes.step(given)
            if not isinstance(result, tuple | list) or len(result) != 5:
                got = len(result) if isinstance(result, tuple | list) else short(result)
                raise MisuseError(
                    f"step must return 5 values: observations, rewards, terminated, truncated, info; got {got}"
                )
            observations, rewards, terminated, truncated, info = result
            observations = (
                observations if self.guarded else taken(observations, self._seen, self.lanes.single_observation_space)
            )
            self._clock += 1
            if self._valid is not None:
                np.logical_not(self._ended, out=self._valid)
            self._rewards[:] = rewards if self.guarded else one_a_lane("rewards", rewards, self.count)
            self._over[:] = terminated if self.guarded else one_a_lane("terminated", terminated, self.count)
            self._out[:] = truncated if self.guarded else one_a_lane("truncated", truncated, self.count)
            np.logical_or(self._over, self._out, out=self._ended)
            if self._valid is None:
                copy_into(self._reached, observations)
            if self._masks is not None:
                self._allow(info, ~self._ended)
            elif self._seeks and info:
                self._warn_of_masks(info, "in a step")
            if self._ended.any():
                observations = self._finish(observations, info, generator)
            copy_into(self._seen, observations)
        except Exception as error:
            self._raise(error, f"step {self._clock} since the last reset of all lanes, actions {given.tolist()}")
        return self._host if self.device.type == "cpu" else self._elsewhere()

    def busy(self) -> str:
        """Which lanes are in the middle of something, and at which step: for an environment that does not return."""
        table = getattr(self.lanes.unwrapped, "whereabouts", None)
        if table is None:
            return f"all lanes, step {self._clock} since their last reset"
        doing = [(lane, table[2 * lane], table[2 * lane + 1]) for lane in range(self.count)]
        return ", ".join(f"lane {lane} {activity(what, clock)}" for lane, clock, what in doing if what != OUTSIDE)

    def statistics(self) -> dict[str, Tensor]:
        """What wrappers have learnt of the numbers that passed through them; empty: there are no such wrappers."""
        if not self.learns:
            return {}
        if isinstance(self.lanes.unwrapped, Processes):
            self.lanes.unwrapped.settle()
        return merged(self.lanes.call("statistics"))

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """Put it into the wrappers of every lane, which learn no more."""
        if self.guarded and state:
            self.lanes.call("set_statistics", {name: value.numpy() for name, value in state.items()})

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
        names = self._forgotten()
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
                f"environment 'gymnasium': metrics {names}: at the end of none of {self._episodes} episodes was there "
                "such a number in info"
            )

    def _forgotten(self) -> Sequence[str]:
        """Wrappers that learnt what is not kept; none where lanes broke."""
        with suppress(Exception):
            if self.watches and self._episodes:
                found: Sequence[str] = self.lanes.call("forgotten")[0]
                return found
        return ()

    def _finish(self, observations: Any, info: Any, generator: torch.Generator) -> Any:
        """What the last steps of episodes say; returns what the policy sees next."""
        (ended,) = self._ended.nonzero()
        last = info
        if self.autoreset == "same_step":
            final = info.get("final_obs")
            if final is None:
                raise MisuseError("info has no 'final_obs', which mode same_step gives with an episode's last step")
            for lane in ended.tolist():
                copy_into(self._reached[lane : lane + 1], np.asarray(final[lane])[None], "unsafe", lane)
            last = info.get("final_info", {})
        self._episodes += len(ended)
        for column in self._metrics.values():
            column.fill(np.nan)
        if last:  # else looking for numbers would cost more than the step
            for lane in ended.tolist():
                for column, found in zip(self._metrics.values(), self._numbers(last, lane), strict=True):
                    column[lane] = np.nan if found is None else found
        if self._missing:
            self._missing = {name for name in self._missing if np.isnan(self._metrics[name][ended]).all()}
        if self._masks is not None:
            self._masks[ended] = True
            if self.autoreset == "same_step":
                self._allow(info, self._ended)
        if self.autoreset == "disabled":
            drawn = seeds(self.lanes, self._draw(generator))
            if isinstance(drawn, list):
                drawn = [seed if over else None for seed, over in zip(drawn, self._ended, strict=True)]
            observations, info = self.lanes.reset(seed=drawn, options={"reset_mask": self._ended.copy()})
            observations = (
                observations if self.guarded else taken(observations, self._seen, self.lanes.single_observation_space)
            )
            if self._masks is not None:
                self._allow(info, self._ended)
        return observations

    def _numbers(self, last: Any, lane: int) -> Sequence[float | None]:
        """The metrics of an episode that ended in `lane`."""
        if self.guarded:
            found: Sequence[float | None] = last[OURS][lane][0]
            return found
        return [self._number(name, last, lane) for name in self._metrics]

    def _number(self, name: str, last: Any, lane: int) -> float | None:
        """Out of the `info` of a vectorised environment: a column of all lanes, or of those that `_name` tells."""
        column, known = look_up(last, name), look_up(last, masked(name))
        if column is None or (known is not None and not np.broadcast_to(known, self.count)[lane]):
            return None
        given = column[lane] if np.ndim(column) else column
        found = None if given is None else number(given)
        if found is None and given is not None and self.wanted.by_name:
            raise MisuseError(f"metric '{name}': expected one number a lane in info, got {short(given)}")
        return found

    def _allow_first(self, info: Any) -> None:
        """Masks of the first observations; at the very first reset, whether there are any."""
        if self._masks is None and self._have_masks(info):
            count = choices(self.action_space)
            assert count is not None
            self.action_masks = torch.ones((self.count, count), dtype=torch.bool)
            self._masks = self.action_masks.numpy()
            self._host = evolve(self._host, action_masks=self.action_masks)
            self.action_masks = self.action_masks.to(self.device)
        if self._masks is not None:
            self._allow(info, np.ones(self.count, bool))
            assert self._host.action_masks is not None
            self.action_masks = self._host.action_masks.to(self.device)
        elif self._seeks:
            self._warn_of_masks(info, "at reset")

    def _have_masks(self, info: Any) -> bool:
        if self.guarded:
            return any(told is not None and not isinstance(told[1], str) for told in info.get(OURS, ()))
        count, how = choices(self.action_space), self.wanted.masks
        return (
            count is not None
            and how != "none"
            and (how == "info" or rows_of_masks(info, self.count, count) is not None)
        )

    def _warn_of_masks(self, info: Any, when: str) -> None:
        """Say, once, that a mask is not used: it is none, or the first came after the reset of all lanes."""
        why = unused_mask(info, self.guarded, self.count, self.action_space)
        if why is None:
            return
        self._seeks = False
        why = why or f"info has an 'action_mask' {when}, and had none at the reset of all lanes: return it there, too"
        off = "environment.action_masks none stops this warning"
        warn(f"environment 'gymnasium': no action masks are used. {why}. {off}")

    def _allow(self, info: Any, which: Array) -> None:
        """Take the masks of the lanes `which` [N] bool; a lane that says nothing may do all."""
        assert self._masks is not None
        if not self.guarded:
            rows = rows_of_masks(info, *self._masks.shape)
            if rows is None and self.wanted.masks == "info":
                raise MisuseError(f"info has no 'action_mask' of shape {list(self._masks.shape)}")
            self._masks[which] = True if rows is None else rows[which]
            return
        said = info.get(OURS)
        for lane in which.nonzero()[0].tolist():
            told = None if said is None or said[lane] is None else said[lane][1]
            if isinstance(told, str):
                raise MisuseError(f"lane {lane}: {told}: environment.action_masks none trains without")
            self._masks[lane] = True if told is None else told

    def _raise(self, error: Exception, where: str) -> None:
        """Under the name of the lane, where that is known."""
        if isinstance(error, LaneError):
            raise error
        text = str(error) if isinstance(error, MisuseError) else f"{type(error).__name__}: {error}"
        named = LaneError(f"{where}: {text}")
        named.place = own_line(error)
        raise named from error

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
            action_masks=None if host.action_masks is None else host.action_masks.to(self.device),
            metrics=None if host.metrics is None else {k: column.to(self.device) for k, column in host.metrics.items()},
        )


def _observations(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], torch.dtype]:
    """The space of observations as policies see them, and their dtype."""
    if isinstance(space, spaces.Discrete):
        return space, torch.int64
    if not isinstance(space, spaces.Box):
        raise UsageError(f"environment 'gymnasium': observations of {space} cannot be laid flat")
    large = space.dtype == np.uint64 and bool((space.high > np.iinfo(np.int64).max).any())
    if np.issubdtype(space.dtype, np.floating) or large:
        with np.errstate(over="ignore"):  # a bound that float32 does not reach is none
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32), torch.float32
    if space.dtype == np.uint8:
        return space, torch.uint8
    low, high = space.low.astype(np.int64), space.high.astype(np.int64)
    return spaces.Box(low, high, dtype=np.int64), torch.int64
