"""Makes a vector environment of Gymnasium from settings, with errors that say what to do."""

import ast
import copy
import functools
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv

from framework import UsageError
from framework.tools import unknown

from .guard import Env, Guard, LaneError, return_copies
from .infos import InfoSettings
from .workers import Processes

if TYPE_CHECKING:
    from .settings import Gymnasium

EXTRAS = {"mujoco": "mujoco"}  # word in an import error → the extra of this package that installs it


def make_lanes(settings: "Gymnasium", count: int) -> tuple[VectorEnv[Any, Any, Any], str, str]:
    """A vector environment of `count` lanes, its vectorization mode, and how it resets.

    The mode is vector_entry_point, sync or async; lanes reset by next_step, same_step or disabled.

    Raises:
        UsageError: as `Gymnasium.build`.
    """
    env_id = _resolve_id(settings)
    mode = settings.vectorization_mode
    has_own = isinstance(env_id, str) and gymnasium.spec(env_id).vector_entry_point is not None
    if mode == "vector_entry_point":
        if not has_own:
            raise UsageError(f"environment.id '{settings.id}' has no vectorised version: choose sync or async")
        if settings.wrappers:
            raise UsageError("environment.wrappers go around single lanes: choose environment.vectorization_mode sync")
        return _make_own_vectorised(settings, str(env_id), count)
    if isinstance(env_id, str) and has_own and gymnasium.spec(env_id).entry_point is None:
        return _make_own_vectorised(settings, env_id, count)  # there is nothing else
    if mode == "auto":
        vectorised = _try_own_vectorised(settings, str(env_id), count) if has_own else None
        if vectorised is not None:
            return vectorised
        mode = "sync"
    info_settings = InfoSettings(settings.metrics, settings.action_masks)
    lane = functools.partial(
        _lane, settings, env_id, [parse_wrapper(text) for text in settings.wrappers], info_settings
    )
    autoreset = settings.autoreset
    options: dict[str, Any] = {"copy": False}
    if hasattr(gymnasium.vector, "AutoresetMode"):
        if autoreset == "auto":  # with next_step the last state of an episode can be rendered
            autoreset = "same_step" if settings.render_mode is None else "next_step"
        options["autoreset_mode"] = gymnasium.vector.AutoresetMode[autoreset.upper()]
    elif autoreset not in ("auto", "next_step"):
        raise UsageError(f"environment.autoreset {autoreset} needs Gymnasium 1.1, and {gymnasium.__version__} is here")
    else:
        autoreset = "next_step"
    if mode == "async":
        _make(settings, lane, None, 0).close()  # in this process, whose errors are clearer
        makers = [functools.partial(lane, None, number) for number in range(count)]
        return _make(settings, Processes, makers, **options), mode, autoreset
    status = [0] * (2 * count)
    makers = [functools.partial(lane, status, number) for number in range(count)]
    lanes = _make(settings, SyncVectorEnv, makers, **options)
    lanes.status = status
    return lanes, mode, autoreset


def _lane(
    settings: "Gymnasium",
    env_id: "str | Callable[..., Env]",
    wrappers: "list[Callable[[Env], Env]]",
    info_settings: InfoSettings,
    status: list[int] | None,
    number: int,
) -> Guard:
    """One lane, with its wrappers."""
    env: Any  # checked below
    if isinstance(env_id, str):
        module = settings.id.rpartition(":")[0]
        if module:  # also in a worker process, where nothing has registered the id yet
            _import(module, "environment.id")
        # Gymnasium checks an environment's first step, and warns; once is enough
        env = gymnasium.make(
            _spec(settings, env_id), disable_env_checker=True if number else None, **_make_arguments(settings)
        )
    else:
        render = {} if settings.render_mode is None else {"render_mode": settings.render_mode}
        env = env_id(**settings.kwargs, **render)
        if settings.max_episode_steps is not None and isinstance(env, gymnasium.Env):
            env = gymnasium.wrappers.TimeLimit(env, settings.max_episode_steps)
    if not isinstance(env, gymnasium.Env):
        cls = f"{type(env).__module__}.{type(env).__qualname__}"
        raise UsageError(
            f"environment.id '{settings.id}' makes a {cls}, and must make a gymnasium.Env: derive its class from it, "
            "or wrap an environment of the old gym in shimmy.GymV21CompatibilityV0 or GymV26CompatibilityV0"
        )
    for kind in ("observation_space", "action_space"):
        if not isinstance(getattr(env, kind, None), spaces.Space):
            raise UsageError(
                f"environment '{settings.id}': its {kind} is {getattr(env, kind, 'not set')}, and must be a space of "
                "gymnasium.spaces, set in the class or in __init__"
            )
    if wrappers:
        env = return_copies(env)
    for text, wrap in zip(settings.wrappers, wrappers, strict=True):
        try:
            env = wrap(env)
        except (ValueError, AssertionError) as error:
            raise UsageError(f"environment.wrappers: {text} refuses {env}: {error or type(error).__name__}") from error
    if not isinstance(env.observation_space, spaces.Box | spaces.Discrete):
        env = gymnasium.wrappers.FlattenObservation(env)
    if settings.action_masks == "method" and not env.has_wrapper_attr("action_masks"):
        raise UsageError(
            f"environment.action_masks method: '{settings.id}' has no method action_masks(): choose info or none"
        )
    return Guard(env, number, info_settings, status)


def _spec(settings: "Gymnasium", env_id: str) -> "gymnasium.envs.registration.EnvSpec":
    """The registered specification with the environment's arguments, also those that `gymnasium.make` has as well."""
    spec = copy.deepcopy(gymnasium.spec(env_id))
    spec.kwargs.update(settings.kwargs)
    return spec


def _make_arguments(settings: "Gymnasium") -> dict[str, Any]:
    """The arguments of `gymnasium.make` and `make_vec` themselves."""
    arguments = {"max_episode_steps": settings.max_episode_steps, "render_mode": settings.render_mode}
    return {name: value for name, value in arguments.items() if value is not None}


def _try_own_vectorised(
    settings: "Gymnasium", env_id: str, count: int
) -> tuple[VectorEnv[Any, Any, Any], str, str] | None:
    """The environment's own vectorised version, if it supports the settings and has the spaces of single lanes."""
    has_requests = settings.wrappers or settings.render_mode is not None or settings.autoreset != "auto"
    if has_requests or gymnasium.spec(env_id).additional_wrappers:
        return None
    env = _make(
        settings, gymnasium.make, _spec(settings, env_id), disable_env_checker=True, **_make_arguments(settings)
    )
    lane_spaces = env.observation_space, env.action_space
    env.close()
    try:
        lanes = _make_vectorised(settings, env_id, count)
    except Exception:  # it lacks a package or an argument that single lanes do not need
        return None
    if (lanes.single_observation_space, lanes.single_action_space) == lane_spaces and _declared_autoreset(
        lanes
    ) is not None:
        with suppress(UsageError):
            return _flattened(lanes), "vector_entry_point", str(_declared_autoreset(lanes))
    lanes.close()
    return None


def _make_own_vectorised(settings: "Gymnasium", env_id: str, count: int) -> tuple[VectorEnv[Any, Any, Any], str, str]:
    """The environment's own vectorised version."""
    lanes = _make_vectorised(settings, env_id, count)
    declared, chosen = _declared_autoreset(lanes), settings.autoreset
    if declared is None and chosen == "auto":
        lanes.close()
        raise UsageError(
            f"environment.id '{settings.id}': its vectorised version does not say when a lane's next episode begins, "
            "so steps and resets cannot be distinguished: give its class metadata = "
            '{"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP} (or SAME_STEP, DISABLED), '
            "set environment.autoreset, or choose environment.vectorization_mode sync"
        )
    if declared is not None and chosen not in ("auto", declared):
        lanes.close()
        raise UsageError(
            f"environment.autoreset {chosen}: the vectorised {settings.id} resets by {declared}: "
            "choose environment.vectorization_mode sync"
        )
    return _flattened(lanes), "vector_entry_point", declared or chosen


def _make_vectorised(settings: "Gymnasium", env_id: str, count: int) -> VectorEnv[Any, Any, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing AutoresetMode metadata")  # `_declared_autoreset` checks it
        lanes: VectorEnv[Any, Any, Any] = _make(
            settings,
            gymnasium.make_vec,
            _spec(settings, env_id),
            count,
            vectorization_mode="vector_entry_point",
            **_make_arguments(settings),
        )
    return lanes


def _declared_autoreset(lanes: VectorEnv[Any, Any, Any]) -> str | None:
    """How a vectorised environment resets, by its metadata; None: they do not say."""
    if not hasattr(gymnasium.vector, "AutoresetMode"):
        return "next_step"  # the only mode of Gymnasium 1.0
    declared = (lanes.metadata or {}).get("autoreset_mode")
    name = str(getattr(declared, "name", declared)).upper().replace("STEP", "_STEP").replace("__", "_")
    return name.lower() if name in ("NEXT_STEP", "SAME_STEP", "DISABLED") else None


def _resolve_id(settings: "Gymnasium") -> "str | Callable[..., Env]":
    """The registered id, with its module imported, or the function that makes an environment."""
    module_name, _, name = settings.id.rpartition(":")
    if module_name:
        module = _import(module_name, "environment.id")
        if callable(getattr(module, name, None)):
            return getattr(module, name)  # type: ignore[no-any-return]
    try:
        return str(gymnasium.spec(name).id)
    except gymnasium.error.Error as error:
        similar = get_close_matches(name, list(gymnasium.registry), n=3)
        suggestion = f" Did you mean {' or '.join(repr(candidate) for candidate in similar)}?" if similar else ""
        reason = "" if similar else f" {error}"
        where = f", nor a function of that name in {module_name}" if module_name else ""
        raise UsageError(
            f"environment.id: Gymnasium has no environment '{name}'{where}.{suggestion}{reason} "
            "One of your own is named module:id or module:function"
        ) from None


def parse_wrapper(text: str) -> "Callable[[Env], Env]":
    """A function that applies the wrapper `Name`, `Name(argument=1)` or `module:Name(…)` to an environment.

    Raises:
        UsageError: it is not of this form, or there is no such wrapper.
    """
    path, bracket, arguments = text.partition("(")
    module_name, _, name = path.rpartition(":")
    module = _import(module_name, f"environment.wrappers: {text}") if module_name else gymnasium.wrappers
    try:
        call = ast.parse(f"wrap({arguments}" if bracket else "wrap()", mode="eval").body
        assert isinstance(call, ast.Call)
        positional = [ast.literal_eval(argument) for argument in call.args]
        assert all(keyword.arg for keyword in call.keywords)
        by_name = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UsageError(
            f"environment.wrappers: {text!r} is not of the form Name(argument=1), with plain numbers, strings and lists"
        ) from None
    cls = getattr(module, name, None)
    if not callable(cls):
        known = [other for other, value in vars(module).items() if isinstance(value, type)]
        raise UsageError(f"environment.wrappers: {unknown('wrapper', name, known)}")
    return lambda env: cls(env, *positional, **by_name)


def _import(name: str, where: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` does
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"{where}: cannot import {name}: {type(error).__name__}: {error}") from error


def _make(settings: "Gymnasium", make: "Callable[..., Any]", *arguments: Any, **by_name: Any) -> Any:
    """Call `make`; errors name a missing package or an argument that it does not take."""
    try:
        return make(*arguments, **by_name)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        extras = [extra for word, extra in EXTRAS.items() if word in str(error).lower()]
        missing = [extra for extra in extras if importlib.util.find_spec(extra) is None]
        if extras and not missing:  # installed, in a version that this id does not support: v2 and v3 need older ones
            raise UsageError(f"environment.id '{settings.id}' cannot be made here: {error}") from error
        remedy = f': pip install "framework-rl[{missing[0]}]"' if missing else ""
        raise UsageError(
            f"environment.id '{settings.id}' needs a package that is not installed{remedy} ({error})"
        ) from error
    except TypeError as error:
        limit = "; the time limit is environment.max_episode_steps" if "max_episode_steps" in str(error) else ""
        raise UsageError(f"environment '{settings.id}' refuses its arguments or wrappers: {error}{limit}") from error
    except LaneError as error:
        raise UsageError(f"environment '{settings.id}': {error}") from error


def _flattened(lanes: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    if isinstance(lanes.single_observation_space, spaces.Box | spaces.Discrete):
        return lanes
    try:
        return gymnasium.wrappers.vector.FlattenObservation(lanes)
    except ValueError as error:
        raise UsageError(f"{error}: choose environment.vectorization_mode sync") from error
