"""Two hanging links that a torque between them swings up: Gymnasium's Acrobot-v1.

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

from .dynamics import Arithmetic, Dynamics, State
from .lanes import Lanes, lanes

GRAVITY = 9.8  # m/s²; both links have mass 1, length 1, their centre of mass in the middle, and moment of inertia 1
INTERVAL = 0.2  # s
FASTEST = (4 * math.pi, 9 * math.pi)  # rad/s


@frozen
class Acrobot:
    """Acrobot-v1: swing the tip of two links up; reward −1 per step, 0 for the last."""

    max_steps: int = field(default=500, validator=validators.ge(0))  # time limit in steps; 0: no limit

    def build(self, num_envs: int, device: torch.device) -> Lanes:
        """`num_envs` lanes on `device`."""
        high = np.array([1, 1, 1, 1, *FASTEST], np.float32)
        dynamics = Dynamics(
            observation_space=Box(-high, high),
            action_space=Discrete(3),
            action_names=("NEGATIVE", "NONE", "POSITIVE"),
            starts=((-0.1, 0.1),) * 4,
            advance=advance,
            observe=observe,
        )
        return lanes(dynamics, self.max_steps, num_envs, device)


def advance(array: Arithmetic, state: State, action: Any) -> tuple[State, Any, Any]:
    """One Runge-Kutta step of fourth order under a torque of −1, 0 or 1 N m; angles stay within ±π.

    At stage i the upper link has the speed uᵢ and the acceleration aᵢ, the lower one lᵢ and bᵢ.
    """
    upper, lower, u1, l1 = state
    torque, half, sixth = action - 1, INTERVAL / 2, INTERVAL / 6
    a1, b1 = _accelerations(array, upper, lower, u1, l1, torque)
    u2, l2 = u1 + half * a1, l1 + half * b1
    a2, b2 = _accelerations(array, upper + half * u1, lower + half * l1, u2, l2, torque)
    u3, l3 = u1 + half * a2, l1 + half * b2
    a3, b3 = _accelerations(array, upper + half * u2, lower + half * l2, u3, l3, torque)
    u4, l4 = u1 + INTERVAL * a3, l1 + INTERVAL * b3
    a4, b4 = _accelerations(array, upper + INTERVAL * u3, lower + INTERVAL * l3, u4, l4, torque)
    upper = array.wrap(upper + sixth * (u1 + 2 * (u2 + u3) + u4))
    lower = array.wrap(lower + sixth * (l1 + 2 * (l2 + l3) + l4))
    upper_speed = array.clip(u1 + sixth * (a1 + 2 * (a2 + a3) + a4), -FASTEST[0], FASTEST[0])
    lower_speed = array.clip(l1 + sixth * (b1 + 2 * (b2 + b3) + b4), -FASTEST[1], FASTEST[1])
    up = array.cos(upper) + array.cos(upper + lower) < -1
    return (upper, lower, upper_speed, lower_speed), up * 1.0 - 1, up


def _accelerations(
    array: Arithmetic, upper: Any, lower: Any, upper_speed: Any, lower_speed: Any, torque: Any
) -> tuple[Any, Any]:
    """θ₁″ = −(d₂ θ₂″ + φ₁)/d₁ and θ₂″ = (τ + φ₁ d₂/d₁ − ½ θ₁′² sin θ₂ − φ₂) / (5/4 − d₂²/d₁).

    d₁ = 7/2 + cos θ₂, d₂ = (5/2 + cos θ₂)/2, φ₂ = ½ g sin(θ₁ + θ₂) and
    φ₁ = −(½ θ₂′² + θ₁′ θ₂′) sin θ₂ + 3/2 g sin θ₁ + φ₂.
    """
    sine, cosine = array.sin(lower), array.cos(lower)
    d1, d2 = 3.5 + cosine, 1.25 + 0.5 * cosine
    phi2 = 0.5 * GRAVITY * array.sin(upper + lower)
    phi1 = 1.5 * GRAVITY * array.sin(upper) + phi2 - (0.5 * lower_speed + upper_speed) * lower_speed * sine
    ratio = d2 / d1
    turn = (torque + ratio * phi1 - 0.5 * upper_speed * upper_speed * sine - phi2) / (1.25 - d2 * ratio)
    return -ratio * turn - phi1 / d1, turn


def observe(array: Arithmetic, state: State) -> State:
    """Cosine and sine of each angle, and the velocities."""
    upper, lower, upper_speed, lower_speed = state
    return array.cos(upper), array.sin(upper), array.cos(lower), array.sin(lower), upper_speed, lower_speed
