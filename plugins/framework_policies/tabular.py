"""A table of logits and one of values: every policy and every critic of a small world, exactly."""

from typing import Any

import torch
from attrs import frozen
from framework_networks.network import require
from framework_networks.softmax import GreedyActor, TableActor, gumbel_max, log_probs_and_entropies, masked_log_softmax
from gymnasium.spaces import Discrete, Space
from torch import Tensor, nn

from framework import Action, Evaluation, Inputs


@frozen
class Tabular:
    """Table of a logit per state and action, and of a value per state; uniform at first."""

    takes = (Discrete,)  # spaces of actions
    gives = frozenset({"values"})

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "TabularPolicy":
        """Tables whose sizes come from the spaces."""
        require("tabular", "actions", action_space, *self.takes)
        require("tabular", "observations", observation_space, Discrete)
        return TabularPolicy(observation_space, action_space)  # type: ignore[arg-type]


class TabularPolicy(nn.Module):
    """The parameters are the logits `[states, actions]` and the critic `[states]`."""

    def __init__(self, observations: "Discrete[Any]", actions: "Discrete[Any]") -> None:
        super().__init__()
        self.first_state, self.first_action = int(observations.start), int(actions.start)
        self.logits = nn.Parameter(torch.zeros(int(observations.n), int(actions.n)))
        self.critic = nn.Parameter(torch.zeros(int(observations.n)))

    def log_probs(self, inputs: Inputs) -> Tensor:
        """log π(·|s) `[B, actions]`."""
        return masked_log_softmax(self.logits[self._states(inputs)], inputs.action_masks)

    def table(self) -> Tensor:
        """log π(·|s) of every state `[states, actions]`."""
        return masked_log_softmax(self.logits)

    def values(self, inputs: Inputs) -> Tensor:
        """V(s) `[B]`."""
        return self.critic.take(self._states(inputs))

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample one action a lane."""
        with torch.no_grad():
            return gumbel_max(self.log_probs(inputs), generator, self.first_action)

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs, values and, if requested, entropies, with gradient."""
        actions = actions - self.first_action if self.first_action else actions
        if inputs.action_masks is None:
            evaluated = log_probs_and_entropies(self.table(), self._states(inputs), actions, entropies)
        else:
            evaluated = log_probs_and_entropies(self.log_probs(inputs), None, actions, entropies)
        return Evaluation(*evaluated, self.values(inputs))

    def actor(self) -> TableActor | None:
        """On the CPU: the table of action probabilities."""
        if self.logits.device.type != "cpu":
            return None
        with torch.no_grad():
            return TableActor(self.table(), self.first_state, self.first_action)

    def greedy(self) -> GreedyActor:
        """Takes the most probable action."""
        return GreedyActor(self.log_probs, self.first_action)

    def _states(self, inputs: Inputs) -> Tensor:
        return inputs.observations - self.first_state if self.first_state else inputs.observations
