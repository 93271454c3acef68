"""Flags ⇄ configuration: which parts are named decides which flags there are.

Two passes of tyro over the same words: the first reads only what chooses (plugins, file, recipe, names of
parts), the second has the chosen parts' settings as typed flags, with the merged lower layers as defaults.
"""

import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import attrs
import tyro
from attrs import frozen

from .. import kinds
from ..config import DEFAULTS, PART_ROLES, SCALARS, SECTIONS, Config, Tree
from ..errors import UsageError, say
from ..kinds import worded
from ..parts import Loaded, Part
from ..records.reading import Recorded, read
from ..setup.layers import COLLECT, LENGTHS, deepened, merge
from ..setup.loading import load
from ..setup.resolving import recipe_of, resolve_layers
from ..setup.suggestions import refuse_foreign, refuse_misplaced
from ..setup.tree import configure, is_complete, validate
from ..setup.wiring import wire
from .consent import Consent, UnresolvedError
from .help import HELP, parse
from .output import standard_output
from .tables import tables


def flag(text: str, metavar: str, default: str | None = None, name: str | None = None) -> Any:
    """How help shows a flag; `default` is what it says of that, where its value says too little."""
    hint = None if default is None else f"(default: {default})"
    return tyro.conf.arg(name=name, help=text, metavar=metavar, help_behavior_hint=hint)


ALL = (*PART_ROLES, *SECTIONS, *SCALARS, "extensions", "reports")
PLUGINS_HELP = (
    "plugins to load besides the installed ones: module paths or FILE.py; without a value: list all plugins first"
)


@frozen
class Choices:
    """What decides which flags there are."""

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
class _Amounts:
    """The ways to collect: naming one drops the others of lower layers."""

    steps: int | None = None
    episodes: int | None = None
    fixed_steps: int | None = None


@frozen
class _Lengths:
    """What ends a run: naming one drops the other of lower layers."""

    iterations: int | None = None
    steps: int | None = None


@frozen
class Resolved:
    """What the command line came to."""

    config: Config
    loaded: Loaded
    extra: Any  # the command's own flags
    listed: bool  # --plugins without a value
    trusted: bool = False  # the user has consented to import what files name


def field_of(type: Any, **default: Any) -> Any:
    """A field of a class made here; attrs's own stub knows no annotated types."""
    return attrs.field(type=type, **default)


def resolve(
    command: str,
    description: str,
    arguments: Sequence[str],
    extra: type[Any],
    below: Mapping[str, Any] | None = None,
    offered: Sequence[str] = ALL,
    valued: bool = False,
    record: Recorded | None = None,
    imports: bool = True,
) -> Resolved:
    """Parse a command's words.

    `extra` is a frozen attrs class of flags that only this command has; `below` a tree, such as a record's, that is
    the layer right above the defaults; `offered` says of which roles, sections and scalars there are flags;
    `valued` is that of `wire`; `record` is where `below` comes from. Without `imports`, and for `--help`, code that
    only a file names is not imported: help then leaves the file out, and else `UnresolvedError` is raised.
    """
    first: Any = attrs.make_class(
        "First",
        {
            "choices": field_of(Annotated[Choices, tyro.conf.arg(name="")]),
            "rollout": field_of(_Amounts, default=_Amounts()),
            "lengths": field_of(Annotated[_Lengths, tyro.conf.arg(name="")], default=_Lengths()),
        },
        frozen=True,
    )
    refuse_foreign(arguments, attrs.fields_dict(extra))
    words = arguments
    arguments, left_out = _left_out(arguments)
    quiet = [word for word in arguments if word not in HELP]
    early: Any
    program = f"framework {command}"
    early, _ = parse(first, quiet, program, return_unknown_args=True, add_help=False, registry=tables())
    choices: Choices = early.choices
    helps = bool(set(HELP) & set(arguments))
    given = None if choices.config is None else read(_config_file(choices.config))
    also = _names(choices.plugins or ())
    consent = Consent(record, given, choices.trust, command, words)
    if not consent.to_plugins(also, asks=imports and not helps):
        if not helps:
            raise UnresolvedError(consent)
        say(f"note: this help leaves out what is not imported.\n{consent.refused}")
        record, given, below = None, None, {}
    file = {} if given is None else given.tree
    lowest = dict(below or {})
    listed = choices.plugins == ()
    listing = [plugin for one in (record, given) if one is not None for plugin in one.plugins]
    named = _named(choices, early.rollout, getattr(early, "lengths", None), left_out)
    loaded = load((*listing, *also), rest=True)
    if record is not None:
        elsewhere = [role for role in PART_ROLES if role in named and named[role] != {"name": _name(lowest, role)}]
        record.refuse_incomplete(loaded, set(offered) - set(elsewhere))
    if given is not None and given.made is not None:
        given.refuse_incomplete(loaded)
    recipe = recipe_of(loaded, choices.recipe)
    layers = (DEFAULTS, lowest, {} if is_complete(file) else recipe, file)
    if choices.config:
        configure(loaded, merge(*layers), str(choices.config))  # so that its faults are called its own
    base, chosen = resolve_layers(loaded, *layers, named)
    if not helps:
        groups = {key: getattr(base, key) for key in (*PART_ROLES, *SECTIONS) if key in offered}
        chosen_settings = {key: getattr(group, "settings", group) for key, group in groups.items()}
        refuse_misplaced(arguments, chosen_settings, loaded)
    config, extras = _second_pass(command, description, arguments, base, loaded, choices, extra, offered)

    def without_files(bare: Callable[[], Config]) -> Config:
        return _second_pass(command, description, arguments, bare(), loaded, choices, extra, offered)[0]

    ways = (lambda: configure(loaded, merge(DEFAULTS, recipe, named)), lambda: _unset(base))
    consent.to_parts(config, [partial(without_files, bare) for bare in ways], asks=imports)
    if imports:
        used = [getattr(config, role) for role in PART_ROLES if role in offered]
        for one in consent.files:
            one.warn_of_differences(loaded, used if one is record else (*used, *config.extensions))
    return Resolved(wire(config, loaded, chosen, valued), loaded, extras, listed, bool(consent.allowed))


def _unset(config: Config) -> Config:
    """The same parts, with their defaults."""

    def unset(part: Part) -> Part:
        return attrs.evolve(part, settings=type(part.settings)())

    roles: Any = {role: unset(getattr(config, role)) for role in PART_ROLES}
    return attrs.evolve(config, **roles, extensions=tuple(map(unset, config.extensions)))


def _name(tree: Mapping[str, Any], role: str) -> Any:
    section = tree.get(role)
    return section.get("name") if isinstance(section, Mapping) else None


def _names(words: Sequence[str]) -> tuple[str, ...]:
    """`("a,b", "c")` → `("a", "b", "c")`."""
    return tuple(name for word in words for name in word.split(",") if name)


def _config_file(path: Path) -> Path:
    """A file itself, or that of a record's folder."""
    return path / "config.toml" if os.path.isdir(path) else path  # Path.is_dir raises for a name that is too long


def _left_out(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other words, and the extensions that `--extensions.no-NAME` takes out."""
    found = [(word, re.fullmatch(r"--extensions\.no[-_](\w[\w-]*)", word)) for word in arguments]
    return [word for word, out in found if out is None], [out[1].replace("-", "_") for _, out in found if out]


def _named(choices: Choices, amounts: _Amounts, lengths: _Lengths | None, left_out: Sequence[str]) -> Tree:
    tree: Tree = {role: {"name": getattr(choices, role)} for role in PART_ROLES if getattr(choices, role) is not None}
    if choices.extensions is not None:
        tree["extensions"] = {"names": _names(choices.extensions)}
    if left_out:
        tree.setdefault("extensions", {}).update(dict.fromkeys(left_out, False))
    for name in LENGTHS:
        number = getattr(lengths, name, None)
        if number is not None and number >= 1:
            tree[name] = number
    if choices.reports is not None:
        tree["reports"] = _names(choices.reports)
    given = {name: getattr(amounts, name) for name in COLLECT if getattr(amounts, name) is not None}
    if len(given) > 1:
        raise UsageError(f"rollout.{' and rollout.'.join(given)} exclude each other: choose one way to collect")
    if given and all(number >= 1 for number in given.values()):
        tree["rollout"] = given
    return tree


def _second_pass(
    command: str,
    description: str,
    arguments: Sequence[str],
    base: Config,
    loaded: Loaded,
    choices: Choices,
    extra: type[Any],
    offered: Sequence[str],
) -> tuple[Config, Any]:
    scalars, sections = ([key for key in keys if key in offered] for keys in (SCALARS, SECTIONS))
    numbers: dict[str, Any] = {}
    for key in scalars:
        kind = attrs.fields_dict(Config)[key].type
        shown = tyro.conf.arg(help=SCALAR_HELP[key], metavar="INT" if key in LENGTHS else None)
        numbers[key] = field_of(Annotated[kind, shown], default=getattr(base, key))
    numbered: Any = attrs.make_class("Numbers", numbers, frozen=True)
    groups = {"choices": _shown(choices, base, loaded, offered), "numbers": numbered(), "extra": extra()}
    fields: dict[str, Any] = {
        key: field_of(Annotated[type(group), tyro.conf.arg(name="")], default=group) for key, group in groups.items()
    }
    for role in PART_ROLES:
        settings = getattr(base, role).settings
        if role in offered and attrs.fields(type(settings)):
            fields[f"{role}_settings"] = field_of(
                type=Annotated[type(settings), tyro.conf.arg(name=role)], default=settings
            )
    for key in sections:
        fields[key] = field_of(SECTIONS[key], default=getattr(base, key))
    with_settings = [part for part in (*base.extensions, *base.reports) if attrs.fields(type(part.settings))]
    if with_settings and "extensions" in offered:
        members = {part.name: field_of(type(part.settings), default=part.settings) for part in with_settings}
        nested: Any = attrs.make_class("Extensions", members, frozen=True)
        nested.__doc__ = "Settings of the chosen extensions."
        fields["extension_settings"] = field_of(Annotated[nested, tyro.conf.arg(name="extensions")], default=nested())
    flags: Any = attrs.make_class("Flags", fields, frozen=True)
    flags.__doc__ = description
    with attrs.validators.disabled():  # validated below, in our own words
        parsed: Any = parse(flags, arguments, f"framework {command}", description, registry=tables())
    changed: dict[str, Any] = {key: getattr(parsed.numbers, key) for key in scalars}
    changed |= {key: getattr(parsed, key) for key in sections}
    for key in sections:
        changed[key] = _checked(key, getattr(base, key), changed[key])
    for role in PART_ROLES:
        settings = getattr(parsed, f"{role}_settings", None)
        if settings is not None:
            changed[role] = attrs.evolve(
                getattr(base, role), settings=_checked(role, getattr(base, role).settings, settings)
            )
    for key in ("extensions", "reports"):
        changed[key] = tuple(
            _extension(part, getattr(parsed, "extension_settings", None)) for part in getattr(base, key)
        )
    config = attrs.evolve(base, **{key: value for key, value in changed.items() if key not in scalars})
    for key in scalars:
        try:
            config = attrs.evolve(config, **{key: changed[key]})
        except ValueError as error:
            raise UsageError(worded("", error)) from None
    return config, parsed.extra


def _extension(part: Part, settings: Any) -> Part:
    mine = getattr(settings, part.name, None)
    if mine is None:
        return part
    return attrs.evolve(part, settings=_checked(f"extensions.{part.name}", part.settings, mine))


def _checked(where: str, base: Any, parsed: Any) -> Any:
    """Parsed settings, of the right kinds; tables are put over those below, as in files."""
    tables = {
        attribute.alias: deepened(getattr(base, attribute.name), getattr(parsed, attribute.name))
        for attribute in attrs.fields(type(parsed))
        if attribute.init and isinstance(getattr(parsed, attribute.name), dict)
    }
    if where == "optimizer" and parsed.name != base.name:  # the options below were the other optimizer's
        tables["options"] = {} if parsed.options == base.options else parsed.options
    with attrs.validators.disabled():
        parsed = kinds.checked(where, attrs.evolve(parsed, **tables) if tables else parsed)
    validate(where, parsed)
    return parsed


def names_of(loaded: Loaded) -> dict[str, list[str]]:
    """The names that there are for each choice."""
    reports = set(DEFAULTS["reports"])
    names = {role: loaded.names(role) for role in (*PART_ROLES, "recipe")}
    names["extensions"] = [name for name in loaded.names("extension") if name not in reports]
    names["reports"] = [name for name in loaded.names("extension") if name in reports]
    return names


def choices_of(offered: Sequence[str]) -> list[Any]:
    """The fields of `Choices` that a command with options for these has."""
    return [
        field
        for field in attrs.fields(Choices)
        if field.name in offered or field.name in ("recipe", "config", "trust", "plugins")
    ]


def _shown(choices: Choices, base: Config, loaded: Loaded, offered: Sequence[str]) -> Any:
    """The choices that a command offers, with what they came to and the names that there are: what `--help` shows."""
    came_to: dict[str, Any] = {role: getattr(base, role).name for role in PART_ROLES}
    came_to["trust"] = False  # a flag that was given is parsed anew, and one that is on could only be taken back
    came_to |= {key: tuple(part.name for part in getattr(base, key)) for key in ("extensions", "reports")}
    names = names_of(loaded)
    fields: dict[str, Any] = {}
    for field in choices_of(offered):
        value, kind = came_to.get(field.name, getattr(choices, field.name)), field.type
        if field.name in names:
            kind, told = typing.get_args(kind)
            default = " ".join(value) if isinstance(value, tuple) else value
            text = told.help.format(", ".join(names[field.name]))
            kind = Annotated[kind, flag(text, told.metavar, default or "none")]
        fields[field.name] = field_of(kind, default=value)
    shown: Any = attrs.make_class("Choices", fields, frozen=True)
    return shown()


SCALAR_HELP = {
    "iterations": "number of iterations, each a rollout and its updates; no limit if only --steps is given",
    "steps": "number of environment steps; the run ends after the iteration that reaches it",
    "seed": "seed of all random numbers",
    "device": "torch device of policy and rollouts: cpu, cuda, mps …",
    "threads": "number of threads of torch and of numpy's linear algebra; small networks are fastest with one",
    "compile": "compile updates and rollouts to C++, in 20 to 35 s at the start of the first run and about 5 s later",
    "trace_gradients": "measure in every update which term of the loss reaches which parameters; else in the first",
    "step_timeout": "seconds that a reset or step of the environment may take; a longer one ends the run",
}


def is_terminal() -> bool:
    """Whether standard output is read by a person."""
    stream = standard_output()
    return stream is not None and stream.isatty()  # None: closed, as by `>&-`
