"""Environment and policy → `Rollout`: every shard collects, and what follows sees the assembled rollout."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from ..capabilities import HasActor, HasValues, has
from ..contracts import Actor, Evaluation, Inputs, Policy, Rollout
from ..guards import checks
from ..guards.mutation import refuse_writes
from ..run import Run
from .episodes import BootstrapObservations, EpisodeStats
from .shard import FLAGS, Shard

Ends = Sequence[BootstrapObservations]
COLUMNS = ("observations", "actions", "log_probs", "rewards", *FLAGS, "mask", "times", "episodes", "action_masks")
ROWS = 8192  # evaluated at once: what lies between the layers stays small


def actor_of(policy: Actor) -> Actor:
    """What acts for a policy while its parameters stay as they are: its `actor()`, if it has one, or itself."""
    actor = policy.actor() if has(policy, HasActor) else None
    return policy if actor is None else actor


class Collector:
    """Collects rollouts by stepping environment and policy: the specification that every other collector is held to."""

    def collect(self, run: Run) -> Rollout:
        """The next rollout; its finished episodes become the run's."""
        _called = run.config.policy.label  # for blame
        actor = actor_of(run.policy)
        apart = actor is not run.policy
        if apart:
            run.labels[id(actor)] = run.config.policy.label
        rollout, run.finished = collect(run.shards, run.policy, actor, run.iteration, "values" in run.needs)
        if apart:
            del run.labels[id(actor)]
        return rollout


def collect(
    shards: Sequence[Shard], policy: Policy, actor: Actor, iteration: int, values: bool
) -> tuple[Rollout, EpisodeStats]:
    """Collect from every shard and assemble; log-probs left out by `act`, and values, in one batch for all steps."""
    with torch.no_grad():
        collected = [shard.collect(policy, actor, iteration, values) for shard in shards]
        rollout = collected[0][0] if len(collected) == 1 else _assemble([part[0] for part in collected])
        missing = rollout.log_probs.shape != rollout.mask.shape
        if missing or values:
            with refuse_writes(iteration == 0, f"{shards[0].labels[1]}: evaluate or values", rollout):
                log_probs, valued = _evaluate_rows(rollout, policy, missing, values, shards[0])
            if log_probs is not None:
                rollout = evolve(rollout, log_probs=log_probs.masked_fill(~rollout.mask, 0))
                checks.finite(f"{shards[0].labels[1]}: evaluate: log_probs", rollout.log_probs)
            if valued is not None:
                rollout = with_values(rollout, valued, policy, [part[2] for part in collected], shards)
    if len(collected) == 1:
        return rollout, collected[0][1]
    return rollout, EpisodeStats.together([part[1] for part in collected])


def sequences(rollout: Rollout) -> Inputs:
    """Every lane's rows [T, N, …], from the memory before the first on; padding remembers nothing."""
    return Inputs(rollout.observations, rollout.action_masks, rollout.state, rollout.times == 0)


def flat(rollout: Rollout) -> Inputs:
    """Every row by itself [T·N, …]."""
    masks = rollout.action_masks
    return Inputs(rollout.observations.flatten(0, 1), None if masks is None else masks.flatten(0, 1))


def _evaluate_rows(
    rollout: Rollout, policy: Policy, log_probs: bool, values: bool, shard: Shard
) -> tuple[Tensor | None, Tensor | None]:
    """log π and V `[T, N]` of all rows, as far as they are wanted: at most ROWS at a time.

    In one pass, if `evaluate` gives the same values as `values`: that is found out in the first rollout.
    """
    label = shard.labels[1]
    columns: tuple[list[Tensor], list[Tensor]] = ([], [])  # log-probs, values
    if rollout.state is None:
        inputs, actions = flat(rollout), rollout.actions.flatten(0, 1)
        parts = [slice(first, first + ROWS) for first in range(0, rollout.mask.numel(), ROWS)]
    else:
        inputs, actions, parts = sequences(rollout), rollout.actions, [slice(None)]
    for part in parts:
        masks = None if inputs.action_masks is None else inputs.action_masks[part]
        rows = evolve(inputs, observations=inputs.observations[part], action_masks=masks)
        evaluated = None
        if log_probs:
            _called = label  # for blame
            evaluation = policy.evaluate(rows, actions[part], False)
            checks.kind(f"{label}: evaluate", evaluation, Evaluation)
            checks.columns(f"{label}: evaluate: log_probs", evaluation.log_probs, rows)
            columns[0].append(evaluation.log_probs)
            evaluated = None if evaluation.values is None else evaluation.values.detach()
        if values:
            known = evaluated if shard.values_agree else None
            columns[1].append(_values_of(policy, evolve(rows, action_masks=None), label, known))  # masks: the actor's
            if shard.values_agree is None and evaluated is not None:
                last = columns[1][-1]
                shard.values_agree = evaluated.shape == last.shape and torch.allclose(evaluated, last)
    first, second = (torch.cat(column).reshape(rollout.mask.shape) if column else None for column in columns)
    return first, second


def _values_of(policy: Policy, inputs: Inputs, label: str, known: Tensor | None = None) -> Tensor:
    """V of each row of `inputs`, unless it is known."""
    _called = label  # for blame
    assert has(policy, HasValues)
    values = policy.values(inputs) if known is None else known
    checks.per_step(f"{label}: values", values, tuple(inputs.observations.shape[: 1 if inputs.state is None else 2]))
    return values


def with_values(rollout: Rollout, values: Tensor, policy: Policy, ends: Ends, shards: Sequence[Shard]) -> Rollout:
    """V of every step and successor: V(s′) is the next row's, except where a trace is cut: those are evaluated here.

    With memory a cut successor is a sequence of its own, of one row.
    """
    values = values.masked_fill(~rollout.mask, 0)
    following = torch.cat([values[1:], values.new_zeros(1, values.shape[1])])
    cut = torch.cat([end.observations for end in ends])
    if len(cut):
        after = Inputs(cut)
        if rollout.state is not None:
            states = [end.state for end in ends if end.state is not None]
            continues = torch.zeros(1, len(cut), dtype=torch.bool, device=cut.device)
            after = Inputs(cut.unsqueeze(0), state=torch.cat(states), started=continues)
        beyond = _values_of(policy, after, shards[0].labels[1]).flatten()
        lanes = [0, *accumulate(shard.lanes for shard in shards)]
        where = torch.cat([end.lanes + first for end, first in zip(ends, lanes, strict=False)])
        following[torch.cat([end.times for end in ends]), where] = beyond
    following.masked_fill_(rollout.terminated | ~rollout.mask, 0)
    return evolve(rollout, values=values, successor_values=following)


def _assemble(rollouts: Sequence[Rollout]) -> Rollout:
    """Side by side, padded to the longest; each padding row repeats a valid observation and action."""
    longest = max(len(rollout.mask) for rollout in rollouts)
    columns: dict[str, list[Tensor]] = {}
    begun = 0
    for rollout in rollouts:
        missing = longest - len(rollout.mask)
        for name in COLUMNS:
            column = getattr(rollout, name)
            if column is None or (name == "log_probs" and column.shape != rollout.mask.shape):
                continue
            if name == "episodes":
                column = torch.where(rollout.mask, column + begun, 0)
            if missing:
                last = column[-1:].expand(missing, *column.shape[1:])
                keep = name in ("observations", "actions", "action_masks")
                column = torch.cat([column, last if keep else torch.zeros_like(last)])
            columns.setdefault(name, []).append(column)
        begun += int((rollout.episodes * rollout.mask).max()) + 1
    merged: dict[str, Any] = {name: torch.cat(parts, dim=1) for name, parts in columns.items()}
    merged.setdefault("log_probs", torch.empty(0))
    states = [rollout.state for rollout in rollouts if rollout.state is not None]
    merged["state"] = torch.cat(states) if states else None
    if all(rollout.groups is not None for rollout in rollouts):
        groups: list[Tensor] = []
        for rollout in rollouts:
            assert rollout.groups is not None
            groups.append(rollout.groups + (int(groups[-1].max()) + 1 if groups else 0))
        merged["groups"] = torch.cat(groups)
    return Rollout(**merged)
