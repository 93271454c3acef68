"""Settings to check a part with: its own, and others from the ranges that its validators allow."""

import itertools
import math
import operator
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from hypothesis import strategies as st

from ..errors import FrameworkError

T = TypeVar("T")

VARIED_ROLES = ("estimator", "baseline", "loss")  # roles whose parts are cheap to build
MAX_COMBINATIONS = 64  # if there are more, only one setting at a time is varied
FRACTIONS = (1.0, 0.0, 0.5, 0.9)  # for γ, λ and the like: the limits first, where errors are likely


def variants(role: str, settings: Any) -> list[Any]:
    """`settings` first, then other settings of the same class that it accepts."""
    if role not in VARIED_ROLES or not attrs.has(type(settings)):
        return [settings]
    cls = type(settings)
    try:
        attrs.resolve_types(cls)
    except NameError:  # imported for type checkers only: such fields are varied by their values alone
        pass
    choices = {
        field.alias or field.name: _choices(field, getattr(settings, field.name))
        for field in attrs.fields(cls)
        if field.init
    }
    names = list(choices)
    if math.prod(map(len, choices.values())) <= MAX_COMBINATIONS:
        combinations = [dict(zip(names, values, strict=True)) for values in itertools.product(*choices.values())]
    else:
        first = {name: values[0] for name, values in choices.items()}
        combinations = [first, *({**first, name: value} for name in names for value in choices[name][1:])]
    own = combinations[0]
    combinations = sorted(
        combinations[1:], key=lambda values: sum(values[name] is not own[name] for name in names)
    )  # small changes first
    return [settings, *filter(None, (_build_or_none(cls, values) for values in combinations))]


def alternating(subjects: Sequence[T]) -> st.SearchStrategy[T]:
    """Every other case is for the first subject; the cases between go round the rest.

    Four random bytes are drawn, which hardly ever repeat. They are assigned to a subject when they first occur, and
    stay assigned, so that a case can be repeated.
    """
    first, rest = subjects[0], subjects[1:]
    assigned = {bytes(4): first}

    def subject_for(key: bytes) -> T:
        if key not in assigned:
            turn = len(assigned)
            assigned[key] = rest[turn // 2 % len(rest)] if rest and turn % 2 else first
        return assigned[key]

    return st.binary(min_size=4, max_size=4).map(subject_for) if rest else st.just(first)


def _build_or_none(cls: type[Any], values: dict[str, Any]) -> Any:
    try:
        return cls(**values)
    except (ValueError, TypeError, FrameworkError):
        return None


def _choices(field: "attrs.Attribute[Any]", value: Any) -> list[Any]:
    """Values of one setting, its own first. For an optional setting also None or, if it is None, some numbers."""
    types = get_args(field.type) if get_origin(field.type) in (Union, UnionType) else ()
    alternatives: list[Any] = [None] if NoneType in types else []
    if isinstance(value, bool):
        alternatives += [not value]
    elif get_origin(field.type) is Literal:
        alternatives += get_args(field.type)
    elif isinstance(value, int | float):
        alternatives += _numbers(field, value)
    elif value is None and float in types:
        alternatives += [1.0, *_numbers(field, 1.0)]
    elif value is None and int in types:
        alternatives += [1, *_numbers(field, 1)]
    return [value, *(alternative for alternative in alternatives if alternative != value)]


def _numbers(field: "attrs.Attribute[Any]", value: float) -> list[Any]:
    """Some allowed values of a setting, including the smallest."""
    low, high = bounds(field)
    if (low, high) == (0, 1) and isinstance(value, float):
        return list(FRACTIONS)
    if isinstance(value, int):
        return [1, 2, 3] if low == 1 else [int(low)] if math.isfinite(low) else []
    return [low if math.isfinite(low) else 0.0, value / 2, value * 2 or 1.0]


def bounds(field: "attrs.Attribute[Any]") -> tuple[float, float]:
    """The smallest and the largest number that a setting's validators allow; infinite where there is no limit."""
    low, high = -math.inf, math.inf
    waiting = [field.validator]
    while waiting:
        validator: Any = waiting.pop()
        waiting += [*getattr(validator, "_validators", ()), *filter(None, [getattr(validator, "validator", None)])]
        compare, bound = getattr(validator, "compare_func", None), getattr(validator, "bound", None)
        if bound is not None and compare in (operator.ge, operator.gt):
            low = max(low, float(bound))
        if bound is not None and compare in (operator.le, operator.lt):
            high = min(high, float(bound))
    return low, high
