"""A softmax policy without a network."""

from typing import Any

import torch
from attrs import frozen
from framework import Action, Evaluation, Inputs, UsageError, hookimpl
from gymnasium.spaces import Discrete, Space
from torch import Tensor, nn


@frozen
class MyPart:
    """One row of logits per observation, all 0 at first."""

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "MyPartPolicy":
        """The policy, with a table sized by the spaces."""
        if not (isinstance(observation_space, Discrete) and isinstance(action_space, Discrete)):
            raise UsageError("policy 'my_part' takes Discrete observations and actions")
        return MyPartPolicy(observation_space, action_space)


class MyPartPolicy(nn.Module):
    """π(a|s) is the softmax of row s."""

    def __init__(self, observations: "Discrete[Any]", actions: "Discrete[Any]") -> None:
        super().__init__()
        self.first_observation, self.first_action = int(observations.start), int(actions.start)
        self.logits = nn.Parameter(torch.zeros(int(observations.n), int(actions.n)))

    def log_probs(self, inputs: Inputs) -> Tensor:
        """log π(·|s) [B, actions]."""
        logits = self.logits[inputs.observations - self.first_observation]
        if inputs.action_masks is not None:
            logits = logits.masked_fill(~inputs.action_masks, -torch.inf)
        return logits.log_softmax(-1)

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample actions with the generator; log-probs are computed later, for the whole rollout at once."""
        with torch.no_grad():
            probabilities = self.log_probs(inputs).exp()
            chosen = torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
        return Action(chosen + self.first_action)

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs of given actions, and entropies if the loss needs them, with gradient."""
        log_probs = self.log_probs(inputs)
        chosen = log_probs.gather(-1, (actions - self.first_action).unsqueeze(-1)).squeeze(-1)
        if not entropies:
            return Evaluation(chosen)
        finite = log_probs.masked_fill(log_probs == -torch.inf, 0)  # masked actions: 0·log 0 is 0, with gradient 0
        return Evaluation(chosen, -(log_probs.exp() * finite).sum(-1))


@hookimpl
def policies() -> dict[str, Any]:
    """Offer the policy."""
    return {"my_part": MyPart}
