"""What the worlds share: lanes, a clock, ends, and starts drawn uniformly from a box.

Few lanes are stepped one after the other in Python's floats, where a whole step of a cart takes 0.6 µs and in numpy
each of its forty operations 0.5; more of them all at once in numpy, whose small operations take a third of the time of
torch's; and on other devices in torch. All three compute the same equations from the same random numbers.
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

from .world import FLOATS, NUMPY, TORCH, Arithmetic, World

FEW = (
    20  # lanes; measured: numpy is faster from 18 on with pendulum, 22 with acrobot and mountain_car, 28 with cartpole
)


def lanes(world: World, max_steps: int, num_envs: int, device: torch.device) -> "Lanes":
    """`num_envs` lanes of `world` with a time limit; 0: none."""
    array = arithmetic(num_envs, device)
    return (FloatLanes if array is FLOATS else ArrayLanes)(world, array, max_steps, num_envs, device)


def arithmetic(num_envs: int, device: torch.device) -> Arithmetic:
    """The fastest for so many lanes on `device`."""
    if device.type != "cpu":
        return TORCH
    return FLOATS if num_envs <= FEW else NUMPY


class Lanes(ABC):
    """N lanes of a world whose physical state is V float64 numbers, and buffers that are handed out again each step."""

    _states: Sequence[Any]  # in the order of each subclass
    _clock: Any  # [N] steps

    def __init__(self, world: World, array: Arithmetic, max_steps: int, num_envs: int, device: torch.device) -> None:
        self.observation_space, self.action_space = world.observation_space, world.action_space
        self.action_names = world.action_names
        self._world, self._array = world, array
        self._limit = max_steps or torch.iinfo(torch.int64).max

        def zeros(dtype: torch.dtype, *width: int) -> Tensor:
            return torch.zeros(num_envs, *width, dtype=dtype, device=device)

        self._step = Step(
            observations=zeros(torch.float32, *world.observation_space.shape),
            successors=zeros(torch.float32, *world.observation_space.shape),
            rewards=zeros(torch.float32),
            terminated=zeros(torch.bool),
            truncated=zeros(torch.bool),
        )

    @abstractmethod
    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """One time step of every lane; of `generator` is drawn only where an episode ended."""

    @property
    def transition_noise(self) -> int:
        """How many numbers of [0, 1) a lane's next start is made of."""
        return len(self._world.starts)

    def transition(self, state: dict[str, Tensor], actions: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Step]:
        """What `step` does, as a pure function of tensors: of a state, actions and `noise` `[N, transition_noise]`."""
        world, clock = self._world, state["clock"] + 1
        variables, rewards, over = world.advance(TORCH, state["states"].unbind(), actions.flatten().double())
        terminated = torch.zeros_like(clock, dtype=torch.bool) | over
        truncated = clock >= self._limit
        ended = terminated | truncated
        starts = world.begin(noise.unbind(1))
        following = [torch.where(ended, *pair) for pair in zip(starts, variables, strict=True)]
        step = Step(
            observations=torch.stack(tuple(world.observe(TORCH, following)), 1).float(),
            successors=torch.stack(tuple(world.observe(TORCH, variables)), 1).float(),
            rewards=torch.zeros_like(clock, dtype=torch.float32) + rewards,
            terminated=terminated,
            truncated=truncated,
        )
        return {"states": torch.stack(following), "clock": torch.where(ended, 0, clock)}, step

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The physical states `[V, N]`, and for how long each episode has been going on `[N]`."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put the lanes back."""

    def reset(self, generator: torch.Generator) -> Tensor:
        """Begin a new episode in every lane."""
        seen = self._step.observations
        self._stand(torch.stack(self._world.begin(self._draw(len(seen), generator))))
        return seen

    def _stand(self, states: Tensor) -> None:
        """At `states` [V, N], where episodes begin."""
        self.load_state_dict({"states": states, "clock": torch.zeros(states.shape[1], dtype=torch.int64)})

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """What so many first states are made of, `[V, count]`."""
        shape = (len(self._world.starts), count)
        return torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator)


class ArrayLanes(Lanes):
    """All lanes at once: V arrays `[N]`. Those of numpy are views of the tensors that are handed out."""

    def __init__(self, world: World, array: Arithmetic, max_steps: int, num_envs: int, device: torch.device) -> None:
        super().__init__(world, array, max_steps, num_envs, device)
        self._module: Any = np if array is NUMPY else torch
        step, view = self._step, self._view
        self._actions = view(torch.zeros(num_envs, dtype=torch.float64, device=device))
        self._observations, self._successors = view(step.observations), view(step.successors)  # [N, O]
        self._rewards, self._terminated, self._truncated = map(view, (step.rewards, step.terminated, step.truncated))
        self._stand(torch.zeros(len(world.starts), num_envs, dtype=torch.float64))

    transition = Lanes.transition  # the same as this step

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """All equations once."""
        world, array = self._world, self._array
        self._actions[:] = self._view(actions.flatten())
        self._states, self._rewards[:], self._terminated[:] = world.advance(array, self._states, self._actions)
        self._clock += 1
        self._truncated[:] = self._clock >= self._limit
        for column, numbers in zip(self._successors.T, world.observe(array, self._states), strict=True):
            column[:] = numbers
        self._observations[:] = self._successors
        (ended,) = self._module.where(self._terminated | self._truncated)
        if len(ended):
            starts = world.begin(self._view(self._draw(len(ended), generator)))
            for variable, numbers in zip(self._states, starts, strict=True):
                variable[ended] = numbers
            for column, numbers in zip(self._observations.T, world.observe(array, starts), strict=True):
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
        for column, numbers in zip(self._observations.T, self._world.observe(self._array, self._states), strict=True):
            column[:] = numbers


class FloatLanes(Lanes):
    """One lane after the other: N states of V floats. What is handed out is packed into the tensors' memory."""

    def __init__(self, world: World, array: Arithmetic, max_steps: int, num_envs: int, device: torch.device) -> None:
        super().__init__(world, array, max_steps, num_envs, device)
        step = self._step
        self._write_observations = _packer(step.observations, "f")
        self._write_successors = _packer(step.successors, "f")
        self._write_rewards = _packer(step.rewards, "f")
        self._write_terminated = _packer(step.terminated, "?")
        self._write_truncated = _packer(step.truncated, "?")
        self._observations, self._successors = step.observations.numpy(), step.successors.numpy()
        self._stand(torch.zeros(len(world.starts), num_envs, dtype=torch.float64))

    transition = Lanes.transition  # the same as this step

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """The equations once a lane."""
        world, states = self._world, self._states
        results = map(world.advance, repeat(self._array), states, actions.flatten().tolist())
        states, rewards, over = zip(*results, strict=True)
        clock = [time + 1 for time in self._clock]
        out = [time >= self._limit for time in clock]
        self._write_successors(*self._seen(states))
        self._write_rewards(*rewards)
        self._write_terminated(*over)
        self._write_truncated(*out)
        if True in over or True in out:
            states = list(states)
            ended = [lane for lane in range(len(states)) if over[lane] or out[lane]]
            for lane, drawn in zip(ended, self._draw(len(ended), generator).T.tolist(), strict=True):
                states[lane], clock[lane] = world.begin(drawn), 0
            self._write_observations(*self._seen(states))
        else:
            self._observations[:] = self._successors
        self._states, self._clock = states, clock
        return self._step

    def _seen(self, states: Sequence[Any]) -> Iterator[float]:
        """What is seen, lane after lane."""
        return chain.from_iterable(map(self._world.observe, repeat(self._array), states))

    def state_dict(self) -> dict[str, Tensor]:
        """As tensors."""
        states = torch.tensor(self._states, dtype=torch.float64).T.contiguous()
        return {"states": states, "clock": torch.tensor(self._clock)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From tensors."""
        self._states, self._clock = state["states"].T.tolist(), state["clock"].tolist()
        self._write_observations(*self._seen(self._states))


def _packer(tensor: Tensor, code: str) -> Any:
    """What writes so many numbers into a tensor, three times as fast as an array takes a list."""
    return partial(struct.Struct(f"{tensor.numel()}{code}").pack_into, tensor.numpy().data, 0)
