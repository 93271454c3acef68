"""Laws of what a baseline may depend on: not on padding, the order of lanes, or another group."""

from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ...contracts import Rollout
from ..applicability import needs
from ..counterexamples import require_close
from ..law import Subject, law
from ..strategies import orders, padded, permute_lanes
from .cases import CONTRACT, baseline_cases, baseline_values, returns_of, updated_baseline

PADDING = "docs/reference/contracts.md#padding"


@law(
    "baseline", source=PADDING, cases=lambda subject: st.tuples(baseline_cases(subject, whole=True), st.integers(0, 2))
)
def padding_is_not_averaged(subject: Subject, case: tuple[Any, int]) -> None:
    """More padding, with any returns in it, does not change the baseline of real steps."""
    (rollout, earlier, total), extra = case
    longer = padded(rollout, extra)
    returns = returns_of(rollout, total)
    longer_returns = returns_of(longer, total).masked_fill(~longer.mask, 64.0)
    baseline = updated_baseline(subject, earlier)
    expected, got = (
        baseline_values(baseline, rollout, returns),
        baseline_values(baseline, longer, longer_returns)[: len(returns)],
    )
    message = f"at {{step}} changes with {extra} more row(s) of padding, in which returns are 64"
    require_close(message, rollout, expected, got)


@law("baseline", source=CONTRACT, cases=lambda subject: baseline_cases(subject).flatmap(_ordered))
def baselines_permute_with_lanes(subject: Subject, case: tuple[Any, list[int]]) -> None:
    """If lanes (with their groups) are permuted, baselines are permuted in the same way."""
    (rollout, earlier, total), order = case
    moved, returns = permute_lanes(rollout, order), returns_of(rollout, total)
    baseline = updated_baseline(subject, earlier)
    expected, got = (
        baseline_values(baseline, rollout, returns)[:, order],
        baseline_values(baseline, moved, returns[:, order]),
    )
    require_close("at {step} changes with the order of lanes", moved, expected, got)


def _ordered(case: tuple[Rollout, Rollout | None, bool]) -> SearchStrategy[tuple[Any, list[int]]]:
    return st.tuples(st.just(case), orders(case[0]))


@law(
    "baseline",
    source="Shao et al. 2024, arXiv:2402.03300, §4.1.1",
    cases=lambda subject: st.tuples(baseline_cases(subject), st.integers(0, 1)),
    applies=needs("groups"),
)
def nothing_leaks_between_groups(subject: Subject, case: tuple[Any, int]) -> None:
    """A step's baseline does not change with rewards of another group, whose episodes start in another state."""
    (rollout, earlier, total), group = case
    where = rollout.mask & (rollout.groups == group)
    changed = evolve(rollout, rewards=rollout.rewards + where.to(rollout.rewards.dtype))
    baseline = updated_baseline(subject, earlier)
    expected, got = (baseline_values(baseline, each, returns_of(each, total)) for each in (rollout, changed))
    message = f"at {{step}} changes with the rewards of group {group}"
    require_close(message, rollout, expected, got, ~where, extra_columns={"changed reward": changed.rewards})
