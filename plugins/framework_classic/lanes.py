"""Shared by the environments: lanes, clocks, ends of episodes, and first states drawn uniformly from a box.

Few lanes are stepped one after the other in Python's floats, because a whole step of the cart takes 0.6 µs there, and
each of its forty operations 0.5 µs in numpy. Many lanes are stepped at once in numpy, whose small operations take a
third of the time of torch's, or in torch on other devices. All three compute the same equations from the same random
numbers.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework import Step

from .dynamics import FLOATS, NUMPY, TORCH, Arithmetic, Dynamics

# measured: numpy is faster from 18 on with pendulum, 22 with acrobot and mountain_car, 28 with cartpole
MAX_FLOAT_LANES = 20


def lanes(dynamics: Dynamics, max_steps: int, num_envs: int, device: torch.device) -> "Lanes":
    """`num_envs` lanes of `dynamics` with a time limit; 0: none."""
    array = arithmetic(num_envs, device)
    return (FloatLanes if array is FLOATS else ArrayLanes)(dynamics, array, max_steps, num_envs, device)


def arithmetic(num_envs: int, device: torch.device) -> Arithmetic:
    """The fastest arithmetic for `num_envs` lanes on `device`."""
    if device.type != "cpu":
        return TORCH
    return FLOATS if num_envs <= MAX_FLOAT_LANES else NUMPY


class Lanes(ABC):
    """N lanes of an environment with a physical state of V float64 numbers; every step returns the same buffers."""

    _states: Sequence[Any]  # in the order of each subclass
    _clock: Any  # [N] steps

    def __init__(
        self, dynamics: Dynamics, array: Arithmetic, max_steps: int, num_envs: int, device: torch.device
    ) -> None:
        self.observation_space, self.action_space = dynamics.observation_space, dynamics.action_space
        self.action_names = dynamics.action_names
        self._dynamics, self._array = dynamics, array
        self._limit = max_steps or torch.iinfo(torch.int64).max

        def zeros(dtype: torch.dtype, *width: int) -> Tensor:
            return torch.zeros(num_envs, *width, dtype=dtype, device=device)

        self._step = Step(
            observations=zeros(torch.float32, *dynamics.observation_space.shape),
            successors=zeros(torch.float32, *dynamics.observation_space.shape),
            rewards=zeros(torch.float32),
            terminated=zeros(torch.bool),
            truncated=zeros(torch.bool),
        )

    @abstractmethod
    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Step every lane; `generator` is used only where an episode ended."""

    @property
    def transition_noise(self) -> int:
        """How many random numbers of [0, 1) determine a lane's next first state."""
        return len(self._dynamics.starts)

    def transition(self, state: dict[str, Tensor], actions: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Step]:
        """`step` as a pure function of tensors: of a state, actions and `noise` `[N, transition_noise]`."""
        dynamics, clock = self._dynamics, state["clock"] + 1
        variables, rewards, has_terminated = dynamics.advance(
            TORCH, state["states"].unbind(), actions.flatten().double()
        )
        terminated = torch.zeros_like(clock, dtype=torch.bool) | has_terminated
        truncated = clock >= self._limit
        ended = terminated | truncated
        starts = dynamics.begin(noise.unbind(1))
        next_states = [torch.where(ended, *pair) for pair in zip(starts, variables, strict=True)]
        step = Step(
            observations=torch.stack(tuple(dynamics.observe(TORCH, next_states)), 1).float(),
            successors=torch.stack(tuple(dynamics.observe(TORCH, variables)), 1).float(),
            rewards=torch.zeros_like(clock, dtype=torch.float32) + rewards,
            terminated=terminated,
            truncated=truncated,
        )
        return {"states": torch.stack(next_states), "clock": torch.where(ended, 0, clock)}, step

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The physical states `[V, N]`, and the step of each episode `[N]`."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the lanes."""

    def reset(self, generator: torch.Generator) -> Tensor:
        """Start a new episode in every lane."""
        observations = self._step.observations
        self._start_episodes(torch.stack(self._dynamics.begin(self._draw(len(observations), generator))))
        return observations

    def _start_episodes(self, states: Tensor) -> None:
        """Start episodes at `states` [V, N]."""
        self.load_state_dict({"states": states, "clock": torch.zeros(states.shape[1], dtype=torch.int64)})

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random numbers for `count` first states, `[V, count]`."""
        shape = (len(self._dynamics.starts), count)
        return torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator)


class ArrayLanes(Lanes):
    """All lanes at once: V arrays `[N]`. Those of numpy are views of the returned tensors."""

    def __init__(
        self, dynamics: Dynamics, array: Arithmetic, max_steps: int, num_envs: int, device: torch.device
    ) -> None:
        super().__init__(dynamics, array, max_steps, num_envs, device)
        self._module: Any = np if array is NUMPY else torch
        step, view = self._step, self._view
        self._actions = view(torch.zeros(num_envs, dtype=torch.float64, device=device))
        self._observations, self._successors = view(step.observations), view(step.successors)  # [N, O]
        self._rewards, self._terminated, self._truncated = map(view, (step.rewards, step.terminated, step.truncated))
        self._start_episodes(torch.zeros(len(dynamics.starts), num_envs, dtype=torch.float64))

    transition = Lanes.transition  # the same as this step

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Evaluate the equations once for all lanes."""
        dynamics, array = self._dynamics, self._array
        self._actions[:] = self._view(actions.flatten())
        self._states, self._rewards[:], self._terminated[:] = dynamics.advance(array, self._states, self._actions)
        self._clock += 1
        self._truncated[:] = self._clock >= self._limit
        for column, numbers in zip(self._successors.T, dynamics.observe(array, self._states), strict=True):
            column[:] = numbers
        self._observations[:] = self._successors
        (ended,) = self._module.where(self._terminated | self._truncated)
        if len(ended):
            starts = dynamics.begin(self._view(self._draw(len(ended), generator)))
            for variable, numbers in zip(self._states, starts, strict=True):
                variable[ended] = numbers
            for column, numbers in zip(self._observations.T, dynamics.observe(array, starts), strict=True):
                column[ended] = self._module.asarray(numbers, dtype=column.dtype)
            self._clock[ended] = 0
        return self._step

    def _view(self, tensor: Tensor) -> Any:
        return tensor.numpy() if self._array is NUMPY else tensor

    def state_dict(self) -> dict[str, Tensor]:
        """Copies."""
        states = [torch.as_tensor(variable) for variable in self._states]
        return {"states": torch.stack(states), "clock": torch.as_tensor(self._clock).clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From copies."""
        device = self._step.rewards.device
        self._states = tuple(self._view(state["states"].to(device, copy=True)))
        self._clock = self._view(state["clock"].to(device, copy=True))
        for column, numbers in zip(
            self._observations.T, self._dynamics.observe(self._array, self._states), strict=True
        ):
            column[:] = numbers


class FloatLanes(Lanes):
    """One lane after the other: N states of V floats. Results are packed into the tensors' memory."""

    def __init__(
        self, dynamics: Dynamics, array: Arithmetic, max_steps: int, num_envs: int, device: torch.device
    ) -> None:
        super().__init__(dynamics, array, max_steps, num_envs, device)
        step = self._step
        self._write_observations = _packer(step.observations, "f")
        self._write_successors = _packer(step.successors, "f")
        self._write_rewards = _packer(step.rewards, "f")
        self._write_terminated = _packer(step.terminated, "?")
        self._write_truncated = _packer(step.truncated, "?")
        self._observations, self._successors = step.observations.numpy(), step.successors.numpy()
        self._start_episodes(torch.zeros(len(dynamics.starts), num_envs, dtype=torch.float64))

    transition = Lanes.transition  # the same as this step

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Evaluate the equations for each lane."""
        dynamics, states = self._dynamics, self._states
        results = map(dynamics.advance, repeat(self._array), states, actions.flatten().tolist())
        states, rewards, terminated = zip(*results, strict=True)
        clock = [time + 1 for time in self._clock]
        truncated = [time >= self._limit for time in clock]
        self._write_successors(*self._observe(states))
        self._write_rewards(*rewards)
        self._write_terminated(*terminated)
        self._write_truncated(*truncated)
        if True in terminated or True in truncated:
            states = list(states)
            ended = [lane for lane in range(len(states)) if terminated[lane] or truncated[lane]]
            for lane, drawn in zip(ended, self._draw(len(ended), generator).T.tolist(), strict=True):
                states[lane], clock[lane] = dynamics.begin(drawn), 0
            self._write_observations(*self._observe(states))
        else:
            self._observations[:] = self._successors
        self._states, self._clock = states, clock
        return self._step

    def _observe(self, states: Sequence[Any]) -> Iterator[float]:
        """The observations, lane after lane."""
        return chain.from_iterable(map(self._dynamics.observe, repeat(self._array), states))

    def state_dict(self) -> dict[str, Tensor]:
        """As tensors."""
        states = torch.tensor(self._states, dtype=torch.float64).T.contiguous()
        return {"states": states, "clock": torch.tensor(self._clock)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From tensors."""
        self._states, self._clock = state["states"].T.tolist(), state["clock"].tolist()
        self._write_observations(*self._observe(self._states))


def _packer(tensor: Tensor, code: str) -> Any:
    """A function that writes numbers into a tensor, three times as fast as assigning a list to an array."""
    return partial(struct.Struct(f"{tensor.numel()}{code}").pack_into, tensor.numpy().data, 0)
