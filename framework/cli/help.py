"""Prints `--help` so that no line is wider than the terminal, or 80 columns where there is none."""

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
    """`tyro.cli`, with usage and description wrapped like its boxes, and help printed on standard output."""
    import tyro  # not at the top: the list of commands needs no tyro

    keywords = {"args": list(arguments), "prog": program, "description": description, **options}
    if not set(HELP) & set(arguments):  # tyro parses sources to find comments, which takes 0.07 s and only help needs
        return tyro.cli(flags, config=(tyro.conf.HelptextFromCommentsOff,), **keywords)
    capture = _Capture(standard_output() or sys.stdout)
    try:
        with redirect_stdout(capture):
            return tyro.cli(flags, **keywords)
    finally:
        with nullcontext() if standard_output() is None else results():
            print(wrap_help(capture.getvalue()), end="")


class _Capture(io.StringIO):
    """Captures what is printed; colours and boxes are those of the stream that will print it."""

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


def wrap_help(text: str, width: int | None = None) -> str:
    """Text with long lines wrapped to `width` columns (None: the terminal's); a second column stays aligned.

    >>> print(wrap_help("  run   train a policy", 16))
      run   train a
            policy
    """
    columns = width or shutil.get_terminal_size().columns
    text = text.replace("(default: )    ", "(default: none)")  # for an empty list or table; boxes keep their width
    return "\n".join(part for line in text.split("\n") for part in _wrap_line(line, columns))


def _wrap_line(line: str, columns: int) -> list[str]:
    if _visible_length(line) <= columns or line.startswith(tuple(FRAME)):
        return [line]
    match = re.match(r"\s*(?:\S+(?: \S+)*\s{2,})?", line)
    head = match[0] if match else ""
    indent = " " * (len(head) if len(head) <= columns // 2 else 4)
    lines = [head]
    for number, word in enumerate(line[len(head) :].split()):
        space = "" if number == 0 or not lines[-1].strip() else " "
        if _visible_length(lines[-1] + space + word) <= columns or lines[-1] == indent:
            lines[-1] += space + word
        else:
            lines.append(indent + word)
    return lines


def _visible_length(text: str) -> int:
    return len(re.sub(r"\x1b\[[0-9;]*m", "", text))
