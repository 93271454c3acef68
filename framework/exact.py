"""Exact values and objectives of a tabular world under a policy; differentiable, so autograd's gradients are exact.

A policy is its table of action probabilities `[S, A]`, or `[O, A]` where states show O observations. Work in float64.
"""

import torch
from torch import Tensor

from .contracts import TabularMDP


def state_values(mdp: TabularMDP, probabilities: Tensor, gamma: float) -> Tensor:
    """V(s) `[S]`, 0 in terminal states, with gradient to `probabilities`.

    Without a time limit V solves V = r_π + γ·P_π·V (Sutton & Barto 2018, eq. 4.4), by one linear solve. With a limit of
    L steps it is the value of the first step, by L backward steps of the same equation from 0.

    Args:
        mdp: the world.
        probabilities: π(a|s) `[S, A]`; π(a|o) `[O, A]` where `mdp.observations` hide the states.
        gamma: discount a step, in [0, 1].

    Raises:
        ValueError: γ = 1, no limit, and a policy under which some episode never ends: V does not exist.
    """
    probabilities = probabilities[mdp.seen]
    rewards, transitions = _chain(mdp, probabilities)
    if mdp.time_limit is not None:
        values: Tensor = torch.zeros_like(rewards)
        for _ in range(mdp.time_limit):
            values = rewards + gamma * (transitions @ values)
        return values
    if gamma == 1 and not bool(_ends(mdp, probabilities).all()):
        raise ValueError("V does not exist: without discount and time limit, some episode never ends under this policy")
    system = torch.eye(len(rewards), dtype=rewards.dtype, device=rewards.device) - gamma * transitions
    solved: Tensor = torch.linalg.solve(system, rewards)
    return solved


def _ends(mdp: TabularMDP, probabilities: Tensor) -> Tensor:
    """Whether a terminal state can be reached from each state, `[S]` bool; if from all, it is with probability 1."""
    moves = ((probabilities.detach().unsqueeze(-1) > 0) & (mdp.transitions > 0)).any(1)
    reached = mdp.terminal
    for _ in range(len(reached)):
        reached = reached | (moves & reached).any(1)
    return reached


def expected_return(mdp: TabularMDP, probabilities: Tensor, gamma: float) -> Tensor:
    """J = Σ_s start(s)·V(s), a scalar with gradient to `probabilities`: its exact gradient is `autograd`'s."""
    return torch.dot(mdp.start.to(probabilities.dtype), state_values(mdp, probabilities, gamma))


def _chain(mdp: TabularMDP, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """r_π `[S]` and P_π `[S, S]`; nothing is earned in, and nothing leads out of, a terminal state."""
    alive = (~mdp.terminal).to(probabilities.dtype)
    transitions = mdp.transitions.to(probabilities.dtype)
    joint = probabilities.unsqueeze(-1) * transitions * alive[:, None, None]
    rewards = (joint * mdp.rewards.to(probabilities.dtype)).sum((1, 2))
    return rewards, joint.sum(1) * alive
