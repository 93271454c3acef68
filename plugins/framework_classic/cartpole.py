"""A pole on a cart that keeps it upright: Gymnasium's CartPole-v1.

Source: Barto, Sutton & Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning control
problems", IEEE Transactions on Systems, Man, and Cybernetics 13(5), without friction; the equations as in Florian 2007,
"Correct equations for the dynamics of the cart-pole system".
"""

import math
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box, Discrete

from .dynamics import Arithmetic, Dynamics, State
from .lanes import Lanes, lanes

GRAVITY = 9.8  # m/s²
POLE = 0.1 / 1.1  # of the mass of pole and cart, 1.1 kg
LENGTH = 0.5  # m, half the pole's
LEVER = POLE * LENGTH
INERTIA = LENGTH * (4 / 3)
PUSH = 10.0 / 1.1  # m/s², of 10 N on that mass, to either side
INTERVAL = 0.02  # s
FARTHEST = 2.4  # m from the middle
STEEPEST = math.radians(12)


@frozen
class CartPole:
    """CartPole-v1: push a cart so that its pole stays upright; reward 1 per step."""

    max_steps: int = field(default=500, validator=validators.ge(0))  # time limit in steps; 0: no limit

    def build(self, num_envs: int, device: torch.device) -> Lanes:
        """`num_envs` lanes on `device`."""
        # twice what ends an episode, so that its last state is within the bounds
        high = np.array([2 * FARTHEST, np.inf, 2 * STEEPEST, np.inf], np.float32)
        dynamics = Dynamics(
            observation_space=Box(-high, high),
            action_space=Discrete(2),
            action_names=("LEFT", "RIGHT"),
            starts=((-0.05, 0.05),) * 4,
            advance=advance,
            observe=observe,
        )
        return lanes(dynamics, self.max_steps, num_envs, device)


def advance(array: Arithmetic, state: State, action: Any) -> tuple[State, Any, Any]:
    """θ″ = (g sin θ − c cos θ) / (l (4/3 − m cos²θ / M)) and x″ = c − m l θ″ cos θ / M, by an explicit Euler step.

    c = (F + m l θ′² sin θ) / M is the cart's acceleration if the pole did not turn.
    """
    position, velocity, angle, turning = state
    cosine, sine = array.cos(angle), array.sin(angle)
    push = PUSH * (2 * action - 1) + LEVER * turning * turning * sine
    turn = (GRAVITY * sine - cosine * push) / (INERTIA - LEVER * cosine * cosine)
    push -= LEVER * turn * cosine
    position = position + INTERVAL * velocity
    angle = angle + INTERVAL * turning
    terminated = (abs(position) > FARTHEST) | (abs(angle) > STEEPEST)
    return (position, velocity + INTERVAL * push, angle, turning + INTERVAL * turn), 1.0, terminated


def observe(array: Arithmetic, state: State) -> State:
    """The whole state."""
    return state
