"""Environment and policy → `Rollout`: every shard collects, and what follows sees the assembled rollout."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from . import checks
from .contracts import Actor, Evaluation, Inputs, Rollout
from .shard import FLAGS, Ends, Finished, Shard


def collect(
    shards: Sequence[Shard], policy: Any, actor: Actor, iteration: int, values: bool
) -> tuple[Rollout, Finished]:
    """Collect from every shard and assemble; log-probs left out by `act`, and values, in one batch each."""
    with torch.no_grad():
        collected = [collect_shard(shard, policy, actor, iteration, values) for shard in shards]
        rollout = collected[0][0] if len(collected) == 1 else _assemble([part[0] for part in collected])
        if rollout.state is None:
            inputs, actions = flat(rollout), rollout.actions.flatten(0, 1)
        else:
            inputs, actions = sequences(rollout), rollout.actions
        shape = rollout.mask.shape
        if rollout.log_probs.shape != shape:
            evaluation = policy.evaluate(inputs, actions, False)
            checks.kind(f"{shards[0].labels[1]}: evaluate", evaluation, Evaluation)
            log_probs = evaluation.log_probs
            checks.columns(f"{shards[0].labels[1]}: evaluate: log_probs", log_probs, inputs)
            rollout = evolve(rollout, log_probs=log_probs.reshape(shape).masked_fill(~rollout.mask, 0))
        if values:
            rollout = _with_values(rollout, policy, inputs, [part[2] for part in collected], shards)
    if len(collected) == 1:
        return rollout, collected[0][1]
    return rollout, Finished.together([part[1] for part in collected])


def sequences(rollout: Rollout) -> Inputs:
    """Every lane's rows [T, N, …], from the memory before the first on; padding remembers nothing."""
    return Inputs(rollout.observations, rollout.action_masks, rollout.state, rollout.times == 0)


def flat(rollout: Rollout) -> Inputs:
    """Every row by itself [T·N, …]."""
    masks = rollout.action_masks
    return Inputs(rollout.observations.flatten(0, 1), None if masks is None else masks.flatten(0, 1))


def collect_shard(
    shard: Shard, policy: Any, actor: Actor, iteration: int, ends_wanted: bool
) -> tuple[Rollout, Finished, Ends]:
    """One shard's part, stepped; or walked, where a table acts in a world of tables."""
    table = None if hasattr(policy, "environment_actions") else getattr(actor, "log_probs", None)
    if isinstance(table, Tensor) and shard.tables is not None:
        return shard.walk(table, iteration, ends_wanted)
    return shard.collect(policy, actor, iteration, ends_wanted)


def _with_values(
    rollout: Rollout, policy: Any, inputs: Inputs, ends: Sequence[Ends], shards: Sequence[Shard]
) -> Rollout:
    """V of every step and successor, in one forward pass: V(s′) is the next row's, except where a trace is cut.

    With memory in two passes: a cut successor is a sequence of its own, of one row.
    """
    shape, count = rollout.mask.shape, rollout.mask.numel()
    if inputs.action_masks is not None:  # a critic does not depend on what is allowed
        inputs = evolve(inputs, action_masks=None)
    cut = torch.cat([end.observations for end in ends])

    def valued_by(inputs: Inputs, shape: tuple[int, ...]) -> Tensor:
        valued: Tensor = policy.values(inputs)
        checks.per_step(f"{shards[0].labels[1]}: values", valued, shape)
        return valued.flatten()

    if rollout.state is None:
        valued = valued_by(evolve(inputs, observations=torch.cat([inputs.observations, cut])), (count + len(cut),))
    else:
        valued = valued_by(inputs, tuple(shape))
        if len(cut):
            states = [end.state for end in ends if end.state is not None]
            going_on = torch.zeros(1, len(cut), dtype=torch.bool, device=cut.device)
            after = Inputs(cut.unsqueeze(0), state=torch.cat(states), started=going_on)
            valued = torch.cat([valued, valued_by(after, (1, len(cut)))])
    values = valued[:count].reshape(shape).masked_fill(~rollout.mask, 0)
    following = torch.cat([values[1:], values.new_zeros(1, shape[1])])
    first_lane, position = 0, count
    for shard, end in zip(shards, ends, strict=True):
        following[end.times, end.lanes + first_lane] = valued[position : position + len(end.times)]
        first_lane += shard.lanes
        position += len(end.times)
    following.masked_fill_(rollout.terminated | ~rollout.mask, 0)
    return evolve(rollout, values=values, successor_values=following)


def _assemble(rollouts: Sequence[Rollout]) -> Rollout:
    """Side by side, padded to the longest; each padding row repeats a valid observation and action."""
    longest = max(len(rollout.mask) for rollout in rollouts)
    columns: dict[str, list[Tensor]] = {}
    begun = 0
    for rollout in rollouts:
        missing = longest - len(rollout.mask)
        for name in (
            "observations",
            "actions",
            "log_probs",
            "rewards",
            *FLAGS,
            "mask",
            "times",
            "episodes",
            "action_masks",
        ):
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
