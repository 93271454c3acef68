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
from ..capabilities import HasTables, HasUpdate, HasValues, has
from ..collecting.rollout import actor_of, collect
from ..collecting.shard import Shard
from ..contracts import Batch, Evaluation, Inputs, Loss, Rollout, TabularMDP
from ..errors import UsageError
from ..exact import count_trajectories, expected_gradient, gradient, state_values, visitation
from ..learning.batches import flatten
from ..run import Run
from ..tabular.shard import TabularShard, table_of
from .gradients import Backward, Finite, Spaces, finite_spaces, gradients_of, log_prob_slopes, remembers
from .samples import Audited, Samples

WIDE = 4096  # lanes that are walked at once, where a world of tables is
MOST_ROLLOUTS = 5000  # that are enumerated for an expected gradient; a few thousand take a second


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
    count = math.ceil(episodes / size)
    if count < 2:
        raise UsageError(f"a variance takes at least two batches: {episodes} episodes, of which {size} are a batch")
    spaces = finite_spaces(first.environment)
    memory = spaces is not None and remembers(first)
    missing = _missing(first, spaces, memory)
    needed = any("values" in run.needs for run in runs)
    own = needed and (critic == "policy" or missing is not None)
    if own and not has(first.policy, HasValues):
        why = missing or "the critic is to be the policy's (--critic policy)"
        raise UsageError(f"{first.config.policy.label}: gives no values, which a part needs, and {why}")
    discounts = [float(getattr(run.config.estimator.settings, "gamma", 1.0)) for run in runs]
    samples = [Samples() for _ in runs]
    values: dict[float, Tensor] = {}
    if missing is None:
        try:
            values = _exactly(runs, samples, discounts if needed and not own else ())
        except ValueError as error:
            raise UsageError(f"{first.config.environment.label}: {error}") from error
    asking = evolve(first, needs=frozenset().union(*(run.needs for run in runs)), loss_needs=frozenset())
    through = gradients_of(asking, None if memory else spaces)
    source = _Source.of(first, size, count)
    steps, collecting, done, began = 0, 0.0, 0, time.perf_counter()
    while done < count:
        clock = time.perf_counter()
        rollout = source.collect(first, own, spaces if values else None)
        batches: dict[float | None, list[Rollout]] = {
            gamma: list(cut(rollout if gamma is None else looked_up(rollout, values[gamma]), size))
            for gamma in values or [None]
        }
        parts = [batches[gamma if values else None] for gamma in discounts]
        number = min(len(parts[0]), count - done)
        collecting += (time.perf_counter() - clock) * number / len(parts[0])
        steps += int(torch.stack([part.mask.sum() for part in parts[0][:number]]).sum())
        rows = _rows(runs, [part[:number] for part in parts], through, samples)
        for sampled, row in zip(samples, rows, strict=True):
            clock = time.perf_counter()
            sampled.add(-through.gradients(row) / size)
            sampled.seconds += time.perf_counter() - clock
        done += number
        on_progress(done * size)
    audited = tuple(sampled.audited(size, steps / count, collecting / count) for sampled in samples)
    whose: Literal["exact", "policy"] = "policy" if own else "exact"
    return Audit(audited, missing, whose if needed else None, time.perf_counter() - began)


def _missing(run: Run, spaces: Spaces | None, memory: bool) -> str | None:
    """Why there is no exact gradient; None: there is."""
    whose = run.config.environment.label
    if not has(run.environment, HasTables):
        return f"{whose} has no mdp()"
    if spaces is None or any(int(space.start) for space in spaces):
        return f"{whose} has an mdp(), but its spaces are not Discrete, numbered from 0 and never masked"
    return f"{run.config.policy.label} has memory, and exact gradients are of policies without" if memory else None


def _exactly(runs: Sequence[Run], samples: Sequence[Samples], discounts: Sequence[float]) -> dict[float, Tensor]:
    """Note what is known without sampling: ∇J and, where it can be enumerated, E G; returns V(o) for each γ."""
    environment, policy = runs[0].environment, runs[0].policy
    assert has(environment, HasTables)
    mdp = environment.mdp()
    values = {gamma: critic_of(mdp, policy, gamma) for gamma in set(discounts)}
    for run, sampled, known in zip(runs, samples, [values[gamma] for gamma in discounts] or repeat(None), strict=False):
        sampled.gradient = gradient(mdp, policy, objective(run.config.estimator.settings)[1])
        sampled.expected = enumerated(run, mdp, known)
    return values


def critic_of(mdp: TabularMDP, policy: Any, gamma: float) -> Tensor:
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
class _Policy:
    """A loss of which only what reaches the log-probs counts."""

    loss: Any
    needs: frozenset[str]

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        entropies = None if evaluation.entropies is None else evaluation.entropies.detach()
        made: Loss = self.loss(batch, Evaluation(evaluation.log_probs, entropies, batch.values))
        return made


def enumerated(run: Run, mdp: TabularMDP, values: Tensor | None) -> Tensor | None:
    """E G `[P]` of a run with its baseline as it is at first; None: too many rollouts. `values`: a critic's `[O]`."""
    episodes, groups = run.config.rollout.episodes, getattr(run.environment, "groups", None)
    assert episodes is not None
    if mdp.time_limit is None or (groups is not None and bool((groups != groups[0]).any())):
        return None
    if count_trajectories(mdp) ** episodes > MOST_ROLLOUTS:
        return None
    parts = run.config.estimator.settings, run.config.baseline.settings, _Policy(run.loss, run.loss_needs)
    critic = None if values is None else values[mdp.seen]
    return expected_gradient(mdp, run.policy, *parts, episodes=episodes, critic=critic, groups=groups is not None)


def _rows(
    runs: Sequence[Run], parts: Sequence[Sequence[Rollout]], through: Finite | Backward, samples: Sequence[Samples]
) -> list[Tensor]:
    """Of each run, a row for each batch; `parts` are each run's batches, the same episodes for all."""
    rows: list[list[Tensor]] = [[] for _ in runs]
    for batches in zip(*parts, strict=True):
        seen = None
        for run, rollout, mine, sampled in zip(runs, batches, rows, samples, strict=True):
            clock = time.perf_counter()
            advantages = run.stages.estimate_advantages(run, rollout)
            batch = flatten(rollout, advantages)
            if seen is None:
                seen = through.of(batch)
            log_probs, entropies, row = seen
            mine.append(row(log_prob_slopes(run, batch, log_probs, entropies)))
            if has(run.baseline, HasUpdate):
                run.baseline.update(rollout, advantages.returns)
            sampled.seconds += time.perf_counter() - clock
    return [torch.stack(mine) for mine in rows]


# Where batches come from


class _Numbered:
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
            lanes = size * min(count, max(1, WIDE // size))
            shard = evolve(shard, lanes=lanes, episodes=lanes)
        return cls(shard)

    def collect(self, run: Run, own: bool, numbered: Spaces | None) -> Rollout:
        """The next rollout; with the policy's `own` values, or `numbered` ones of these spaces, or none."""
        policy = run.policy
        judge = policy if numbered is None else _Numbered(policy, numbered)
        rollout, _ = collect([self.shard], judge, actor_of(policy), self.iteration, own or numbered is not None)
        self.iteration += 1
        return rollout


def looked_up(rollout: Rollout, values: Tensor) -> Rollout:
    """A rollout whose values are numbers of states, with V(s) `[S]` of these instead; 0 where the world ended."""
    assert rollout.values is not None
    assert rollout.successor_values is not None
    known = values.to(rollout.rewards)
    going = rollout.mask & ~rollout.terminated
    return evolve(
        rollout,
        values=known[rollout.values.long()] * rollout.mask,
        successor_values=known[rollout.successor_values.long()] * going,
    )


def cut(rollout: Rollout, episodes: int) -> Iterator[Rollout]:
    """A rollout of one episode a lane in batches of so many lanes: each as if it had been collected by itself."""
    if rollout.mask.shape[1] == episodes:
        yield rollout
        return
    columns: dict[str, Tensor] = {}
    for attribute in attrs.fields(Rollout):
        column = getattr(rollout, attribute.name)
        if column is not None:
            columns[attribute.name] = column.unflatten(1, (-1, episodes)).movedim(1, 0).contiguous()  # [K, T, E, …]
    longest = columns["mask"].any(2).sum(1).tolist()
    begun = episodes * torch.arange(len(longest))
    columns["episodes"] = torch.where(columns["mask"], columns["episodes"] - begun[:, None, None], 0)
    for number, steps in enumerate(longest):
        yield Rollout(**{name: column[number, :steps] for name, column in columns.items()})
