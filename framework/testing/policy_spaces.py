"""Which of the small spaces a policy supports, why a law does not apply to it, and cases to check it on."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from hypothesis import strategies as st

from ..errors import UsageError
from .law import Subject
from .policy_harness import BuiltPolicy, PolicyCase, build_policy, require_in_action_space
from .spaces import ACTED, OBSERVED, WIDE, edges, spread
from .strategies import elements

NUM_ACTIONS = 32  # actions sampled to find out whether a policy supports a space
Pair = tuple["Space[Any]", "Space[Any]"]


def tried_pairs(subject: Subject) -> list[tuple[Pair, Exception | None]]:
    """Pairs of observation and action space that were tried, and what the policy raised; None: supported."""
    if "pairs" not in subject.cache:
        tried = [*itertools.product(OBSERVED, ACTED), *_plugin_spaces(subject)]
        subject.cache["pairs"] = [(pair, _error_for(subject, *pair)) for pair in tried]
    return subject.cache["pairs"]  # type: ignore[no-any-return]


def _plugin_spaces(subject: Subject) -> Iterator[Pair]:
    """Spaces of the environments in the policy's own plugin, for which it was perhaps written."""
    for offered in subject.loaded.offers.get("environment", {}).values():
        if subject.part.plugin not in offered:
            continue
        try:
            lanes = offered[subject.part.plugin]().build(1, torch.device("cpu"))
        except Exception:  # the laws of environments report this
            continue
        pair = (lanes.observation_space, lanes.action_space)
        getattr(lanes, "close", lambda: None)()
        if all(isinstance(space, Discrete | Box | MultiDiscrete | MultiBinary) for space in pair):
            yield pair


def _error_for(subject: Subject, observation_space: "Space[Any]", action_space: "Space[Any]") -> Exception | None:
    """None if the policy acts on one of the observations and evaluates the action; else its last error."""
    last_error: Exception | None = None
    for row in torch.cat([spread(observation_space, 1), edges(observation_space)]).tolist():
        case = PolicyCase(observation_space, action_space, 0, (row,))
        try:
            built = build_policy(subject, case)
            observations = case.observations.expand(NUM_ACTIONS, *case.observations.shape[1:])
            actions = built.act(observations).actions
            require_in_action_space(built, actions)
            built.evaluate(observations, actions)
        except Exception as error:
            last_error = error
            if isinstance(error, UsageError):
                break
        else:
            return None
    return last_error


def supported_pairs(subject: Subject, *kinds: Any) -> list[Pair]:
    """The pairs of spaces that the policy supports, with action spaces of these kinds."""
    return [pair for pair, error in tried_pairs(subject) if error is None and (not kinds or isinstance(pair[1], kinds))]


def supports(*kinds: Any) -> Any:
    """Why a law about actions of these kinds does not apply to a policy."""

    def reason(subject: Subject) -> str | None:
        if supported_pairs(subject, *kinds):
            return None
        names = " or ".join(kind.__name__ for kind in kinds)
        if kinds and supported_pairs(subject):
            return f"it supports no {names} actions"
        refusal = next((error for _, error in tried_pairs(subject) if isinstance(error, UsageError)), None)
        tried = "small ones, and those of the environments in its plugin"
        return f"it supports none of the spaces that laws try ({tried}){'' if refusal is None else f': {refusal}'}"

    return reason


def supported_where(name: str, holds: Callable[[BuiltPolicy], bool], *kinds: Any) -> Callable[[Subject], list[Pair]]:
    """The supported pairs for which a condition holds; computed once and cached under this name."""

    def pairs(subject: Subject) -> list[Pair]:
        if name not in subject.cache:
            subject.cache[name] = [
                pair for pair in supported_pairs(subject, *kinds) if holds(_policy_for(subject, pair))
            ]
        return subject.cache[name]  # type: ignore[no-any-return]

    return pairs


def requires_pairs(pairs: Callable[[Subject], list[Pair]], why: str, *kinds: Any) -> Any:
    """Why a law about some of the pairs does not apply to a policy: there are none."""
    return lambda subject: supports(*kinds)(subject) or (None if pairs(subject) else why)


def policy_cases(most: int = 4, pairs: Callable[[Subject], list[Pair]] = supported_pairs) -> Any:
    """Cases: a pair of spaces that the policy supports (one of `pairs`), weights, and a few observations."""

    def cases(subject: Subject) -> st.SearchStrategy[PolicyCase]:
        @st.composite
        def draw_case(draw: st.DrawFn) -> PolicyCase:
            observation_space, action_space = draw(st.sampled_from(pairs(subject)))
            count = draw(st.integers(1, most))
            wide = math.prod(observation_space.shape or ()) > WIDE
            rows = (
                spread(observation_space, count, draw(st.integers(0, 2**16)))
                if wide
                else draw(elements(observation_space, count))
            )
            return PolicyCase(observation_space, action_space, draw(st.integers(0, 2**16)), tuple(rows.tolist()))

        return draw_case()

    return cases


SUPPORTED = supports()


def has_member(name: str, why: str) -> Any:
    """Why a law about an optional method does not apply to a policy."""

    def reason(subject: Subject) -> str | None:
        unsupported = SUPPORTED(subject)
        if unsupported is not None:
            return unsupported  # type: ignore[no-any-return]
        built = first_policy(subject)
        member = getattr(built.policy, name, None)
        return why if member is None or (name == "actor" and member() is None and not _has_actor(subject)) else None

    return reason


def _has_actor(subject: Subject) -> bool:
    """Whether `actor` returns an actor for any of the spaces."""
    return any(_policy_for(subject, pair).policy.actor() is not None for pair in supported_pairs(subject))


def first_policy(subject: Subject) -> BuiltPolicy:
    """The policy for the first pair of spaces that it supports."""
    return _policy_for(subject, supported_pairs(subject)[0])


def _policy_for(subject: Subject, pair: Pair) -> BuiltPolicy:
    """The policy for a pair of spaces, with some observations."""
    return build_policy(subject, PolicyCase(*pair, 0, tuple(spread(pair[0], 4).tolist())))


def has_memory(subject: Subject) -> str | None:
    """Why a law about memory does not apply to a policy."""
    unsupported = SUPPORTED(subject)
    if unsupported is not None:
        return unsupported  # type: ignore[no-any-return]
    return None if first_policy(subject).state is not None else "it has no memory: act returns no state"
