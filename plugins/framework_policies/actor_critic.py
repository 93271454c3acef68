"""The categorical policy with a critic: two networks, or one for both."""

from typing import Any

import torch
from attrs import frozen
from framework_networks.network import (
    Network,
    NetworkSettings,
    lookup,
    normalizer,
    outputs_of,
    require,
    require_observations,
)
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
from torch import Tensor, nn

from framework import Action, Evaluation, Inputs, Rollout


@frozen
class ActorCritic(NetworkSettings):
    """Softmax policy over discrete actions, with a critic."""

    takes = (Discrete,)  # spaces of actions
    gives = frozenset({"values"})
    shared: bool = False  # share one network between actions and values, instead of two of equal size

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "ActorCriticPolicy":
        """Networks whose sizes come from the spaces."""
        require("actor_critic", "actions", action_space, *self.takes)
        require_observations("actor_critic", self, observation_space)
        return ActorCriticPolicy(self, observation_space, action_space)  # type: ignore[arg-type]


class ActorCriticPolicy(nn.Module):
    """Logits of each action, and a value; a shared network's last output is the value."""

    def __init__(self, settings: ActorCritic, observations: "Discrete[Any] | Box", actions: "Discrete[Any]") -> None:
        super().__init__()
        self.count, self.first_action = int(actions.n), int(actions.start)
        self.normalizer = normalizer(settings, observations)
        self.network = Network(settings, observations, self.count + settings.shared, values=int(settings.shared))
        self.critic = None if settings.shared else Network(settings, observations, 1, values=1)

    def log_probs(self, inputs: Inputs) -> Tensor:
        """log π(·|s) `[B, actions]`."""
        return masked_log_softmax(
            self.network(self.normalizer(inputs.observations))[..., : self.count], inputs.action_masks
        )

    def table(self) -> Tensor:
        """log π(·|s) of every state `[states, actions]`: one small forward pass."""
        return masked_log_softmax(self.network.every_state()[:, : self.count])

    def values(self, inputs: Inputs) -> Tensor:
        """V(s) `[B]`."""
        observations = self.normalizer(inputs.observations)
        if self.critic is None:
            return self.network(observations)[..., -1]  # type: ignore[no-any-return]
        return self.critic(observations).squeeze(-1)  # type: ignore[no-any-return]

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample one action a lane."""
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
        """Log-probs, values and, if requested, entropies, with gradient."""
        networks = [self.network] if self.critic is None else [self.network, self.critic]
        observations = self.normalizer(inputs.observations)
        if inputs.action_masks is None:
            (outputs, *critics), states = lookup(networks, observations)
        else:
            (outputs, *critics), states = outputs_of(networks, observations), None
        log_probs = masked_log_softmax(outputs if critics else outputs[..., : self.count], inputs.action_masks)
        actions = actions - self.first_action if self.first_action else actions
        values = critics[0].squeeze(-1) if critics else outputs[..., -1]
        if states is not None:
            values = values.take(states)
        return Evaluation(*log_probs_and_entropies(log_probs, states, actions, entropies), values)

    def observe(self, rollout: Rollout) -> None:
        """Let the normaliser take a rollout in, once an iteration."""
        self.normalizer.observe(rollout)

    def actor(self) -> TableActor | GumbelMaxActor | None:
        """On the CPU: for a finite observation space one table of action probabilities, else the weights in numpy."""
        network = self.network
        if not network.states:
            snapshot = Snapshot.of(self, ActorCriticPolicy, network, slice(self.count))
            return None if snapshot is None else GumbelMaxActor(snapshot, self.first_action)
        if network.embedding.weight.device.type != "cpu":
            return None
        with torch.no_grad():
            return TableActor(self.table(), network.first_state, self.first_action)

    def greedy(self) -> GreedyActor:
        """Takes the most probable action."""
        return GreedyActor(self.log_probs, self.first_action)
