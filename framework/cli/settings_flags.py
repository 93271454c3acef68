"""The second pass over the arguments: the settings of the chosen parts as typed flags."""

from collections.abc import Sequence
from typing import Annotated, Any

import attrs
import tyro

from .. import kinds
from ..config import PART_ROLES, SCALARS, SECTIONS, Config
from ..errors import UsageError
from ..kinds import worded
from ..parts import Loaded, Part
from ..setup.layers import LENGTHS, deepened
from ..setup.tree import validate
from .choices import Choices, choices_with_defaults, field_of
from .help import parse
from .tyro_types import type_registry

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


def parse_settings(
    command: str,
    description: str,
    arguments: Sequence[str],
    base: Config,
    loaded: Loaded,
    choices: Choices,
    extra: type[Any],
    offered: Sequence[str],
) -> tuple[Config, Any]:
    """The configuration with the settings from the command line, and the command's own flags."""
    scalars, sections = ([key for key in keys if key in offered] for keys in (SCALARS, SECTIONS))
    numbers: dict[str, Any] = {}
    for key in scalars:
        kind = attrs.fields_dict(Config)[key].type
        argument = tyro.conf.arg(help=SCALAR_HELP[key], metavar="INT" if key in LENGTHS else None)
        numbers[key] = field_of(Annotated[kind, argument], default=getattr(base, key))
    numbers_class: Any = attrs.make_class("Numbers", numbers, frozen=True)
    groups = {
        "choices": choices_with_defaults(choices, base, loaded, offered),
        "numbers": numbers_class(),
        "extra": extra(),
    }
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
    with attrs.validators.disabled():  # validated below, with our own messages
        parsed: Any = parse(flags, arguments, f"framework {command}", description, registry=type_registry())
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
            _with_flags(part, getattr(parsed, "extension_settings", None)) for part in getattr(base, key)
        )
    config = attrs.evolve(base, **{key: value for key, value in changed.items() if key not in scalars})
    for key in scalars:
        try:
            config = attrs.evolve(config, **{key: changed[key]})
        except ValueError as error:
            raise UsageError(worded("", error)) from None
    return config, parsed.extra


def _with_flags(part: Part, settings: Any) -> Part:
    parsed = getattr(settings, part.name, None)
    if parsed is None:
        return part
    return attrs.evolve(part, settings=_checked(f"extensions.{part.name}", part.settings, parsed))


def _checked(where: str, base: Any, parsed: Any) -> Any:
    """Parsed settings with checked types; tables are merged over those of lower layers, as in files."""
    tables = {
        attribute.alias: deepened(getattr(base, attribute.name), getattr(parsed, attribute.name))
        for attribute in attrs.fields(type(parsed))
        if attribute.init and isinstance(getattr(parsed, attribute.name), dict)
    }
    if where == "optimizer" and parsed.name != base.name:  # lower layers' options are of the other optimizer
        tables["options"] = {} if parsed.options == base.options else parsed.options
    with attrs.validators.disabled():
        parsed = kinds.checked(where, attrs.evolve(parsed, **tables) if tables else parsed)
    validate(where, parsed)
    return parsed
