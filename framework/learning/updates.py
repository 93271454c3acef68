"""The updates of an iteration, in plain Python: the specification that every other updater is held to."""

import functools
import math

import torch
from torch import Tensor

from .. import streams
from ..contracts import Batch, Loss
from ..flat_parameters import backward
from ..guards.finite_checks import blame_gradient, check_loss, check_step, is_finite
from ..guards.gradient_flow import trace_terms
from ..run import Run
from ..stages import run_stage
from .batches import Minibatch, divided, divisor, minibatches, reduce
from .evaluate import evaluate_batch


class Updater:
    """Moves the policy's parameters by the gradients of minibatches."""

    def update(self, run: Run, whole: Batch) -> None:
        """Learn from all minibatches of all epochs, until the loss ends them."""
        for minibatch in minibatches(run.config.update, self.shuffle(run), whole):
            if not self.step(run, minibatch):
                break

    def shuffle(self, run: Run) -> torch.Generator:
        """The random numbers by which this iteration's minibatches are drawn."""
        return streams.generator(run.config.seed, "shuffle", run.iteration)

    def prepare(self, run: Run, minibatch: Minibatch) -> Batch:
        """The minibatch as extensions want it; it becomes the run's `batch`."""
        run.minibatch, run.batch = minibatch, None
        batch: Batch = run_stage(run, "prepare_batch", batch=minibatch.make())
        run.batch = batch
        return batch

    def step(self, run: Run, minibatch: Minibatch) -> bool:
        """One update; whether the loss lets the epochs go on."""
        batch = self.prepare(run, minibatch)
        run.parameters.refresh_views()
        loss = run_stage(run, "compute_loss", batch=batch)
        if not loss.stop_epochs:
            with run.interrupts.deferred():
                run_stage(run, "apply_gradients", loss=loss)
        return not loss.stop_epochs

    def apply_gradients(self, run: Run, loss: Loss) -> None:
        """Zero the gradients, go backward, clip, step."""
        terms, norm = self.gradients(run, loss)
        run.parameters.step()
        check_step(run)
        run.loss_metrics.append({**terms, **({} if norm is None else {"grad_norm": norm}), **loss.metrics})

    def gradients(self, run: Run, loss: Loss) -> tuple[dict[str, float], float | Tensor | None]:
        """The gradient of the sum of all terms, each summed and divided: its terms, and its norm before clipping.

        Backward from each number of each term: their sum and its division would be four kernels more.
        """
        settings, batch = run.config.update, run.batch
        assert batch is not None
        count = divisor(batch.total_steps, batch.total_episodes, settings.denominator, settings.constant)
        terms = {f"loss/{name}": divided(term.detach(), count).item() for name, term in loss.terms.items()}
        evaluate = functools.partial(evaluate_batch, run, batch)
        check_loss(run, loss, terms, evaluate)
        if run.traced is None or run.config.trace_gradients:
            terms |= trace_terms(run, reduce(loss, batch, settings.denominator, settings.constant), evaluate)
        run.parameters.zero()
        backward([term for term in loss.terms.values() if term.requires_grad], 1 / count)
        run.parameters.gather()
        norm = None if settings.max_grad_norm is None else run.parameters.clip(settings.max_grad_norm)
        if (norm is None or not math.isfinite(norm)) and not is_finite(run, gradients=True):
            again = run_stage(run, "compute_loss", batch=batch)  # the graph is gone
            blame_gradient(run, reduce(again, batch, settings.denominator, settings.constant), evaluate)
        return terms, norm
