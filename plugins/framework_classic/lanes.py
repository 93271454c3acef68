"""What the worlds share: the clock, the ends, and starts drawn uniformly from a box.

On the CPU the arithmetic is numpy's, on views of the tensors that are handed out (a small operation costs a third of
torch's); elsewhere the same lines work on the tensors themselves. `array` is the module that has `sin` and the like.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from framework import Step


def arrays(device: torch.device) -> Any:
    """The module that computes on `device`: numpy or torch."""
    return np if device.type == "cpu" else torch


class Lanes(ABC):
    """N lanes of a world whose physical state is V float64 numbers, in buffers that are handed out again each step."""

    starts: ClassVar[tuple[tuple[float, float], ...]]  # V times the lowest and the highest first value

    def __init__(
        self, observation_space: Box, action_space: Any, max_steps: int, num_envs: int, device: torch.device
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.array = arrays(device)
        self._limit = max_steps or torch.iinfo(torch.int64).max
        lowest, highest = torch.tensor(self.starts, dtype=torch.float64, device=device).T.unsqueeze(-1)
        self._lowest, self._range = self._view(lowest), self._view(highest - lowest)  # [V, 1]

        def lanes(dtype: torch.dtype, *width: int) -> Tensor:
            return torch.zeros(num_envs, *width, dtype=dtype, device=device)

        width = observation_space.shape[0]
        self._step = Step(
            observations=lanes(torch.float32, width),
            successors=lanes(torch.float32, width),
            rewards=lanes(torch.float32),
            terminated=lanes(torch.bool),
            truncated=lanes(torch.bool),
        )
        self._states = torch.zeros(len(self.starts), num_envs, dtype=torch.float64, device=device)
        self._clocks = lanes(torch.int64)
        self._state, self._clock = self._view(self._states), self._view(self._clocks)  # [V, N], [N]
        self._observations = self._view(self._step.observations).T  # [O, N]
        self._successors = self._view(self._step.successors).T
        self._rewards = self._view(self._step.rewards)
        self._terminated, self._truncated = self._view(self._step.terminated), self._view(self._step.truncated)

    @abstractmethod
    def _advance(self, state: Any, actions: Any) -> tuple[Any, Any]:
        """Move `state` [V, N] on by `actions` [N, *A], in float64; rewards and whether the world ended, [N] or one."""

    def _observe(self, state: Any, observations: Any) -> None:
        """Write what is seen of `state` [V, N] into `observations` [O, N]; here: all of it."""
        observations[:] = state

    def reset(self, generator: torch.Generator) -> Tensor:
        """Begin a new episode in every lane."""
        self._begin(self._clock >= 0, generator)  # all of them
        return self._step.observations

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """One time step of every lane; of `generator` is drawn only where an episode ended."""
        self._rewards[:], self._terminated[:] = self._advance(self._state, self._view(actions.double()))
        self._clock += 1
        self._truncated[:] = self._clock >= self._limit
        self._observe(self._state, self._successors)
        ended = self._terminated | self._truncated
        if ended.any():
            self._begin(ended, generator)
        else:
            self._observations[:] = self._successors
        return self._step

    def _begin(self, lanes: Any, generator: torch.Generator) -> None:
        """New episodes in the chosen `lanes` [N] bool."""
        states = self._states
        drawn = torch.rand(len(states), int(lanes.sum()), dtype=states.dtype, device=states.device, generator=generator)
        self._state[:, lanes] = self._lowest + self._range * self._view(drawn)
        self._clock[lanes] = 0
        self._observe(self._state, self._observations)

    def _view(self, tensor: Tensor) -> Any:
        return tensor.numpy() if self.array is np else tensor

    def state_dict(self) -> dict[str, Tensor]:
        """The physical states `[V, N]`, and for how long each episode has been going on `[N]`."""
        return {"states": self._states.clone(), "clock": self._clocks.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put the lanes back."""
        self._states.copy_(state["states"])
        self._clocks.copy_(state["clock"])
        self._observe(self._state, self._observations)
