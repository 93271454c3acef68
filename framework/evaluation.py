"""How well a policy does: whole episodes in an environment of its own, and statistics of their returns."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from attrs import field, frozen
from torch import nn

from . import streams
from .capabilities import HasGreedy, has
from .collecting.episodes import EpisodeStats
from .collecting.rollout import actor_of
from .contracts import Actor, Array, Environment, PolicyModule
from .errors import UsageError
from .guards.episode_limit import EpisodeLimit
from .guards.randomness import same_randomness
from .guards.step_timeout import Limit
from .records.environment_state import give
from .spaces import ATTRIBUTE, compare
from .tabular.shard import shard_of

CONFIDENCE = 0.95


@frozen(eq=False)
class Performance:
    """Episodes that a policy played, as the environment scored them; all statistics are of the returns."""

    returns: Array  # [E] float64, undiscounted
    lengths: Array  # [E] int64, steps
    metrics: dict[str, Array] = field(factory=dict)  # each [E], reported by the environment; NaN: not reported

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """The standard deviation of a sample (n − 1); NaN for one episode."""
        return float(self.returns.std(ddof=1)) if len(self.returns) > 1 else math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean: std/√E; NaN for one episode."""
        return self.std / math.sqrt(len(self.returns))

    @property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % confidence interval of the mean: mean ± t·std/√E; NaN for one episode.

        Exact for normally distributed, independent returns, and nearly so for many of any other kind. Lanes that
        share a start (`groups`) are not independent: the interval is then too narrow.
        """
        if len(self.returns) < 2:
            return math.nan, math.nan
        from scipy.special import stdtrit  # here, because its import takes as long as a short evaluation

        margin = float(stdtrit(len(self.returns) - 1, (1 + CONFIDENCE) / 2)) * self.standard_error
        return self.mean - margin, self.mean + margin

    @property
    def median(self) -> float:
        """The middle return, or the mean of the two middle ones."""
        return float(np.median(self.returns))

    @property
    def min(self) -> float:
        """The worst return."""
        return float(self.returns.min())

    @property
    def max(self) -> float:
        """The best return."""
        return float(self.returns.max())

    @property
    def mean_metrics(self) -> dict[str, float]:
        """The mean of each metric that the environment reported, over the episodes for which it did."""
        return EpisodeStats(self.returns, self.lengths, self.metrics).mean_metrics

    @property
    def mean_length(self) -> float:
        """The mean number of steps."""
        return float(self.lengths.mean())


def play(
    policy: PolicyModule,
    environment: Environment,
    lanes: int,
    episodes: int,
    *,
    seed: int,
    greedy: bool = False,
    device: torch.device | str = "cpu",
    labels: tuple[str, str] = ("environment", "policy"),
    on_progress: Callable[[int], object] = lambda count: None,
    limit: Limit | None = None,
    working: Callable[[int, int], object] | None = None,
    episode_limit: EpisodeLimit = EpisodeLimit(),  # noqa: B008 - it is frozen
) -> Performance:
    """Let a policy play exactly `episodes` whole episodes; all that are begun are finished.

    They are played in batches of at most one episode a lane, whose steps are forgotten when the next begins. Randomness
    is that of the stream "evaluate" of `seed`, by batch: never a training run's. The policy is in evaluation mode
    meanwhile; modes and the global generators are put back.

    Args:
        policy: an `nn.Module` that is a `Policy`.
        environment: a working one, of `lanes` lanes, which nothing else steps.
        lanes: at least 1.
        episodes: at least 1.
        seed: seed of all random numbers.
        greedy: the most probable action instead of a sampled one, by `policy.greedy()`.
        device: where policy and environment live.
        labels: what errors call the environment and the policy.
        on_progress: is called with the number of episodes played, after each batch.
        limit: how long a reset or step may take.
        working: is called a few times a second with the episodes played and the steps taken.
        episode_limit: how many steps an episode may take.

    Raises:
        UsageError: `greedy`, and the policy has no such method; or the policy was built for other spaces.
        PartError: a part broke its contract, or an episode does not end.
    """
    if lanes < 1 or episodes < 1:
        raise UsageError(f"an evaluation takes at least one lane and one episode: {lanes} lanes, {episodes} episodes")
    refuse_without_greedy(policy, greedy, labels[1])
    if hasattr(policy, ATTRIBUTE):
        compare(getattr(policy, ATTRIBUTE), environment, labels[1], labels[0])
    give(policy, environment, labels[0])
    device = torch.device(device)
    own = streams.derived_seed(seed, "evaluate")
    shard = shard_of(
        environment,
        lanes=lanes,
        steps=None,
        episodes=lanes,
        fixed_steps=None,
        seed=own,
        number=0,
        device=device,
        labels=labels,
        episode_limit=episode_limit,
        limit=limit,
    )
    played: list[EpisodeStats] = []
    if working is not None:
        shard.on_progress = lambda steps, ended: working(
            sum(len(part.returns) for part in played) + ended,
            sum(int(part.lengths.sum()) for part in played) + steps,
        )
    with torch.no_grad(), _in_evaluation(policy):
        streams.seed_global(device, own)
        for batch, first in enumerate(range(0, episodes, lanes)):
            shard.episodes = min(lanes, episodes - first)
            played.append(shard.collect(policy, _actor(policy, greedy), batch, False)[1])
            on_progress(first + shard.episodes)
    finished = EpisodeStats.together(played)
    return Performance(finished.returns, finished.lengths, finished.metrics)


def refuse_without_greedy(policy: PolicyModule, greedy: bool, label: str) -> None:
    """Refuse a greedy evaluation of a policy that has no `greedy()`."""
    if greedy and not has(policy, HasGreedy):
        raise UsageError(f"{label} has no greedy(), which takes the most probable action: evaluate it without greedy")


def _actor(policy: PolicyModule, greedy: bool) -> Actor:
    return policy.greedy() if greedy and has(policy, HasGreedy) else actor_of(policy)


@contextmanager
def _in_evaluation(policy: nn.Module) -> Iterator[None]:
    """Evaluation mode; then each module's own mode again, and the global generators as they were."""
    modes = [(module, module.training) for module in policy.modules()]
    with same_randomness():
        policy.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
