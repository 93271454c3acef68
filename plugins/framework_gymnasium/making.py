"""From settings to a vector environment of Gymnasium, with errors that say what to do."""

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

from .guard import Env, Guard, LaneError, copying
from .infos import Wanted
from .workers import Processes

if TYPE_CHECKING:
    from .settings import Gymnasium

EXTRAS = {"mujoco": "mujoco"}  # what an import that fails is called → the extra of ours that installs it


def make_lanes(settings: "Gymnasium", count: int) -> tuple[VectorEnv[Any, Any, Any], str, str]:
    """A vector environment of `count` lanes, its vectorization mode, and how it resets.

    The mode is vector_entry_point, sync or async; lanes reset by next_step, same_step or disabled.

    Raises:
        UsageError: as `Gymnasium.build`.
    """
    single = _single(settings)
    mode = settings.vectorization_mode
    own = isinstance(single, str) and gymnasium.spec(single).vector_entry_point is not None
    if mode == "vector_entry_point":
        if not own:
            raise UsageError(f"environment.id '{settings.id}' has no vectorised version: choose sync or async")
        if settings.wrappers:
            raise UsageError("environment.wrappers go around single lanes: choose environment.vectorization_mode sync")
        return _own_vectorised(settings, str(single), count)
    if isinstance(single, str) and own and gymnasium.spec(single).entry_point is None:
        return _own_vectorised(settings, single, count)  # there is nothing else
    if mode == "auto":
        found = _preferred(settings, str(single), count) if own else None
        if found is not None:
            return found
        mode = "sync"
    wanted = Wanted(settings.metrics, settings.action_masks)
    lane = functools.partial(_lane, settings, single, [wrapper(text) for text in settings.wrappers], wanted)
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
        _made(settings, lane, None, 0).close()  # here, where what is wrong can be said
        makers = [functools.partial(lane, None, number) for number in range(count)]
        return _made(settings, Processes, makers, **chosen), mode, autoreset
    whereabouts = [0] * (2 * count)
    makers = [functools.partial(lane, whereabouts, number) for number in range(count)]
    lanes = _made(settings, SyncVectorEnv, makers, **chosen)
    lanes.whereabouts = whereabouts
    return lanes, mode, autoreset


def _lane(
    settings: "Gymnasium",
    single: "str | Callable[..., Env]",
    wrappers: "list[Callable[[Env], Env]]",
    wanted: Wanted,
    whereabouts: list[int] | None,
    number: int,
) -> Guard:
    """One lane, with all that goes around it."""
    env: Any  # until it is known to be one
    if isinstance(single, str):
        module = settings.id.rpartition(":")[0]
        if module:  # in a process of its own, too, where nothing has registered the id yet
            _module(module, "environment.id")
        # Gymnasium checks an environment's first step, and warns; once is enough
        env = gymnasium.make(
            _spec(settings, single), disable_env_checker=True if number else None, **_arguments(settings)
        )
    else:
        drawn = {} if settings.render_mode is None else {"render_mode": settings.render_mode}
        env = single(**settings.kwargs, **drawn)
        if settings.max_episode_steps is not None and isinstance(env, gymnasium.Env):
            env = gymnasium.wrappers.TimeLimit(env, settings.max_episode_steps)
    if not isinstance(env, gymnasium.Env):
        made = f"{type(env).__module__}.{type(env).__qualname__}"
        raise UsageError(
            f"environment.id '{settings.id}' makes a {made}, and must make a gymnasium.Env: derive its class from it, "
            "or wrap an environment of the old gym in shimmy.GymV21CompatibilityV0 or GymV26CompatibilityV0"
        )
    for kind in ("observation_space", "action_space"):
        if not isinstance(getattr(env, kind, None), spaces.Space):
            raise UsageError(
                f"environment '{settings.id}': its {kind} is {getattr(env, kind, 'not set')}, and must be a space of "
                "gymnasium.spaces, set in the class or in __init__"
            )
    if wrappers:
        env = copying(env)
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
    return Guard(env, number, wanted, whereabouts)


def _spec(settings: "Gymnasium", single: str) -> "gymnasium.envs.registration.EnvSpec":
    """The registered specification with the environment's arguments, also those that `gymnasium.make` has, too."""
    spec = copy.deepcopy(gymnasium.spec(single))
    spec.kwargs.update(settings.kwargs)
    return spec


def _arguments(settings: "Gymnasium") -> dict[str, Any]:
    """What `gymnasium.make` and `make_vec` are given for themselves."""
    given = {"max_episode_steps": settings.max_episode_steps, "render_mode": settings.render_mode}
    return {name: value for name, value in given.items() if value is not None}


def _preferred(settings: "Gymnasium", single: str, count: int) -> tuple[VectorEnv[Any, Any, Any], str, str] | None:
    """Its own vectorised version, where that can do what is asked for and is the world that `gymnasium.make` makes."""
    asked = settings.wrappers or settings.render_mode is not None or settings.autoreset != "auto"
    if asked or gymnasium.spec(single).additional_wrappers:
        return None
    env = _made(settings, gymnasium.make, _spec(settings, single), disable_env_checker=True, **_arguments(settings))
    here = env.observation_space, env.action_space
    env.close()
    try:
        lanes = _vectorised(settings, single, count)
    except Exception:  # a package is missing, or an argument unknown, that single lanes do not mind
        return None
    if (lanes.single_observation_space, lanes.single_action_space) == here and _declared(lanes) is not None:
        with suppress(UsageError):
            return _flat(lanes), "vector_entry_point", str(_declared(lanes))
    lanes.close()
    return None


def _own_vectorised(settings: "Gymnasium", single: str, count: int) -> tuple[VectorEnv[Any, Any, Any], str, str]:
    """Its own vectorised version, as asked for."""
    lanes = _vectorised(settings, single, count)
    own, asked = _declared(lanes), settings.autoreset
    if own is None and asked == "auto":
        lanes.close()
        raise UsageError(
            f"environment.id '{settings.id}': its vectorised version does not say when a lane's next episode begins, "
            "so steps cannot be told from resets: give its class metadata = "
            '{"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP} (or SAME_STEP, DISABLED), '
            "set environment.autoreset, or choose environment.vectorization_mode sync"
        )
    if own is not None and asked not in ("auto", own):
        lanes.close()
        raise UsageError(
            f"environment.autoreset {asked}: the vectorised {settings.id} resets by {own}: "
            "choose environment.vectorization_mode sync"
        )
    return _flat(lanes), "vector_entry_point", own or asked


def _vectorised(settings: "Gymnasium", single: str, count: int) -> VectorEnv[Any, Any, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing AutoresetMode metadata")  # `_declared` sees to it
        lanes: VectorEnv[Any, Any, Any] = _made(
            settings,
            gymnasium.make_vec,
            _spec(settings, single),
            count,
            vectorization_mode="vector_entry_point",
            **_arguments(settings),
        )
    return lanes


def _declared(lanes: VectorEnv[Any, Any, Any]) -> str | None:
    """How a vectorised environment says that it resets; None: it does not say."""
    if not hasattr(gymnasium.vector, "AutoresetMode"):
        return "next_step"  # the one way of Gymnasium 1.0
    declared = (lanes.metadata or {}).get("autoreset_mode")
    name = str(getattr(declared, "name", declared)).upper().replace("STEP", "_STEP").replace("__", "_")
    return name.lower() if name in ("NEXT_STEP", "SAME_STEP", "DISABLED") else None


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
        remedy = f': pip install "framework-rl[{missing[0]}]"' if missing else ""
        raise UsageError(
            f"environment.id '{settings.id}' needs a package that is not installed{remedy} ({error})"
        ) from error
    except TypeError as error:
        limit = "; the time limit is environment.max_episode_steps" if "max_episode_steps" in str(error) else ""
        raise UsageError(f"environment '{settings.id}' refuses its arguments or wrappers: {error}{limit}") from error
    except LaneError as error:
        raise UsageError(f"environment '{settings.id}': {error}") from error


def _flat(lanes: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    if isinstance(lanes.single_observation_space, spaces.Box | spaces.Discrete):
        return lanes
    try:
        return gymnasium.wrappers.vector.FlattenObservation(lanes)
    except ValueError as error:
        raise UsageError(f"{error}: choose environment.vectorization_mode sync") from error
