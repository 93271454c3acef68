"""A corridor that ends in a T: which way the goal lies is shown at the start and must be remembered until the end."""

import math
from typing import Any

import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Discrete
from torch import Tensor

from framework import Step, hookimpl

FORWARD, LEFT, RIGHT = 0, 1, 2
GOAL_LEFT, GOAL_RIGHT, CORRIDOR, JUNCTION = 0, 1, 2, 3
COST = [validators.gt(-math.inf), validators.le(0.0)]
FINITE = [validators.gt(-math.inf), validators.lt(math.inf)]


@frozen
class Corridor:
    """Walk to the junction, then turn to the side that the first observation showed.

    Source: the T-maze of Bakker 2001, "Reinforcement Learning with Long Short-Term Memory" (NeurIPS 14), without the
    way back. What is observed at the junction is the same on both sides: a policy without memory earns at most the mean
    of goal_reward and miss_reward, one with memory goal_reward.
    """

    length: int = field(default=8, validator=validators.ge(1))  # number of steps from the start to the junction
    goal_reward: float = field(default=4.0, validator=FINITE)  # reward for turning to the correct side
    miss_reward: float = field(default=-0.1, validator=COST)  # reward for turning to the wrong side or standing still
    max_steps: int = field(default=100, validator=validators.ge(0))  # time limit in steps; 0: no limit

    def __attrs_post_init__(self) -> None:
        """Refuse a limit that leaves no time to turn."""
        if 0 < self.max_steps <= self.length:
            raise ValueError(f"'max_steps' must be 0 or more than 'length' ({self.length}): {self.max_steps}")

    def build(self, num_envs: int, device: torch.device) -> "CorridorLanes":
        """`num_envs` lanes on `device`."""
        return CorridorLanes(self, num_envs, device)


class CorridorLanes:
    """The lanes, all stepped at once in buffers that are handed out again each step.

    At the junction a turn ends the episode; FORWARD there, and turns before, stand still.
    """

    action_names = ("FORWARD", "LEFT", "RIGHT")

    def __init__(self, settings: Corridor, num_envs: int, device: torch.device | str = "cpu") -> None:
        """All lanes at the start."""
        self.settings = settings
        self.observation_space = Discrete(4)
        self.action_space = Discrete(3)
        self._limit = settings.max_steps or torch.iinfo(torch.int64).max

        def lanes(dtype: torch.dtype) -> Tensor:
            return torch.zeros(num_envs, dtype=dtype, device=device)

        self._sides, self._places, self._clock = lanes(torch.int64), lanes(torch.int64), lanes(torch.int64)
        self._step = Step(
            lanes(torch.int64), lanes(torch.int64), lanes(torch.float32), lanes(torch.bool), lanes(torch.bool)
        )

    def reset(self, generator: torch.Generator) -> Tensor:
        """All lanes at the start, each with its goal on a side drawn anew."""
        self._places.zero_()
        self._clock.zero_()
        self._sides.random_(0, 2, generator=generator)
        return self._step.observations.copy_(self._sides)

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """One step forward, a turn, or none."""
        step, places, length = self._step, self._places, self.settings.length
        forward, there = actions == FORWARD, places == length
        torch.logical_and(there, ~forward, out=step.terminated)
        found = step.terminated & (actions == self._sides + LEFT)
        moved = forward & ~there
        step.rewards.fill_(self.settings.miss_reward)
        step.rewards.masked_fill_(moved, 0.0).masked_fill_(found, self.settings.goal_reward)
        places += moved
        step.successors.copy_(self._seen())
        self._clock += 1
        torch.ge(self._clock, self._limit, out=step.truncated)

        over = step.terminated | step.truncated
        continues = ~over
        places *= continues
        self._clock *= continues
        self._sides.copy_(torch.where(over, torch.empty_like(places).random_(0, 2, generator=generator), self._sides))
        step.observations.copy_(self._seen())
        return step

    def _seen(self) -> Tensor:
        """The side of the goal at the start, then whether this is the junction."""
        onward = torch.where(self._places == self.settings.length, JUNCTION, CORRIDOR)
        return torch.where(self._places == 0, self._sides, onward)

    def state_dict(self) -> dict[str, Tensor]:
        """Where each lane is, since when, and on which side its goal."""
        return {"sides": self._sides.clone(), "places": self._places.clone(), "clock": self._clock.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put the lanes back."""
        self._sides.copy_(state["sides"])
        self._places.copy_(state["places"])
        self._clock.copy_(state["clock"])


@hookimpl
def environments() -> dict[str, Any]:
    """Offer the corridor."""
    return {"corridor": Corridor}
