"""Some lanes, stepped together: the step loop, for whole episodes and for fixed steps.

On the CPU, rows are written through numpy views of the tensors (0.2 µs a row against torch's 1.6); elsewhere the
same lines write tensors, and only the flags and rewards of each step come to the host, which must know when an
episode ends. What follows from the ends alone (mask, times, episode numbers) is worked out after the last step.
"""

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import torch
from attrs import define, evolve, field
from torch import Tensor

from .. import streams
from ..capabilities import HasActionMasks, HasEnvironmentActions, HasGroups, has
from ..contracts import Action, Actor, Array, Environment, Inputs, Policy, Rollout, Stateful, Step
from ..guards.episode_limit import EpisodeLimit, EpisodeWatch, OnProgress
from ..guards.mutation import NO_CHECK, refuse_writes
from ..guards.step_checks import StepChecks
from ..guards.step_timeout import Limit
from ..state import load_part, part_state
from .episodes import BootstrapObservations, EpisodeStats, EpisodeTracker, to_host, view
from .quota import Quota

FLAGS = ("terminated", "truncated")
CHECKED_ROWS = 8  # steps of the first rollout in which the policy must not write into what it is handed


Collected = tuple[Rollout, EpisodeStats, BootstrapObservations]


class Table:
    """Preallocated `[T, N, …]` columns that grow by doubling; `rows` is how the loop writes them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.columns: dict[str, Tensor] = {}
        self.rows: dict[str, Any] = {}

    def add(self, name: str, example: Tensor) -> Any:
        """A column for rows like `example`; returns its rows."""
        column = example.detach().new_empty((self.capacity, *example.shape))
        self.columns[name] = column
        self.rows[name] = view(column)
        return self.rows[name]

    def grow(self) -> None:
        """Double the capacity."""
        for name, column in self.columns.items():
            longer = column.new_empty((2 * self.capacity, *column.shape[1:]))
            longer[: self.capacity] = column
            self.columns[name] = longer
            self.rows[name] = view(longer)
        self.capacity *= 2


@define(eq=False)
class Shard:
    """Some lanes: their environment and what they carry from one rollout to the next."""

    environment: Environment
    lanes: int
    steps: int | None  # this shard's share of each
    episodes: int | None
    fixed_steps: int | None
    seed: int
    number: int
    device: torch.device
    labels: tuple[str, str]  # the environment's and the policy's, for errors
    episode_limit: EpisodeLimit = field(factory=EpisodeLimit)  # that a whole episode may be
    on_progress: OnProgress | None = None  # is called a few times a second how far a rollout is
    inputs: Inputs | None = None
    table: Table | None = None  # what is being collected, and the row that comes next
    row: int = 0
    step_checks: StepChecks = field(init=False)  # the checks of what comes in
    episode_step: Array = field(init=False)  # [N] step index within the episode
    episode_return: Array = field(init=False)  # [N] return of the unfinished episode
    capacity: int = 64  # rows the last rollout took
    values_agree: bool | None = None  # whether the policy's `evaluate` and `values` say the same of values
    limit: Limit | None = None  # how long a reset or step may take

    def __attrs_post_init__(self) -> None:
        """Begin with no steps and no return."""
        self.step_checks = StepChecks(self.environment, self.lanes, self.labels)
        self.episode_step = np.zeros(self.lanes, np.int64)
        self.episode_return = np.zeros(self.lanes, np.float64)

    def state_dict(self) -> dict[str, Any]:
        """Where the lanes are. Of an environment without state: new episodes begin when it is loaded."""
        known = isinstance(self.environment, Stateful)
        lost = self.inputs is not None and not known  # not so, if the lanes were never stepped: see TabularShard
        return {
            "environment": part_state(self.environment, self.labels[0]) if known else None,
            "inputs": None if self.inputs is None or lost else attrs.asdict(self.inputs, recurse=False),
            "episode_step": torch.from_numpy(np.zeros_like(self.episode_step) if lost else self.episode_step),
            "episode_return": torch.from_numpy(np.zeros_like(self.episode_return) if lost else self.episode_return),
            "values_agree": self.values_agree,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the lanes back."""
        if state["environment"] is not None:
            load_part(self.environment, state["environment"], self.labels[0])
        columns = None if state["inputs"] is None else state["inputs"].items()
        moved = columns and {name: None if column is None else column.to(self.device) for name, column in columns}
        self.inputs = None if moved is None else Inputs(**moved)
        self.episode_step[:], self.episode_return[:] = state["episode_step"].numpy(), state["episode_return"].numpy()
        self.values_agree = state["values_agree"]

    def collect(self, policy: Policy, actor: Actor, iteration: int, want_bootstrap: bool) -> Collected:
        """Step until the requested amount is complete."""
        with self.step_checks.failing(self):
            return self._collect(policy, actor, iteration, want_bootstrap)

    def _begin(self, reset: Callable[[torch.Generator], Tensor], generator: torch.Generator) -> Inputs:
        """What the policy sees first: new episodes, or for fixed steps what the last rollout ended with."""
        if self.inputs is None or self.fixed_steps is None:
            _called = self.labels[0]  # for blame
            first = reset(generator)
            masks = self.environment.action_masks if has(self.environment, HasActionMasks) else None
            self.step_checks.first(first, masks)
            self.inputs = Inputs(first, masks)  # and no memory
            self.episode_step[:] = 0
            self.episode_return[:] = 0
        return self.inputs

    def _collect(self, policy: Policy, actor: Actor, iteration: int, want_bootstrap: bool) -> Collected:
        env_generator = streams.generator(self.seed, "environment", iteration, self.number, self.device)
        act_generator = streams.generator(self.seed, "act", iteration, self.number, self.device)
        reset, step_lanes, act = self.environment.reset, self.environment.step, actor.act
        if self.limit is not None:
            reset, step_lanes = self.limit.around(self.environment)
        to_environment = policy.environment_actions if has(policy, HasEnvironmentActions) else None
        env_label, policy_label = self.labels
        on_host, whole = self.device.type == "cpu", self.fixed_steps is None
        inputs = self._begin(reset, env_generator)
        quota, tracker = Quota(self.lanes, self.steps, self.episodes), EpisodeTracker()
        watch = EpisodeWatch(env_label, self.episode_limit if whole else None, self.on_progress)

        table = self.table = Table(self.fixed_steps or self.capacity)
        rows = table.rows
        table.add("observations", inputs.observations)
        if inputs.action_masks is not None:
            table.add("action_masks", inputs.action_masks)
        if whole:
            table.add("alive", torch.from_numpy(quota.running))
        action: Action | None = None
        step: Step | None = None
        observed = view(inputs.observations)
        memory = inputs.state  # before the first row; of a policy without memory, always None
        started = False if inputs.started is None else to_host(inputs.started)  # [N]: no real step of the episode yet
        checked_rows = CHECKED_ROWS if iteration == 0 else 0
        self.row = t = 0

        while True:
            if t == table.capacity:
                table.grow()
            _called = policy_label
            with NO_CHECK if t >= checked_rows else refuse_writes(True, f"{policy_label}: act", inputs):
                new_action = act(inputs, act_generator)
            if new_action is not action:  # policies may hand out the same object again, written anew
                self.step_checks.action(new_action, action)
                if action is None:
                    if memory is None and new_action.state is not None:
                        memory = torch.zeros_like(new_action.state)
                    table.add("actions", new_action.actions)
                    if new_action.log_probs is not None:
                        table.add("log_probs", new_action.log_probs)
                action, actions = new_action, view(new_action.actions)
            # at once: the policy may reuse it in other shards, or have handed out the environment's own tensor
            state = None if action.state is None else action.state.clone()
            rows["observations"][t] = observed
            rows["actions"][t] = actions
            if action.log_probs is not None:
                rows["log_probs"][t] = view(action.log_probs)
            if inputs.action_masks is not None:
                rows["action_masks"][t] = view(inputs.action_masks)

            _called = env_label
            taken = action.actions if to_environment is None else to_environment(action.actions)
            new_step = step_lanes(taken, env_generator)
            if new_step is not step:
                self.step_checks.step(new_step, step, inputs)
                if step is None:
                    for name in ("rewards", *FLAGS, *(["valid"] if new_step.valid is not None else [])):
                        table.add(name, getattr(new_step, name))
                step = new_step
                observed, rewards, successors = map(view, (step.observations, step.rewards, step.successors))
                terminated, truncated = view(step.terminated), view(step.truncated)
            if step.observations is not inputs.observations or step.action_masks is not None:
                inputs = self.inputs = Inputs(step.observations, step.action_masks)
            rows["rewards"][t] = rewards
            rows["terminated"][t] = terminated
            rows["truncated"][t] = truncated

            # what the host must know at once: where an episode ended, and which lanes go on
            ended = terminated | truncated if on_host else to_host(terminated | truncated)
            real = None  # [N] rows that are steps; None: all
            if step.valid is not None:
                rows["valid"][t] = view(step.valid)
                real = quota.running & to_host(step.valid)
                ended &= real
            quota.count(real)
            if whole:
                rows["alive"][t] = quota.running
                ended &= quota.running
            if count := int(np.count_nonzero(ended)):
                tracker.note(t, ended, successors, state, step.metrics)
                quota.end(ended, count)
            if state is not None:
                started = ended if real is None else ended | (started & ~real)
                inputs = evolve(inputs, state=state, started=torch.from_numpy(started).to(self.device))
            self.row = t = t + 1
            if t == self.fixed_steps or quota.num_running == 0:
                break
            if t == watch.due:
                watch.look(t, quota.num_steps, quota.num_ended, rows, quota.running)

        self.inputs, self.table, self.capacity = inputs, None, t + t // 4 + 1
        if not whole:
            tracker.note(t - 1, ~ended, successors, state)
        columns = {name: column[:t] for name, column in table.columns.items()}
        return self.account(columns, tracker, memory, want_bootstrap)

    def account(
        self, columns: dict[str, Tensor], tracker: EpisodeTracker, memory: Tensor | None, want_bootstrap: bool
    ) -> Collected:
        """The rollout of columns [T, N, …] that were collected, its episodes, and what must still be valued."""
        padded = self.fixed_steps is None or "valid" in columns
        finished, ends = tracker.account(columns, self.episode_step, self.episode_return, self.fixed_steps is not None)
        rollout = self._rollout(columns, memory, padded)
        self.step_checks.successors(rollout, ends)
        return rollout, finished, ends.only(~rollout.terminated[ends.times, ends.lanes]) if want_bootstrap else ends

    def _rollout(self, columns: dict[str, Tensor], state: Tensor | None, padded: bool) -> Rollout:
        """Zeros in padding, and everything checked."""
        mask = columns["mask"]
        if padded:
            for name in ("rewards", "times", "episodes", "log_probs"):
                if name in columns:
                    columns[name] = columns[name].masked_fill_(~mask, 0)
            for name in FLAGS:
                columns[name] &= mask
        columns.setdefault("log_probs", torch.empty(0))  # filled by `collect`, in one batch
        groups = self.environment.groups if has(self.environment, HasGroups) else None
        if groups is not None:
            self.step_checks.groups(groups)
        rollout = Rollout(**columns, groups=groups, state=state)
        self.step_checks.numbers(rollout)
        return rollout
