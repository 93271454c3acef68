"""Build environments, reset and step them as planned, record the results, and compare recordings."""

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
ROWS = 12  # of actions in a plan; repeated if a law needs more
MAX_STEPS = 2000  # maximum number of time steps
MANY_LANES = 32  # lanes for tests of frequencies


@frozen
class ActionPlan:
    """What to run: the number of lanes, the seed of the reset, and actions for each step and lane."""

    lanes: int
    seed: int
    actions: tuple[tuple[Any, ...], ...]  # [T][N]

    def row(self, t: int) -> tuple[Any, ...]:
        """The actions of step t; after the last row follows the first."""
        return self.actions[t % len(self.actions)]


@frozen(eq=False)
class Recording:
    """A recording: the first observations `[N, *O]`, and for each step the actions and the result."""

    first: Tensor
    actions: list[Tensor]
    steps: list[Step]
    generators: list[Tensor]  # the generator's state after each step

    def ended(self, t: int) -> Tensor:
        """In which lanes an episode ended in step t `[N]`."""
        step = self.steps[t]
        ended = step.terminated | step.truncated
        return ended if step.valid is None else ended & step.valid

    def rows(self, lane: int, last: int, most: int = 8) -> tuple[Mapping[str, Any], ...]:
        """The steps of one lane up to step `last`, as a table."""
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
def make_environment(subject: Subject, count: int) -> Iterator[Any]:
    """A new environment with so many lanes, closed afterwards."""
    environment = subject.make(count, CPU)
    try:
        yield environment
    finally:
        if callable(close := getattr(environment, "close", None)):
            close()


def lane_counts(subject: Subject) -> list[int]:
    """The three smallest numbers of lanes that it can be built for: it may allow whole groups only."""
    if "counts" not in subject.cache:
        counts, refused = [], None
        for count in range(1, 33):
            try:
                with make_environment(subject, count):
                    counts.append(count)
            except ValueError as error:
                refused = error
            if len(counts) == 3:
                break
        if not counts and refused is not None:
            raise refused
        subject.cache["counts"] = counts
    return list(subject.cache["counts"])


def many_lanes(subject: Subject, about: int = MANY_LANES) -> int:
    """About so many lanes, in whole groups."""
    return lane_counts(subject)[0] * (about // lane_counts(subject)[0] or 1)


def first_of_each_group(environment: Any, count: int) -> Tensor:
    """The first lane of each group; all lanes if there are no groups."""
    groups = getattr(environment, "groups", None)
    if groups is None:
        return torch.arange(count)
    return torch.stack([(groups == group).nonzero()[0, 0] for group in groups.unique()])


def spaces_of(subject: Subject) -> "tuple[Space[Any], Space[Any]]":
    """The observation space and the action space."""
    if "spaces" not in subject.cache:
        with make_environment(subject, lane_counts(subject)[0]) as environment:
            subject.cache["spaces"] = environment.observation_space, environment.action_space
    return subject.cache["spaces"]  # type: ignore[no-any-return]


@st.composite
def plans(draw: DrawFn, subject: Subject, several: bool = False, rows: int = ROWS) -> ActionPlan:
    """Plans of actions from the action space; with `several`, for at least two lanes."""
    possible = [count for count in lane_counts(subject) if count > 1 or not several]
    count = draw(st.sampled_from(possible))
    actions = draw(elements(spaces_of(subject)[1], draw(st.integers(1, rows)), count)).tolist()
    return ActionPlan(count, draw(st.integers(0, 99)), tuple(map(tuple, actions)))


def allowed_actions(environment: Any, row: Sequence[Any], masks: Tensor | None) -> Tensor:
    """Actions as a tensor; with masks, each is mapped to an allowed action."""
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


def run_plan(
    environment: Any,
    plan: ActionPlan,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    before: Recording | None = None,
) -> Recording:
    """Reset, and step as planned (`steps` times); or continue the recording `before` with the next actions."""
    generator = torch.Generator().manual_seed(plan.seed) if generator is None else generator
    if before is None:
        first, masks, first_step = environment.reset(generator).clone(), getattr(environment, "action_masks", None), 0
    else:
        last, first_step = before.steps[-1], len(before.steps)
        first, masks = last.observations, last.action_masks
    recording = Recording(first, [], [], [])
    for t in range(first_step, first_step + (len(plan.actions) if steps is None else steps)):
        actions = allowed_actions(environment, plan.row(t), masks)
        step = clone_step(environment.step(actions.clone(), generator))
        masks = step.action_masks
        recording.actions.append(actions)
        recording.steps.append(step)
        recording.generators.append(generator.get_state())
    return recording


def clone_step(step: Step) -> Step:
    """A copy of a step: the environment may overwrite its tensors in the next one."""
    columns = {name: getattr(step, name) for name in COLUMNS}
    clones: dict[str, Any] = {name: None if column is None else column.clone() for name, column in columns.items()}
    return Step(**clones)


def equal(left: Any, right: Any) -> bool:
    """Whether two tensors, numbers, or containers of them are equal; NaN equals NaN."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.shape != right.shape or left.dtype != right.dtype:
            return False
        return bool(((left == right) | (left != left) & (right != right)).all())
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(value, right[name]) for name, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, np.ndarray):
        return bool(np.array_equal(left, right))
    return type(left) is type(right) and bool(left == right)


def require_same_recording(expected: Recording, got: Recording, message: str) -> None:
    """Raise `Broken` if the second recording differs from the first, with the first step and lane that differ."""
    for n, (first, got_first) in enumerate(zip(expected.first, got.first, strict=True)):
        if not equal(first, got_first):
            raise Broken(
                f"{message}: first observations of lane {n} differ", expected=first.tolist(), got=got_first.tolist()
            )
    for t, (step, got_step) in enumerate(zip(expected.steps, got.steps, strict=True)):
        for name in COLUMNS:
            here, there = getattr(step, name), getattr(got_step, name)
            if not equal(here, there):
                n = next(n for n in range(len(here)) if not equal(here[n], there[n]))
                raise Broken(
                    f"{message}: {name} of step {t}, lane {n} differ",
                    expected=here[n].tolist(),
                    got=there[n].tolist(),
                    case=expected.rows(n, t),
                )
