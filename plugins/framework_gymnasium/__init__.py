"""Environments of Gymnasium, through the contract of any other environment."""

from typing import Any

from framework import hookimpl

from .settings import Gymnasium

__all__ = ["Gymnasium"]


@hookimpl
def environments() -> dict[str, Any]:
    """Offer any environment that Gymnasium can make."""
    return {"gymnasium": Gymnasium}
