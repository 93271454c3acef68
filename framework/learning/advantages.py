"""advantages = weights · (returns − baseline)."""

import torch

from ..contracts import Advantages, Baseline, Estimate, Estimator, Rollout
from ..guards import checks
from ..guards.mutation import refuse_writes


def compute_advantages(
    rollout: Rollout,
    estimator: Estimator,
    baseline: Baseline,
    estimator_label: str = "the estimator",
    baseline_label: str = "the baseline",
    watch: bool = False,
) -> Advantages:
    """What the working parts make of a rollout, each column [T, N].

    Args:
        rollout: as it was collected.
        estimator: gives returns, targets of a critic and perhaps weights.
        baseline: gives what is subtracted from the returns.
        estimator_label, baseline_label: what errors call the two.
        watch: refuse a part that writes into what it is handed.

    Raises:
        PartError: a part returned something of another kind, shape or dtype, or numbers that are not finite.
    """
    with torch.no_grad():
        shape = rollout.mask.shape
        _called = estimator_label  # for blame
        with refuse_writes(watch, estimator_label, rollout):
            estimate = estimator(rollout)
        checks.kind(estimator_label, estimate, Estimate)
        checks.per_step(f"{estimator_label}: returns", estimate.returns, shape)
        if estimate.value_targets is not estimate.returns:
            checks.per_step(f"{estimator_label}: value_targets", estimate.value_targets, shape)
        if estimate.weights is not None:
            checks.per_step(f"{estimator_label}: weights", estimate.weights, shape)
        _called = baseline_label
        with refuse_writes(watch, baseline_label, rollout, estimate):
            subtracted = baseline(rollout, estimate.returns)
        checks.per_step(baseline_label, subtracted, shape)
        advantages = estimate.returns - subtracted  # in the wider dtype: a baseline's may be float64
        if estimate.weights is not None:
            advantages = advantages * estimate.weights
        return Advantages(advantages.to(estimate.returns.dtype), estimate.returns, estimate.value_targets)
