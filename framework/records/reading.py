"""A configuration that is read back: a record's, or any file's; who made it, whether it is complete, what differs."""

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

STALE = 600.0  # seconds after which nobody writes to a temporary file any more


@frozen(eq=False)
class Recorded:
    """A file's configuration, and what lies beside it where it is a record's."""

    path: Path
    tree: Tree  # without `plugins`
    plugins: tuple[str, ...]
    made: Mapping[str, Any] | None  # plugins.json; None: the file is no record's
    doubt: str  # why what it names is not trusted; "" where this user signed it
    said: set[str] = field(factory=set)  # the differences that were warned of

    @property
    def directory(self) -> Path:
        """The record's folder."""
        return self.path.parent

    def vouches(self, name: str) -> bool:
        """Whether this user's own run imported this module or file, from where it would be imported now.

        A module is looked for in the current folder, too, and one of the same name in another folder is another one,
        even if its content is the same: what it imports, or Python's cache of it, may be other code.
        """
        if self.doubt or self.made is None:
            return False
        named = Path(name).resolve() if name.endswith(".py") else find(name)
        if named is None or is_installed(named):
            return True  # there is nothing to import, or nothing of the user's own
        listed = [*self.made.get("files", ()), *self.made.get("plugins", ())]
        return any(str(named) == one.get("file") for one in listed)

    def refuse_incomplete(self, loaded: Loaded, keys: Collection[str] | None = None) -> None:
        """Refuse a record that leaves settings out: it was changed. One of an older version may lack what is new.

        Args:
            loaded: the plugins.
            keys: the roles and scalars that are used of it; None: all there is.

        Raises:
            UsageError: names what is missing.
        """
        lacking = dict(_lacking(self._complete(loaded, keys), self.tree))
        older = [name for name in lacking if self._is_older(loaded, name)]
        missing = [name for name in lacking if name not in older]
        there = {*_names(self.tree)}
        optional = [name for name in (self.made or {}).get("optional", ()) if name not in there]
        missing += [name for name in optional if keys is None or name.partition(".")[0] in keys]
        if missing:
            raise UsageError(
                f"{self.path} is not complete, as a record must be: it has no {', '.join(missing)}. "
                "Somebody changed it; with defaults instead it would be another run"
            )
        if older:
            given = ", ".join(f"{name} = {lacking[name]!r}" for name in older)
            warn(f"{self.path} is of an older version and does not say {given}: the default")

    def warn_of_differences(self, loaded: Loaded, parts: Sequence[Part], files: bool = True) -> None:
        """One warning, where the code that is here is not the code that made the record."""
        found = [] if self.made is None else differences(self.made, loaded, parts, files)
        found = [one for one in found if one not in self.said]
        self.said.update(found)
        if found:
            warn(f"{self.path.parent} was made by other code: {'; '.join(found)}")

    def _complete(self, loaded: Loaded, keys: Iterable[str] | None) -> Tree:
        tree: Tree
        if keys is None:
            tree = to_tree(configure(loaded, merge(DEFAULTS, self.tree), str(self.path)), loaded)
            tree.pop("plugins")
            return tree
        defaults = {key: attrs.fields_dict(Config)[key].default for key in keys if key in SCALARS}
        tree = {key: default for key, default in defaults.items() if default is not None}
        for role in set(PART_ROLES).intersection(keys):
            named = merge({role: DEFAULTS[role]}, {role: self.tree.get(role, {})})
            tree[role] = {"name": named[role]["name"], **settings_tree(pick(loaded, role, named).settings)}
        return tree

    def _is_older(self, loaded: Loaded, name: str) -> bool:
        """Whether the code that has this setting is not the code that wrote the record."""
        made = self.made or {}
        role, dot, _ = name.partition(".")
        if role in PART_ROLES and dot and "name" in self.tree.get(role, ()):
            owner = pick(loaded, role, self.tree).plugin
            then = {one.get("name"): (one.get("version"), one.get("sha256")) for one in made.get("plugins", ())}
            now = {one["name"]: (one["version"], one["sha256"]) for one in map(Plugin.describe, loaded.plugins)}
            return owner in then and then[owner] != now[owner]
        return bool(made.get("versions", {}).get(DISTRIBUTION, __version__) != __version__)


def read(path: Path) -> Recorded:
    """A configuration file, such as a record's config.toml.

    Raises:
        UsageError: it cannot be read; or plugins.json beside it cannot.
    """
    tree = read_toml(path)
    plugins = plugin_list(tree.pop("plugins", ()), str(path))
    beside = path.parent / PLUGINS
    if path.name != CONFIG or not beside.is_file():
        return Recorded(path, tree, plugins, None, "it is a file that anybody may have written")
    try:
        content = beside.read_bytes()
        made = json.loads(content)
        for key, kind in (("versions", dict), ("plugins", list), ("files", list), ("optional", list)):
            if not isinstance(made.setdefault(key, kind()), kind):
                raise ValueError(f"{key} must be a {kind.__name__}")
        if not all(isinstance(one, dict) for one in (*made["plugins"], *made["files"])):
            raise ValueError("plugins and files must be lists of tables")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{beside} cannot be read: {error}") from None
    doubt = ""
    if not is_signed(path.parent, path.read_bytes(), content):
        doubt = "you did not record this run here: it has no signature of yours"
        if (path.parent / SIGNATURE).is_file():
            doubt = f"{CONFIG} or {PLUGINS} was changed since the run, or another user or machine recorded it"
    return Recorded(path, tree, plugins, made, doubt)


def read_record(directory: Path) -> Recorded:
    """The configuration of a recorded run, by its folder."""
    if not directory.is_dir():
        raise UsageError(f"no run directory {directory}")
    clean(directory, STALE)
    return read(directory / CONFIG)


def _names(tree: Mapping[str, Any], within: str = "") -> Iterable[str]:
    """The dotted names of all that a tree holds, tables too."""
    for key, value in tree.items():
        yield f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{within}{key}.")


def _lacking(complete: Mapping[str, Any], tree: Any, within: str = "") -> Iterable[tuple[str, Any]]:
    """What a complete tree has and this one lacks: dotted names and values."""
    for key, value in complete.items():
        if not isinstance(tree, Mapping) or key not in tree:
            yield f"{within}{key}", value
        elif isinstance(value, Mapping):
            yield from _lacking(value, tree[key], f"{within}{key}.")
