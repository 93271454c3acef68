"""Collecting as one compiled program: policy and environment step after step, without Python between them.

Where both say what they do as pure functions of tensors (`choose` and `transition`), a loop of them is traced, and
made into C++ by torch's inductor. It does what `Shard.collect` does; its random numbers come from the same generators,
and are drawn beforehand. Now and then some rows are looked at in Python, too; a difference ends the compiling.
"""

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field
from torch import Tensor

from .. import streams
from ..capabilities import HasActionMasks, HasGroups, HasValues, has
from ..collecting.episodes import EpisodeTracker, view
from ..collecting.rollout import Collector, with_values
from ..collecting.shard import Collected, Shard
from ..contracts import Inputs, Rollout, Stateful
from .inductor import FallbackError, layout, tensors_of, undisturbed
from .rollout_program import (
    FEW,
    STEP,
    RolloutProgram,
    by_columns,
    by_dtype,
    environment_actions,
    pure_parts,
    trace_rollout,
)

if TYPE_CHECKING:
    from ..run import Run

LOOKED_AT = 16  # rows of a rollout that are compared
NEAR = 1e-4  # how far they may lie apart, of their size


def offers(part: Any, pure: str, plain: str) -> bool:
    """Whether `pure` does what `plain` does: no subclass overrides `plain` alone."""
    if plain in vars(part):  # exchanged
        return False
    for cls in type(part).__mro__:
        if pure in vars(cls) or plain in vars(cls):
            return pure in vars(cls)
    return False


def is_pure(run: "Run") -> bool:
    """Whether a run's rollouts can be collected by a program."""
    shard, policy = run.shards[0], run.policy
    return (
        len(run.shards) == 1
        and shard.fixed_steps is not None
        and shard.lanes <= FEW
        and type(shard) is Shard  # and no table, which is sampled faster still
        and run.device.type == "cpu"
        and offers(shard.environment, "transition", "step")
        and offers(policy, "choose", "act")
        and not any(has(shard.environment, one) for one in (HasGroups, HasActionMasks))
    )


@define(eq=False)
class CompiledCollector(Collector):
    """Collects the rollouts of one run by a program; in Python where that cannot be, as the first one is."""

    run: "Run"
    program: RolloutProgram | None = None
    order: Tensor | None = None  # of the policy's numbers in what a program is given
    done: int = 0  # rollouts
    due: int = 0  # the next one that is compared
    given_up: bool = field(init=False)  # rollouts are collected in Python

    def __attrs_post_init__(self) -> None:
        """See whether there is anything to do."""
        self.given_up = not is_pure(self.run)

    def collect(self, run: "Run") -> Rollout:
        """The next rollout; its finished episodes become the run's."""
        shard = run.shards[0]
        if self.given_up or shard.inputs is None or shard.inputs.state is not None:
            return super().collect(run)
        try:
            with torch.no_grad():
                columns, following = self._stepped(shard.inputs.observations)
        except FallbackError as reason:
            self._give_up(str(reason))
            return super().collect(run)
        except Exception as error:  # of torch's compiler, or of a part that cannot be recorded; nothing has moved
            self._give_up(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
            return super().collect(run)
        with torch.no_grad():
            values = columns.pop("values", None)
            rollout, run.finished, ends = _account(shard, columns, Inputs(following), values is not None)
            return rollout if values is None else with_values(rollout, values, run.policy, [ends], run.shards)

    def _give_up(self, reason: str) -> None:
        self.given_up = True
        warnings.warn(f"compile: rollouts are collected in Python: {reason}", RuntimeWarning, stacklevel=2)

    def _stepped(self, observations: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The columns [T, N, …] of a rollout that goes on from `observations`, and those that follow."""
        run, shard = self.run, self.run.shards[0]
        environment, policy = pure_parts(run)
        assert isinstance(environment, Stateful)
        steps = shard.fixed_steps
        assert steps is not None
        state = environment.state_dict()
        if self.order is None:
            self.order = by_columns(run.policy)
        numbers, others = by_dtype(tensor.detach() for _, tensor in tensors_of(run.policy))
        vector = torch.cat([tensor.flatten() for tensor in numbers]).index_select(0, self.order)
        weights = [vector, *(tensor.clone() for tensor in others)]  # loops refuse what shares memory
        if self.program is None:
            with undisturbed():
                self.program = trace_rollout(run, weights, state, observations)
        program = self.program
        count = -(-steps // program.rows)
        shape = (count, program.rows, shard.lanes)
        world, act = (streams.generator(run.config.seed, name, run.iteration) for name in ("environment", "act"))
        of_world = torch.rand(*shape, environment.transition_noise, dtype=torch.float64, generator=world)
        of_policy = torch.rand(*shape, policy.choice_noise, dtype=torch.float64, generator=act)
        uniforms = torch.cat([of_world, of_policy], -1)
        compared = self.done % count if self.done == self.due else None
        carried = [*state.values(), observations]
        if list(map(layout, [*carried, *weights, uniforms[0]])) != program.layouts:
            raise FallbackError("parameters or states have other shapes now")
        tables: list[list[Tensor]] = []
        for number in range(count):
            begin = max(0, program.rows * (number + 1) - steps)  # the last ones are the rows of fewer
            before = carried
            outputs = program.call(torch.tensor(begin), *carried, *weights, uniforms[number])
            carried, written = outputs[: len(before)], outputs[len(before) :]
            tables.append([table[begin:] for table in written] if begin else written)
            if number == compared:
                _compare(
                    run, dict(zip(state, before, strict=False)), program.columns(tables[-1]), uniforms[number, begin:]
                )
        if compared is not None:
            self.due = max(self.due + 1, self.due * 8 // 5)
        self.done += 1
        *after, observations = carried
        environment.load_state_dict(dict(zip(state, after, strict=True)))
        columns = program.columns([torch.cat(parts) for parts in zip(*tables, strict=True)])
        # laid out as steps in Python lay them out: compiled updates are made for one layout
        return {name: column.contiguous() for name, column in columns.items()}, observations


def _account(shard: Shard, columns: dict[str, Tensor], following: Inputs, want_bootstrap: bool) -> Collected:
    """What `Shard.collect` returns, of fixed steps: columns [T, N, …] with successors, and the next inputs."""
    successors, ended = columns.pop("successors"), columns["terminated"] | columns["truncated"]
    tracker = EpisodeTracker()
    for rows, left in ((successors, ended), (successors[-1], ~ended[-1])):
        tracker.bootstrap.append((view(rows[left]), None))
    shard.inputs = following
    return shard.account(columns, tracker, None, want_bootstrap)


def _compare(run: "Run", state: dict[str, Tensor], columns: dict[str, Tensor], uniforms: Tensor) -> None:
    """Refuse a program whose rows are not what Python makes of the same states, actions and random numbers."""
    environment, policy = pure_parts(run)
    world, own = torch.split(uniforms[:LOOKED_AT], [environment.transition_noise, policy.choice_noise], -1)
    rows = len(world)
    different = 0
    for t in range(rows):
        actions = columns["actions"][t]
        chosen = policy.choose(Inputs(columns["observations"][t]), own[t])
        different += int((~torch.isclose(chosen, actions, NEAR, NEAR)).sum())
        state, step = environment.transition(state, environment_actions(run.policy, actions), world[t])
        for name in STEP:
            if not torch.allclose(columns[name][t].double(), getattr(step, name).double(), NEAR, NEAR, equal_nan=True):
                raise FallbackError(f"{run.config.environment.label}: {name} are different when compiled")
    if different > 1 + rows * run.shards[0].lanes // 1000:  # one may lie on an edge
        raise FallbackError(f"{run.config.policy.label}: different actions are chosen when compiled")
    seen, actions = Inputs(columns["observations"][:rows].flatten(0, 1)), columns["actions"][:rows].flatten(0, 1)
    expected = {"log_probs": run.policy.evaluate(seen, actions, False).log_probs}
    if "values" in columns and has(run.policy, HasValues):
        expected["values"] = run.policy.values(seen)
    for name, numbers in expected.items():
        got = columns[name][:rows].flatten()
        size = float(numbers.abs().max())
        if not torch.allclose(got, numbers, NEAR, NEAR * (size if math.isfinite(size) else 1), equal_nan=True):
            raise FallbackError(f"{run.config.policy.label}: {name} are different when compiled")
