"""A car too weak for its hill, which must back up the other side first: Gymnasium's MountainCar-v0.

Source: Moore 1990, "Efficient memory-based learning for robot control", Cambridge, UCAM-CL-TR-209; as in Singh & Sutton
1996, "Reinforcement learning with replacing eligibility traces", Machine Learning 22.
"""

from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box, Discrete

from .lanes import Lanes

FORCE = 0.001  # a step of time is the unit of time
GRAVITY = 0.0025
LEFT_END, RIGHT_END = -1.2, 0.6
FASTEST = 0.07
GOAL = 0.5


@frozen
class MountainCar:
    """Drive to the top of the right hill, at −1 a step."""

    max_steps: int = field(default=200, validator=validators.ge(0))  # time limit, a truncation; 0: none

    def build(self, num_envs: int, device: torch.device) -> "MountainCarLanes":
        """`num_envs` lanes on `device`."""
        low, high = np.array([[LEFT_END, -FASTEST], [RIGHT_END, FASTEST]], np.float32)
        return MountainCarLanes(Box(low, high), Discrete(3), self.max_steps, num_envs, device)


class MountainCarLanes(Lanes):
    """The state is position and velocity; all is seen."""

    action_names = ("LEFT", "NONE", "RIGHT")
    starts = ((-0.6, -0.4), (0.0, 0.0))

    def _advance(self, state: Any, actions: Any) -> tuple[Any, Any]:
        """v ← v + F(a − 1) − g cos 3x, then x ← x + v, both within their bounds; the left end stops the car.

        The goal counts only for a car that does not roll back.
        """
        position, velocity = state
        velocity += FORCE * (actions - 1) - GRAVITY * self.array.cos(3 * position)
        velocity[:] = velocity.clip(-FASTEST, FASTEST)
        position += velocity
        position[:] = position.clip(LEFT_END, RIGHT_END)
        velocity *= (position > LEFT_END) | (velocity > 0)
        return -1.0, (position >= GOAL) & (velocity >= 0)
