"""Some lanes, stepped together: the step loop, for whole episodes and for fixed steps.

On the CPU, rows are written through numpy views of the tensors (0.2 µs a row against torch's 1.6); elsewhere the
same lines write tensors, and only the flags and rewards of each step come to the host, which must know when an
episode ends.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from attrs import define, evolve, field, frozen
from gymnasium.spaces import Discrete
from torch import Tensor

from . import checks, streams, tabular
from .contracts import Action, Actor, Environment, Inputs, Rollout, Step
from .errors import PartError

FLAGS = ("terminated", "truncated")


@frozen(eq=False)
class Finished:
    """The episodes that ended in a rollout, as the environment scored them."""

    returns: np.ndarray[Any, Any]  # [E] undiscounted
    lengths: np.ndarray[Any, Any]  # [E] steps
    metrics: dict[str, np.ndarray[Any, Any]] = field(factory=dict)  # each [E]; NaN: not given

    @property
    def told(self) -> dict[str, float]:
        """The mean of each metric, over the episodes of which it was given; no others."""
        known = {name: numbers[~np.isnan(numbers)] for name, numbers in self.metrics.items()}
        return {name: float(numbers.mean()) for name, numbers in known.items() if len(numbers)}

    @classmethod
    def none(cls) -> "Finished":
        """No episode."""
        return cls(np.zeros(0), np.zeros(0, np.int64))

    @classmethod
    def together(cls, parts: "Sequence[Finished]") -> "Finished":
        """The episodes of all parts, one after the other."""
        names = dict.fromkeys(name for part in parts for name in part.metrics)
        return cls(
            np.concatenate([part.returns for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            {name: np.concatenate([part.metrics.get(name, part.returns * np.nan) for part in parts]) for name in names},
        )


@frozen(eq=False)
class Ends:
    """Successors of steps where an episode was cut and not ended by the world: what a critic must still value."""

    times: Tensor  # [K]
    lanes: Tensor  # [K]
    observations: Tensor  # [K, *O]
    state: Tensor | None = None  # [K, *H] the policy's memory after those steps


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


def view(tensor: Tensor) -> Any:
    """A numpy view of a CPU tensor; another device's tensor itself. Both are written by `rows[t] = row`."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else tensor.detach()


def to_host(tensor: Tensor) -> Any:
    """A tensor as a numpy array, copied only where it lives on another device."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else tensor.detach().cpu().numpy()


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
    inputs: Inputs | None = None
    table: Table | None = None  # what is being collected, and the row that comes next
    row: int = 0
    clock: np.ndarray[Any, Any] = field(init=False)  # [N] step index within the episode
    earned: np.ndarray[Any, Any] = field(init=False)  # [N] return of the unfinished episode
    capacity: int = 64  # rows the last rollout took
    tables: tabular.Tables | None = field(init=False)  # of a world small enough to be sampled without stepping it
    states: np.ndarray[Any, Any] | None = None  # [N] where the lanes of such a world stand

    def __attrs_post_init__(self) -> None:
        """Begin with nothing earned."""
        self.clock = np.zeros(self.lanes, np.int64)
        self.earned = np.zeros(self.lanes, np.float64)
        self.tables = tabular.Tables.of(self.environment, self.labels[0]) if self.device.type == "cpu" else None

    def walk(self, log_probs: Tensor, iteration: int, ends_wanted: bool) -> tuple[Rollout, Finished, Ends]:
        """What `collect` does, for a world of tables and an actor that is one: log π `[S, A]`."""
        tables = self.tables
        assert tables is not None
        draw = streams.generator(self.seed, "act", iteration, self.number)
        if self.states is None:
            self.states = tabular.begin(tables, self.lanes, draw)
        carry = tabular.Carry(self.states, self.clock, self.earned)
        amount = tabular.Amount(self.steps, self.episodes, self.fixed_steps, self.capacity)
        table = log_probs.numpy()
        paths = tabular.walk(tables, table, self.lanes, amount, carry, draw)

        outcomes, real = paths.outcomes, paths.mask
        self.capacity = len(real) + len(real) // 8 + 1
        columns = {
            "observations": tables.states.take(outcomes),
            "actions": tables.actions.take(outcomes),
            "log_probs": table[tables.states, tables.actions].take(outcomes),
            "rewards": tables.rewards.take(outcomes),
            "terminated": tables.final.take(outcomes),
        }
        if self.fixed_steps is None:
            for column in (
                columns["log_probs"],
                columns["rewards"],
                columns["terminated"],
                paths.times,
                paths.episodes,
            ):
                column *= real
        columns |= {"truncated": paths.truncated, "mask": real, "times": paths.times, "episodes": paths.episodes}
        rollout = Rollout(**{name: torch.from_numpy(column) for name, column in columns.items()})
        times = lanes = outcomes[:0, 0]
        if ends_wanted:
            cut = paths.truncated.copy()
            if self.fixed_steps is not None:
                cut[-1] |= ~columns["terminated"][-1]
            times, lanes = cut.nonzero()
        successors = tables.successors[outcomes[times, lanes]]
        ends = Ends(*(torch.from_numpy(array) for array in (times, lanes, successors)))
        return rollout, Finished(paths.returns, paths.lengths), ends

    def collect(self, policy: Any, actor: Actor, iteration: int, ends_wanted: bool) -> tuple[Rollout, Finished, Ends]:
        """Step until what was asked for is complete.

        What is observed is checked at the end, all at once; if a part raises before, at once: a policy may have been
        given what it cannot take.
        """
        try:
            return self._collect(policy, actor, iteration, ends_wanted)
        except PartError:
            raise
        except Exception as error:
            try:
                self._check_latest()
            except PartError as cause:
                raise cause from error
            raise

    def _check_latest(self) -> None:
        """Refuse what the policy sees now."""
        if self.inputs is not None and self.table is not None:
            row, taken = self.row, self.table.columns.get("actions")

            def where(index: Sequence[int]) -> str:
                action = "" if taken is None or not row else f", after action {taken[row - 1, index[1]].tolist()}"
                return f"step {row}, lane {index[1]}{action}"

            self._check_observations("observations", self.inputs.observations.unsqueeze(0), where)

    def _collect(self, policy: Any, actor: Actor, iteration: int, ends_wanted: bool) -> tuple[Rollout, Finished, Ends]:
        world = streams.generator(self.seed, "environment", iteration, self.number, self.device)
        noise = streams.generator(self.seed, "act", iteration, self.number, self.device)
        environment, act, step_lanes = self.environment, actor.act, self.environment.step
        translate = getattr(policy, "environment_actions", None)
        lanes, clock, earned = self.lanes, self.clock, self.earned
        inputs = self.inputs
        if inputs is None or self.fixed_steps is None:
            first = environment.reset(world)
            shape = (lanes, *(environment.observation_space.shape or ()))
            checks.tensor(f"{self.labels[0]}: reset: observations", first, shape, "[N, *O]", None)
            masks = getattr(environment, "action_masks", None)
            if masks is not None:
                self._check_masks("reset", masks)
            inputs = self.inputs = Inputs(first, masks)  # and nothing remembered
            clock[:] = 0
            earned[:] = 0
        begun = lanes if self.episodes is None else min(lanes, self.episodes)
        episode = np.arange(lanes)
        alive = episode < begun
        working, taken, t = begun, 0, 0
        finished = [Finished.none()]
        cut: list[tuple[Any, ...]] = []
        last: list[tuple[Any, ...]] = []  # of every episode, also of those that no critic values

        table = self.table = Table(self.fixed_steps or self.capacity)
        self.row = 0
        observed = table.add("observations", inputs.observations)
        allowed = None if inputs.action_masks is None else table.add("action_masks", inputs.action_masks)
        real = table.add("mask", torch.empty(lanes, dtype=torch.bool))
        times = table.add("times", torch.empty(lanes, dtype=torch.int64))
        episodes = table.add("episodes", torch.empty(lanes, dtype=torch.int64))
        acted: Any = None
        log_probs: Any = None
        rewarded: Any = None
        terminated: Any = None
        truncated: Any = None
        action: Action | None = None
        step: Step | None = None
        seen = view(inputs.observations)
        remembered = inputs.state  # before the first row; of a policy without memory, always None

        while True:
            if t == table.capacity:
                table.grow()
                rows = table.rows
                observed, real, times, episodes = (rows[k] for k in ("observations", "mask", "times", "episodes"))
                acted, rewarded, terminated, truncated = (rows[k] for k in ("actions", "rewards", *FLAGS))
                log_probs, allowed = rows.get("log_probs"), rows.get("action_masks")

            chosen = act(inputs, noise)
            if chosen is not action:
                self._check_action(chosen, action, log_probs is not None)
                if action is None:
                    if remembered is None and chosen.state is not None:
                        remembered = torch.zeros_like(chosen.state)
                    acted = table.add("actions", chosen.actions)
                    log_probs = None if chosen.log_probs is None else table.add("log_probs", chosen.log_probs)
                action, choices = chosen, view(chosen.actions)
            # at once: the policy may reuse it in other shards, or have handed out the environment's own tensor
            state = None if chosen.state is None else chosen.state.clone()
            observed[t] = seen
            acted[t] = choices
            if log_probs is not None:
                log_probs[t] = view(chosen.log_probs)  # type: ignore[arg-type]
            if allowed is not None:
                allowed[t] = view(inputs.action_masks)  # type: ignore[arg-type]

            given = step_lanes(action.actions if translate is None else translate(action.actions), world)
            if given is not step:
                self._check_step(given, inputs)
                if step is None:
                    rewarded = table.add("rewards", given.rewards)
                    terminated, truncated = (table.add(name, getattr(given, name)) for name in FLAGS)
                step = given
                seen, reward = view(step.observations), view(step.rewards)
                over, out = view(step.terminated), view(step.truncated)
            if step.observations is not inputs.observations or step.action_masks is not None:
                inputs = self.inputs = Inputs(step.observations, step.action_masks)
            rewarded[t] = reward
            terminated[t] = over
            truncated[t] = out
            counted = alive
            if step.valid is not None:
                counted = alive & to_host(step.valid)
            real[t] = counted
            times[t] = clock
            episodes[t] = episode

            # what the host keeps account of: scores, and which lanes go on
            earned += to_host(step.rewards) if step.valid is None else to_host(step.rewards) * counted
            clock += 1 if step.valid is None else counted
            taken += working if step.valid is None else int(np.count_nonzero(counted))
            ended = to_host(step.terminated) | to_host(step.truncated)
            if np.count_nonzero(ended):
                ended &= counted
                (where,) = ended.nonzero()
                if ends_wanted:
                    (left,) = (ended & ~to_host(step.terminated)).nonzero()
                    if len(left):
                        cut.append((t, left, *_at(left, step.successors, state)))
                last.append((t, where, *_at(where, step.successors, None)))
                told = {name: to_host(column)[where] for name, column in (step.metrics or {}).items()}
                finished.append(Finished(earned[where], clock[where], told))
                earned[ended] = 0
                clock[ended] = 0
                going = len(where)
                if self.episodes is not None:
                    going = min(going, self.episodes - begun)
                elif self.steps is not None and taken >= self.steps:
                    going = 0
                episode[where[:going]] = range(begun, begun + going)
                begun += going
                if going < len(where):
                    alive = alive.copy()
                    alive[where[going:]] = False
                    working -= len(where) - going
            if state is not None:
                inputs = evolve(inputs, state=state, started=torch.from_numpy(clock == 0).to(self.device))
            t += 1
            self.row = t
            if t == self.fixed_steps or working == 0:
                break

        self.inputs = inputs
        self.table = None
        self.capacity = t + t // 4 + 1
        if ends_wanted and self.fixed_steps is not None:
            (left,) = (~ended).nonzero()
            cut.append((t - 1, left, *_at(left, step.successors, state)))
        ends = _ends(cut, step, self.device)
        rollout = self._rollout(table, t, remembered)
        for final in (ends, _ends(last, step, self.device)):
            self._check_observations(
                "step: successors",
                final.observations,
                lambda index, final=final: _after(rollout, 0, (int(final.times[index[0]]), int(final.lanes[index[0]]))),
            )
        return rollout, Finished.together(finished), ends

    def _rollout(self, table: Table, steps: int, state: Tensor | None) -> Rollout:
        columns = {name: column[:steps].to(self.device) for name, column in table.columns.items()}
        mask = columns["mask"]
        if self.fixed_steps is None or not bool(mask.all()):
            for name in ("rewards", "times", "episodes", "log_probs"):
                if name in columns:
                    columns[name] = columns[name].masked_fill_(~mask, 0)
            for name in FLAGS:
                columns[name] &= mask
        if "log_probs" not in columns:
            columns["log_probs"] = torch.empty(0)  # filled by `collect`, in one batch
        groups = getattr(self.environment, "groups", None)
        if groups is not None:
            checks.tensor(f"{self.labels[0]}: groups", groups, (self.lanes,), "[N]", torch.int64)
        rollout = Rollout(**columns, groups=groups, state=state)
        self._check_numbers(rollout)
        return rollout

    def _check_action(self, action: Action, before: Action | None, log_probs_expected: bool) -> None:
        checks.kind(f"{self.labels[1]}: act", action, Action)
        space = self.environment.action_space
        expected = (self.lanes, *(space.shape or ()))
        label = f"{self.labels[1]}: act: actions"
        checks.tensor(label, action.actions, expected, "[N, *A]", None)
        if isinstance(space, Discrete) and action.actions.dtype != torch.int64:
            raise PartError(f"{label}: expected torch.int64 (Discrete actions), got {action.actions.dtype}")
        if action.log_probs is not None or log_probs_expected:
            label = f"{self.labels[1]}: act: log_probs"
            checks.tensor(label, action.log_probs, (self.lanes,), "[N]", "floating point")
        if action.state is not None or (before is not None and before.state is not None):
            like = action.state if before is None else before.state
            if like is None:
                raise PartError(f"{self.labels[1]}: act: state: expected None, as before, got a state")
            shape = (self.lanes, *getattr(like, "shape", ())[1:])
            checks.tensor(f"{self.labels[1]}: act: state", action.state, shape, "[N, *H]", getattr(like, "dtype", None))

    def _check_masks(self, method: str, masks: Any) -> None:
        label, space = f"{self.labels[0]}: {method}: action_masks", self.environment.action_space
        shape = (self.lanes, int(space.n)) if isinstance(space, Discrete) else tuple(getattr(masks, "shape", ()))
        checks.tensor(label, masks, shape, "[N, actions]", torch.bool)

    def _check_step(self, step: Step, inputs: Inputs) -> None:
        label = f"{self.labels[0]}: step"
        checks.kind(label, step, Step)
        shape = (self.lanes, *(self.environment.observation_space.shape or ()))
        dtype = inputs.observations.dtype
        checks.tensor(f"{label}: observations", step.observations, shape, "[N, *O]", dtype)
        checks.tensor(f"{label}: successors", step.successors, shape, "[N, *O]", dtype)
        checks.tensor(f"{label}: rewards", step.rewards, (self.lanes,), "[N]", "floating point")
        for name in FLAGS:
            checks.tensor(f"{label}: {name}", getattr(step, name), (self.lanes,), "[N]", torch.bool)
        if step.valid is not None:
            checks.tensor(f"{label}: valid", step.valid, (self.lanes,), "[N]", torch.bool)
        for name, column in (step.metrics or {}).items():
            checks.tensor(f"{label}: metrics['{name}']", column, (self.lanes,), "[N]", "floating point")
        if inputs.action_masks is not None:
            self._check_masks("step", step.action_masks)
        elif step.action_masks is not None:
            raise PartError(
                f"{label}: gives action_masks, and none for the first observations: set the attribute action_masks, too"
            )

    def _check_numbers(self, rollout: Rollout) -> None:
        checks.finite(f"{self.labels[0]}: rewards", rollout.rewards, partial(_after, rollout, 0))
        self._check_observations("observations", rollout.observations, partial(_after, rollout, 1))
        if rollout.log_probs.shape == rollout.mask.shape:
            checks.finite(f"{self.labels[1]}: act: log_probs", rollout.log_probs)
        if isinstance(self.environment.action_space, Discrete):
            checks.in_range(f"{self.labels[1]}: actions", rollout.actions, self.environment.action_space)

    def _check_observations(self, name: str, observations: Tensor, where: Any) -> None:
        label, space = f"{self.labels[0]}: {name}", self.environment.observation_space
        if not observations.numel():
            return
        if observations.dtype.is_floating_point:
            checks.finite(label, observations, where)
        if isinstance(space, Discrete):
            checks.in_range(label, observations, space, where)
            return
        limits = checks.bounds(space, observations.dtype, observations.device)
        if limits is not None:
            checks.in_bounds(label, observations, limits, where)


def _after(rollout: Rollout, lag: int, index: Sequence[int]) -> str:
    """Where in a rollout, and after which action: that of the row itself or, with `lag` 1, of the one before it."""
    t, lane = index[0], index[1]
    if lag and t and bool(rollout.mask[t, lane]) and not int(rollout.times[t, lane]):
        return f"{checks.place(index)}, the first of its episode"
    if t < lag:
        return checks.place(index)
    return f"{checks.place(index)}, after action {rollout.actions[t - lag, lane].tolist()}"


def _at(lanes: np.ndarray[Any, Any], successors: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The rows of `lanes`, copied."""
    index = torch.from_numpy(lanes)
    return successors[index], None if state is None else state[index]


def _ends(cut: list[tuple[Any, ...]], step: Step, device: torch.device) -> Ends:
    if not cut:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return Ends(none, none, step.successors[:0].to(device))
    times = np.concatenate([np.full(len(lanes), t) for t, lanes, _, _ in cut])
    lanes = np.concatenate([lanes for _, lanes, _, _ in cut])
    states = [state for _, _, _, state in cut if state is not None]
    return Ends(
        torch.from_numpy(times).to(device),
        torch.from_numpy(lanes).to(device),
        torch.cat([observations for _, _, observations, _ in cut]).to(device),
        torch.cat(states).to(device) if states else None,
    )
