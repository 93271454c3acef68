"""What laws hand an estimator, what it then says, and what the laws have in common."""

from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ...contracts import Estimate, Rollout
from ..counterexamples import rows, same
from ..law import Broken, Subject
from ..observations import seen
from ..strategies import NUMBERS, copied, following, quarters, rollouts

CONTRACT = "docs/reference/contracts.md#estimator"
FLAGS = "docs/reference/contracts.md#terminated-and-truncated"
TIME_LIMITS = "Pardo et al. 2018, arXiv:1712.00378, §2 and §3"
COLUMNS = ("returns", "value_targets", "weights")


def stories(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """Rollouts that the part may be handed: whole episodes, or with a critic's values, where it needs them."""
    whole, grouped = (subject.says("needs", word) for word in ("complete_episodes", "groups"))
    asked: dict[str, Any] = {"whole": whole or None, "values": bootstraps(subject) or None, "groups": grouped}
    if grouped:
        asked["min_episodes"] = 2  # in each group
    return seen(subject, rollouts(**asked | options))


def lane_by_lane(subject: Subject) -> str | None:
    """Not what looks at groups of lanes."""
    return "it needs groups, whose lanes it looks at together" if subject.says("needs", "groups") else None


def complete(subject: Subject) -> SearchStrategy[Rollout]:
    """Of whole episodes."""
    return stories(subject, whole=True)


def on_policy(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """Of the policy that is learnt: nothing is corrected for. Where episodes must be whole, the world ends each."""

    def told(rollout: Rollout) -> Rollout:
        ends = rollout.terminated | rollout.truncated
        columns: dict[str, Any] = {}
        if rollout.target_log_probs is not None:
            columns["target_log_probs"] = rollout.log_probs.clone()
        if subject.says("needs", "complete_episodes") and rollout.successor_values is not None:
            columns |= {"terminated": ends, "truncated": ends & False}
            columns["successor_values"] = rollout.successor_values.masked_fill(ends, 0)
        return evolve(rollout, **columns)

    return stories(subject, **options).map(told)


def with_another(subject: Subject) -> SearchStrategy[tuple[Rollout, Rollout]]:
    """A rollout, and the same one with other numbers (rewards; values; log-probs) in all its steps."""
    return stories(subject).flatmap(lambda rollout: st.tuples(st.just(rollout), retold(rollout)))


@st.composite
def retold(draw: st.DrawFn, rollout: Rollout) -> Rollout:
    """With other numbers in all its steps: its rewards, and what a critic and two policies say."""
    mask, count = rollout.mask, int(rollout.mask.sum())
    numbers = torch.tensor(draw(quarters(count * len(NUMBERS))), dtype=rollout.rewards.dtype)
    numbers = numbers.reshape(count, len(NUMBERS)).T  # step by step: fewer steps have the same numbers
    told: dict[str, Any] = {}
    for name, row in zip(NUMBERS, numbers, strict=True):
        column = getattr(rollout, name)
        if column is not None:
            told[name] = column.clone()
            told[name][mask] += -row.abs() if name.endswith("log_probs") else row
    if rollout.values is not None:
        told["successor_values"] = following(rollout, told["values"], told["successor_values"])
    return evolve(rollout, **told)


def mixed(rollout: Rollout, other: Rollout, where: Tensor) -> Rollout:
    """`rollout` with the numbers of `other` at the steps `where` [T, N], its successors' values to match."""
    told: dict[str, Any] = {}
    for name in NUMBERS:
        mine, theirs = getattr(rollout, name), getattr(other, name)
        if mine is not None:
            told[name] = torch.where(where, theirs, mine)
    if rollout.values is not None:
        told["successor_values"] = following(rollout, told["values"], told["successor_values"])
    return evolve(rollout, **told)


# Calling


def estimate(subject: Subject, rollout: Rollout) -> Estimate:
    """What the part makes of a rollout."""
    made: Estimate = subject.make()(copied(rollout))
    if not isinstance(made, Estimate):
        raise Broken(f"returns {type(made).__name__}, not an Estimate", expected="Estimate", got=type(made).__name__)
    return made


def columns_of(made: Estimate) -> dict[str, Tensor]:
    """Returns, value targets, and weights where there are some."""
    return {name: getattr(made, name) for name in COLUMNS if getattr(made, name) is not None}


def alike(
    message: str, rollout: Rollout, expected: Estimate, got: Estimate, where: Tensor | None = None, **options: Any
) -> None:
    """Refuse an estimate that is not as expected; `{column}` in the message is which of its columns."""
    for name, column in columns_of(expected).items():
        other = getattr(got, name)
        if other is None or other.shape != column.shape:
            shape = None if other is None else list(other.shape)
            raise Broken(f"{name} change their shape", expected=list(column.shape), got=shape, case=rows(rollout))
        same(message.replace("{column}", name.replace("_", " ")), rollout, column, other, where, **options)


def bootstraps(subject: Subject) -> bool:
    """Whether it is handed what a critic says."""
    return subject.says("needs", "values")
