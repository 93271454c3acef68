"""Find plugins, load them, check them, and pick parts by name."""

import functools
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from ..errors import UsageError, unknown
from ..guards.process_state import undisturbed
from ..guards.randomness import same_randomness
from ..hookspecs import PROJECT, ROLES, Providers
from ..parts import ALLOWED, Failure, Loaded, Plugin, not_allowed
from .plugin_files import import_file
from .plugin_hooks import RefusedError, offers_of, register

GROUP = "framework.plugins"
OWN = "framework-rl"  # the distribution that this is, of which every plugin is allowed


def installed() -> dict[str, EntryPoint]:
    """All plugins that installed distributions register and FRAMEWORK_PLUGINS allows, by name, sorted.

    Raises `UsageError` where two distributions claim one name.
    """
    return _installed()[0]


def _installed() -> tuple[dict[str, EntryPoint], dict[str, EntryPoint]]:
    """Those that are allowed, and those that are not."""
    found: dict[str, EntryPoint] = {}
    barred: dict[str, EntryPoint] = {}
    listed = os.environ.get(ALLOWED)
    allowed = None if listed is None else {name.strip() for name in listed.split(",")}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        if allowed is not None and point.name not in allowed and _normalized(_distribution(point)) != OWN:
            barred.setdefault(point.name, point)
            continue
        other = found.setdefault(point.name, point)
        if other is not point and (_distribution(other) != _distribution(point) or other.value != point.value):
            raise UsageError(
                f"two distributions register a plugin named '{point.name}': "
                f"{_distribution(other)} and {_distribution(point)}; uninstall one"
            )
    return found, barred


@same_randomness()
def load(selection: Sequence[str] | None = None, rest: bool = False) -> Loaded:
    """Load the selected plugins (names, module paths, FILE.py), or every installed one; with `rest`, both.

    Of the installed, one that fails is set aside with its reason; one that was named raises `UsageError`.
    FRAMEWORK_PLUGINS, if it is set, lists which installed ones of other distributions may be loaded.
    """
    points, barred = _installed()
    plugins: list[Plugin] = []
    failures: list[Failure] = []
    preferred: list[str] = []
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Providers)
    offers: dict[str, dict[str, dict[str, Any]]] = {role: {} for role in (*ROLES, "recipe")}
    requested = dict.fromkeys(selection or ())
    others = sorted(points.keys() - requested) if rest or selection is None else []
    others = [name for name in others if points[name].value not in requested]  # requested by its module
    for source in [*requested, *others]:
        try:
            if source not in points:
                _refuse_barred(source, barred)
            new = source not in points or points[source].module not in sys.modules
            with undisturbed(f"plugin '{source}'", generators=new):
                plugin = _import(source, points)
                register(manager, plugin.name, plugin.hooks)
                mine = offers_of(manager, plugin.hooks)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # some are no Exception: SystemExit, a panic of an extension module in Rust
            if isinstance(error, UsageError) and source in requested:
                raise
            plain = isinstance(error, RefusedError | UsageError)
            reason = str(error) if plain else f"{type(error).__name__}: {_message(error)}{_place(error)}"
            if isinstance(error, ModuleNotFoundError):
                reason += ": install it beside the framework"
            elif isinstance(error, ImportError) and "no known parent package" in reason:
                reason += ": a plugin file imports what lies beside it by its name, without a point before it"
            if source in requested:
                raise UsageError(f"plugin '{source}' failed to load: {reason}") from error
            failures.append(Failure(source, _distribution(points[source]), reason))
            continue
        plugins.append(plugin)
        if rest and source in requested:
            preferred.append(plugin.name)
        for role, parts in mine.items():
            for name, offered in parts.items():
                offers[role].setdefault(name, {})[plugin.name] = offered
    left_out = () if rest or selection is None else tuple(name for name in points if name not in requested)
    return Loaded(tuple(plugins), tuple(failures), left_out, frozenset(preferred), offers, tuple(barred))


def _refuse_barred(source: str, barred: Mapping[str, EntryPoint]) -> None:
    """Refuse a plugin that is not allowed, by its name or its module's."""
    for name, point in barred.items():
        if source in (name, point.module):
            raise UsageError(f"plugin '{source}' cannot be loaded: {not_allowed([name])}")


def _message(error: BaseException) -> str:
    """The message; some errors raise when they are printed."""
    try:
        return str(error)
    except Exception as fault:
        return f"(its message raised {type(fault).__name__})"


def _place(error: BaseException) -> str:
    """Where it was raised; Python's own words say it of a file that is no Python."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames or frames[-1].filename.startswith("<frozen"):
        return ""
    return f" ({frames[-1].filename}:{frames[-1].lineno})"


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _distribution(point: EntryPoint) -> str:
    return _described(point.dist)[0] if point.dist is not None else "unknown"


@functools.lru_cache(maxsize=256)
def _described(distribution: Distribution) -> tuple[str, str]:
    """Name and version. Each question would parse its metadata anew (0.6 ms), for every plugin that it registers."""
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def _import(source: str, points: Mapping[str, EntryPoint]) -> Plugin:
    if source.endswith(".py"):
        return _import_file(Path(source))
    if source in points:
        point = points[source]
        version = _described(point.dist)[1] if point.dist is not None else ""
        hooks = point.load()
        return Plugin(source, _module(point, hooks), source, _distribution(point), version, hooks)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` does, so that the `framework` command finds the same modules
    try:
        missing = importlib.util.find_spec(source) is None
    except ValueError:
        missing = True
    except ModuleNotFoundError as error:  # of the module itself or a parent; else it is what a parent imports
        if not source.startswith(error.name or ""):
            raise
        missing = True
    if missing:
        raise UsageError(unknown("plugin", source, points) + " (or a module's path, or FILE.py)")
    return Plugin(source, importlib.import_module(source), source)


def _import_file(path: Path) -> Plugin:
    if not path.is_file():
        raise UsageError(f"no plugin file {path}")
    return Plugin(path.stem, import_file(path), str(path.resolve()))


def _module(point: EntryPoint, hooks: Any) -> ModuleType:
    """Where the hooks' source is: the object's own module, if it is of the package that the entry point names."""
    if isinstance(hooks, ModuleType):
        return hooks
    own, package = str(getattr(hooks, "__module__", "")), point.module.partition(".")[0]
    return sys.modules[own if own.partition(".")[0] == package and own in sys.modules else point.module]
