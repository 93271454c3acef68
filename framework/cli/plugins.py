"""`framework plugins`: lists the installed plugins, their origins and parts, and which failed to load."""

import json
from collections.abc import Sequence
from typing import Annotated

from attrs import frozen

from ..parts import Loaded, not_allowed
from ..setup.loading import load
from . import output
from .choices import flag
from .help import parse
from .output import is_terminal, results


@frozen
class Flags:
    """List the installed plugins: where each comes from, which parts it offers, and which failed to load and why."""

    plugins: Annotated[
        tuple[str, ...] | None,
        flag("plugins to list: installed names, module paths or FILE.py", "A,B", "all that are installed"),
    ] = None


def main(arguments: Sequence[str]) -> int:
    """Print a table, or JSON where standard output is not a terminal."""
    flags: Flags = parse(Flags, arguments, "framework plugins")
    names = [name for word in flags.plugins or () for name in word.split(",") if name]
    loaded = load(names or None)
    with results():
        if is_terminal():
            print_table(loaded)
        else:
            print(json.dumps(_listing(loaded), indent=2))
    return 0


def parts_of(loaded: Loaded, plugin: str) -> dict[str, list[str]]:
    """The names of a plugin's parts, by role."""
    return {
        role: names
        for role, parts in loaded.offers.items()
        if (names := sorted(name for name, owners in parts.items() if plugin in owners))
    }


def _listing(loaded: Loaded) -> dict[str, object]:
    plugins = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution or None,
            "version": plugin.version or None,
            "source": plugin.source,
            "provides": parts_of(loaded, plugin.name),
        }
        for plugin in loaded.plugins
    ]
    failed = [
        {"name": failure.name, "distribution": failure.distribution, "reason": failure.reason}
        for failure in loaded.failures
    ]
    return {"plugins": plugins, "failed": failed, "not_allowed": list(loaded.not_allowed)}


def print_table(loaded: Loaded) -> None:
    """Print the table of plugins and their parts, on standard error unless within `results`."""
    from rich.table import Table

    console = output.console()
    rows = Table("plugin", "from", "provides")
    for plugin in loaded.plugins:
        origin = f"{plugin.distribution} {plugin.version}" if plugin.distribution else plugin.source
        offers = parts_of(loaded, plugin.name)
        rows.add_row(plugin.name, origin, "\n".join(f"{role}: {', '.join(names)}" for role, names in offers.items()))
    console.print(rows)
    for failure in loaded.failures:
        console.print(f"failed: plugin '{failure.name}' ({failure.distribution}): {failure.reason}")
    if loaded.not_allowed:
        console.print(not_allowed(loaded.not_allowed))
