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

COLUMNS = (
    "observations",
    "actions",
    "log_probs",
    "advantages",
    "returns",
    "value_targets",
    "values",
    "action_masks",
)  # of a batch
LIGHT = 2**24  # bytes of shuffled steps that may be held beside a batch; when the next come, twice that


def flatten(rollout: Rollout, advantages: Advantages) -> Batch:
    """The real steps of a rollout, laid flat in time-major order."""
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


def minibatches(settings: UpdateSettings, shuffle: torch.Generator, whole: Batch) -> Iterator[Minibatch]:
    """Every epoch's minibatches, shuffled anew; each has its own steps, and its share of episodes, as denominators.

    A policy with memory needs lanes whole: they are what is shuffled, and shared out as evenly as their number allows.
    """
    if settings.minibatches == 1:
        for _ in range(settings.epochs):
            yield Minibatch(None, lambda: whole)
        return
    count = whole.total_steps
    if whole.sequences is not None:
        (busy,) = whole.sequences.real.any(0).nonzero(as_tuple=True)
        count = len(busy)
    least, more = divmod(count, parts := min(settings.minibatches, count))
    size = sum(column.nbytes for name in COLUMNS if (column := getattr(whole, name)) is not None)
    light = 0 if whole.sequences is not None else LIGHT // size  # epochs that may be held at once
    latest: dict[int, list[Batch]] = {}  # those that were shuffled last, by the first of them

    def item(first: int, order: Tensor, sizes: list[int], number: int) -> Batch:
        if first not in latest:
            latest.clear()
            latest[first] = shuffled(whole, order, sizes)
        return latest[first][number]

    for first in range(0, settings.epochs, max(1, light)):
        epochs = min(max(1, light), settings.epochs - first)
        sizes = ([least + 1] * more + [least] * (parts - more)) * epochs
        order = torch.cat([torch.randperm(count, generator=shuffle) for _ in range(epochs)]).to(whole.actions.device)
        indices = (order if whole.sequences is None else busy[order]).split_with_sizes(sizes)
        cuts: Sequence[Callable[[], Batch]]
        if light:  # shuffled once: the minibatches are views
            cuts = [functools.partial(item, first, order, sizes, number) for number in range(len(sizes))]
        else:
            part = select if whole.sequences is None else select_lanes
            cuts = [functools.partial(part, whole, index) for index in indices]
        yield from map(Minibatch, indices, cuts)


def select(batch: Batch, index: Tensor) -> Batch:
    """The steps of a batch at `index` [M]."""
    return _each(batch, lambda column: [column.index_select(0, index)], [len(index)])[0]


def shuffled(batch: Batch, order: Tensor, sizes: list[int]) -> list[Batch]:
    """The steps of a batch in another order, each perhaps more than once, in pieces of so many, which are views."""
    return _each(batch, lambda column: column.index_select(0, order).split_with_sizes(sizes), sizes)


def _each(batch: Batch, cut: Callable[[Tensor], Sequence[Tensor]], sizes: Sequence[int]) -> list[Batch]:
    """Batches of so many steps, from what `cut` makes of each column; each has its share of the episodes."""
    made: dict[int, Sequence[Tensor]] = {}
    given: list[tuple[str, Any]] = []
    for name in COLUMNS:
        column = getattr(batch, name)
        if column is not None:
            if id(column) not in made:
                made[id(column)] = cut(column)
            given.append((name, made[id(column)]))
    whole = len(batch.advantages)
    return [
        Batch(
            **{name: pieces[number] for name, pieces in given},
            total_steps=size,
            total_episodes=share_of(batch.total_episodes, size, whole),
        )
        for number, size in enumerate(sizes)
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


def divisor(batch: Batch, denominator: str, constant: float = 1.0) -> float:
    """What the summed terms of a loss are divided by."""
    return divisor_of(batch.total_steps, batch.total_episodes, denominator, constant)


def divisor_of(steps: int, episodes: float, denominator: str, constant: float = 1.0) -> float:
    """The same, of so many steps and episodes."""
    return {"per_step": steps, "per_episode": episodes, "constant": constant}[denominator]


def reduce(loss: Loss, batch: Batch, denominator: str, constant: float = 1.0) -> dict[str, Tensor]:
    """Each term, summed and divided: the scalars whose sum is descended."""
    count = divisor(batch, denominator, constant)
    return {name: divided(term, count) for name, term in loss.terms.items()}


def divided(term: Tensor, count: float) -> Tensor:
    """The sum of a term over its divisor."""
    return term.mean() if count == term.numel() else term.sum() / count  # mean: the same, in one kernel
