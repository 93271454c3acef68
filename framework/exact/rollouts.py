"""Every rollout of whole episodes, collected by number, that a world with a short time limit allows."""

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

MOST_ROLLOUTS = 100_000  # handed to the parts; about two thousand a second


@define(eq=False)
class Episodes:
    """The episodes that may be seen, those that nothing sees differ put together; columns `[K, L]`, 0 after the end."""

    columns: dict[str, Tensor]
    lengths: list[int]
    firsts: list[int]  # the state of the first step
    chances: list[float]
    starts: list[float]  # probability of each first state
    layouts: dict[tuple[int, ...], tuple[Tensor, ...]] = field(factory=dict)

    @classmethod
    def of(cls, mdp: TabularMDP, log_probs: Tensor, critic: Tensor | None) -> "Episodes":
        """Of a policy with this table [O·A]; V of each state or of each number of steps and state, or None."""
        if bool((mdp.terminal & (mdp.start > 0)).any()):
            raise ValueError("an episode may start in a terminal state, and a rollout has no episode without a step")
        actions = mdp.transitions.shape[1]
        every = trajectories(mdp, most=20 * MOST_ROLLOUTS)
        seen = mdp.seen[every.states] * every.real
        logs = log_probs[seen * actions + every.actions].masked_fill(~every.real, 0)
        table = by_state(mdp, log_probs.exp().reshape(-1, actions))
        numbers = {"observations": seen, "actions": every.actions, "log_probs": logs, "rewards": every.rewards}
        steps = every.real.sum(1)
        last = torch.arange(every.real.shape[1], device=steps.device) == steps.unsqueeze(1) - 1
        numbers["terminated"] = last & every.terminated.unsqueeze(1)
        numbers["truncated"] = last & (steps == every.real.shape[1]).unsqueeze(1)  # perhaps both
        if critic is not None:
            numbers |= _values_of(mdp, every.states, every.successors, every.real, critic.detach().double())
        told = torch.cat([column.double() for column in numbers.values()], 1)
        told = torch.cat([told, steps.unsqueeze(1), every.firsts.unsqueeze(1)], 1)
        possible = every.probabilities(table)
        _, which = torch.unique(told, dim=0, return_inverse=True)
        chances = torch.zeros(int(which.max()) + 1, dtype=torch.float64, device=which.device)
        chances.index_add_(0, which, possible.double())
        one = torch.zeros_like(chances, dtype=torch.int64)
        one[which] = torch.arange(len(which), device=which.device)  # any of those that are alike
        one = one[chances > 0]
        kept = {name: column[one] for name, column in numbers.items()}
        firsts = every.firsts[one].tolist()
        starts = mdp.start.double().tolist()
        return cls(kept, steps[one].tolist(), firsts, chances[chances > 0].tolist(), [starts[s] for s in firsts])

    def rollouts(self, episodes: int, lanes: int, groups: bool) -> Iterator[tuple[float, Rollout]]:
        """Every tuple of so many episodes, as the runner would have laid it out, with its probability."""
        for chosen in itertools.product(range(len(self.lengths)), repeat=episodes):
            chance = math.prod(self.chances[k] for k in chosen)
            if groups:
                if len({self.firsts[k] for k in chosen}) > 1:
                    continue
                chance /= self.starts[chosen[0]] ** (episodes - 1)
            yield chance, self.rollout(chosen, lanes, groups)

    def rollout(self, chosen: tuple[int, ...], lanes: int, groups: bool) -> Rollout:
        """These episodes, begun in this order."""
        lengths = tuple(self.lengths[k] for k in chosen)
        if lengths not in self.layouts:
            self.layouts[lengths] = _layout(lengths, lanes)
        mask, times, numbers = self.layouts[lengths]
        which = torch.tensor(chosen)[numbers]
        columns: dict[str, Any] = {}
        for name, column in self.columns.items():
            gathered = column[which, times]
            columns[name] = gathered if name in ("observations", "actions") else gathered.masked_fill(~mask, 0)
        grouped = torch.zeros(lanes, dtype=torch.int64) if groups else None
        return Rollout(**columns, mask=mask, times=times, episodes=numbers, groups=grouped)


def _values_of(mdp: TabularMDP, states: Tensor, successors: Tensor, real: Tensor, critic: Tensor) -> dict[str, Tensor]:
    """V of every step and its successor, `[K, L]`, from V(s) `[S]` or Vₜ(s) `[L + 1, S]`."""
    expected = (len(mdp.start),) if critic.ndim == 1 else (states.shape[1] + 1, len(mdp.start))
    if tuple(critic.shape) != expected:
        raise ValueError(f"critic: expected shape {list(expected)}, got {list(critic.shape)}")
    timed = critic.expand(states.shape[1] + 1, -1) if critic.ndim == 1 else critic
    steps = torch.arange(states.shape[1], device=states.device)
    following = timed[steps + 1, successors].masked_fill(~real | mdp.terminal[successors], 0)
    return {"values": timed[steps, states].masked_fill(~real, 0), "successor_values": following}


def _layout(lengths: tuple[int, ...], lanes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mask, times and episode numbers `[T, N]`; a lane that is free takes the next episode."""
    free = [(0, lane) for lane in range(lanes)]
    placed = []
    for number, length in enumerate(lengths):
        row, lane = heapq.heappop(free)
        placed.append((row, lane, number, length))
        heapq.heappush(free, (row + length, lane))
    shape = (max(row for row, _ in free), lanes)
    mask = torch.zeros(shape, dtype=torch.bool)
    times, numbers = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for row, lane, number, length in placed:
        mask[row : row + length, lane] = True
        times[row : row + length, lane] = torch.arange(length)
        numbers[row : row + length, lane] = number
    return mask, times, numbers
