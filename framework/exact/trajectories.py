"""Every trajectory that a world with a short time limit allows, with its probability."""

from decimal import Decimal

import torch
from attrs import frozen
from torch import Tensor

from ..contracts import TabularMDP

MOST = 2_000_000  # trajectories enumerated; with 10 steps each 160 MB an array


@frozen(eq=False)
class Trajectories:
    """K trajectories of at most L steps; where `real` is False, one has ended before."""

    states: Tensor  # [K, L] int64; 0 where not real, as in the next three
    actions: Tensor  # [K, L] int64
    successors: Tensor  # [K, L] int64
    rewards: Tensor  # [K, L] float64
    real: Tensor  # [K, L] bool
    firsts: Tensor  # [K] int64: the state it began in
    terminated: Tensor  # [K] bool: the world ended it, and not the time limit alone
    chances: Tensor  # [K] float64: the world's part of the probability, start(s₀)·Π P(sₜ₊₁|sₜ,aₜ)

    def probabilities(self, table: Tensor) -> Tensor:
        """The probability of each under π(a|s) `[S, A]`, `[K]`, with gradient to the table."""
        chosen = table[self.states, self.actions].where(self.real, table.new_ones(()))
        return self.chances.to(table.dtype) * chosen.prod(1)

    def returns(self, gamma: float) -> Tensor:
        """Σₜ γᵗ·rₜ of each, `[K]`."""
        powers = gamma ** torch.arange(self.rewards.shape[1], dtype=torch.float64, device=self.rewards.device)
        return (self.rewards * powers).sum(1)


def count_trajectories(mdp: TabularMDP) -> int:
    """How many trajectories have a positive probability, whatever the policy: exactly, by recursion over time.

    Raises:
        ValueError: there is no time limit, and so no end of them.
    """
    if mdp.time_limit is None:
        raise ValueError("trajectories can be enumerated only in a world with a time limit, and this one has none")
    where, _, following = _outcomes(mdp)
    terminal = mdp.terminal.tolist()
    moves = list(zip(where.tolist(), following.tolist(), strict=True))
    left = [1] * len(terminal)  # of trajectories from each state on, when no more steps are left
    for _ in range(mdp.time_limit):
        before = [int(over) for over in terminal]
        for state, successor in moves:
            before[state] += left[successor]
        left = before
    return sum(left[state] for state in mdp.start.nonzero().flatten().tolist())


def trajectories(mdp: TabularMDP, most: int = MOST) -> Trajectories:
    """All of them, shorter ones first. No action is left out, even where a policy never takes it.

    Raises:
        ValueError: no time limit, or more than `most`; says how many.
    """
    count = count_trajectories(mdp)
    if count > most:
        raise ValueError(f"{counted(count)} trajectories, and at most {most:,} are enumerated: shorten the time limit")
    where, chosen, following = _outcomes(mdp)
    transitions, rewards = mdp.transitions.double(), mdp.rewards.double()
    chance = transitions[where, chosen, following]
    number = torch.bincount(where, minlength=len(mdp.start))
    first = number.cumsum(0) - number  # of each state's outcomes
    starts = mdp.start.nonzero().flatten()
    over = mdp.terminal[starts]
    limit = mdp.time_limit or 0
    steps = torch.zeros((len(starts), 0), dtype=torch.int64, device=starts.device)  # outcomes, so far
    finished = [_padded(steps[over], limit)]
    begun, chances = [starts[over]], [mdp.start.double()[starts[over]]]
    steps, now, origin = steps[~over], starts[~over], starts[~over]
    chance_so_far = mdp.start.double()[origin]
    for t in range(limit):
        index = torch.repeat_interleave(torch.arange(len(now), device=now.device), number[now])
        earlier = number[now].cumsum(0) - number[now]
        outcome = first[now][index] + torch.arange(len(index), device=now.device) - earlier[index]
        steps, origin = torch.cat([steps[index], outcome.unsqueeze(1)], 1), origin[index]
        chance_so_far, now = chance_so_far[index] * chance[outcome], following[outcome]
        over = mdp.terminal[now] if t < limit - 1 else torch.ones_like(now, dtype=torch.bool)
        finished.append(_padded(steps[over], limit))
        begun.append(origin[over])
        chances.append(chance_so_far[over])
        steps, now, origin, chance_so_far = steps[~over], now[~over], origin[~over], chance_so_far[~over]
    every, firsts = torch.cat(finished), torch.cat(begun)
    real = every >= 0
    every = every.clamp(min=0)
    if len(where):
        states, actions, successors = (column[every] * real for column in (where, chosen, following))
    else:  # every episode begins where the world has ended
        states = actions = successors = every
    last = (real.sum(1) - 1).clamp(min=0)
    ends = torch.where(real.any(1), successors.gather(1, last.unsqueeze(1)).squeeze(1), firsts) if limit else firsts
    earned = rewards[states, actions, successors].masked_fill(~real, 0)
    return Trajectories(states, actions, successors, earned, real, firsts, mdp.terminal[ends], torch.cat(chances))


def counted(count: int) -> str:
    """A number that may have hundreds of digits."""
    return f"{count:,}" if count < 10**9 else f"{Decimal(count):.2e}"


def _outcomes(mdp: TabularMDP) -> tuple[Tensor, Tensor, Tensor]:
    """(s, a, s′) of positive probability where s is not terminal, each `[M]`, by state."""
    where, chosen, following = ((mdp.transitions > 0) & ~mdp.terminal[:, None, None]).nonzero(as_tuple=True)
    return where, chosen, following


def _padded(steps: Tensor, limit: int) -> Tensor:
    return torch.nn.functional.pad(steps, (0, limit - steps.shape[1]), value=-1)
