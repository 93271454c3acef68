"""A pendulum, to be swung up by less torque than holds it: Gymnasium's Pendulum-v1."""

import math
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box

from .lanes import Lanes

GRAVITY = 10.0  # m/s²; mass and length are 1
INTERVAL = 0.05  # s
STRONGEST = 2.0  # N m
FASTEST = 8.0  # rad/s


@frozen
class Pendulum:
    """Swing a pendulum up and hold it, paying for angle, speed and torque. The world never ends by itself."""

    max_steps: int = field(default=200, validator=validators.ge(0))  # time limit, a truncation; 0: none

    def build(self, num_envs: int, device: torch.device) -> "PendulumLanes":
        """`num_envs` lanes on `device`."""
        high = np.array([1, 1, FASTEST], np.float32)
        torques = Box(-STRONGEST, STRONGEST, (1,), np.float32)
        return PendulumLanes(Box(-high, high), torques, self.max_steps, num_envs, device)


class PendulumLanes(Lanes):
    """The state is angle (rad, 0 upright, unbounded) and speed (rad/s); seen are cos, sin and speed."""

    starts = ((-math.pi, math.pi), (-1.0, 1.0))

    def _advance(self, state: Any, actions: Any) -> tuple[Any, Any]:
        """θ″ = 3g/(2l) sin θ + 3u/(m l²), a uniform rod; the new speed moves the angle.

        The reward is −(θ² + 0.1 θ′² + 0.001 u²) of the state before, θ within ±π, and of the torque as clipped.
        """
        angle, speed = state
        torque = actions[:, 0].clip(-STRONGEST, STRONGEST)
        tilt = angle - 2 * math.pi * (angle / (2 * math.pi)).round()
        cost = tilt * tilt + 0.1 * speed * speed + 0.001 * torque * torque
        speed += INTERVAL * (1.5 * GRAVITY * self.array.sin(angle) + 3 * torque)
        speed[:] = speed.clip(-FASTEST, FASTEST)
        angle += INTERVAL * speed
        return -cost, False

    def _observe(self, state: Any, observations: Any) -> None:
        observations[0] = self.array.cos(state[0])
        observations[1] = self.array.sin(state[0])
        observations[2] = state[1]
