"""Observations of the kind that a part supports: numbers of a Discrete space, or vectors of a Box."""

from typing import Any

import torch
from attrs import evolve
from hypothesis.strategies import SearchStrategy

from ..contracts import Estimate, Rollout
from ..errors import PartError
from .law import Subject
from .strategies import Episode, assemble


def as_box(rollout: Rollout) -> Rollout:
    """The rollout with each Discrete observation `[T, N]` encoded as a float32 vector `[T, N, 2]`."""
    number = rollout.observations
    return evolve(rollout, observations=torch.stack([number / 2 - 1, (number % 2).float()], -1))


def with_supported_observations(subject: Subject, rollouts: SearchStrategy[Rollout]) -> SearchStrategy[Rollout]:
    """Rollouts with observations that the part supports."""
    return rollouts.map(as_box) if needs_box(subject) else rollouts


def needs_box(subject: Subject) -> bool:
    """Whether the part supports vectors but not numbers; a part that supports neither is checked on numbers."""
    if "needs_box" not in subject.cache:
        rollout = _small_rollout()
        subject.cache["needs_box"] = not _accepts(subject, rollout) and _accepts(subject, as_box(rollout))
    return bool(subject.cache["needs_box"])


def _small_rollout() -> Rollout:
    """Two lanes of two episodes of two steps, with every optional column."""
    rollout = assemble([[Episode((1.0, 0.5), True, False)] * 2] * 2, dtype=torch.float64)
    zeros, place = torch.zeros_like(rollout.rewards), torch.arange(4)[:, None] + 2 * torch.arange(2)
    columns: dict[str, Any] = {"values": zeros, "successor_values": zeros, "target_log_probs": zeros}
    episodes = torch.tensor([[0, 1], [0, 1], [2, 3], [2, 3]])
    return evolve(
        rollout, **columns, episodes=episodes, observations=place % 4, groups=torch.zeros(2, dtype=torch.int64)
    )


def _accepts(subject: Subject, rollout: Rollout) -> bool:
    """Whether the part returns `[T, N]` for such a rollout, also after an update with it."""
    arguments = (rollout,) if subject.role == "estimator" else (rollout, rollout.rewards.clone())
    try:
        built = subject.make()
        output = built(*arguments)
        if hasattr(built, "update"):
            built.update(*arguments)
            output = built(*arguments)
    except PartError:  # for example too few episodes
        return True
    except Exception:
        return False
    return getattr(output.returns if isinstance(output, Estimate) else output, "shape", None) == rollout.mask.shape
