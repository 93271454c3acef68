"""Flags ⇄ configuration: which parts are named decides which flags there are.

Two passes of tyro over the same words: the first reads only what chooses (plugins, file, recipe, names of
parts), the second has the chosen parts' settings as typed flags, with the merged lower layers as defaults.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import tyro
from attrs import frozen

from .. import config as configs
from ..config import COLLECT, DEFAULTS, PART_ROLES, Config, Tree, configure, merge, read_toml
from ..errors import UsageError
from ..plugins import Loaded, Part, load
from ..wiring import chosen_roles, imply, wire

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
            "load only these: installed names, module paths, FILE.py; without a value: all, listed first",
            "A,B",
        ),
    ] = None
    config: Annotated[Path | None, _flag("config", "a TOML file, such as a record's config.toml", "FILE")] = None
    recipe: Annotated[str | None, _flag("recipe", "a named configuration to start from")] = None
    environment: Annotated[str | None, _flag("environment", "which environment")] = None
    policy: Annotated[str | None, _flag("policy", "which policy")] = None
    estimator: Annotated[str | None, _flag("estimator", "which return estimator")] = None
    baseline: Annotated[str | None, _flag("baseline", "which baseline is subtracted")] = None
    loss: Annotated[str | None, _flag("loss", "which loss")] = None
    extensions: Annotated[
        tuple[str, ...] | None, _flag("extensions", "what else works in the run, in this order", "A,B")
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
        },
        frozen=True,
    )
    quiet = [word for word in arguments if word not in HELP]
    early: Any
    program = f"framework {command}"
    early, _ = tyro.cli(
        first, args=quiet, prog=program, return_unknown_args=True, add_help=False, config=WITHOUT_COMMENTS
    )
    choices: Choices = early.choices
    file = {} if choices.config is None else read_toml(choices.config)
    listed = choices.plugins == ()
    lowest = dict(below or {})
    listing = configs.plugin_list(lowest.pop("plugins", ()), "the record")
    listing += configs.plugin_list(file.pop("plugins", ()), str(choices.config))
    named = _named(choices, early.rollout)
    defaults = merge(DEFAULTS, lowest)
    reports = merge(defaults, file, named)["reports"]
    loaded = load(_with_reports(_names(choices.plugins), reports)) if choices.plugins else load(listing, rest=True)
    recipe: Tree = {}
    if choices.recipe is not None:
        recipe = dict(loaded.pick("recipe", choices.recipe)[2])
    merged = merge(defaults, recipe, file, named)
    chosen = chosen_roles(lowest, recipe, file, named)
    if choices.config:
        configure(loaded, merge(defaults, recipe, file), str(choices.config))  # so that its faults are called its own
    base = imply(configure(loaded, merged), loaded, chosen)
    config, extras = _second_pass(command, description, arguments, base, loaded, choices, extra, offered)
    return Resolved(wire(config, loaded, chosen, valued), loaded, extras, listed)


def _names(words: Sequence[str]) -> tuple[str, ...]:
    """`("a,b", "c")` → `("a", "b", "c")`."""
    return tuple(name for word in words for name in word.split(",") if name)


def _with_reports(selection: Sequence[str], reports: Sequence[str]) -> Sequence[str]:
    """Selecting plugins does not switch off the bar, the record and the plot: `--reports` does."""
    if not set(reports) & set(DEFAULTS["reports"]) or "reports" in selection:
        return selection
    return (*selection, "reports")


def _named(choices: Choices, amounts: _Amounts) -> Tree:
    tree: Tree = {role: {"name": getattr(choices, role)} for role in PART_ROLES if getattr(choices, role) is not None}
    if choices.extensions is not None:
        tree["extensions"] = {"names": _names(choices.extensions)}
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
        fields[key] = field_of(Annotated[kind, tyro.conf.arg(help=text)], default=getattr(base, key))
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
        parsed: Any = tyro.cli(
            flags,
            args=list(arguments),
            prog=f"framework {command}",
            description=description,
            config=() if set(HELP) & set(arguments) else WITHOUT_COMMENTS,
        )
    changed: dict[str, Any] = {key: getattr(parsed, key) for key in (*scalars, *sections)}
    for key in sections:
        configs.validate(key, changed[key])
    for role in PART_ROLES:
        settings = getattr(parsed, f"{role}_settings", None)
        if settings is not None:
            configs.validate(role, settings)
            changed[role] = attrs.evolve(getattr(base, role), settings=settings)
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
    configs.validate(f"extensions.{part.name}", mine)
    return attrs.evolve(part, settings=mine)


def _shown(choices: Choices, base: Config, loaded: Loaded) -> Choices:
    """The choices with what they came to, so that `--help` shows it."""
    return attrs.evolve(
        choices,
        **{role: getattr(base, role).name for role in PART_ROLES},
        extensions=tuple(part.name for part in base.extensions),
        reports=tuple(part.name for part in base.reports),
    )


SCALAR_HELP = {
    "iterations": "rollouts, each followed by its updates",
    "seed": "of all randomness",
    "device": "where policy and rollouts live: cpu, cuda, mps …",
    "threads": "of torch; small networks are fastest on one",
    "compile": "make C++ of the updates: 15 s at the start (5 once cached), then they are faster",
    "trace_gradients": "in every update, which term of the loss reaches which parameters; else in the first only",
}


def is_terminal() -> bool:
    """Whether standard output is read by a person."""
    return sys.stdout is not None and sys.stdout.isatty()  # None: closed, as by `>&-`
