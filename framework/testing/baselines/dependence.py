"""What a baseline may depend on: not on padding, on the order of lanes, or on another group."""

from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ...contracts import Rollout
from ..applicability import needs
from ..counterexamples import same
from ..law import Subject, law
from ..strategies import orders, padded, permute_lanes
from .cases import CONTRACT, judged, returns_of, subtracted, taught

PADDING = "docs/reference/contracts.md#padding"


@law("baseline", source=PADDING, cases=lambda subject: st.tuples(judged(subject, whole=True), st.integers(0, 2)))
def padding_is_not_averaged(subject: Subject, case: tuple[Any, int]) -> None:
    """More padding, and whatever the returns are in it, change no real step: padding is no episode's."""
    (rollout, earlier, total), extra = case
    longer = padded(rollout, extra)
    returns = returns_of(rollout, total)
    more = returns_of(longer, total).masked_fill(~longer.mask, 64.0)
    made = taught(subject, earlier)
    expected, got = subtracted(made, rollout, returns), subtracted(made, longer, more)[: len(returns)]
    message = f"at {{step}} changes with {extra} row(s) more of padding, in which returns are 64"
    same(message, rollout, expected, got)


@law("baseline", source=CONTRACT, cases=lambda subject: judged(subject).flatmap(_ordered))
def baselines_permute_with_lanes(subject: Subject, case: tuple[Any, list[int]]) -> None:
    """Lanes in another order, with their groups, have their own numbers in that order."""
    (rollout, earlier, total), order = case
    moved, returns = permute_lanes(rollout, order), returns_of(rollout, total)
    made = taught(subject, earlier)
    expected, got = subtracted(made, rollout, returns)[:, order], subtracted(made, moved, returns[:, order])
    same("at {step} changes with the order of lanes", moved, expected, got)


def _ordered(case: tuple[Rollout, Rollout | None, bool]) -> SearchStrategy[tuple[Any, list[int]]]:
    return st.tuples(st.just(case), orders(case[0]))


@law(
    "baseline",
    source="Shao et al. 2024, arXiv:2402.03300, §4.1.1",
    cases=lambda subject: st.tuples(judged(subject), st.integers(0, 1)),
    applies=needs("groups"),
)
def nothing_leaks_between_groups(subject: Subject, case: tuple[Any, int]) -> None:
    """A step's baseline does not change with rewards of another group: they began elsewhere."""
    (rollout, earlier, total), group = case
    where = rollout.mask & (rollout.groups == group)
    changed = evolve(rollout, rewards=rollout.rewards + where.to(rollout.rewards.dtype))
    made = taught(subject, earlier)
    one, two = (subtracted(made, told, returns_of(told, total)) for told in (rollout, changed))
    message = f"at {{step}} changes with the rewards of group {group}"
    same(message, rollout, one, two, ~where, beside={"reward then": changed.rewards})
