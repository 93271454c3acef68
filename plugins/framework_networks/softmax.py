"""Discrete actions from logits: log-probs, sampling by the Gumbel-max trick, entropies, and actors of tables."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from framework import Action, Inputs
from framework.tools import inverse_cdf_edges

NOISE_ROWS = 64  # uniform numbers are drawn for this number of steps at once
VECTOR = 16  # float32 numbers in a processor's vector
MANY = 1024  # numbers from which on transposing pays off


class GreedyActor:
    """Takes the most probable action of those that are allowed; of equally probable ones, the first."""

    def __init__(self, log_probs: Callable[[Inputs], Tensor], first: int | Tensor) -> None:
        """`log_probs`: log π `[…, actions]` of inputs, −∞ if masked; `first`: the number of the first action."""
        self._log_probs, self._first = log_probs, first

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One action per row, without randomness."""
        with torch.no_grad():
            return Action(self._log_probs(inputs).argmax(-1) + self._first)


def masked_log_softmax(logits: Tensor, allowed: Tensor | None = None) -> Tensor:
    """log-probs `[…, actions]` of the allowed actions; −∞ of the others."""
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    if logits.is_cpu and logits.shape[-1] < VECTOR and logits.numel() >= MANY:
        # torch's kernel is scalar along such a short last dimension; along a first one it takes a tenth of the time
        return torch.log_softmax(logits.movedim(-1, 0), 0).movedim(0, -1)
    return torch.log_softmax(logits, -1)


def gumbel_max(log_probs: Tensor, generator: torch.Generator, first_action: int) -> Action:
    """One action per row, and its log-prob."""
    race = torch.empty_like(log_probs).exponential_(generator=generator)
    actions = (log_probs.exp() / race).argmax(-1)
    return Action(actions + first_action, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1))


def gumbel_argmax(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """The same with uniform numbers of [0, 1): argmax log p − log e with e = −log u."""
    return (log_probs - uniform.clamp(min=2.0**-54).log().neg().log()).argmax(-1)


def log_probs_and_entropies(
    log_probs: Tensor, states: Tensor | None, actions: Tensor, entropies: bool
) -> tuple[Tensor, Tensor | None]:
    """log π(a|s) `[B]` of actions `[B]`, counted from 0, and entropies `[B]`, if `entropies` is set.

    `log_probs` has a row for each action, or, with `states` `[B]`, for each state.
    """
    if states is None:
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        return chosen, entropy(log_probs) if entropies else None
    chosen = log_probs.take(states * log_probs.shape[1] + actions)
    return chosen, entropy(log_probs).take(states) if entropies else None


def entropy(log_probs: Tensor) -> Tensor:
    """−Σ p log p of each row, with 0·log 0 = 0."""
    # e^-1000 is 0 in every dtype, so the clamp changes no value; without it gradients would overflow
    return -(log_probs.exp() * log_probs.clamp(min=-1000.0)).sum(-1)


class TableActor:
    """Samples from a table of log-probabilities `[states, actions]`, in numpy, by inverting the cumulative sum."""

    def __init__(self, log_probs: Tensor, first_state: int = 0, first_action: int = 0) -> None:
        """Keep the table; the edges are computed at the first `act`."""
        self.log_probs = log_probs
        self.first_state, self.first_action = first_state, first_action
        self._edges: list[np.ndarray] = []
        self._row = NOISE_ROWS
        self._seen: Tensor | None = None
        self._generator: torch.Generator | None = None

    def _cut(self) -> None:
        """The upper edges of all actions but the last, by column."""
        edges = inverse_cdf_edges(self.log_probs.double().exp().numpy())
        self._edges = list(np.ascontiguousarray(edges.T, dtype=np.float32))

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One action per lane, of the allowed ones."""
        if inputs.action_masks is not None:
            rows = self.log_probs[inputs.observations - self.first_state]
            return gumbel_max(masked_log_softmax(rows, inputs.action_masks), generator, self.first_action)
        if inputs.observations is not self._seen:
            self._look_at(inputs.observations)
        if self._row == NOISE_ROWS or generator is not self._generator:  # each shard has a generator of its own
            self._generator = generator
            self._noise = torch.rand(NOISE_ROWS, self._lanes, generator=generator).numpy()
            self._row = 0
        uniform = self._noise[self._row]
        self._row += 1
        states = self._states - self.first_state if self.first_state else self._states
        chosen = self._chosen
        chosen.fill(self.first_action)
        for edge in self._edges:
            chosen += edge[states] <= uniform
        return self._action

    def _look_at(self, observations: Tensor) -> None:
        self._seen, self._states = observations, observations.numpy()
        if getattr(self, "_lanes", None) != len(observations):
            self._cut()
            self._lanes = len(observations)
            self._row = NOISE_ROWS
            actions = torch.zeros(self._lanes, dtype=torch.int64)
            self._action, self._chosen = Action(actions), actions.numpy()
