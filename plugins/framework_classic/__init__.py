"""Gymnasium's classic control worlds, stepped in floats where lanes are few and in arrays where they are many."""

from typing import Any

from framework import hookimpl

from .acrobot import Acrobot
from .cartpole import CartPole
from .mountain_car import MountainCar
from .pendulum import Pendulum

__all__ = ["Acrobot", "CartPole", "MountainCar", "Pendulum", "environments"]


@hookimpl
def environments() -> dict[str, Any]:
    """Offer the worlds."""
    return {"acrobot": Acrobot, "cartpole": CartPole, "mountain_car": MountainCar, "pendulum": Pendulum}
