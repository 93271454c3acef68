"""`framework completion`: prints a script that completes commands, options and names of parts in bash or zsh."""

import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import attrs
import tyro
from attrs import frozen

from ..config import SCALARS, SECTIONS
from ..hookspecs import ROLES
from ..parts import Loaded
from ..setup.loading import load
from . import COMMANDS, audit_combinations, check, credit, evaluate, plugins, run
from .choices import ALL, Choices, choices_of, names_of
from .help import parse
from .output import results

Shell = Literal["bash", "zsh"]
DESCRIPTION = """\
Print a script that completes commands, options and names of parts.

For bash, in ~/.bashrc:
  source <(framework completion bash)

For zsh, in ~/.zshrc, after compinit:
  source <(framework completion zsh)

Starting a shell is faster if the script is kept in a file. Print it again after plugins were installed."""

# of each command: the roles, sections and numbers that it has options for, and its own options
WITH_PARTS: dict[str, tuple[Sequence[str], type[Any] | None]] = {
    "run": (ALL, run.Extra),
    "show": (ALL, None),
    "evaluate": (evaluate.FLAGS, evaluate.Extra),
    "audit": (audit_combinations.FLAGS, audit_combinations.Extra),
    "credit": (credit.FLAGS, credit.Extra),
}
WITHOUT_PARTS: dict[str, type[Any]] = {"check": check.Flags, "plugins": plugins.Flags}

# no variable of the script is called `words`, which means something else to zsh
SCRIPT = """\
_framework() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" candidates=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        candidates="{commands} --help --version"
    elif [[ "$current" == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    else
        case "$previous" in
{values}
        esac
    fi
    COMPREPLY=( $(compgen -W "$candidates" -- "$current") )
}}
complete -o default -F _framework framework
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


@frozen
class Flags:
    """Which shell."""

    shell: Annotated[tyro.conf.Positional[Shell], tyro.conf.arg(help="shell that the script is for")]


def main(arguments: Sequence[str]) -> int:
    """Print the script."""
    shell = parse(Flags, arguments, "framework completion", DESCRIPTION).shell
    text = (ZSH if shell == "zsh" else "") + script(load())
    with results():
        print(text, end="")
    return 0


def script(loaded: Loaded) -> str:
    """The script for bash, with the installed parts."""
    options = {command: dict(_options(command, loaded)) for command in COMMANDS}
    values = {flag: listed for flags in options.values() for flag, listed in flags.items() if listed}
    values |= {"new": [*ROLES], "completion": [*typing.get_args(Shell)], "--role": [*ROLES]}

    def cases(lists: dict[str, Any]) -> str:
        return "\n".join(f'            {word}) candidates="{" ".join(listed)}" ;;' for word, listed in lists.items())

    return SCRIPT.format(commands=" ".join(COMMANDS), options=cases(options), values=cases(values))


def _options(command: str, loaded: Loaded) -> Iterator[tuple[str, list[str]]]:
    """A command's options, including those of all parts that it may use, each with its known values."""
    yield "--help", []
    offered, command_flags = WITH_PARTS.get(command, ((), WITHOUT_PARTS.get(command)))
    yield from () if command_flags is None else _flags(command_flags)
    if command in WITH_PARTS:
        names = names_of(loaded)
        chosen = {field.name for field in choices_of(offered)}
        for flag, listed in _flags(Choices):
            name = flag.removeprefix("--").removeprefix("no-")
            if name in chosen:
                yield flag, names.get(name, listed)
        numbers = {key: attrs.field(type=kind) for key, kind in SCALARS.items() if key in offered}
        yield from _flags(attrs.make_class("Numbers", numbers))
        for key in filter(offered.__contains__, SECTIONS):
            yield from _flags(SECTIONS[key], f"{key}.")
    offers = ROLES if command == "check" else [role for role in ROLES if _section(role) in offered]
    for role in offers:
        for name, owners in loaded.offers[role].items():
            for cls in owners.values():
                yield from _flags(cls, f"extensions.{name.replace('_', '-')}." if role == "extension" else f"{role}.")


def _section(role: str) -> str:
    return "extensions" if role == "extension" else role


def _flags(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """The options for a class's fields, each with the values of a `Literal` type."""
    for field in attrs.fields(attrs.resolve_types(cls, include_extras=True)):
        name, kind, metadata = field.name.replace("_", "-"), field.type, getattr(field.type, "__metadata__", ())
        kind = typing.get_args(kind)[0] if metadata else kind
        yield f"--{prefix}{name}", [str(value) for value in typing.get_args(kind) if typing.get_origin(kind) is Literal]
        if kind is bool and tyro.conf.FlagCreatePairsOff not in metadata:
            yield f"--{prefix}no-{name}", []
