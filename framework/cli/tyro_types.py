"""Types of settings for tyro: tables (`--optimizer.options`), and numbers with our error messages.

A table is written as alternating names and values.
"""

import ast
import contextlib
import json
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, time
from typing import Any

import tomli_w
import tyro

from ..kinds import WORDS, plain, shown, written


def type_registry() -> Any:
    """How tyro reads and shows tables: alternating names and values, each value in TOML or a plain word.

    Also numbers, such as `int | None`, whose errors name the expected type, where tyro would list what it tried.
    """
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if info.type != dict[str, Any]:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="[NAME VALUE [NAME VALUE ...]]",
            instance_from_str=_table,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda table: [word for name, value in table.items() for word in (name, _as_word(value))],
        )

    @registry.primitive_rule
    def number(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        kind = next((candidate for candidate in (int, float) if info.type in (candidate, candidate | None)), None)
        if kind is None:
            return None
        optional = info.type is not kind
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{kind.__name__.upper()}{'|None' if optional else ''}",
            instance_from_str=lambda words: None if optional and words[0] == "None" else _as_number(kind, words[0]),
            is_instance=lambda value: isinstance(value, kind) or (optional and value is None),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _as_number(kind: type[int] | type[float], word: str) -> int | float:
    try:
        return kind(word)
    except ValueError:
        suggestion = ""
        with contextlib.suppress(ValueError, OverflowError):
            if kind is int and float(word) == int(float(word)):
                suggestion = f", such as {int(float(word))}"
        raise ValueError(f"it must be {WORDS[kind]}{suggestion}, and is {word}") from None


def _table(words: Sequence[str]) -> dict[str, Any]:
    if len(words) % 2:
        raise ValueError(f"names and values in turn, such as {words[0]} VALUE")
    return {name: _as_value(word) for name, word in zip(words[::2], words[1::2], strict=True)}


def _as_value(word: str) -> Any:
    """A word as a value of TOML, or as a list or table of Python or JSON; otherwise the word itself.

    >>> _as_value("-9.81"), _as_value('["SF", "FG"]'), _as_value("True"), _as_value("8x8")
    (-9.81, ['SF', 'FG'], True, '8x8')
    """
    if word in ("True", "False"):  # in Python's spelling, which older flags used
        return word == "True"
    readers: list[Callable[[str], Any]] = [lambda text: tomllib.loads(f"value = {text}")["value"]]
    readers += [ast.literal_eval, json.loads] if word[:1] in ("(", "[", "{") else [int, float]
    value: Any = word
    for read in readers:
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = read(word)
            break
    if isinstance(value, date | time):
        value = word
    try:
        return plain(value)
    except ValueError as error:
        raise ValueError(f"a value must {error}: {shown(value)}") from None


def _as_word(value: Any) -> str:
    """A value as help shows it: as TOML writes it in one line.

    >>> _as_word({"a": [1, None]})
    '{ a = [ 1, "None" ] }'
    """
    if value is None or isinstance(value, str):
        return str(value)
    line = " ".join(tomli_w.dumps({"v": [[written("", value)]]}).split())  # tables within lists are written inline
    return line.removeprefix("v = [ [ ").removesuffix(", ], ]").replace(", ]", " ]")
