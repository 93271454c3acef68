"""Bias and variance of gradients: what estimator, baseline and loss make of rollouts of one fixed policy.

Only what reaches the log-probs counts; entropy bonus and critic are left out. All combinations see the same batches, of
whole episodes collected by number, so that they differ by what they make of them and not by luck.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, Literal

import attrs
import torch
from attrs import define, evolve, frozen
from torch import Tensor

from .. import streams
from ..collecting.rollout import actor_of, collect
from ..collecting.shard import Shard
from ..contracts import Batch, Evaluation, Inputs, Loss, Rollout, TabularMDP
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

MAX_LANES = 4096  # lanes that are walked at once, where a world of tables is
MAX_ROLLOUTS = 5000  # that are enumerated for an expected gradient; a few thousand take a second


@frozen(eq=False)
class Audit:
    """What came out for all of them."""

    rows: tuple[Audited, ...]  # in the order of the runs
    missing: str | None  # why there is no exact gradient; None: there is
    critic: Literal["exact", "policy"] | None  # whose values were used; None: no part needs any
    seconds: float  # that the sampling took


def objective(settings: Any) -> tuple[Literal["discounted", "undiscounted"], float]:
    """The objective that an estimator's gradient is held against, and its γ.

    It is what its settings claim; without a claim, the return discounted by their `gamma` (1, where they have none).
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
    """Sample the gradients of combinations; the policy stays as it is.

    Args:
        runs: the combinations, wired, which differ in estimator, baseline and loss alone. Policy, environment and the
            size of a batch, which is their `rollout.episodes`, are the first one's.
        episodes: in all, rounded up to whole batches; at least two batches.
        critic: whose V(s) estimators and baselines are given: that of an episode that begins in s, exact and for each
            estimator's own γ, or the policy's own. Where exact values are missing it is the policy's.
        on_progress: called now and then with the number of episodes so far.

    Raises:
        UsageError: a single batch; a value that does not exist (γ = 1 and an episode that never ends, or a policy
            without a critic where its own is asked for).
        PartError: a part broke its contract.
    """
    first = runs[0]
    size = first.config.rollout.episodes
    assert size is not None
    num_batches = math.ceil(episodes / size)
    if num_batches < 2:
        raise UsageError(f"a variance takes at least two batches: {episodes} episodes, of which {size} are a batch")
    spaces = finite_spaces(first.environment)
    memory = spaces is not None and has_memory(first)
    missing = _why_no_exact_gradient(first, spaces, memory)
    needed = any("values" in run.needs for run in runs)
    own_values = needed and (critic == "policy" or missing is not None)
    if own_values and not hasattr(first.policy, "values"):
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
    """Why there is no exact gradient; None: there is."""
    label = run.config.environment.label
    if not hasattr(run.environment, "mdp"):
        return f"{label} has no mdp()"
    if spaces is None or any(int(space.start) for space in spaces):
        return f"{label} has an mdp(), but its spaces are not Discrete, numbered from 0 and never masked"
    return f"{run.config.policy.label} has memory, and exact gradients are of policies without" if memory else None


def _exact_values(runs: Sequence[Run], samples: Sequence[Samples], discounts: Sequence[float]) -> dict[float, Tensor]:
    """Note what is known without sampling: ∇J and, where it can be enumerated, E G; returns V(o) for each γ."""
    mdp, policy = runs[0].environment.mdp(), runs[0].policy
    values = {gamma: exact_critic(mdp, policy, gamma) for gamma in set(discounts)}
    for run, sampled, known in zip(runs, samples, [values[gamma] for gamma in discounts] or repeat(None), strict=False):
        sampled.gradient = gradient(mdp, policy, objective(run.config.estimator.settings)[1])
        sampled.expected = enumerated_gradient(run, mdp, known)
    return values


def exact_critic(mdp: TabularMDP, policy: Any, gamma: float) -> Tensor:
    """V(o) `[O]`: V(s) of an episode that begins in s; of states that look alike, their mean as often as each is seen.

    That is what a critic can know, who sees observations alone and no clock. 0 for what is never seen.

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
    """A loss of which only what reaches the log-probs counts."""

    loss: Any
    needs: frozenset[str]

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        entropies = None if evaluation.entropies is None else evaluation.entropies.detach()
        loss: Loss = self.loss(batch, Evaluation(evaluation.log_probs, entropies, batch.values))
        return loss


def enumerated_gradient(run: Run, mdp: TabularMDP, values: Tensor | None) -> Tensor | None:
    """E G `[P]` of a run with its baseline as it is at first; None: too many rollouts. `values`: a critic's `[O]`."""
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
    """Of each run, a row for each batch; `parts` are each run's batches, the same episodes for all."""
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
            if hasattr(run.baseline, "update"):
                run.baseline.update(rollout, advantages.returns)
            sampled.seconds += time.perf_counter() - clock
    return [torch.stack(run_rows) for run_rows in rows]


# Where batches come from


class _StateNumbers:
    """Stands in for the policy while collecting: a state's value is its number, so that any V can be looked up."""

    def __init__(self, policy: Any, spaces: Spaces) -> None:
        self._policy, self._first = policy, int(spaces[0].start)

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        return Evaluation(self._policy.evaluate(inputs, actions, entropies).log_probs)

    def values(self, inputs: Inputs) -> Tensor:
        return (inputs.observations - self._first).double()


@define(eq=False)
class _Source:
    """Where rollouts come from: a batch at a time or, where a world of tables is walked, hundreds."""

    shard: Shard
    iteration: int = 0

    @classmethod
    def of(cls, run: Run, size: int, count: int) -> "_Source":
        """Of a run whose lanes are a batch of `size` episodes; `count` batches are wanted."""
        # whose random numbers no training run has had
        shard = evolve(run.shards[0], seed=streams.derived_seed(run.config.seed, "audit"))
        if isinstance(shard, TabularShard) and table_of(actor_of(run.policy), run.policy) is not None:
            lanes = size * min(count, max(1, MAX_LANES // size))
            shard = evolve(shard, lanes=lanes, episodes=lanes)
        return cls(shard)

    def collect(self, run: Run, own: bool, numbered: Spaces | None) -> Rollout:
        """The next rollout; with the policy's `own` values, or `numbered` ones of these spaces, or none."""
        policy = run.policy
        evaluator = policy if numbered is None else _StateNumbers(policy, numbered)
        rollout, _ = collect([self.shard], evaluator, actor_of(policy), self.iteration, own or numbered is not None)
        self.iteration += 1
        return rollout


def with_values(rollout: Rollout, values: Tensor) -> Rollout:
    """A rollout whose values are numbers of states, with V(s) `[S]` of these instead; 0 where the world ended."""
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
    """A rollout of one episode a lane in batches of so many lanes: each as if it had been collected by itself."""
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
