"""The categorical policy: a network over Discrete or Box observations, a softmax over Discrete actions."""

from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn

from framework import Action, Evaluation, Inputs, UsageError

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}
NOISE_ROWS = 64  # uniform numbers are drawn for so many steps at once


@frozen
class Categorical:
    """Softmax over a network's outputs; Discrete observations are embedded, Box ones flattened."""

    hidden: tuple[int, ...] = field(default=(32,), validator=validators.deep_iterable(validators.ge(1)))
    """widths of the hidden layers"""
    activation: Literal["relu", "tanh", "gelu", "silu"] = field(
        default="relu", validator=validators.in_(tuple(ACTIVATIONS))
    )
    """between the layers"""
    embedding: int = field(default=8, validator=validators.ge(1))  # numbers a Discrete observation is embedded in

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "CategoricalPolicy":
        """A network whose sizes come from the spaces."""
        if not isinstance(action_space, Discrete):
            raise UsageError(f"policy 'categorical' takes Discrete actions, and the environment's are {action_space}")
        if not isinstance(observation_space, Discrete | Box):
            raise UsageError(
                "policy 'categorical' takes Discrete or Box observations, "
                f"and the environment's are {observation_space}"
            )
        return CategoricalPolicy(self, observation_space, action_space)


class CategoricalPolicy(nn.Module):
    """Logits of each action; finite observation spaces are evaluated once a state and looked up."""

    def __init__(self, settings: Categorical, observations: Discrete[Any] | Box, actions: Discrete[Any]) -> None:
        """An embedding (Discrete) or a flattening (Box), then linear layers."""
        super().__init__()
        self.states = int(observations.n) if isinstance(observations, Discrete) else 0
        self.first_state = int(observations.start) if isinstance(observations, Discrete) else 0
        self.first_action = int(actions.start)
        self.observation_dims = len(observations.shape or ())
        if self.states:
            self.embedding = nn.Embedding(self.states, settings.embedding)
            width = settings.embedding
        else:
            width = int(np.prod(observations.shape or ()))
        layers: list[nn.Module] = []
        for size in settings.hidden:
            layers += [nn.Linear(width, size), ACTIVATIONS[settings.activation]()]
            width = size
        self.network = nn.Sequential(*layers, nn.Linear(width, int(actions.n)))

    def log_probs(self, inputs: Inputs) -> Tensor:
        """log π(·|s) `[B, actions]`."""
        if self.states:
            features = self.embedding(inputs.observations - self.first_state)
        else:
            leading = inputs.observations.shape[: inputs.observations.ndim - self.observation_dims]
            features = inputs.observations.reshape(*leading, -1).to(self.network[-1].weight.dtype)  # type: ignore[arg-type]
        return _normalised(self.network(features), inputs.action_masks)

    def table(self) -> Tensor:
        """log π(·|s) of every state `[states, actions]`: one small forward pass."""
        return torch.log_softmax(self.network(self.embedding.weight), -1)

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample by exponential races: argmax p/e with e ~ Exp(1)."""
        with torch.no_grad():
            return _raced(self.log_probs(inputs), generator, self.first_action)

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs and, where asked for, entropies, with gradient."""
        actions = actions - self.first_action if self.first_action else actions
        if inputs.action_masks is None and 0 < self.states <= len(actions):
            states = inputs.observations - self.first_state if self.first_state else inputs.observations
            table = self.table()
            chosen = table.take(states * table.shape[1] + actions)
            return Evaluation(chosen, _entropy(table).take(states) if entropies else None)
        log_probs = self.log_probs(inputs)
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        return Evaluation(chosen, _entropy(log_probs) if entropies else None)

    def actor(self) -> "TableActor | None":
        """For a finite observation space on the CPU: one table of action probabilities."""
        if not self.states or self.embedding.weight.device.type != "cpu":
            return None
        with torch.no_grad():
            return TableActor(self.table(), self.first_state, self.first_action)


def _normalised(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """log-probs of the allowed actions; −∞ of the others."""
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return torch.log_softmax(logits, -1)


def _raced(log_probs: Tensor, generator: torch.Generator, first_action: int) -> Action:
    race = torch.empty_like(log_probs).exponential_(generator=generator)
    actions = (log_probs.exp() / race).argmax(-1)
    return Action(actions + first_action, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1))


def _entropy(log_probs: Tensor) -> Tensor:
    """−Σ p log p, with 0·log 0 = 0."""
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)


class TableActor:
    """Samples from a table of log-probabilities `[states, actions]`, in numpy, by inverting the cumulative sum."""

    def __init__(self, log_probs: Tensor, first_state: int = 0, first_action: int = 0) -> None:
        """Keep the table; the edges wait until somebody acts step by step."""
        self.log_probs = log_probs
        self.first_state, self.first_action = first_state, first_action
        self._edges: list[np.ndarray] = []
        self._row = NOISE_ROWS
        self._seen: Tensor | None = None

    def _cut(self) -> None:
        """The upper edges of all actions but the last, by column."""
        table = self.log_probs.double().exp()
        edges = table.cumsum(1) / table.sum(1, keepdim=True)
        # from an action on after which none is possible, no uniform number may pass it by rounding
        possible = table.flip(1).cumsum(1).flip(1)[:, 1:] > 0
        edges = torch.where(possible, edges[:, :-1], 2.0)
        self._edges = [column.numpy() for column in edges.float().t().contiguous()]

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One action a lane; where some are not allowed, of the others."""
        if inputs.action_masks is not None:
            rows = self.log_probs[inputs.observations - self.first_state]
            return _raced(_normalised(rows, inputs.action_masks), generator, self.first_action)
        if inputs.observations is not self._seen:
            self._look_at(inputs.observations)
        if self._row == NOISE_ROWS:
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
