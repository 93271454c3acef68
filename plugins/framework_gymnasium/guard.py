"""The outermost wrapper of each lane: it checks and copies what the environment returns, and nothing else does.

An environment may return its own buffer, a list, an array, a tensor or any other container, and change it later. What
the guard returns is a copy, in the dtype of the observation space; of `info`, only the entries that are needed.
"""

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from framework.tools import own_line, warn

from .infos import (
    INFO_KEY,
    Array,
    InfoSettings,
    MisuseError,
    as_mask,
    as_number,
    describe,
    first_overflow,
    mask_problem,
    mask_size,
    read_metric,
)
from .statistics import lane_statistics, set_lane_statistics
from .unsaved_wrappers import changed_wrappers, copy_suspects

Env = gymnasium.Env[Any, Any]

IDLE, CREATING, RESET, STEP = 1, 2, 3, 4  # what a lane is doing; 0: its process has not started
STEP_VALUES = "step must return 5 values: observation, reward, terminated, truncated, info"
OLD_API = "is it written for the old gym API? Wrap it in shimmy.GymV21CompatibilityV0 or GymV26CompatibilityV0"


class LaneError(RuntimeError):
    """An environment raised; the message says in which lane, at which step and after which action."""

    place = ""  # file:line in function, of the environment's own code


class Guard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Copies and checks what a lane returns, and names lane, step and action in errors.

    `status` holds two numbers per lane, the step of its episode and what it is doing (see above). They locate a lane
    that never returns, or whose process died.
    """

    def __init__(
        self, env: Env, lane: int, info_settings: InfoSettings | None = None, status: MutableSequence[int] | None = None
    ) -> None:
        """Take the dtype and shape of observations from the space."""
        super().__init__(env)
        self.lane, self.clock, self.info_settings = lane, 0, info_settings or InfoSettings()
        self.status: MutableSequence[int] = status or [0] * (2 * lane + 2)
        self._dtype, self._shape = env.observation_space.dtype, env.observation_space.shape or ()
        self._discrete = isinstance(env.observation_space, spaces.Discrete)
        self._mask_size = None if self.info_settings.masks == "none" else mask_size(env.action_space)
        self._mask_source: Callable[[Mapping[str, Any]], Any] | None = None
        self._source_unknown = self._mask_size is not None  # no mask has come yet
        self._suspects = copy_suspects(env)
        self.has_suspects = bool(self._suspects)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        self.clock = 0
        self._set_status(RESET)
        try:
            returned = self.env.reset(seed=seed) if options is None else self.env.reset(seed=seed, options=options)
            if not isinstance(returned, tuple | list) or len(returned) != 2 or not isinstance(returned[1], Mapping):
                self._refuse_reset(returned)
            observation, info = self._copy_observation(returned[0]), returned[1]
            extract: dict[str, Any] = {}
            if self._mask_source is not None:
                extract = {INFO_KEY: (None, self._read_mask(info))}
            elif self._source_unknown:
                extract = self._first_mask(info)
        except BaseException as error:
            self._raise(error, f"lane {self.lane}, reset with seed {seed}", "reset")
        self._set_status(IDLE)
        return observation, extract

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        status, at = self.status, 2 * self.lane
        status[at + 1] = STEP
        try:
            returned: Any = self.env.step(action)
            if type(returned) is not tuple or len(returned) != 5:
                _check_step(returned)
            observation, reward, terminated, truncated, info = returned
            observation = self._copy_observation(observation)
            if type(reward) is not float:
                reward = _as_reward(reward)
            if type(terminated) is not bool:
                terminated = _as_flag("terminated", terminated)
            if type(truncated) is not bool:
                truncated = _as_flag("truncated", truncated)
            if type(info) is not dict and not isinstance(info, Mapping):
                raise MisuseError(f"info: expected a dict, which may be empty, got {describe(info)}")
            extract: dict[str, Any] = {}
            if terminated or truncated:
                metrics = [read_metric(self.info_settings, name, info) for name in self.info_settings.metrics]
                extract = {INFO_KEY: (metrics, None)}
            elif self._mask_source is not None:
                extract = {INFO_KEY: (None, self._read_mask(info))}
            elif self._source_unknown and "action_mask" in info:
                extract = self._first_mask(info)
        except BaseException as error:
            self._raise(error, f"lane {self.lane}, step {self.clock} of its episode, action {action}", "step")
        self.clock += 1
        status[at], status[at + 1] = self.clock, IDLE
        return observation, reward, terminated, truncated, extract

    def close(self) -> None:
        """As the environment's; what it raises is a warning, so that the other lanes are closed too."""
        try:
            self.env.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            where = own_line(error)
            warn(f"environment 'gymnasium': close of lane {self.lane} raised {type(error).__name__}: {error} ({where})")

    def statistics(self) -> dict[str, Any]:
        """The running statistics of this lane's wrappers: see `statistics`."""
        return lane_statistics(self.env)

    def set_statistics(self, state: dict[str, Any]) -> None:
        """Restore the running statistics of this lane's wrappers, and stop updating them."""
        set_lane_statistics(self.env, state)

    def unsaved_wrappers(self) -> list[str]:
        """The wrappers of this lane that learnt what is not saved; call it only before the lane is closed."""
        return changed_wrappers(self._suspects)

    def _set_status(self, activity: int) -> None:
        at = 2 * self.lane
        self.status[at] = self.clock
        self.status[at + 1] = activity

    def _copy_observation(self, observation: Any) -> Any:
        """A copy that nothing else refers to, in the dtype of the space."""
        if type(observation) is np.ndarray and observation.dtype == self._dtype and observation.shape == self._shape:
            return observation.copy()
        if self._discrete and type(observation) in (int, np.int64):
            return observation
        if hasattr(observation, "detach"):
            observation = observation.detach().cpu()
        try:
            array = np.asarray(observation)
        except Exception as error:
            raise MisuseError(f"observation: expected numbers of shape {list(self._shape)}, got {error}") from error
        if array.dtype.kind not in "biuf":
            raise MisuseError(
                f"observation: expected numbers of shape {list(self._shape)}, got {describe(observation)}"
            )
        if array.shape != self._shape:
            raise MisuseError(f"observation of shape {list(array.shape)}, and the space is {self.observation_space}")
        with np.errstate(over="raise", invalid="ignore"):
            try:
                converted = array.astype(self._dtype)
            except FloatingPointError:
                number = first_overflow(array, self._dtype)
                raise MisuseError(f"observation: {number:g} is beyond {self._dtype}") from None
        if converted.dtype.kind != "f" and not np.array_equal(converted, array):
            first = array[converted != array].flat[0]
            raise MisuseError(f"observation: the space's dtype {self._dtype} cannot hold {first} ({array.dtype})")
        return converted

    def _find_mask_source(self, info: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any] | None:
        """A function of `info` that returns the mask, by the environment's convention; None: it has no masks."""
        count, how = self._mask_size, self.info_settings.masks
        if count is None:
            return None
        if how == "info" or (how == "auto" and as_mask(info.get("action_mask"), count) is not None):
            return lambda info: info.get("action_mask")
        if how == "method" or (how == "auto" and self.env.has_wrapper_attr("action_masks")):
            masks = self.env.get_wrapper_attr("action_masks")
            return lambda info: masks() if callable(masks) else self.env.get_wrapper_attr("action_masks")
        return None

    def _first_mask(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Find the source of masks; an `action_mask` that is not a mask is reported once and ignored."""
        assert self._mask_size is not None
        self._mask_source = self._find_mask_source(info)
        value = info.get("action_mask")
        self._source_unknown = self._mask_source is None and value is None
        if self._mask_source is not None:
            return {INFO_KEY: (None, self._read_mask(info))}
        return {} if value is None else {INFO_KEY: (None, mask_problem(value, self._mask_size, self.action_space))}

    def _read_mask(self, info: Mapping[str, Any]) -> Array | None:
        """Which actions are allowed next; None: all."""
        assert self._mask_source is not None
        assert self._mask_size is not None
        value = self._mask_source(info)
        if value is None and self.info_settings.masks == "auto":
            return None
        mask = as_mask(value, self._mask_size)
        if mask is None:
            problem = mask_problem(value, self._mask_size, self.action_space)
            raise MisuseError(f"{problem}: environment.action_masks none trains without")
        return mask

    def _refuse_reset(self, returned: Any) -> NoReturn:
        expected = "reset must return (observation, info), info a dict"
        if isinstance(returned, tuple | list) and len(returned) == 2 and returned[1] is None:
            raise MisuseError(f"{expected}, got None as info")
        raise MisuseError(f"{expected}, got {describe(returned)}: {OLD_API}")

    def _raise(self, error: BaseException, where: str, method: str) -> NoReturn:
        """Raise a `LaneError`; what was raised from outside is raised as it is, and the lane's status stays."""
        outside = type(error).__module__.partition(".")[0] == "framework" and not isinstance(error, Exception)
        if outside or isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise error
        self._set_status(IDLE)
        text = str(error) if isinstance(error, MisuseError) else f"{type(error).__name__}: {error}"
        for word in ("seed", "options"):
            if isinstance(error, TypeError) and f"unexpected keyword argument '{word}'" in str(error):
                text = f"reset takes no {word}, and Gymnasium's is reset(self, *, seed=None, options=None): {text}"
        if isinstance(error, ValueError) and "unpack (expected 5, got 4)" in str(error):  # by a wrapper of Gymnasium's
            text = f"{STEP_VALUES}; got 4: {OLD_API}"
        lane_error = LaneError(f"{where}: {text}")
        code = getattr(getattr(type(self.env.unwrapped), method, None), "__code__", None)
        defined = f"{code.co_filename}:{code.co_firstlineno} in {method}" if code else ""
        lane_error.place = defined if isinstance(error, MisuseError) else own_line(error, or_else=False) or defined
        raise lane_error from error


def return_copies(env: Env) -> Env:
    """Make an environment return copies to the wrappers around it: one that stacks frames keeps the observations."""
    step, reset = env.step, env.reset

    def copied_step(action: Any) -> Any:
        returned = step(action)
        return (_copy(returned[0]), *returned[1:]) if isinstance(returned, tuple) and len(returned) == 5 else returned

    def copied_reset(**arguments: Any) -> Any:
        returned = reset(**arguments)
        return (_copy(returned[0]), *returned[1:]) if isinstance(returned, tuple) and len(returned) == 2 else returned

    env.step, env.reset = copied_step, copied_reset  # type: ignore[method-assign]
    return env


def _copy(observation: Any) -> Any:
    """A copy of an observation of any kind."""
    if isinstance(observation, np.ndarray):
        return observation.copy()
    if isinstance(observation, Mapping):
        return {name: _copy(part) for name, part in observation.items()}
    if isinstance(observation, tuple):
        parts = [_copy(part) for part in observation]
        return type(observation)(*parts) if hasattr(observation, "_fields") else tuple(parts)  # a graph is a namedtuple
    if isinstance(observation, Sequence) and not isinstance(observation, str | bytes):
        return [_copy(part) for part in observation]
    if hasattr(observation, "detach"):
        return observation.detach().clone()
    return observation


def _check_step(returned: Any) -> None:
    """Refuse anything but five values; a list of five is accepted."""
    if isinstance(returned, tuple | list) and len(returned) == 5:
        return
    if isinstance(returned, tuple | list):
        hint = f": {OLD_API}" if len(returned) == 4 else ""
        raise MisuseError(f"{STEP_VALUES}; got {len(returned)}{hint}")
    raise MisuseError(f"{STEP_VALUES}; got {describe(returned)}")


def _as_reward(value: Any) -> float:
    number = as_number(value)
    if number is None:
        raise MisuseError(f"reward: expected one number, got {describe(value)}")
    return number


def _as_flag(name: str, value: Any) -> bool:
    number = as_number(value)
    if number not in (0.0, 1.0):
        raise MisuseError(f"{name}: expected True or False, got {describe(value)}")
    return bool(number)


def lane_seeds(lanes: VectorEnv[Any, Any, Any], drawn: Sequence[int]) -> Any:
    """One seed per lane; one number for an environment that Gymnasium did not vectorise lane by lane."""
    return list(drawn) if isinstance(lanes.unwrapped, SyncVectorEnv | AsyncVectorEnv) else drawn[0]
