"""What goes wrong, and whose it is: every error that a user is meant to read.

`UsageError` is raised before any work (a bad name, value, file or combination) and makes the command
line exit with 2; `PartError` is raised while a run works, names the part and its plugin, and makes it
exit with 1. Anything else that escapes is a fault of this framework.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import TracebackType


class FrameworkError(Exception):
    """Base of all errors that this framework words for its users."""


class UsageError(FrameworkError):
    """A name, value, file or combination that cannot be run; raised before the first step."""


class PartError(FrameworkError):
    """A part of a running run raised, or broke its contract. The message begins with whose it is."""


def warn(message: str) -> None:
    """Warn (`RuntimeWarning`). It never raises: not where standard error is closed, nor where warnings are errors."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=1)
    except (OSError, ValueError, RuntimeWarning):
        say(f"warning: {message}")


def say(message: str) -> None:
    """Print on standard error, if there is still one."""
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


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


def culprit(
    traceback: TracebackType | None, objects: Mapping[int, str], files: Mapping[str, str]
) -> tuple[str, str] | None:
    """Whose code raised: the label of the innermost part or plugin on the traceback, and the place; or None.

    `objects` maps `id(object)` to a label and is compared with each frame's `self`; `files` maps source files
    to names of plugins. A wrapper that an error merely passes through is not to blame: its frame lies directly outside
    one of pluggy's. Code of a plugin that one of its parts called is that part's.

    Nothing is paid for this while all goes well: no part's call is wrapped.
    """
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    passing = False
    found: tuple[str, str] | None = None  # a plugin, and the place
    for entry in reversed(entries):
        frame = entry.tb_frame
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        part, plugin = objects.get(id(frame.f_locals.get("self"))), files.get(file)
        place = f"{file}:{entry.tb_lineno} in {frame.f_code.co_name}"
        if found is None and not passing:
            if part is not None:
                return part, place
            if plugin is not None:
                found = plugin, place
        elif found is not None and part is not None and part.endswith(f"(plugin {found[0]})"):
            return part, found[1]
        passing = name.startswith("pluggy.")
    return None if found is None else (f"plugin '{found[0]}'", found[1])
