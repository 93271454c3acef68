"""Code that a file names runs only if the user made that file, names the same code, or consents.

A configuration can name code in two ways: `plugins` lists modules and files, and settings may name modules that
building the part imports (`imports`), as Gymnasium's `id` and `wrappers` do. Installed plugins, and environments that
an installed package registers, are the user's own choice. Any other code that only a file names needs consent.
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
    """The entries of a file's `plugins` that are neither installed, `named` by the user, nor in the user's record."""
    points = entry_points(group=GROUP)  # loading refuses those that FRAMEWORK_PLUGINS excludes
    known = {*points.names, *(point.module for point in points), *(_resolved_name(name) for name in named)}
    return [
        name
        for name in file.plugins
        if name not in known and _resolved_name(name) not in known and not file.vouches(name)
    ]


def foreign_imports(parts: Iterable[Part], files: Sequence[Recorded]) -> dict[str, str]:
    """What building these parts imports and no record of the user names: module or file → the part's label."""
    labels = {name: part.label for part in parts for name in imports(part)}
    return {name: label for name, label in labels.items() if not any(file.vouches(name) for file in files)}


def named_beside(file: Recorded) -> dict[str, str]:
    """What the settings of installed parts would import, as far as known before the file's own plugins are loaded."""
    labels: dict[str, str] = {}
    loaded = load()
    for role in PART_ROLES:
        try:
            part = pick(loaded, role, merge(DEFAULTS, file.tree))
        except UsageError:  # a part of a plugin that is not loaded
            continue
        labels |= foreign_imports([part], [file])
    return labels


def listed(file: Recorded, plugins: Sequence[str], modules: Mapping[str, str]) -> str:
    """What would be imported, one per line, and why it is not trusted."""
    lines = [f"  {_kind(name)} {visible(name)}, a plugin" for name in plugins]
    lines += [f"  {_kind(name)} {visible(name)}, for {label}" for name, label in modules.items()]
    reason = file.doubt or "the run that you recorded imported this from another folder"
    return (
        f"{file.path} names code that no installed plugin has:\n" + "\n".join(lines) + f"\nIt is not trusted: {reason}."
    )


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


def _resolved_name(name: str) -> str:
    """A file's full path; a module's name as it is."""
    return str(Path(name).resolve()) if name.endswith(".py") else name
