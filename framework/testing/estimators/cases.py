"""Cases for laws of estimators, calls of an estimator, and what the laws have in common."""

from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ...contracts import Estimate, Rollout
from ..counterexamples import require_close, rows
from ..law import Broken, Subject
from ..observations import with_supported_observations
from ..strategies import NUMBERS, copied, next_values, quarters, rollouts

CONTRACT = "docs/reference/contracts.md#estimator"
FLAGS = "docs/reference/contracts.md#terminated-and-truncated"
TIME_LIMITS = "Pardo et al. 2018, arXiv:1712.00378, §2 and §3"
COLUMNS = ("returns", "value_targets", "weights")


def rollout_cases(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """Rollouts that the part may be given: with whole episodes, or with a critic's values, if it needs them."""
    whole, grouped = (subject.declares("needs", word) for word in ("complete_episodes", "groups"))
    defaults: dict[str, Any] = {"whole": whole or None, "values": bootstraps(subject) or None, "groups": grouped}
    if grouped:
        defaults["min_episodes"] = 2  # in each group
    return with_supported_observations(subject, rollouts(**defaults | options))


def without_groups(subject: Subject) -> str | None:
    """The law applies only to estimators that do not need groups of lanes."""
    return "it needs groups, and may combine the lanes of a group" if subject.declares("needs", "groups") else None


def whole_episode_cases(subject: Subject) -> SearchStrategy[Rollout]:
    """Rollouts of whole episodes."""
    return rollout_cases(subject, whole=True)


def on_policy_cases(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """On-policy rollouts: importance weights are 1. If the estimator needs complete episodes, all are terminated."""

    def on_policy(rollout: Rollout) -> Rollout:
        ends = rollout.terminated | rollout.truncated
        columns: dict[str, Any] = {}
        if rollout.target_log_probs is not None:
            columns["target_log_probs"] = rollout.log_probs.clone()
        if subject.declares("needs", "complete_episodes") and rollout.successor_values is not None:
            columns |= {"terminated": ends, "truncated": ends & False}
            columns["successor_values"] = rollout.successor_values.masked_fill(ends, 0)
        return evolve(rollout, **columns)

    return rollout_cases(subject, **options).map(on_policy)


def with_changed_numbers(subject: Subject) -> SearchStrategy[tuple[Rollout, Rollout]]:
    """A rollout, and the same rollout with other rewards, values and log-probs."""
    return rollout_cases(subject).flatmap(lambda rollout: st.tuples(st.just(rollout), with_other_numbers(rollout)))


@st.composite
def with_other_numbers(draw: st.DrawFn, rollout: Rollout) -> Rollout:
    """The rollout with other rewards, values and log-probs in all steps."""
    mask, count = rollout.mask, int(rollout.mask.sum())
    numbers = torch.tensor(draw(quarters(count * len(NUMBERS))), dtype=rollout.rewards.dtype)
    numbers = numbers.reshape(count, len(NUMBERS)).T  # step by step, so that numbers stay the same with fewer steps
    columns: dict[str, Any] = {}
    for name, row in zip(NUMBERS, numbers, strict=True):
        column = getattr(rollout, name)
        if column is not None:
            columns[name] = column.clone()
            columns[name][mask] += -row.abs() if name.endswith("log_probs") else row
    if rollout.values is not None:
        columns["successor_values"] = next_values(rollout, columns["values"], columns["successor_values"])
    return evolve(rollout, **columns)


def mix(rollout: Rollout, other: Rollout, where: Tensor) -> Rollout:
    """`rollout` with the numbers of `other` at the steps `where` [T, N], and consistent successor values."""
    columns: dict[str, Any] = {}
    for name in NUMBERS:
        column, other_column = getattr(rollout, name), getattr(other, name)
        if column is not None:
            columns[name] = torch.where(where, other_column, column)
    if rollout.values is not None:
        columns["successor_values"] = next_values(rollout, columns["values"], columns["successor_values"])
    return evolve(rollout, **columns)


# Calling


def estimate(subject: Subject, rollout: Rollout) -> Estimate:
    """The part's estimate for a rollout."""
    result: Estimate = subject.make()(copied(rollout))
    if not isinstance(result, Estimate):
        raise Broken(
            f"returns {type(result).__name__}, not an Estimate", expected="Estimate", got=type(result).__name__
        )
    return result


def columns_of(estimate: Estimate) -> dict[str, Tensor]:
    """Returns, value targets, and weights if there are any."""
    return {name: getattr(estimate, name) for name in COLUMNS if getattr(estimate, name) is not None}


def require_same_estimate(
    message: str, rollout: Rollout, expected: Estimate, got: Estimate, where: Tensor | None = None, **options: Any
) -> None:
    """Raise `Broken` if an estimate is not as expected; `{column}` in the message is replaced by the column's name."""
    for name, column in columns_of(expected).items():
        got_column = getattr(got, name)
        if got_column is None or got_column.shape != column.shape:
            shape = None if got_column is None else list(got_column.shape)
            raise Broken(f"{name} have another shape", expected=list(column.shape), got=shape, case=rows(rollout))
        require_close(
            message.replace("{column}", name.replace("_", " ")), rollout, column, got_column, where, **options
        )


def bootstraps(subject: Subject) -> bool:
    """Whether the estimator uses a critic's values."""
    return subject.declares("needs", "values")
