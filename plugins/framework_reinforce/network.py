"""The network of every policy here: an embedding (Discrete) or a flattening (Box), then linear layers."""

from typing import Any, Literal

import numpy as np
from attrs import field, frozen, validators
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn

from framework import UsageError

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


@frozen
class NetworkSettings:
    """The sizes of a network that the spaces do not give."""

    hidden: tuple[int, ...] = field(default=(32,), validator=validators.deep_iterable(validators.ge(1)))
    """widths of the hidden layers"""
    activation: Literal["relu", "tanh", "gelu", "silu"] = field(
        default="relu", validator=validators.in_(tuple(ACTIVATIONS))
    )
    """between the layers"""
    embedding: int = field(default=8, validator=validators.ge(1))  # numbers a Discrete observation is embedded in


class Network(nn.Module):
    """From observations `[…, *O]` to numbers `[…, outputs]`; each state of a finite space is evaluated once."""

    def __init__(self, settings: NetworkSettings, observations: Discrete[Any] | Box, outputs: int) -> None:
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

    def forward(self, observations: Tensor) -> Tensor:
        """The outputs for each observation."""
        outputs, rows = self.lookup(observations)
        if rows is None:
            return outputs
        return outputs.index_select(0, rows.reshape(-1)).reshape(*rows.shape, outputs.shape[1])

    def lookup(self, observations: Tensor) -> tuple[Tensor, Tensor | None]:
        """The outputs `[states, outputs]` of every state, and which row `[…]` is each observation's.

        Where there are more states than observations, or no end of them: the outputs `[…, outputs]` for each, and None.
        """
        if 0 < self.states <= observations.numel():
            return self.every_state(), self._numbered(observations)
        if self.states:
            features = self.embedding(self._numbered(observations))
        else:
            leading = observations.shape[: observations.ndim - self.observation_dims]
            features = observations.reshape(*leading, self.width).to(self.network[-1].weight.dtype)  # type: ignore[arg-type]
        return self.network(features), None

    def every_state(self) -> Tensor:
        """The outputs for all states of a finite space, `[states, outputs]`: one small forward pass."""
        return self.network(self.embedding.weight)  # type: ignore[no-any-return]

    def _numbered(self, observations: Tensor) -> Tensor:
        return observations - self.first_state if self.first_state else observations


def require(policy: str, role: str, space: Space[Any], *kinds: type[Space[Any]]) -> None:
    """Refuse a space of observations or actions (`role`) that a policy cannot take."""
    if not isinstance(space, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise UsageError(f"policy '{policy}' takes {names} {role}, and the environment's are {space}")
