"""The policy's log-probs, entropies and values of a batch, checked."""

from typing import Any

from ..contracts import Batch, Evaluation, Inputs
from ..guards import checks
from ..guards.gradient_flow import OUTPUTS
from ..run import Run


def evaluate_batch(run: Run, batch: Batch) -> Evaluation:
    """The policy's evaluation of each step of the batch, each column [B]; with memory, of each step in its sequence.

    Raises:
        PartError: the policy returned something of another kind, shape or dtype.
    """
    parts, label = batch.sequences, run.config.policy.label
    if parts is None:
        inputs, actions, shape = Inputs(batch.observations, batch.action_masks), batch.actions, batch.advantages.shape
    else:
        inputs, actions, shape = parts.inputs, parts.actions, parts.real.shape
    _called = label  # for blame
    evaluation = run.policy.evaluate(inputs, actions, "entropies" in run.needs)
    checks.kind(f"{label}: evaluate", evaluation, Evaluation)
    columns: dict[str, Any] = {name: getattr(evaluation, name) for name in OUTPUTS}
    for name, column in columns.items():
        if column is None and name != "log_probs" and name not in run.loss_needs:
            continue
        if not checks.is_numbers(column, shape):
            checks.columns(f"{label}: evaluate: {name}", column, inputs)
        if parts is not None:
            columns[name] = column[parts.real]
    return evaluation if parts is None else Evaluation(**columns)
