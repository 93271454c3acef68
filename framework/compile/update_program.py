"""One program for an iteration's updates: forward, loss, backward, clipping and the optimizer's step, in a loop.

One update is traced on real tensors (gradients included), a loop over the minibatches is put around it, and torch's
inductor makes C++ of that. When programs are made, given what, and held to what Python finds, is in `updates.py`.
"""

import copy
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import fields, frozen, has
from torch import Tensor, nn

from ..contracts import Batch, Loss
from ..learning.batches import Minibatch, columns_of, divisor, share_of
from .adam import Adam
from .inductor import FallbackError, compiled, lifted, tensors_of, traced, undisturbed

if TYPE_CHECKING:
    from ..run import Run

SHAPES = 4  # programs that are made before a run is left to Python: one for each size of a minibatch
NEAR = 1e-3  # how far compiled and eager numbers may lie apart, of their size: the order of sums differs
MOVING = ("exp_avg", "exp_avg_sq")  # of Adam, as torch names it
INDEX, SCALES = -4, -1  # where a program's inputs have which steps, and what the optimizer needs, of each update
VALUES = (int, float, str, list, dict, set, tuple)  # what is compared as such, and not by which object it is
NARROW = 2  # a side of a product that is written as sums; measured: an update takes 0.93 of the time, with 4 twice


@frozen(eq=False)
class UpdateNumbers:
    """The numbers of an update."""

    norm: float  # of the gradient before it was clipped
    stop_epochs: bool
    terms: dict[str, float]  # divided
    metrics: dict[str, Any]

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient are."""
        return math.isfinite(self.norm + sum(self.terms.values()))


@frozen(eq=False)
class Program:
    """Updates for minibatches of one shape, one after the other."""

    call: Callable[..., Any]
    held: list[Tensor]  # its last inputs
    names: list[str]  # of the terms
    metrics: dict[str, Any]  # of the loss; in place of tensors: None

    def numbers_of(self, row: Sequence[float]) -> UpdateNumbers:
        """The numbers of an update, from a row of the program's table."""
        norm, stop, *numbers = row
        given = iter(numbers[len(self.names) :])
        metrics = {name: next(given) if number is None else number for name, number in self.metrics.items()}
        return UpdateNumbers(norm, bool(stop), dict(zip(self.names, numbers, strict=False)), metrics)


@frozen(eq=False)
class UpdateBlock:
    """What a program is to do, and is given for it."""

    first: int  # of the queue that it can do in one call
    last: int  # the first one after them
    whole: Batch  # of which they are
    index: Tensor | None  # [K, M] of its steps
    rule: Adam | None  # how the optimizer steps; None: in Python
    state: dict[str, Tensor]  # the optimizer's, as torch names it
    key: Any  # of the program
    inputs: list[Tensor]


def trace_updates(run: "Run", block: UpdateBlock, prepares: bool) -> Program:
    """A program for inputs like these: it does the updates of the queue from one number on, to another.

    Raises:
        Exception: whatever torch or a part raises while it is traced.
    """
    from torch._higher_order_ops.while_loop import while_loop_op

    moving = 1 if block.rule is None else 1 + len(MOVING)
    inputs = [_apart(tensor) for tensor in block.inputs]  # loops refuse what shares memory
    update, loss = _update(run, block, prepares, moving, list(inputs))
    held, (which, scales) = lifted(update), (len(inputs) - moving + place for place in (INDEX, SCALES))
    width = 2 + len(loss.terms) + sum(isinstance(number, Tensor) for number in loss.metrics.values())

    def updates(begin: Tensor, end: Tensor, *inputs: Tensor) -> Any:
        def going(t: Tensor, halted: Tensor, *others: Tensor) -> Tensor:
            return (t < others[moving + 2]) & ~halted

        def body(t: Tensor, halted: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            *before, table = others[: moving + 2]
            given, place = list(others[moving + 3 :]), t.view(1)
            if block.index is not None:
                given[which] = given[which].index_select(0, place).squeeze(0)
            given[scales] = given[scales].index_select(0, place).squeeze(0)
            *after, row, halts = update(*before[:moving], *given)
            after = [torch.where(halts, old, new) for old, new in zip(before, after, strict=True)]
            return t + 1 - halts.long(), halts, *after, table.index_copy(0, place, row.unsqueeze(0))

        table = torch.zeros(block.last - block.first, width, dtype=torch.float64)
        carried: Any = (begin, torch.zeros((), dtype=torch.bool), *inputs[:moving], torch.zeros_like(inputs[0]), table)
        return while_loop_op(going, body, carried, (end, *inputs[moving:]))

    inputs = [torch.tensor(0), torch.tensor(1), *inputs, *held]
    program = compiled(traced(updates, inputs), inputs)
    metrics = {name: None if isinstance(number, Tensor) else number for name, number in loss.metrics.items()}
    return Program(program, held, list(loss.terms), metrics)


def _update(run: "Run", block: UpdateBlock, prepares: bool, moving: int, inputs: list[Tensor]) -> tuple[Any, Loss]:
    """The graph of one update, and what the loss was as it was traced.

    It is given what moves (the vector, the optimizer's state), the policy's other tensors, columns of a batch, which of
    its steps, the denominator, the count of episodes and the step's row of scales. It returns what moves, the gradient,
    a row of numbers, and whether nothing is to be moved.
    """
    named = tensors_of(run.policy)
    learnt = {id(parameter): number for number, parameter in enumerate(run.parameters.parameters)}
    shapes = [parameter.shape for parameter in run.parameters.parameters]
    sizes = [shape.numel() for shape in shapes]
    others = [f"policy.{name}" for name, tensor in named if id(tensor) not in learnt]
    buffers = [f"policy.{name}" for name, _ in run.policy.named_buffers()]
    columns, most = list(columns_of(block.whole)), run.config.update.max_grad_norm
    last_loss: list[Loss] = []

    def losses(batch: Batch) -> Loss:
        if prepares and "prepare_batch" in run.wrappers:
            batch = run.hook.prepare_batch(run=run, batch=batch)
        loss: Loss = run.stages.compute_loss(run, batch)
        return loss

    whole = nn.Module()
    whole.policy, whole.forward = run.policy, losses

    def update(*inputs: Tensor) -> list[Tensor]:
        vector = inputs[0].detach().requires_grad_()
        *given, count, episodes, scale = inputs[moving + len(others) :]
        if block.index is not None:
            *given, which = given
            given = [column.index_select(0, which) for column in given]
        some = Batch(
            **dict(zip(columns, given, strict=True)),  # type: ignore[arg-type]
            total_steps=len(given[0]),
            total_episodes=episodes,  # type: ignore[arg-type]
        )
        parts = [part.view(shape) for part, shape in zip(torch.split(vector, sizes), shapes, strict=True)]
        tensors = {f"policy.{name}": parts[learnt[id(tensor)]] for name, tensor in named if id(tensor) in learnt}
        tensors |= dict(zip(others, inputs[moving:], strict=False))
        loss: Loss = torch.func.functional_call(whole, tensors, (some,))
        last_loss.append(loss)
        terms = [term.sum() / count.to(term.dtype) for term in loss.terms.values()]
        total = functools.reduce(operator.add, terms)
        (gradient,) = torch.autograd.grad(total, [vector], materialize_grads=True)
        vector = vector.detach()
        norm = torch.linalg.vector_norm(gradient)
        if most is not None:
            gradient = gradient * (most / (norm + 1e-6)).clamp(max=1)
        stop = torch.as_tensor(loss.stop_epochs)
        numbers = [norm, stop, *terms, *(number for number in loss.metrics.values() if isinstance(number, Tensor))]
        row = torch.stack([number.detach().double().reshape(()) for number in numbers])
        halts = stop | ~row[: 2 + len(terms)].sum().isfinite()
        moved = [vector] if block.rule is None else block.rule.moved(vector, gradient, inputs[1:moving], scale)
        return [*moved, gradient, row, halts]

    inputs[SCALES] = inputs[SCALES][0]
    if block.index is not None:
        inputs[INDEX] = inputs[INDEX][0]
    still = [tensor for name, tensor in zip(others, inputs[moving:], strict=False) if name in buffers]
    versions = [tensor._version for tensor in still]
    rules = {torch.ops.aten.mm.default: _narrow, torch.ops.aten.addmm.default: _narrow_and_bias}
    real, run.loss = run.loss, copy.deepcopy(run.loss)  # it is called once more than in Python
    before = _held(run.loss)
    try:
        graph = traced(update, inputs, rules)
        if _held(run.loss) != before:
            raise FallbackError(f"{run.config.loss.label} changes while it works: what it keeps would be recorded")
    finally:
        run.loss = real
    if [tensor._version for tensor in still] != versions:
        raise FallbackError(f"{run.config.policy.label} moves its buffers while it evaluates")
    return graph, last_loss[0]


def _apart(tensor: Tensor) -> Tensor:
    """The same numbers, laid out in the same way in memory of its own."""
    storage = tensor.untyped_storage().clone()  # type: ignore[no-untyped-call]
    own = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return own.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _narrow(one: Tensor, other: Tensor) -> Any:
    """A product with a side of one or two as plain sums, which become loops: BLAS is slow at these."""
    if one.shape[1] <= NARROW:
        terms = [one[:, k : k + 1] * other[k : k + 1] for k in range(one.shape[1])]
        return functools.reduce(operator.add, terms)
    if min(len(one), other.shape[1]) <= NARROW:
        return (one.unsqueeze(2) * other.unsqueeze(0)).sum(1)
    return NotImplemented


def _narrow_and_bias(bias: Tensor, one: Tensor, other: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    product = NotImplemented if beta != 1 or alpha != 1 else _narrow(one, other)
    return product if product is NotImplemented else product + bias


def _held(part: Any) -> dict[str, Any]:
    """What a part holds, such that a change shows: values, lists, which object, and how often a tensor was written."""
    names = [field.name for field in fields(type(part))] if has(type(part)) else list(getattr(part, "__dict__", ()))
    held = {name: getattr(part, name) for name in names}
    return {
        name: copy.copy(one) if isinstance(one, VALUES) else (id(one), getattr(one, "_version", 0))
        for name, one in held.items()
    }


def of_equal_size(queue: Sequence[Minibatch], at: int) -> tuple[int, int]:
    """From which minibatch to which they are as large as that `at` a place."""
    sizes = [None if minibatch.index is None else len(minibatch.index) for minibatch in queue]
    first, last = at, at + 1
    while first > 0 and sizes[first - 1] == sizes[at]:
        first -= 1
    while last < len(sizes) and sizes[last] == sizes[at]:
        last += 1
    return first, last


def denominators(run: "Run", whole: Batch, index: Tensor | None) -> tuple[float, float]:
    """What is a number in Python and must not be traced as one: the denominator, and the count of episodes."""
    steps, episodes = whole.total_steps, whole.total_episodes
    if index is not None:
        steps = index.shape[1]
        episodes = share_of(episodes, steps, len(whole.advantages))
    settings = run.config.update
    return float(divisor(steps, episodes, settings.denominator, settings.constant)), float(episodes)


def as_double(number: float) -> Tensor:
    """A float64 scalar."""
    return torch.tensor(number, dtype=torch.float64)


def is_near(apart: float, size: float, rounding: Callable[[], float]) -> bool:
    """Whether numbers of that size are so far apart by chance: it may be what rounding makes of such an update."""
    return apart <= NEAR * size + 1e-12 or apart <= NEAR * size + 4 * rounding()


def new_program(run: "Run", block: UpdateBlock, pure: bool, made: int) -> Program:
    """The program for a block, if this run's updates can be compiled and fewer than SHAPES were `made` before."""
    if run.config.trace_gradients:
        raise FallbackError("trace_gradients looks at each term by itself")
    if wrapped := [name for name in ("compute_loss", "apply_gradients") if name in run.wrappers]:
        raise FallbackError(f"{' and '.join(run.wrappers[wrapped[0]])} wraps {wrapped[0]}")
    if not run.parameters.views:
        raise FallbackError(f"{run.config.optimizer.name} does not step the parameters as one vector on the CPU")
    if block.whole.sequences is not None:
        raise FallbackError(f"{run.config.policy.label} has a memory, and its batches are of no fixed shape")
    size = len(block.whole.actions) if block.index is None else block.index.shape[1]
    rollout, parts = run.config.rollout, run.config.update.minibatches
    # fixed steps of all lanes are what minibatches are shares of; else it is chance how many rows count
    lacks_rows = rollout.fixed_steps is not None and not 0 <= size - rollout.fixed_steps * rollout.lanes // parts <= 1
    if made == SHAPES or lacks_rows:
        raise FallbackError(
            "minibatches have ever other sizes: collect fixed steps (rollout.fixed_steps), of an environment that "
            "begins the next episode with the step that ends one (of Gymnasium's: autoreset same_step)"
        )
    with undisturbed():
        return trace_updates(run, block, pure)
