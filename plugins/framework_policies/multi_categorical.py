"""Several discrete actions at once, each with a softmax of its own; and a critic."""

from typing import Any

import numpy as np
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
from framework_networks.softmax import GreedyActor, entropy, gumbel_max, masked_log_softmax
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor, nn

from framework import Action, Evaluation, Inputs, Rollout, UsageError


@frozen
class MultiCategorical(NetworkSettings):
    """Independent softmax policies over several discrete actions or bits, with a critic."""

    takes = (MultiDiscrete, MultiBinary)  # spaces of actions
    gives = frozenset({"values"})

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "MultiCategoricalPolicy":
        """Networks whose sizes come from the spaces."""
        require("multi_categorical", "actions", action_space, *self.takes)
        require_observations("multi_categorical", self, observation_space)
        if len(action_space.shape or ()) != 1:
            raise UsageError(
                "policy 'multi_categorical' takes several discrete actions in a row, "
                f"and the environment's are {action_space}, of shape {list(action_space.shape or ())}"
            )
        return MultiCategoricalPolicy(self, observation_space, action_space)  # type: ignore[arg-type]


class MultiCategoricalPolicy(nn.Module):
    """K actions a step, `[B, K]`; a mask `[B, Σ options]` has all options of the first action, then the second's …

    The softmaxes are one over rows `[K, most options]`; what a shorter row lacks has log-prob −∞.
    """

    options: Tensor  # [K · most] which output each place takes
    missing: Tensor  # [K, most] True where a row has no such option
    first: Tensor  # [K] each action's first number

    def __init__(
        self, settings: MultiCategorical, observations: "Discrete[Any] | Box", actions: MultiDiscrete | MultiBinary
    ) -> None:
        super().__init__()
        if isinstance(actions, MultiBinary):
            actions = MultiDiscrete(np.full(actions.shape, 2))
        counts = np.asarray(actions.nvec, np.int64)
        places = np.arange(counts.max())
        missing = places >= counts[:, None]
        options = np.where(missing, 0, places + (counts.cumsum() - counts)[:, None])
        self.register_buffer("options", torch.from_numpy(options.reshape(-1)), persistent=False)
        self.register_buffer("missing", torch.from_numpy(missing), persistent=False)
        self.register_buffer("first", torch.from_numpy(np.asarray(actions.start, np.int64)), persistent=False)
        self.normalizer = normalizer(settings, observations)
        self.network = Network(settings, observations, int(counts.sum()))
        self.critic = Network(settings, observations, 1, values=1)

    def log_probs(self, inputs: Inputs) -> Tensor:
        """log π(·|s) of each action, `[B, K, most options]`."""
        return self._normalised(self.network(self.normalizer(inputs.observations)), inputs.action_masks)

    def table(self) -> Tensor:
        """The same of every state, `[states, K, most options]`: one small forward pass."""
        return self._normalised(self.network.every_state(), None)

    def values(self, inputs: Inputs) -> Tensor:
        """V(s) `[B]`."""
        return self.critic(self.normalizer(inputs.observations)).squeeze(-1)  # type: ignore[no-any-return]

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample K actions a lane."""
        with torch.no_grad():
            drawn = gumbel_max(self.log_probs(inputs), generator, 0)
            assert drawn.log_probs is not None
            return Action(drawn.actions + self.first, drawn.log_probs.sum(-1))

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs, values and, if requested, entropies, with gradient; sums over the K actions."""
        networks, observations = [self.network, self.critic], self.normalizer(inputs.observations)
        if inputs.action_masks is None:
            (outputs, values), states = lookup(networks, observations)
        else:
            (outputs, values), states = outputs_of(networks, observations), None
        log_probs = self._normalised(outputs, inputs.action_masks)
        uncertain = entropy(log_probs).sum(-1) if entropies else None
        if states is not None:
            log_probs = log_probs.index_select(0, states)
            values = values.index_select(0, states)
            uncertain = None if uncertain is None else uncertain.take(states)
        chosen = log_probs.gather(-1, (actions - self.first).unsqueeze(-1)).squeeze(-1).sum(-1)
        return Evaluation(chosen, uncertain, values.squeeze(-1))

    def observe(self, rollout: Rollout) -> None:
        """Let the normaliser take a rollout in, once an iteration."""
        self.normalizer.observe(rollout)

    def actor(self) -> GumbelMaxActor | None:
        """For Box observations on the CPU: the weights in numpy."""
        snapshot = Snapshot.of(self, MultiCategoricalPolicy, self.network, self.options)
        if snapshot is None:
            return None
        snapshot.biases[-1][self.missing.flatten().numpy()] = -np.inf  # options that do not exist are never chosen
        return GumbelMaxActor(snapshot, self.first.numpy(), self.first.shape, self.options.numpy())

    def greedy(self) -> GreedyActor:
        """Takes the most probable option of each action."""
        return GreedyActor(self.log_probs, self.first)

    def _normalised(self, outputs: Tensor, allowed: Tensor | None) -> Tensor:
        if allowed is not None:
            outputs = outputs.masked_fill(~allowed, -torch.inf)
        rows = outputs.index_select(-1, self.options).reshape(*outputs.shape[:-1], *self.missing.shape)
        return masked_log_softmax(rows, ~self.missing)
