"""The update as one compiled function: forward, loss, backward and clipping, without Python between the kernels.

One update is recorded on real tensors (`make_fx`, gradients included) and made into C++ by torch's inductor. Both are
private to torch, so they stand here only, and whatever goes wrong with them, the run goes on without: it warns, and
updates as if `compile` were off.

A recording holds what Python decided while it was made. A part whose numbers change during a run must therefore keep
them in tensors (a policy in parameters and buffers); updates 0, 1, 2, 3, 4, 6, 9, 14, … are done both ways, and a
difference ends the compiling.
"""

import copy
import functools
import math
import operator
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, fields, frozen, has
from torch import Tensor, nn

from .batches import COLUMNS, divisor, divisor_of, share_of
from .contracts import Batch, Loss
from .inductor import FallbackError, compiled, layout, recorded, tensors_of, undisturbed
from .wiring import CLAIMS, words

if TYPE_CHECKING:
    from .run import Run

SHAPES = 4  # programs that are made before a run is left to Python: one for each size of a minibatch
VALUES = (int, float, str, list, dict, set, tuple)  # what is compared as such, and not by which object it is
NARROW = 2  # a side of a product that is written as sums; measured: an update takes 0.93 of the time, with 4 twice
NEAR = 1e-3  # how far compiled and eager numbers may lie apart, of their size: the order of sums differs
ROUNDING = 2.0**-20  # share that parameters are moved by, to see what rounding makes of small differences


@frozen(eq=False)
class Update:
    """What a compiled update found; nothing has moved yet."""

    gradient: Tensor  # [P] of the vector of parameters, clipped
    norm: float  # of the gradient before that
    terms: dict[str, float]  # divided
    metrics: dict[str, Any]
    stop_epochs: bool


@frozen(eq=False)
class Program:
    """An update for minibatches of one shape."""

    call: Callable[..., Any]
    names: list[str]  # of the terms
    metrics: dict[str, Any]  # of the loss; in place of tensors: None


@define(eq=False)
class Compiler:
    """The programs of one run."""

    run: "Run"
    compute_loss: Callable[..., Loss]  # the core's stage
    gradients: Callable[..., Any]  # the core's way to them, in Python
    programs: dict[Any, Program] = field(factory=dict)
    done: int = 0  # updates
    due: int = 0  # the next one that is compared
    counts: tuple[float, float] = (0.0, 0.0)  # the denominator and the count of episodes
    numbers: list[Tensor] = field(factory=list)  # of which these are the tensors
    iteration: int = -1  # of which the following are
    state: list[Tensor] = field(factory=list)  # the policy's parameters and buffers
    columns: dict[str, Tensor] = field(factory=dict)  # of the whole batch
    key: tuple[Any, ...] = ()  # how they are laid out
    pure: bool = field(init=False)  # whether programs prepare minibatches themselves
    over: bool = False  # the run goes on without

    def __attrs_post_init__(self) -> None:
        """See what extensions claim."""
        labels = {part.label: part for part in self.run.config.extensions}
        wrapping = [labels.get(label) for label in self.run.wrappers.get("prepare_batch", [])]
        self.pure = all(part is not None and "pure" in words(part, "claims", CLAIMS) for part in wrapping)

    def update(self, whole: Batch, index: Tensor | None) -> Update | None:
        """The update for the minibatch at `index` [M] of a batch; None where it must be done step by step.

        What extensions make of it is part of the program, if they claim to be pure; else the program is given that.
        """
        if self.over:
            return None
        try:
            run = self.run
            if self.iteration != run.iteration:
                self._look(whole)
            if not self.pure or (index is not None and whole.sequences is not None):
                assert run.batch is not None
                whole, index, columns = run.batch, None, _columns(run.batch)
                key: Any = (whole.total_steps, *columns, *map(layout, columns.values()))
                self._hold()
            else:
                columns, key = self.columns, (self.key, None if index is None else (len(index), index.stride()))
            counts = _counts(run, whole, index)
            if counts != self.counts:
                self.counts, self.numbers = counts, _tensors(counts)
            inputs = [*self.state, *columns.values(), *([] if index is None else [index]), *self.numbers]
            compared = key not in self.programs or self.done == self.due
            if key not in self.programs:
                self.programs[key] = self._made(whole, index, inputs)
            if self.done == self.due:
                self.due = max(self.due + 1, self.due * 8 // 5)  # not always the same minibatch of an iteration
            self.done += 1
            random = torch.get_rng_state() if compared else None
            update = self._called(self.programs[key], inputs)
            if not math.isfinite(sum(update.terms.values())):
                return None  # what is wrong is found, and named, in Python
            if random is not None:
                assert run.batch is not None
                with torch.random.fork_rng([]):
                    self._compare(update, run.batch, random)
            return update
        except FallbackError as reason:
            self._give_up(str(reason))
        except Exception as error:  # of torch's compiler, or of a part that cannot be recorded
            self._give_up(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
        return None

    def _give_up(self, reason: str) -> None:
        self.over = True
        warnings.warn(f"compile: the updates go on in Python: {reason}", RuntimeWarning, stacklevel=2)

    def _look(self, whole: Batch) -> None:
        """Once an iteration: at what was collected, and for what programs would pass over."""
        run = self.run
        self.iteration = run.iteration
        self._hold()
        if run.learnt.others:
            raise FallbackError("an extension added parameters to the optimizer")
        if any(one._backward_hooks or one._post_accumulate_grad_hooks for one in run.learnt.parameters):
            raise FallbackError("a parameter has a hook, which only Python's gradients call")
        before, self.state = self.state, [tensor.detach() for _, tensor in tensors_of(run.policy)]
        if before and list(map(layout, before)) != list(map(layout, self.state)):
            raise FallbackError(f"{run.config.policy.label} has parameters or buffers of other shapes now")
        self.columns = _columns(whole)
        self.key = (*self.columns, *map(layout, self.columns.values()))

    def _hold(self) -> None:
        """Whenever others may have changed something: parameters are views again."""
        self.run.learnt.hold()
        if self.run.learnt.frozen:
            raise FallbackError("parameters have been frozen")

    def _made(self, whole: Batch, index: Tensor | None, inputs: list[Tensor]) -> Program:
        run = self.run
        if run.config.trace_gradients:
            raise FallbackError("trace_gradients looks at each term by itself")
        if wrapped := [name for name in ("compute_loss", "apply_gradients") if name in run.wrappers]:
            raise FallbackError(f"{' and '.join(run.wrappers[wrapped[0]])} wraps {wrapped[0]}")
        if not run.learnt.views:
            raise FallbackError(f"{run.config.optimizer.name} does not step the parameters as one vector on the CPU")
        if whole.sequences is not None:
            raise FallbackError(f"{run.config.policy.label} has a memory, and its batches are of no fixed shape")
        if len(self.programs) == SHAPES or self._lacks_rows(len(whole.actions) if index is None else len(index)):
            raise FallbackError(
                "minibatches have ever other sizes: collect fixed steps (rollout.fixed_steps), of an environment that "
                "begins the next episode with the step that ends one (of Gymnasium's: autoreset same_step)"
            )
        with undisturbed():
            return record(run, self.compute_loss, list(_columns(whole)), index, inputs, self.pure)

    def _lacks_rows(self, size: int) -> bool:
        """Whether fixed steps of all lanes are not what a minibatch is a share of: how many count, is then chance."""
        rollout, parts = self.run.config.rollout, self.run.config.update.minibatches
        if rollout.fixed_steps is None:
            return False
        return not 0 <= size - rollout.fixed_steps * rollout.lanes // parts <= 1

    def _called(self, program: Program, inputs: list[Tensor]) -> Update:
        gradient, packed = program.call(*inputs)
        norm, stop, *numbers = packed.tolist()
        terms = dict(zip(program.names, numbers, strict=False))
        given = iter(numbers[len(terms) :])
        metrics = {name: next(given) if number is None else number for name, number in program.metrics.items()}
        return Update(gradient, norm, terms, metrics, bool(stop))

    def _compare(self, update: Update, batch: Batch, random: Tensor) -> None:
        """Refuse a program that finds something else than Python; `random`: the state of torch's generator before."""
        loss, terms, slopes = self._in_python(batch, random)
        rounded = functools.cache(lambda: self._in_python(batch, random, ROUNDING))

        def drift(term: str) -> float:
            return abs(rounded()[1][term] - terms[term])

        count = _divisor(self.run, batch)
        for name, term in loss.terms.items():
            found, size = update.terms.get(name), float(term.detach().abs().sum()) / count
            expected = terms[f"loss/{name}"]
            if found is None or not _lie_near(abs(found - expected), size, functools.partial(drift, f"loss/{name}")):
                raise FallbackError(f"term '{name}' is {found} compiled and {expected} otherwise")
        apart, size = float((update.gradient - slopes).norm()), float(slopes.norm())
        if not _lie_near(apart, size, lambda: float((rounded()[2] - slopes).norm())):
            raise FallbackError(f"the compiled gradient lies {apart:.3g} from the other, of norm {size:.3g}")
        if update.stop_epochs != bool(loss.stop_epochs):
            raise FallbackError("the compiled loss decides otherwise on stop_epochs")
        for name, number in loss.metrics.items():
            found, expected = update.metrics.get(name), float(number)
            room = NEAR * abs(expected) + 2 / len(batch.actions) if isinstance(number, Tensor) else 0.0  # of a share
            if found is None or not (abs(found - expected) <= room or (math.isnan(found) and math.isnan(expected))):
                raise FallbackError(f"metric '{name}' is {found} compiled and {expected} otherwise")

    def _in_python(self, batch: Batch, random: Tensor, moved: float = 0.0) -> tuple[Loss, dict[str, float], Tensor]:
        """The loss, its divided terms and the gradient [P]; of parameters that are all `moved` by that share."""
        torch.set_rng_state(random)
        vector = self.run.learnt.stepped[0].detach()
        kept = vector.clone()
        vector.mul_(1 + moved)
        try:
            loss = self.compute_loss(self.run, batch)
            terms, _ = self.gradients(self.run, loss)
        finally:
            vector.copy_(kept)
        return loss, terms, self.run.learnt.slopes.clone()


def _lie_near(apart: float, size: float, rounding: Callable[[], float]) -> bool:
    """Whether numbers of that size are so far apart by chance: it may be what rounding makes of such an update."""
    return apart <= NEAR * size + 1e-12 or apart <= NEAR * size + 4 * rounding()


def record(
    run: "Run",
    compute_loss: Callable[..., Loss],
    columns: list[str],
    index: Tensor | None,
    inputs: list[Tensor],
    prepares: bool,
) -> Program:
    """A program for inputs like these: the policy's tensors, columns of a batch, which of its steps, and two counts.

    Raises:
        Exception: whatever torch or a part raises while it is recorded.
    """
    names = [f"policy.{name}" for name, _ in tensors_of(run.policy)]
    learnt = [number for number, (_, tensor) in enumerate(tensors_of(run.policy)) if tensor.requires_grad]
    moving = {f"policy.{name}" for name, _ in run.policy.named_buffers()}
    most = run.config.update.max_grad_norm
    told: list[Loss] = []

    def losses(batch: Batch) -> Loss:
        if prepares and "prepare_batch" in run.wrappers:
            batch = run.hook.prepare_batch(run=run, batch=batch)
        return compute_loss(run, batch)

    whole = nn.Module()
    whole.policy, whole.forward = run.policy, losses

    def update(*inputs: Tensor) -> list[Tensor]:
        state = [tensor.detach().requires_grad_(number in learnt) for number, tensor in enumerate(inputs[: len(names)])]
        *given, count, episodes = inputs[len(names) :]
        if index is not None:
            *given, which = given
            given = [column.index_select(0, which) for column in given]
        some = Batch(
            **dict(zip(columns, given, strict=True)),  # type: ignore[arg-type]
            total_steps=len(given[0]),
            total_episodes=episodes,  # type: ignore[arg-type]
        )
        loss: Loss = torch.func.functional_call(whole, dict(zip(names, state, strict=True)), (some,))
        told.append(loss)
        terms = [term.sum() / count.to(term.dtype) for term in loss.terms.values()]
        slopes = torch.autograd.grad(
            functools.reduce(operator.add, terms), [state[number] for number in learnt], materialize_grads=True
        )
        gradient = torch.cat([slope.flatten() for slope in slopes])
        norm = torch.linalg.vector_norm(gradient)
        if most is not None:
            gradient = gradient * (most / (norm + 1e-6)).clamp(max=1)
        numbers = [norm, torch.as_tensor(loss.stop_epochs), *terms]
        numbers += [number for number in loss.metrics.values() if isinstance(number, Tensor)]
        return [gradient, torch.stack([number.detach().double().reshape(()) for number in numbers])]

    buffers = {number: inputs[number].clone() for number, name in enumerate(names) if name in moving}
    versions = [tensor._version for tensor in buffers.values()]
    inputs = [buffers.get(number, tensor) for number, tensor in enumerate(inputs)]
    rules = {torch.ops.aten.mm.default: _narrow, torch.ops.aten.addmm.default: _narrow_and_bias}
    real, run.loss = run.loss, copy.deepcopy(run.loss)  # it is asked once more than in Python
    before = _held(run.loss)
    try:
        graph = recorded(update, inputs, rules)
        if _held(run.loss) != before:
            raise FallbackError(f"{run.config.loss.label} changes while it works: what it keeps would be recorded")
    finally:
        run.loss = real
    if [tensor._version for tensor in buffers.values()] != versions:
        raise FallbackError(f"{run.config.policy.label} moves its buffers while it evaluates")
    program = compiled(graph, inputs)
    (loss,) = told
    metrics = {name: None if isinstance(number, Tensor) else number for name, number in loss.metrics.items()}
    return Program(program, list(loss.terms), metrics)


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


def _columns(batch: Batch) -> dict[str, Tensor]:
    """The fields of a batch that it has."""
    return {name: column for name in COLUMNS if (column := getattr(batch, name)) is not None}


def _divisor(run: "Run", batch: Batch) -> float:
    settings = run.config.update
    return divisor(batch, settings.denominator, settings.constant)


def _held(part: Any) -> dict[str, Any]:
    """What a part holds, such that a change shows: values, lists, which object, and how often a tensor was written."""
    names = [field.name for field in fields(type(part))] if has(type(part)) else list(getattr(part, "__dict__", ()))
    held = {name: getattr(part, name) for name in names}
    return {
        name: copy.copy(one) if isinstance(one, VALUES) else (id(one), getattr(one, "_version", 0))
        for name, one in held.items()
    }


def _counts(run: "Run", whole: Batch, index: Tensor | None) -> tuple[float, float]:
    """What is a number in Python and must not be recorded as one: the denominator, and the count of episodes."""
    size, steps = len(whole.advantages), whole.total_steps
    episodes = whole.total_episodes
    if index is not None:
        steps, episodes = len(index), share_of(episodes, len(index), size)
    settings = run.config.update
    return float(divisor_of(steps, episodes, settings.denominator, settings.constant)), float(episodes)


def _tensors(counts: tuple[float, float]) -> list[Tensor]:
    return [torch.tensor(number, dtype=torch.float64) for number in counts]
