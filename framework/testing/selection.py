"""Select parts by the name of a part, plugin, module or file."""

from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from ..errors import UsageError, unknown
from ..hookspecs import ROLES
from ..parts import Loaded, Part, Plugin
from ..setup.loading import load


def select_parts(what: str | ModuleType, role: str | None = None) -> tuple[Loaded, list[Part]]:
    """The loaded plugins, and the selected parts with their default settings.

    Args:
        what: `FILE.py`, the name of a part (`NAME`, `PLUGIN:NAME`, `ROLE:NAME`), of an installed plugin, or a module
            path, tried in this order; or a module.
        role: only parts of this role.

    Raises:
        UsageError: no part matches, or several roles have a part of this name.
    """
    if role is not None and role not in ROLES:
        raise UsageError(unknown("role", role, ROLES))
    if isinstance(what, ModuleType):
        loaded = load()
        plugin = _of_module(loaded, what.__name__)
        if plugin is None:
            loaded = load([what.__name__], rest=True)
            plugin = _of_module(loaded, what.__name__)
        assert plugin is not None
        return loaded, _of_role(parts_of(loaded, plugin.name), role, what.__name__)
    if what.endswith(".py"):
        file = Path(what)
        suggestions = (
            [] if file.exists() else get_close_matches(file.name, [path.name for path in file.parent.glob("*.py")], 1)
        )
        if suggestions:
            raise UsageError(f"no plugin file {what}. Did you mean '{file.with_name(*suggestions)}'?")
        loaded = load([what], rest=True)
        (name,) = loaded.preferred
        return loaded, _of_role(parts_of(loaded, name), role, what)
    loaded = load()
    named_part = _part_named(loaded, what, role)
    if named_part is not None:
        return loaded, [named_part]
    plugin = next((plugin for plugin in loaded.plugins if what in (plugin.name, plugin.module.__name__)), None)
    if plugin is None:
        try:
            loaded = load([what], rest=True)
        except UsageError as error:
            if not str(error).startswith("no plugin"):
                raise
            names = [name for key in ROLES for name in loaded.names(key) if role in (None, key)]
            known = {*names, *(plugin.name for plugin in loaded.plugins)}
            message = unknown("part, plugin or module", what, known)
            raise UsageError(f"{message} (or a module's path, or FILE.py){loaded.elsewhere}") from None
        plugin = next(plugin for plugin in loaded.plugins if plugin.source == what)
    return loaded, _of_role(parts_of(loaded, plugin.name), role, what)


def parts_of(loaded: Loaded, plugin: str) -> list[Part]:
    """All parts that a plugin offers, with default settings, role by role."""
    return [
        Part(role, name, plugin, loaded.offers[role][name][plugin]())
        for role in ROLES
        for name in loaded.names(role)
        if plugin in loaded.offers[role][name]
    ]


def _of_module(loaded: Loaded, name: str) -> Plugin | None:
    return next((plugin for plugin in loaded.plugins if plugin.module.__name__ == name), None)


def _of_role(parts: list[Part], role: str | None, what: str) -> list[Part]:
    kept = [part for part in parts if role in (None, part.role)]
    if not kept:
        raise UsageError(f"'{what}' offers no {role or 'part'}")
    return kept


def _part_named(loaded: Loaded, what: str, role: str | None) -> Part | None:
    """The part of this name, in any role; None if there is none."""
    first, _, rest = what.partition(":")
    if first in ROLES and rest:
        if role not in (None, first):
            raise UsageError(f"'{what}' is no {role}")
        role, what = first, rest
        loaded.pick(role, what)  # its error lists the names that exist
    owner, _, name = what.rpartition(":")
    roles = [key for key in ROLES if role in (None, key) and (not owner or owner in loaded.offers[key].get(name, {}))]
    roles = [key for key in roles if name in loaded.offers[key]]
    if not roles:
        return None
    if len(roles) > 1:
        ways = " or ".join(f"{key}:{what}" for key in roles)
        raise UsageError(f"'{what}' is the name of {len(roles)} parts; say which: {ways}")
    plugin, name, cls = loaded.pick(roles[0], what)
    return Part(roles[0], name, plugin, cls())
