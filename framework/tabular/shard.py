"""A shard of a world of tables: sampled without stepping it, where the actor is a table of probabilities too."""

from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from .. import streams
from ..capabilities import HasEnvironmentActions, HasTable, has
from ..collecting.episodes import BootstrapObservations, EpisodeStats
from ..collecting.shard import Collected, Shard
from ..contracts import Actor, Array, Environment, Policy, Rollout
from ..guards import checks
from .records import Amount, EpisodeTooLongError, LaneState
from .sampling import FEW_LANES, sample
from .tables import Tables, first_states


def shard_of(environment: Environment, *, device: torch.device, labels: tuple[str, str], **fields: Any) -> Shard:
    """A shard of this environment: a `TabularShard`, if the environment has an `mdp()` that is small.

    Raises:
        UsageError: the tables of its `mdp()` describe no world.
    """
    fields |= {"environment": environment, "device": device, "labels": labels}
    tables = Tables.of(environment, labels[0]) if device.type == "cpu" else None
    return Shard(**fields) if tables is None else TabularShard(**fields, tables=tables)


def table_of(actor: Actor, policy: object) -> Tensor | None:
    """The actor's log π `[O, A]`, if it is a table and its actions are the environment's own."""
    if has(policy, HasEnvironmentActions) or not has(actor, HasTable) or not isinstance(actor.log_probs, Tensor):
        return None
    return actor.log_probs


@define(eq=False)
class TabularShard(Shard):
    """Its rollouts have the distribution of those that are stepped; an actor that is no table steps."""

    tables: Tables = field(kw_only=True)
    states: Array | None = field(default=None, kw_only=True)  # [N] where the lanes stand
    few_lanes: int = field(default=FEW_LANES, kw_only=True)  # up to this many are sampled one after the other

    def state_dict(self) -> dict[str, Any]:
        """Also the state [N] of each lane that is sampled."""
        return super().state_dict() | {"states": None if self.states is None else torch.from_numpy(self.states)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the lanes back."""
        super().load_state_dict(state)
        self.states = None if state["states"] is None else state["states"].numpy()

    def collect(self, policy: Policy, actor: Actor, iteration: int, want_bootstrap: bool) -> Collected:
        """Collect until the requested amount is complete."""
        table = table_of(actor, policy)
        if table is None:
            return super().collect(policy, actor, iteration, want_bootstrap)
        return self._sample(table, iteration, want_bootstrap)

    def _sample(self, log_probs: Tensor, iteration: int, want_bootstrap: bool) -> Collected:
        tables = self.tables
        draw = streams.generator(self.seed, "act", iteration, self.number)
        if self.states is None:
            self.states = first_states(tables, self.lanes, draw)
        lane_state = LaneState(self.states, self.episode_step, self.episode_return)
        amount = Amount(self.steps, self.episodes, self.fixed_steps, self.capacity, self.episode_limit.steps)
        label = f"{self.labels[1]}: actor: log_probs"
        checks.tensor(label, log_probs, tables.shape, "[O, A]", "floating point")
        table = log_probs.numpy()
        try:
            paths = sample(tables, table, self.lanes, amount, lane_state, draw, self.few_lanes)
        except EpisodeTooLongError as endless:
            raise self.episode_limit.error(self.labels[0], endless.lane) from None

        outcomes, real = paths.outcomes, paths.mask
        self.capacity = len(real) + len(real) // 8 + 1
        columns = {
            "observations": tables.seen.take(outcomes),
            "actions": tables.actions.take(outcomes),
            "log_probs": table.take(tables.cells).take(outcomes),
            "rewards": tables.rewards.take(outcomes),
            "terminated": tables.final.take(outcomes),
        }
        if self.fixed_steps is None:
            for column in (
                columns["log_probs"],
                columns["rewards"],
                columns["terminated"],
                paths.times,
                paths.episodes,
            ):
                column *= real
        columns |= {"truncated": paths.truncated, "mask": real, "times": paths.times, "episodes": paths.episodes}
        rollout = Rollout(**{name: torch.from_numpy(column) for name, column in columns.items()})
        times = lanes = outcomes[:0, 0]
        if want_bootstrap:
            cut = paths.truncated.copy()
            if self.fixed_steps is not None:
                cut[-1] |= ~columns["terminated"][-1]
            times, lanes = cut.nonzero()
        successors = tables.seen_next[outcomes[times, lanes]]
        ends = BootstrapObservations(*(torch.from_numpy(array) for array in (times, lanes, successors)))
        return rollout, EpisodeStats(paths.returns, paths.lengths), ends
