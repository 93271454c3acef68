"""The loop, on one screen: collect, estimate, update, report; again until done or stopped."""

import functools
import time
from typing import NoReturn

from . import streams
from .capabilities import HasObserve, HasUpdate, has
from .contracts import Advantages, Rollout
from .guards.blame import attribute_error, check_process_state, labels_in
from .guards.finite_checks import check_parameters, check_said, thrown_away
from .guards.mutation import refuse_writes
from .guards.process_state import restore_after, working
from .hookspecs import STAGES
from .learning.batches import flatten
from .learning.evaluate import evaluate_batch
from .learning.learning_rate import set_learning_rate
from .records.environment_state import keep
from .reporting.metrics import measure
from .reporting.observers import abandon, notify, notify_of_failure, reasons_to_stop
from .result import Result
from .run import Run
from .stages import run_stage


def execute(run: Run) -> Result:
    """Train until the configured length is reached, an extension stops the run, or Ctrl-C ends it.

    What belongs to the process (see `guards.process_state`) is put back at the end.

    Raises:
        PartError: a part or extension raised or broke its contract; extensions are notified by `run_failed`.
    """
    if (limit := run.shards[0].limit) is not None:
        limit.abandon = functools.partial(abandon, run)
    try:
        with working(run.config.threads), run.interrupts.watching():
            try:
                _train(run)
            except BaseException as error:
                run.interrupts.defer()
                _fail(run, error)
            run.parameters.release()
    finally:
        run.close()
    return Result.of(run)


def _train(run: Run) -> None:
    try:
        notify(run, "run_started")
        began = time.perf_counter() - run.seconds  # of a run that goes on, those before count too
        while run.config.progress(run.iteration, run.steps) < 1 and not run.stop_reasons:
            _iterate(run, began)
    except KeyboardInterrupt:
        run.interrupts.defer()
        run.interrupted = True
    run.interrupts.defer()  # to the end: what was learnt is recorded, however often Ctrl-C comes
    if run.interrupted:
        run.stop_reasons.append("interrupted")
    check_parameters(run)
    if run.batch is not None:
        check_said(run, functools.partial(evaluate_batch, run, run.batch))
    keep(run.policy, run.environment, run.config.environment.label)
    notify(run, "run_finished")


def _iterate(run: Run, began: float) -> None:
    """Collect, estimate, update, report; what was collected is let go before the next time."""
    streams.seed_global(run.device, streams.derived_seed(run.config.seed, "collect", run.iteration))
    if run.directory is not None:
        run.last_good.keep(run.policy, run.batch)
    run.batch = run.minibatch = None
    run.loss_metrics.clear()
    set_learning_rate(run.optimizer, run.config.optimizer, run.config.progress(run.iteration, run.steps))

    rollout = run_stage(run, "collect_rollout")
    check_process_state(run, "environment", "policy", "collect_rollout")
    advantages = run_stage(run, "estimate_advantages", rollout=rollout)
    check_process_state(run, "estimator", "baseline", "estimate_advantages")
    streams.seed_torch(run.device, streams.derived_seed(run.config.seed, "update", run.iteration))
    batch = flatten(rollout, advantages)
    run.updater.update(run, batch)
    check_parameters(run)
    check_process_state(run, "policy", "loss", *STAGES[2:])

    with run.interrupts.deferred():
        _observe(run, rollout, advantages)
        metrics = measure(run, batch.total_steps, began)
        notify(run, "iteration_finished", metrics=metrics)
        run.stop_reasons += reasons_to_stop(run, metrics)
        run.iteration += 1
    restore_after(lambda: labels_in(run))


def _observe(run: Run, rollout: Rollout, advantages: Advantages) -> None:
    """Let baseline and policy learn what they keep of rollouts."""
    if has(run.baseline, HasUpdate):
        _called = run.config.baseline.label  # for blame
        with refuse_writes(run.iteration == 0, f"{run.config.baseline.label}: update", rollout, advantages):
            run.baseline.update(rollout, advantages.returns)
    if has(run.policy, HasObserve):
        _called = run.config.policy.label
        with refuse_writes(run.iteration == 0, f"{run.config.policy.label}: observe", rollout):
            run.policy.observe(rollout)


def _fail(run: Run, error: BaseException) -> NoReturn:
    """Name the part that raised, notify the extensions, raise."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    error = attribute_error(run, error)
    error = thrown_away(run, error) or error
    notify_of_failure(run, error)
    raise error
