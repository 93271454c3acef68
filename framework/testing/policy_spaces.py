"""Which of the small spaces a policy takes, why a law does not concern it, and scenes to try it in."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from hypothesis import strategies as st

from ..errors import UsageError
from .law import Subject
from .policy_harness import Player, Scene, is_of_its_space, made
from .spaces import ACTED, OBSERVED, WIDE, edges, spread
from .strategies import elements

TRIES = 32  # actions by which it is seen whether a policy takes a space
Pair = tuple["Space[Any]", "Space[Any]"]


def pairs(subject: Subject) -> list[tuple[Pair, Exception | None]]:
    """Spaces of observations and actions that were tried, and what the policy raised; None: it takes them."""
    if "pairs" not in subject.memory:
        tried = [*itertools.product(OBSERVED, ACTED), *_neighbours(subject)]
        subject.memory["pairs"] = [(pair, _tried(subject, *pair)) for pair in tried]
    return subject.memory["pairs"]  # type: ignore[no-any-return]


def _neighbours(subject: Subject) -> Iterator[Pair]:
    """Spaces of the environments that the policy's own plugin offers, for which it was perhaps written."""
    for offered in subject.loaded.offers.get("environment", {}).values():
        if subject.part.plugin not in offered:
            continue
        try:
            lanes = offered[subject.part.plugin]().build(1, torch.device("cpu"))
        except Exception:  # the laws of environments say so
            continue
        pair = (lanes.observation_space, lanes.action_space)
        getattr(lanes, "close", lambda: None)()
        if all(isinstance(space, Discrete | Box | MultiDiscrete | MultiBinary) for space in pair):
            yield pair


def _tried(subject: Subject, seen: "Space[Any]", acted: "Space[Any]") -> Exception | None:
    """None as soon as it acts on some observation and judges that; else what it raised, or did wrong, at last."""
    raised: Exception | None = None
    for row in torch.cat([spread(seen, 1), edges(seen)]).tolist():
        scene = Scene(seen, acted, 0, (row,))
        try:
            player = made(subject, scene)
            many = scene.observations.expand(TRIES, *scene.observations.shape[1:])
            actions = player.act(many).actions
            is_of_its_space(player, actions)
            player.judge(many, actions)
        except Exception as error:
            raised = error
            if isinstance(error, UsageError):
                break
        else:
            return None
    return raised


def taken(subject: Subject, *kinds: Any) -> list[Pair]:
    """The pairs that the policy takes, whose actions are of these kinds."""
    return [pair for pair, error in pairs(subject) if error is None and (not kinds or isinstance(pair[1], kinds))]


def takes(*kinds: Any) -> Any:
    """Why a law about actions of these kinds does not concern a policy."""

    def reason(subject: Subject) -> str | None:
        if taken(subject, *kinds):
            return None
        names = " or ".join(kind.__name__ for kind in kinds)
        if kinds and taken(subject):
            return f"it takes no {names} actions"
        first = next((error for _, error in pairs(subject) if isinstance(error, UsageError)), None)
        tried = "small ones, and those of the environments that its plugin offers"
        return f"it takes none of the spaces that laws try ({tried}){'' if first is None else f': {first}'}"

    return reason


def only(name: str, holds: Callable[[Player], bool], *kinds: Any) -> Callable[[Subject], list[Pair]]:
    """Of the pairs that the policy takes, those for which something holds of it, found once under this name."""

    def found(subject: Subject) -> list[Pair]:
        if name not in subject.memory:
            subject.memory[name] = [pair for pair in taken(subject, *kinds) if holds(_at(subject, pair))]
        return subject.memory[name]  # type: ignore[no-any-return]

    return found


def some(pairs: Callable[[Subject], list[Pair]], why: str, *kinds: Any) -> Any:
    """Why a law about some of the pairs does not concern a policy: there are none."""
    return lambda subject: takes(*kinds)(subject) or (None if pairs(subject) else why)


def scenes(most: int = 4, of: Callable[[Subject], list[Pair]] = taken) -> Any:
    """Cases: spaces that the policy takes (`of`: of these alone), weights, and a few observations."""

    def cases(subject: Subject) -> st.SearchStrategy[Scene]:
        @st.composite
        def draw_scene(draw: st.DrawFn) -> Scene:
            seen, acted = draw(st.sampled_from(of(subject)))
            count = draw(st.integers(1, most))
            wide = math.prod(seen.shape or ()) > WIDE
            rows = spread(seen, count, draw(st.integers(0, 2**16))) if wide else draw(elements(seen, count))
            return Scene(seen, acted, draw(st.integers(0, 2**16)), tuple(rows.tolist()))

        return draw_scene()

    return cases


ANY = takes()


def has(name: str, why: str) -> Any:
    """Why a law about an optional member does not concern a policy."""

    def reason(subject: Subject) -> str | None:
        none = ANY(subject)
        if none is not None:
            return none  # type: ignore[no-any-return]
        player = first(subject)
        member = getattr(player.policy, name, None)
        return why if member is None or (name == "actor" and member() is None and not _acts_faster(subject)) else None

    return reason


def _acts_faster(subject: Subject) -> bool:
    """Whether `actor` gives one for any of the spaces."""
    return any(_at(subject, pair).policy.actor() is not None for pair in taken(subject))


def first(subject: Subject) -> Player:
    """For the first spaces that it takes."""
    return _at(subject, taken(subject)[0])


def _at(subject: Subject, pair: Pair) -> Player:
    """For these spaces, with some observations."""
    return made(subject, Scene(*pair, 0, tuple(spread(pair[0], 4).tolist())))


def remembers(subject: Subject) -> str | None:
    """Why a law about memory does not concern a policy."""
    none = ANY(subject)
    if none is not None:
        return none  # type: ignore[no-any-return]
    return None if first(subject).state is not None else "it remembers nothing: act returns no state"
