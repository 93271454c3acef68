"""Environments are played: built for some lanes, reset, stepped as planned; and what they told is kept and compared."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import frozen
from gymnasium.spaces import Discrete, Space
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from ...contracts import Step
from ..law import Broken, Subject
from ..strategies import elements

CPU = torch.device("cpu")
COLUMNS = ("observations", "successors", "rewards", "terminated", "truncated", "valid", "action_masks")
ROWS = 12  # of actions in a plan; played over and over, where a law needs more
LONGEST = 2000  # time steps that are played out
MANY = 32  # lanes, where it is asked how often something happens


@frozen
class Plan:
    """What an environment is asked for: so many lanes, reset with this seed, and actions for each step and lane."""

    lanes: int
    seed: int
    actions: tuple[tuple[Any, ...], ...]  # [T][N]

    def row(self, t: int) -> tuple[Any, ...]:
        """The actions of step t; after the last row comes the first."""
        return self.actions[t % len(self.actions)]


@frozen(eq=False)
class Told:
    """What it told: the first observations `[N, *O]`, and of each step what was done and what came."""

    first: Tensor
    actions: list[Tensor]
    steps: list[Step]
    generators: list[Tensor]  # the generator's state after each step

    def ended(self, t: int) -> Tensor:
        """Where an episode ended in step t `[N]`."""
        step = self.steps[t]
        ended = step.terminated | step.truncated
        return ended if step.valid is None else ended & step.valid

    def rows(self, lane: int, last: int, most: int = 8) -> tuple[Mapping[str, Any], ...]:
        """One lane's story up to step `last`, as a table."""
        table = []
        for t in range(max(0, last + 1 - most), last + 1):
            step = self.steps[t]
            before = self.first if t == 0 else self.steps[t - 1].observations
            ends = [name for name in ("terminated", "truncated") if bool(getattr(step, name)[lane])]
            row = {"step": t, "lane": lane, "observation": before[lane].tolist()}
            row |= {"action": self.actions[t][lane].tolist(), "reward": float(step.rewards[lane])}
            row |= {"successor": step.successors[lane].tolist(), "end": ", ".join(ends)}
            if step.valid is not None:
                row["valid"] = bool(step.valid[lane])
            table.append(row)
        return tuple(table)


@contextmanager
def lanes(subject: Subject, count: int) -> Iterator[Any]:
    """A fresh environment of so many lanes, closed afterwards."""
    environment = subject.make(count, CPU)
    try:
        yield environment
    finally:
        if callable(close := getattr(environment, "close", None)):
            close()


def counts(subject: Subject) -> list[int]:
    """The three smallest numbers of lanes that it can be built for: groups come whole."""
    if "counts" not in subject.memory:
        found, refused = [], None
        for count in range(1, 33):
            try:
                with lanes(subject, count):
                    found.append(count)
            except ValueError as error:
                refused = error
            if len(found) == 3:
                break
        if not found and refused is not None:
            raise refused
        subject.memory["counts"] = found
    return list(subject.memory["counts"])


def many(subject: Subject, about: int = MANY) -> int:
    """About so many lanes, whole groups."""
    return counts(subject)[0] * (about // counts(subject)[0] or 1)


def one_a_group(environment: Any, count: int) -> Tensor:
    """Of its lanes, the first of each group; all, where there are no groups."""
    groups = getattr(environment, "groups", None)
    if groups is None:
        return torch.arange(count)
    return torch.stack([(groups == group).nonzero()[0, 0] for group in groups.unique()])


def spaces_of(subject: Subject) -> "tuple[Space[Any], Space[Any]]":
    """Of observations and actions."""
    if "spaces" not in subject.memory:
        with lanes(subject, counts(subject)[0]) as environment:
            subject.memory["spaces"] = environment.observation_space, environment.action_space
    return subject.memory["spaces"]  # type: ignore[no-any-return]


@st.composite
def plans(draw: DrawFn, subject: Subject, several: bool = False, rows: int = ROWS) -> Plan:
    """Actions of the space, step by step; with `several`, for two lanes or more."""
    possible = [count for count in counts(subject) if count > 1 or not several]
    count = draw(st.sampled_from(possible))
    actions = draw(elements(spaces_of(subject)[1], draw(st.integers(1, rows)), count)).tolist()
    return Plan(count, draw(st.integers(0, 99)), tuple(map(tuple, actions)))


def taken(environment: Any, row: Sequence[Any], masks: Tensor | None) -> Tensor:
    """Actions as a tensor; where some are forbidden, each stands for one of those that are allowed."""
    space = environment.action_space
    actions = torch.from_numpy(np.array(row, dtype=space.dtype).reshape(len(row), *(space.shape or ())))
    if isinstance(space, Discrete):
        actions = actions.long()
        if masks is not None:
            for lane, allowed in enumerate(masks):
                options = allowed.nonzero().flatten()
                if len(options):
                    actions[lane] = options[(actions[lane] - int(space.start)) % len(options)] + int(space.start)
    return actions


def play(
    environment: Any,
    plan: Plan,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    before: Told | None = None,
) -> Told:
    """Reset, and step as planned (`steps` times); or go on after what was told `before`, with its next actions."""
    generator = torch.Generator().manual_seed(plan.seed) if generator is None else generator
    if before is None:
        first, masks, begun = environment.reset(generator).clone(), getattr(environment, "action_masks", None), 0
    else:
        last, begun = before.steps[-1], len(before.steps)
        first, masks = last.observations, last.action_masks
    told = Told(first, [], [], [])
    for t in range(begun, begun + (len(plan.actions) if steps is None else steps)):
        actions = taken(environment, plan.row(t), masks)
        step = copied(environment.step(actions.clone(), generator))
        masks = step.action_masks
        told.actions.append(actions)
        told.steps.append(step)
        told.generators.append(generator.get_state())
    return told


def copied(step: Step) -> Step:
    """A step that stays: what is handed out may be overwritten by the next."""
    columns = {name: getattr(step, name) for name in COLUMNS}
    clones: dict[str, Any] = {name: None if column is None else column.clone() for name, column in columns.items()}
    return Step(**clones)


def same(one: Any, other: Any) -> bool:
    """Whether two tensors, numbers, or containers of them hold the same, NaN being NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(((one == other) | (one != one) & (other != other)).all())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    return type(one) is type(other) and bool(one == other)


def compare(one: Told, other: Told, message: str) -> None:
    """Raise where the second tells something else than the first, at the first step and lane where it does."""
    for n, (first, again) in enumerate(zip(one.first, other.first, strict=True)):
        if not same(first, again):
            raise Broken(
                f"{message}: first observations of lane {n} differ", expected=first.tolist(), got=again.tolist()
            )
    for t, (step, again_step) in enumerate(zip(one.steps, other.steps, strict=True)):
        for name in COLUMNS:
            here, there = getattr(step, name), getattr(again_step, name)
            if not same(here, there):
                n = next(n for n in range(len(here)) if not same(here[n], there[n]))
                raise Broken(
                    f"{message}: {name} of step {t}, lane {n} differ",
                    expected=here[n].tolist(),
                    got=there[n].tolist(),
                    case=one.rows(n, t),
                )
