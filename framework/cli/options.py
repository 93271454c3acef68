"""From the command line to a configuration. The chosen parts decide which flags there are.

tyro parses the same arguments twice. The first pass reads only the choices (plugins, file, recipe, names of parts). The
second has the chosen parts' settings as typed flags, with the merged lower layers as defaults.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import attrs
import tyro
from attrs import frozen

from ..config import DEFAULTS, PART_ROLES, SECTIONS, Config
from ..errors import say
from ..parts import Loaded, Part
from ..records.reading import Recorded, read
from ..setup.layers import merge
from ..setup.loading import load
from ..setup.resolving import recipe_of, resolve_layers
from ..setup.suggestions import refuse_foreign, refuse_misplaced
from ..setup.tree import configure, is_complete
from ..setup.wiring import wire
from .choices import ALL, Choices, RolloutAmounts, RunLengths, chosen_tree, field_of, split_names
from .consent import Consent, UnresolvedError
from .help import HELP, parse
from .settings_flags import parse_settings
from .tyro_types import type_registry


@frozen
class Resolved:
    """The result of parsing the command line."""

    config: Config
    loaded: Loaded
    extra: Any  # the command's own flags
    lists_plugins: bool  # --plugins without a value
    trusted: bool = False  # the user consented to import what files name


def resolve(
    command: str,
    description: str,
    arguments: Sequence[str],
    extra: type[Any],
    record_settings: Mapping[str, Any] | None = None,
    offered: Sequence[str] = ALL,
    valued: bool = False,
    record: Recorded | None = None,
    imports: bool = True,
) -> Resolved:
    """Parse a command's arguments.

    `extra` is a frozen attrs class of flags that only this command has; `record_settings` is a tree, such as a
    record's, that is the layer right above the defaults, and `record` its source; `offered` are the roles, sections and
    scalars that have flags; `valued` is that of `wire`. Without `imports`, and for `--help`, code that only a file
    names is not imported: help then leaves the file out, otherwise `UnresolvedError` is raised.
    """
    first_class: Any = attrs.make_class(
        "First",
        {
            "choices": field_of(Annotated[Choices, tyro.conf.arg(name="")]),
            "rollout": field_of(RolloutAmounts, default=RolloutAmounts()),
            "lengths": field_of(Annotated[RunLengths, tyro.conf.arg(name="")], default=RunLengths()),
        },
        frozen=True,
    )
    refuse_foreign(arguments, attrs.fields_dict(extra))
    original = arguments
    arguments, excluded = _take_exclusions(arguments)
    without_help = [word for word in arguments if word not in HELP]
    first_pass: Any
    program = f"framework {command}"
    first_pass, _ = parse(
        first_class, without_help, program, return_unknown_args=True, add_help=False, registry=type_registry()
    )
    choices: Choices = first_pass.choices
    wants_help = bool(set(HELP) & set(arguments))
    config_file = None if choices.config is None else read(_config_file(choices.config))
    plugin_names = split_names(choices.plugins or ())
    consent = Consent(record, config_file, choices.trust, command, original)
    if not consent.allows_plugins(plugin_names, may_ask=imports and not wants_help):
        if not wants_help:
            raise UnresolvedError(consent)
        say(f"note: this help leaves out what is not imported.\n{consent.refused}")
        record, config_file, record_settings = None, None, {}
    file_tree = {} if config_file is None else config_file.tree
    lowest_layer = dict(record_settings or {})
    lists_plugins = choices.plugins == ()
    file_plugins = [plugin for file in (record, config_file) if file is not None for plugin in file.plugins]
    chosen = chosen_tree(choices, first_pass.rollout, getattr(first_pass, "lengths", None), excluded)
    loaded = load((*file_plugins, *plugin_names), rest=True)
    if record is not None:
        replaced = [
            role for role in PART_ROLES if role in chosen and chosen[role] != {"name": _part_name(lowest_layer, role)}
        ]
        record.refuse_incomplete(loaded, set(offered) - set(replaced))
    if config_file is not None and config_file.code_info is not None:
        config_file.refuse_incomplete(loaded)
    recipe = recipe_of(loaded, choices.recipe)
    layers = (DEFAULTS, lowest_layer, {} if is_complete(file_tree) else recipe, file_tree)
    if choices.config:
        configure(loaded, merge(*layers), str(choices.config))  # so that errors name the file
    base, explicit = resolve_layers(loaded, *layers, chosen)
    if not wants_help:
        groups = {key: getattr(base, key) for key in (*PART_ROLES, *SECTIONS) if key in offered}
        chosen_settings = {key: getattr(group, "settings", group) for key, group in groups.items()}
        refuse_misplaced(arguments, chosen_settings, loaded)
    config, own_flags = parse_settings(command, description, arguments, base, loaded, choices, extra, offered)

    def without_files(configuration: Callable[[], Config]) -> Config:
        return parse_settings(command, description, arguments, configuration(), loaded, choices, extra, offered)[0]

    configurations = (lambda: configure(loaded, merge(DEFAULTS, recipe, chosen)), lambda: _with_defaults(base))
    consent.check_parts(
        config, [partial(without_files, configuration) for configuration in configurations], may_ask=imports
    )
    if imports:
        used = [getattr(config, role) for role in PART_ROLES if role in offered]
        for file in consent.files:
            file.warn_of_differences(loaded, used if file is record else (*used, *config.extensions))
    return Resolved(wire(config, loaded, explicit, valued), loaded, own_flags, lists_plugins, bool(consent.allowed))


def _with_defaults(config: Config) -> Config:
    """The same parts, with their defaults."""

    def with_defaults(part: Part) -> Part:
        return attrs.evolve(part, settings=type(part.settings)())

    roles: Any = {role: with_defaults(getattr(config, role)) for role in PART_ROLES}
    return attrs.evolve(config, **roles, extensions=tuple(map(with_defaults, config.extensions)))


def _part_name(tree: Mapping[str, Any], role: str) -> Any:
    section = tree.get(role)
    return section.get("name") if isinstance(section, Mapping) else None


def _config_file(path: Path) -> Path:
    """The path of the file, or of the configuration in a record's folder."""
    return path / "config.toml" if os.path.isdir(path) else path  # Path.is_dir raises for a name that is too long


def _take_exclusions(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other arguments, and the extensions that `--extensions.no-NAME` excludes."""
    matches = [(word, re.fullmatch(r"--extensions\.no[-_](\w[\w-]*)", word)) for word in arguments]
    return [word for word, match in matches if match is None], [
        match[1].replace("-", "_") for _, match in matches if match
    ]
