"""Settings that tyro cannot read by itself, or not in our words: tables (`--optimizer.options`) and optional numbers.

A table is written as names and values in turn.
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


def tables() -> Any:
    """How tyro reads and shows tables: names and values in turn, each value as TOML writes it, or a plain word.

    And numbers, such as `int | None`: an error says what is expected, where tyro would list what it tried.
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
        kind = next((one for one in (int, float) if info.type in (one, one | None)), None)
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
        meant = ""
        with contextlib.suppress(ValueError, OverflowError):
            if kind is int and float(word) == int(float(word)):
                meant = f", such as {int(float(word))}"
        raise ValueError(f"it must be {WORDS[kind]}{meant}, and is {word}") from None


def _table(words: Sequence[str]) -> dict[str, Any]:
    if len(words) % 2:
        raise ValueError(f"names and values in turn, such as {words[0]} VALUE")
    return {name: _as_value(word) for name, word in zip(words[::2], words[1::2], strict=True)}


def _as_value(word: str) -> Any:
    """What a word says as a value of TOML, or as a list or table of Python's or JSON's; itself, where it is none.

    >>> _as_value("-9.81"), _as_value('["SF", "FG"]'), _as_value("True"), _as_value("8x8")
    (-9.81, ['SF', 'FG'], True, '8x8')
    """
    if word in ("True", "False"):  # as flags were written before, and as Python has them
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
