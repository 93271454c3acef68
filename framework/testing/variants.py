"""Settings that a part may have: the default ones, and others from the ranges that its validators allow."""

import itertools
import math
import operator
from typing import Any, get_args, get_origin

import attrs

VARIED = ("estimator", "baseline", "loss")  # roles whose parts cost nothing to make
MOST = 64  # of all combinations; of more, only one setting at a time is varied
FRACTIONS = (1.0, 0.0, 0.5, 0.9)  # γ, λ and their like: the ends first, for that is where they go wrong


def variants(role: str, settings: Any) -> list[Any]:
    """`settings` first, then others with the same class; those that it refuses are left out."""
    if role not in VARIED or not attrs.has(type(settings)):
        return [settings]
    choices = {
        field.alias or field.name: _choices(field, getattr(settings, field.name))
        for field in attrs.fields(attrs.resolve_types(type(settings)))
        if field.init
    }
    names = list(choices)
    if math.prod(map(len, choices.values())) <= MOST:
        drawn = [dict(zip(names, values, strict=True)) for values in itertools.product(*choices.values())]
    else:
        first = {name: values[0] for name, values in choices.items()}
        drawn = [first, *({**first, name: value} for name in names for value in choices[name][1:])]
    return [settings, *filter(None, (_made(type(settings), values) for values in drawn[1:]))]


def _made(cls: type[Any], values: dict[str, Any]) -> Any:
    try:
        return cls(**values)
    except (ValueError, TypeError):
        return None


def _choices(field: "attrs.Attribute[Any]", value: Any) -> list[Any]:
    """Values of one setting, its own first."""
    others: list[Any] = []
    if isinstance(value, bool):
        others = [not value]
    elif get_origin(field.type) is not None and all(isinstance(word, str) for word in get_args(field.type)):
        others = list(get_args(field.type))  # a Literal
    elif isinstance(value, int | float):
        low, high = bounds(field)
        if (low, high) == (0, 1) and isinstance(value, float):
            others = list(FRACTIONS)
        elif isinstance(value, int):
            others = [1, 2, 3] if low == 1 else [int(low)] if math.isfinite(low) else []
        else:
            others = [low if math.isfinite(low) else 0.0, value / 2, value * 2 or 1.0]
    return [value, *(other for other in others if other != value)]


def bounds(field: "attrs.Attribute[Any]") -> tuple[float, float]:
    """The least and the largest number that a setting's validators allow, infinite where they say nothing."""
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
