"""What a part may have besides what its role requires: one small Protocol for each capability, found by `has`.

The core asks for nothing else: a part without a capability works, and one that has it can do more (be rendered, be
sampled from tables, be compiled, be evaluated greedily). `CAPABILITIES` lists them by role.
"""

import functools
from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard, TypeVar, cast

from torch import Tensor

from .contracts import Actor, Inputs, Rollout, Stateful, Step, TabularMDP

Capability = TypeVar("Capability")


def has(part: object, capability: type[Capability]) -> TypeGuard[Capability]:
    """Whether a part has all members of a capability; one that is None counts as missing.

    >>> class Quiet:
    ...     def close(self): ...
    >>> has(Quiet(), HasClose), has(Quiet(), HasGroups)
    (True, False)
    """
    return all(getattr(part, name, None) is not None for name in members(cast(Any, capability)))


@functools.cache
def members(capability: Any) -> tuple[str, ...]:
    """The names of a capability's members.

    >>> members(HasStatistics)
    ('statistics', 'load_statistics')
    """
    own = [name for name in vars(capability) if not name.startswith("_")]
    return tuple(dict.fromkeys([*getattr(capability, "__annotations__", {}), *own]))


# Of environments


class HasGroups(Protocol):
    """Lanes with the same number share a start; the settings then declare `gives = {"groups"}`."""

    groups: Tensor  # [N] int64


class HasActionMasks(Protocol):
    """Which actions are allowed in the observations that `reset` returned; each `Step` must then have its own."""

    action_masks: Tensor  # [N, actions] bool


class HasActionNames(Protocol):
    """Names of the actions of a Discrete space, for tables that people read."""

    action_names: tuple[str, ...]


class HasTables(Protocol):
    """The same environment as tables over its own Discrete spaces, numbered from 0."""

    def mdp(self) -> TabularMDP:
        """The tables; a small environment is sampled from them without being stepped."""
        ...


class HasStatistics(Protocol):
    """Running statistics of what passed (as the mean of observations), which go with the policy to its evaluations."""

    def statistics(self) -> dict[str, Tensor]:
        """By name."""
        ...

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `statistics` returned."""
        ...


class HasResolved(Protocol):
    """The values that were chosen for settings of "auto"; they are recorded and printed."""

    resolved: Mapping[str, Any]


class HasBusy(Protocol):
    """Which lanes are in the middle of a step, for the error of a step that takes too long."""

    def busy(self) -> str:
        """A phrase, empty where it is not known."""
        ...


class HasTransition(Protocol):
    """The step as a pure function of tensors, with the methods of `Stateful`: rollouts can then be compiled."""

    transition_noise: int  # uniform numbers that a lane's step takes, its next start included

    def transition(self, state: dict[str, Tensor], actions: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Step]:
        """From a state and `noise` float64 [N, transition_noise] in [0, 1), to the state after it, and the step."""
        ...


class HasRender(Protocol):
    """A picture of the first lane. `render_fps` or `metadata["render_fps"]` give pictures a second; 30 without."""

    def render(self) -> Any:
        """A numpy array uint8 [H, W, 3]."""
        ...


# Of policies, and of the actors that collect for them


class HasValues(Protocol):
    """A critic; the settings then declare `gives = {"values"}`."""

    def values(self, inputs: Inputs) -> Tensor:
        """V(s) [B]; of sequences [T, M]."""
        ...


class HasActor(Protocol):
    """A faster way to act while the parameters stay as they are."""

    def actor(self) -> Actor | None:
        """A frozen snapshot that only acts; None: the policy itself."""
        ...


class HasGreedy(Protocol):
    """Evaluation without exploration."""

    def greedy(self) -> Actor:
        """An actor that takes the most probable action of those that are allowed; of a density, the mean."""
        ...


class HasChoose(Protocol):
    """`act` as a pure function of tensors: rollouts can then be compiled."""

    choice_noise: int  # uniform numbers that a choice takes

    def choose(self, inputs: Inputs, noise: Tensor) -> Tensor:
        """Actions [B, *A] of `noise` float64 [B, choice_noise] in [0, 1)."""
        ...


class HasEnvironmentActions(Protocol):
    """The environment takes other actions than the rollout keeps: squashed or clipped ones, say."""

    def environment_actions(self, actions: Tensor) -> Tensor:
        """From what was sampled to the environment's action space."""
        ...


class HasObserve(Protocol):
    """Statistics of observations, which are frozen while a rollout is collected, learnt from and evaluated."""

    def observe(self, rollout: Rollout) -> None:
        """Update them, once an iteration, after its last update."""
        ...


class HasTable(Protocol):
    """An actor that does nothing else than to sample from this table; see `HasTables`."""

    log_probs: Tensor  # [S, A]


# Of baselines, and of any part


class HasUpdate(Protocol):
    """A baseline that learns."""

    def update(self, rollout: Rollout, returns: Tensor) -> None:
        """Learn from a rollout and its returns [T, N], once an iteration, after its last update."""
        ...


class HasClose(Protocol):
    """Processes or windows that must be closed."""

    def close(self) -> None:
        """Called once, when the run has ended, or when a later part cannot be built; an exception is a warning."""
        ...


class HasBuild(Protocol):
    """Settings of an estimator, a baseline or a loss that do not do the work themselves."""

    def build(self) -> Any:
        """What is called in their place, and may have state."""
        ...


CAPABILITIES: dict[str, tuple[type, ...]] = {
    "environment": (
        *(HasTables, HasActionNames, HasGroups, HasActionMasks, HasRender, Stateful, HasTransition),
        *(HasStatistics, HasResolved, HasBusy, HasClose),
    ),
    "policy": (HasValues, HasActor, HasGreedy, HasChoose, HasEnvironmentActions, HasObserve),
    "actor": (HasTable,),
    "estimator": (HasBuild,),
    "baseline": (HasBuild, HasUpdate, Stateful),
    "loss": (HasBuild,),
    "extension": (Stateful, HasClose),
}
"""The capabilities that each role may have. Any part may have `HasClose`."""
