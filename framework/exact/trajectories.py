"""All possible trajectories in a tabular world with a short time limit, with their probabilities."""

from collections.abc import Iterator
from decimal import Decimal

import torch
from attrs import frozen
from torch import Tensor

from ..contracts import TabularMDP

MAX_TRAJECTORIES = 2_000_000  # trajectories at once; with 10 steps each, 160 MB per array
MAX_IN_PIECES = 20_000_000  # one piece after the other: about twenty seconds to differentiate
PIECE_SIZE = 2**16  # trajectories that are differentiated together


@frozen(eq=False)
class Trajectories:
    """K trajectories of at most L steps; `real` is False after the end of a trajectory."""

    states: Tensor  # [K, L] int64; 0 where not real, as in the next three
    actions: Tensor  # [K, L] int64
    successors: Tensor  # [K, L] int64
    rewards: Tensor  # [K, L] float64
    real: Tensor  # [K, L] bool
    firsts: Tensor  # [K] int64: first state
    terminated: Tensor  # [K] bool: it ended in a terminal state
    chances: Tensor  # [K] float64: the factors of the probability without the policy, start(s₀)·Π P(sₜ₊₁|sₜ,aₜ)

    def probabilities(self, table: Tensor) -> Tensor:
        """The probability of each under π(a|s) `[S, A]`, `[K]`, with gradient with respect to the table."""
        chosen = table[self.states, self.actions].where(self.real, table.new_ones(()))
        return self.chances.to(table.dtype) * chosen.prod(1)

    def returns(self, gamma: float) -> Tensor:
        """Σₜ γᵗ·rₜ of each, `[K]`."""
        powers = gamma ** torch.arange(self.rewards.shape[1], dtype=torch.float64, device=self.rewards.device)
        return (self.rewards * powers).sum(1)


def count_trajectories(mdp: TabularMDP) -> int:
    """The exact number of trajectories with positive probability under some policy, by recursion over time.

    Raises:
        ValueError: there is no time limit, so there may be infinitely many.
    """
    remaining = _remaining_counts(mdp)[-1]
    return sum(remaining[state] for state in mdp.start.nonzero().flatten().tolist())


def trajectories(mdp: TabularMDP, most: int = MAX_TRAJECTORIES) -> Trajectories:
    """All trajectories, shorter ones first, including actions that a policy never takes.

    Raises:
        ValueError: there is no time limit, or there are more than `most`; the message says how many.
    """
    (all_trajectories,) = pieces(mdp, most, most)
    return all_trajectories


def pieces(mdp: TabularMDP, most: int = MAX_IN_PIECES, size: int = PIECE_SIZE) -> Iterator[Trajectories]:
    """All trajectories, in pieces of about `size` that share a prefix, so that memory is bounded.

    Raises:
        ValueError: there is no time limit, or there are more than `most`; the message says how many.
    """
    count = count_trajectories(mdp)
    if count > most:
        raise ValueError(
            f"{format_count(count)} trajectories, and at most {most:,} are enumerated: shorten the time limit"
        )
    starts = mdp.start.nonzero().flatten()
    no_steps = torch.zeros((len(starts), 0), dtype=torch.int64, device=starts.device)
    return _pieces(_Transitions.of(mdp), _Prefixes(no_steps, starts, starts, mdp.start.double()[starts]), size)


@frozen(eq=False)
class _Transitions:
    """The possible transitions (s, a, s′) of a tabular world, in columns `[M]`, ordered by state."""

    mdp: TabularMDP
    states: Tensor
    actions: Tensor
    successors: Tensor
    probabilities: Tensor
    counts: Tensor  # [S] number of each state's transitions
    first: Tensor  # [S] index of each state's first transition
    remaining: list[list[int]]  # [L + 1][S] number of trajectories from each state, by remaining steps

    @classmethod
    def of(cls, mdp: TabularMDP) -> "_Transitions":
        """The transitions of these tables."""
        where, chosen, following = _outcomes(mdp)
        number = torch.bincount(where, minlength=len(mdp.start))
        chance = mdp.transitions.double()[where, chosen, following]
        return cls(mdp, where, chosen, following, chance, number, number.cumsum(0) - number, _remaining_counts(mdp))


@frozen(eq=False)
class _Prefixes:
    """K prefixes of trajectories, t steps long."""

    steps: Tensor  # [K, t] transitions
    now: Tensor  # [K] current state
    origin: Tensor  # [K] first state
    chances: Tensor  # [K]

    def at(self, which: Tensor | slice) -> "_Prefixes":
        """A subset of the prefixes."""
        return _Prefixes(self.steps[which], self.now[which], self.origin[which], self.chances[which])

    def longer(self, transitions: _Transitions) -> "_Prefixes":
        """All prefixes that are one step longer."""
        index = torch.repeat_interleave(
            torch.arange(len(self.now), device=self.now.device), transitions.counts[self.now]
        )
        earlier = transitions.counts[self.now].cumsum(0) - transitions.counts[self.now]
        outcome = transitions.first[self.now][index] + torch.arange(len(index), device=self.now.device) - earlier[index]
        return _Prefixes(
            torch.cat([self.steps[index], outcome.unsqueeze(1)], 1),
            transitions.successors[outcome],
            self.origin[index],
            self.chances[index] * transitions.probabilities[outcome],
        )


def _pieces(transitions: _Transitions, prefixes: _Prefixes, size: int) -> Iterator[Trajectories]:
    """All completions of the prefixes: together if there are few, otherwise by halves or by longer prefixes."""
    num_steps, limit = prefixes.steps.shape[1], transitions.mdp.time_limit or 0
    counts = [transitions.remaining[limit - num_steps][state] for state in prefixes.now.tolist()]
    if sum(counts) <= size:
        yield _completed(transitions, prefixes)
    elif len(counts) > 1:
        half = len(counts) // 2
        yield from _pieces(transitions, prefixes.at(slice(None, half)), size)
        yield from _pieces(transitions, prefixes.at(slice(half, None)), size)
    else:
        yield from _pieces(transitions, prefixes.longer(transitions), size)


def _completed(transitions: _Transitions, prefixes: _Prefixes) -> Trajectories:
    mdp, limit = transitions.mdp, transitions.mdp.time_limit or 0
    ended = []
    for t in range(prefixes.steps.shape[1], limit + 1):
        over = mdp.terminal[prefixes.now] if t < limit else torch.ones_like(prefixes.now, dtype=torch.bool)
        done = prefixes.at(over)
        ended.append(_Prefixes(_padded(done.steps, limit), done.now, done.origin, done.chances))
        prefixes = prefixes.at(~over)
        if t < limit:
            prefixes = prefixes.longer(transitions)
    steps, ends, firsts, chances = (
        torch.cat([getattr(done, name) for done in ended]) for name in ("steps", "now", "origin", "chances")
    )
    real = steps >= 0
    steps = steps.clamp(min=0)
    if len(transitions.states):
        states, actions, successors = (
            column[steps] * real for column in (transitions.states, transitions.actions, transitions.successors)
        )
    else:  # every episode starts in a terminal state
        states = actions = successors = steps
    rewards = mdp.rewards.double()[states, actions, successors].masked_fill(~real, 0)
    return Trajectories(states, actions, successors, rewards, real, firsts, mdp.terminal[ends], chances)


def _remaining_counts(mdp: TabularMDP) -> list[list[int]]:
    """The number of trajectories from each state, for each number of remaining steps, `[L + 1][S]`."""
    if mdp.time_limit is None:
        raise ValueError("trajectories can be enumerated only in a world with a time limit, and this one has none")
    where, _, following = _outcomes(mdp)
    terminal = mdp.terminal.tolist()
    moves = list(zip(where.tolist(), following.tolist(), strict=True))
    remaining = [[1] * len(terminal)]
    for _ in range(mdp.time_limit):
        counts = [int(over) for over in terminal]
        for state, successor in moves:
            counts[state] += remaining[-1][successor]
        remaining.append(counts)
    return remaining


def format_count(count: int) -> str:
    """Format a number that may have hundreds of digits."""
    return f"{count:,}" if count < 10**9 else f"{Decimal(count):.2e}"


def _outcomes(mdp: TabularMDP) -> tuple[Tensor, Tensor, Tensor]:
    """(s, a, s′) of positive probability where s is not terminal, each `[M]`, by state."""
    where, chosen, following = ((mdp.transitions > 0) & ~mdp.terminal[:, None, None]).nonzero(as_tuple=True)
    return where, chosen, following


def _padded(steps: Tensor, limit: int) -> Tensor:
    return torch.nn.functional.pad(steps, (0, limit - steps.shape[1]), value=-1)
