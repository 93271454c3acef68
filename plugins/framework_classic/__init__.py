"""Gymnasium's classic control environments, stepped in floats for few lanes and in arrays for many."""

from typing import Any

from framework import hookimpl

from .acrobot import Acrobot
from .cartpole import CartPole
from .mountain_car import MountainCar
from .pendulum import Pendulum

__all__ = ["Acrobot", "CartPole", "MountainCar", "Pendulum", "environments"]


@hookimpl
def environments() -> dict[str, Any]:
    """Offer the environments."""
    return {"acrobot": Acrobot, "cartpole": CartPole, "mountain_car": MountainCar, "pendulum": Pendulum}
