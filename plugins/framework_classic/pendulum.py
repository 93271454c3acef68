"""A pendulum that a limited torque swings up: Gymnasium's Pendulum-v1."""

import math
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box

from .dynamics import Arithmetic, Dynamics, State
from .lanes import Lanes, lanes

GRAVITY = 10.0  # m/s²; mass and length are 1
INTERVAL = 0.05  # s
STRONGEST = 2.0  # N m
FASTEST = 8.0  # rad/s


@frozen
class Pendulum:
    """Pendulum-v1: swing a pendulum up and hold it; cost of angle, speed and torque. Only the time limit ends it."""

    max_steps: int = field(default=200, validator=validators.ge(0))  # time limit in steps; 0: no limit

    def build(self, num_envs: int, device: torch.device) -> Lanes:
        """`num_envs` lanes on `device`."""
        high = np.array([1, 1, FASTEST], np.float32)
        dynamics = Dynamics(
            observation_space=Box(-high, high),
            action_space=Box(-STRONGEST, STRONGEST, (1,), np.float32),
            starts=((-math.pi, math.pi), (-1.0, 1.0)),
            advance=advance,
            observe=observe,
        )
        return lanes(dynamics, self.max_steps, num_envs, device)


def advance(array: Arithmetic, state: State, action: Any) -> tuple[State, Any, Any]:
    """θ″ = 3g/(2l) sin θ + 3u/(m l²), a uniform rod; the new speed moves the angle.

    The reward is −(θ² + 0.1 θ′² + 0.001 u²) of the state before, θ within ±π, and of the torque as clipped.
    """
    angle, speed = state
    torque = array.clip(action, -STRONGEST, STRONGEST)
    tilt = array.wrap(angle)
    cost = tilt * tilt + 0.1 * speed * speed + 0.001 * torque * torque
    speed = array.clip(speed + INTERVAL * (1.5 * GRAVITY * array.sin(angle) + 3 * torque), -FASTEST, FASTEST)
    return (angle + INTERVAL * speed, speed), -cost, False


def observe(array: Arithmetic, state: State) -> State:
    """Cos θ, sin θ and θ′."""
    angle, speed = state
    return array.cos(angle), array.sin(angle), speed
