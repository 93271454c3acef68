"""Two links that hang from a joint, to be swung up by a torque between them: Gymnasium's Acrobot-v1.

Source: Sutton 1996, "Generalization in reinforcement learning: Successful examples using sparse coarse coding", NIPS 8,
with the equations of motion of Sutton & Barto's book (1998, section 11.3), which have a term that the paper lacks, and
the Runge-Kutta step of RLPy (Geramifard et al. 2015, Journal of Machine Learning Research 16).
"""

import math
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Box, Discrete

from .lanes import Lanes

GRAVITY = 9.8  # m/s²; both links have mass 1, length 1, their centre of mass in the middle, and moment of inertia 1
INTERVAL = 0.2  # s
FASTEST = (4 * math.pi, 9 * math.pi)  # rad/s


@frozen
class Acrobot:
    """Swing the tip one link above the joint that holds it, at −1 a step, the last one free."""

    max_steps: int = field(default=500, validator=validators.ge(0))  # time limit, a truncation; 0: none

    def build(self, num_envs: int, device: torch.device) -> "AcrobotLanes":
        """`num_envs` lanes on `device`."""
        high = np.array([1, 1, 1, 1, *FASTEST], np.float32)
        return AcrobotLanes(Box(-high, high), Discrete(3), self.max_steps, num_envs, device)


class AcrobotLanes(Lanes):
    """The state is θ₁ (rad, 0 hanging), θ₂ (relative to the first link), θ₁′ and θ₂′ (rad/s).

    Seen are cos θ₁, sin θ₁, cos θ₂, sin θ₂ and the velocities.
    """

    action_names = ("NEGATIVE", "NONE", "POSITIVE")
    starts = ((-0.1, 0.1),) * 4

    def _advance(self, state: Any, actions: Any) -> tuple[Any, Any]:
        """One Runge-Kutta step of fourth order under a torque of −1, 0 or 1 N m; angles stay within ±π."""
        torque = actions - 1
        first = self._rates(state, torque)
        second = self._rates(state + (INTERVAL / 2) * first, torque)
        third = self._rates(state + (INTERVAL / 2) * second, torque)
        fourth = self._rates(state + INTERVAL * third, torque)
        state += (INTERVAL / 6) * (first + 2 * (second + third) + fourth)
        angles = state[:2]
        angles -= 2 * math.pi * (angles / (2 * math.pi)).round()
        for velocity, fastest in zip(state[2:], FASTEST, strict=True):
            velocity[:] = velocity.clip(-fastest, fastest)
        up = self.array.cos(angles[0]) + self.array.cos(angles[0] + angles[1]) < -1
        return up * 1.0 - 1, up

    def _rates(self, state: Any, torque: Any) -> Any:
        """The derivatives of the state by time.

        θ₂″ = (τ + φ₁ d₂/d₁ − ½ θ₁′² sin θ₂ − φ₂) / (5/4 − d₂²/d₁) and θ₁″ = −(d₂ θ₂″ + φ₁)/d₁, where
        d₁ = 7/2 + cos θ₂, d₂ = (5/2 + cos θ₂)/2, φ₂ = ½ g sin(θ₁ + θ₂) and
        φ₁ = −(½ θ₂′² + θ₁′ θ₂′) sin θ₂ + 3/2 g sin θ₁ + φ₂.
        """
        upper, lower, upper_speed, lower_speed = state
        sine, cosine = self.array.sin(lower), self.array.cos(lower)
        d1, d2 = 3.5 + cosine, 1.25 + 0.5 * cosine
        phi2 = 0.5 * GRAVITY * self.array.sin(upper + lower)
        phi1 = 1.5 * GRAVITY * self.array.sin(upper) + phi2 - (0.5 * lower_speed + upper_speed) * lower_speed * sine
        ratio = d2 / d1
        rates = self.array.empty_like(state)
        rates[:2] = state[2:]
        rates[3] = (torque + ratio * phi1 - 0.5 * upper_speed * upper_speed * sine - phi2) / (1.25 - d2 * ratio)
        rates[2] = -ratio * rates[3] - phi1 / d1
        return rates

    def _observe(self, state: Any, observations: Any) -> None:
        observations[0:4:2] = self.array.cos(state[:2])
        observations[1:4:2] = self.array.sin(state[:2])
        observations[4:] = state[2:]
