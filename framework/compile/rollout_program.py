"""A program that collects rows of a rollout: policy and environment step after step, traced and compiled to C++."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ..capabilities import HasChoose, HasEnvironmentActions, HasTransition, HasValues, has
from ..contracts import Action, Inputs, PolicyModule, Step
from .inductor import FallbackError, compiled, layout, tensors_of, traced

if TYPE_CHECKING:
    from ..run import Run

FEW = 128  # lanes; measured: with more of them, steps in numpy are faster
ROWS = 32  # of a program: with each row the loop copies all of them, and a call costs as much as a row or two
STEP = ("successors", "rewards", "terminated", "truncated")  # what is kept of a step


@frozen(eq=False)
class RolloutProgram:
    """A program that collects up to `rows` rows."""

    call: Callable[..., Any]
    rows: int
    layouts: list[Any]  # of its inputs
    packs: list[list[str]]  # the columns that stand side by side in what it returns
    examples: dict[str, Tensor]  # a row of each, [N, …]

    def columns(self, tables: Sequence[Tensor]) -> dict[str, Tensor]:
        """What it wrote, by name [T, N, …]; log-probs and values come last."""
        columns: dict[str, Tensor] = {}
        for names, table in zip(self.packs, tables, strict=False):
            parts = torch.split(table, [self.examples[name][0].numel() for name in names], 2)
            for name, part in zip(names, parts, strict=True):
                example = self.examples[name]
                columns[name] = part.reshape(len(table), *example.shape).to(example.dtype)
        return columns | dict(zip(("log_probs", "values"), tables[len(self.packs) :], strict=False))


def trace_rollout(
    run: "Run", weights: list[Tensor], first_state: dict[str, Tensor], observations: Tensor
) -> RolloutProgram:
    """A program for this run, of which these are the first inputs.

    Raises:
        Exception: whatever torch or a part raises while it is traced.
    """
    from torch._higher_order_ops.while_loop import while_loop_op

    shard, policy, keys = run.shards[0], run.policy, list(first_state)
    environment: Any = shard.environment
    valued = "values" in run.needs
    at_once = valued and bool(shard.values_agree)
    whole = nn.Module()
    whole.policy = policy
    whole.forward = lambda function, *arguments: function(*arguments)

    def evaluate(seen: Tensor, actions: Tensor) -> list[Tensor]:
        evaluation = policy.evaluate(Inputs(seen), actions, False)
        if not has(policy, HasValues) or not valued:
            return [evaluation.log_probs]
        values = evaluation.values if at_once else policy.values(Inputs(seen))
        assert values is not None
        return [evaluation.log_probs, values]

    noise = environment.transition_noise + policy.choice_noise
    _, actions, first = _step(run, first_state, observations, torch.rand(shard.lanes, noise, dtype=torch.float64))
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
            *weights, uniforms = carried[after_seen + len(packs) :]
            place = t.view(1)
            chance = uniforms.index_select(0, place).squeeze(0)
            parameters, before = _parameters(policy, weights), dict(zip(keys, state, strict=True))
            after, actions, step = torch.func.functional_call(whole, parameters, (_step, run, before, seen, chance))
            columns = _row(seen, actions, step)
            for number, (dtype, names) in enumerate(packs.items()):
                written = torch.cat([columns[name].reshape(1, shard.lanes, -1).to(dtype) for name in names], 2)
                tables[number] = tables[number].index_copy(0, place, written)
            return (t + 1, *(_own(after[key]) for key in keys), _own(step.observations), *tables)

        carried: Any = (begin, *state, seen, *tables)
        _, *outputs = while_loop_op(continues, row, carried, tuple(rest))
        columns = RolloutProgram(collect, rows, [], list(packs.values()), examples).columns(outputs[len(keys) + 1 :])
        seen, actions = columns["observations"].flatten(0, 1), columns["actions"].flatten(0, 1)
        evaluated = torch.func.functional_call(whole, _parameters(policy, rest[:-1]), (evaluate, seen, actions))
        return [*outputs, *(numbers.view(rows, shard.lanes) for numbers in evaluated)]

    uniforms = torch.rand(rows, shard.lanes, noise, dtype=torch.float64)
    inputs = [torch.tensor(rows - 1), *first_state.values(), observations, *weights, uniforms]
    graph = traced(collect, inputs, {torch.ops.aten.addmm.default: _few_products})
    program = compiled(graph, inputs, {"force_pointwise_cat": True})
    return RolloutProgram(program, rows, list(map(layout, inputs[1:])), list(packs.values()), examples)


def pure_parts(run: "Run") -> tuple[HasTransition, HasChoose]:
    """Environment and policy of a run that `is_pure`."""
    environment, policy = run.environment, run.policy
    assert has(environment, HasTransition)
    assert has(policy, HasChoose)
    return environment, policy


def _step(
    run: "Run", state: dict[str, Tensor], seen: Tensor, uniforms: Tensor
) -> tuple[dict[str, Tensor], Tensor, Step]:
    """What both do in a row: the state after it, the actions as the policy chose them, and the step."""
    environment, policy = pure_parts(run)
    world, own = torch.split(uniforms, [environment.transition_noise, policy.choice_noise], -1)
    actions = policy.choose(Inputs(seen), own)
    after, step = environment.transition(state, environment_actions(run.policy, actions), world)
    return after, actions, step


def environment_actions(policy: PolicyModule, actions: Tensor) -> Tensor:
    """What the environment takes for these actions of the policy."""
    translate = policy.environment_actions if has(policy, HasEnvironmentActions) else None
    return actions if translate is None else translate(actions)


def _row(seen: Tensor, actions: Tensor, step: Step) -> dict[str, Tensor]:
    """What is kept of a row."""
    return {"observations": seen, "actions": actions, **{name: getattr(step, name) for name in STEP}}


def by_dtype(tensors: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Those of the first one's dtype, and the others."""
    every = list(tensors)
    return [one for one in every if one.dtype == every[0].dtype], [one for one in every if one.dtype != every[0].dtype]


def by_columns(policy: nn.Module) -> Tensor:
    """Where in the policy's numbers, flattened, they stand [P]: weights as the products of few rows read them."""
    shapes = [tensor.shape for tensor in by_dtype(tensor for _, tensor in tensors_of(policy))[0]]
    places = torch.split(torch.arange(sum(shape.numel() for shape in shapes)), [shape.numel() for shape in shapes])
    parts = zip(places, shapes, strict=True)
    return torch.cat([(part.view(shape).t() if len(shape) == 2 else part).flatten() for part, shape in parts])


def _parameters(policy: nn.Module, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """The policy's tensors out of a vector in that order and of others, under the names that they have in a call."""
    named = tensors_of(policy)
    numbers, _ = by_dtype(tensor for _, tensor in named)
    parts = iter(torch.split(weights[0], [tensor.numel() for tensor in numbers]))
    others = iter(weights[1:])
    parameters = {}
    for name, tensor in named:
        if tensor.dtype != numbers[0].dtype:
            parameters[f"policy.{name}"] = next(others)
        elif tensor.ndim == 2:
            parameters[f"policy.{name}"] = next(parts).view(tensor.shape[::-1]).t()
        else:
            parameters[f"policy.{name}"] = next(parts).view(tensor.shape)
    return parameters


def _own(tensor: Tensor) -> Tensor:
    """With memory of its own, laid out plainly."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _few_products(bias: Tensor, features: Tensor, matrix: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """A layer of few lanes as plain sums, which become one loop; a call of BLAS takes longer than they do."""
    if len(features) > FEW or beta != 1 or alpha != 1:
        return NotImplemented
    return (features.unsqueeze(2) * matrix.unsqueeze(0)).sum(1) + bias
