"""Values, visits and the expected return of a policy in a tabular world, differentiable by autograd.

A policy is a table of action probabilities with a row for each observation `[O, A]` (for each state, if states are
observed), or a module. *Timed* functions are for worlds with a time limit of L steps, and return results for each
number of steps taken; the other functions then return those of the first step.
"""

import torch
from torch import Tensor

from ..contracts import TabularMDP
from .policy import Policy, action_probabilities


def state_values(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """V(s) `[S]`, 0 in terminal states, with gradient with respect to the policy.

    Without a time limit V solves V = r_π + γ·P_π·V (Sutton & Barto 2018, eq. 4.4), by one linear solve. With a limit of
    L steps it is the value of the first step, by L backward steps of the same equation from 0.

    Args:
        mdp: the tabular world.
        policy: π(a|o) `[O, A]`, or a module.
        gamma: discount per step, in [0, 1].

    Raises:
        ValueError: V does not exist: γ = 1, no time limit, and a policy under which some episode never ends.
    """
    if mdp.time_limit is not None:
        return timed_state_values(mdp, policy, gamma)[0]
    return _solved_values(mdp, action_probabilities(mdp, policy), gamma, torch.ones_like(mdp.terminal))


def timed_state_values(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """Vₜ(s) `[L + 1, S]`, for t steps taken: Vₜ = r_π + γ·P_π·Vₜ₊₁ and V_L = 0."""
    rewards, transitions = _chain(mdp, action_probabilities(mdp, policy))
    values: list[Tensor] = [torch.zeros_like(rewards)]
    for _ in range(_limit(mdp)):
        values.append(rewards + gamma * (transitions @ values[-1]))
    return torch.stack(values[::-1])


def action_values(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """Q(s, a) = Σ_s′ P(s′|s,a)·(r(s,a,s′) + γ·V(s′)) `[S, A]`, 0 in terminal states (Sutton & Barto 2018, eq. 4.6)."""
    if mdp.time_limit is not None:
        return timed_action_values(mdp, policy, gamma)[0]
    return _back_up(mdp, state_values(mdp, policy, gamma), gamma)


def timed_action_values(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """Qₜ(s, a) `[L, S, A]` of the action after t steps: its expected reward plus γ·Vₜ₊₁(s′)."""
    return torch.stack([_back_up(mdp, after, gamma) for after in timed_state_values(mdp, policy, gamma)[1:]])


def advantages(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """Q(s, a) − V(s) `[S, A]`; weighted by π(a|s), they sum to 0 in each state."""
    return action_values(mdp, policy, gamma) - state_values(mdp, policy, gamma).unsqueeze(1)


def visitation(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """d(s) = Σₜ γᵗ·Pr(sₜ = s) `[S]`: the expected (discounted) number of steps taken in each state.

    It is 0 in terminal states. d is not a distribution: its sum is the (discounted) expected length of an episode.
    Without a time limit it solves d = start + γ·P_πᵀ·d (Sutton & Barto 2018, eq. 9.2).

    Raises:
        ValueError: γ = 1, no time limit, and a policy under which an episode may never end.
    """
    if mdp.time_limit is not None:
        return timed_visitation(mdp, policy, gamma).sum(0)
    probabilities = action_probabilities(mdp, policy)
    _, transitions = _chain(mdp, probabilities)
    among = _reachable(mdp, probabilities, gamma)
    start = mdp.start.to(transitions.dtype) * ~mdp.terminal
    return torch.linalg.solve(_system(transitions, gamma, among).T, start)  # type: ignore[no-any-return]


def timed_visitation(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """γᵗ·Pr(sₜ = s) `[L, S]`, for t steps taken; 0 in terminal states."""
    _, transitions = _chain(mdp, action_probabilities(mdp, policy))
    visits = [mdp.start.to(transitions.dtype) * ~mdp.terminal]
    for _ in range(_limit(mdp) - 1):
        visits.append(gamma * (visits[-1] @ transitions))
    return torch.stack(visits)


def expected_return(mdp: TabularMDP, policy: Policy, gamma: float) -> Tensor:
    """J = Σ_s start(s)·V(s), a scalar with gradient with respect to the policy.

    Raises:
        ValueError: γ = 1, no time limit, and a policy under which an episode may never end.
    """
    if mdp.time_limit is not None:
        values = timed_state_values(mdp, policy, gamma)[0]
    else:
        probabilities = action_probabilities(mdp, policy)
        values = _solved_values(mdp, probabilities, gamma, _reachable(mdp, probabilities, gamma))
    return torch.dot(mdp.start.to(values.dtype), values)


def _limit(mdp: TabularMDP) -> int:
    if mdp.time_limit is None:
        raise ValueError("timed results need a world with a time limit, and this one has none")
    return mdp.time_limit


def _solved_values(mdp: TabularMDP, probabilities: Tensor, gamma: float, among: Tensor) -> Tensor:
    """V(s) `[S]` of the states in `among` [S] bool, a set that is never left; 0 elsewhere."""
    if gamma == 1:
        _require_ends(mdp, probabilities, among)
    rewards, transitions = _chain(mdp, probabilities)
    return torch.linalg.solve(_system(transitions, gamma, among), rewards * among)  # type: ignore[no-any-return]


def _system(transitions: Tensor, gamma: float, among: Tensor) -> Tensor:
    """I − γ·P `[S, S]`, with rows of the identity for states that are not in `among`."""
    same = torch.eye(len(transitions), dtype=transitions.dtype, device=transitions.device)
    return same - gamma * transitions * among.unsqueeze(1)


def _reachable(mdp: TabularMDP, probabilities: Tensor, gamma: float) -> Tensor:
    """Which states can be reached, `[S]` bool; all, if γ < 1. Undiscounted episodes must end only from these."""
    if gamma != 1:
        return torch.ones_like(mdp.terminal)
    possible_moves = _moves(mdp, probabilities)
    reached = mdp.start > 0
    for _ in range(len(reached)):
        reached = reached | (possible_moves & reached.unsqueeze(1)).any(0)
    _require_ends(mdp, probabilities, reached)
    return reached


def _require_ends(mdp: TabularMDP, probabilities: Tensor, among: Tensor) -> None:
    """Raise if a state cannot reach a terminal state; if all can, episodes end with probability 1."""
    moves = _moves(mdp, probabilities)
    ending = mdp.terminal
    for _ in range(len(ending)):
        ending = ending | (moves & ending).any(1)
    endless = (among & ~ending).nonzero().flatten().tolist()
    if endless:
        raise ValueError(
            "V does not exist: without discount and time limit, some episode never ends under this policy "
            f"(from state {', '.join(map(str, endless))} no terminal state can be reached)"
        )


def _moves(mdp: TabularMDP, probabilities: Tensor) -> Tensor:
    """Whether s′ may follow s, `[S, S]` bool; no state follows a terminal one."""
    possible = (probabilities.detach().unsqueeze(-1) > 0) & (mdp.transitions > 0)
    return possible.any(1) & ~mdp.terminal.unsqueeze(1)


def _back_up(mdp: TabularMDP, values: Tensor, gamma: float) -> Tensor:
    """Q(s, a) `[S, A]` from the values of successors."""
    alive = (~mdp.terminal).to(values.dtype)
    targets = mdp.rewards.to(values.dtype) + gamma * (values * alive)
    return (mdp.transitions.to(values.dtype) * targets).sum(2) * alive.unsqueeze(1)


def _chain(mdp: TabularMDP, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """r_π `[S]` and P_π `[S, S]`; both are 0 for terminal states."""
    alive = (~mdp.terminal).to(probabilities.dtype)
    transitions = mdp.transitions.to(probabilities.dtype)
    joint = probabilities.unsqueeze(-1) * transitions * alive[:, None, None]
    rewards = (joint * mdp.rewards.to(probabilities.dtype)).sum((1, 2))
    return rewards, joint.sum(1) * alive
