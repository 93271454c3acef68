"""`framework show`: prints the resolved configuration, as the config.toml that a run would write."""

from collections.abc import Sequence

import tomli_w
from attrs import frozen

from ..errors import say, visible
from ..setup.tree import to_tree
from .consent import UnresolvedError
from .options import resolve
from .output import is_terminal, results


@frozen
class Extra:
    """`show` has no flags of its own."""


def main(arguments: Sequence[str]) -> int:
    """Print TOML; the same flags as `run`."""
    description = "Print the configuration that `framework run` would use, as TOML."
    try:
        resolved = resolve("show", description, arguments, Extra, imports=False)
        text = tomli_w.dumps(to_tree(resolved.config, resolved.loaded))
    except UnresolvedError as error:
        text = "".join(tomli_w.dumps({"plugins": list(file.plugins), **file.tree}) for file in error.consent.files)
        say(f"note: {error} This is the unresolved file; `framework show --trust` resolves it.")
    with results(encoding=None if is_terminal() else "utf-8"):  # TOML is UTF-8, whatever the terminal's code page
        print(visible(text, but="\n") if is_terminal() else text, end="")
    return 0
