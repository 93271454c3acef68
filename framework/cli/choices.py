"""The flags that decide which other flags there are: plugins, files, recipe, and the names of parts."""

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import tyro
from attrs import frozen

from ..config import DEFAULTS, PART_ROLES, SCALARS, SECTIONS, Config, Tree
from ..errors import UsageError
from ..parts import Loaded
from ..setup.layers import COLLECT, LENGTHS


def flag(text: str, metavar: str, default: str | None = None, name: str | None = None) -> Any:
    """How help shows a flag; `default` replaces the default's value in the help text."""
    hint = None if default is None else f"(default: {default})"
    return tyro.conf.arg(name=name, help=text, metavar=metavar, help_behavior_hint=hint)


ALL = (*PART_ROLES, *SECTIONS, *SCALARS, "extensions", "reports")
PLUGINS_HELP = (
    "plugins to load besides the installed ones: module paths or FILE.py; without a value: list all plugins first"
)


@frozen
class Choices:
    """The choices that decide which flags there are."""

    recipe: Annotated[str | None, flag("named configuration to start from: {}", "NAME", "none")] = None
    config: Annotated[Path | None, flag("configuration file in TOML, or a record's folder", "FILE", "none")] = None
    trust: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="import the code that only the configuration file or record names (docs/trust.md)"),
    ] = False
    environment: Annotated[str | None, flag("environment: {}", "NAME")] = None
    policy: Annotated[str | None, flag("policy, with a critic or without: {}", "NAME")] = None
    estimator: Annotated[str | None, flag("estimator of each step's return: {}", "NAME")] = None
    baseline: Annotated[str | None, flag("baseline that is subtracted from the returns: {}", "NAME")] = None
    loss: Annotated[str | None, flag("loss that the updates minimise: {}", "NAME")] = None
    extensions: Annotated[
        tuple[str, ...] | None,
        flag("extensions to add, in this order: {}; --extensions.no-NAME takes one out", "A,B"),
    ] = None
    reports: Annotated[tuple[str, ...] | None, flag("reports on the run: {}; without a value: none", "A,B")] = None
    plugins: Annotated[tuple[str, ...] | None, flag(PLUGINS_HELP, "A,B", "none")] = None


@frozen
class RolloutAmounts:
    """The ways to collect: naming one drops the others of lower layers."""

    steps: int | None = None
    episodes: int | None = None
    fixed_steps: int | None = None


@frozen
class RunLengths:
    """What ends a run: naming one drops the other of lower layers."""

    iterations: int | None = None
    steps: int | None = None


def field_of(type: Any, **default: Any) -> Any:
    """A field for `attrs.make_class`; the type stub of attrs does not know annotated types."""
    return attrs.field(type=type, **default)


def chosen_tree(choices: Choices, amounts: RolloutAmounts, lengths: RunLengths | None, excluded: Sequence[str]) -> Tree:
    """The choices as a configuration tree."""
    tree: Tree = {role: {"name": getattr(choices, role)} for role in PART_ROLES if getattr(choices, role) is not None}
    if choices.extensions is not None:
        tree["extensions"] = {"names": split_names(choices.extensions)}
    if excluded:
        tree.setdefault("extensions", {}).update(dict.fromkeys(excluded, False))
    for name in LENGTHS:
        limit = getattr(lengths, name, None)
        if limit is not None and limit >= 1:
            tree[name] = limit
    if choices.reports is not None:
        tree["reports"] = split_names(choices.reports)
    rollout = {name: getattr(amounts, name) for name in COLLECT if getattr(amounts, name) is not None}
    if len(rollout) > 1:
        raise UsageError(f"rollout.{' and rollout.'.join(rollout)} exclude each other: choose one way to collect")
    if rollout and all(limit >= 1 for limit in rollout.values()):
        tree["rollout"] = rollout
    return tree


def split_names(words: Sequence[str]) -> tuple[str, ...]:
    """`("a,b", "c")` → `("a", "b", "c")`."""
    return tuple(name for word in words for name in word.split(",") if name)


def names_of(loaded: Loaded) -> dict[str, list[str]]:
    """The available names for each choice."""
    reports = set(DEFAULTS["reports"])
    names = {role: loaded.names(role) for role in (*PART_ROLES, "recipe")}
    names["extensions"] = [name for name in loaded.names("extension") if name not in reports]
    names["reports"] = [name for name in loaded.names("extension") if name in reports]
    return names


def choices_of(offered: Sequence[str]) -> list[Any]:
    """The fields of `Choices` for a command that offers these options."""
    return [
        field
        for field in attrs.fields(Choices)
        if field.name in offered or field.name in ("recipe", "config", "trust", "plugins")
    ]


def choices_with_defaults(choices: Choices, base: Config, loaded: Loaded, offered: Sequence[str]) -> Any:
    """A command's choices for `--help`: resolved values as defaults, and the available names."""
    values: dict[str, Any] = {role: getattr(base, role).name for role in PART_ROLES}
    values["trust"] = False  # parsed again; a flag that is on by default could only be switched off
    values |= {key: tuple(part.name for part in getattr(base, key)) for key in ("extensions", "reports")}
    names = names_of(loaded)
    fields: dict[str, Any] = {}
    for field in choices_of(offered):
        value, kind = values.get(field.name, getattr(choices, field.name)), field.type
        if field.name in names:
            kind, argument = typing.get_args(kind)
            default = " ".join(value) if isinstance(value, tuple) else value
            help_text = argument.help.format(", ".join(names[field.name]))
            kind = Annotated[kind, flag(help_text, argument.metavar, default or "none")]
        fields[field.name] = field_of(kind, default=value)
    choices_class: Any = attrs.make_class("Choices", fields, frozen=True)
    return choices_class()
