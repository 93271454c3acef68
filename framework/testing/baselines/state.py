"""The state of those that learn."""

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from ...contracts import Rollout
from ..counterexamples import same
from ..law import Broken, Subject, law
from ..observations import seen
from ..strategies import copied, rollouts
from .cases import CONTRACT, returns_of, stories, subtracted


def _learns(subject: Subject) -> str | None:
    made = subject.make()
    has = any(hasattr(made, name) for name in ("update", "state_dict", "load_state_dict"))
    return None if has else "it has no state"


@st.composite
def _in_turn(draw: DrawFn, subject: Subject) -> list[Rollout]:
    """Three rollouts of the same lanes, as a run collects them."""
    first = draw(stories(subject, whole=True))
    lanes, groups, values = first.mask.shape[1], first.groups is not None, first.values is not None
    more = rollouts(whole=True, values=values, min_lanes=lanes, max_lanes=lanes, min_episodes=2, groups=groups)
    return [first, draw(seen(subject, more)), draw(seen(subject, more))]


@law("baseline", source=CONTRACT, cases=_in_turn, applies=_learns, examples=30)
def state_makes_the_round_trip(subject: Subject, stories: list[Rollout]) -> None:
    """A fresh one that loads the state says the same, then and after a further update; what was saved stays."""
    one, two = subject.make(), subject.make()
    missing = [name for name in ("update", "state_dict", "load_state_dict") if not hasattr(one, name)]
    if missing:
        raise Broken(f"has state, but no {missing[0]}")
    two.load_state_dict(one.state_dict())  # before there is any
    one.update(copied(stories[0]), returns_of(stories[0]))
    saved = one.state_dict()
    for name, entry in saved.items():
        if not isinstance(entry, Tensor):
            raise Broken(f"state_dict: '{name}' is no tensor", expected="a tensor", got=type(entry).__name__)
    kept = {name: entry.clone() for name, entry in saved.items()}
    two.load_state_dict(saved)
    for number, rollout in enumerate(stories[1:]):
        returns = returns_of(rollout)
        expected, got = subtracted(one, rollout, returns), subtracted(two, rollout, returns)
        after = "after loading" if number == 0 else "after a further update"
        same(f"at {{step}}, {after}, says something else than the one whose state it has", rollout, expected, got)
        for made in (one, two):
            made.update(copied(rollout), returns)
    changed = [name for name, entry in saved.items() if not torch.equal(entry, kept[name])]
    if changed:
        raise Broken(f"state_dict: '{changed[0]}' changes after it was saved: later updates write into it")


@law("baseline", source=CONTRACT, cases=_in_turn, applies=_learns, examples=30)
def baselines_of_two_runs_share_nothing(subject: Subject, stories: list[Rollout]) -> None:
    """What one `build` made learns nothing from what another one is taught."""
    one, two = subject.make(), subject.make()
    story, returns = stories[1], returns_of(stories[1])
    before = subtracted(two, story, returns).clone()
    one.update(copied(stories[0]), returns_of(stories[0]))
    same("at {step} knows what another one was taught", story, before, subtracted(two, story, returns))
