"""A car too weak for its hill, which must back up the other side first: Gymnasium's MountainCar-v0.

Source: Moore 1990, "Efficient memory-based learning for robot control", Cambridge, UCAM-CL-TR-209; as in Singh & Sutton
1996, "Reinforcement learning with replacing eligibility traces", Machine Learning 22.
"""

from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box, Discrete

from .dynamics import Arithmetic, Dynamics, State
from .lanes import Lanes, lanes

FORCE = 0.001  # a step of time is the unit of time
GRAVITY = 0.0025
LEFT_END, RIGHT_END = -1.2, 0.6
FASTEST = 0.07
GOAL = 0.5


@frozen
class MountainCar:
    """MountainCar-v0: drive to the top of the right hill; reward −1 per step."""

    max_steps: int = field(default=200, validator=validators.ge(0))  # time limit in steps; 0: no limit

    def build(self, num_envs: int, device: torch.device) -> Lanes:
        """`num_envs` lanes on `device`."""
        low, high = np.array([[LEFT_END, -FASTEST], [RIGHT_END, FASTEST]], np.float32)
        dynamics = Dynamics(
            observation_space=Box(low, high),
            action_space=Discrete(3),
            action_names=("LEFT", "NONE", "RIGHT"),
            starts=((-0.6, -0.4), (0.0, 0.0)),
            advance=advance,
            observe=observe,
        )
        return lanes(dynamics, self.max_steps, num_envs, device)


def advance(array: Arithmetic, state: State, action: Any) -> tuple[State, Any, Any]:
    """v ← v + F(a − 1) − g cos 3x, then x ← x + v, both within their bounds; the left end stops the car.

    The goal counts only for a car that does not roll back.
    """
    position, velocity = state
    velocity = array.clip(velocity + FORCE * (action - 1) - GRAVITY * array.cos(3 * position), -FASTEST, FASTEST)
    position = array.clip(position + velocity, LEFT_END, RIGHT_END)
    velocity = velocity * ((position > LEFT_END) | (velocity > 0))
    return (position, velocity), -1.0, (position >= GOAL) & (velocity >= 0)


def observe(array: Arithmetic, state: State) -> State:
    """The whole state."""
    return state
