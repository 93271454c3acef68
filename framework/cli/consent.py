"""What a command may import of the code that files name: nothing, what the user says, or all."""

import contextlib
import io
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from ..config import Config
from ..errors import UsageError, say
from ..records.provenance import imports
from ..records.reading import Recorded
from ..records.trust import ask, foreign_imports, foreign_plugins, listed, named_beside


class Consent:
    """Of one command: to import what its files name."""

    def __init__(
        self, record: Recorded | None, given: Recorded | None, trust: bool, command: str, arguments: Sequence[str]
    ) -> None:
        """Of the record that is named first and the file of `--config`; with `trust`, both are trusted."""
        self.files = [one for one in (record, given) if one is not None]
        self.allowed, self.refused = list(self.files) if trust else [], ""
        words = [command.partition(" ")[0], *([] if record is None else [str(record.directory)]), *arguments]
        self.remedy = f"framework {shlex.join(words)} --trust"

    def to_plugins(self, named: Sequence[str], asks: bool) -> bool:
        """Whether the files' plugins may be imported; `named` are those that the command line names as well.

        Who asks, asks for all that a file names.

        Raises:
            UsageError: the user was asked, and did not consent.
        """
        for one in self.files:
            plugins = [] if one in self.allowed else foreign_plugins(one, named)
            if not plugins:
                continue
            if not asks:
                self.refused = listed(one, plugins, {})
                return False
            ask(one, plugins, named_beside(one), self.remedy)
            self.allowed.append(one)  # a plugin could import the rest itself
        return True

    def to_parts(self, config: Config, without_files: Sequence[Callable[[], Config]], asks: bool) -> None:
        """Whether building these parts may import what only the files' settings name.

        `without_files` make what the command's own words come to, with the recipe, or with the parts that files choose.

        Raises:
            UsageError: the user was asked, and did not consent.
        """
        left = [one for one in self.files if one not in self.allowed]
        found = foreign_imports(config.parts, self.files) if left else {}
        if found:
            own = {name for way in without_files for name in _imported(way)}
            found = {name: label for name, label in found.items() if name not in own}
        for one in left:
            beside = named_beside(one) if found and one is not left[-1] else found
            mine = {name: label for name, label in found.items() if name in beside}
            if mine and asks:
                ask(one, [], mine, self.remedy)
                self.allowed.append(one)
            elif mine:
                say(f"note: {listed(one, [], mine)} Running it needs --trust.")
            found = {name: label for name, label in found.items() if name not in mine}


class UnresolvedError(UsageError):
    """A file's plugins were not imported, and so its configuration could not be resolved."""

    def __init__(self, consent: Consent) -> None:
        """With what was not imported, and why."""
        super().__init__(consent.refused)
        self.consent = consent


def _imported(configuration: Callable[[], Config]) -> set[Any]:
    """What the parts import that the command line alone names; nothing where it needs the files."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            return {name for part in configuration().parts for name in imports(part)}
    except (UsageError, SystemExit):
        return set()
