"""Where episodes end and begin while lanes are stepped, and what follows from that for a whole rollout."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import define, field, frozen
from torch import Tensor

from ..contracts import Array


def view(tensor: Tensor) -> Any:
    """A numpy view of a CPU tensor; another device's tensor itself. Both are written by `rows[t] = row`."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else tensor.detach()


def to_host(tensor: Tensor) -> Any:
    """A tensor as a numpy array, copied only where it lives on another device."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else tensor.detach().cpu().numpy()


@frozen(eq=False)
class EpisodeStats:
    """The episodes that ended in a rollout, by the rewards of the environment."""

    returns: Array  # [E] undiscounted
    lengths: Array  # [E] steps
    metrics: dict[str, Array] = field(factory=dict)  # each [E]; NaN: not given

    @property
    def mean_metrics(self) -> dict[str, float]:
        """The mean of each metric, over the episodes of which it was given; no others."""
        known = {name: numbers[~np.isnan(numbers)] for name, numbers in self.metrics.items()}
        return {name: float(numbers.mean()) for name, numbers in known.items() if len(numbers)}

    @classmethod
    def none(cls) -> "EpisodeStats":
        """No episode."""
        return cls(np.zeros(0), np.zeros(0, np.int64))

    @classmethod
    def together(cls, parts: "Sequence[EpisodeStats]") -> "EpisodeStats":
        """The episodes of all parts, one after the other."""
        names = dict.fromkeys(name for part in parts for name in part.metrics)
        return cls(
            np.concatenate([part.returns for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            {name: np.concatenate([part.metrics.get(name, part.returns * np.nan) for part in parts]) for name in names},
        )


@frozen(eq=False)
class BootstrapObservations:
    """Successors of steps where an episode was cut and not ended by the world: what a critic must still value."""

    times: Tensor  # [K]
    lanes: Tensor  # [K]
    observations: Tensor  # [K, *O]
    state: Tensor | None = None  # [K, *H] the policy's memory after those steps

    def only(self, which: Tensor) -> "BootstrapObservations":
        """Those at `which` [K] bool."""
        state = None if self.state is None else self.state[which]
        return BootstrapObservations(self.times[which], self.lanes[which], self.observations[which], state)


@define(eq=False)
class EpisodeTracker:
    """What is noted in the rows where episodes end, while lanes are stepped; the rest follows after the last row."""

    bootstrap: list[tuple[Any, Any]] = field(factory=list)  # successors of what ended in a row, and the memory after it
    metrics: list[tuple[int, dict[str, Array]]] = field(factory=list)  # rows with metrics, and these, of what ended

    def note(
        self, row: int, which: Array, successors: Any, state: Tensor | None, metrics: Mapping[str, Tensor] | None = None
    ) -> None:
        """Keep what lanes at `which` `[N]` bool leave; `successors` `[N, *O]` as `view` has them."""
        self.bootstrap.append((successors[which], None if state is None else view(state)[which]))
        if metrics:
            self.metrics.append((row, {name: to_host(column)[which] for name, column in metrics.items()}))

    def account(
        self, columns: dict[str, Tensor], episode_step: Array, episode_return: Array, all_bootstrap: bool
    ) -> tuple[EpisodeStats, BootstrapObservations]:
        """Which episodes ended, and what they left; mask, times and episode numbers join the `columns`.

        `all_bootstrap`: those that did not end are kept, too. `episode_step` and `episode_return` move on.
        """
        device = columns["rewards"].device
        alive, valid = (to_host(columns.pop(name)) if name in columns else None for name in ("alive", "valid"))
        rewards, terminated, truncated = (to_host(columns[name]) for name in ("rewards", "terminated", "truncated"))
        ended, mask = terminated | truncated, np.ones(rewards.shape, bool)
        for real in (alive, valid):
            if real is not None:
                mask &= real
        if alive is not None or valid is not None:
            ended &= mask
            rewards = np.where(mask, rewards, 0)
        starts = np.ones_like(mask)
        starts[1:] = ended[:-1]
        if alive is not None:
            starts &= alive
        times, numbers = times_and_numbers(starts, ended, episode_step, None if valid is None else mask)
        rows, lanes = ended.nonzero()
        returns = episode_returns(rewards, ended, episode_return)
        metrics = {name: np.full(len(rows), np.nan) for _, row_metrics in self.metrics for name in row_metrics}
        for row, row_metrics in self.metrics:
            first, last = np.searchsorted(rows, [row, row + 1])
            for name, column in row_metrics.items():
                metrics[name][first:last] = column
        finished = EpisodeStats(returns, times[rows, lanes] + 1, metrics)

        if all_bootstrap:
            (last,) = (~ended[-1]).nonzero()
            rows, lanes = np.append(rows, np.full(len(last), len(mask) - 1)), np.append(lanes, last)
        accounts = {"mask": mask, "times": times, "episodes": numbers}
        columns |= {name: torch.from_numpy(array).to(device) for name, array in accounts.items()}
        successors, states = zip(*self.bootstrap, strict=True)
        return finished, BootstrapObservations(
            torch.from_numpy(rows).to(device),
            torch.from_numpy(lanes).to(device),
            concatenate(successors),
            None if states[0] is None else concatenate(states),
        )


def times_and_numbers(starts: Array, ended: Array, episode_step: Array, valid: Array | None) -> tuple[Array, Array]:
    """Times and episode numbers `[T, N]`, from where episodes `starts` and `ended` `[T, N]` bool.

    A time is the count of real steps (`valid`; None: all) since the episode began; `episode_step` `[N]`, the steps of
    each lane's episode before the first row, moves on to the row after the last. Episodes are numbered as they begin,
    by row and then by lane.
    """
    steps, lanes = ended.shape
    if valid is None:
        steps_before = np.arange(steps + 1)[:, None]
    else:
        steps_before = np.concatenate([np.zeros((1, lanes), np.int64), np.cumsum(valid, 0)])
    since = np.full((steps + 1, lanes), np.iinfo(np.int64).min)
    since[0] = -episode_step
    np.copyto(since[1:], steps_before[1:], where=ended)
    times = steps_before - np.maximum.accumulate(since)
    episode_step[:] = times[-1]
    numbers = np.cumsum(starts, dtype=np.int64).reshape(steps, lanes) - 1
    return times[:-1], np.maximum.accumulate(np.where(starts, numbers, 0))


def episode_returns(rewards: Array, ended: Array, episode_return: Array) -> Array:
    """The returns `[E]` of the episodes that `ended` `[T, N]`, by row and then by lane, of rewards `[T, N]`, 0 if not
    real.

    `episode_return` `[N]`, what each lane's episode brought before the first row, moves on to the row after the last.
    """
    steps = len(rewards)
    by_lane = rewards.T.astype(np.float64, order="C")  # [N, T]
    by_lane[:, 0] += episode_return
    last = ended.T.copy()  # of its piece of a lane, which an episode's end or the last row closes
    last[:, -1] = True
    closes = np.flatnonzero(last)
    sums = np.add.reduceat(by_lane.reshape(-1), np.append(0, closes[:-1] + 1))
    rows = closes % steps
    whole = ended.T.reshape(-1)[closes]
    episode_return[:] = np.where(whole, 0, sums)[rows == steps - 1]
    returns: Array = sums[whole][np.argsort(rows[whole], kind="stable")]
    return returns


def concatenate(parts: Sequence[Any]) -> Tensor:
    """One tensor of rows that come as `view` has them."""
    return torch.cat(parts) if isinstance(parts[0], Tensor) else torch.from_numpy(np.concatenate(parts))  # type: ignore[arg-type]
