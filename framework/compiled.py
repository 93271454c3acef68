"""An iteration's updates as one compiled loop: forward, loss, backward, clipping and step, without Python in between.

One update is recorded on real tensors (gradients included), a loop over the minibatches is put around it, and torch's
inductor makes C++ of that. Whatever goes wrong there, the run goes on without: it warns, and updates as if `compile`
were off. Optimizers other than Adam and AdamW step in Python, and the loop goes round once.

A recording holds what Python decided while it was made. A part whose numbers change during a run must therefore keep
them in tensors (a policy in parameters and buffers); updates 0, 1, 2, 3, 4, 6, 9, 14, … are done both ways, and a
difference ends the compiling.
"""

import copy
import functools
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, fields, frozen, has
from torch import Tensor, nn

from .batches import COLUMNS, Piece, divisor, divisor_of, share_of
from .contracts import Batch, Loss
from .inductor import FallbackError, compiled, layout, lifted, recorded, tensors_of, undisturbed
from .optimizers import Adam, is_watched
from .wiring import CLAIMS, words

if TYPE_CHECKING:
    from .run import Run

MOVING = ("exp_avg", "exp_avg_sq")  # of Adam, as torch names it
INDEX, SCALES = -4, -1  # where a program's inputs have which steps, and what the optimizer needs, of each update
SHAPES = 4  # programs that are made before a run is left to Python: one for each size of a minibatch
VALUES = (int, float, str, list, dict, set, tuple)  # what is compared as such, and not by which object it is
NARROW = 2  # a side of a product that is written as sums; measured: an update takes 0.93 of the time, with 4 twice
NEAR = 1e-3  # how far compiled and eager numbers may lie apart, of their size: the order of sums differs
ROUNDING = 2.0**-20  # share that parameters are moved by, to see what rounding makes of small differences


@frozen(eq=False)
class Told:
    """The numbers of an update."""

    norm: float  # of the gradient before it was clipped
    stop_epochs: bool
    terms: dict[str, float]  # divided
    metrics: dict[str, Any]

    @property
    def is_finite(self) -> bool:
        """Whether the loss is."""
        return math.isfinite(sum(self.terms.values()))


@frozen(eq=False)
class Program:
    """Updates for minibatches of one shape, one after the other."""

    call: Callable[..., Any]
    held: list[Tensor]  # its last inputs
    names: list[str]  # of the terms
    metrics: dict[str, Any]  # of the loss; in place of tensors: None

    def told(self, row: Sequence[float]) -> Told:
        """What a row of its numbers says."""
        norm, stop, *numbers = row
        given = iter(numbers[len(self.names) :])
        metrics = {name: next(given) if number is None else number for name, number in self.metrics.items()}
        return Told(norm, bool(stop), dict(zip(self.names, numbers, strict=False)), metrics)


@frozen(eq=False)
class Job:
    """What a program is to do, and is given for it."""

    first: int  # of the pieces that it can do in one call
    last: int  # the first one after them
    whole: Batch  # of which they are
    index: Tensor | None  # [K, M] of its steps
    rule: Adam | None  # how the optimizer steps; None: in Python
    state: dict[str, Tensor]  # the optimizer's, as torch names it
    key: Any  # of the program
    inputs: list[Tensor]


@define(eq=False)
class Compiler:
    """The programs of one run."""

    run: "Run"
    prepare: Callable[..., Batch]  # makes a minibatch of a piece
    update: Callable[..., bool]  # the core's way of an update in Python; whether another may follow
    gradients: Callable[..., Any]  # and to its gradients
    programs: dict[Any, Program] = field(factory=dict)
    done: int = 0  # updates
    due: int = 0  # the next one that is compared
    counts: tuple[float, float] = (0.0, 0.0)  # the denominator and the count of episodes
    numbers: list[Tensor] = field(factory=list)  # of which these are the tensors
    iteration: int = -1  # of which the following are
    others: list[Tensor] = field(factory=list)  # the policy's buffers, and parameters that are not learnt
    layouts: list[Any] = field(factory=list)  # of all of its tensors
    columns: dict[str, Tensor] = field(factory=dict)  # of the whole batch
    key: tuple[Any, ...] = ()  # how they are laid out
    pure: bool = field(init=False)  # whether programs prepare minibatches themselves
    over: bool = False  # the run goes on without

    def __attrs_post_init__(self) -> None:
        """See what extensions claim."""
        labels = {part.label: part for part in self.run.config.extensions}
        wrapping = [labels.get(label) for label in self.run.wrappers.get("prepare_batch", [])]
        self.pure = all(part is not None and "pure" in words(part, "claims", CLAIMS) for part in wrapping)

    def updates(self, whole: Batch, pieces: Iterable[Piece]) -> None:
        """All updates of an iteration, until the loss ends them; by programs, and in Python where that cannot be."""
        at_once = self.pure and not self.over
        for some in [list(pieces)] if at_once else ([piece] for piece in pieces):
            if not self._updated(whole, some):
                break
        self.columns = {}  # nor is the batch held while the next one is collected

    def _updated(self, whole: Batch, pieces: Sequence[Piece]) -> bool:
        """The updates of some minibatches; whether the loss lets the epochs go on."""
        run, at = self.run, 0
        while at < len(pieces):
            run.batch = functools.partial(self.prepare, run, pieces[at])
            count, ended = (0, False) if self.over or run.traced is None else self._programmed(whole, pieces, at)
            if not count and not ended:
                count, ended = 1, not self.update(run)
            elif (last := at + count - (not ended)) != at:
                run.batch = functools.partial(self.prepare, run, pieces[last])
            if ended:
                return False
            at += count
        return True

    def _programmed(self, whole: Batch, pieces: Sequence[Piece], at: int) -> tuple[int, bool]:
        """How many updates a program did, from the piece `at` on, and whether the loss ended them thereafter."""
        run, random = self.run, torch.get_rng_state()
        batch = None if self.pure and whole.sequences is None else run.batch
        ready = self._attempted(self._ready, whole, pieces, at, batch)
        if ready is None:
            return 0, False
        job, program, compared = ready
        batch = run.batch if compared else None  # what extensions raise as they prepare it is no reason to go on
        end = at + 1 if compared or job.rule is None else min(job.last, at + self.due - self.done)
        if self.done == self.due:
            self.due = max(self.due + 1, self.due * 8 // 5)  # not always the same minibatch of an iteration
        found = self._attempted(self._found, program, job, at - job.first, end - job.first, batch, random)
        if found is None:
            torch.set_rng_state(random)
            return 0, False
        rows, moved, gradient, ended = found
        self.done += len(rows)
        count = len(rows) - ended
        if count:
            with run.interrupts.held():
                self._move(job, moved, gradient, count, compared)
                clips = run.config.update.max_grad_norm is not None
                for row in rows[:count]:
                    terms = {f"loss/{name}": term for name, term in row.terms.items()}
                    run.loss_metrics.append({**terms, **({"grad_norm": row.norm} if clips else {}), **row.metrics})
        return count, ended

    def _attempted(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What it returns; None where it fails, which ends the compiling. Nothing has moved by then."""
        try:
            return function(*arguments)
        except FallbackError as reason:
            self._give_up(str(reason))
        except Exception as error:  # of torch's compiler, or of a part that cannot be recorded
            self._give_up(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
        return None

    def _ready(self, whole: Batch, pieces: Sequence[Piece], at: int, batch: Batch | None) -> tuple[Job, Program, bool]:
        """What is to be done, the program for it, and whether that is compared."""
        job = self._job(whole, pieces, at, batch)
        program = self.programs.get(job.key)
        compared = program is None or self.done == self.due
        if program is None:
            program = self.programs[job.key] = self._made(job)
        return job, program, compared

    def _found(
        self, program: Program, job: Job, begin: int, end: int, batch: Batch | None, random: Tensor
    ) -> tuple[list[Told], list[Tensor], Tensor, bool]:
        """What a program says of each update it looked at, where they lead, the last gradient, and whether the last of
        them ends the epochs; if there is a batch, compared with what Python makes of it.
        """
        reached, halted, *moved, gradient, table = program.call(
            torch.tensor(begin), torch.tensor(end), *job.inputs, *program.held
        )
        count, ended = int(reached) - begin, bool(halted)
        rows = [program.told(row) for row in table[begin : begin + count + ended].tolist()]
        if not rows[-1].is_finite:  # what is wrong is found, and named, in Python, from the same random numbers
            torch.set_rng_state(random)
            again = count and self._found(program, job, begin, begin + count, batch, random)
            return again or ([], moved, gradient, False)
        if batch is not None:
            with torch.random.fork_rng([]):
                self._compare(rows[0], gradient, batch, random)
        return rows, moved, gradient, ended

    def _job(self, whole: Batch, pieces: Sequence[Piece], at: int, batch: Batch | None) -> Job:
        """What a program can do from here on: minibatches of one size, which it cuts out and prepares itself.

        If extensions that prepare them do not claim to be pure, it is one, and given as they made it: `batch`. It is
        one, too, where the optimizer steps in Python.
        """
        run, optimizer = self.run, self.run.learnt.optimizer
        if self.iteration != run.iteration or batch is not None:
            self._look(whole)
        steps_itself = is_watched(optimizer) or "step" in vars(optimizer)
        rule, state = (None if steps_itself else Adam.of(optimizer)) or (None, {})
        first, last = (at, at + 1) if batch is not None or rule is None else _alike(pieces, at)
        index, columns, key = None, self.columns, self.key
        if batch is not None:
            whole, columns = batch, _columns(batch)
            key = (whole.total_steps, *columns, *map(layout, columns.values()))
        elif pieces[at].index is not None:
            index = torch.stack([piece.index for piece in pieces[first:last] if piece.index is not None])
        counts = _counts(run, whole, index)
        if counts != self.counts:
            self.counts, self.numbers = counts, list(map(_double, counts))
        scales = torch.zeros(last - first, 0)
        if rule is not None:
            rate, done = optimizer.param_groups[0]["lr"], int(state["step"])
            scales = rule.scales(rate, done - (at - first), last - first)
        inputs = [run.learnt.stepped[0].detach(), *(state[name] for name in MOVING[: len(state)])]
        inputs += [*self.others, *columns.values()]
        inputs += [*([] if index is None else [index]), *self.numbers, scales]
        shape = (last - first,) if index is None else index.shape
        return Job(first, last, whole, index, rule, state, (key, index is None, shape, rule and rule.kind), inputs)

    def _move(self, job: Job, moved: list[Tensor], gradient: Tensor, count: int, compared: bool) -> None:
        """Take over where a program's updates lead, or step in Python; if it is to be compared, both."""
        learnt = self.run.learnt
        learnt.take(gradient)
        vector = learnt.stepped[0].detach()
        if job.rule is not None and not compared:
            for kept, new in zip([vector, *(job.state[name] for name in MOVING)], moved, strict=True):
                kept.copy_(new)
            job.state["step"] += count
            learnt.touch()
            return
        before, self.iteration = vector.clone(), -1  # whoever is told of a step may change what is learnt
        learnt.step()
        apart, size = float((moved[0] - vector).norm()), float((vector - before).norm())
        if job.rule is not None and apart > NEAR * size + ROUNDING * float(vector.norm()):
            name = self.run.config.optimizer.name
            self._give_up(f"{name}'s compiled step leads {apart:.3g} from the other, of length {size:.3g}")

    def _give_up(self, reason: str) -> None:
        self.over = True
        warnings.warn(f"compile: the updates go on in Python: {reason}", RuntimeWarning, stacklevel=2)

    def _look(self, whole: Batch) -> None:
        """Whenever others may have changed something: at what is given, and for what programs would pass over."""
        run = self.run
        self.iteration = run.iteration
        run.learnt.hold()
        if run.learnt.frozen:
            raise FallbackError("parameters have been frozen")
        if run.learnt.others:
            raise FallbackError("an extension added parameters to the optimizer")
        if any(one._backward_hooks or one._post_accumulate_grad_hooks for one in run.learnt.parameters):
            raise FallbackError("a parameter has a hook, which only Python's gradients call")
        learnt = set(map(id, run.learnt.parameters))
        layouts = [layout(tensor) for _, tensor in tensors_of(run.policy)]
        self.others = [tensor.detach() for _, tensor in tensors_of(run.policy) if id(tensor) not in learnt]
        if self.layouts not in ([], layouts):
            raise FallbackError(f"{run.config.policy.label} has parameters or buffers of other shapes now")
        self.layouts = layouts
        self.columns = _columns(whole)
        self.key = (*self.columns, *map(layout, self.columns.values()))

    def _made(self, job: Job) -> Program:
        run = self.run
        if run.config.trace_gradients:
            raise FallbackError("trace_gradients looks at each term by itself")
        if wrapped := [name for name in ("compute_loss", "apply_gradients") if name in run.wrappers]:
            raise FallbackError(f"{' and '.join(run.wrappers[wrapped[0]])} wraps {wrapped[0]}")
        if not run.learnt.views:
            raise FallbackError(f"{run.config.optimizer.name} does not step the parameters as one vector on the CPU")
        if job.whole.sequences is not None:
            raise FallbackError(f"{run.config.policy.label} has a memory, and its batches are of no fixed shape")
        size = len(job.whole.actions) if job.index is None else job.index.shape[1]
        if len(self.programs) == SHAPES or self._lacks_rows(size):
            raise FallbackError(
                "minibatches have ever other sizes: collect fixed steps (rollout.fixed_steps), of an environment that "
                "begins the next episode with the step that ends one (of Gymnasium's: autoreset same_step)"
            )
        with undisturbed():
            return record(run, job, self.pure)

    def _lacks_rows(self, size: int) -> bool:
        """Whether fixed steps of all lanes are not what a minibatch is a share of: how many count, is then chance."""
        rollout, parts = self.run.config.rollout, self.run.config.update.minibatches
        if rollout.fixed_steps is None:
            return False
        return not 0 <= size - rollout.fixed_steps * rollout.lanes // parts <= 1

    def _compare(self, update: Told, gradient: Tensor, batch: Batch, random: Tensor) -> None:
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
        if update.stop_epochs != bool(loss.stop_epochs):
            raise FallbackError("the compiled loss decides otherwise on stop_epochs")
        apart, size = float((gradient - slopes).norm()), float(slopes.norm())
        if not (update.stop_epochs or _lie_near(apart, size, lambda: float((rounded()[2] - slopes).norm()))):
            raise FallbackError(f"the compiled gradient lies {apart:.3g} from the other, of norm {size:.3g}")
        for name, number in loss.metrics.items():
            found, expected = update.metrics.get(name), float(number)
            room = NEAR * abs(expected) + 2 / len(batch.actions) if isinstance(number, Tensor) else 0.0  # of a share
            if found is None or not (abs(found - expected) <= room or (math.isnan(found) and math.isnan(expected))):
                raise FallbackError(f"metric '{name}' is {found} compiled and {expected} otherwise")

    def _in_python(self, batch: Batch, random: Tensor, moved: float = 0.0) -> tuple[Loss, dict[str, float], Tensor]:
        """The loss, its divided terms and the gradient [P]; of parameters that are all `moved` by that share."""
        torch.set_rng_state(random)
        learnt = self.run.learnt
        vector = learnt.stepped[0].detach()
        kept, last = vector.clone(), learnt.slopes.clone()
        try:
            vector.mul_(1 + moved)
            loss: Loss = self.run.stages.compute_loss(self.run, batch)
            terms, _ = self.gradients(self.run, loss)
            return loss, terms, learnt.slopes.clone()
        finally:
            vector.copy_(kept)
            learnt.slopes.copy_(last)


def _lie_near(apart: float, size: float, rounding: Callable[[], float]) -> bool:
    """Whether numbers of that size are so far apart by chance: it may be what rounding makes of such an update."""
    return apart <= NEAR * size + 1e-12 or apart <= NEAR * size + 4 * rounding()


def record(run: "Run", job: Job, prepares: bool) -> Program:
    """A program for inputs like these: it does the updates of the pieces from one number on, to another.

    Raises:
        Exception: whatever torch or a part raises while it is recorded.
    """
    from torch._higher_order_ops.while_loop import while_loop_op

    moving = 1 if job.rule is None else 1 + len(MOVING)
    inputs = [_apart(tensor) for tensor in job.inputs]  # loops refuse what shares memory
    update, loss = _update(run, job, prepares, moving, list(inputs))
    held, (which, scales) = lifted(update), (len(inputs) - moving + place for place in (INDEX, SCALES))
    width = 2 + len(loss.terms) + sum(isinstance(number, Tensor) for number in loss.metrics.values())

    def updates(begin: Tensor, end: Tensor, *inputs: Tensor) -> Any:
        def going(t: Tensor, halted: Tensor, *others: Tensor) -> Tensor:
            return (t < others[moving + 2]) & ~halted

        def body(t: Tensor, halted: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            *before, table = others[: moving + 2]
            given, place = list(others[moving + 3 :]), t.view(1)
            if job.index is not None:
                given[which] = given[which].index_select(0, place).squeeze(0)
            given[scales] = given[scales].index_select(0, place).squeeze(0)
            *after, row, halts = update(*before[:moving], *given)
            after = [torch.where(halts, old, new) for old, new in zip(before, after, strict=True)]
            return t + 1 - halts.long(), halts, *after, table.index_copy(0, place, row.unsqueeze(0))

        table = torch.zeros(job.last - job.first, width, dtype=torch.float64)
        carried: Any = (begin, torch.zeros((), dtype=torch.bool), *inputs[:moving], torch.zeros_like(inputs[0]), table)
        return while_loop_op(going, body, carried, (end, *inputs[moving:]))

    inputs = [torch.tensor(0), torch.tensor(1), *inputs, *held]
    program = compiled(recorded(updates, inputs), inputs)
    metrics = {name: None if isinstance(number, Tensor) else number for name, number in loss.metrics.items()}
    return Program(program, held, list(loss.terms), metrics)


def _update(run: "Run", job: Job, prepares: bool, moving: int, inputs: list[Tensor]) -> tuple[Any, Loss]:
    """The graph of one update, and what the loss was as it was recorded.

    It is given what moves (the vector, the optimizer's state), the policy's other tensors, columns of a batch, which of
    its steps, the denominator, the count of episodes and the step's row of scales. It returns what moves, the gradient,
    a row of numbers, and whether nothing is to be moved.
    """
    named = tensors_of(run.policy)
    learnt = {id(parameter): number for number, parameter in enumerate(run.learnt.parameters)}
    shapes = [parameter.shape for parameter in run.learnt.parameters]
    sizes = [shape.numel() for shape in shapes]
    others = [f"policy.{name}" for name, tensor in named if id(tensor) not in learnt]
    buffers = [f"policy.{name}" for name, _ in run.policy.named_buffers()]
    columns, most = list(_columns(job.whole)), run.config.update.max_grad_norm
    told: list[Loss] = []

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
        if job.index is not None:
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
        told.append(loss)
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
        halts = stop | ~row[2 : 2 + len(terms)].sum().isfinite()
        moved = [vector] if job.rule is None else job.rule.moved(vector, gradient, inputs[1:moving], scale)
        return [*moved, gradient, row, halts]

    inputs[SCALES] = inputs[SCALES][0]
    if job.index is not None:
        inputs[INDEX] = inputs[INDEX][0]
    still = [tensor for name, tensor in zip(others, inputs[moving:], strict=False) if name in buffers]
    versions = [tensor._version for tensor in still]
    rules = {torch.ops.aten.mm.default: _narrow, torch.ops.aten.addmm.default: _narrow_and_bias}
    real, run.loss = run.loss, copy.deepcopy(run.loss)  # it is asked once more than in Python
    before = _held(run.loss)
    try:
        graph = recorded(update, inputs, rules)
        if _held(run.loss) != before:
            raise FallbackError(f"{run.config.loss.label} changes while it works: what it keeps would be recorded")
    finally:
        run.loss = real
    if [tensor._version for tensor in still] != versions:
        raise FallbackError(f"{run.config.policy.label} moves its buffers while it evaluates")
    return graph, told[0]


def _apart(tensor: Tensor) -> Tensor:
    """The same numbers, laid out in the same way in memory of its own."""
    storage = tensor.untyped_storage().clone()  # type: ignore[no-untyped-call]
    own = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return own.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _alike(pieces: Sequence[Piece], at: int) -> tuple[int, int]:
    """From which piece to which they are as large as that `at` a place."""
    sizes = [None if piece.index is None else len(piece.index) for piece in pieces]
    first, last = at, at + 1
    while first > 0 and sizes[first - 1] == sizes[at]:
        first -= 1
    while last < len(sizes) and sizes[last] == sizes[at]:
        last += 1
    return first, last


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
    steps, episodes = whole.total_steps, whole.total_episodes
    if index is not None:
        steps = index.shape[1]
        episodes = share_of(episodes, steps, len(whole.advantages))
    settings = run.config.update
    return float(divisor_of(steps, episodes, settings.denominator, settings.constant)), float(episodes)


def _double(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)
