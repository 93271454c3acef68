"""What an environment and a policy hand over is checked once, where it enters; the message names the part."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import field, frozen
from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete
from torch import Tensor

from ..contracts import Action, Environment, Inputs, Rollout, Step
from ..errors import PartError
from . import checks

if TYPE_CHECKING:
    from ..collecting.episodes import BootstrapObservations
    from ..collecting.shard import Shard

TENSORS = ("observations", "successors", "rewards", "terminated", "truncated", "valid", "action_masks")


def alike(one: Any, other: Any, names: Sequence[str]) -> bool:
    """Whether two records of the same class have tensors of the same shapes and dtypes: one was checked, so is one."""
    if type(one) is not type(other):
        return False
    for name in names:
        a, b = getattr(one, name), getattr(other, name)
        if a is not b and not (type(a) is Tensor and type(b) is Tensor and a.shape == b.shape and a.dtype == b.dtype):
            return False
    return True


@frozen(eq=False)
class StepChecks:
    """The checks of one shard."""

    environment: Environment
    lanes: int
    labels: tuple[str, str]  # the environment's and the policy's
    limits: dict[torch.dtype, tuple[Tensor, Tensor] | None] = field(factory=dict)  # of observations, once looked up

    def first(self, observations: Any, masks: Any) -> None:
        """What `reset` returned, and the masks that go with it."""
        shape = (self.lanes, *(self.environment.observation_space.shape or ()))
        checks.tensor(f"{self.labels[0]}: reset: observations", observations, shape, "[N, *O]", None)
        if masks is not None:
            self._masks("reset", masks)

    def action(self, action: Action, before: Action | None) -> None:
        """What `act` returned; `before`: what it returned last time, if it was called before."""
        if before is not None and alike(action, before, ("actions", "log_probs", "state")):
            return
        checks.kind(f"{self.labels[1]}: act", action, Action)
        space = self.environment.action_space
        expected = (self.lanes, *(space.shape or ()))
        label = f"{self.labels[1]}: act: actions"
        checks.tensor(label, action.actions, expected, "[N, *A]", None)
        if isinstance(space, Discrete) and action.actions.dtype != torch.int64:
            raise PartError(f"{label}: expected torch.int64 (Discrete actions), got {action.actions.dtype}")
        if action.log_probs is not None or (before is not None and before.log_probs is not None):
            label = f"{self.labels[1]}: act: log_probs"
            checks.tensor(label, action.log_probs, (self.lanes,), "[N]", "floating point")
            if before is not None and before.log_probs is None:
                raise PartError(f"{label}: expected None, as before, got a tensor")
        if action.state is not None or (before is not None and before.state is not None):
            like = action.state if before is None else before.state
            if like is None:
                raise PartError(f"{self.labels[1]}: act: state: expected None, as before, got a state")
            shape = (self.lanes, *getattr(like, "shape", ())[1:])
            checks.tensor(f"{self.labels[1]}: act: state", action.state, shape, "[N, *H]", getattr(like, "dtype", None))

    def step(self, step: Step, before: Step | None, inputs: Inputs) -> None:
        """What `step` returned; `before`: the last time; `inputs`: what the policy saw."""
        if before is not None and step.metrics is None and alike(step, before, TENSORS):
            return
        label = f"{self.labels[0]}: step"
        checks.kind(label, step, Step)
        shape = (self.lanes, *(self.environment.observation_space.shape or ()))
        dtype = inputs.observations.dtype
        checks.tensor(f"{label}: observations", step.observations, shape, "[N, *O]", dtype)
        checks.tensor(f"{label}: successors", step.successors, shape, "[N, *O]", dtype)
        checks.tensor(f"{label}: rewards", step.rewards, (self.lanes,), "[N]", "floating point")
        for name in ("terminated", "truncated", *(["valid"] if step.valid is not None else [])):
            checks.tensor(f"{label}: {name}", getattr(step, name), (self.lanes,), "[N]", torch.bool)
        if before is not None and (step.valid is None) != (before.valid is None):
            raise PartError(f"{label}: valid: expected it always or never, got it in some steps only")
        for name, column in (step.metrics or {}).items():
            checks.tensor(f"{label}: metrics['{name}']", column, (self.lanes,), "[N]", "floating point")
        if inputs.action_masks is not None:
            self._masks("step", step.action_masks)
        elif step.action_masks is not None:
            raise PartError(
                f"{label}: gives action_masks, and none for the first observations: set the attribute action_masks, too"
            )

    def numbers(self, rollout: Rollout) -> None:
        """Rewards, observations, log-probs and actions of all steps at once."""
        checks.finite(f"{self.labels[0]}: rewards", rollout.rewards, partial(_after, rollout, 0))
        self.observations("observations", rollout.observations, partial(_after, rollout, 1))
        if rollout.log_probs.shape == rollout.mask.shape:
            checks.finite(f"{self.labels[1]}: act: log_probs", rollout.log_probs)
        if rollout.action_masks is not None:
            self._allowed(rollout.action_masks, rollout.mask, partial(_after, rollout, 1))
        if isinstance(self.environment.action_space, Discrete):
            checks.in_range(f"{self.labels[1]}: actions", rollout.actions, self.environment.action_space)

    def successors(self, rollout: Rollout, ends: "BootstrapObservations") -> None:
        """The last observations of episodes, and of the rollout: those that no row has."""

        def where(index: Sequence[int]) -> str:
            return _after(rollout, 0, (int(ends.times[index[0]]), int(ends.lanes[index[0]])))

        self.observations("step: successors", ends.observations, where)

    def observations(self, name: str, observations: Tensor, where: Callable[[Sequence[int]], str]) -> None:
        """Elements of the space of observations; `where` words the index of the first that is none."""
        label, space = f"{self.labels[0]}: {name}", self.environment.observation_space
        if not observations.numel():
            return
        if observations.dtype.is_floating_point:
            checks.finite(label, observations, where)
        if isinstance(space, Discrete):
            checks.in_range(label, observations, space, where)
            return
        if observations.dtype not in self.limits:
            self.limits[observations.dtype] = checks.bounds(space, observations.dtype, observations.device)
        limits = self.limits[observations.dtype]
        if limits is not None:
            checks.in_bounds(label, observations, limits, where)

    def latest(self, inputs: Inputs, row: int, actions: Tensor | None) -> None:
        """What the policy sees now, in row `row`; `actions` [T, N, *A]: those taken so far."""

        def where(index: Sequence[int]) -> str:
            action = "" if actions is None or not row else f", after action {actions[row - 1, index[1]].tolist()}"
            return f"step {row}, lane {index[1]}{action}"

        self.observations("observations", inputs.observations.unsqueeze(0), where)
        if inputs.action_masks is not None:
            masks = inputs.action_masks.unsqueeze(0)
            self._allowed(masks, torch.ones(masks.shape[:2], dtype=torch.bool, device=masks.device), where)

    def _allowed(self, masks: Tensor, real: Tensor, where: Callable[[Sequence[int]], str]) -> None:
        """In every real step something is allowed, in each component of the action; masks [T, N, actions]."""
        space, first = self.environment.action_space, 0
        if isinstance(space, MultiDiscrete):
            counts = [int(count) for count in space.nvec.reshape(-1)]
        elif isinstance(space, MultiBinary):
            counts = [2] * int(np.prod(space.shape))
        else:
            counts = [masks.shape[-1]]
        for component, count in enumerate(counts):
            nothing = (real & ~masks[..., first : first + count].any(-1)).nonzero()
            first += count
            if len(nothing):
                named = "no action is" if len(counts) == 1 else f"component {component} has no action that is"
                raise PartError(f"{self.labels[0]}: action_masks: {named} allowed at {where(nothing[0].tolist())}")

    @contextmanager
    def failing(self, shard: "Shard") -> Iterator[None]:
        """If a part raises meanwhile: name the step, and refuse what the policy was given, if that was wrong.

        Observations are checked after the rollout, all at once; a policy may fail before on what it cannot take.
        """
        try:
            yield
        except (PartError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if "step" not in str(error) and "lane" not in str(error):
                error.add_note(f"It was raised at step {shard.row} of the rollout, which has {shard.lanes} lanes.")
            if shard.inputs is not None and shard.table is not None:
                try:
                    self.latest(shard.inputs, shard.row, shard.table.columns.get("actions"))
                except PartError as cause:
                    raise cause from error
            raise

    def groups(self, groups: Tensor) -> None:
        """Which lanes share a start."""
        checks.tensor(f"{self.labels[0]}: groups", groups, (self.lanes,), "[N]", torch.int64)

    def _masks(self, method: str, masks: Any) -> None:
        label, space = f"{self.labels[0]}: {method}: action_masks", self.environment.action_space
        shape = tuple(getattr(masks, "shape", ()))
        if isinstance(space, Discrete):
            shape = (self.lanes, int(space.n))
        elif isinstance(space, MultiDiscrete | MultiBinary):
            shape = (
                self.lanes,
                int(space.nvec.sum() if isinstance(space, MultiDiscrete) else 2 * np.prod(space.shape)),
            )
        checks.tensor(label, masks, shape, "[N, actions]", torch.bool)


def _after(rollout: Rollout, lag: int, index: Sequence[int]) -> str:
    """Where in a rollout, and after which action: that of the row itself or, with `lag` 1, of the one before it."""
    t, lane = index[0], index[1]
    if lag and t and bool(rollout.mask[t, lane]) and not int(rollout.times[t, lane]):
        return f"{checks.place(index)}, the first of its episode"
    if t < lag:
        return checks.place(index)
    return f"{checks.place(index)}, after action {rollout.actions[t - lag, lane].tolist()}"
