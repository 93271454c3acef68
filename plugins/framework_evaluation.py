"""Extensions that evaluate a policy during its run: evaluations in an environment of their own, and an early stop."""

import math
from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor

from framework import Run, hookimpl
from framework.tools import (
    BEST,
    RECENT,
    build_environment,
    close,
    copied,
    derived_seed,
    keep_policy,
    keep_statistics,
    play,
    refuse_without_greedy,
)


@frozen
class Evaluate:
    """Evaluate the policy regularly, in a separate environment, and keep the best one.

    The best is kept as best.safetensors in the run's folder; without one, as `best` of the working extension.
    Randomness is apart from the training's, so that a run learns the same with this extension and without.
    """

    every: int = field(default=10, validator=validators.ge(1))  # number of iterations between evaluations
    episodes: int = field(default=20, validator=validators.ge(1))  # number of whole episodes per evaluation
    greedy: bool = False  # take the most probable action instead of sampling one
    lanes: int = field(default=10, validator=validators.ge(1))  # number of episodes played at the same time

    def build(self, run: Run) -> "Evaluator":
        """The extension for one run."""
        return Evaluator(self, run)


class Evaluator:
    """Measures after every so many iterations."""

    def __init__(self, settings: Evaluate, run: Run) -> None:
        """Build the environment, and give errors its label."""
        config = run.config
        refuse_without_greedy(run.policy, settings.greedy, config.policy.label)
        self.settings = settings
        self.lanes = min(settings.lanes, settings.episodes)
        self.label = config.environment.label
        self.environment = build_environment(config.environment, self.lanes, run.device)
        run.labels[id(self.environment)] = config.environment.label
        self.highest = -math.inf  # mean return of the best evaluation so far
        self.best: dict[str, Tensor] | None = None  # its policy, where there is no file of it

    @hookimpl
    def measure(self, run: Run) -> dict[str, float] | None:
        """Mean return and length, and the returns' standard deviation; of equally good policies the earlier is kept."""
        settings, config = self.settings, run.config
        if (run.iteration + 1) % settings.every:
            return None
        keep_statistics(run.policy, run.environment, config.environment.label)
        performance = play(
            run.policy,
            self.environment,
            self.lanes,
            settings.episodes,
            seed=derived_seed(config.seed, "measure", run.iteration),
            greedy=settings.greedy,
            device=run.device,
            labels=(config.environment.label, config.policy.label),
            limit=run.shards[0].limit,
            episode_limit=run.shards[0].episode_limit,
        )
        if performance.mean > self.highest:
            self.highest = performance.mean
            self.best = copied(run.policy.state_dict())
            if run.directory is not None:
                self._write(run)
        return {
            "evaluation/mean_return": performance.mean,
            "evaluation/std_return": performance.std,
            "evaluation/mean_length": performance.mean_length,
            **{f"evaluation/{name}": number for name, number in performance.mean_metrics.items()},
        }

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """Try again to write the best one, where the disk refused it."""
        if run.directory is not None and self.best is not None:
            self._write(run)

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Likewise."""
        self.run_finished(run)

    def _write(self, run: Run) -> None:
        best = self.best
        assert best is not None
        if keep_policy(run, best, BEST):
            self.best = None

    def close(self) -> None:
        """Let the environment go."""
        close(self.environment, self.label)

    def state_dict(self) -> dict[str, Tensor]:
        """How good the best one was, and as best.NAME its parameters, unless they are in the record."""
        best = {f"best.{name}": tensor.clone() for name, tensor in (self.best or {}).items()}
        return {"highest": torch.tensor(self.highest, dtype=torch.float64), **best}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.highest = float(state["highest"])
        best = {name.removeprefix("best."): tensor.clone() for name, tensor in state.items() if name != "highest"}
        self.best = best or None


@frozen
class EarlyStop:
    """Stop the run once the mean return of the last training episodes is high enough."""

    mean_return: float = 475.0  # mean return at which the run stops
    episodes: int = field(default=RECENT, validator=[validators.ge(1), validators.le(RECENT)])
    """number of last episodes that the mean return is taken over; no run stops before it has so many"""

    def build(self, run: Run) -> "EarlyStop":
        """Itself: it keeps no state."""
        return self

    @hookimpl
    def should_stop(self, run: Run) -> str | None:
        """A reason, once there is one."""
        last = list(run.recent_returns)[-self.episodes :]
        mean = sum(last) / self.episodes
        if len(last) < self.episodes or mean < self.mean_return:
            return None
        return f"mean return {mean:.2f} of the last {self.episodes} episodes reached {self.mean_return}"


@hookimpl
def extensions() -> dict[str, Any]:
    """Offer the extensions."""
    return {"early_stop": EarlyStop, "evaluate": Evaluate}
