"""The categorical policy: a network over Discrete or Box observations, a softmax over Discrete actions."""

from typing import Any

import torch
from attrs import frozen
from framework_networks.network import Network, NetworkSettings, normalizer, require, require_observations
from framework_networks.snapshot import GumbelMaxActor, Snapshot
from framework_networks.softmax import (
    GreedyActor,
    TableActor,
    gumbel_argmax,
    gumbel_max,
    log_probs_and_entropies,
    masked_log_softmax,
)
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor

from framework import Action, Evaluation, Inputs, Rollout


@frozen
class Categorical(NetworkSettings):
    """Softmax policy over discrete actions, without a critic.

    Discrete observations are embedded, Box observations flattened.
    """

    takes = (Discrete,)  # spaces of actions

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "CategoricalPolicy":
        """A network whose sizes come from the spaces."""
        require("categorical", "actions", action_space, *self.takes)
        require_observations("categorical", self, observation_space)
        return CategoricalPolicy(self, observation_space, action_space)  # type: ignore[arg-type]


class CategoricalPolicy(Network):
    """Logits of each action; finite observation spaces are evaluated once a state and looked up."""

    def __init__(self, settings: Categorical, observations: "Discrete[Any] | Box", actions: "Discrete[Any]") -> None:
        super().__init__(settings, observations, int(actions.n))
        self.count, self.first_action = int(actions.n), int(actions.start)
        self.normalizer = normalizer(settings, observations)

    def log_probs(self, inputs: Inputs) -> Tensor:
        """log π(·|s) `[B, actions]`."""
        return masked_log_softmax(self(self.normalizer(inputs.observations)), inputs.action_masks)

    def table(self) -> Tensor:
        """log π(·|s) of every state `[states, actions]`: one small forward pass."""
        return masked_log_softmax(self.every_state())

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample by exponential races: argmax p/e with e ~ Exp(1)."""
        with torch.no_grad():
            return gumbel_max(self.log_probs(inputs), generator, self.first_action)

    @property
    def choice_noise(self) -> int:
        """How many numbers of [0, 1) a choice is made by."""
        return self.count

    def choose(self, inputs: Inputs, noise: Tensor) -> Tensor:
        """What `act` does, as a pure function of tensors: the actions `[B]` of `noise` `[B, choice_noise]`."""
        return gumbel_argmax(self.log_probs(inputs), noise) + self.first_action

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs and, if requested, entropies, with gradient."""
        actions = actions - self.first_action if self.first_action else actions
        if inputs.action_masks is None:
            outputs, states = self.lookup(self.normalizer(inputs.observations))
            return Evaluation(*log_probs_and_entropies(masked_log_softmax(outputs), states, actions, entropies))
        return Evaluation(*log_probs_and_entropies(self.log_probs(inputs), None, actions, entropies))

    def observe(self, rollout: Rollout) -> None:
        """Let the normaliser take a rollout in, once an iteration."""
        self.normalizer.observe(rollout)

    def actor(self) -> "TableActor | GumbelMaxActor | None":
        """On the CPU: for a finite observation space one table of action probabilities, else the weights in numpy."""
        if not self.states:
            snapshot = Snapshot.of(self, CategoricalPolicy, self)
            return None if snapshot is None else GumbelMaxActor(snapshot, self.first_action)
        if self.embedding.weight.device.type != "cpu":
            return None
        with torch.no_grad():
            return TableActor(self.table(), self.first_state, self.first_action)

    def greedy(self) -> "GreedyActor":
        """Takes the most probable action."""
        return GreedyActor(self.log_probs, self.first_action)
