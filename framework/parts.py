"""Plugins, the parts that they offer, and how a part is picked by name."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
from attrs import Factory, field, frozen

from .errors import UsageError, unknown
from .setup.plugin_files import files_of
from .setup.suggestions import gymnasium_hint

ALLOWED = "FRAMEWORK_PLUGINS"  # environment variable: of other distributions these, separated by commas; unset: all


@frozen(eq=False)
class Plugin:
    """A loaded plugin: its module and where it came from."""

    name: str
    module: ModuleType
    source: str  # what selects it again: an entry point's name, a module's path, or a file's
    distribution: str = ""  # "" for a module or a file
    version: str = ""
    hooks: Any = Factory(lambda plugin: plugin.module, takes_self=True)  # the module, or an object with marked methods

    @property
    def files(self) -> list[Path]:
        """Its source files: one and what it imports beside it, or all of its package's."""
        return files_of(self.module)

    def describe(self) -> dict[str, str]:
        """Name, version, distribution and the SHA-256 of its source: what a record keeps."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.read_bytes() if path.is_file() else b"")
        return {
            "name": self.name,
            "version": self.version,
            "distribution": self.distribution,
            "module": self.module.__name__,
            "sha256": digest.hexdigest(),
        }


@frozen(eq=False)
class Failure:
    """A plugin that could not be loaded, and why."""

    name: str
    distribution: str
    reason: str


@frozen(eq=False)
class Part:
    """One choice of a run: a role, the name of its part, the plugin that offers it, and its settings."""

    role: str
    name: str
    plugin: str
    settings: Any

    @property
    def label(self) -> str:
        """How errors call it.

        >>> Part("estimator", "gae", "returns", None).label
        "estimator 'gae' (plugin returns)"
        """
        return f"{self.role} '{self.name}' (plugin {self.plugin})"

    @property
    def title(self) -> str:
        """What summaries, plots and folders call it: the `title` of its settings, if they have one, else its name.

        >>> Part("estimator", "gae", "returns", None).title
        'gae'
        """
        try:
            title = getattr(self.settings, "title", None)
        except Exception as error:
            raise UsageError(f"{self.label}: title raised {type(error).__name__}: {error}") from error
        return title if isinstance(title, str) and title.strip() else self.name


@frozen(eq=False)
class Loaded:
    """What `load` found: plugins, the parts that they offer, and what failed."""

    plugins: tuple[Plugin, ...]
    failures: tuple[Failure, ...]
    left_out: tuple[str, ...] = ()  # installed, and not selected
    preferred: frozenset[str] = frozenset()  # those that a file asks for: theirs is a part that others offer, too
    offers: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(factory=dict)
    """offers[role][part name][plugin name] is a settings class; role "recipe" holds configuration trees."""
    not_allowed: tuple[str, ...] = ()  # installed, and not in the list FRAMEWORK_PLUGINS

    def names(self, role: str) -> list[str]:
        """The names offered for a role, sorted."""
        return sorted(self.offers[role])

    def pick(self, role: str, name: str) -> tuple[str, str, Any]:
        """Plugin, part name and settings class of a part called `name` or `plugin:name`.

        Raises `UsageError` for an unknown name, and for one that two plugins offer.
        """
        owner, _, part = name.rpartition(":")
        offered = self.offers[role].get(part, {})
        if owner:
            offered = {plugin: cls for plugin, cls in offered.items() if plugin == owner}
        if not offered:
            message = unknown(role, name, self.offers[role])
            if role == "environment":
                message += gymnasium_hint(name)
            raise UsageError(message + self.elsewhere)
        if len(offered) > 1 and offered.keys() & self.preferred:
            offered = {plugin: cls for plugin, cls in offered.items() if plugin in self.preferred}
        if len(offered) > 1:
            ways = " or ".join(f"{plugin}:{part}" for plugin in sorted(offered))
            raise UsageError(f"{role} '{part}' is offered by {len(offered)} plugins; say which: {ways}")
        ((plugin, cls),) = offered.items()
        return plugin, part, cls

    @property
    def elsewhere(self) -> str:
        """Lines on plugins that may offer what these do not."""
        lines = [f"plugin '{one.name}' failed to load and may offer it: {one.reason}" for one in self.failures]
        if self.left_out:
            lines.append(f"installed, but not selected: {', '.join(self.left_out)}")
        if self.not_allowed:
            lines.append(not_allowed(self.not_allowed))
        return "".join(f"\n{line}" for line in lines)

    def short_name(self, role: str, name: str, plugin: str) -> str:
        """The name by which `pick` finds this part again: qualified only where two plugins offer it."""
        return name if len(self.offers[role].get(name, {})) < 2 else f"{plugin}:{name}"

    def part_of(self, role: str, settings: Any) -> Part:
        """The part that this settings object is: by its class among the offers, else by the class's own name."""
        if isinstance(settings, type):
            name = settings.__name__
            raise UsageError(f"{role} must be a settings object, got the class {name}: {name}() makes one")
        if not attrs.has(type(settings)):
            raise UsageError(f"{role} must be a settings object, of an attrs class, got {settings!r}")
        for name, offered in self.offers[role].items():
            for plugin, cls in offered.items():
                if type(settings) is cls:
                    return Part(role, name, plugin, settings)
        return Part(role, type(settings).__name__, type(settings).__module__, settings)


def not_allowed(plugins: Sequence[str]) -> str:
    """The note on installed plugins that FRAMEWORK_PLUGINS leaves out."""
    listed = ",".join([*filter(None, os.environ.get(ALLOWED, "").split(",")), plugins[0]])
    return (
        f"installed, but not allowed by {ALLOWED}: {', '.join(plugins)}; add it to the list, as in {ALLOWED}={listed}"
    )
