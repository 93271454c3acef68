"""Collecting as one compiled program: policy and environment step after step, without Python between them.

Where both say what they do as pure functions of tensors (`choose` and `transition`), a loop of them is traced, and
made into C++ by torch's inductor. It does what `Shard.collect` does; its random numbers come from the same generators,
and are drawn beforehand. Now and then some rows are looked at in Python, too; a difference ends the compiling.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, frozen
from torch import Tensor, nn

from .. import streams
from ..collecting.rollout import Collector, with_values
from ..collecting.shard import Shard
from ..contracts import Action, Inputs, Rollout, Step
from .inductor import FallbackError, compiled, layout, tensors_of, traced, undisturbed

if TYPE_CHECKING:
    from ..run import Run

FEW = 128  # lanes; measured: with more of them, steps in numpy are faster
ROWS = 32  # of a program: with each row the loop copies all of them, and a call costs as much as a row or two
LOOKED_AT = 16  # rows of a rollout that are compared
NEAR = 1e-4  # how far they may lie apart, of their size
STEP = ("successors", "rewards", "terminated", "truncated")  # what is kept of a step


def offers(part: Any, pure: str, plain: str) -> bool:
    """Whether `pure` does what `plain` does: nobody has written a new `plain` without it."""
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
        and all(getattr(shard.environment, name, None) is None for name in ("groups", "action_masks"))
    )


@frozen(eq=False)
class Steps:
    """A program that steps so many rows, and less."""

    call: Callable[..., Any]
    rows: int
    layouts: list[Any]  # of what it is given
    packs: list[list[str]]  # the columns that stand side by side in what it returns
    examples: dict[str, Tensor]  # a row of each, [N, …]

    def columns(self, tables: Sequence[Tensor]) -> dict[str, Tensor]:
        """What it wrote, by name [T, N, …]; log-probs and values come last."""
        found: dict[str, Tensor] = {}
        for names, table in zip(self.packs, tables, strict=False):
            parts = torch.split(table, [self.examples[name][0].numel() for name in names], 2)
            for name, part in zip(names, parts, strict=True):
                example = self.examples[name]
                found[name] = part.reshape(len(table), *example.shape).to(example.dtype)
        return found | dict(zip(("log_probs", "values"), tables[len(self.packs) :], strict=False))


@define(eq=False)
class CompiledCollector(Collector):
    """Collects the rollouts of one run by a program; in Python where that cannot be, as the first one is."""

    run: "Run"
    program: Steps | None = None
    order: Tensor | None = None  # of the policy's numbers in what a program is given
    done: int = 0  # rollouts
    due: int = 0  # the next one that is compared
    over: bool = field(init=False)  # rollouts are collected in Python

    def __attrs_post_init__(self) -> None:
        """See whether there is anything to do."""
        self.over = not is_pure(self.run)

    def collect(self, run: "Run") -> Rollout:
        """The next rollout; its finished episodes become the run's."""
        shard = run.shards[0]
        if self.over or shard.inputs is None or shard.inputs.state is not None:
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
            rollout, run.finished, ends = shard.collected(columns, Inputs(following), values is not None)
            return rollout if values is None else with_values(rollout, values, run.policy, [ends], run.shards)

    def _give_up(self, reason: str) -> None:
        self.over = True
        warnings.warn(f"compile: rollouts are collected in Python: {reason}", RuntimeWarning, stacklevel=2)

    def _stepped(self, observations: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The columns [T, N, …] of a rollout that goes on from `observations`, and those that follow."""
        run, shard = self.run, self.run.shards[0]
        environment: Any = shard.environment
        steps = shard.fixed_steps
        assert steps is not None
        given = environment.state_dict()
        if self.order is None:
            self.order = _by_columns(run.policy)
        numbers, others = _parted(tensor.detach() for _, tensor in tensors_of(run.policy))
        vector = torch.cat([tensor.flatten() for tensor in numbers]).index_select(0, self.order)
        told = [vector, *(tensor.clone() for tensor in others)]  # loops refuse what shares memory
        if self.program is None:
            with undisturbed():
                self.program = record(run, told, given, observations)
        program = self.program
        pieces = -(-steps // program.rows)
        shape = (pieces, program.rows, shard.lanes)
        world, act = (streams.generator(run.config.seed, name, run.iteration) for name in ("environment", "act"))
        uniforms = torch.rand(*shape, environment.transition_noise, dtype=torch.float64, generator=world)
        uniforms = torch.cat(
            [uniforms, torch.rand(*shape, run.policy.choice_noise, dtype=torch.float64, generator=act)], -1
        )
        compared = self.done % pieces if self.done == self.due else None
        carried = [*given.values(), observations]
        if list(map(layout, [*carried, *told, uniforms[0]])) != program.layouts:
            raise FallbackError("parameters or states have other shapes now")
        tables: list[list[Tensor]] = []
        for piece in range(pieces):
            begin = max(0, program.rows * (piece + 1) - steps)  # the last ones are the rows of fewer
            before = carried
            outputs = program.call(torch.tensor(begin), *carried, *told, uniforms[piece])
            carried, written = outputs[: len(before)], outputs[len(before) :]
            tables.append([table[begin:] for table in written] if begin else written)
            if piece == compared:
                _compare(
                    run, dict(zip(given, before, strict=False)), program.columns(tables[-1]), uniforms[piece, begin:]
                )
        if compared is not None:
            self.due = max(self.due + 1, self.due * 8 // 5)
        self.done += 1
        *state, observations = carried
        environment.load_state_dict(dict(zip(given, state, strict=True)))
        columns = program.columns([torch.cat(parts) for parts in zip(*tables, strict=True)])
        # laid out as steps in Python lay them out: compiled updates are made for one layout
        return {name: column.contiguous() for name, column in columns.items()}, observations


def record(run: "Run", told: list[Tensor], given: dict[str, Tensor], observations: Tensor) -> Steps:
    """A program for this run, of which these are the first inputs.

    Raises:
        Exception: whatever torch or a part raises while it is traced.
    """
    from torch._higher_order_ops.while_loop import while_loop_op

    shard, policy, keys = run.shards[0], run.policy, list(given)
    environment: Any = shard.environment
    valued = "values" in run.needs
    at_once = valued and bool(shard.values_agree)
    whole = nn.Module()
    whole.policy = policy
    whole.forward = lambda function, *arguments: function(*arguments)

    def judge(seen: Tensor, actions: Tensor) -> list[Tensor]:
        evaluation = policy.evaluate(Inputs(seen), actions, False)
        values = [] if not valued else [evaluation.values if at_once else policy.values(Inputs(seen))]
        return [evaluation.log_probs, *values]

    noise = environment.transition_noise + policy.choice_noise
    _, actions, first = _step(run, given, observations, torch.rand(shard.lanes, noise, dtype=torch.float64))
    shard.step_checks.action(Action(actions), None)
    shard.step_checks.step(first, None, Inputs(observations))
    if first.valid is not None or first.metrics or first.action_masks is not None:
        raise FallbackError(f"{run.config.environment.label} gives more than steps: valid, metrics or action_masks")
    examples = _row(observations, actions, first)
    packs: dict[torch.dtype, list[str]] = {}  # for each tensor that it carries, a loop takes half a microsecond
    for name, example in examples.items():
        flag = example.dtype == torch.bool  # whose copies inductor makes one by one
        packs.setdefault(first.rewards.dtype if flag else example.dtype, []).append(name)
    assert shard.fixed_steps is not None
    rows = -(-shard.fixed_steps // -(-shard.fixed_steps // ROWS))  # as even as they come

    def collect(begin: Tensor, *inputs: Tensor) -> list[Tensor]:
        state, seen, *rest = inputs[: len(keys)], *inputs[len(keys) :]
        widths = [sum(examples[name][0].numel() for name in names) for names in packs.values()]
        tables = [
            torch.zeros(rows, shard.lanes, width, dtype=dtype) for dtype, width in zip(packs, widths, strict=True)
        ]

        def continues(t: Tensor, *carried: Tensor) -> Tensor:
            return t < rows

        def row(t: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            *state, seen = carried[: len(keys) + 1]
            after_seen = len(keys) + 1
            tables = list(carried[after_seen : after_seen + len(packs)])
            *told, uniforms = carried[after_seen + len(packs) :]
            place = t.view(1)
            chance = uniforms.index_select(0, place).squeeze(0)
            parameters, before = _parameters(policy, told), dict(zip(keys, state, strict=True))
            after, actions, made = torch.func.functional_call(whole, parameters, (_step, run, before, seen, chance))
            columns = _row(seen, actions, made)
            for number, (dtype, names) in enumerate(packs.items()):
                written = torch.cat([columns[name].reshape(1, shard.lanes, -1).to(dtype) for name in names], 2)
                tables[number] = tables[number].index_copy(0, place, written)
            return (t + 1, *(_own(after[key]) for key in keys), _own(made.observations), *tables)

        carried: Any = (begin, *state, seen, *tables)
        _, *found = while_loop_op(continues, row, carried, tuple(rest))
        columns = Steps(collect, rows, [], list(packs.values()), examples).columns(found[len(keys) + 1 :])
        seen, actions = columns["observations"].flatten(0, 1), columns["actions"].flatten(0, 1)
        judged = torch.func.functional_call(whole, _parameters(policy, rest[:-1]), (judge, seen, actions))
        return [*found, *(numbers.view(rows, shard.lanes) for numbers in judged)]

    uniforms = torch.rand(rows, shard.lanes, noise, dtype=torch.float64)
    inputs = [torch.tensor(rows - 1), *given.values(), observations, *told, uniforms]
    graph = traced(collect, inputs, {torch.ops.aten.addmm.default: _few_products})
    program = compiled(graph, inputs, {"force_pointwise_cat": True})
    return Steps(program, rows, list(map(layout, inputs[1:])), list(packs.values()), examples)


def _step(
    run: "Run", state: dict[str, Tensor], seen: Tensor, uniforms: Tensor
) -> tuple[dict[str, Tensor], Tensor, Step]:
    """What both do in a row: the state after it, the actions as the policy chose them, and the step."""
    environment, policy = run.environment, run.policy
    world, own = torch.split(uniforms, [environment.transition_noise, policy.choice_noise], -1)
    actions = policy.choose(Inputs(seen), own)
    after, step = environment.transition(state, _translated(policy, actions), world)
    return after, actions, step


def _translated(policy: Any, actions: Tensor) -> Tensor:
    translate = getattr(policy, "environment_actions", None)
    return actions if translate is None else translate(actions)


def _row(seen: Tensor, actions: Tensor, step: Step) -> dict[str, Tensor]:
    """What is kept of a row."""
    return {"observations": seen, "actions": actions, **{name: getattr(step, name) for name in STEP}}


def _parted(tensors: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Those of the first one's dtype, and the others."""
    every = list(tensors)
    return [one for one in every if one.dtype == every[0].dtype], [one for one in every if one.dtype != every[0].dtype]


def _by_columns(policy: nn.Module) -> Tensor:
    """Where in the policy's numbers, laid flat, they stand [P]: weights as the products of few rows read them."""
    shapes = [tensor.shape for tensor in _parted(tensor for _, tensor in tensors_of(policy))[0]]
    places = torch.split(torch.arange(sum(shape.numel() for shape in shapes)), [shape.numel() for shape in shapes])
    parts = zip(places, shapes, strict=True)
    return torch.cat([(part.view(shape).t() if len(shape) == 2 else part).flatten() for part, shape in parts])


def _parameters(policy: nn.Module, told: Sequence[Tensor]) -> dict[str, Tensor]:
    """The policy's tensors out of a vector in that order and of others, under the names that they have in a call."""
    named = tensors_of(policy)
    numbers, _ = _parted(tensor for _, tensor in named)
    parts = iter(torch.split(told[0], [tensor.numel() for tensor in numbers]))
    others = iter(told[1:])
    found = {}
    for name, tensor in named:
        if tensor.dtype != numbers[0].dtype:
            found[f"policy.{name}"] = next(others)
        elif tensor.ndim == 2:
            found[f"policy.{name}"] = next(parts).view(tensor.shape[::-1]).t()
        else:
            found[f"policy.{name}"] = next(parts).view(tensor.shape)
    return found


def _own(tensor: Tensor) -> Tensor:
    """With memory of its own, laid out plainly."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _few_products(bias: Tensor, features: Tensor, weights: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """A layer of few lanes as plain sums, which become one loop; a call of BLAS takes longer than they do."""
    if len(features) > FEW or beta != 1 or alpha != 1:
        return NotImplemented
    return (features.unsqueeze(2) * weights.unsqueeze(0)).sum(1) + bias


def _compare(run: "Run", state: dict[str, Tensor], columns: dict[str, Tensor], uniforms: Tensor) -> None:
    """Refuse a program whose rows are not what Python makes of the same states, actions and random numbers."""
    policy, environment = run.policy, run.environment
    world, own = torch.split(uniforms[:LOOKED_AT], [environment.transition_noise, policy.choice_noise], -1)
    rows = len(world)
    other = 0
    for t in range(rows):
        actions = columns["actions"][t]
        chosen = policy.choose(Inputs(columns["observations"][t]), own[t])
        other += int((~torch.isclose(chosen, actions, NEAR, NEAR)).sum())
        state, made = environment.transition(state, _translated(policy, actions), world[t])
        for name in STEP:
            if not torch.allclose(columns[name][t].double(), getattr(made, name).double(), NEAR, NEAR, equal_nan=True):
                raise FallbackError(f"{run.config.environment.label}: {name} are others when compiled")
    if other > 1 + rows * run.shards[0].lanes // 1000:  # one may lie on an edge
        raise FallbackError(f"{run.config.policy.label}: other actions are chosen when compiled")
    seen, actions = Inputs(columns["observations"][:rows].flatten(0, 1)), columns["actions"][:rows].flatten(0, 1)
    expected = {"log_probs": policy.evaluate(seen, actions, False).log_probs}
    if "values" in columns:
        expected["values"] = policy.values(seen)
    for name, numbers in expected.items():
        found = columns[name][:rows].flatten()
        size = float(numbers.abs().max())
        if not torch.allclose(found, numbers, NEAR, NEAR * (size if math.isfinite(size) else 1), equal_nan=True):
            raise FallbackError(f"{run.config.policy.label}: {name} are others when compiled")
