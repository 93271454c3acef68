"""The line world: states 0 … goal in a row, LEFT and RIGHT, from 0 to the goal."""

import math
from typing import Any

import torch
from attrs import field, frozen, validators
from gymnasium.spaces import Discrete
from torch import Tensor

from framework import Step, TabularMDP, hookimpl
from framework.tools import Section

LEFT, RIGHT = 0, 1
FINITE = [validators.gt(-math.inf), validators.lt(math.inf)]


@frozen
class LineWorld(Section):
    """Walk from state 0 along a line to the goal; each step costs reward.

    Grouped lanes keep their start until the next `reset`. Starts near the goal make for short episodes, and so for more
    of them, unless each lane plays one (rollout.episodes = rollout.lanes).
    """

    goal: int = field(default=4, validator=validators.ge(1))  # number of the last state, where an episode ends
    step_reward: float = field(default=-1.0, validator=FINITE)  # reward for a step that does not reach the goal
    goal_reward: float = field(default=10.0, validator=FINITE)  # reward for the step that reaches the goal
    max_steps: int = field(default=100, validator=validators.ge(0))  # time limit in steps; 0: no limit
    group_size: int = field(default=0, validator=validators.ge(0))
    """number of lanes that share a random start, short of the goal; 0: every lane starts in state 0"""

    @property
    def gives(self) -> frozenset[str]:
        """Groups, if there are to be any."""
        return frozenset({"groups"} if self.group_size else ())

    def build(self, num_envs: int, device: torch.device) -> "LineWorldLanes":
        """`num_envs` lanes on `device`, in whole groups."""
        if self.group_size and num_envs % self.group_size:
            raise ValueError(
                f"a shard's lanes must be a multiple of group_size: {num_envs} lanes, groups of {self.group_size}"
            )
        return LineWorldLanes(self, num_envs, device)


class LineWorldLanes:
    """The lanes: tables looked up for all of them at once, in buffers that are handed out again each step."""

    action_names = ("LEFT", "RIGHT")

    def __init__(self, settings: LineWorld, num_envs: int, device: torch.device | str = "cpu") -> None:
        """Build the tables `[state · 2 + action]`."""
        self.settings = settings
        self.observation_space = Discrete(settings.goal + 1)
        self.action_space = Discrete(2)
        states = torch.arange(settings.goal + 1, device=device)
        left, right = (states - 1).clamp(min=0), (states + 1).clamp(max=settings.goal)
        self._successor = torch.stack([left, right], 1).flatten()
        self._reward = torch.where(self._successor == settings.goal, settings.goal_reward, settings.step_reward)
        self._limit = settings.max_steps or torch.iinfo(torch.int64).max

        def lanes(dtype: torch.dtype) -> Tensor:
            return torch.zeros(num_envs, dtype=dtype, device=device)

        self.groups: Tensor | None = None  # [N]
        if settings.group_size:
            self.groups = torch.arange(num_envs, device=device) // settings.group_size
        self._starts = lanes(torch.int64)
        self._clock = lanes(torch.int64)
        self._step = Step(
            lanes(torch.int64), lanes(torch.int64), lanes(torch.float32), lanes(torch.bool), lanes(torch.bool)
        )

    def reset(self, generator: torch.Generator) -> Tensor:
        """All lanes at state 0, or each group at a state of its own, drawn uniformly from those before the goal."""
        self._clock.zero_()
        if self.groups is None:
            return self._step.observations.zero_()
        count = len(self.groups) // self.settings.group_size
        starts = torch.randint(self.settings.goal, (count,), generator=generator, device=self.groups.device)
        torch.take(starts, self.groups, out=self._starts)
        return self._step.observations.copy_(self._starts)

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """One step left or right; at the walls one stays."""
        step, clock = self._step, self._clock
        index = step.observations * 2 + actions
        torch.take(self._successor, index, out=step.successors)
        torch.take(self._reward, index, out=step.rewards)
        torch.eq(step.successors, self.settings.goal, out=step.terminated)
        clock += 1
        torch.ge(clock, self._limit, out=step.truncated)
        continues = ~(step.terminated | step.truncated)
        torch.mul(step.successors, continues, out=step.observations)  # the next episode begins at 0
        if self.groups is not None:  # or where its lane's first one did
            torch.where(continues, step.successors, self._starts, out=step.observations)
        clock *= continues
        return step

    def mdp(self) -> TabularMDP:
        """The same world as tables."""
        count = self.settings.goal + 1
        successor = self._successor.reshape(count, 2)
        rewards = self._reward.reshape(count, 2, 1).expand(count, 2, count)
        states = torch.arange(count, device=successor.device)
        start = states == 0 if self.groups is None else states < self.settings.goal
        return TabularMDP(
            transitions=torch.nn.functional.one_hot(successor, count).to(torch.float64),
            rewards=rewards.to(torch.float64),
            start=start.to(torch.float64) / start.sum(),
            terminal=states == self.settings.goal,
            time_limit=self.settings.max_steps or None,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Where each lane is, since when, and where its episodes begin."""
        return {
            "states": self._step.observations.clone(),
            "clock": self._clock.clone(),
            "starts": self._starts.clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put the lanes back."""
        self._step.observations.copy_(state["states"])
        self._clock.copy_(state["clock"])
        self._starts.copy_(state["starts"])


@hookimpl
def environments() -> dict[str, Any]:
    """Offer the line world."""
    return {"line_world": LineWorld}
