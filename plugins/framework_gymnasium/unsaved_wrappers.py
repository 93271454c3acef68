"""Finds wrappers that learn from observations and have no `state_dict`: an evaluation starts without what they learnt.

That is a warning when the environment is closed.
"""

import copy
import types
from contextlib import suppress
from typing import Any

import gymnasium
from gymnasium.wrappers import TransformObservation

from .statistics import stateful_wrappers, wrapper_chain


def copy_suspects(env: Any) -> list[tuple[Any, Any]]:
    """Wrappers of observations that may learn, each with a copy of its present state.

    Left out: wrappers with a `reset` of their own, which start anew with each episode, and Gymnasium's own.
    """
    saved = [wrapper for _, wrapper in stateful_wrappers(env)]
    suspects = []
    for wrapper in wrapper_chain(env)[:-1]:
        kind = type(wrapper)
        plain = isinstance(wrapper, gymnasium.ObservationWrapper) and kind.reset is gymnasium.ObservationWrapper.reset
        custom = kind is TransformObservation or not kind.__module__.startswith("gymnasium.")
        if plain and custom and not any(wrapper is known for known in saved):
            with suppress(Exception):  # it cannot be copied
                suspects.append((wrapper, _copy_wrapper(wrapper)))
    return suspects


def changed_wrappers(suspects: list[tuple[Any, Any]]) -> list[str]:
    """The names of the wrappers that no longer return for an observation what their copy returns.

    The calls may draw from the environment's generator, so use this only on an environment that is closed next.
    """
    from gymnasium.utils.env_checker import data_equivalence

    names = []
    for wrapper, original in suspects:
        with suppress(Exception):
            space = copy.deepcopy(wrapper.env.observation_space)
            space.seed(0)
            observation = space.sample()
            first, again, now = (
                _copy_wrapper(each).observation(copy.deepcopy(observation)) for each in (original, original, wrapper)
            )
            if data_equivalence(first, again) and not data_equivalence(first, now):  # else it adds noise
                names.append(type(wrapper).__name__)
    return names


def _copy_wrapper(wrapper: Any) -> Any:
    """A copy around the same environment."""
    inner = wrapper_chain(wrapper.env)
    shared = {id(value): value for each in inner for value in (each, *vars(each).values())}  # simulators, windows
    twin = copy.copy(wrapper)
    vars(twin).update({name: _deep_copy(value, dict(shared)) for name, value in vars(wrapper).items() if name != "env"})
    return twin


def _deep_copy(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy; of a function, also of the variables in its closure."""
    if isinstance(value, types.FunctionType) and value.__closure__:
        cells = tuple(types.CellType(copy.deepcopy(cell.cell_contents, memo)) for cell in value.__closure__)
        return types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
    return copy.deepcopy(value, memo)
