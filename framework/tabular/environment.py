"""A world of tables as an environment: N lanes that step a `TabularMDP`."""

from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ..contracts import Step, TabularMDP
from .tables import inverse_cdf_edges


class TabularLanes:
    """Lanes of the world that `mdp` describes; what a settings' `build` returns is one.

    Each lane has random numbers of its own each step, whatever the others do: one for its successor, where any is
    uncertain, and one for its next start, where that is. Buffers are handed out again each step.
    """

    def __init__(
        self,
        mdp: TabularMDP,
        num_envs: int,
        device: torch.device | str = "cpu",
        action_names: tuple[str, ...] | None = None,
    ) -> None:
        """Build the tables of outcomes `[S · A, W]`: where each may lead, and the upper edge of each but the last."""
        self._mdp = mdp = TabularMDP(
            mdp.transitions.to(device),
            mdp.rewards.to(device),
            mdp.start.to(device),
            mdp.terminal.to(device),
            mdp.time_limit,
            None if mdp.observations is None else mdp.observations.to(device),
        )
        states, actions, _ = mdp.transitions.shape
        self.observation_space = Discrete(states if mdp.observations is None else int(mdp.observations.max()) + 1)
        self.action_space: Discrete[Any] = Discrete(actions)
        if action_names is not None:
            self.action_names = action_names
        self._actions, self._states = actions, states
        self._seen = mdp.seen
        rows = mdp.transitions.double().reshape(states * actions, states)
        self._successors, self._edges = _outcomes(rows)
        self._starts, self._start_edges = _outcomes(mdp.start.double().unsqueeze(0))
        self._rewards = mdp.rewards.float().flatten()
        self._limit = torch.iinfo(torch.int64).max if mdp.time_limit is None else mdp.time_limit

        def lanes(dtype: torch.dtype) -> Tensor:
            return torch.zeros(num_envs, dtype=dtype, device=device)

        self._at = lanes(torch.int64)
        self._clock = lanes(torch.int64)
        self._none = lanes(torch.int64)
        self._step = Step(
            lanes(torch.int64), lanes(torch.int64), lanes(torch.float32), lanes(torch.bool), lanes(torch.bool)
        )

    def reset(self, generator: torch.Generator) -> Tensor:
        """All lanes at a first state."""
        self._clock.zero_()
        self._at.copy_(_drawn(self._starts, self._start_edges, self._none, generator))
        return torch.take(self._seen, self._at, out=self._step.observations)

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """One step by the tables; the next episode begins at once."""
        step, clock = self._step, self._clock
        pairs = self._at * self._actions + actions
        after = _drawn(self._successors, self._edges, pairs, generator)
        torch.take(self._rewards, pairs * self._states + after, out=step.rewards)
        torch.take(self._mdp.terminal, after, out=step.terminated)
        clock += 1
        torch.ge(clock, self._limit, out=step.truncated)
        continues = ~(step.terminated | step.truncated)
        clock *= continues
        torch.where(continues, after, _drawn(self._starts, self._start_edges, self._none, generator), out=self._at)
        torch.take(self._seen, after, out=step.successors)
        torch.take(self._seen, self._at, out=step.observations)
        return step

    def mdp(self) -> TabularMDP:
        """The tables."""
        return self._mdp

    def state_dict(self) -> dict[str, Tensor]:
        """Where each lane is, and since when."""
        return {"states": self._at.clone(), "clock": self._clock.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put the lanes back."""
        self._at.copy_(state["states"])
        self._clock.copy_(state["clock"])
        torch.take(self._seen, self._at, out=self._step.observations)


def _outcomes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """From rows of probabilities `[K, S]`: the possible outcomes `[K, W]` of each, and their upper edges `[K, W − 1]`.

    W is the largest number of outcomes; a row with fewer is filled up with some that are never reached.
    """
    possible = rows > 0
    width = max(1, int(possible.sum(1).max()))
    order = torch.argsort(possible, dim=1, descending=True, stable=True)[:, :width]
    edges = inverse_cdf_edges(rows.gather(1, order).cpu().numpy())
    return order, torch.from_numpy(edges).to(rows.device)


def _drawn(outcomes: Tensor, edges: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """One outcome of each of `rows` `[N]`, by inverting the cumulative sum; nothing is drawn where all are certain."""
    if edges.shape[1] == 0:
        return outcomes[:, 0][rows]
    uniform = torch.rand(len(rows), 1, generator=generator, dtype=torch.float64, device=rows.device)
    return outcomes[rows, (edges[rows] <= uniform).sum(1)]
