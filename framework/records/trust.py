"""Code that a file names: it runs only where the user made that file, names the same code, or says so.

A configuration can name code in two ways: `plugins` lists modules and files, and settings may name modules that
building the part imports (`imports`), as Gymnasium's `id` and `wrappers` do. Installed plugins, and environments that
an installed package registers, are the user's own choice. All else that only a file names is refused without consent.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

from ..config import DEFAULTS, PART_ROLES
from ..errors import UsageError, visible
from ..parts import Part
from ..setup.layers import merge
from ..setup.loading import GROUP, load
from ..setup.tree import pick
from .provenance import imports
from .reading import Recorded


def foreign_plugins(file: Recorded, named: Iterable[str] = ()) -> list[str]:
    """What a file's `plugins` lists that is not installed, not `named` by the user, not of the user's own record."""
    points = entry_points(group=GROUP)  # those that FRAMEWORK_PLUGINS bars are refused when they are loaded
    known = {*points.names, *(point.module for point in points), *(_place(name) for name in named)}
    return [one for one in file.plugins if one not in known and _place(one) not in known and not file.vouches(one)]


def foreign_imports(parts: Iterable[Part], files: Sequence[Recorded]) -> dict[str, str]:
    """What building these parts imports that no record of the user's own names: module or file → the part's label."""
    found = {name: part.label for part in parts for name in imports(part)}
    return {name: label for name, label in found.items() if not any(file.vouches(name) for file in files)}


def named_beside(file: Recorded) -> dict[str, str]:
    """What the settings of installed parts would import, as far as it can be known before the file's own plugins."""
    found: dict[str, str] = {}
    loaded = load()
    for role in PART_ROLES:
        try:
            part = pick(loaded, role, merge(DEFAULTS, file.tree))
        except UsageError:  # a part of a plugin that is not loaded
            continue
        found |= foreign_imports([part], [file])
    return found


def listed(file: Recorded, plugins: Sequence[str], modules: Mapping[str, str]) -> str:
    """What would be imported, a line each, and why it is not trusted."""
    lines = [f"  {_kind(name)} {visible(name)}, a plugin" for name in plugins]
    lines += [f"  {_kind(name)} {visible(name)}, for {label}" for name, label in modules.items()]
    why = file.doubt or "the run that you recorded imported this from another folder"
    return f"{file.path} names code that no installed plugin has:\n" + "\n".join(lines) + f"\nIt is not trusted: {why}."


def refuse(file: Recorded, plugins: Sequence[str], modules: Mapping[str, str], remedy: str) -> NoReturn:
    """Refuse to import these.

    Raises:
        UsageError: lists what would be imported, and says how to allow it.
    """
    text = f"{listed(file, plugins, modules)} It could do whatever you can do."
    raise UsageError(f"{text}\nIf you trust whoever wrote it: {remedy}")


def ask(file: Recorded, plugins: Sequence[str], modules: Mapping[str, str], remedy: str) -> None:
    """Ask on a terminal whether to import these; without one, refuse.

    Raises:
        UsageError: as `refuse`; or the answer was not yes.
    """
    if sys.stdin is None or sys.stderr is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        refuse(file, plugins, modules, remedy)
    text = f"{listed(file, plugins, modules)} It could do whatever you can do."
    print(visible(f"{text}\nImport it? [y/N] ", but="\n"), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was imported or run")


def _kind(name: str) -> str:
    return "file" if name.endswith(".py") else "module"


def _place(name: str) -> str:
    """A file's full path; a module's name as it is."""
    return str(Path(name).resolve()) if name.endswith(".py") else name
