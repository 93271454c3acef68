"""Some lanes, stepped together: the step loop, for whole episodes and for fixed steps.

On the CPU, rows are written through numpy views of the tensors (0.2 µs a row against torch's 1.6); elsewhere the
same lines write tensors, and only the flags and rewards of each step come to the host, which must know when an
episode ends. What follows from the ends alone (mask, times, episode numbers) is worked out after the last step.
"""

from typing import Any

import attrs
import numpy as np
import torch
from attrs import define, evolve, field
from torch import Tensor

from .. import streams
from ..contracts import Action, Actor, Environment, Inputs, Rollout, Stateful, Step
from ..errors import PartError
from ..guards.episode_limit import EpisodeLimit, EpisodeWatch, OnProgress
from ..guards.mutation import NO_CHECK, refuse_writes
from ..guards.step_checks import StepChecks
from ..guards.step_timeout import Limit
from ..state import load_part, part_state
from .episodes import BootstrapObservations, EpisodeStats, EpisodeTracker, to_host, view

FLAGS = ("terminated", "truncated")
LOOKED_AT = 8  # steps of the first rollout in which the policy must not write into what it is handed


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
    episode_step: np.ndarray[Any, Any] = field(init=False)  # [N] step index within the episode
    episode_return: np.ndarray[Any, Any] = field(init=False)  # [N] return of the unfinished episode
    capacity: int = 64  # rows the last rollout took
    values_agree: bool | None = None  # whether the policy's `evaluate` and `values` say the same of values
    limit: Limit | None = None  # how long a reset or step may take

    def __attrs_post_init__(self) -> None:
        """Begin with nothing episode_return."""
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

    def collect(self, policy: Any, actor: Actor, iteration: int, want_bootstrap: bool) -> Collected:
        """Step until what was asked for is complete.

        What is observed is checked at the end, all at once; if a part raises before, at once: a policy may have been
        given what it cannot take.
        """
        try:
            return self._collect(policy, actor, iteration, want_bootstrap)
        except (PartError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if "step" not in str(error) and "lane" not in str(error):
                error.add_note(f"It was raised at step {self.row} of the rollout, which has {self.lanes} lanes.")
            if self.inputs is not None and self.table is not None:
                try:
                    self.step_checks.latest(self.inputs, self.row, self.table.columns.get("actions"))
                except PartError as cause:
                    raise cause from error
            raise

    def _collect(self, policy: Any, actor: Actor, iteration: int, want_bootstrap: bool) -> Collected:
        world = streams.generator(self.seed, "environment", iteration, self.number, self.device)
        noise = streams.generator(self.seed, "act", iteration, self.number, self.device)
        environment, act = self.environment, actor.act
        reset, step_lanes = environment.reset, environment.step
        if self.limit is not None:
            reset, step_lanes = self.limit.around(environment)
        local = self.device.type == "cpu"
        translate = getattr(policy, "environment_actions", None)
        lanes, inputs = self.lanes, self.inputs
        world_label, player_label = self.labels
        if inputs is None or self.fixed_steps is None:
            _called = world_label  # for blame
            first, masks = reset(world), getattr(environment, "action_masks", None)
            self.step_checks.first(first, masks)
            inputs = self.inputs = Inputs(first, masks)  # and nothing memory
            self.episode_step[:] = 0
            self.episode_return[:] = 0
        num_started = lanes if self.episodes is None else min(lanes, self.episodes)
        working, num_steps, t = num_started, 0, 0
        alive = np.arange(lanes) < num_started
        tracker = EpisodeTracker()

        table = self.table = Table(self.fixed_steps or self.capacity)
        rows = table.rows
        self.row = 0
        table.add("observations", inputs.observations)
        if inputs.action_masks is not None:
            table.add("action_masks", inputs.action_masks)
        if self.fixed_steps is None:
            table.add("alive", torch.from_numpy(alive))
        action: Action | None = None
        step: Step | None = None
        seen = view(inputs.observations)
        memory = inputs.state  # before the first row; of a policy without memory, always None
        fresh = False if inputs.started is None else to_host(inputs.started)  # [N]: no real step of the episode yet
        looked_at = LOOKED_AT if iteration == 0 else 0
        watch = EpisodeWatch(self.labels[0], self.episode_limit if self.fixed_steps is None else None, self.on_progress)

        while True:
            if t == table.capacity:
                table.grow()
            _called = player_label
            with NO_CHECK if t >= looked_at else refuse_writes(True, f"{player_label}: act", inputs):
                chosen = act(inputs, noise)
            if chosen is not action:
                self.step_checks.action(chosen, action)
                if action is None:
                    if memory is None and chosen.state is not None:
                        memory = torch.zeros_like(chosen.state)
                    table.add("actions", chosen.actions)
                    if chosen.log_probs is not None:
                        table.add("log_probs", chosen.log_probs)
                action, choices = chosen, view(chosen.actions)
            # at once: the policy may reuse it in other shards, or have handed out the environment's own tensor
            state = None if chosen.state is None else chosen.state.clone()
            rows["observations"][t] = seen
            rows["actions"][t] = choices
            if chosen.log_probs is not None:
                rows["log_probs"][t] = view(chosen.log_probs)
            if inputs.action_masks is not None:
                rows["action_masks"][t] = view(inputs.action_masks)

            _called = world_label
            given = step_lanes(action.actions if translate is None else translate(action.actions), world)
            if given is not step:
                self.step_checks.step(given, step, inputs)
                if step is None:
                    for name in ("rewards", *FLAGS, *(["valid"] if given.valid is not None else [])):
                        table.add(name, getattr(given, name))
                step = given
                seen, reward = view(step.observations), view(step.rewards)
                over, out = view(step.terminated), view(step.truncated)
                final, late, after = over, out, view(step.successors)
            if step.observations is not inputs.observations or step.action_masks is not None:
                inputs = self.inputs = Inputs(step.observations, step.action_masks)
            rows["rewards"][t] = reward
            rows["terminated"][t] = over
            rows["truncated"][t] = out

            # what the host must know at once: where an episode ended, and which lanes go on
            if not local:
                final, late = to_host(over), to_host(out)
            ended = final | late
            if step.valid is None:
                num_steps += working
            else:
                rows["valid"][t] = view(step.valid)
                counted = alive & to_host(step.valid)
                num_steps += int(np.count_nonzero(counted))
                ended &= counted
            if self.fixed_steps is None:
                rows["alive"][t] = alive
                ended &= alive
            if count := int(np.count_nonzero(ended)):
                tracker.note(t, ended, after, state, step.metrics)
                if self.fixed_steps is None:
                    num_continuing = count
                    if self.episodes is not None:
                        num_continuing = min(num_continuing, self.episodes - num_started)
                    elif self.steps is not None and num_steps >= self.steps:
                        num_continuing = 0
                    num_started += num_continuing
                    working -= count - num_continuing
                    alive[ended.nonzero()[0][num_continuing:]] = False
            if state is not None:
                fresh = ended if step.valid is None else ended | (fresh & ~counted)
                inputs = evolve(inputs, state=state, started=torch.from_numpy(fresh).to(self.device))
            t += 1
            self.row = t
            if t == self.fixed_steps or working == 0:
                break
            if t == watch.due:
                watch.look(t, num_steps, len(tracker.left) if self.fixed_steps else num_started - working, rows, alive)

        self.inputs, self.table, self.capacity = inputs, None, t + t // 4 + 1
        if self.fixed_steps is not None:
            tracker.note(t - 1, ~ended, after, state)
        columns = {name: column[:t] for name, column in table.columns.items()}
        padded = self.fixed_steps is None or "valid" in columns
        return self._accounted(columns, tracker, memory, padded, want_bootstrap)

    def collected(self, columns: dict[str, Tensor], following: Inputs, want_bootstrap: bool) -> Collected:
        """The same, of fixed steps that somebody else took: columns [T, N, …] and successors, and what comes next."""
        successors, ended = columns.pop("successors"), columns["terminated"] | columns["truncated"]
        tracker = EpisodeTracker()
        for rows, left in ((successors, ended), (successors[-1], ~ended[-1])):
            tracker.left.append((view(rows[left]), None))
        self.inputs = following
        return self._accounted(columns, tracker, None, False, want_bootstrap)

    def _accounted(
        self,
        columns: dict[str, Tensor],
        tracker: EpisodeTracker,
        memory: Tensor | None,
        padded: bool,
        want_bootstrap: bool,
    ) -> Collected:
        """What follows from the rows."""
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
        groups = getattr(self.environment, "groups", None)
        if groups is not None:
            self.step_checks.groups(groups)
        rollout = Rollout(**columns, groups=groups, state=state)
        self.step_checks.numbers(rollout)
        return rollout
