"""Wrappers that learn from observations and cannot say what: an evaluation begins without it, which is a warning."""

import copy
import types
from contextlib import suppress
from typing import Any

import gymnasium
from gymnasium.wrappers import TransformObservation

from .statistics import chain, keeping


def watched(env: Any) -> list[tuple[Any, Any]]:
    """Wrappers of observations that may learn, each with a copy of it as it is now.

    One with a `reset` of its own begins anew with each episode; Gymnasium's own are known.
    """
    known = [wrapper for _, wrapper in keeping(env)]
    found = []
    for wrapper in chain(env)[:-1]:
        kind = type(wrapper)
        plain = isinstance(wrapper, gymnasium.ObservationWrapper) and kind.reset is gymnasium.ObservationWrapper.reset
        others = kind is TransformObservation or not kind.__module__.startswith("gymnasium.")
        if plain and others and not any(wrapper is other for other in known):
            with suppress(Exception):  # it cannot be copied
                found.append((wrapper, _twin(wrapper)))
    return found


def forgotten(wrappers: list[tuple[Any, Any]]) -> list[str]:
    """The names of those that return something else for the same observation than when they were made.

    What they draw from the environment's generator is drawn: only for an environment that is closed next.
    """
    from gymnasium.utils.env_checker import data_equivalence

    names = []
    for wrapper, new in wrappers:
        with suppress(Exception):
            space = copy.deepcopy(wrapper.env.observation_space)
            space.seed(0)
            seen = space.sample()
            first, again, now = (_twin(each).observation(copy.deepcopy(seen)) for each in (new, new, wrapper))
            if data_equivalence(first, again) and not data_equivalence(first, now):  # else it adds noise
                names.append(type(wrapper).__name__)
    return names


def _twin(wrapper: Any) -> Any:
    """A copy around the same environment."""
    inner = chain(wrapper.env)
    shared = {id(value): value for each in inner for value in (each, *vars(each).values())}  # simulators, windows
    twin = copy.copy(wrapper)
    vars(twin).update({name: _copied(value, dict(shared)) for name, value in vars(wrapper).items() if name != "env"})
    return twin


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy; of a function, with what it keeps in its closure."""
    if isinstance(value, types.FunctionType) and value.__closure__:
        cells = tuple(types.CellType(copy.deepcopy(cell.cell_contents, memo)) for cell in value.__closure__)
        return types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
    return copy.deepcopy(value, memo)
