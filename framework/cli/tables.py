"""Settings that are tables, such as `--optimizer.options`: names and values in turn on the command line."""

import tomllib
from collections.abc import Sequence
from typing import Any

import tomli_w
import tyro

from ..kinds import plain, written


def tables() -> Any:
    """How tyro reads and shows tables: names and values in turn, each value as TOML writes it, or a plain word."""
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

    return registry


def _table(words: Sequence[str]) -> dict[str, Any]:
    if len(words) % 2:
        raise ValueError(f"names and values in turn, such as {words[0]} VALUE")
    return {name: _as_value(word) for name, word in zip(words[::2], words[1::2], strict=True)}


def _as_value(word: str) -> Any:
    """What a word says as a value of TOML; itself, where it is none.

    >>> _as_value("-9.81"), _as_value('["SF", "FG"]'), _as_value("True"), _as_value("8x8")
    (-9.81, ['SF', 'FG'], True, '8x8')
    """
    if word in ("True", "False"):  # as flags were written before, and as Python has them
        return word == "True"
    try:
        value = plain(tomllib.loads(f"value = {word}")["value"])
    except (ValueError, RecursionError):
        try:
            return int(word) if word.strip("+-").isdigit() else float(word)
        except ValueError:
            return None if word == "None" else word
    return value


def _as_word(value: Any) -> str:
    """A value as help shows it: as TOML writes it in one line.

    >>> _as_word({"a": [1, None]})
    '{ a = [ 1, "None" ] }'
    """
    if value is None or isinstance(value, str):
        return str(value)
    line = " ".join(tomli_w.dumps({"v": [[written("", value)]]}).split())  # tables within lists are written inline
    return line.removeprefix("v = [ [ ").removesuffix(", ], ]").replace(", ]", " ]")
