"""A random walk on slippery ground."""

from typing import Any

import torch
from attrs import field, frozen, validators
from framework import Step, TabularMDP, hookimpl
from gymnasium.spaces import Discrete
from torch import Tensor

BACK, FORTH = 0, 1


@frozen
class MyPart:
    """Walk from place 0 to the last one, with reward −1 per step; a step may slip the other way."""

    length: int = field(default=5, validator=validators.ge(2))  # places, the last of which is the end
    slip: float = field(default=0.1, validator=[validators.ge(0), validators.lt(1)])  # chance to go the other way
    max_steps: int = field(default=50, validator=validators.ge(1))  # time limit, a truncation

    def build(self, num_envs: int, device: torch.device) -> "MyPartLanes":
        """`num_envs` lanes on `device`."""
        return MyPartLanes(self, num_envs, device)


class MyPartLanes:
    """The lanes, all stepped at once, with tensors [N]."""

    action_names = ("BACK", "FORTH")

    def __init__(self, settings: MyPart, num_envs: int, device: torch.device) -> None:
        self.settings = settings
        self.observation_space, self.action_space = Discrete(settings.length), Discrete(2)
        self.places = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.clock = torch.zeros_like(self.places)  # steps of each lane's episode

    def reset(self, generator: torch.Generator) -> Tensor:
        """Start a new episode in every lane; returns the first observations."""
        self.places, self.clock = torch.zeros_like(self.places), torch.zeros_like(self.clock)
        return self.places

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Step every lane, with random numbers from the generator; where an episode ended, start the next one."""
        slipped = torch.rand(actions.shape, generator=generator, device=actions.device) < self.settings.slip
        moves = torch.where((actions == FORTH) ^ slipped, 1, -1)
        successors = (self.places + moves).clamp(0, self.settings.length - 1)
        self.clock = self.clock + 1
        terminated = successors == self.settings.length - 1
        truncated = self.clock >= self.settings.max_steps
        ended = terminated | truncated
        self.places = successors.masked_fill(ended, 0)
        self.clock = self.clock.masked_fill(ended, 0)
        rewards = torch.full(actions.shape, -1.0, device=actions.device)
        return Step(self.places, successors, rewards, terminated, truncated)

    def mdp(self) -> TabularMDP:
        """The environment as tables: exact values are computed from them, and the laws compare each step with them."""
        length, slip = self.settings.length, self.settings.slip
        transitions = torch.zeros(length, 2, length, dtype=torch.float64)
        for place in range(length):
            for action, move in ((BACK, -1), (FORTH, 1)):
                for moved, chance in ((move, 1 - slip), (-move, slip)):
                    transitions[place, action, min(max(place + moved, 0), length - 1)] += chance
        places = torch.arange(length)
        first, last = (places == 0).double(), places == length - 1
        return TabularMDP(transitions, torch.full_like(transitions, -1), first, last, self.settings.max_steps)

    def state_dict(self) -> dict[str, Tensor]:
        """The place and the clock of each lane."""
        return {"places": self.places.clone(), "clock": self.clock.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the lanes."""
        self.places, self.clock = state["places"].clone(), state["clock"].clone()


@hookimpl
def environments() -> dict[str, Any]:
    """Offer the environment."""
    return {"my_part": MyPart}
