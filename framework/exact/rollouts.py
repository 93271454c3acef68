"""All possible rollouts with a fixed number of whole episodes, in a tabular world with a short time limit."""

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from ..contracts import Rollout, TabularMDP
from .policy import by_state
from .trajectories import trajectories

MOST_ROLLOUTS = 100_000  # about two thousand per second


@define(eq=False)
class Episodes:
    """All distinguishable episodes, as columns `[K, L]` that are 0 after the end; equal-looking ones are merged."""

    columns: dict[str, Tensor]
    lengths: list[int]
    firsts: list[int]  # the state of the first step
    chances: list[float]
    starts: list[float]  # probability of each first state
    layouts: dict[tuple[int, ...], tuple[Tensor, ...]] = field(factory=dict)

    @classmethod
    def of(cls, mdp: TabularMDP, log_probs: Tensor, critic: Tensor | None) -> "Episodes":
        """The episodes of a policy with this table [O·A]; `critic`: V by state, or by time step and state, or None."""
        if bool((mdp.terminal & (mdp.start > 0)).any()):
            raise ValueError("an episode may start in a terminal state, but every episode of a rollout has a step")
        actions = mdp.transitions.shape[1]
        paths = trajectories(mdp, most=20 * MOST_ROLLOUTS)
        observations = mdp.seen[paths.states] * paths.real
        log_probs_taken = log_probs[observations * actions + paths.actions].masked_fill(~paths.real, 0)
        table = by_state(mdp, log_probs.exp().reshape(-1, actions))
        columns = {
            "observations": observations,
            "actions": paths.actions,
            "log_probs": log_probs_taken,
            "rewards": paths.rewards,
        }
        steps = paths.real.sum(1)
        last = torch.arange(paths.real.shape[1], device=steps.device) == steps.unsqueeze(1) - 1
        columns["terminated"] = last & paths.terminated.unsqueeze(1)
        columns["truncated"] = last & (steps == paths.real.shape[1]).unsqueeze(1)  # both may be set
        if critic is not None:
            columns |= _values_of(
                mdp,
                paths.states,
                paths.successors,
                paths.real,
                critic.detach().double(),
            )
        features = torch.cat([column.double() for column in columns.values()], 1)
        features = torch.cat([features, steps.unsqueeze(1), paths.firsts.unsqueeze(1)], 1)
        probabilities = paths.probabilities(table)
        _, group = torch.unique(features, dim=0, return_inverse=True)
        chances = torch.zeros(int(group.max()) + 1, dtype=torch.float64, device=group.device)
        chances.index_add_(0, group, probabilities.double())
        representative = torch.zeros_like(chances, dtype=torch.int64)
        representative[group] = torch.arange(len(group), device=group.device)  # any one of the equal ones
        representative = representative[chances > 0]
        kept_columns = {name: column[representative] for name, column in columns.items()}
        firsts = paths.firsts[representative].tolist()
        starts = mdp.start.double().tolist()
        return cls(
            kept_columns,
            steps[representative].tolist(),
            firsts,
            chances[chances > 0].tolist(),
            [starts[s] for s in firsts],
        )

    def rollouts(self, episodes: int, lanes: int, groups: bool) -> Iterator[tuple[float, Rollout]]:
        """Every tuple of so many episodes, laid out as by the runner, with its probability."""
        for chosen in itertools.product(range(len(self.lengths)), repeat=episodes):
            chance = math.prod(self.chances[k] for k in chosen)
            if groups:
                if len({self.firsts[k] for k in chosen}) > 1:
                    continue
                chance /= self.starts[chosen[0]] ** (episodes - 1)
            yield chance, self.rollout(chosen, lanes, groups)

    def rollout(self, chosen: tuple[int, ...], lanes: int, groups: bool) -> Rollout:
        """The rollout of these episodes, started in this order."""
        lengths = tuple(self.lengths[k] for k in chosen)
        if lengths not in self.layouts:
            self.layouts[lengths] = _layout(lengths, lanes)
        mask, times, numbers = self.layouts[lengths]
        chosen_episodes = torch.tensor(chosen)[numbers]
        columns: dict[str, Any] = {}
        for name, column in self.columns.items():
            gathered = column[chosen_episodes, times]
            columns[name] = gathered if name in ("observations", "actions") else gathered.masked_fill(~mask, 0)
        group_column = torch.zeros(lanes, dtype=torch.int64) if groups else None
        return Rollout(**columns, mask=mask, times=times, episodes=numbers, groups=group_column)


def _values_of(mdp: TabularMDP, states: Tensor, successors: Tensor, real: Tensor, critic: Tensor) -> dict[str, Tensor]:
    """Values of every step and its successor, `[K, L]`, from V(s) `[S]` or Vₜ(s) `[L + 1, S]`."""
    expected = (len(mdp.start),) if critic.ndim == 1 else (states.shape[1] + 1, len(mdp.start))
    if tuple(critic.shape) != expected:
        raise ValueError(f"critic: expected shape {list(expected)}, got {list(critic.shape)}")
    timed = critic.expand(states.shape[1] + 1, -1) if critic.ndim == 1 else critic
    steps = torch.arange(states.shape[1], device=states.device)
    following = timed[steps + 1, successors].masked_fill(~real | mdp.terminal[successors], 0)
    return {"values": timed[steps, states].masked_fill(~real, 0), "successor_values": following}


def _layout(lengths: tuple[int, ...], lanes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mask, times and episode numbers `[T, N]`; the next episode goes to the first free lane."""
    free = [(0, lane) for lane in range(lanes)]
    placements = []
    for number, length in enumerate(lengths):
        row, lane = heapq.heappop(free)
        placements.append((row, lane, number, length))
        heapq.heappush(free, (row + length, lane))
    shape = (max(row for row, _ in free), lanes)
    mask = torch.zeros(shape, dtype=torch.bool)
    times, numbers = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for row, lane, number, length in placements:
        mask[row : row + length, lane] = True
        times[row : row + length, lane] = torch.arange(length)
        numbers[row : row + length, lane] = number
    return mask, times, numbers
