"""Change one thing in a rollout: its rows or lanes, padding, dtype, or the size of its numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import evolve, fields
from torch import Tensor

from ...contracts import Rollout
from ...returns import continues

REWARDS_AND_VALUES = ("rewards", "values", "successor_values")
NUMBERS = (*REWARDS_AND_VALUES, "log_probs", "target_log_probs")


def tables_of(rollout: Rollout) -> dict[str, Tensor]:
    """The columns `[T, N, …]` of a rollout by name."""
    columns = {field.name: getattr(rollout, field.name) for field in fields(Rollout)}
    return {name: column for name, column in columns.items() if column is not None and name not in ("groups", "state")}


def copied(rollout: Rollout) -> Rollout:
    """A copy with its own tensors, so that writing to them does not change the counterexample."""
    columns: dict[str, Any] = {field.name: getattr(rollout, field.name) for field in fields(Rollout)}
    clones: dict[str, Any] = {name: None if column is None else column.clone() for name, column in columns.items()}
    return Rollout(**clones)


def excerpt(rollout: Rollout, rows: Any = slice(None), lanes: Any = slice(None)) -> Rollout:
    """Some rows and lanes of a rollout, in the given order; episodes are numbered anew.

    A lane that is given twice has its own episodes each time.
    """
    part = _chosen(rollout, rows, lanes)
    mask, lane = part.mask, torch.arange(part.mask.shape[1]).expand_as(part.mask)
    pairs = list(zip(lane[mask].tolist(), part.episodes[mask].tolist(), strict=True))
    known = {pair: new for new, pair in enumerate(dict.fromkeys(pairs))}
    numbers = torch.zeros(mask.shape, dtype=torch.int64)
    numbers[mask] = torch.tensor([known[pair] for pair in pairs], dtype=torch.int64)
    return evolve(part, episodes=numbers)


def permute_lanes(rollout: Rollout, order: Sequence[int]) -> Rollout:
    """The rollout with its lanes in another order; episodes keep their numbers."""
    return _chosen(rollout, slice(None), order)


def _chosen(rollout: Rollout, rows: Any, lanes: Any) -> Rollout:
    columns: dict[str, Any] = {name: column[rows][:, lanes] for name, column in tables_of(rollout).items()}
    for name in ("groups", "state"):
        column = getattr(rollout, name)
        columns[name] = None if column is None else column[lanes]
    return Rollout(**columns)


def padded(rollout: Rollout, extra: int) -> Rollout:
    """The rollout with more rows of padding at the end."""
    columns: dict[str, Any] = {
        name: torch.cat([column, torch.zeros_like(column[:1]).expand(extra, *column.shape[1:])])
        for name, column in tables_of(rollout).items()
    }
    return evolve(rollout, **columns)


def as_dtype(rollout: Rollout, dtype: torch.dtype) -> Rollout:
    """The rollout with rewards, values and log-probs in another dtype."""
    return evolve(rollout, **{name: column.to(dtype) for name, column in _columns_named(rollout, NUMBERS).items()})


def scaled(rollout: Rollout, factor: float) -> Rollout:
    """The rollout with rewards and values multiplied by a factor."""
    return evolve(
        rollout, **{name: factor * column for name, column in _columns_named(rollout, REWARDS_AND_VALUES).items()}
    )


def _columns_named(rollout: Rollout, names: Sequence[str]) -> dict[str, Any]:
    """The columns with these names that are not None."""
    return {name: column for name, column in tables_of(rollout).items() if name in names}


def next_values(rollout: Rollout, values: Tensor, beyond: Tensor) -> Tensor:
    """V(s′) `[T, N]`: the next row's value, `beyond` where the trace is cut, 0 where the episode terminated."""
    shifted = torch.cat([values[1:], torch.zeros_like(values[:1])])
    continuing = continues(rollout.terminated, rollout.truncated, rollout.mask)
    return torch.where(continuing, shifted, beyond).masked_fill(rollout.terminated | ~rollout.mask, 0)
