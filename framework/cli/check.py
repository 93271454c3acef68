"""`framework check`: tests a part, or all parts of a plugin, against the laws of its role."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

import attrs
import tyro
from attrs import field, frozen, validators

from ..errors import UsageError, say
from ..hookspecs import ROLES
from ..parts import Part
from ..reporting.progress_bar import Bar
from ..setup.loading import load
from ..setup.tree import validate
from . import check_table
from .choices import field_of
from .help import HELP, parse
from .output import is_terminal, results

WHAT = """\
  FILE.py       all parts that a file offers
  NAME          a part, such as gae; where several have the name,
                PLUGIN:NAME or ROLE:NAME
  PLUGIN        all parts of an installed plugin (framework plugins lists them)
  some.module   all parts of a plugin that can be imported"""
SHORTLY = "what to check: FILE.py, a part, a plugin or a module"
DESCRIPTION = f"""\
Test parts against the laws of their roles, with their default and with other settings.

A broken law is reported with the smallest example found and Python code that repeats it.

WHAT is one of
{WHAT}

Settings of a part come after WHAT; framework check WHAT --help lists them.

On a terminal it prints tables, else JSON.

exit codes: 0 all laws are kept, 1 one is broken, 2 nothing was checked,
3 none is broken, and one is not decided, as --quick ran out of time

examples:
  framework check my_estimator.py --quick
  framework check my_plugin.py --role baseline
  framework check gae --estimator.gamma 1
  framework check gymnasium --environment.id Acrobot-v1
  framework check ppo > report.json"""


@frozen
class Flags:
    """How to check."""

    quick: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="few examples per law, and little time per part", help_behavior_hint=""),
    ] = False
    role: Annotated[
        str | None,
        tyro.conf.arg(metavar="ROLE", help=f"check only parts of this role: {', '.join(ROLES)}", help_behavior_hint=""),
    ] = None
    examples: Annotated[
        int | None,
        tyro.conf.arg(metavar="N", help="examples per law", help_behavior_hint="(default: 100; with --quick, 15)"),
    ] = field(default=None, validator=validators.optional(validators.ge(1)))
    seed: Annotated[int, tyro.conf.arg(metavar="N", help="seed of the examples: the same seed draws the same ones")] = 0


def main(arguments: Sequence[str]) -> int:
    """Check.

    Exit code 0: all laws are kept, 1: one is broken, 2: no law could be checked on a part, 3: none is broken, and one
    is not decided.
    """
    words = list(arguments)
    wants_help = bool(set(HELP) & set(words))
    target, flags = _first_pass(words)
    if target is None and not wants_help:
        raise UsageError(f"check what?\n{WHAT}\nframework check --help says more")
    try:
        from ..testing import checking, counterexamples, selection
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise UsageError("checking needs Hypothesis: pip install framework-rl[testing]") from None
    loaded, parts = (load(()), []) if target is None else selection.select_parts(target, flags.role)
    parts = _with_settings(words, parts)
    checkable = [part for part in parts if checking.laws(part.role)]
    if not checkable:
        raise UsageError(f"there are no laws of {' and '.join(sorted({part.role + 's' for part in parts}))} to check")
    examples = flags.examples or (checking.QUICK_EXAMPLES if flags.quick else checking.EXAMPLES)
    seconds = checking.QUICK_SECONDS if flags.quick else (math.inf, math.inf)
    total = sum(len(checking.laws(part.role)) for part in checkable)
    counter = itertools.count(1)
    with Bar("law", total, "{task.fields[name]}", every=0, stays=False) as bar:
        reports = [
            checking.check(
                part,
                examples=examples,
                seed=flags.seed,
                seconds=seconds,
                loaded=loaded,
                on_progress=lambda law: bar.show(next(counter), name=law.name),
            )
            for part in checkable
        ]

    def text(verdict: Any, also: Sequence[str]) -> str:
        return counterexamples.as_text(verdict, loaded, flags.seed, examples, also)

    def snippet(verdict: Any) -> str | None:
        if verdict.subject is None:
            return None
        return counterexamples.snippet(
            verdict.law.name, verdict.subject.part, verdict.case, loaded, flags.seed, examples
        )

    listing = None if is_terminal() else [check_table.listing(report, snippet) for report in reports]
    with results():
        if listing is not None:
            print(json.dumps(listing, indent=2, allow_nan=False))
        else:
            for report in reports:
                check_table.show(report, text)
    if any(report.failed for report in reports):
        return 1
    for report in reports:
        if report.unchecked is not None:
            raise UsageError(f"nothing could be checked of {report.part.label}: {report.unchecked}")
    for report in reports:
        if report.undecided:
            count = f"{len(report.undecided)} law{'s are' if len(report.undecided) > 1 else ' is'}"
            say(f"{report.part.label}: {count} not decided: time ran out. Without --quick there is no limit")
    return 3 if any(report.undecided for report in reports) else 0


def _first_pass(words: Sequence[str]) -> tuple[str | None, Flags]:
    """What to check and how, from the arguments without settings (`--ROLE.FIELD VALUE`).

    Before WHAT, a setting has one value.
    """
    kept: list[str] = []
    setting = takes_value = False
    for word in words:
        if word.startswith("--"):
            setting, takes_value = _is_setting(word), "=" not in word
        elif setting and takes_value:
            takes_value = bool(kept) and not words[0].startswith("-")
            continue
        else:
            setting = False
        if not setting and word not in HELP:
            kept.append(word)
    first = _flags(str | None, None)
    with attrs.validators.disabled():
        parsed: Any = parse(first, kept, "framework check", add_help=False)
    validate("", parsed.how)
    return parsed.what, parsed.how


def _flags(what: Any, default: Any = attrs.NOTHING, **settings: Any) -> Any:
    """A class of all options: WHAT, how to check, and settings by role."""
    positional: Any = tyro.conf.Positional
    kind = positional[what]
    fields: dict[str, Any] = {
        "what": field_of(Annotated[kind, tyro.conf.arg(metavar="WHAT", help=SHORTLY)], default=default),
        "how": field_of(Annotated[Flags, tyro.conf.arg(name="")], default=Flags()),
        **{role: field_of(type(one), default=one) for role, one in settings.items()},
    }
    return attrs.make_class("Flags", fields, frozen=True)


def _is_setting(word: str) -> bool:
    return word.startswith("--") and "." in word.partition("=")[0]


def _with_settings(words: Sequence[str], parts: Sequence[Part]) -> list[Part]:
    """The parts with the settings from the command line; with --help, print help."""
    roles = [part.role for part in parts]
    roles_with_settings = dict.fromkeys(word[2:].partition(".")[0] for word in words if _is_setting(word))
    for role in roles_with_settings:
        if role in roles and roles.count(role) > 1:
            names = ", ".join(part.name for part in parts if part.role == role)
            raise UsageError(f"settings of which {role}? Name one of {names}")
    wants_help = bool(set(HELP) & set(words))
    if not roles_with_settings and not wants_help:
        return list(parts)
    unique = [part for part in parts if roles.count(part.role) == 1 and attrs.fields(type(part.settings))]
    flags = _flags(str, **{part.role: part.settings for part in unique})
    with attrs.validators.disabled():
        parsed: Any = parse(flags, HELP[:1] if wants_help else words, "framework check", DESCRIPTION)
    for part in unique:
        validate(part.role, getattr(parsed, part.role))
    return [attrs.evolve(part, settings=getattr(parsed, part.role, part.settings)) for part in parts]
