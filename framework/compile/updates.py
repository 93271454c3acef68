"""An iteration's updates by programs without Python in between, as long as they find what Python finds.

Whatever goes wrong there, the run goes on without: it warns, and updates as if `compile` were off. Optimizers other
than Adam and AdamW step in Python, and a program does one update a call.

A program (`update_program.py`) holds what Python decided while it was traced. A part whose numbers change during a
run must therefore keep them in tensors (a policy in parameters and buffers); updates 0, 1, 2, 3, 4, 6, 9, 14, … are
done both ways, and a difference ends the compiling.
"""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field
from torch import Tensor

from ..contracts import Batch, Loss
from ..hookspecs import CLAIMS
from ..learning.batches import Minibatch, columns_of, minibatches
from ..learning.updates import Updater
from ..setup.optimizers import is_watched
from ..setup.wiring import words
from .adam import Adam
from .inductor import FallbackError, layout, tensors_of
from .update_program import (
    MOVING,
    NEAR,
    Program,
    UpdateBlock,
    UpdateNumbers,
    as_double,
    denominators,
    is_near,
    new_program,
    of_equal_size,
)

if TYPE_CHECKING:
    from ..run import Run

ROUNDING = 2.0**-20  # share that parameters are moved by, to see what rounding makes of small differences


@define(eq=False)
class CompiledUpdater(Updater):
    """The updates of one run by programs."""

    run: "Run"
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
    given_up: bool = False  # the run goes on without

    def __attrs_post_init__(self) -> None:
        """See what extensions claim."""
        labels = {part.label: part for part in self.run.config.extensions}
        wrapping = [labels.get(label) for label in self.run.wrappers.get("prepare_batch", [])]
        self.pure = all(part is not None and "pure" in words(part, "claims", CLAIMS) for part in wrapping)

    def update(self, run: "Run", whole: Batch) -> None:
        """All updates of an iteration, until the loss ends them; by programs, and in Python where that cannot be."""
        queue = minibatches(run.config.update, self.shuffle(run), whole)
        at_once = self.pure and not self.given_up
        for some in [list(queue)] if at_once else ([minibatch] for minibatch in queue):
            if not self._updated(whole, some):
                break
        self.columns = {}  # nor is the batch held while the next one is collected
        if run.batch is None:  # no minibatch was made in Python
            run.batch = whole

    def prepare(self, run: "Run", minibatch: Minibatch) -> Batch:
        """The minibatch as extensions want it, once."""
        if run.minibatch is not minibatch or run.batch is None:
            super().prepare(run, minibatch)
        assert run.batch is not None
        return run.batch

    def _updated(self, whole: Batch, queue: Sequence[Minibatch]) -> bool:
        """The updates of some minibatches; whether the loss lets the epochs go on."""
        run, at, ended = self.run, 0, False
        while at < len(queue) and not ended:
            count, ended = (0, False) if self.given_up or run.traced is None else self._programmed(whole, queue, at)
            if not count and not ended:
                count, ended = 1, not self.step(run, queue[at])
            at += count
        return not ended

    def _programmed(self, whole: Batch, queue: Sequence[Minibatch], at: int) -> tuple[int, bool]:
        """How many updates a program did, from the minibatch `at` on, and whether the loss ended them thereafter."""
        run, random = self.run, torch.get_rng_state()
        batch = None if self.pure and whole.sequences is None else self.prepare(run, queue[at])
        ready = self._attempted(self._ready, whole, queue, at, batch)
        if ready is None:
            return 0, False
        block, program, compared = ready
        batch = (
            self.prepare(run, queue[at]) if compared else None
        )  # what extensions raise as they prepare it is no reason to go on
        end = at + 1 if compared or block.rule is None else min(block.last, at + self.due - self.done)
        if self.done == self.due:
            self.due = max(self.due + 1, self.due * 8 // 5)  # not always the same minibatch of an iteration
        found = self._attempted(self._results, program, block, at - block.first, end - block.first, batch, random)
        if found is None:
            torch.set_rng_state(random)
            return 0, False
        rows, moved, gradient, ended = found
        self.done += len(rows)
        count = len(rows) - ended
        if count:
            with run.interrupts.deferred():
                self._move(block, moved, gradient, count, compared)
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
        except Exception as error:  # of torch's compiler, or of a part that cannot be traced
            self._give_up(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
        return None

    def _ready(
        self, whole: Batch, queue: Sequence[Minibatch], at: int, batch: Batch | None
    ) -> tuple[UpdateBlock, Program, bool]:
        """What is to be done, the program for it, and whether that is compared."""
        block = self._job(whole, queue, at, batch)
        program = self.programs.get(block.key)
        compared = program is None or self.done == self.due
        if program is None:
            program = self.programs[block.key] = new_program(self.run, block, self.pure, len(self.programs))
        return block, program, compared

    def _results(
        self, program: Program, block: UpdateBlock, begin: int, end: int, batch: Batch | None, random: Tensor
    ) -> tuple[list[UpdateNumbers], list[Tensor], Tensor, bool]:
        """The numbers of each update that a program did, where they lead, the last gradient, and whether the last of
        them ends the epochs; if there is a batch, compared with what Python makes of it.
        """
        reached, halted, *moved, gradient, table = program.call(
            torch.tensor(begin), torch.tensor(end), *block.inputs, *program.held
        )
        count, ended = int(reached) - begin, bool(halted)
        rows = [program.numbers_of(row) for row in table[begin : begin + count + ended].tolist()]
        if not rows[-1].is_finite:  # what is wrong is found, and named, in Python, from the same random numbers
            torch.set_rng_state(random)
            again = count and self._results(program, block, begin, begin + count, batch, random)
            return again or ([], moved, gradient, False)
        if batch is not None:
            with torch.random.fork_rng([]):
                self._compare(rows[0], gradient, batch, random)
        return rows, moved, gradient, ended

    def _job(self, whole: Batch, queue: Sequence[Minibatch], at: int, batch: Batch | None) -> UpdateBlock:
        """What a program can do from here on: minibatches of one size, which it cuts out and prepares itself.

        If extensions that prepare them do not claim to be pure, it is one, and given as they made it: `batch`. It is
        one, too, where the optimizer steps in Python.
        """
        run, optimizer = self.run, self.run.parameters.optimizer
        if self.iteration != run.iteration or batch is not None:
            self._inspect(whole)
        steps_itself = is_watched(optimizer) or "step" in vars(optimizer)
        rule, state = (None if steps_itself else Adam.of(optimizer)) or (None, {})
        first, last = (at, at + 1) if batch is not None or rule is None else of_equal_size(queue, at)
        index, columns, key = None, self.columns, self.key
        if batch is not None:
            whole, columns = batch, columns_of(batch)
            key = (whole.total_steps, *columns, *map(layout, columns.values()))
        elif queue[at].index is not None:
            index = torch.stack([minibatch.index for minibatch in queue[first:last] if minibatch.index is not None])
        counts = denominators(run, whole, index)
        if counts != self.counts:
            self.counts, self.numbers = counts, list(map(as_double, counts))
        scales = torch.zeros(last - first, 0)
        if rule is not None:
            rate, done = optimizer.param_groups[0]["lr"], int(state["step"])
            scales = rule.scales(rate, done - (at - first), last - first)
        inputs = [run.parameters.stepped[0].detach(), *(state[name] for name in MOVING[: len(state)])]
        inputs += [*self.others, *columns.values()]
        inputs += [*([] if index is None else [index]), *self.numbers, scales]
        shape = (last - first,) if index is None else index.shape
        return UpdateBlock(
            first, last, whole, index, rule, state, (key, index is None, shape, rule and rule.kind), inputs
        )

    def _move(self, block: UpdateBlock, moved: list[Tensor], gradient: Tensor, count: int, compared: bool) -> None:
        """Take over where a program's updates lead, or step in Python; if it is to be compared, both."""
        flat = self.run.parameters
        flat.take(gradient)
        vector = flat.stepped[0].detach()
        if block.rule is not None and not compared:
            for kept, new in zip([vector, *(block.state[name] for name in MOVING)], moved, strict=True):
                kept.copy_(new)
            block.state["step"] += count
            flat.touch()
            return
        before, self.iteration = vector.clone(), -1  # hooks of a step may change the parameters
        flat.step()
        apart, size = float((moved[0] - vector).norm()), float((vector - before).norm())
        if block.rule is not None and apart > NEAR * size + ROUNDING * float(vector.norm()):
            name = self.run.config.optimizer.name
            self._give_up(f"{name}'s compiled step leads {apart:.3g} from the other, of length {size:.3g}")

    def _give_up(self, reason: str) -> None:
        self.given_up = True
        warnings.warn(f"compile: the updates go on in Python: {reason}", RuntimeWarning, stacklevel=2)

    def _inspect(self, whole: Batch) -> None:
        """Whenever others may have changed something: at what is given, and for what programs would pass over."""
        run = self.run
        self.iteration = run.iteration
        run.parameters.refresh_views()
        if run.parameters.frozen:
            raise FallbackError("parameters have been frozen")
        if run.parameters.others:
            raise FallbackError("an extension added parameters to the optimizer")
        if any(one._backward_hooks or one._post_accumulate_grad_hooks for one in run.parameters.parameters):
            raise FallbackError("a parameter has a hook, which only Python's gradients call")
        trained = set(map(id, run.parameters.parameters))
        tensors = [tensor for _, tensor in tensors_of(run.policy)]
        layouts = list(map(layout, tensors))
        self.others = [tensor.detach() for tensor in tensors if id(tensor) not in trained]
        if self.layouts not in ([], layouts):
            raise FallbackError(f"{run.config.policy.label} has parameters or buffers of other shapes now")
        self.layouts = layouts
        self.columns = columns_of(whole)
        self.key = (*self.columns, *map(layout, self.columns.values()))

    def _compare(self, update: UpdateNumbers, gradient: Tensor, batch: Batch, random: Tensor) -> None:
        """Refuse a program that finds something else than Python; `random`: the state of torch's generator before."""
        loss, terms, eager_gradient = self._in_python(batch, random)
        rounded = functools.cache(lambda: self._in_python(batch, random, ROUNDING))

        def drift(term: str) -> float:
            return abs(rounded()[1][term] - terms[term])

        count, _ = denominators(self.run, batch, None)
        for name, term in loss.terms.items():
            found, size = update.terms.get(name), float(term.detach().abs().sum()) / count
            expected = terms[f"loss/{name}"]
            if found is None or not is_near(abs(found - expected), size, functools.partial(drift, f"loss/{name}")):
                raise FallbackError(f"term '{name}' is {found} compiled and {expected} in Python")
        if update.stop_epochs != bool(loss.stop_epochs):
            raise FallbackError("the compiled loss decides otherwise on stop_epochs")
        apart, size = float((gradient - eager_gradient).norm()), float(eager_gradient.norm())
        if not (update.stop_epochs or is_near(apart, size, lambda: float((rounded()[2] - eager_gradient).norm()))):
            raise FallbackError(f"the compiled gradient lies {apart:.3g} from the other, of norm {size:.3g}")
        for name, number in loss.metrics.items():
            found, expected = update.metrics.get(name), float(number)
            room = NEAR * abs(expected) + 2 / len(batch.actions) if isinstance(number, Tensor) else 0.0  # of a share
            if found is None or not (abs(found - expected) <= room or (math.isnan(found) and math.isnan(expected))):
                raise FallbackError(f"metric '{name}' is {found} compiled and {expected} in Python")

    def _in_python(self, batch: Batch, random: Tensor, moved: float = 0.0) -> tuple[Loss, dict[str, float], Tensor]:
        """The loss, its divided terms and the gradient [P]; of parameters that are all `moved` by that share."""
        torch.set_rng_state(random)
        flat = self.run.parameters
        vector = flat.stepped[0].detach()
        kept, last = vector.clone(), flat.gradient.clone()
        try:
            vector.mul_(1 + moved)
            loss: Loss = self.run.stages.compute_loss(self.run, batch)
            terms, _ = self.gradients(self.run, loss)
            return loss, terms, flat.gradient.clone()
        finally:
            vector.copy_(kept)
            flat.gradient.copy_(last)
