"""Bias and variance of the gradients that combinations of estimator, baseline and loss give for one fixed policy.

Only the gradient through log-probs counts; entropy bonus and critic are left out. All combinations are given the same
batches of whole episodes, so that they do not differ by chance.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, Literal, cast

import attrs
import torch
from attrs import define, evolve, frozen
from torch import Tensor

from .. import streams
from ..capabilities import HasTables, HasUpdate, HasValues, has
from ..collecting.rollout import actor_of, collect
from ..collecting.shard import Shard
from ..contracts import Batch, Evaluation, Inputs, Loss, Policy, Rollout, TabularMDP
from ..errors import UsageError
from ..exact import count_trajectories, expected_gradient, gradient, state_values, visitation
from ..learning.batches import flatten
from ..run import Run
from ..tabular.shard import TabularShard, table_of
from .gradients import (
    BackwardGradients,
    Spaces,
    TableGradients,
    finite_spaces,
    gradients_of,
    has_memory,
    log_prob_gradients,
)
from .samples import Audited, Samples

MAX_LANES = 4096  # lanes that are sampled at once in a tabular environment
MAX_ROLLOUTS = 5000  # enumerated for an expected gradient; a few thousand take a second


@frozen(eq=False)
class Audit:
    """The results of an audit."""

    rows: tuple[Audited, ...]  # in the order of the runs
    missing: str | None  # why there is no exact gradient; None: there is one
    critic: Literal["exact", "policy"] | None  # source of the values; None: no part needs values
    seconds: float  # spent on sampling


def objective(settings: Any) -> tuple[Literal["discounted", "undiscounted"], float]:
    """The objective that an estimator's gradient is compared with, and its γ.

    It is the one that the settings claim; without a claim, the return discounted by their `gamma` (1 if there is none).
    """
    claims, gamma = getattr(settings, "claims", ()), float(getattr(settings, "gamma", 1.0))
    if "unbiased:undiscounted" in claims or (gamma == 1 and "unbiased:discounted" not in claims):
        return "undiscounted", 1.0
    return "discounted", gamma


def audit(
    runs: Sequence[Run],
    *,
    episodes: int,
    critic: Literal["exact", "policy"] = "exact",
    on_progress: Callable[[int], None] = lambda episodes: None,
) -> Audit:
    """Sample the gradients of combinations; the policy does not change.

    Args:
        runs: the combinations, as runs that differ only in estimator, baseline and loss. Policy, environment and the
            size of a batch (`rollout.episodes`) are taken from the first one.
        episodes: total number of episodes, rounded up to whole batches; at least two batches.
        critic: V(s) that estimators and baselines are given: "exact" is the value of an episode that starts in s, for
            each estimator's γ; "policy" is the policy's own critic, which is also used if there are no exact values.
        on_progress: called from time to time with the number of episodes so far.

    Raises:
        UsageError: there is only one batch; or values do not exist (γ = 1 and an episode that never ends, or the
            policy's own critic is requested and it has none).
        PartError: a part breaks its contract.
    """
    first = runs[0]
    size = first.config.rollout.episodes
    assert size is not None
    num_batches = math.ceil(episodes / size)
    if num_batches < 2:
        raise UsageError(f"a variance needs at least two batches: {episodes} episodes, with {size} per batch")
    spaces = finite_spaces(first.environment)
    memory = spaces is not None and has_memory(first)
    missing = _why_no_exact_gradient(first, spaces, memory)
    needed = any("values" in run.needs for run in runs)
    own_values = needed and (critic == "policy" or missing is not None)
    if own_values and not has(first.policy, HasValues):
        why = missing or "the critic is to be the policy's (--critic policy)"
        raise UsageError(f"{first.config.policy.label}: gives no values, which a part needs, and {why}")
    discounts = [float(getattr(run.config.estimator.settings, "gamma", 1.0)) for run in runs]
    samples = [Samples() for _ in runs]
    values: dict[float, Tensor] = {}
    if missing is None:
        try:
            values = _exact_values(runs, samples, discounts if needed and not own_values else ())
        except ValueError as error:
            raise UsageError(f"{first.config.environment.label}: {error}") from error
    sampling_run = evolve(first, needs=frozenset().union(*(run.needs for run in runs)), loss_needs=frozenset())
    method = gradients_of(sampling_run, None if memory else spaces)
    source = _Source.of(first, size, num_batches)
    steps, collecting, batches_done, start = 0, 0.0, 0, time.perf_counter()
    while batches_done < num_batches:
        timer = time.perf_counter()
        rollout = source.collect(first, own_values, spaces if values else None)
        batches: dict[float | None, list[Rollout]] = {
            gamma: list(split_into_batches(rollout if gamma is None else with_values(rollout, values[gamma]), size))
            for gamma in values or [None]
        }
        parts = [batches[gamma if values else None] for gamma in discounts]
        number = min(len(parts[0]), num_batches - batches_done)
        collecting += (time.perf_counter() - timer) * number / len(parts[0])
        steps += int(torch.stack([part.mask.sum() for part in parts[0][:number]]).sum())
        rows = _gradient_rows(runs, [part[:number] for part in parts], method, samples)
        for sampled, row in zip(samples, rows, strict=True):
            timer = time.perf_counter()
            sampled.add(-method.gradients(row) / size)
            sampled.seconds += time.perf_counter() - timer
        batches_done += number
        on_progress(batches_done * size)
    audited = tuple(sampled.audited(size, steps / num_batches, collecting / num_batches) for sampled in samples)
    critic_used: Literal["exact", "policy"] = "policy" if own_values else "exact"
    return Audit(audited, missing, critic_used if needed else None, time.perf_counter() - start)


def _why_no_exact_gradient(run: Run, spaces: Spaces | None, memory: bool) -> str | None:
    """Why there is no exact gradient; None if there is one."""
    label = run.config.environment.label
    if not has(run.environment, HasTables):
        return f"{label} has no mdp()"
    if spaces is None or any(int(space.start) for space in spaces):
        return f"{label} has an mdp(), but its spaces are not Discrete, numbered from 0 and never masked"
    return f"{run.config.policy.label} has memory, and exact gradients are of policies without" if memory else None


def _exact_values(runs: Sequence[Run], samples: Sequence[Samples], discounts: Sequence[float]) -> dict[float, Tensor]:
    """Store ∇J and, if it can be enumerated, E G in the samples; returns V(o) for each γ."""
    environment, policy = runs[0].environment, runs[0].policy
    assert has(environment, HasTables)
    mdp = environment.mdp()
    values = {gamma: exact_critic(mdp, policy, gamma) for gamma in set(discounts)}
    for run, sampled, known in zip(runs, samples, [values[gamma] for gamma in discounts] or repeat(None), strict=False):
        sampled.gradient = gradient(mdp, policy, objective(run.config.estimator.settings)[1])
        sampled.expected = enumerated_gradient(run, mdp, known)
    return values


def exact_critic(mdp: TabularMDP, policy: Any, gamma: float) -> Tensor:
    """V(o) `[O]`: V(s) of an episode that starts in s; the mean, weighted by visits, of states with this observation.

    This is the best that a critic can do that depends on the observation only, and not on time. It is 0 for
    observations that never occur.

    Raises:
        ValueError: γ = 1 and, without a time limit, an episode that may never end.
    """
    with torch.no_grad():
        values = state_values(mdp, policy, gamma)
        if mdp.observations is None:
            return values
        visits = visitation(mdp, policy, gamma)
        weights = torch.bincount(mdp.seen, visits)
        return torch.bincount(mdp.seen, visits * values) / torch.where(weights > 0, weights, 1.0)


@frozen(eq=False)
class _PolicyTermsOnly:
    """A loss of which only the gradient through log-probs counts."""

    loss: Any
    needs: frozenset[str]

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        entropies = None if evaluation.entropies is None else evaluation.entropies.detach()
        loss: Loss = self.loss(batch, Evaluation(evaluation.log_probs, entropies, batch.values))
        return loss


def enumerated_gradient(run: Run, mdp: TabularMDP, values: Tensor | None) -> Tensor | None:
    """E G `[P]` of a run with its initial baseline; None: too many rollouts. `values`: those of a critic `[O]`."""
    episodes, groups = run.config.rollout.episodes, getattr(run.environment, "groups", None)
    assert episodes is not None
    if mdp.time_limit is None or (groups is not None and bool((groups != groups[0]).any())):
        return None
    if count_trajectories(mdp) ** episodes > MAX_ROLLOUTS:
        return None
    parts = run.config.estimator.settings, run.config.baseline.settings, _PolicyTermsOnly(run.loss, run.loss_needs)
    critic = None if values is None else values[mdp.seen]
    return expected_gradient(mdp, run.policy, *parts, episodes=episodes, critic=critic, groups=groups is not None)


def _gradient_rows(
    runs: Sequence[Run],
    parts: Sequence[Sequence[Rollout]],
    method: TableGradients | BackwardGradients,
    samples: Sequence[Samples],
) -> list[Tensor]:
    """For each run, a row per batch; `parts` are each run's batches, with the same episodes for all runs."""
    rows: list[list[Tensor]] = [[] for _ in runs]
    for batches in zip(*parts, strict=True):
        evaluated = None
        for run, rollout, run_rows, sampled in zip(runs, batches, rows, samples, strict=True):
            clock = time.perf_counter()
            advantages = run.stages.estimate_advantages(run, rollout)
            batch = flatten(rollout, advantages)
            if evaluated is None:
                evaluated = method.of(batch)
            log_probs, entropies, row = evaluated
            run_rows.append(row(log_prob_gradients(run, batch, log_probs, entropies)))
            if has(run.baseline, HasUpdate):
                run.baseline.update(rollout, advantages.returns)
            sampled.seconds += time.perf_counter() - clock
    return [torch.stack(run_rows) for run_rows in rows]


# Where batches come from


class _StateNumbers:
    """Replaces the policy while collecting: the value of a state is its number, to look up any V later."""

    def __init__(self, policy: Any, spaces: Spaces) -> None:
        self._policy, self._first = policy, int(spaces[0].start)

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        return Evaluation(self._policy.evaluate(inputs, actions, entropies).log_probs)

    def values(self, inputs: Inputs) -> Tensor:
        return (inputs.observations - self._first).double()


@define(eq=False)
class _Source:
    """Collects rollouts: one batch at a time or, in a tabular environment, hundreds."""

    shard: Shard
    iteration: int = 0

    @classmethod
    def of(cls, run: Run, size: int, count: int) -> "_Source":
        """The source for a run whose lanes make a batch of `size` episodes; `count` batches are needed."""
        # with random numbers that no training run uses
        shard = evolve(run.shards[0], seed=streams.derived_seed(run.config.seed, "audit"))
        if isinstance(shard, TabularShard) and table_of(actor_of(run.policy), run.policy) is not None:
            lanes = size * min(count, max(1, MAX_LANES // size))
            shard = evolve(shard, lanes=lanes, episodes=lanes)
        return cls(shard)

    def collect(self, run: Run, own: bool, numbered: Spaces | None) -> Rollout:
        """The next rollout; with the policy's `own` values, with state numbers as values (`numbered`), or without."""
        policy = run.policy
        evaluator: Policy = policy if numbered is None else cast(Policy, _StateNumbers(policy, numbered))
        rollout, _ = collect([self.shard], evaluator, actor_of(policy), self.iteration, own or numbered is not None)
        self.iteration += 1
        return rollout


def with_values(rollout: Rollout, values: Tensor) -> Rollout:
    """Replace values that are numbers of states by V(s) `[S]` of these states; 0 where an episode terminated."""
    assert rollout.values is not None
    assert rollout.successor_values is not None
    table = values.to(rollout.rewards)
    continuing = rollout.mask & ~rollout.terminated
    return evolve(
        rollout,
        values=table[rollout.values.long()] * rollout.mask,
        successor_values=table[rollout.successor_values.long()] * continuing,
    )


def split_into_batches(rollout: Rollout, episodes: int) -> Iterator[Rollout]:
    """Split a rollout of one episode per lane into batches of so many lanes, as if collected separately."""
    if rollout.mask.shape[1] == episodes:
        yield rollout
        return
    columns: dict[str, Tensor] = {}
    for attribute in attrs.fields(Rollout):
        column = getattr(rollout, attribute.name)
        if column is not None:
            columns[attribute.name] = column.unflatten(1, (-1, episodes)).movedim(1, 0).contiguous()  # [K, T, E, …]
    lengths = columns["mask"].any(2).sum(1).tolist()
    first_episodes = episodes * torch.arange(len(lengths))
    columns["episodes"] = torch.where(columns["mask"], columns["episodes"] - first_episodes[:, None, None], 0)
    for number, steps in enumerate(lengths):
        yield Rollout(**{name: column[number, :steps] for name, column in columns.items()})
