"""From a rollout to the batches of the optimizer's steps."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from ..collecting.episodes import to_host
from ..collecting.rollout import sequences
from ..config import UpdateSettings
from ..contracts import Advantages, Batch, Inputs, Loss, Rollout, Sequences

TARGETS = ("log_probs", "advantages", "returns", "value_targets", "values")
LIGHT = 2**24  # bytes
COLUMNS = ("observations", "actions", *TARGETS, "action_masks")  # of a batch


def flatten(rollout: Rollout, advantages: Advantages) -> Batch:
    """The real steps of a rollout, flattened in time-major order."""
    index = torch.from_numpy(np.flatnonzero(to_host(rollout.mask))).to(rollout.mask.device)

    def real(column: Tensor | None) -> Any:
        if column is None:
            return None
        flat = column.flatten(0, 1)
        return flat if len(index) == len(flat) else flat.index_select(0, index)

    returns = real(advantages.returns)
    same = advantages.value_targets is advantages.returns
    return Batch(
        real(rollout.observations),
        real(rollout.actions),
        real(rollout.log_probs),
        real(advantages.advantages),
        returns,
        returns if same else real(advantages.value_targets),
        total_steps=len(index),
        total_episodes=int(rollout.episodes.max()) + 1,
        values=real(rollout.values),
        action_masks=real(rollout.action_masks),
        sequences=None if rollout.state is None else Sequences(sequences(rollout), rollout.actions, rollout.mask),
    )


@frozen(eq=False)
class Minibatch:
    """A share of a batch, whose columns are selected when they are needed."""

    index: Tensor | None  # [M] of the steps of the whole batch, or of the lanes of sequences; None: all of it
    make: Callable[[], Batch]


def minibatches(
    settings: UpdateSettings, shuffle: torch.Generator, whole: Batch, light: int = LIGHT
) -> Iterator[Minibatch]:
    """Every epoch's minibatches, shuffled anew; each has its own steps, and its share of episodes, as denominators.

    A policy with memory needs lanes whole: they are what is shuffled, and shared out as evenly as their number allows.
    An epoch is shuffled at once if the batch has at most `light` bytes; a larger one is not held twice.
    """
    if settings.minibatches == 1:
        for _ in range(settings.epochs):
            yield Minibatch(None, lambda: whole)
        return
    rows = torch.arange(whole.total_steps)
    if whole.sequences is not None:
        (rows,) = whole.sequences.real.any(0).nonzero(as_tuple=True)  # lanes with real steps
    least, more = divmod(len(rows), parts := min(settings.minibatches, len(rows)))
    sizes = [least + 1] * more + [least] * (parts - more)
    orders = [torch.randperm(len(rows), generator=shuffle) for _ in range(settings.epochs)]
    indices = [rows[order.to(rows.device)].to(whole.actions.device) for order in orders]

    at_once = whole.sequences is None and sum(column.nbytes for column in columns_of(whole).values()) <= light
    one = select if whole.sequences is None else select_lanes

    @functools.lru_cache(maxsize=1)  # one epoch is held at a time; its minibatches are views
    def shuffled(epoch: int) -> list[Batch]:
        return _each(whole, lambda column: column.index_select(0, indices[epoch]).split_with_sizes(sizes), sizes)

    def make(epoch: int, number: int, index: Tensor) -> Batch:
        return shuffled(epoch)[number] if at_once else one(whole, index)

    for epoch in range(settings.epochs):
        for number, index in enumerate(indices[epoch].split_with_sizes(sizes)):
            yield Minibatch(index, functools.partial(make, epoch, number, index))


def select(batch: Batch, index: Tensor) -> Batch:
    """The steps of a batch at `index` [M]."""
    return _each(batch, lambda column: [column.index_select(0, index)], [len(index)])[0]


def columns_of(batch: Batch) -> dict[str, Tensor]:
    """The columns that a batch has, by name."""
    return {name: column for name in COLUMNS if (column := getattr(batch, name)) is not None}


def _each(batch: Batch, cut: Callable[[Tensor], Sequence[Tensor]], sizes: Sequence[int]) -> list[Batch]:
    """Batches of these sizes, from what `cut` makes of each column; each has its share of the episodes."""
    columns, whole = columns_of(batch), len(batch.advantages)
    distinct = {id(column): column for column in columns.values()}  # one tensor may be several columns
    pieces = {key: cut(column) for key, column in distinct.items()}
    made = ({name: pieces[id(column)][number] for name, column in columns.items()} for number in range(len(sizes)))
    shares = (share_of(batch.total_episodes, size, whole) for size in sizes)
    return [
        Batch(**part, total_steps=size, total_episodes=share)  # type: ignore[arg-type]
        for part, size, share in zip(made, sizes, shares, strict=True)
    ]


def share_of(episodes: float, size: int, whole: int) -> float:
    """How many of the episodes of a whole batch count in `size` of its steps."""
    return episodes * size / whole


def select_lanes(batch: Batch, lanes: Tensor) -> Batch:
    """The steps of some lanes [M] of a batch of sequences, in time-major order."""
    assert batch.sequences is not None
    whole, inputs = batch.sequences, batch.sequences.inputs
    row = (whole.real.flatten().cumsum(0) - 1).view_as(whole.real)  # [T, N] of each real step in the flat columns
    real = whole.real[:, lanes]
    part = Inputs(
        inputs.observations[:, lanes],
        None if inputs.action_masks is None else inputs.action_masks[:, lanes],
        None if inputs.state is None else inputs.state[lanes],
        None if inputs.started is None else inputs.started[:, lanes],
    )
    return evolve(select(batch, row[:, lanes][real]), sequences=Sequences(part, whole.actions[:, lanes], real))


def divisor(steps: int, episodes: float, denominator: str, constant: float = 1.0) -> float:
    """What the summed terms of a loss are divided by: the batch's steps, its episodes, or a constant."""
    return {"per_step": steps, "per_episode": episodes, "constant": constant}[denominator]


def reduce(loss: Loss, batch: Batch, denominator: str, constant: float = 1.0) -> dict[str, Tensor]:
    """Each term, summed and divided: the scalars whose sum is descended."""
    count = divisor(batch.total_steps, batch.total_episodes, denominator, constant)
    return {name: divided(term, count) for name, term in loss.terms.items()}


def divided(term: Tensor, count: float) -> Tensor:
    """The sum of a term over its divisor."""
    return term.mean() if count == term.numel() else term.sum() / count  # mean: the same, in one kernel
