"""A pole on a cart, to be kept upright: Gymnasium's CartPole-v1.

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

from .lanes import Lanes

GRAVITY = 9.8  # m/s²
POLE = 0.1  # kg
TOTAL = 1.1  # kg, of the pole and the cart
LENGTH = 0.5  # m, half the pole's
FORCE = 10.0  # N, to either side
INTERVAL = 0.02  # s
FARTHEST = 2.4  # m from the middle
STEEPEST = math.radians(12)


@frozen
class CartPole:
    """Push a cart so that its pole stays upright, at 1 a step, the last included."""

    max_steps: int = field(default=500, validator=validators.ge(0))  # time limit, a truncation; 0: none

    def build(self, num_envs: int, device: torch.device) -> "CartPoleLanes":
        """`num_envs` lanes on `device`."""
        # twice what ends an episode, so that its last state is within the bounds
        high = np.array([2 * FARTHEST, np.inf, 2 * STEEPEST, np.inf], np.float32)
        return CartPoleLanes(Box(-high, high), Discrete(2), self.max_steps, num_envs, device)


class CartPoleLanes(Lanes):
    """The state is position (m), velocity (m/s), angle (rad, 0 upright) and angular velocity (rad/s); all is seen."""

    action_names = ("LEFT", "RIGHT")
    starts = ((-0.05, 0.05),) * 4

    def _advance(self, state: Any, actions: Any) -> tuple[Any, Any]:
        """θ″ = (g sin θ − c cos θ) / (l (4/3 − m cos²θ / M)) and x″ = c − m l θ″ cos θ / M, by an explicit Euler step.

        c = (F + m l θ′² sin θ) / M is the cart's acceleration if the pole did not turn.
        """
        position, _, angle, turning = state
        cosine, sine = self.array.cos(angle), self.array.sin(angle)
        push = (2 * FORCE / TOTAL) * actions
        push -= FORCE / TOTAL
        push += (POLE * LENGTH / TOTAL) * turning * turning * sine
        turn = (GRAVITY * sine - cosine * push) / (LENGTH * (4 / 3) - (LENGTH * POLE / TOTAL) * cosine * cosine)
        push -= (POLE * LENGTH / TOTAL) * turn * cosine
        state[0::2] += INTERVAL * state[1::2]
        state[1] += INTERVAL * push
        state[3] += INTERVAL * turn
        return 1.0, (abs(position) > FARTHEST) | (abs(angle) > STEEPEST)
