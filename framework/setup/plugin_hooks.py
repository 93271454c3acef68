"""The rules that a plugin's hooks keep to, and what they offer."""

import inspect
import keyword
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import attrs
import pluggy

from ..errors import UsageError, unknown
from ..hookspecs import PROJECT, ROLES, Providers, RunHooks
from ..kinds import well_formed


def names(specs: type) -> tuple[str, ...]:
    """The hooks that a class of specifications declares, in its order.

    >>> names(Providers)[:2]
    ('environments', 'policies')
    """
    return tuple(name for name, value in vars(specs).items() if hasattr(value, f"{PROJECT}_spec"))


class RefusedError(Exception):
    """A plugin that was imported and does not keep to the rules of hooks."""


def register(manager: pluggy.PluginManager, plugin: str, hooks: Any) -> None:
    """Register a plugin, a module or another object with marked functions, under its name.

    Raises:
        RefusedError: it does not keep to the rules of hooks.
        UsageError: it is registered already.
    """
    if manager.has_plugin(plugin):
        raise UsageError(f"two plugins are named '{plugin}'; select one")
    if manager.is_registered(hooks):
        kind = "module" if isinstance(hooks, ModuleType) else "object"
        raise UsageError(f"plugins '{manager.get_name(hooks)}' and '{plugin}' are the same {kind}; select one")
    marked = {name: options for name in dir(hooks) if (options := manager.parse_hookimpl_opts(hooks, name)) is not None}
    if not marked:
        raise RefusedError("implements no hook; is @hookimpl missing?")
    for name, options in marked.items():
        if name in names(RunHooks):
            raise RefusedError(
                f"'{name}' is a run hook: implement it on an extension, and offer that by `extensions()`"
            )
        if name not in names(Providers) and not options["optionalhook"]:
            raise RefusedError(unknown("hook", name, names(Providers)).replace("no hook", "unknown hook", 1))
        if inspect.isclass(hooks) and "self" in inspect.signature(getattr(hooks, name)).parameters:
            raise RefusedError(f"is the class {hooks.__name__}, and its '{name}' takes self: name an instance of it")
    try:
        manager.register(hooks, plugin)
    except pluggy.PluginValidationError as error:
        raise RefusedError(str(error).replace("\n", " ")) from error


def offers_of(manager: pluggy.PluginManager, hooks: Any) -> dict[str, dict[str, Any]]:
    """Call the plugin's provider hooks; check what they return."""
    offered: dict[str, dict[str, Any]] = {}
    for caller in manager.get_hookcallers(hooks) or ():
        if not caller.has_spec():  # a newer core's, marked optional
            continue
        role = next((role for role, hook in ROLES.items() if hook == caller.name), "recipe")
        (implementation,) = [impl for impl in caller.get_hookimpls() if impl.plugin is hooks]
        parts = implementation.function()
        if not isinstance(parts, Mapping) or not all(isinstance(name, str) for name in parts):
            raise RefusedError(f"hook '{caller.name}' must return a dict from name to settings class, got {parts!r}")
        for name, settings in parts.items():
            if not name.isidentifier():
                raise RefusedError(f"hook '{caller.name}': a name is letters, digits and underscores, got {name!r}")
            if keyword.iskeyword(name) or name == "self":
                raise RefusedError(f"hook '{caller.name}': '{name}' has a meaning in Python: choose another name")
            if role == "recipe":
                if not isinstance(settings, Mapping):
                    raise RefusedError(f"recipe '{name}' must be a configuration (a dict), got {settings!r}")
                well_formed(settings, f"recipe '{name}'")
            elif not (isinstance(settings, type) and attrs.has(settings)):
                raise RefusedError(
                    f"{role} '{name}' must be an attrs class (its fields are its options), got {settings!r}"
                )
            else:
                _check_settings(role, name, settings)
        offered[role] = dict(parts)
    return offered


def _check_settings(role: str, name: str, settings: Any) -> None:
    """A part is chosen by its name alone, so each setting has a default; `name` is how files choose it."""
    if (role, name) == ("extension", "names"):
        raise RefusedError("extension 'names': files list the chosen extensions under this name: choose another")
    for attribute in attrs.fields(settings):
        if attribute.name == "name":
            raise RefusedError(f"{role} '{name}': files choose the part by 'name': call this setting otherwise")
        if attribute.init and attribute.default is attrs.NOTHING:
            raise RefusedError(f"{role} '{name}': setting '{attribute.name}' needs a default")
        if attribute.init and attribute.type is None:
            raise RefusedError(f"{role} '{name}': setting '{attribute.name}' needs a type, as in `gamma: float`")
        kind, default = attribute.type, attribute.default
        if attribute.init and kind in (bool, int, str) and not isinstance(default, kind | attrs.Factory):
            wanted = f"setting '{attribute.name}' is of type {kind.__name__}"
            raise RefusedError(f"{role} '{name}': {wanted}, and its default is {default!r}")
    try:
        settings()
    except (ValueError, TypeError) as error:
        raise RefusedError(f"{role} '{name}': its own defaults are refused: {error}") from error
