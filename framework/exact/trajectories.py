"""Every trajectory that a world with a short time limit allows, with its probability."""

from collections.abc import Iterator
from decimal import Decimal

import torch
from attrs import frozen
from torch import Tensor

from ..contracts import TabularMDP

MAX_TRAJECTORIES = 2_000_000  # trajectories at once; with 10 steps each 160 MB an array
MAX_IN_PIECES = 20_000_000  # one piece after the other: some twenty seconds to differentiate
PIECE_SIZE = 2**16  # trajectories that are differentiated together


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
    remaining = _remaining_counts(mdp)[-1]
    return sum(remaining[state] for state in mdp.start.nonzero().flatten().tolist())


def trajectories(mdp: TabularMDP, most: int = MAX_TRAJECTORIES) -> Trajectories:
    """All of them, shorter ones first. No action is left out, even where a policy never takes it.

    Raises:
        ValueError: no time limit, or more than `most`; says how many.
    """
    (all_trajectories,) = pieces(mdp, most, most)
    return all_trajectories


def pieces(mdp: TabularMDP, most: int = MAX_IN_PIECES, size: int = PIECE_SIZE) -> Iterator[Trajectories]:
    """All of them, in pieces of those that begin alike: of about `size`, so that memory is bounded.

    Raises:
        ValueError: no time limit, or more than `most`; says how many.
    """
    count = count_trajectories(mdp)
    if count > most:
        raise ValueError(
            f"{format_count(count)} trajectories, and at most {most:,} are enumerated: shorten the time limit"
        )
    starts = mdp.start.nonzero().flatten()
    no_steps = torch.zeros((len(starts), 0), dtype=torch.int64, device=starts.device)
    return _pieces(_World.of(mdp), _Prefixes(no_steps, starts, starts, mdp.start.double()[starts]), size)


@frozen(eq=False)
class _World:
    """A world's outcomes (s, a, s′) that are possible, each column `[M]`, by state."""

    mdp: TabularMDP
    where: Tensor
    chosen: Tensor
    following: Tensor
    chance: Tensor
    number: Tensor  # [S] of each state's outcomes
    first: Tensor  # [S] the first of them
    remaining: list[list[int]]  # [L + 1][S] trajectories from each state on, by steps that are left

    @classmethod
    def of(cls, mdp: TabularMDP) -> "_World":
        """Of these tables."""
        where, chosen, following = _outcomes(mdp)
        number = torch.bincount(where, minlength=len(mdp.start))
        chance = mdp.transitions.double()[where, chosen, following]
        return cls(mdp, where, chosen, following, chance, number, number.cumsum(0) - number, _remaining_counts(mdp))


@frozen(eq=False)
class _Prefixes:
    """K trajectories that have begun, t steps long."""

    steps: Tensor  # [K, t] outcomes
    now: Tensor  # [K] state
    origin: Tensor  # [K] the state they began in
    chances: Tensor  # [K]

    def at(self, which: Tensor | slice) -> "_Prefixes":
        """Some of them."""
        return _Prefixes(self.steps[which], self.now[which], self.origin[which], self.chances[which])

    def longer(self, world: _World) -> "_Prefixes":
        """All that they may be a step later."""
        index = torch.repeat_interleave(torch.arange(len(self.now), device=self.now.device), world.number[self.now])
        earlier = world.number[self.now].cumsum(0) - world.number[self.now]
        outcome = world.first[self.now][index] + torch.arange(len(index), device=self.now.device) - earlier[index]
        return _Prefixes(
            torch.cat([self.steps[index], outcome.unsqueeze(1)], 1),
            world.following[outcome],
            self.origin[index],
            self.chances[index] * world.chance[outcome],
        )


def _pieces(world: _World, prefixes: _Prefixes, size: int) -> Iterator[Trajectories]:
    """What has begun, played to its end: all together, or in halves, or of each what may follow it."""
    num_steps, limit = prefixes.steps.shape[1], world.mdp.time_limit or 0
    counts = [world.remaining[limit - num_steps][state] for state in prefixes.now.tolist()]
    if sum(counts) <= size:
        yield _completed(world, prefixes)
    elif len(counts) > 1:
        half = len(counts) // 2
        yield from _pieces(world, prefixes.at(slice(None, half)), size)
        yield from _pieces(world, prefixes.at(slice(half, None)), size)
    else:
        yield from _pieces(world, prefixes.longer(world), size)


def _completed(world: _World, prefixes: _Prefixes) -> Trajectories:
    mdp, limit = world.mdp, world.mdp.time_limit or 0
    ended = []
    for t in range(prefixes.steps.shape[1], limit + 1):
        over = mdp.terminal[prefixes.now] if t < limit else torch.ones_like(prefixes.now, dtype=torch.bool)
        done = prefixes.at(over)
        ended.append(_Prefixes(_padded(done.steps, limit), done.now, done.origin, done.chances))
        prefixes = prefixes.at(~over)
        if t < limit:
            prefixes = prefixes.longer(world)
    steps, ends, firsts, chances = (
        torch.cat([getattr(done, name) for done in ended]) for name in ("steps", "now", "origin", "chances")
    )
    real = steps >= 0
    steps = steps.clamp(min=0)
    if len(world.where):
        states, actions, successors = (column[steps] * real for column in (world.where, world.chosen, world.following))
    else:  # every episode begins where the world has ended
        states = actions = successors = steps
    rewards = mdp.rewards.double()[states, actions, successors].masked_fill(~real, 0)
    return Trajectories(states, actions, successors, rewards, real, firsts, mdp.terminal[ends], chances)


def _remaining_counts(mdp: TabularMDP) -> list[list[int]]:
    """How many trajectories lead on from each state, for each number of steps that are left, `[L + 1][S]`."""
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
    """A number that may have hundreds of digits."""
    return f"{count:,}" if count < 10**9 else f"{Decimal(count):.2e}"


def _outcomes(mdp: TabularMDP) -> tuple[Tensor, Tensor, Tensor]:
    """(s, a, s′) of positive probability where s is not terminal, each `[M]`, by state."""
    where, chosen, following = ((mdp.transitions > 0) & ~mdp.terminal[:, None, None]).nonzero(as_tuple=True)
    return where, chosen, following


def _padded(steps: Tensor, limit: int) -> Tensor:
    return torch.nn.functional.pad(steps, (0, limit - steps.shape[1]), value=-1)
