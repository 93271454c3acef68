"""`framework show`: the resolved configuration, as the config.toml that a run would write."""

from collections.abc import Sequence

import tomli_w
from attrs import frozen

from ..config import to_tree
from .options import resolve


@frozen
class Extra:
    """`show` has no flags of its own."""


def main(arguments: Sequence[str]) -> int:
    """Print TOML; the same flags as `run`."""
    resolved = resolve("show", "Print the configuration that `run` with the same flags would use.", arguments, Extra)
    print(tomli_w.dumps(to_tree(resolved.config, resolved.loaded)), end="")
    return 0
