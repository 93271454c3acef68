"""Flags ⇄ configuration: which parts are named decides which flags there are.

Two passes of tyro over the same words: the first reads only what chooses (plugins, file, recipe, names of
parts), the second has the chosen parts' settings as typed flags, with the merged lower layers as defaults.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import tomli_w
import tyro
from attrs import frozen

from .. import config as configs
from .. import kinds
from ..config import COLLECT, DEFAULTS, PART_ROLES, Config, Tree, configure, is_complete, merge, read_toml
from ..errors import UsageError
from ..kinds import plain
from ..layers import LENGTHS, deepened
from ..plugins import Loaded, Part, load
from ..remedies import refuse_foreign
from ..resolving import recipe_of, resolve_layers
from ..wiring import wire
from .output import parse, standard_output

HELP = ("-h", "--help")
WITHOUT_COMMENTS = (tyro.conf.HelptextFromCommentsOff,)  # to find those, sources are parsed: 0.07 s, for `--help` alone


def _flag(name: str, text: str, metavar: str = "NAME") -> Any:
    return tyro.conf.arg(name=name, help=text, metavar=metavar)


@frozen
class Choices:
    """What decides which flags there are."""

    plugins: Annotated[
        tuple[str, ...] | None,
        _flag(
            "plugins",
            "load these besides the installed plugins: module paths, FILE.py; without a value: list all first",
            "A,B",
        ),
    ] = None
    config: Annotated[Path | None, _flag("config", "a TOML file, or a record's folder", "FILE")] = None
    recipe: Annotated[str | None, _flag("recipe", "a named configuration to start from")] = None
    environment: Annotated[str | None, _flag("environment", "which environment")] = None
    policy: Annotated[str | None, _flag("policy", "which policy")] = None
    estimator: Annotated[str | None, _flag("estimator", "which return estimator")] = None
    baseline: Annotated[str | None, _flag("baseline", "which baseline is subtracted")] = None
    loss: Annotated[str | None, _flag("loss", "which loss")] = None
    extensions: Annotated[
        tuple[str, ...] | None,
        _flag("extensions", "added to the recipe's, in this order; --extensions.no-NAME takes one out", "A,B"),
    ] = None
    reports: Annotated[
        tuple[str, ...] | None, _flag("reports", "what watches the run; without a value: nothing", "A,B")
    ] = None


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


def field_of(type: Any, **default: Any) -> Any:
    """A field of a class made here; attrs's own stub knows no annotated types."""
    return attrs.field(type=type, **default)


def resolve(
    command: str,
    description: str,
    arguments: Sequence[str],
    extra: type[Any],
    below: Mapping[str, Any] | None = None,
    offered: Sequence[str] = (*PART_ROLES, *configs.SECTIONS, *configs.SCALARS, "extensions"),
    valued: bool = False,
) -> Resolved:
    """Parse a command's words.

    `extra` is a frozen attrs class of flags that only this command has; `below` a tree, such as a record's, that is
    the layer right above the defaults; `offered` says of which roles, sections and scalars there are flags;
    `valued` is that of `wire`.
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
    arguments, left_out = _left_out(arguments)
    quiet = [word for word in arguments if word not in HELP]
    early: Any
    program = f"framework {command}"
    early, _ = parse(first, args=quiet, prog=program, return_unknown_args=True, add_help=False, config=WITHOUT_COMMENTS)
    choices: Choices = early.choices
    file = {} if choices.config is None else read_toml(_config_file(choices.config))
    listed = choices.plugins == ()
    lowest = dict(below or {})
    listing = configs.plugin_list(lowest.pop("plugins", ()), "the record")
    listing += configs.plugin_list(file.pop("plugins", ()), str(choices.config))
    named = _named(choices, early.rollout, getattr(early, "lengths", None), left_out)
    loaded = load((*listing, *_names(choices.plugins or ())), rest=True)
    recipe = recipe_of(loaded, choices.recipe)
    layers = (DEFAULTS, lowest, {} if is_complete(file) else recipe, file)
    if choices.config:
        configure(loaded, merge(*layers), str(choices.config))  # so that its faults are called its own
    base, chosen = resolve_layers(loaded, *layers, named)
    config, extras = _second_pass(command, description, arguments, base, loaded, choices, extra, offered)
    return Resolved(wire(config, loaded, chosen, valued), loaded, extras, listed)


def _names(words: Sequence[str]) -> tuple[str, ...]:
    """`("a,b", "c")` → `("a", "b", "c")`."""
    return tuple(name for word in words for name in word.split(",") if name)


def _config_file(path: Path) -> Path:
    """A file itself, or that of a record's folder."""
    return path / "config.toml" if path.is_dir() else path


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
    scalars, sections = ([key for key in keys if key in offered] for keys in (configs.SCALARS, configs.SECTIONS))
    fields: dict[str, Any] = {
        "choices": field_of(Annotated[Choices, tyro.conf.arg(name="")], default=_shown(choices, base, loaded)),
        "extra": field_of(Annotated[extra, tyro.conf.arg(name="")], default=extra()),
    }
    for key in scalars:
        kind = attrs.fields_dict(Config)[key].type
        text = SCALAR_HELP[key]
        shown = tyro.conf.arg(help=text, metavar="INT" if key in LENGTHS else None)
        fields[key] = field_of(Annotated[kind, shown], default=getattr(base, key))
    for role in PART_ROLES:
        settings = getattr(base, role).settings
        if role in offered and attrs.fields(type(settings)):
            fields[f"{role}_settings"] = field_of(
                type=Annotated[type(settings), tyro.conf.arg(name=role)], default=settings
            )
    for key in sections:
        fields[key] = field_of(configs.SECTIONS[key], default=getattr(base, key))
    with_settings = [part for part in (*base.extensions, *base.reports) if attrs.fields(type(part.settings))]
    if with_settings and "extensions" in offered:
        members = {part.name: field_of(type(part.settings), default=part.settings) for part in with_settings}
        nested: Any = attrs.make_class("Extensions", members, frozen=True)
        nested.__doc__ = "Settings of the chosen extensions."
        fields["extension_settings"] = field_of(Annotated[nested, tyro.conf.arg(name="extensions")], default=nested())
    flags: Any = attrs.make_class("Flags", fields, frozen=True)
    flags.__doc__ = description
    with attrs.validators.disabled():  # validated below, in our own words
        parsed: Any = parse(
            flags,
            args=list(arguments),
            prog=f"framework {command}",
            description=description,
            config=() if set(HELP) & set(arguments) else WITHOUT_COMMENTS,
            registry=_tables(),
        )
    changed: dict[str, Any] = {key: getattr(parsed, key) for key in (*scalars, *sections)}
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
            raise UsageError(configs.worded("", error)) from None
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
    configs.validate(where, parsed)
    return parsed


def _tables() -> Any:
    """How tyro reads and shows tables: names and values in turn, each value as TOML writes it, or a plain word."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if info.type != dict[str, Any]:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="[NAME VALUE [NAME VALUE ...]]",
            instance_from_str=_table,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda table: [word for name, value in table.items() for word in (name, _as_word(value))],
        )

    return registry


def _table(words: Sequence[str]) -> dict[str, Any]:
    if len(words) % 2:
        raise ValueError(f"names and values in turn, such as {words[0]} VALUE")
    return {name: _as_value(word) for name, word in zip(words[::2], words[1::2], strict=True)}


def _as_value(word: str) -> Any:
    """What a word says as a value of TOML; itself, where it is none.

    >>> _as_value("-9.81"), _as_value('["SF", "FG"]'), _as_value("True"), _as_value("8x8")
    (-9.81, ['SF', 'FG'], True, '8x8')
    """
    if word in ("True", "False"):  # as flags were written before, and as Python has them
        return word == "True"
    try:
        value = plain(tomllib.loads(f"value = {word}")["value"])
    except (ValueError, RecursionError):
        try:
            return int(word) if word.strip("+-").isdigit() else float(word)
        except ValueError:
            return None if word == "None" else word
    return value


def _as_word(value: Any) -> str:
    """The word that `_as_value` reads as this value."""
    return value if isinstance(value, str) else tomli_w.dumps({"v": value}).removeprefix("v = ").strip()


def _shown(choices: Choices, base: Config, loaded: Loaded) -> Choices:
    """The choices with what they came to, so that `--help` shows it."""
    return attrs.evolve(
        choices,
        **{role: getattr(base, role).name for role in PART_ROLES},
        extensions=tuple(part.name for part in base.extensions),
        reports=tuple(part.name for part in base.reports),
    )


SCALAR_HELP = {
    "iterations": "rollouts, each followed by its updates; without a limit where --steps is given alone",
    "steps": "environment steps: the run ends after the iteration that reaches them",
    "seed": "of all randomness",
    "device": "where policy and rollouts live: cpu, cuda, mps …",
    "threads": "of torch; small networks are fastest on one",
    "compile": "make C++ of the updates: 15 s at the start (5 once cached), then they are faster",
    "trace_gradients": "in every update, which term of the loss reaches which parameters; else in the first only",
}


def is_terminal() -> bool:
    """Whether standard output is read by a person."""
    stream = standard_output()
    return stream is not None and stream.isatty()  # None: closed, as by `>&-`
