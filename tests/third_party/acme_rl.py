"""Hyperbolic discounting, a world in which it matters, and clipped rewards: three parts for framework-rl."""

from collections.abc import Generator
from typing import Any

import torch
from attrs import evolve, field, frozen, validators
from gymnasium.spaces import Discrete
from torch import Tensor

from framework import Estimate, Rollout, Run, Step, hookimpl

TAKE, WAIT = 0, 1


@frozen
class HyperbolicReturns:
    """Rewards k steps ahead weigh 1 / (1 + rate·k): Gₜ = Σₖ rₜ₊ₖ / (1 + rate·k), to the episode's end.

    No recursion leads from Gₜ₊₁ to Gₜ, so this takes time in the square of the longest episode. Source: Fedus et al.
    2019, arXiv:1902.06865.
    """

    needs = frozenset({"complete_episodes"})
    claims = frozenset({"causal", "linear"})
    rate: float = field(default=0.1, validator=validators.ge(0.0))  # impatience, per step; 0: none

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns `[T, N]`; a truncation counts as the end. Padding earns nothing, so it needs no care."""
        rewards, episodes = rollout.rewards, rollout.episodes
        returns = torch.zeros_like(rewards)
        for k in range(int(rollout.times.max()) + 1):
            now, later = slice(0, len(rewards) - k), slice(k, None)
            same = episodes[now] == episodes[later]
            returns[now] += same * rewards[later] / (1 + self.rate * k)
        return Estimate(returns, returns)


@frozen
class Marshmallow:
    """TAKE a small reward and be done, or WAIT for a large one, which may come at any step.

    One sees how long one has waited. After Mischel, Ebbesen & Zeiss 1972, doi:10.1037/h0032198.
    """

    small: float = 1.0  # reward for taking
    large: float = 3.0  # reward, should it come while one waits
    chance: float = field(default=0.1, validator=[validators.ge(0.0), validators.le(1.0)])  # that it comes, each step
    max_steps: int = field(default=20, validator=validators.ge(1))  # time limit, a truncation

    def build(self, num_envs: int, device: torch.device) -> "MarshmallowLanes":
        """`num_envs` lanes on `device`."""
        return MarshmallowLanes(self, num_envs, device)


class MarshmallowLanes:
    """The lanes, all stepped at once; each is no more than a count of steps."""

    action_names = ("TAKE", "WAIT")

    def __init__(self, settings: Marshmallow, num_envs: int, device: torch.device) -> None:
        """Nobody has waited yet."""
        self.settings = settings
        self.observation_space = Discrete(settings.max_steps + 1)
        self.action_space = Discrete(2)
        self.waited = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def reset(self, generator: torch.Generator) -> Tensor:
        """Begin anew in every lane."""
        self.waited = torch.zeros_like(self.waited)
        return self.waited

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Take or wait; where that ends an episode, `observations` is already the next one's first."""
        settings = self.settings
        taken = actions == TAKE
        luck = torch.rand(self.waited.shape, generator=generator, device=self.waited.device)
        came = ~taken & (luck < settings.chance)
        rewards = taken * settings.small + came * settings.large
        terminated = taken | came
        successors = self.waited + 1
        truncated = ~terminated & (successors == settings.max_steps)
        self.waited = successors * ~(terminated | truncated)
        return Step(self.waited, successors, rewards, terminated, truncated)


@frozen
class ClipRewards:
    """Learn from rewards clipped to [−limit, limit]; the scores that are reported stay the world's own.

    Source: Mnih et al. 2015, doi:10.1038/nature14236, Methods.
    """

    limit: float = field(default=1.0, validator=validators.gt(0.0))  # largest size of a reward

    def build(self, run: Run) -> "RewardClipper":
        """The extension for one run."""
        return RewardClipper(self)


class RewardClipper:
    """Wraps collecting."""

    def __init__(self, settings: ClipRewards) -> None:
        """Keep the settings."""
        self.settings = settings

    @hookimpl(wrapper=True)
    def collect_rollout(self) -> Generator[None, Rollout, Rollout]:
        """The rollout, with rewards clipped."""
        rollout = yield
        limit = self.settings.limit
        return evolve(rollout, rewards=rollout.rewards.clamp(-limit, limit))


@hookimpl
def estimators() -> dict[str, Any]:
    """Offer the estimator."""
    return {"hyperbolic": HyperbolicReturns}


@hookimpl
def environments() -> dict[str, Any]:
    """Offer the world."""
    return {"marshmallow": Marshmallow}


@hookimpl
def extensions() -> dict[str, Any]:
    """Offer the extension."""
    return {"clip_rewards": ClipRewards}
