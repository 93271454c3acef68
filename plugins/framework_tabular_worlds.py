"""Small worlds from the literature, whose values and best policies are known or can be solved for."""

from typing import Any

import torch
from attrs import evolve, field, frozen, validators
from torch import Tensor
from torch.nn.functional import one_hot

from framework import TabularLanes, TabularMDP, hookimpl

ROWS, COLUMNS = 4, 12  # of the cliff's grid
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # row and column: UP, RIGHT, DOWN, LEFT, as Gymnasium numbers them


def _steps(default: int) -> Any:
    return field(default=default, validator=validators.ge(0))


@frozen
class ShortCorridor:
    """Three states that look the same; in the second, LEFT and RIGHT are exchanged.

    A policy cannot tell them apart, so that the best one is stochastic: undiscounted and without a time limit,
    P(RIGHT) = 2 − √2 earns −6 − 4√2 ≈ −11.66, and RIGHT or LEFT in 95 of 100 steps −44 or −82.
    Source: Sutton & Barto 2018, Example 13.1.
    """

    max_steps: int = _steps(1000)  # time limit in steps; 0: no limit

    def build(self, num_envs: int, device: torch.device) -> TabularLanes:
        """`num_envs` lanes on `device`."""
        successors = torch.tensor([[0, 1], [2, 0], [1, 3], [3, 3]])
        mdp = _certain(successors, torch.full((4, 2), -1.0), first=0, last=3, max_steps=self.max_steps)
        alike = evolve(mdp, observations=torch.zeros(4, dtype=torch.int64))
        return TabularLanes(alike, num_envs, device, ("LEFT", "RIGHT"))


@frozen
class Cliff:
    """Walk along a cliff, in four rows of twelve cells; reward −1 per step, −100 for a fall.

    Who falls starts again, and the episode goes on. The best path, along the edge, earns −13; the safest, along the far
    wall, −17. Source: Sutton & Barto 2018, Example 6.6. Cells and actions are numbered as in Gymnasium's CliffWalking.
    """

    max_steps: int = _steps(1000)  # time limit in steps; 0: no limit

    def build(self, num_envs: int, device: torch.device) -> TabularLanes:
        """`num_envs` lanes on `device`."""
        start, goal = (ROWS - 1) * COLUMNS, ROWS * COLUMNS - 1
        rows, columns = torch.arange(ROWS * COLUMNS) // COLUMNS, torch.arange(ROWS * COLUMNS) % COLUMNS
        cells = torch.stack(
            [
                (rows + down).clamp(0, ROWS - 1) * COLUMNS + (columns + right).clamp(0, COLUMNS - 1)
                for down, right in MOVES
            ],
            1,
        )
        fallen = (cells > start) & (cells < goal)
        rewards = torch.where(fallen, -100.0, -1.0)
        mdp = _certain(cells.masked_fill(fallen, start), rewards, start, goal, self.max_steps)
        return TabularLanes(mdp, num_envs, device, ("UP", "RIGHT", "DOWN", "LEFT"))


@frozen
class RandomMDP:
    """A Garnet: random transitions to `branching` successors of each state and action, with random rewards.

    Probabilities are the lengths into which branching − 1 uniform points cut the unit interval; the reward of each
    transition is standard normal; each episode starts anywhere. Nothing is terminal: without a time limit, only
    rollout.fixed_steps ends. Such worlds go back to Archibald, McKinnon & Thomas 1995 (doi:10.1057/jors.1995.50); those
    of Bhatnagar et al. 2009 (doi:10.1016/j.automatica.2009.07.008), called Garnets, also have noise in their rewards
    and change over time, which these do not.
    """

    states: int = field(default=5, validator=validators.ge(1))  # number of states
    actions: int = field(default=2, validator=validators.ge(1))  # number of actions in each state
    branching: int = field(default=2, validator=validators.ge(1))  # number of successors of each state and action
    seed: int = field(default=0, validator=validators.ge(0))
    """seed of transitions and rewards; the run has a seed of its own"""
    max_steps: int = _steps(10)  # time limit in steps; 0: no limit

    def __attrs_post_init__(self) -> None:
        """No more successors than states."""
        if self.branching > self.states:
            raise ValueError(f"'branching' must be <= states, {self.states}: {self.branching}")

    def build(self, num_envs: int, device: torch.device) -> TabularLanes:
        """`num_envs` lanes on `device`, of the same world on each."""
        generator = torch.Generator().manual_seed(self.seed)
        pairs, shape = self.states * self.actions, (self.states, self.actions, self.states)
        successors = torch.rand(pairs, self.states, generator=generator).argsort(1)[:, : self.branching]
        cuts = torch.rand(pairs, self.branching - 1, generator=generator, dtype=torch.float64).sort(1).values
        ends = torch.cat([torch.zeros(pairs, 1), cuts, torch.ones(pairs, 1)], 1)
        transitions = torch.zeros(pairs, self.states, dtype=torch.float64).scatter(1, successors, ends.diff(dim=1))
        rewards = torch.randn(shape, generator=generator, dtype=torch.float64)
        start = torch.full((self.states,), 1 / self.states, dtype=torch.float64)
        nowhere = torch.zeros(self.states, dtype=torch.bool)
        mdp = TabularMDP(transitions.reshape(shape), rewards, start, nowhere, self.max_steps or None)
        return TabularLanes(mdp, num_envs, device)


def _certain(successors: Tensor, rewards: Tensor, first: int, last: int, max_steps: int) -> TabularMDP:
    """Tables of a world without chance, from what each state and action lead to and earn `[S, A]`."""
    states = len(successors)
    every = torch.arange(states)
    return TabularMDP(
        one_hot(successors, states).double(),
        rewards.double().unsqueeze(-1).expand(*successors.shape, states).contiguous(),
        (every == first).double(),
        every == last,
        max_steps or None,
    )


@hookimpl
def environments() -> dict[str, Any]:
    """Offer the worlds."""
    return {"short_corridor": ShortCorridor, "cliff": Cliff, "random_mdp": RandomMDP}
