"""The core's own stages, which extensions wrap, and how a stage is run."""

from typing import Any

import torch

from .contracts import Advantages, Batch, Evaluation, Loss, Rollout
from .errors import PartError
from .guards import checks
from .guards.gradient_flow import OUTPUTS
from .guards.mutation import check_unchanged, refuse_writes, remember
from .hookspecs import hookimpl
from .learning.advantages import compute_advantages
from .learning.evaluate import evaluate_batch
from .run import Run


class Core:
    """The stages as they are where nothing wraps them."""

    @hookimpl
    def collect_rollout(self, run: Run) -> Rollout:
        """Let the policy act until what the configuration asks for is complete."""
        return remember(run, "collect_rollout", run.collector.collect(run))

    @hookimpl
    def estimate_advantages(self, run: Run, rollout: Rollout) -> Advantages:
        """advantages = weights · (returns − baseline)."""
        labels = run.config.estimator.label, run.config.baseline.label
        advantages = compute_advantages(rollout, run.estimator, run.baseline, *labels, watch=run.traced is None)
        return remember(run, "estimate_advantages", advantages)

    @hookimpl
    def prepare_batch(self, run: Run, batch: Batch) -> Batch:
        """The minibatch as it is."""
        return batch

    @hookimpl
    def compute_loss(self, run: Run, batch: Batch) -> Loss:
        """Evaluate the policy on the batch, and compute the loss of that."""
        label = f"{run.config.policy.label}: evaluate"
        with refuse_writes(run.traced is None, label, batch):
            evaluation = evaluate_batch(run, batch)
        if not evaluation.log_probs.requires_grad and torch.is_grad_enabled() and not _has_gradient(evaluation):
            raise PartError(f"{label}: carries no gradient (was a graph cut by detach or torch.tensor?)")
        _called = run.config.loss.label  # for blame
        with refuse_writes(run.traced is None, _called, batch):
            loss: Loss = run.loss(batch, evaluation)
        checks.loss(run.config.loss.label, loss, batch.advantages.shape)
        return loss

    @hookimpl
    def apply_gradients(self, run: Run, loss: Loss) -> bool:
        """Zero the gradients, go backward, clip, step."""
        run.updater.apply_gradients(run, loss)
        return True


def run_stage(run: Run, name: str, **arguments: Any) -> Any:
    """Do a stage. The core checks what parts return in its own; what wrapping extensions made of that, here."""
    wrappers = run.wrappers.get(name)
    if not wrappers:
        return getattr(run.stages, name)(run, **arguments)
    label = " or ".join(wrappers)
    try:
        with refuse_writes(run.traced is None, f"{label}: {name}", *arguments.values()):
            result = getattr(run.hook, name)(run=run, **arguments)
    except RuntimeError as error:  # pluggy's own, of a generator that yields never or twice
        if "wrap_controller at" in str(error):
            raise PartError(f"{label}: {name}: a wrapper must yield once: {error}") from error
        raise
    check_unchanged(run, f"{label}: {name}")
    checks.stage_result(f"{label}: {name}", name, result, **arguments)
    return result


def _has_gradient(evaluation: Evaluation) -> bool:
    columns = (getattr(evaluation, name) for name in OUTPUTS)
    return any(column.requires_grad for column in columns if column is not None)
