"""Decides which code a command may import that only its files name: none, what the user allows, or all."""

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
    """The user's consent, for one command, to import the code that its files name."""

    def __init__(
        self, record: Recorded | None, config_file: Recorded | None, trust: bool, command: str, arguments: Sequence[str]
    ) -> None:
        """For the record (the first argument) and the file of `--config`; with `trust`, both are trusted."""
        self.files = [file for file in (record, config_file) if file is not None]
        self.allowed, self.refused = list(self.files) if trust else [], ""
        command_words = [command.partition(" ")[0], *([] if record is None else [str(record.directory)]), *arguments]
        self.remedy = f"framework {shlex.join(command_words)} --trust"

    def allows_plugins(self, named: Sequence[str], may_ask: bool) -> bool:
        """Whether the files' plugins may be imported; `named`: those that the command line names, too.

        A question covers everything that a file names.

        Raises:
            UsageError: the user did not consent.
        """
        for file in self.files:
            plugins = [] if file in self.allowed else foreign_plugins(file, named)
            if not plugins:
                continue
            if not may_ask:
                self.refused = listed(file, plugins, {})
                return False
            ask(file, plugins, named_beside(file), self.remedy)
            self.allowed.append(file)  # a plugin could import the rest itself
        return True

    def check_parts(self, config: Config, without_files: Sequence[Callable[[], Config]], may_ask: bool) -> None:
        """Ask for consent to what building these parts imports because only the files' settings name it.

        `without_files`: configurations from the command line alone, with the recipe's parts or those that files choose.

        Raises:
            UsageError: the user did not consent.
        """
        unallowed = [file for file in self.files if file not in self.allowed]
        foreign = foreign_imports(config.parts, self.files) if unallowed else {}
        if foreign:
            user_named = {name for configuration in without_files for name in _imported(configuration)}
            foreign = {name: label for name, label in foreign.items() if name not in user_named}
        for file in unallowed:
            named_by_file = named_beside(file) if foreign and file is not unallowed[-1] else foreign
            from_file = {name: label for name, label in foreign.items() if name in named_by_file}
            if from_file and may_ask:
                ask(file, [], from_file, self.remedy)
                self.allowed.append(file)
            elif from_file:
                say(f"note: {listed(file, [], from_file)} Running it needs --trust.")
            foreign = {name: label for name, label in foreign.items() if name not in from_file}


class UnresolvedError(UsageError):
    """A file's plugins were not imported, and so its configuration could not be resolved."""

    def __init__(self, consent: Consent) -> None:
        """The message lists what was not imported, and why."""
        super().__init__(consent.refused)
        self.consent = consent


def _imported(configuration: Callable[[], Config]) -> set[Any]:
    """What the parts import that the command line alone names; empty if it needs the files."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            return {name for part in configuration().parts for name in imports(part)}
    except (UsageError, SystemExit):
        return set()
