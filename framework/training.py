"""The loop, on one screen, and the core's own stages."""

import functools
import math
import time
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from . import checks, streams
from .batches import Piece, divided, divisor, flatten, minibatches, reduce
from .blame import blamed, look_at_process, suspects
from .carried import keep
from .collecting import Collector
from .compiled import Compiler
from .contracts import Advantages, Batch, Estimate, Evaluation, Inputs, Loss, Rollout
from .episodes import Finished
from .errors import PartError
from .flow import SAID, norms_by_term
from .handed_out import handed, only_read, still_as_handed
from .hookspecs import STAGES, hookimpl
from .learnt import backward
from .measuring import measure
from .not_finite import blame_gradient, blame_loss, check_parameters, check_said, check_step, is_finite, thrown_away
from .observers import abandon, answers, tell, tell_of_failure
from .optimizers import learning_rate
from .process_state import restore_after, working
from .rollout import collect
from .run import Result, Run


def execute(run: Run) -> Result:
    """Train: collect, estimate, update, report; again until done or stopped.

    Ctrl-C ends the run like a reason to stop. What belongs to the process (see `process_state`) is put back at the end.

    Raises:
        PartError: a part or extension raised or broke its contract; the extensions were told by `run_failed`.
    """
    if (limit := run.shards[0].limit) is not None:
        limit.abandon = functools.partial(abandon, run)
    try:
        with working(run.config.threads), run.interrupts.watching():
            try:
                _train(run)
            except BaseException as error:
                run.interrupts.hold()
                _fail(run, error)
            run.learnt.release()
    finally:
        run.close()
    metrics = {name: np.array(numbers, np.float64) for name, numbers in run.history.items()}
    recent = np.array(run.recent_returns), np.array(run.recent_lengths, np.int64)
    return Result(run.policy, metrics, *recent, tuple(run.stop_reasons), run.directory, run.config, run)


def _train(run: Run) -> None:
    try:
        _loop(run)
    except KeyboardInterrupt:
        run.interrupts.hold()
        run.interrupted = True
    run.interrupts.hold()  # to the end: what was learnt is recorded, however often Ctrl-C comes
    if run.interrupted:
        run.stop_reasons.append("interrupted")
    _check_policy(run)
    keep(run.policy, run.environment, run.config.environment.label)
    tell(run, "run_finished")


def _loop(run: Run) -> None:
    config = run.config
    compiler = None
    if config.compile:
        compiler = Compiler(run, _prepared, _update, _gradients)
        run.collector = Collector(run)
    tell(run, "run_started")
    began = time.perf_counter()
    while config.progress(run.iteration, run.steps) < 1 and not run.stop_reasons:
        _iterate(run, compiler, began)


def _iterate(run: Run, compiler: Compiler | None, began: float) -> None:
    """Collect, estimate, update, report; what was collected is let go before the next time."""
    config, stage = run.config, functools.partial(_stage, run)
    streams.seed_global(run.device, streams.derived_seed(config.seed, "collect", run.iteration))
    if run.directory is not None:
        run.last_good.keep(run.policy, run._batch)
    run.batch = run.piece = None
    run.loss_metrics.clear()
    _set_learning_rate(run)
    rollout = stage("collect_rollout")
    look_at_process(run, "environment", "policy", "collect_rollout")
    advantages = stage("estimate_advantages", rollout=rollout)
    look_at_process(run, "estimator", "baseline", "estimate_advantages")
    streams.seed_torch(run.device, streams.derived_seed(config.seed, "update", run.iteration))
    whole = flatten(rollout, advantages)
    pieces = minibatches(run, whole)
    if compiler is not None:
        compiler.updates(whole, pieces)
    else:
        for piece in pieces:
            run.batch = functools.partial(_prepared, run, piece)
            if not _update(run):
                break
    check_parameters(run)
    look_at_process(run, "policy", "loss", *STAGES[2:])
    with run.interrupts.held():
        _observe(run, rollout, advantages)
        metrics = measure(run, whole.total_steps, began)
        tell(run, "iteration_finished", metrics=metrics)
        run.stop_reasons += _reasons(run, metrics)
        run.iteration += 1
    restore_after(lambda: suspects(run))


def _observe(run: Run, rollout: Rollout, advantages: Advantages) -> None:
    """Let baseline and policy learn what they keep of rollouts."""
    if hasattr(run.baseline, "update"):
        _called = run.config.baseline.label  # for blame
        with only_read(run.iteration == 0, f"{run.config.baseline.label}: update", rollout, advantages):
            run.baseline.update(rollout, advantages.returns)
    if hasattr(run.policy, "observe"):
        _called = run.config.policy.label
        with only_read(run.iteration == 0, f"{run.config.policy.label}: observe", rollout):
            run.policy.observe(rollout)


def _update(run: Run) -> bool:
    """Move by the gradients of the minibatch that is worked on; whether the loss lets the epochs go on."""
    batch = run.batch
    run.learnt.hold()
    loss = _stage(run, "compute_loss", batch=batch)
    if not loss.stop_epochs:
        with run.interrupts.held():
            _stage(run, "apply_gradients", loss=loss)
    return not loss.stop_epochs


def _prepared(run: Run, piece: Piece) -> Batch:
    run.piece = piece
    batch: Batch = _stage(run, "prepare_batch", batch=piece.batch())
    return batch


def _set_learning_rate(run: Run) -> None:
    """Where it has a schedule: this iteration's."""
    settings = run.config.optimizer
    if settings.schedule != "constant":
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(settings, run.config.progress(run.iteration, run.steps), 1)


def _reasons(run: Run, metrics: dict[str, float]) -> list[str]:
    reasons = []
    for extension, answer in answers(run, "should_stop", metrics=metrics):
        if not isinstance(answer, str):
            whose = run.owners[id(extension)]
            raise PartError(f"{whose}: should_stop: expected a reason (a string) or None, got {answer!r}")
        reasons.append(answer)
    return [reason for reason in reasons if reason]


def _stage(run: Run, name: str, **arguments: Any) -> Any:
    """Do a stage. The core checks what parts return in its own; what wrapping extensions made of that, here."""
    wrappers = run.wrappers.get(name)
    if not wrappers:
        return getattr(run.stages, name)(run, **arguments)
    whose = " or ".join(wrappers)
    try:
        with only_read(run.traced is None, f"{whose}: {name}", *arguments.values()):
            result = getattr(run.hook, name)(run=run, **arguments)
    except RuntimeError as error:  # pluggy's own, of a generator that yields never or twice
        if "wrap_controller at" in str(error):
            raise PartError(f"{whose}: {name}: a wrapper must yield once: {error}") from error
        raise
    still_as_handed(run, f"{whose}: {name}")
    checks.stage_result(f"{whose}: {name}", name, result, **arguments)
    return result


def _gradients(run: Run, loss: Loss) -> tuple[dict[str, float], float | Tensor | None]:
    """Divide, go backward, clip: what was descended, and the norm of the gradient before clipping.

    Backward from each number of each term: their sum and its division would be four kernels more, with their gradients.
    """
    settings, learnt = run.config.update, run.learnt
    assert run.batch is not None
    told = [term for term in loss.terms.values() if term.requires_grad]
    if not told:
        whose = run.config.loss.label
        raise PartError(f"{whose}: its terms carry no gradient (was a graph cut by detach or torch.tensor?)")
    count = divisor(run.batch, settings.denominator, settings.constant)
    terms = {f"loss/{name}": divided(term.detach(), count).item() for name, term in loss.terms.items()}
    evaluate = functools.partial(evaluated, run, run.batch)
    if not math.isfinite(sum(terms.values())):
        given = None if run.piece is None else run.piece.batch()
        blame_loss(run, loss, given, evaluate, functools.partial(run.stages.compute_loss, run, run.batch))
    if run.traced is None or run.config.trace_gradients:
        reduced = reduce(loss, run.batch, settings.denominator, settings.constant)
        norms = norms_by_term(run, reduced, evaluate)
        run.traced = run.traced or norms
        if run.config.trace_gradients:
            terms |= {
                f"gradient/{term}/{group}": norm for term, groups in norms.items() for group, norm in groups.items()
            }
    learnt.zero()
    backward(told, 1 / count)
    learnt.gather()
    norm = None if settings.max_grad_norm is None else learnt.clip(settings.max_grad_norm)
    if (norm is None or not math.isfinite(norm)) and not is_finite(run, gradients=True):
        again = _stage(run, "compute_loss", batch=run.batch)  # the graph is gone
        blame_gradient(run, reduce(again, run.batch, settings.denominator, settings.constant), evaluate)
    return terms, norm


class Core:
    """The core's stages: what extensions wrap."""

    @hookimpl
    def collect_rollout(self, run: Run) -> Rollout:
        """Let the policy's actor act until what the configuration asks for is complete."""
        made: tuple[Rollout, Finished] | None = None if run.collector is None else run.collector.collect()
        if made is not None:
            rollout, run.finished = made
            return handed(run, "collect_rollout", rollout)
        _called = run.config.policy.label
        snapshot = run.policy.actor() if hasattr(run.policy, "actor") else None
        if snapshot is not None:
            run.owners[id(snapshot)] = run.config.policy.label
        actor = run.policy if snapshot is None else snapshot
        rollout, run.finished = collect(run.shards, run.policy, actor, run.iteration, "values" in run.needs)
        if snapshot is not None:
            del run.owners[id(snapshot)]
        return handed(run, "collect_rollout", rollout)

    @hookimpl
    def estimate_advantages(self, run: Run, rollout: Rollout) -> Advantages:
        """advantages = weights · (returns − baseline)."""
        labels = run.config.estimator.label, run.config.baseline.label
        made = advantages_of(rollout, run.estimator, run.baseline, *labels, looking=run.traced is None)
        return handed(run, "estimate_advantages", made)

    @hookimpl
    def prepare_batch(self, run: Run, batch: Batch) -> Batch:
        """The minibatch as it is."""
        return batch

    @hookimpl
    def compute_loss(self, run: Run, batch: Batch) -> Loss:
        """Evaluate the policy on the batch and ask the loss."""
        with only_read(run.traced is None, f"{run.config.policy.label}: evaluate", batch):
            evaluation = evaluated(run, batch)
        if not evaluation.log_probs.requires_grad and torch.is_grad_enabled() and not _is_learnt(evaluation):
            whose = f"{run.config.policy.label}: evaluate"
            raise PartError(f"{whose}: carries no gradient (was a graph cut by detach or torch.tensor?)")
        _called = run.config.loss.label
        with only_read(run.traced is None, _called, batch):
            loss: Loss = run.loss(batch, evaluation)
        checks.loss(run.config.loss.label, loss, batch.advantages.shape)
        return loss

    @hookimpl
    def apply_gradients(self, run: Run, loss: Loss) -> bool:
        """Sum, divide, go backward, clip, step."""
        terms, norm = _gradients(run, loss)
        run.learnt.step()
        check_step(run)
        run.loss_metrics.append({**terms, **({} if norm is None else {"grad_norm": norm}), **loss.metrics})
        return True


def advantages_of(
    rollout: Rollout,
    estimator: Any,
    baseline: Any,
    whose: str = "the estimator",
    whose_baseline: str = "the baseline",
    looking: bool = False,
) -> Advantages:
    """advantages = weights · (returns − baseline), of the working parts; what they return is checked.

    If `looking`, one that writes into what it is handed is refused.
    """
    with torch.no_grad():
        shape = rollout.mask.shape
        _called = whose
        with only_read(looking, whose, rollout):
            estimate = estimator(rollout)
        checks.kind(whose, estimate, Estimate)
        checks.per_step(f"{whose}: returns", estimate.returns, shape)
        if estimate.value_targets is not estimate.returns:
            checks.per_step(f"{whose}: value_targets", estimate.value_targets, shape)
        if estimate.weights is not None:
            checks.per_step(f"{whose}: weights", estimate.weights, shape)
        _called = whose_baseline
        with only_read(looking, whose_baseline, rollout, estimate):
            subtracted = baseline(rollout, estimate.returns)
        checks.per_step(whose_baseline, subtracted, shape)
        advantages = estimate.returns - subtracted  # in the wider dtype: a baseline's may be float64
        if estimate.weights is not None:
            advantages = advantages * estimate.weights
        return Advantages(advantages.to(estimate.returns.dtype), estimate.returns, estimate.value_targets)


def _is_learnt(evaluation: Evaluation) -> bool:
    """Whether anything that the policy said carries a gradient."""
    given = (getattr(evaluation, name) for name in SAID)
    return any(tensor.requires_grad for tensor in given if tensor is not None)


def evaluated(run: Run, batch: Batch) -> Evaluation:
    """What the policy says of each step of the batch [B], by itself or, with memory, in its sequence."""
    parts, label = batch.sequences, run.config.policy.label
    if parts is None:
        inputs, actions, shape = Inputs(batch.observations, batch.action_masks), batch.actions, batch.advantages.shape
    else:
        inputs, actions, shape = parts.inputs, parts.actions, parts.real.shape
    _called = label
    evaluation = run.policy.evaluate(inputs, actions, "entropies" in run.needs)
    checks.kind(f"{label}: evaluate", evaluation, Evaluation)
    given: dict[str, Any] = {name: getattr(evaluation, name) for name in SAID}
    for name, column in given.items():
        if column is None and name != "log_probs" and name not in run.loss_needs:
            continue
        if not checks.is_numbers(column, shape):
            checks.columns(f"{label}: evaluate: {name}", column, inputs)
        if parts is not None:
            given[name] = column[parts.real]
    return evaluation if parts is None else Evaluation(**given)


def _check_policy(run: Run) -> None:
    """Refuse a policy whose parameters, or what it says of the last batch, are not finite."""
    check_parameters(run)
    if run.batch is not None:
        check_said(run, functools.partial(evaluated, run, run.batch))


def _fail(run: Run, error: BaseException) -> NoReturn:
    """Name whose it was, tell the extensions, raise."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    error = blamed(run, error)
    error = thrown_away(run, error) or error
    tell_of_failure(run, error)
    raise error
