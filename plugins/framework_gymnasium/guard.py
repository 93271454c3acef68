"""The border of each lane: what an environment hands out is checked and copied here, and nowhere else.

An environment may hand out its own buffer, a list, an array, a tensor or any other container, and change it later.
What leaves the guard is a copy, in the dtype of the observation space; of `info`, only what was asked for.
"""

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from framework.tools import own_line, warn

from .forgetful import forgotten, watched
from .infos import OURS, Array, MisuseError, Wanted, beyond, choices, mask, metric, no_mask, number, short
from .statistics import lane_statistics, set_lane_statistics

Env = gymnasium.Env[Any, Any]

OUTSIDE, MAKING, RESET, STEP = 1, 2, 3, 4  # what a lane does; 0: its process has not begun
FIVE = "step must return 5 values: observation, reward, terminated, truncated, info"
OLD_API = "is it written for the old gym API? Wrap it in shimmy.GymV21CompatibilityV0 or GymV26CompatibilityV0"


class LaneError(RuntimeError):
    """An environment raised; the message says in which lane, at which step and after which action."""

    place = ""  # file:line in function, of the environment's own code


class Guard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The outermost wrapper of each lane: it copies, checks, and names lane, step and action where something is wrong.

    `whereabouts` holds two numbers a lane, the step of its episode and what it does (see above): a lane that never
    returns, or the process of which died, is named by them.
    """

    def __init__(
        self, env: Env, lane: int, wanted: Wanted | None = None, whereabouts: MutableSequence[int] | None = None
    ) -> None:
        """Take the dtype and shape of observations from the space."""
        super().__init__(env)
        self.lane, self.clock, self.wanted = lane, 0, wanted or Wanted()
        self.whereabouts: MutableSequence[int] = whereabouts or [0] * (2 * lane + 2)
        self._dtype, self._shape = env.observation_space.dtype, env.observation_space.shape or ()
        self._discrete = isinstance(env.observation_space, spaces.Discrete)
        self._choices = None if self.wanted.masks == "none" else choices(env.action_space)
        self._source: Callable[[Mapping[str, Any]], Any] | None = None  # where masks come from
        self._seeks = self._choices is not None  # no mask came yet
        self._watched = watched(env)
        self.watches = bool(self._watched)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        self.clock = 0
        self._does(RESET)
        try:
            given = self.env.reset(seed=seed) if options is None else self.env.reset(seed=seed, options=options)
            if not isinstance(given, tuple | list) or len(given) != 2 or not isinstance(given[1], Mapping):
                self._wrong_reset(given)
            observation, info = self._copied(given[0]), given[1]
            told: dict[str, Any] = {}
            if self._source is not None:
                told = {OURS: (None, self._mask(info))}
            elif self._seeks:
                told = self._first_mask(info)
        except BaseException as error:
            self._raise(error, f"lane {self.lane}, reset with seed {seed}", "reset")
        self._does(OUTSIDE)
        return observation, told

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        whereabouts, at = self.whereabouts, 2 * self.lane
        whereabouts[at + 1] = STEP
        try:
            given: Any = self.env.step(action)
            if type(given) is not tuple or len(given) != 5:
                _wrong_step(given)
            observation, reward, terminated, truncated, info = given
            observation = self._copied(observation)
            if type(reward) is not float:
                reward = _reward(reward)
            if type(terminated) is not bool:
                terminated = _flag("terminated", terminated)
            if type(truncated) is not bool:
                truncated = _flag("truncated", truncated)
            if type(info) is not dict and not isinstance(info, Mapping):
                raise MisuseError(
                    f"info: expected a dict, an empty one where there is nothing to say, got {short(info)}"
                )
            told: dict[str, Any] = {}
            if terminated or truncated:
                numbers = [metric(self.wanted, name, info) for name in self.wanted.metrics]
                told = {OURS: (numbers, None)}
            elif self._source is not None:
                told = {OURS: (None, self._mask(info))}
            elif self._seeks and "action_mask" in info:
                told = self._first_mask(info)
        except BaseException as error:
            self._raise(error, f"lane {self.lane}, step {self.clock} of its episode, action {action}", "step")
        self.clock += 1
        whereabouts[at], whereabouts[at + 1] = self.clock, OUTSIDE
        return observation, reward, terminated, truncated, told

    def close(self) -> None:
        """As the environment's; what it raises is a warning, for other lanes are still to be closed."""
        try:
            self.env.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            where = own_line(error)
            warn(f"environment 'gymnasium': close of lane {self.lane} raised {type(error).__name__}: {error} ({where})")

    def statistics(self) -> dict[str, Any]:
        """What wrappers around this lane have learnt of the numbers that passed: see `statistics`."""
        return lane_statistics(self.env)

    def set_statistics(self, state: dict[str, Any]) -> None:
        """Put it into the wrappers of this lane, which learn no more."""
        set_lane_statistics(self.env, state)

    def forgotten(self) -> list[str]:
        """Wrappers around this lane that learnt what an evaluation begins without; the lane is to be closed next."""
        return forgotten(self._watched)

    def _does(self, what: int) -> None:
        at = 2 * self.lane
        self.whereabouts[at] = self.clock
        self.whereabouts[at + 1] = what

    def _copied(self, given: Any) -> Any:
        """An observation that nobody else holds, in the dtype of the space."""
        if type(given) is np.ndarray and given.dtype == self._dtype and given.shape == self._shape:
            return given.copy()
        if self._discrete and type(given) in (int, np.int64):
            return given
        if hasattr(given, "detach"):
            given = given.detach().cpu()
        try:
            array = np.asarray(given)
        except Exception as error:
            raise MisuseError(f"observation: expected numbers of shape {list(self._shape)}, got {error}") from error
        if array.dtype.kind not in "biuf":
            raise MisuseError(f"observation: expected numbers of shape {list(self._shape)}, got {short(given)}")
        if array.shape != self._shape:
            raise MisuseError(f"observation of shape {list(array.shape)}, and the space is {self.observation_space}")
        with np.errstate(over="raise", invalid="ignore"):
            try:
                converted = array.astype(self._dtype)
            except FloatingPointError:
                raise MisuseError(f"observation: {beyond(array, self._dtype):g} is beyond {self._dtype}") from None
        if converted.dtype.kind != "f" and not np.array_equal(converted, array):
            first = array[converted != array].flat[0]
            raise MisuseError(f"observation: {first} ({array.dtype}) is no {self._dtype}, which the space has")
        return converted

    def _masks_from(self, info: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any] | None:
        """Which of the two conventions this environment follows; None: neither."""
        count, how = self._choices, self.wanted.masks
        if count is None:
            return None
        if how == "info" or (how == "auto" and mask(info.get("action_mask"), count) is not None):
            return lambda info: info.get("action_mask")
        if how == "method" or (how == "auto" and self.env.has_wrapper_attr("action_masks")):
            given = self.env.get_wrapper_attr("action_masks")
            return lambda info: given() if callable(given) else self.env.get_wrapper_attr("action_masks")
        return None

    def _first_mask(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Find out where masks come from; an `action_mask` that is none is told, once, and is not used."""
        assert self._choices is not None
        self._source = self._masks_from(info)
        given = info.get("action_mask")
        self._seeks = self._source is None and given is None
        if self._source is not None:
            return {OURS: (None, self._mask(info))}
        return {} if given is None else {OURS: (None, no_mask(given, self._choices, self.action_space))}

    def _mask(self, info: Mapping[str, Any]) -> Array | None:
        """Which actions are allowed next; None: all."""
        assert self._source is not None
        assert self._choices is not None
        given = self._source(info)
        if given is None and self.wanted.masks == "auto":
            return None
        found = mask(given, self._choices)
        if found is None:
            why = no_mask(given, self._choices, self.action_space)
            raise MisuseError(f"{why}: environment.action_masks none trains without")
        return found

    def _wrong_reset(self, given: Any) -> NoReturn:
        expected = "reset must return (observation, info), info a dict"
        if isinstance(given, tuple | list) and len(given) == 2 and given[1] is None:
            raise MisuseError(f"{expected}, got None as info")
        raise MisuseError(f"{expected}, got {short(given)}: {OLD_API}")

    def _raise(self, error: BaseException, where: str, method: str) -> NoReturn:
        """Under the name of the lane; what is raised from outside passes, and the lane stays where it is."""
        outside = type(error).__module__.partition(".")[0] == "framework" and not isinstance(error, Exception)
        if outside or isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise error
        self._does(OUTSIDE)
        text = str(error) if isinstance(error, MisuseError) else f"{type(error).__name__}: {error}"
        for word in ("seed", "options"):
            if isinstance(error, TypeError) and f"unexpected keyword argument '{word}'" in str(error):
                text = f"reset takes no {word}, and Gymnasium's is reset(self, *, seed=None, options=None): {text}"
        if isinstance(error, ValueError) and "unpack (expected 5, got 4)" in str(error):  # by a wrapper of Gymnasium's
            text = f"{FIVE}; got 4: {OLD_API}"
        named = LaneError(f"{where}: {text}")
        code = getattr(getattr(type(self.env.unwrapped), method, None), "__code__", None)
        defined = f"{code.co_filename}:{code.co_firstlineno} in {method}" if code else ""
        named.place = defined if isinstance(error, MisuseError) else own_line(error, or_else=False) or defined
        raise named from error


def copying(env: Env) -> Env:
    """Make an environment hand out copies to the wrappers around it: one that stacks frames keeps what it is handed."""
    step, reset = env.step, env.reset

    def copied_step(action: Any) -> Any:
        given = step(action)
        return (_own(given[0]), *given[1:]) if isinstance(given, tuple) and len(given) == 5 else given

    def copied_reset(**arguments: Any) -> Any:
        given = reset(**arguments)
        return (_own(given[0]), *given[1:]) if isinstance(given, tuple) and len(given) == 2 else given

    env.step, env.reset = copied_step, copied_reset  # type: ignore[method-assign]
    return env


def _own(given: Any) -> Any:
    """A copy of an observation, whatever it is made of."""
    if isinstance(given, np.ndarray):
        return given.copy()
    if isinstance(given, Mapping):
        return {name: _own(part) for name, part in given.items()}
    if isinstance(given, tuple):
        parts = [_own(part) for part in given]
        return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)  # a graph's tuple has names
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return [_own(part) for part in given]
    if hasattr(given, "detach"):
        return given.detach().clone()
    return given


def _wrong_step(given: Any) -> None:
    """Refuse what is no result of a step; a list of five is one."""
    if isinstance(given, tuple | list) and len(given) == 5:
        return
    if isinstance(given, tuple | list):
        old = f": {OLD_API}" if len(given) == 4 else ""
        raise MisuseError(f"{FIVE}; got {len(given)}{old}")
    raise MisuseError(f"{FIVE}; got {short(given)}")


def _reward(given: Any) -> float:
    found = number(given)
    if found is None:
        raise MisuseError(f"reward: expected one number, got {short(given)}")
    return found


def _flag(name: str, given: Any) -> bool:
    found = number(given)
    if found not in (0.0, 1.0):
        raise MisuseError(f"{name}: expected True or False, got {short(given)}")
    return bool(found)


def seeds(lanes: VectorEnv[Any, Any, Any], drawn: Sequence[int]) -> Any:
    """One seed a lane, where the environment takes a list: Gymnasium's own vectorised ones take one number."""
    return list(drawn) if isinstance(lanes.unwrapped, SyncVectorEnv | AsyncVectorEnv) else drawn[0]
