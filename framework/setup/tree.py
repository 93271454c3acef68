"""From a tree, as a TOML file holds it, to a configuration, and back."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ..config import SCALARS, SECTIONS, Config
from ..errors import UsageError, unknown
from ..kinds import converted, shown, well_formed, worded, written
from ..parts import Loaded, Part, Plugin
from .layers import PART_ROLES, Tree, deepened
from .suggestions import refuse_key, setting_hint


def read_toml(path: Path) -> Tree:
    """A TOML file's tree, with or without a byte order mark; `UsageError` names the file, and the line of a mistake."""
    try:
        data = path.read_bytes()
        if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
            raise UsageError(f"{path} is not UTF-8 (it looks like UTF-16, as Windows may write it): save it as UTF-8")
        return tomllib.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"no configuration file {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path}: its tables or lists are nested too deep") from None
    except ValueError as error:  # of TOML, of UTF-8, and numbers of thousands of digits
        raise UsageError(f"{path} is not TOML: {error}") from None


def plugin_list(value: Any, origin: str) -> tuple[str, ...]:
    """What a file's `plugins` asks for; `UsageError` where it is no list of strings."""
    try:
        return tuple(converted(tuple[str, ...], "plugins", value))
    except UsageError as error:
        raise UsageError(f"{origin}: {error}") from None


def pick(loaded: Loaded, role: str, tree: Mapping[str, Any]) -> Part:
    """The part that a merged tree names for one of the five roles, with its settings."""
    return _part(loaded, role, role, _section(tree, role))


def configure(loaded: Loaded, tree: Mapping[str, Any], origin: str = "") -> Config:
    """Pick the parts that a merged tree names and make all settings. `UsageError` names the wrong key."""
    known = (*PART_ROLES, *SECTIONS, *SCALARS, "extensions", "reports")
    try:
        well_formed(tree)
        for key in tree:
            if key not in known:
                refuse_key(key)
                raise UsageError(unknown("section or key", key, known))
        values: dict[str, Any] = {role: pick(loaded, role, tree) for role in PART_ROLES}
        values |= {key: _settings(cls, key, _section(tree, key)) for key, cls in SECTIONS.items() if key in tree}
        scalars = {key: tree[key] for key in SCALARS if tree.get(key) not in (None, "None")}
        values |= {key: converted(SCALARS[key], key, value) for key, value in scalars.items()}
        if "steps" in values and "iterations" not in values:
            values["iterations"] = None
        section = dict(_section(tree, "extensions"))
        names = converted(tuple[str, ...], "extensions.names", section.pop("names", ()))
        reports = converted(tuple[str, ...], "reports", tree.get("reports", ()))
        for key in section:
            if section[key] is False:
                loaded.pick("extension", key)
                if key in reports:
                    raise UsageError(f"extension '{key}' is one of the reports: leave it out there, reports = […]")
                continue
            _section(section, key, "extensions.")
            if key not in (*names, *reports):
                raise UsageError(
                    f"extensions.{key} is set, but extension '{key}' is not chosen: add it to extensions, "
                    f"which are: {', '.join((*names, *reports)) or 'none'}"
                )
        for key, chosen in (("extensions", names), ("reports", reports)):
            values[key] = tuple(
                _part(loaded, "extension", f"extensions.{name}", {**_section(section, name), "name": name})
                for name in chosen
            )
        try:
            return Config(**values)
        except ValueError as error:
            raise UsageError(worded("", error)) from None
    except UsageError as error:
        raise UsageError(f"{origin}: {error}" if origin else str(error)) from error.__cause__


def is_complete(tree: Mapping[str, Any]) -> bool:
    """Whether a file is complete, as a record's is: then nothing of a recipe is left below it."""
    return {*PART_ROLES, *SECTIONS, "seed", "device", "threads", "reports", "extensions"} <= tree.keys()


def used(config: Config, loaded: Loaded) -> list[Plugin]:
    """The plugins whose parts a configuration names: what it takes to run it again."""
    owners = {part.plugin for part in config.parts}
    return [plugin for plugin in loaded.plugins if plugin.name in owners]


def to_tree(config: Config, loaded: Loaded) -> Tree:
    """The complete tree of a configuration: what `configure` takes back, and what config.toml holds."""

    def name_of(part: Part) -> str:
        return loaded.short_name(part.role, part.name, part.plugin)

    tree: Tree = {key: getattr(config, key) for key in SCALARS if getattr(config, key) is not None}
    tree["plugins"] = [plugin.source for plugin in used(config, loaded)]
    tree["reports"] = [name_of(part) for part in config.reports]
    for role in PART_ROLES:
        part = getattr(config, role)
        tree[role] = {"name": name_of(part), **settings_tree(part.settings, role)}
    tree |= {key: settings_tree(getattr(config, key), key) for key in SECTIONS}
    tree["extensions"] = {"names": [name_of(part) for part in config.extensions]}
    for part in (*config.extensions, *config.reports):
        settings = settings_tree(part.settings, f"extensions.{name_of(part)}")
        if settings:
            tree["extensions"][name_of(part)] = settings
    return tree


def settings_tree(settings: Any, where: str = "") -> Tree:
    """A settings object as a tree. TOML has no null: None is left out where it is the default, else written "None"."""
    tree: Tree = {}
    for attribute in attrs.fields(type(settings)):
        value = getattr(settings, attribute.name)
        if value is None:
            if attribute.default is None:
                continue
            value = "None"
        tree[attribute.name] = written(f"{where}.{attribute.name}", value)
    return tree


def validate(where: str, settings: Any) -> None:
    """Run the validators of settings that were made without (by the command line); `UsageError` has the reason."""
    try:
        attrs.validate(settings)
    except (ValueError, TypeError) as error:
        raise UsageError(worded(where, error)) from None


def _section(tree: Mapping[str, Any], key: str, within: str = "") -> Mapping[str, Any]:
    section = tree.get(key, {})
    if not isinstance(section, Mapping):
        means: dict[Any, str] = {str: f", and its name = {shown(section)}", list: f", and its names = {shown(section)}"}
        also = means.get(type(section), "") if key in (*PART_ROLES, "extensions") else ""
        raise UsageError(f"{within}{key} must be a table, [{within}{key}]{also}, got {shown(section)}")
    return section


def _part(loaded: Loaded, role: str, where: str, section: Mapping[str, Any]) -> Part:
    name = converted(str, f"{where}.name", section.get("name"))
    plugin, name, cls = loaded.pick(role, name)
    settings = {key: value for key, value in section.items() if key != "name"}
    return Part(role, name, plugin, _settings(cls, where, settings, loaded=loaded))


def updated(part: Part, where: str, section: Mapping[str, Any], loaded: Loaded) -> Part:
    """The part with these of its settings changed, as flags change them."""
    return attrs.evolve(part, settings=_settings(type(part.settings), where, section, part.settings, loaded))


def _settings(
    cls: type[Any], where: str, section: Mapping[str, Any], base: Any = None, loaded: Loaded | None = None
) -> Any:
    """Settings of a class, of the others' values in `base` or else their defaults."""
    try:
        attributes = {attribute.name: attribute for attribute in attrs.fields(attrs.resolve_types(cls))}
    except NameError as error:
        raise UsageError(
            f"{where}: an annotation of {cls.__name__} names '{error.name}', which its module has not when it runs: "
            f"import it outside `if TYPE_CHECKING:`"
        ) from None
    for key in section:
        if key not in attributes:
            hint = "" if loaded is None else setting_hint(where, key, loaded)
            raise UsageError(unknown(f"setting of {where}", key, attributes) + hint)
    values = {key: converted(attributes[key].type, f"{where}.{key}", value) for key, value in section.items()}
    for key, value in values.items():
        if base is not None and isinstance(value, dict):
            values[key] = deepened(getattr(base, key), value)
    given = {attributes[key].alias: value for key, value in values.items()}
    try:
        return cls(**given) if base is None else attrs.evolve(base, **given)
    except (ValueError, TypeError) as error:
        raise UsageError(worded(where, error)) from None
