"""Continuous actions from a diagonal normal distribution, clipped or squashed into their bounds; and a critic."""

import math
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen, validators
from framework_networks.network import (
    ACTIVATIONS,
    Network,
    NetworkSettings,
    normalizer,
    outputs_of,
    require,
    require_observations,
)
from framework_networks.snapshot import Array, Noise, Snapshot, quiet
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn
from torch.nn import functional

from framework import Action, Evaluation, Inputs, Rollout, UsageError

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
NODES = 32  # of the quadrature behind a squashed entropy


@frozen
class Gaussian(NetworkSettings):
    """Normal distributions over Box actions, with a critic."""

    takes = (Box,)  # spaces of actions
    gives = frozenset({"values"})
    hidden: tuple[int, ...] = field(default=(64, 64), validator=validators.deep_iterable(validators.ge(1)))
    """widths of the hidden layers"""
    activation: Literal["relu", "tanh", "gelu", "silu"] = field(
        default="tanh", validator=validators.in_(tuple(ACTIVATIONS))
    )
    """activation between the layers"""
    deviation: Literal["global", "state"] = field(default="global", validator=validators.in_(("global", "state")))
    """standard deviations: parameters that are the same in all states, or outputs of the network"""
    initial_deviation: float = field(default=1.0, validator=validators.gt(0))
    """standard deviation at the start, before squashing"""
    squash: bool = False  # squash actions into the bounds by tanh, instead of clipping them

    def build(self, observation_space: Space[Any], action_space: Space[Any]) -> "GaussianPolicy":
        """Networks whose sizes come from the spaces."""
        require("gaussian", "actions", action_space, *self.takes)
        require_observations("gaussian", self, observation_space)
        assert isinstance(action_space, Box)
        if not np.issubdtype(action_space.dtype, np.floating):
            raise UsageError(
                f"policy 'gaussian' takes Box actions of floating point, and the environment's are {action_space}"
            )
        low, high = torch.from_numpy(action_space.low), torch.from_numpy(action_space.high)
        widths = high - low
        if self.squash and not bool(((widths > 0) & torch.isfinite(widths)).all()):
            raise UsageError(
                "policy 'gaussian' with squash takes Box actions with finite bounds, the lower below the higher, "
                f"and the environment's are {action_space}"
            )
        return GaussianPolicy(self, observation_space, action_space)  # type: ignore[arg-type]


class GaussianPolicy(nn.Module):
    """u ~ N(μ(s), σ²) for each of the A numbers of an action; rollouts keep u.

    Without squashing the density is that of u, and the environment gets u clipped to its bounds. Squashed, it gets
    a = low + (high − low)·(tanh u + 1)/2 and the density is that of a: log π(a|s) = log N(u) − Σ log(1 − tanh²u) −
    Σ log((high − low)/2). Source: Haarnoja et al. 2018, arXiv:1801.01290, appendix C.
    """

    log_deviations: Tensor | None  # [A], learnt, where all states have the same
    low: Tensor  # [*A] of the action space, in its dtype
    high: Tensor  # [*A]
    nodes: Tensor  # [NODES] where a standard normal's expectations are taken
    shares: Tensor  # [NODES] and with which weights; they sum to 1

    def __init__(self, settings: Gaussian, observations: "Discrete[Any] | Box", actions: Box) -> None:
        super().__init__()
        self.shape, self.squash = actions.shape, settings.squash
        count = int(np.prod(actions.shape))
        for_each_state = settings.deviation == "state"
        self.normalizer = normalizer(settings, observations)
        self.network = Network(settings, observations, 2 * count if for_each_state else count)
        self.critic = Network(settings, observations, 1, values=1)
        self.first_log = math.log(settings.initial_deviation)
        log_deviations = None if for_each_state else nn.Parameter(torch.full((count,), self.first_log))
        self.register_parameter("log_deviations", log_deviations)
        self.register_buffer("low", torch.from_numpy(actions.low.copy()), persistent=False)
        self.register_buffer("high", torch.from_numpy(actions.high.copy()), persistent=False)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self.register_buffer("nodes", torch.tensor(nodes, dtype=torch.float32), persistent=False)
        self.register_buffer("shares", torch.tensor(weights / weights.sum(), dtype=torch.float32), persistent=False)
        self.log_scale = float((self.high - self.low).double().div(2).log().sum()) if self.squash else 0.0

    def normal(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Means `[B, A]` and log-deviations `[B, A]`, or `[A]` where all states have the same."""
        return self._spread(self.network(self.normalizer(inputs.observations)))

    def _spread(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.log_deviations is not None:
            return outputs, self.log_deviations
        means, logs = outputs.chunk(2, -1)
        return means, logs + self.first_log

    def values(self, inputs: Inputs) -> Tensor:
        """V(s) `[B]`."""
        return self.critic(self.normalizer(inputs.observations)).squeeze(-1)  # type: ignore[no-any-return]

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample u; log-probs are left to one batch for the whole rollout."""
        with torch.no_grad():
            means, logs = self.normal(inputs)
            noise = torch.empty_like(means).normal_(generator=generator)
            return Action(torch.addcmul(means, logs.exp(), noise).reshape(*means.shape[:-1], *self.shape))

    @property
    def choice_noise(self) -> int:
        """How many numbers of [0, 1) a choice is made by."""
        return math.prod(self.shape)

    def choose(self, inputs: Inputs, noise: Tensor) -> Tensor:
        """What `act` does, as a pure function of tensors: u `[B, *A]` of `noise` `[B, choice_noise]`."""
        means, logs = self.normal(inputs)
        normal = math.sqrt(2) * torch.erfinv(2 * noise.clamp(min=2.0**-54) - 1)
        return torch.addcmul(means, logs.exp(), normal.to(means.dtype)).reshape(*means.shape[:-1], *self.shape)

    def actor(self) -> "NormalActor | None":
        """For Box observations on the CPU: the weights in numpy."""
        snapshot = Snapshot.of(self, GaussianPolicy, self.network)
        if snapshot is None:
            return None
        if self.log_deviations is None:
            return NormalActor(snapshot, math.exp(self.first_log), self.shape, True)
        return NormalActor(snapshot, self.log_deviations.detach().exp().numpy(), self.shape, False)

    def greedy(self) -> "MeanActor":
        """Takes the mean μ(s)."""
        return MeanActor(self)

    def environment_actions(self, actions: Tensor) -> Tensor:
        """Within the bounds `[B, *A]`, in the dtype of the action space."""
        actions = actions.to(self.low.dtype)
        if self.squash:
            # (tanh u + 1)/2 is sigmoid 2u; lerp is exact at both ends
            return torch.lerp(self.low, self.high, torch.sigmoid(2 * actions))
        return actions.clamp(self.low, self.high)

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs (squashed: of what the environment gets), values and, if requested, entropies, with gradient."""
        outputs, values = outputs_of([self.network, self.critic], self.normalizer(inputs.observations))
        means, logs = self._spread(outputs)
        actions = actions.reshape(means.shape)
        sums = -0.5 * ((actions - means) * torch.exp(-logs)).square() - (logs + HALF_LOG_2PI)
        if self.squash:
            sums = sums - log_slopes(actions)
        log_probs = sums.sum(-1) - self.log_scale
        return Evaluation(log_probs, self._entropies(means, logs) if entropies else None, values.squeeze(-1))

    def observe(self, rollout: Rollout) -> None:
        """Let the normaliser take a rollout in, once an iteration."""
        self.normalizer.observe(rollout)

    def _entropies(self, means: Tensor, logs: Tensor) -> Tensor:
        """½·log 2πeσ² of each number, summed; squashed, plus E[log(1 − tanh²u)] and the scale.

        The expectation is by Gauss–Hermite quadrature: off by at most 1e-7 nats a number for σ ≤ 1, 2e-4 for σ ≤ 2 and
        0.03 for σ ≤ 5.
        """
        each = (logs + (0.5 + HALF_LOG_2PI)).expand_as(means)
        if self.squash:
            points = means.unsqueeze(-1) + logs.exp().unsqueeze(-1) * self.nodes
            each = each + log_slopes(points) @ self.shares
        return each.sum(-1) + self.log_scale


class NormalActor:
    """Samples u from the means, and perhaps deviations, of a snapshot; the same `Action` is handed out each time."""

    def __init__(self, snapshot: Snapshot, deviations: float | Array, shape: tuple[int, ...], for_each_state: bool):
        """`deviations`, one number or `[A]`: where they are outputs `for_each_state`, factors of them."""
        self._snapshot, self._deviations = snapshot, deviations
        self._shape, self._for_each_state = shape, for_each_state
        self._outputs: Array | None = None

    @quiet
    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """μ + σ·noise of each lane."""
        outputs = self._snapshot(inputs.observations)
        if outputs is not self._outputs:
            self._lay_out(outputs)
        noise = self._noise.row(generator)
        if self._for_each_state:
            np.exp(self._logs, self._logs)
            noise = np.multiply(self._logs, noise, self._logs)
        np.add(self._means, noise, self._chosen)
        return self._action

    def _lay_out(self, outputs: Array) -> None:
        """Buffers for another number of lanes."""
        self._outputs = outputs
        lanes, width = outputs.shape
        count = width // 2 if self._for_each_state else width
        self._means, self._logs = outputs[:, :count], outputs[:, count:]
        numbers = torch.from_numpy(np.empty((lanes, count), outputs.dtype))
        self._action, self._chosen = Action(numbers.reshape(lanes, *self._shape)), numbers.numpy()
        self._noise = Noise(self._drawn, lanes, count)

    def _drawn(self, shape: tuple[int, ...], generator: torch.Generator) -> Array:
        """Noise of the deviations that are known beforehand."""
        noise: Array = torch.randn(shape, dtype=self._action.actions.dtype, generator=generator).numpy()
        noise *= self._deviations
        return noise


class MeanActor:
    """Takes u = μ(s), the most probable u; squashed, it is the median of a that the environment gets."""

    def __init__(self, policy: GaussianPolicy) -> None:
        """Of a policy."""
        self._policy = policy

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One action of each row; nothing is drawn."""
        with torch.no_grad():
            means, _ = self._policy.normal(inputs)
            return Action(means.reshape(*means.shape[:-1], *self._policy.shape))


def log_slopes(numbers: Tensor) -> Tensor:
    """log(1 − tanh²u) = 2·(log 2 − u − softplus(−2u)), without loss for any u."""
    return 2 * (math.log(2) - numbers + functional.logsigmoid(2 * numbers))
