"""Reads a configuration back, from a record or another file: who made it, whether it is complete, and what differs."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from ..config import DEFAULTS, PART_ROLES, SCALARS, Config, Tree
from ..errors import UsageError, warn
from ..parts import Loaded, Part, Plugin
from ..setup.layers import merge
from ..setup.tree import configure, pick, plugin_list, read_toml, settings_tree, to_tree
from ..version import __version__
from .provenance import DISTRIBUTION, differences, find, is_installed
from .record import CONFIG, PLUGINS, clean
from .signing import SIGNATURE, is_signed

STALE = 600.0  # seconds after which a temporary file is no longer in use


@frozen(eq=False)
class Recorded:
    """A file's configuration, and the rest of the record if it belongs to one."""

    path: Path
    tree: Tree  # without `plugins`
    plugins: tuple[str, ...]
    code_info: Mapping[str, Any] | None  # plugins.json; None: the file belongs to no record
    doubt: str  # why the code that it names is not trusted; "": this user signed it
    warned: set[str] = field(factory=set)  # the differences already reported

    @property
    def directory(self) -> Path:
        """The record's folder."""
        return self.path.parent

    def vouches(self, name: str) -> bool:
        """Whether this user's own run imported this module or file, from where it would be imported now.

        Modules are searched in the current folder, too. A module of the same name in another folder is a different one,
        even with the same content: what it imports, or Python's cache of it, may be other code.
        """
        if self.doubt or self.code_info is None:
            return False
        path = Path(name).resolve() if name.endswith(".py") else find(name)
        if path is None or is_installed(path):
            return True  # there is nothing to import, or only installed code
        entries = [*self.code_info.get("files", ()), *self.code_info.get("plugins", ())]
        return any(str(path) == entry.get("file") for entry in entries)

    def refuse_incomplete(self, loaded: Loaded, keys: Collection[str] | None = None) -> None:
        """Refuse a record without some settings: it was changed. Records of older versions may lack new settings.

        Args:
            loaded: the plugins.
            keys: the roles and scalars that are used; None: all.

        Raises:
            UsageError: names what is missing.
        """
        absent = dict(_absent_from(self._complete(loaded, keys), self.tree))
        new_settings = [name for name in absent if self._is_older(loaded, name)]
        missing = [name for name in absent if name not in new_settings]
        present = {*_names(self.tree)}
        optional = [name for name in (self.code_info or {}).get("optional", ()) if name not in present]
        missing += [name for name in optional if keys is None or name.partition(".")[0] in keys]
        if missing:
            raise UsageError(
                f"{self.path} is not complete, as a record must be: it has no {', '.join(missing)}. "
                "The file was changed; with default values it would be another run"
            )
        if new_settings:
            values = ", ".join(f"{name} = {absent[name]!r}" for name in new_settings)
            warn(f"{self.path} is of an older version without {values}: the default is used")

    def warn_of_differences(self, loaded: Loaded, parts: Sequence[Part], files: bool = True) -> None:
        """Warn once if the installed code differs from the code that made the record."""
        changes = [] if self.code_info is None else differences(self.code_info, loaded, parts, files)
        changes = [change for change in changes if change not in self.warned]
        self.warned.update(changes)
        if changes:
            warn(f"{self.path.parent} was made by other code: {'; '.join(changes)}")

    def _complete(self, loaded: Loaded, keys: Iterable[str] | None) -> Tree:
        tree: Tree
        if keys is None:
            tree = to_tree(configure(loaded, merge(DEFAULTS, self.tree), str(self.path)), loaded)
            tree.pop("plugins")
            return tree
        defaults = {key: attrs.fields_dict(Config)[key].default for key in keys if key in SCALARS}
        tree = {key: default for key, default in defaults.items() if default is not None}
        for role in set(PART_ROLES).intersection(keys):
            merged = merge({role: DEFAULTS[role]}, {role: self.tree.get(role, {})})
            tree[role] = {"name": merged[role]["name"], **settings_tree(pick(loaded, role, merged).settings)}
        return tree

    def _is_older(self, loaded: Loaded, name: str) -> bool:
        """Whether the record was written by another version of the code that has this setting."""
        code_info = self.code_info or {}
        role, dot, _ = name.partition(".")
        if role in PART_ROLES and dot and "name" in self.tree.get(role, ()):
            owner = pick(loaded, role, self.tree).plugin
            recorded = {
                entry.get("name"): (entry.get("version"), entry.get("sha256")) for entry in code_info.get("plugins", ())
            }
            installed = {
                entry["name"]: (entry["version"], entry["sha256"]) for entry in map(Plugin.describe, loaded.plugins)
            }
            return owner in recorded and recorded[owner] != installed[owner]
        return bool(code_info.get("versions", {}).get(DISTRIBUTION, __version__) != __version__)


def read(path: Path) -> Recorded:
    """A configuration file, such as a record's config.toml.

    Raises:
        UsageError: it cannot be read, or its plugins.json cannot.
    """
    tree = read_toml(path)
    plugins = plugin_list(tree.pop("plugins", ()), str(path))
    plugins_file = path.parent / PLUGINS
    if path.name != CONFIG or not plugins_file.is_file():
        return Recorded(path, tree, plugins, None, "anyone may have written this file")
    try:
        content = plugins_file.read_bytes()
        code_info = json.loads(content)
        for key, kind in (("versions", dict), ("plugins", list), ("files", list), ("optional", list)):
            if not isinstance(code_info.setdefault(key, kind()), kind):
                raise ValueError(f"{key} must be a {kind.__name__}")
        if not all(isinstance(entry, dict) for entry in (*code_info["plugins"], *code_info["files"])):
            raise ValueError("plugins and files must be lists of tables")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{plugins_file} cannot be read: {error}") from None
    doubt = ""
    if not is_signed(path.parent, path.read_bytes(), content):
        doubt = "you did not record this run here: it has no signature of yours"
        if (path.parent / SIGNATURE).is_file():
            doubt = f"{CONFIG} or {PLUGINS} was changed since the run, or another user or machine recorded it"
    return Recorded(path, tree, plugins, code_info, doubt)


def read_record(directory: Path) -> Recorded:
    """The configuration of a recorded run, by its folder."""
    if not directory.is_dir():
        raise UsageError(f"no run directory {directory}")
    clean(directory, STALE)
    return read(directory / CONFIG)


def _names(tree: Mapping[str, Any], within: str = "") -> Iterable[str]:
    """The dotted names of all entries of a tree, including tables."""
    for key, value in tree.items():
        yield f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{within}{key}.")


def _absent_from(complete: Mapping[str, Any], tree: Any, within: str = "") -> Iterable[tuple[str, Any]]:
    """The entries of a complete tree that are absent from this one: dotted names and values."""
    for key, value in complete.items():
        if not isinstance(tree, Mapping) or key not in tree:
            yield f"{within}{key}", value
        elif isinstance(value, Mapping):
            yield from _absent_from(value, tree[key], f"{within}{key}.")
