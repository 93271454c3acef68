"""What `--help` prints, and in which width: no line is wider than the terminal; 80 columns where there is none."""

import io
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any

from .output import results, standard_output

HELP = ("-h", "--help")
FRAME = "╭│╰+|"  # a line of tyro's boxes begins with one of these, and fits already


def parse(flags: Any, arguments: Sequence[str], program: str, description: str | None = None, **options: Any) -> Any:
    """`tyro.cli`, whose usage and description are wrapped as its boxes are; help is printed on standard output."""
    import tyro  # here, because the commands' list is printed without it

    given = {"args": list(arguments), "prog": program, "description": description, **options}
    if not set(HELP) & set(arguments):  # to find comments, sources are parsed: 0.07 s, for help alone
        return tyro.cli(flags, config=(tyro.conf.HelptextFromCommentsOff,), **given)
    shown = _Shown(standard_output() or sys.stdout)
    try:
        with redirect_stdout(shown):
            return tyro.cli(flags, **given)
    finally:
        with nullcontext() if standard_output() is None else results():
            print(fitted(shown.getvalue()), end="")


class _Shown(io.StringIO):
    """Keeps what is printed; for colours and boxes it passes for the stream that it will be printed on."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream

    def isatty(self) -> bool:
        """As of the stream."""
        return bool(self.stream.isatty())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"


def fitted(text: str, width: int | None = None) -> str:
    """Text with its long lines wrapped to `width` columns (None: the terminal's); a second column stays one.

    >>> print(fitted("  run   train a policy", 16))
      run   train a
            policy
    """
    columns = width or shutil.get_terminal_size().columns
    said = text.replace("(default: )    ", "(default: none)")  # of an empty list or table; boxes keep their width
    return "\n".join(part for line in said.split("\n") for part in _wrapped(line, columns))


def _wrapped(line: str, columns: int) -> list[str]:
    if _length(line) <= columns or line.startswith(tuple(FRAME)):
        return [line]
    found = re.match(r"\s*(?:\S+(?: \S+)*\s{2,})?", line)
    head = found[0] if found else ""
    indent = " " * (len(head) if len(head) <= columns // 2 else 4)
    lines = [head]
    for number, word in enumerate(line[len(head) :].split()):
        space = "" if number == 0 or not lines[-1].strip() else " "
        if _length(lines[-1] + space + word) <= columns or lines[-1] == indent:
            lines[-1] += space + word
        else:
            lines.append(indent + word)
    return lines


def _length(text: str) -> int:
    return len(re.sub(r"\x1b\[[0-9;]*m", "", text))
