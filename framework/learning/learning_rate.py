"""Schedules of the learning rate."""

import math

import torch

from ..config import OptimizerSettings


def learning_rate(settings: OptimizerSettings, iteration: float, iterations: float) -> float:
    """η·(1 − (1 − f)·w) in iteration k of K: linear w = k/K, cosine w = (1 − cos πk/K)/2, constant w = 0.

    η is `lr`, f is `final`; k of K may be any fraction of the run. Source of the cosine: Loshchilov & Hutter 2017,
    arXiv:1608.03983, eq. 5 (here without restarts).

    >>> [learning_rate(OptimizerSettings(lr=1.0, schedule="linear"), k, 4) for k in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if settings.schedule == "constant":
        return settings.lr
    way = iteration / iterations
    if settings.schedule == "cosine":
        way = (1 - math.cos(math.pi * way)) / 2
    return settings.lr * (1 - (1 - settings.final) * way)


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, progress: float) -> None:
    """Where there is a schedule: the learning rate after this share of the run, 0 to 1."""
    if settings.schedule != "constant":
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, progress, 1)
