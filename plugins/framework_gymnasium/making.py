"""From settings to a vector environment of Gymnasium, with errors that say what to do."""

import ast
import functools
import importlib
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from framework import UsageError
from framework.errors import unknown
from framework.interrupts import ENDING

if TYPE_CHECKING:
    from .settings import Gymnasium

Env = gymnasium.Env[Any, Any]
EXTRAS = {"mujoco": "mujoco"}  # what an import that fails is called → the extra of ours that installs it


class LaneError(RuntimeError):
    """An environment raised; the message says in which lane, at which step and after which action."""


class Guard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The outermost wrapper of each lane: it names lane, step and action where the environment breaks."""

    def __init__(self, env: Env, lane: int) -> None:
        super().__init__(env)
        self.lane, self.clock = lane, 0
        if multiprocessing.parent_process() is not None:
            for name in ("SIGINT", *ENDING):  # Ctrl-C and the like are the run's, which closes its lanes
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which it ends them

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        self.clock = 0
        try:
            observation, info = self.env.reset(seed=seed, options=options)
            self._check_shape(observation)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an exit, or a panic of a library in Rust, too
            raise LaneError(f"lane {self.lane}, reset with seed {seed}: {type(error).__name__}: {error}") from error
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's; an episode's last observation is a copy, for a reset may write into its buffer."""
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            result = float(reward), bool(terminated), bool(truncated)
            self._check_shape(observation)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            where = f"lane {self.lane}, step {self.clock} of its episode, action {action}"
            raise LaneError(f"{where}: {type(error).__name__}: {error}") from error
        self.clock += 1
        if (terminated or truncated) and isinstance(observation, np.ndarray):
            observation = observation.copy()
        return observation, *result, info

    def _check_shape(self, observation: Any) -> None:
        shape = getattr(observation, "shape", None)
        if shape is not None and shape != self.observation_space.shape:
            raise ValueError(f"observation of shape {list(shape)}, and the space is {self.observation_space}")


def make_lanes(settings: "Gymnasium", count: int) -> tuple[VectorEnv[Any, Any, Any], str]:
    """A vector environment of `count` lanes, and how it resets: next_step, same_step or disabled.

    Raises:
        UsageError: as `Gymnasium.build`.
    """
    single = _single(settings)
    arguments: dict[str, Any] = dict(settings.kwargs)
    if settings.max_episode_steps is not None:
        arguments["max_episode_steps"] = settings.max_episode_steps
    if settings.render_mode is not None:
        arguments["render_mode"] = settings.render_mode
    mode = _vectorization(settings, single)
    if mode == "vector_entry_point":
        lanes = _made(settings, gymnasium.make_vec, single, count, vectorization_mode=mode, **arguments)
        own = lanes.metadata.get("autoreset_mode", "NextStep")
        autoreset = {"NextStep": "next_step", "SameStep": "same_step", "Disabled": "disabled"}[
            getattr(own, "value", own)
        ]
        if settings.autoreset not in ("auto", autoreset):
            raise UsageError(
                f"environment.autoreset {settings.autoreset}: the vectorised {settings.id} resets by {autoreset}: "
                "choose environment.vectorization_mode sync"
            )
        return _flat(lanes), autoreset

    wrappers = [wrapper(text) for text in settings.wrappers]
    module = settings.id.rpartition(":")[0]

    def lane(number: int) -> Env:
        if isinstance(single, str):
            if module:  # in a process of its own, too, where nothing has registered the id yet
                _module(module, "environment.id")
            # Gymnasium checks an environment's first step, and warns; once is enough
            env = gymnasium.make(single, disable_env_checker=True if number else None, **arguments)
        else:
            env = single(**{name: given for name, given in arguments.items() if name != "max_episode_steps"})
            if settings.max_episode_steps is not None:
                env = gymnasium.wrappers.TimeLimit(env, settings.max_episode_steps)
        for wrap in wrappers:
            env = wrap(env)
        if not isinstance(env.observation_space, spaces.Box | spaces.Discrete):
            env = gymnasium.wrappers.FlattenObservation(env)
        return Guard(env, number)

    autoreset = settings.autoreset
    chosen: dict[str, Any] = {"copy": False}
    if hasattr(gymnasium.vector, "AutoresetMode"):
        if autoreset == "auto":  # a picture of an episode's last state is taken before the next one begins
            autoreset = "same_step" if settings.render_mode is None else "next_step"
        chosen["autoreset_mode"] = gymnasium.vector.AutoresetMode[autoreset.upper()]
    elif autoreset not in ("auto", "next_step"):
        raise UsageError(f"environment.autoreset {autoreset} needs Gymnasium 1.1, and {gymnasium.__version__} is here")
    else:
        autoreset = "next_step"
    if mode == "async":
        _made(settings, lane, 0).close()  # here, where what is wrong can be said
    kind = AsyncVectorEnv if mode == "async" else SyncVectorEnv
    return _made(settings, kind, [functools.partial(lane, number) for number in range(count)], **chosen), autoreset


def _vectorization(settings: "Gymnasium", single: "str | Callable[..., Env]") -> str:
    """Its own vectorised version where it has one and nothing is asked for that this cannot do; else lane by lane."""
    mode = settings.vectorization_mode
    own = isinstance(single, str) and gymnasium.spec(single).vector_entry_point is not None
    if mode == "vector_entry_point" and not own:
        raise UsageError(f"environment.id '{settings.id}' has no vectorised version: choose sync or async")
    if mode == "vector_entry_point" and settings.wrappers:
        raise UsageError("environment.wrappers go around single lanes: choose environment.vectorization_mode sync")
    if mode != "auto":
        return mode
    plain = not settings.wrappers and settings.render_mode is None and settings.autoreset == "auto"
    plain = plain and own and not gymnasium.spec(str(single)).additional_wrappers
    return "vector_entry_point" if plain else "sync"


def _single(settings: "Gymnasium") -> "str | Callable[..., Env]":
    """The registered id, its module imported; or the function that makes an environment."""
    module_name, _, name = settings.id.rpartition(":")
    if module_name:
        module = _module(module_name, "environment.id")
        if callable(getattr(module, name, None)):
            return getattr(module, name)  # type: ignore[no-any-return]
    try:
        return str(gymnasium.spec(name).id)
    except gymnasium.error.Error as error:
        near = get_close_matches(name, list(gymnasium.registry), n=3)
        guess = f" Did you mean {' or '.join(repr(other) for other in near)}?" if near else ""
        why = "" if near else f" {error}"
        where = f", nor a function of that name in {module_name}" if module_name else ""
        raise UsageError(
            f"environment.id: Gymnasium has no environment '{name}'{where}.{guess}{why} "
            "One of your own is named module:id or module:function"
        ) from None


def wrapper(text: str) -> "Callable[[Env], Env]":
    """From `Name`, `Name(argument=1)` or `module:Name(…)` to what puts that wrapper around an environment.

    Raises:
        UsageError: it is not of this form, or there is no such wrapper.
    """
    named, bracket, arguments = text.partition("(")
    module_name, _, name = named.rpartition(":")
    module = _module(module_name, f"environment.wrappers: {text}") if module_name else gymnasium.wrappers
    try:
        call = ast.parse(f"wrap({arguments}" if bracket else "wrap()", mode="eval").body
        assert isinstance(call, ast.Call)
        given = [ast.literal_eval(argument) for argument in call.args]
        assert all(keyword.arg for keyword in call.keywords)
        by_name = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UsageError(
            f"environment.wrappers: {text!r} is not of the form Name(argument=1), with plain numbers, words and lists"
        ) from None
    found = getattr(module, name, None)
    if not callable(found):
        known = [other for other, value in vars(module).items() if isinstance(value, type)]
        raise UsageError(f"environment.wrappers: {unknown('wrapper', name, known)}")
    return lambda env: found(env, *given, **by_name)


def _module(name: str, where: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` does
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"{where}: cannot import {name}: {type(error).__name__}: {error}") from error


def _made(settings: "Gymnasium", make: "Callable[..., Any]", *arguments: Any, **by_name: Any) -> Any:
    """Call what makes an environment; a package that is missing, or an argument that it does not take, is said."""
    try:
        return make(*arguments, **by_name)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        named = [extra for word, extra in EXTRAS.items() if word in str(error).lower()]
        missing = [extra for extra in named if importlib.util.find_spec(extra) is None]
        if named and not missing:  # it is there, and not what this id wants: those of v2 and v3 are of older ones
            raise UsageError(f"environment.id '{settings.id}' cannot be made here: {error}") from error
        mend = f': pip install "framework-rl[{missing[0]}]"' if missing else ""
        raise UsageError(
            f"environment.id '{settings.id}' needs a package that is not installed{mend} ({error})"
        ) from error
    except TypeError as error:
        raise UsageError(f"environment '{settings.id}' refuses its arguments or wrappers: {error}") from error


def _flat(lanes: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    if isinstance(lanes.single_observation_space, spaces.Box | spaces.Discrete):
        return lanes
    try:
        return gymnasium.wrappers.vector.FlattenObservation(lanes)
    except ValueError as error:
        raise UsageError(f"{error}: choose environment.vectorization_mode sync") from error


def seeds(lanes: VectorEnv[Any, Any, Any], drawn: Sequence[int]) -> Any:
    """One seed a lane, where the environment takes a list: Gymnasium's own vectorised ones take one number."""
    return list(drawn) if isinstance(lanes.unwrapped, SyncVectorEnv | AsyncVectorEnv) else drawn[0]
