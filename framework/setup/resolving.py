"""From layers to one configuration: the command line and Python resolve here what a run is."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from ..config import SECTIONS, Config, Section
from ..errors import UsageError
from ..kinds import checked, converted, shown, well_formed
from ..parts import Loaded, Part
from .layers import PART_ROLES, Tree, merge
from .tree import configure, updated
from .wiring import chosen_roles, imply, wire


def resolve_layers(loaded: Loaded, *layers: Mapping[str, Any]) -> tuple[Config, set[str]]:
    """The configuration of layers, the lowest first, with the parts that others imply; and the roles that were chosen.

    The first layer holds the defaults, which choose nothing.
    """
    chosen = chosen_roles(*layers[1:])
    return imply(configure(loaded, merge(*layers)), loaded, chosen), chosen


@frozen
class Given:
    """What Python's arguments say, sorted."""

    tree: Tree  # what a file would say
    settings: Tree  # of parts that are not named: of whichever part the role comes to have
    objects: dict[str, Any]  # settings objects of the five roles
    extensions: tuple[Any, ...]  # names and settings objects, in order


def resolve_arguments(
    loaded: Loaded, below: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any], flags: Mapping[str, Any]
) -> tuple[Config, list[str]]:
    """The wired configuration of Python's arguments over layers; and each setting that an object left to a layer.

    Args:
        loaded: the plugins.
        below: defaults, then the recipe.
        arguments: of the roles, sections, scalars and `extensions`, by name; None: not given.
        flags: further settings by their dotted names, with "." or "__" between: what flags are on the command line.

    Raises:
        UsageError: as `configure` and `wire`.
    """
    given = _sorted(arguments, flags)
    config = configure(loaded, merge(*below, given.tree))
    kept: list[str] = []
    parts: dict[str, Any] = {}
    for role, settings in given.objects.items():
        part = _part_of(loaded, role, settings)
        parts[role] = _over(part, getattr(config, role), role, kept, _said(settings))
    config = attrs.evolve(config, **parts, extensions=_extensions(loaded, below, config, given, kept))
    chosen = {*parts, *chosen_roles(*below[1:], given.tree)}
    config = imply(config, loaded, chosen)
    changed: dict[str, Any] = {
        role: updated(getattr(config, role), role, section, loaded) for role, section in given.settings.items()
    }
    return wire(attrs.evolve(config, **changed), loaded, chosen), kept


def _sorted(arguments: Mapping[str, Any], flags: Mapping[str, Any]) -> Given:
    tree: Tree = {}
    objects: dict[str, Any] = {}
    extensions: tuple[Any, ...] = ()
    for key, value in arguments.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            tree[key] = value
        elif key in PART_ROLES:
            if isinstance(value, str):
                tree[key] = {"name": value}
            elif not (isinstance(value, type) or attrs.has(type(value))):
                raise UsageError(f"{key} must be a name, a dict or a settings object, got {shown(value)}")
            else:
                objects[key] = value
        elif key in SECTIONS:
            tree[key] = _section(key, value)
        elif key == "extensions":
            extensions = _listed(value)
            tree[key] = {"names": [name for name in extensions if isinstance(name, str)]}
        else:
            tree[key] = value
    well_formed(tree)
    tree = merge(tree, *(_nested(name, value) for name, value in flags.items()))
    settings = {}
    for role in PART_ROLES:
        if isinstance(tree.get(role), Mapping) and "name" not in tree[role]:
            settings[role] = tree.pop(role)
        elif role in objects and role in tree:
            raise UsageError(f"{role} is given as an object and by the name {shown(tree[role]['name'])}: choose one")
    return Given(tree, settings, objects, extensions)


def _section(key: str, value: Any) -> Tree:
    cls: Any = SECTIONS[key]
    if not isinstance(value, cls):
        raise UsageError(f"{key} must be a dict or {cls.__name__}(…), got {shown(value)}")
    section: Section = value
    return section.given()


def _listed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(name for name in value.split(",") if name)
    if not isinstance(value, Sequence):
        raise UsageError(f"extensions must be a list of names and settings objects, or a dict, got {shown(value)}")
    return tuple(value)


def _nested(name: str, value: Any) -> Tree:
    """`update__epochs` and `update.epochs` → the tree with that entry."""
    *outer, last = re.split(r"\.|__", name.replace("-", "_"))
    tree: Tree = {last: value}
    for key in reversed(outer):
        tree = {key: tree}
    return tree


def _part_of(loaded: Loaded, role: str, settings: Any) -> Part:
    part = loaded.part_of(role, settings)
    where = role if role in PART_ROLES else f"extensions.{part.name}"
    return attrs.evolve(part, settings=checked(where, part.settings))


def _said(settings: Any) -> frozenset[str] | None:
    """The fields that were given when an object was made; None: it does not know."""
    return frozenset(settings.given()) if isinstance(settings, Section) else None


def _over(part: Part, below: Part, where: str, kept: list[str], given: frozenset[str] | None) -> Part:
    """An object over a layer's settings of the same class: what it was not given is the layer's.

    An object that does not know leaves to the layer what is at the class's default, and `kept` lists that.
    """
    cls = type(part.settings)
    if type(below.settings) is not cls:
        return part
    default, taken = cls(), {}
    for attribute in attrs.fields(cls):
        mine, lower, usual = (getattr(one, attribute.name) for one in (part.settings, below.settings, default))
        if attribute.init and lower != mine and (mine == usual if given is None else attribute.name not in given):
            taken[attribute.alias] = lower
            if given is None:
                kept.append(f"{where}.{attribute.name} = {shown(lower)}")
    return attrs.evolve(part, settings=attrs.evolve(part.settings, **taken)) if taken else part


def _extensions(
    loaded: Loaded, layers: Sequence[Mapping[str, Any]], config: Config, given: Given, kept: list[str]
) -> tuple[Part, ...]:
    """The layers' extensions, then those that were given, in their order; an object may be over a layer's."""
    if all(isinstance(item, str) for item in given.extensions):
        return config.extensions
    names = merge(*layers).get("extensions", {}).get("names", ())
    lower = [loaded.pick("extension", name)[:2] for name in names]
    below = [part for part in config.extensions if (part.plugin, part.name) in lower]
    parts = list(below)
    for item in given.extensions:
        if isinstance(item, str):
            plugin, name, _ = loaded.pick("extension", item)
            part = next(part for part in config.extensions if (part.plugin, part.name) == (plugin, name))
            if part not in parts:
                parts.append(part)
            continue
        part = _part_of(loaded, "extension", item)
        mine = [number for number, lower in enumerate(below) if type(lower.settings) is type(item)]
        if mine and parts[mine[0]] is below[mine[0]]:
            parts[mine[0]] = _over(part, below[mine[0]], f"extensions.{part.name}", kept, _said(item))
        else:
            parts.append(part)
    return (
        *parts,
        *(part for part in config.extensions if (part.plugin, part.name) not in lower and part not in parts),
    )


def recipe_of(loaded: Loaded, recipe: Any) -> Tree:
    """A recipe's tree; None: an empty one."""
    return {} if recipe is None else dict(loaded.pick("recipe", converted(str, "recipe", recipe))[2])
