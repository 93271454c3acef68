"""The network of every policy here: an embedding (Discrete) or a flattening (Box), then linear layers."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn

from framework import Rollout, UsageError
from framework.tools import Section, merge_moments

from .layers import is_plain, through, together

EPSILON = 1e-8  # added to the variance of observations
ROWS = 8192  # observations that are copied at once
CLIP = 10.0  # normalised observations lie within ± this
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


@frozen
class NetworkSettings(Section):
    """The settings of a network besides the spaces."""

    hidden: tuple[int, ...] = field(default=(32,), validator=validators.deep_iterable(validators.ge(1)))
    """widths of the hidden layers"""
    activation: Literal["relu", "tanh", "gelu", "silu"] = field(
        default="relu", validator=validators.in_(tuple(ACTIVATIONS))
    )
    """activation between the layers"""
    embedding: int = field(default=8, validator=validators.ge(1))  # width of the embedding of a Discrete observation
    orthogonal: bool = False  # orthogonal first weights, with the policy's outputs near 0; else torch's defaults
    normalize: bool = False  # centre and scale Box observations by those of earlier iterations


class Network(nn.Module):
    """From observations `[…, *O]` to numbers `[…, outputs]`; each state of a finite space is evaluated once.

    `orthogonal`, common practice (Engstrom et al. 2020, arXiv:2005.12729, §3; Andrychowicz et al. 2021,
    arXiv:2006.05990, §3.2): gain √2 in hidden layers, 1 for a value, and 0.01 for the parameters of actions.
    """

    def __init__(
        self, settings: NetworkSettings, observations: "Discrete[Any] | Box", outputs: int, values: int = 0
    ) -> None:
        """The last `values` outputs are values; the others parametrise the action."""
        super().__init__()
        self.states = int(observations.n) if isinstance(observations, Discrete) else 0
        self.first_state = int(observations.start) if isinstance(observations, Discrete) else 0
        self.observation_dims = len(observations.shape or ())
        if self.states:
            self.embedding = nn.Embedding(self.states, settings.embedding)
            self.width = settings.embedding
        else:
            self.width = int(np.prod(observations.shape or ()))
        widths = (self.width, *settings.hidden)
        layers: list[nn.Module] = []
        for before, after in zip(widths, settings.hidden, strict=False):
            layers += [nn.Linear(before, after), ACTIVATIONS[settings.activation]()]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
        if settings.orthogonal:
            self._make_orthogonal(outputs, values)

    def _make_orthogonal(self, outputs: int, values: int) -> None:
        linear = [layer for layer in self.network if isinstance(layer, nn.Linear)]
        for layer in linear:
            nn.init.zeros_(layer.bias)
        for layer in linear[:-1]:
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
        for rows, gain in ((slice(outputs - values), 0.01), (slice(outputs - values, None), 1.0)):
            if len(linear[-1].weight[rows]):
                nn.init.orthogonal_(linear[-1].weight.detach()[rows], gain)

    def forward(self, observations: Tensor) -> Tensor:
        """The outputs for each observation."""
        outputs, rows = self.lookup(observations)
        return outputs if rows is None else _spread(outputs, rows)

    def lookup(self, observations: Tensor) -> tuple[Tensor, Tensor | None]:
        """The outputs `[states, outputs]` of every state, and the row `[…]` of each observation.

        If there are more states than observations, or infinitely many: the outputs `[…, outputs]` for each, and None.
        """
        features, rows = self.features(observations)
        return through(self.network, features), rows

    def features(self, observations: Tensor) -> tuple[Tensor, Tensor | None]:
        """The inputs of the layers, for `lookup`: of every state, or of each observation `[…, width]`."""
        if 0 < self.states <= observations.numel():
            return self.embedding.weight, self._numbered(observations)
        if self.states:
            return self.embedding(self._numbered(observations)), None
        if self.observation_dims == 1:
            return observations, None
        leading = observations.shape[: observations.ndim - self.observation_dims]
        return observations.reshape(*leading, self.width), None

    def every_state(self) -> Tensor:
        """The outputs for all states of a finite space, `[states, outputs]`: one small forward pass."""
        return through(self.network, self.embedding.weight)

    def _numbered(self, observations: Tensor) -> Tensor:
        return observations - self.first_state if self.first_state else observations


def lookup(networks: Sequence[Network], observations: Tensor) -> tuple[list[Tensor], Tensor | None]:
    """`Network.lookup` for several networks on the same observations, computed as one function."""
    if not all(is_plain(network, type(network)) for network in networks):  # hooks must be called
        return [network(observations) for network in networks], None
    seen = [network.features(observations) for network in networks]
    outputs = together([(one.network, features) for one, (features, _) in zip(networks, seen, strict=True)])
    return outputs, seen[0][1]


def outputs_of(networks: Sequence[Network], observations: Tensor) -> list[Tensor]:
    """The outputs `[…, outputs]` of each network for each observation."""
    outputs, rows = lookup(networks, observations)
    return outputs if rows is None else [_spread(each, rows) for each in outputs]


def _spread(outputs: Tensor, rows: Tensor) -> Tensor:
    return outputs.index_select(0, rows.reshape(-1)).reshape(*rows.shape, outputs.shape[1])


class Normalizer(nn.Module):
    """(o − mean)/√(variance + ε), within ±10, by the real steps of all rollouts so far.

    At first mean 0 and variance 1. All are buffers: saved with the parameters, and changed only in `observe`.
    """

    mean: Tensor  # [*O] float32
    variance: Tensor  # [*O] float32, divided by count
    count: Tensor  # [] int64

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, observations: Tensor) -> Tensor:
        """The same `[…, *O]`, floating point."""
        centred = observations.to(self.mean.dtype) - self.mean
        return (centred / torch.sqrt(self.variance + EPSILON)).clamp(-CLIP, CLIP)

    def observe(self, rollout: Rollout) -> None:
        """Update the statistics with a rollout's real steps."""
        rows, real = rollout.observations.flatten(0, 1), rollout.mask.flatten()
        count, mean, variance = self.count, self.mean, self.variance
        for piece in (slice(first, first + ROWS) for first in range(0, len(rows), ROWS)):
            count, mean, variance = merge_moments(count, mean, variance, rows[piece][real[piece]])
        self.count.copy_(count)
        self.mean.copy_(mean)
        self.variance.copy_(variance)


class Unchanged(nn.Identity):
    """Observations as they are."""

    def observe(self, rollout: Rollout) -> None:
        """Keep nothing."""


def normalizer(settings: NetworkSettings, observations: "Discrete[Any] | Box") -> Normalizer | Unchanged:
    """The normalizer of a policy's observations, shared by its networks."""
    return Normalizer(observations.shape or ()) if settings.normalize else Unchanged()


def require_observations(policy: str, settings: NetworkSettings, space: Space[Any]) -> None:
    """Refuse a space of observations that the networks here cannot take."""
    require(policy, "observations", space, Discrete, Box)
    if settings.normalize and not isinstance(space, Box):
        raise UsageError(
            f"policy '{policy}' with normalize takes Box observations, and the environment's are {space}: "
            "leave normalize out"
        )


def require(policy: str, role: str, space: Space[Any], *kinds: type[Space[Any]]) -> None:
    """Refuse a space of observations or actions (`role`) that a policy cannot take."""
    if not isinstance(space, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise UsageError(f"policy '{policy}' takes {names} {role}, and the environment's are {space}")
