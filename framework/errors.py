"""Errors that users read; each names the part that it comes from.

`UsageError` is raised before any work (a bad name, value, file or combination) and makes the command
line exit with 2; `PartError` is raised while a run works, names the part and its plugin, and makes it
exit with 1. Anything else that escapes is a fault of this framework.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches


class FrameworkError(Exception):
    """Base of all errors that this framework words for its users."""


class UsageError(FrameworkError):
    """A name, value, file or combination that cannot be run; raised before the first step."""


class PartError(FrameworkError):
    """A part of a running run raised, or broke its contract. The message begins with its label."""


def warn(message: str) -> None:
    """Warn (`RuntimeWarning`). It never raises: not where standard error is closed, nor where warnings are errors."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=1)
    except (OSError, ValueError, RuntimeWarning):
        say(f"warning: {message}")


def say(message: str) -> None:
    """Print on standard error, if there is still one."""
    with contextlib.suppress(OSError, ValueError):
        print(visible(message, but="\n\t"), file=sys.stderr, flush=True)


def visible(text: str, but: str = "") -> str:
    """Escape what a terminal would obey and not show: names in an untrusted file could hide or rewrite lines with it.

    >>> visible("evil\\x1b[2K\\u202e.py")
    'evil\\\\u001b[2K\\\\u202e.py'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in but else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    """As TOML and JSON have it."""
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> str:
    """Say that `name` is no `what`, offer the nearest name, and list all that there are.

    >>> unknown("estimator", "gea", ["rewards_to_go", "gae"])
    "no estimator 'gea'. Did you mean 'gae'? There is: gae, rewards_to_go"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    listing = f"There is: {', '.join(names)}" if names else "There is none"
    return f"no {what} '{name}'{where}.{guess} {listing}"
