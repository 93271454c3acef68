"""Laws of what an estimate may depend on: not on other episodes, other lanes, or padding."""

from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ...contracts import Estimate, Rollout
from ..applicability import claims
from ..counterexamples import require_close
from ..law import Subject, law
from ..strategies import excerpt, orders, padded, permute_lanes, tables_of
from .cases import (
    CONTRACT,
    TIME_LIMITS,
    columns_of,
    estimate,
    mix,
    require_same_estimate,
    rollout_cases,
    whole_episode_cases,
    with_changed_numbers,
    with_other_numbers,
    without_groups,
)

PADDING = "docs/reference/contracts.md#padding"


@st.composite
def followed_by_another_episode(draw: st.DrawFn, subject: Subject, end: str) -> tuple[Rollout, Rollout]:
    """Two rollouts whose episodes all end in this way, with at least one followed by another episode in its lane."""
    rollout = draw(rollout_cases(subject, min_episodes=3, max_lanes=2))
    ends, never = rollout.terminated | rollout.truncated, torch.zeros_like(rollout.terminated)
    flags: dict[str, Any] = {"terminated": never, "truncated": never, end: ends}
    if rollout.successor_values is not None:
        flags["successor_values"] = rollout.successor_values.masked_fill(flags["terminated"], 0)
    rollout = evolve(rollout, **flags)
    return rollout, draw(with_other_numbers(rollout))


@law(
    "estimator",
    source="Sutton & Barto 2018, §3.4",
    cases=lambda subject: followed_by_another_episode(subject, "terminated"),
    applies=without_groups,
)
def nothing_leaks_over_a_termination(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """Nothing of the next episode in the lane has an effect on steps before a termination."""
    _require_no_leak(subject, case, case[0].terminated, "a termination")


@law(
    "estimator",
    source=TIME_LIMITS,
    cases=lambda subject: followed_by_another_episode(subject, "truncated"),
    applies=without_groups,
)
def nothing_leaks_over_a_truncation(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """Nothing of the next episode in the lane has an effect on steps before a truncation: both flags cut the trace."""
    _require_no_leak(subject, case, case[0].truncated & ~case[0].terminated, "a truncation")


def _changed_columns(changed: Rollout) -> dict[str, Tensor | None]:
    """The changed rewards and values, as columns of the report."""
    return {"changed reward": changed.rewards, "changed V(s)": changed.values}


def _require_no_leak(subject: Subject, case: tuple[Rollout, Rollout], ends: Tensor, what: str) -> None:
    """Change everything after the first of `ends` in each lane; estimates up to it must not change."""
    rollout, other = case
    after = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]]).cumsum(0) > 0
    before = ends.any(0) & ~after
    changed = mix(rollout, other, after & rollout.mask)
    message = f"{{column}} at {{step}} change with what follows {what}"
    columns = _changed_columns(changed)
    require_same_estimate(
        message, rollout, estimate(subject, rollout), estimate(subject, changed), before, extra_columns=columns
    )


@law("estimator", source=CONTRACT, cases=with_changed_numbers, applies=without_groups)
def nothing_leaks_between_lanes(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The estimate for a lane does not change with the numbers of another lane."""
    rollout, other = case
    where = torch.zeros_like(rollout.mask)
    where[:, -1] = True
    changed = mix(rollout, other, where & rollout.mask)
    message = "{column} at {step} change with another lane's numbers"
    columns = _changed_columns(changed)
    require_same_estimate(
        message, rollout, estimate(subject, rollout), estimate(subject, changed), ~where, extra_columns=columns
    )


@law("estimator", source=CONTRACT, cases=with_changed_numbers)
def value_targets_do_not_look_back(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The value target of a state does not depend on earlier rewards."""
    _require_causal(subject, case, ("value_targets",))


@law("estimator", source="Sutton & Barto 2018, eq. 3.8 and §13.3", cases=with_changed_numbers, applies=claims("causal"))
def returns_do_not_look_back(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The return at step t does not depend on anything before t: an action cannot change the past."""
    _require_causal(subject, case, ("returns", "weights"))


def _require_causal(subject: Subject, case: tuple[Rollout, Rollout], names: tuple[str, ...]) -> None:
    rollout, other = case
    expected = columns_of(estimate(subject, rollout))
    for t in range(1, len(rollout.mask)):
        earlier = torch.arange(len(rollout.mask))[:, None] < t
        changed = mix(rollout, other, earlier & rollout.mask)
        got = columns_of(estimate(subject, changed))
        for name in (name for name in names if name in expected):
            message = f"{name.replace('_', ' ')} at {{step}} change with what came before step {t}"
            columns = _changed_columns(changed)
            require_close(
                message, rollout, expected[name], got[name], ~earlier.expand_as(rollout.mask), extra_columns=columns
            )


def _with_order(subject: Subject) -> SearchStrategy[tuple[Rollout, list[int]]]:
    return rollout_cases(subject).flatmap(lambda rollout: st.tuples(st.just(rollout), orders(rollout)))


@law("estimator", source=CONTRACT, cases=_with_order)
def lanes_permute(subject: Subject, case: tuple[Rollout, list[int]]) -> None:
    """If lanes are permuted, estimates are permuted in the same way."""
    rollout, order = case
    moved = permute_lanes(rollout, order)
    expected = {name: column[:, order] for name, column in columns_of(estimate(subject, rollout)).items()}
    require_same_estimate(
        "{column} at {step} change with the order of lanes", moved, Estimate(**expected), estimate(subject, moved)
    )


@law("estimator", source=CONTRACT, cases=rollout_cases, examples=15, applies=without_groups)
def the_number_of_lanes_changes_nothing(subject: Subject, rollout: Rollout) -> None:
    """The estimate for a lane is the same alone, among a few lanes, and among three hundred."""
    lanes = rollout.mask.shape[1]
    whole = estimate(subject, rollout)
    for lanes_chosen in ([0], [n % lanes for n in range(300)]):
        part = excerpt(rollout, lanes=lanes_chosen)
        expected = Estimate(**{name: column[:, lanes_chosen] for name, column in columns_of(whole).items()})
        message = f"{{column}} at {{step}} of {len(lanes_chosen)} lanes differ from those of {lanes}"
        require_same_estimate(message, part, expected, estimate(subject, part))


@law("estimator", source=PADDING, cases=lambda subject: st.tuples(whole_episode_cases(subject), st.integers(1, 3)))
def padding_is_inert(subject: Subject, case: tuple[Rollout, int]) -> None:
    """More rows of padding at the end do not change the estimate for real steps."""
    rollout, extra = case
    longer = estimate(subject, padded(rollout, extra))
    cut = Estimate(**{name: column[: len(rollout.mask)] for name, column in columns_of(longer).items()})
    message = f"{{column}} at {{step}} change with {extra} more row(s) of padding"
    require_same_estimate(message, rollout, estimate(subject, rollout), cut)


@st.composite
def _two_rollouts(draw: st.DrawFn, subject: Subject) -> tuple[Rollout, Rollout]:
    """A rollout in whose last row every lane ends, and another rollout of the same lanes."""
    first = draw(rollout_cases(subject))
    lengths = (first.mask * torch.arange(1, len(first.mask) + 1)[:, None]).amax(0)
    first = excerpt(first, rows=slice(0, int(lengths.min())))
    ended = first.terminated.clone()
    ended[-1] |= first.mask[-1] & ~first.truncated[-1]
    columns = {"terminated": ended}
    if first.values is not None:
        columns["successor_values"] = first.successor_values.masked_fill(ended, 0)  # type: ignore[union-attr]
    lanes = first.mask.shape[1]
    second = draw(rollout_cases(subject, min_lanes=lanes, max_lanes=lanes, values=first.values is not None))
    in_first_episode = second.episodes == second.episodes[:1]  # of each lane: it starts at time 0
    return evolve(first, **columns), evolve(
        second, times=(second.times - second.times[:1] * in_first_episode) * second.mask
    )


@law("estimator", source=CONTRACT, cases=_two_rollouts, applies=without_groups)
def a_long_rollout_is_its_pieces(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The estimate for two rollouts in sequence, if every lane ends in between, is that of each rollout alone."""
    first, second = case
    numbers = int(first.episodes.max()) + 1
    tables = {"episodes": (second.episodes + numbers) * second.mask}
    columns: dict[str, Any] = {
        name: torch.cat([column, tables.get(name, getattr(second, name))]) for name, column in tables_of(first).items()
    }
    together = evolve(first, **columns)
    separate = [columns_of(estimate(subject, piece)) for piece in case]
    expected = Estimate(**{name: torch.cat([column, separate[1][name]]) for name, column in separate[0].items()})
    message = f"{{column}} at {{step}} differ if {len(first.mask)} rows and {len(second.mask)} are estimated together"
    require_same_estimate(message, together, expected, estimate(subject, together))
