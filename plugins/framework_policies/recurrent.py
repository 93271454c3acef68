"""The categorical policy with memory: a gated recurrent unit between the network and the actions, and a critic."""

from typing import Any

import torch
from attrs import evolve, field, frozen, validators
from framework_networks.network import Network, NetworkSettings, normalizer, require, require_observations
from framework_networks.softmax import gumbel_max, log_probs_and_entropies, masked_log_softmax
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from framework import Action, Evaluation, Inputs, Rollout


@frozen
class Recurrent(NetworkSettings):
    """Softmax policy with memory, a gated recurrent unit, and a critic.

    Both share the memory: returns should be of the size of 1 (extension scale_rewards).

    Source of the unit: Cho et al. 2014, arXiv:1406.1078, §2.3, in torch's variant (`torch.nn.GRU`).
    """

    gives = frozenset({"values"})
    takes = (Discrete,)  # spaces of actions
    memory: int = field(default=32, validator=validators.ge(1))
    """width of the memory, the state of the gated recurrent unit"""

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "RecurrentPolicy":
        """A network whose sizes come from the spaces."""
        require("recurrent", "actions", action_space, *self.takes)
        require_observations("recurrent", self, observation_space)
        return RecurrentPolicy(self, observation_space, action_space)  # type: ignore[arg-type]


class RecurrentPolicy(nn.Module):
    """From observations to numbers, from those and the memory to the next memory, from that to logits and a value."""

    def __init__(self, settings: Recurrent, observations: "Discrete[Any] | Box", actions: "Discrete[Any]") -> None:
        super().__init__()
        self.count, self.first_action = int(actions.n), int(actions.start)
        self.normalizer = normalizer(settings, observations)
        self.network = Network(settings, observations, settings.memory, values=settings.memory)
        self.unit = nn.GRU(settings.memory, settings.memory)
        self.heads = nn.Linear(settings.memory, self.count + 1)  # the last output is the value
        if settings.orthogonal:
            for name, parameter in [*self.unit.named_parameters(), *self.heads.named_parameters()]:
                (nn.init.zeros_ if "bias" in name else nn.init.orthogonal_)(parameter)
            self.heads.weight.detach()[:-1].mul_(0.01)

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample one action a lane, and remember."""
        with torch.no_grad():
            log_probs, remembered = self.step(inputs)
            return evolve(gumbel_max(log_probs, generator, self.first_action), state=remembered)

    def step(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """log π `[N, actions]` of one step, and the memory `[N, memory]` after it."""
        features, state = self.network(self.normalizer(inputs.observations)), inputs.state
        if state is not None and inputs.started is not None:
            state = state.masked_fill(inputs.started.unsqueeze(-1), 0)
        remembered = self.unit(features.unsqueeze(0), None if state is None else state.unsqueeze(0))[0][0]
        return masked_log_softmax(self.heads(remembered)[:, :-1], inputs.action_masks), remembered

    def greedy(self) -> "GreedyMemory":
        """Takes the most probable action, and remembers."""
        return GreedyMemory(self)

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs, values and, if requested, entropies of sequences `[T, N]`, with gradient."""
        outputs = self.heads(self.remembered(inputs))
        log_probs = masked_log_softmax(outputs[..., :-1], inputs.action_masks)
        taken, uncertain = log_probs_and_entropies(log_probs, None, actions - self.first_action, entropies)
        return Evaluation(taken, uncertain, outputs[..., -1])

    def values(self, inputs: Inputs) -> Tensor:
        """V `[T, N]` of what is observed and remembered."""
        return self.heads(self.remembered(inputs))[..., -1]  # type: ignore[no-any-return]

    def observe(self, rollout: Rollout) -> None:
        """Let the normaliser take a rollout in, once an iteration."""
        self.normalizer.observe(rollout)

    def remembered(self, inputs: Inputs) -> Tensor:
        """The memory `[T, N, memory]` after each step of sequences: one call of the unit for all episodes in them.

        The sequences are cut where an episode starts, and the pieces laid side by side, the longest first: row k of the
        packing holds the k-th step of every piece that has one.
        """
        features = self.network(self.normalizer(inputs.observations))
        rows, lanes, width = features.shape
        starts = features.new_zeros((rows, lanes), dtype=torch.bool) if inputs.started is None else inputs.started
        begins = starts.clone()
        begins[0] = True
        pieces = begins.t().flatten().cumsum(0).view(lanes, rows).t() - 1  # [T, N] of which piece a step is
        lengths = pieces.flatten().bincount()
        longest_first = lengths.argsort(descending=True, stable=True)
        rank = longest_first.argsort()
        times = torch.arange(rows, device=starts.device).unsqueeze(1).expand(rows, lanes)
        steps = times - torch.where(begins, times, 0).cummax(0).values  # [T, N] index within the piece
        order = (steps * len(lengths) + rank[pieces]).flatten().argsort()
        sizes = steps.flatten().bincount().cpu()  # of each packed row

        state = features.new_zeros(len(lengths), width)
        if inputs.state is not None:  # of the pieces in the first row, those that go on with an episode
            state = state.index_copy(0, rank[pieces[0]], inputs.state.masked_fill(starts[0].unsqueeze(-1), 0))
        packed = PackedSequence(features.flatten(0, 1)[order], sizes)
        remembered = self.unit(packed, state.unsqueeze(0))[0].data
        return remembered[order.argsort()].view(rows, lanes, width)  # type: ignore[no-any-return]


class GreedyMemory:
    """Takes the most probable action of those that are allowed; of equally probable ones, the first."""

    def __init__(self, policy: RecurrentPolicy) -> None:
        """Of a policy."""
        self._policy = policy

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One action a lane; nothing is drawn."""
        with torch.no_grad():
            log_probs, remembered = self._policy.step(inputs)
            return Action(log_probs.argmax(-1) + self._policy.first_action, state=remembered)
