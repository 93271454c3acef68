"""Which kind of value a setting takes: each is converted to it, or refused in words, from wherever it came."""

import datetime
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import cattrs
import numpy as np

from .errors import UsageError

DEPTH = 32  # of tables and lists in each other
LARGEST = 2**63 - 1  # what 64 bits hold, in torch, numpy and TOML
WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
PLURALS = {bool: "true or false", int: "integers", float: "numbers", str: "strings"}
SHOWN = 200  # characters of a value that an error repeats


class _RefusedError(ValueError):
    """A value of the right kind that no setting takes; the message says what it must be."""


def converted(kind: Any, where: str, value: Any) -> Any:
    """A value as its annotation has it; `UsageError` names the setting, what it takes and what it was given.

    >>> converted(tuple[int, ...], "policy.hidden", [64, 64])
    (64, 64)
    """
    try:
        return _CONVERTER.structure(value, kind)
    except _RefusedError as error:
        raise UsageError(f"{where} must {error}: {shown(value)}") from None
    except Exception:
        raise UsageError(f"{where} must be {in_words(kind)}: {shown(value)}") from None


def checked(where: str, settings: Any) -> Any:
    """A settings object from Python, each field of the kind that its annotation says; numbers of numpy become plain.

    Annotations of other kinds than files can hold are left alone, and so are those that cannot be resolved.
    """
    try:
        attributes = attrs.fields(attrs.resolve_types(type(settings)))
    except Exception:
        return settings
    changed = {}
    for attribute in attributes:
        if attribute.init and _is_known(attribute.type):
            value = getattr(settings, attribute.name)
            new = converted(attribute.type, f"{where}.{attribute.name}", value)
            if type(new) is not type(value) and not (type(value) is int and new == value):
                changed[attribute.alias] = new
    return attrs.evolve(settings, **changed) if changed else settings


def shown(value: Any) -> str:
    """A value as an error repeats it, shortened."""
    try:
        text = repr(value)
    except Exception:  # a number of thousands of digits, or a part's own
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def in_words(kind: Any) -> str:
    """A type, as an error calls it."""
    arguments = typing.get_args(kind)
    if kind in WORDS:
        return WORDS[kind]
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(kind) is tuple:
        number = "" if Ellipsis in arguments else f"{len(arguments)} "
        return f"a list of {number}{PLURALS.get(arguments[0], 'values')}"
    if typing.get_origin(kind) is dict:
        return "a table" if arguments[1] is Any else f"a table of {PLURALS.get(arguments[1], 'values')}"
    if _is_optional(kind):
        return " or ".join(in_words(argument) for argument in arguments if argument is not type(None)) + ' or "None"'
    if _is_scalars(kind):
        return " or ".join(in_words(argument) for argument in arguments)
    return kind.__name__ if isinstance(kind, type) else str(kind)


def worded(where: str, error: Exception) -> str:
    """`'gamma' must be <= 1.0: 1.5` → `estimator.gamma must be <= 1.0: 1.5`."""
    text = str(error.args[0]) if error.args else str(error)
    dotted = f"{where}." if where else ""
    text = text.replace("must be < inf:", "must be finite:")
    changed = re.sub(r"^'(\w+)'", rf"{dotted}\1", text)
    return changed if changed != text or not where else f"{where}: {text}"


def plain(value: Any, depth: int = 0) -> Any:
    """What a table or list holds: numbers, strings, true and false, None (or "None"), and more tables and lists.

    Objects of other types, which only Python can give, are kept as they are.
    """
    if depth > DEPTH:
        raise _RefusedError(f"be nested at most {DEPTH} deep")
    if value is None or (isinstance(value, str) and value == "None"):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _in_range(value)
    if isinstance(value, datetime.date | datetime.time):
        raise _RefusedError("hold numbers, strings, true, false, lists and tables, and no dates")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _RefusedError("have strings as keys")
        return {key: plain(entry, depth + 1) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(entry, depth + 1) for entry in value)
    return value


def well_formed(tree: Any, where: str = "", depth: int = 0) -> None:
    """Refuse a configuration whose keys are no strings, or that is nested too deep, as one that holds itself is."""
    for key, value in tree.items():
        if not isinstance(key, str):
            raise UsageError(f"{where or 'a configuration'}: keys must be strings: {shown(key)}")
        if isinstance(value, Mapping):
            if depth == DEPTH:
                raise UsageError(f"{where.partition('.')[0]}: tables must be nested at most {DEPTH} deep")
            well_formed(value, f"{where}.{key}" if where else key, depth + 1)


def _in_range(value: int | float) -> int | float:
    if isinstance(value, int) and abs(value) > LARGEST:
        raise _RefusedError("fit into 64 bits")
    if value != value:
        raise _RefusedError("be a number, and nan is none")
    return value


def _strict(*accepted: type) -> Any:
    def structure(value: Any, kind: type) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise ValueError(value)
        return kind(_in_range(value) if isinstance(value, int | float) else value)

    return structure


def _optional(kind: Any) -> Any:
    (inner,) = [argument for argument in typing.get_args(kind) if argument is not type(None)]
    return lambda value, _: None if value is None or value == "None" else _CONVERTER.structure(value, inner)


def _is_optional(kind: Any) -> bool:
    return (
        typing.get_origin(kind) in (typing.Union, types.UnionType)
        and type(None) in typing.get_args(kind)
        and len(typing.get_args(kind)) == 2
    )


def _is_scalars(kind: Any) -> bool:
    """Whether a type is a union of plain ones, such as `int | str`."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return union and set(typing.get_args(kind)) <= {bool, int, float, str}


def _is_known(kind: Any) -> bool:
    """Whether a setting of this type can be written in a file, and so be checked."""
    arguments, origin = typing.get_args(kind), _origin(kind)
    if kind in (bool, int, float, str) or origin is Literal or _is_scalars(kind):
        return True
    if origin is dict:
        return arguments[0] is str and (arguments[1] is Any or _is_known(arguments[1]))
    if origin is tuple or _is_optional(kind):
        return all(_is_known(argument) for argument in arguments if argument not in (Ellipsis, type(None)))
    return False


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind)


def _scalar(value: Any, kind: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) not in typing.get_args(kind):
        raise ValueError(value)
    return _in_range(value) if isinstance(value, int | float) else value


def _choice(value: Any, kind: Any) -> Any:
    if not any(value == word and type(value) is type(word) for word in typing.get_args(kind)):
        raise ValueError(value)
    return value


def _list(value: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(value)
    arguments = typing.get_args(kind)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_CONVERTER.structure(item, arguments[0]) for item in value)
    if len(arguments) != len(value):
        raise ValueError(value)
    return tuple(_CONVERTER.structure(item, kind) for item, kind in zip(value, arguments, strict=True))


def _table(value: Any, kind: Any) -> dict[str, Any]:
    _, inner = typing.get_args(kind)
    if not isinstance(value, Mapping):
        raise ValueError(value)
    whole: dict[str, Any] = plain(value)
    return whole if inner is Any else {key: _CONVERTER.structure(entry, inner) for key, entry in value.items()}


def written(where: str, value: Any) -> Any:
    """A setting's value as TOML holds it; `UsageError` for an object that no file can hold."""
    if isinstance(value, Mapping):
        return {key: written(f"{where}.{key}", entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [written(where, entry) for entry in value]
    if value is None:
        return "None"
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | float | str):
        return value
    raise UsageError(
        f"{where}: {shown(value)} cannot be written to config.toml, which holds numbers, strings, true, false, lists "
        "and tables: give one of these, or record nowhere (directory=None)"
    )


def finite(where: str, value: Any) -> None:
    """Refuse an infinite number, in lists too."""
    for number in value if isinstance(value, list | tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise UsageError(f"{where} must be finite: {shown(value)}")


# cattrs alone would turn 1.5 into the integer 1 and "False" into True.
_CONVERTER = cattrs.Converter()
_CONVERTER.register_structure_hook(int, _strict(int))
_CONVERTER.register_structure_hook(float, _strict(int, float))
_CONVERTER.register_structure_hook(bool, _strict(bool))
_CONVERTER.register_structure_hook(str, _strict(str))
_CONVERTER.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _choice)
_CONVERTER.register_structure_hook_func(lambda kind: _origin(kind) is tuple, _list)
_CONVERTER.register_structure_hook_func(lambda kind: _origin(kind) is dict, _table)
_CONVERTER.register_structure_hook_factory(_is_optional, _optional)
_CONVERTER.register_structure_hook_func(_is_scalars, _scalar)
