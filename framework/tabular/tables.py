"""A world of tables, made ready for sampling: an environment that is a small `mdp()`.

One uniform number picks action and successor together: each state has a short list of *outcomes* (a, s′) with
the probabilities π(a|s)·P(s′|s,a), drawn by inverting their cumulative sum, in `sampling.py` and `in_turn.py`.
"""

import numpy as np
import torch
from attrs import frozen
from gymnasium.spaces import Discrete

from ..capabilities import HasActionMasks, HasGroups, HasTables, has
from ..contracts import Array, Environment, TabularMDP
from ..errors import UsageError

MOST_OUTCOMES = 4096  # larger worlds are stepped: the tables would cost more each iteration than they save
TINY = np.finfo(float).tiny
ROUNDING = 1e-5  # by which a row of float32 probabilities may miss 1
NEVER = 2.0  # an edge that no uniform number reaches


@frozen(eq=False)
class Tables:
    """A world's outcomes, `width` to a state; outcome k belongs to state k // width."""

    shape: tuple[int, int]  # [O, A] of a table of log π
    width: int
    seen: Array  # [S·width] int64 what the outcome's state shows
    actions: Array  # [S·width] int64
    cells: Array  # [S·width] int64 where both stand in a table [O, A], flattened
    probabilities: Array  # [S·width] P(s′|s,a); 0 where a state has fewer outcomes
    rewards: Array  # [S·width] float32
    successors: Array  # [S·width] int64 s′
    seen_next: Array  # [S·width] int64 what s′ shows
    final: Array  # [S·width] bool: s′ is terminal
    start: Array  # [S − 1] upper edges of the first states
    first: int | None  # the one first state, where it is certain
    limit: int | None

    @classmethod
    def of(cls, environment: Environment, label: str = "environment") -> "Tables | None":
        """The tables of an environment that has an `mdp()` over its own spaces, if they are small; else None.

        Raises:
            UsageError: they describe no MDP; `label` names the environment.
        """
        states, actions = environment.observation_space, environment.action_space
        if not has(environment, HasTables) or has(environment, HasGroups) or has(environment, HasActionMasks):
            return None
        if not (isinstance(states, Discrete) and isinstance(actions, Discrete) and states.start == actions.start == 0):
            return None
        if int(states.n) > MOST_OUTCOMES:
            return None
        mdp: TabularMDP = environment.mdp()
        count, options = len(mdp.start), int(actions.n)
        _check(f"{label}: mdp()", mdp, int(states.n), options)
        seen = mdp.seen.cpu().numpy()
        transitions, rewards = mdp.transitions.cpu().double().numpy(), mdp.rewards.cpu().double().numpy()
        start = mdp.start.cpu().double().numpy()
        possible = (transitions > 0).reshape(count, -1)
        possible[mdp.terminal.cpu().numpy()] = False
        width = max(1, int(possible.sum(1).max()))
        if count * width > MOST_OUTCOMES:
            return None
        # a state's possible outcomes first, in the order of (action, successor)
        order = np.argsort(~possible, axis=1, kind="stable")[:, :width]
        real = np.take_along_axis(possible, order, 1).reshape(-1)
        pairs = order.reshape(-1)
        rows = np.repeat(np.arange(count), width)
        return cls(
            (int(states.n), options),
            width,
            seen[rows],
            pairs // count,
            seen[rows] * options + pairs // count,
            np.where(real, transitions.reshape(count, -1)[rows, pairs], 0.0),
            rewards.reshape(count, -1)[rows, pairs].astype(np.float32),
            pairs % count,
            seen[pairs % count],
            mdp.terminal.cpu().numpy()[pairs % count],
            inverse_cdf_edges(start[None])[0],
            int(start.argmax()) if (start > 0).sum() == 1 else None,
            mdp.time_limit,
        )

    def edges(self, log_probs: Array) -> Array:
        """Upper edge of each outcome but a state's last, `[S, width − 1]`, for a table of log π `[O, A]`."""
        weights = np.exp(log_probs.astype(np.float64)).take(self.cells) * self.probabilities
        return inverse_cdf_edges(weights.reshape(-1, self.width))


def inverse_cdf_edges(weights: Array) -> Array:
    """The upper edge `[K, W − 1]` of each outcome but a row's last, to sample rows of weights `[K, W]` by inversion.

    The outcome of a uniform number u in [0, 1) is the count of edges ≤ u. After the last possible outcome edges are
    `NEVER`, so that no rounding passes it; so are all edges of a row of zeros.
    """
    sums = weights.cumsum(axis=1)
    below, total = sums[:, :-1], sums[:, -1:]
    return np.where(below < total, below / np.maximum(total, TINY), NEVER)


def first_states(tables: Tables, count: int, generator: torch.Generator) -> Array:
    """First states of `count` episodes, [count] int64."""
    if tables.first is not None:
        return np.full(count, tables.first)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    return np.searchsorted(tables.start, uniform, side="right")


def _check(label: str, mdp: TabularMDP, observations: int, actions: int) -> None:
    """Refuse tables of other shapes, numbers that are not finite, and rows that are no probabilities."""
    states = observations if mdp.observations is None else len(mdp.start)
    shapes = {"transitions": (states, actions, states), "rewards": (states, actions, states), "start": (states,)}
    for name, shape in {**shapes, "terminal": (states,)}.items():
        given = getattr(mdp, name)
        if tuple(given.shape) != shape:
            raise UsageError(f"{label}: {name}: expected shape {list(shape)}, got {list(given.shape)}")
        if not bool(torch.isfinite(given).all()):
            raise UsageError(f"{label}: {name}: not finite")
    if mdp.observations is not None:
        if tuple(mdp.observations.shape) != (states,):
            raise UsageError(f"{label}: observations: expected shape {[states]}, got {list(mdp.observations.shape)}")
        if bool(((mdp.observations < 0) | (mdp.observations >= observations)).any()):
            raise UsageError(f"{label}: observations: each must be one of the observation space's {observations}")
    lived = mdp.transitions[~mdp.terminal].double()
    for name, rows in (("transitions", lived), ("start", mdp.start.double())):
        if bool((rows < 0).any()) or bool(((rows.sum(-1) - 1).abs() > ROUNDING).any()):
            raise UsageError(f"{label}: {name}: each row must be probabilities that sum to 1")
