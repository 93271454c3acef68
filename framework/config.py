"""What a run is: one tree of settings, written as TOML, given by flags, or built from Python.

Layers are merged as plain dicts (`merge`), and become settings once (`configure`), so that a wrong key or value
gets the same words from wherever it came. `to_tree` writes a configuration back, complete.
"""

import functools
import inspect
import math
import threading
from typing import Any, Literal, cast

import attrs
import torch
from attrs import field, frozen, validators

from .errors import unknown
from .guards.episode_limit import MOST
from .parts import Part
from .setup.layers import COLLECT
from .setup.layers import PART_ROLES as PART_ROLES
from .setup.layers import Tree as Tree

MOST_THREADS = 1024  # torch takes any number, and 100,000 end the process


class Section:
    """Settings that remember which of them were given: from Python, only those win over a recipe's."""

    __slots__ = ("_given",)

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """Before attrs sets the fields."""
        made = super().__new__(cls)
        names = [attribute.name for attribute in attrs.fields(cls)]  # type: ignore[arg-type]
        object.__setattr__(made, "_given", (*names[: len(arguments)], *named))
        return made

    def __reduce__(self) -> Any:
        """Copies and pickles are made by the same arguments."""
        return functools.partial(type(self), **self.given()), ()

    def given(self) -> Tree:
        """What was given, by name."""
        return {name: getattr(self, name) for name in self._given}  # type: ignore[attr-defined]


@frozen
class RolloutSettings(Section):
    """Size of each iteration's rollout. Give one of steps, episodes and fixed_steps; the default is 128 steps."""

    lanes: int = field(default=8, validator=validators.ge(1))  # number of environments stepped together
    steps: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """minimum number of steps in all, in whole episodes; once it is reached, no lane begins another episode"""
    episodes: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """exact number of episodes, each played to its end"""
    fixed_steps: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """exact number of steps in every lane; unfinished episodes go on in the next iteration"""
    shards: int = field(default=1, validator=validators.ge(1))
    """number of equal groups of lanes, each with its own random numbers"""
    max_episode_steps: int = field(default=MOST, validator=validators.ge(1))
    """maximum number of steps of an episode, where whole episodes are collected: a longer one ends the run"""

    @shards.validator
    def _fit_together(self, attribute: Any, value: int) -> None:
        given = [name for name in COLLECT if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"'{given[1]}' cannot be given together with '{given[0]}': choose one way to collect")
        if self.lanes % self.shards:
            raise ValueError(f"'lanes' must be a multiple of shards: {self.lanes} lanes, {self.shards} shards")
        if self.episodes is not None and self.episodes < self.shards:
            raise ValueError(f"'episodes' must be at least shards: {self.episodes} episodes, {self.shards} shards")

    def __attrs_post_init__(self) -> None:
        """Without any amount given: the default one."""
        if all(getattr(self, name) is None for name in COLLECT):
            object.__setattr__(self, "steps", 128)


@frozen
class UpdateSettings(Section):
    """How the parameters are updated from each rollout."""

    epochs: int = field(default=1, validator=validators.ge(1))  # number of passes over each rollout
    minibatches: int = field(default=1, validator=validators.ge(1))  # number of optimizer steps per pass
    denominator: Literal["per_step", "per_episode", "constant"] = field(
        default="per_step", validator=validators.in_(("per_step", "per_episode", "constant"))
    )
    """divisor of the summed loss: the number of steps, the number of episodes, or the setting `constant`"""
    constant: float = field(default=1.0, validator=[validators.gt(0), validators.lt(math.inf)])
    """divisor of the summed loss where denominator is constant"""
    max_grad_norm: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    """largest 2-norm of the gradient, to which a larger one is scaled down; None: no limit"""


@frozen
class OptimizerSettings(Section):
    """The optimizer of torch.optim and its arguments."""

    name: str = field(default="Adam")  # name of a class of torch.optim
    lr: float = field(default=1e-3, validator=[validators.ge(0), validators.lt(math.inf)])  # learning rate
    schedule: Literal["constant", "linear", "cosine"] = field(
        default="constant", validator=validators.in_(("constant", "linear", "cosine"))
    )
    """course of the learning rate over the run: constant, or falling from `lr`"""
    final: float = field(default=0.0, validator=[validators.ge(0), validators.le(1)])
    """fraction of `lr` that linear and cosine schedules reach at the end of the run"""
    options: dict[str, Any] = field(factory=dict)  # further arguments of that class: eps, betas, weight_decay …

    @name.validator
    def _is_in_torch(self, attribute: Any, value: str) -> None:
        optimizers = [
            name
            for name, found in vars(torch.optim).items()
            if isinstance(found, type)
            and issubclass(found, torch.optim.Optimizer)
            and found is not torch.optim.Optimizer
        ]
        if value not in optimizers:
            raise ValueError(unknown("optimizer", value, optimizers))
        if value == "SparseAdam":
            raise ValueError("'name' must be an optimizer that takes dense gradients, which SparseAdam does not")
        closure = inspect.signature(getattr(torch.optim, value).step).parameters["closure"]
        if closure.default is inspect.Parameter.empty:
            raise ValueError(f"'name' must be an optimizer that steps by gradients alone, which {value} does not")


@frozen(eq=False)
class Config:
    """A run, complete: five parts, extensions, and how they are worked."""

    environment: Part
    policy: Part
    estimator: Part
    baseline: Part
    loss: Part
    extensions: tuple[Part, ...] = ()
    reports: tuple[Part, ...] = ()  # extensions that only watch, on by default
    rollout: RolloutSettings = field(default=RolloutSettings(), validator=validators.instance_of(RolloutSettings))
    update: UpdateSettings = field(default=UpdateSettings(), validator=validators.instance_of(UpdateSettings))
    optimizer: OptimizerSettings = field(
        default=OptimizerSettings(), validator=validators.instance_of(OptimizerSettings)
    )
    iterations: int | None = field(default=cast("int | None", 100), validator=validators.optional(validators.ge(1)))
    """rollouts, each followed by its updates; None: no limit but `steps`"""
    steps: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """environment steps: the run ends after the iteration that reaches them, or with `iterations`, if that is sooner"""
    seed: int = field(default=0, validator=[validators.instance_of(int), validators.ge(0)])
    """seed of all random numbers"""
    device: str = "cpu"  # torch device of policy and rollouts
    threads: int = field(default=1, validator=[validators.ge(1), validators.le(MOST_THREADS)])
    """number of torch's threads; small networks are fastest with one"""
    compile: bool = field(default=False, validator=validators.instance_of(bool))
    """compile updates and rollouts to C++ at the start"""
    trace_gradients: bool = field(default=False, validator=validators.instance_of(bool))
    """measure in every update which term of the loss reaches which parameters"""
    step_timeout: float | None = field(
        default=None,
        validator=validators.optional(validators.and_(validators.gt(0.0), validators.lt(threading.TIMEOUT_MAX))),
    )
    """seconds that an environment's reset or step may take; a longer one ends the run; None: no limit"""

    def __attrs_post_init__(self) -> None:
        """Something ends every run."""
        if self.iterations is None and self.steps is None:
            object.__setattr__(self, "iterations", 100)

    def progress(self, iteration: int, steps: int) -> float:
        """The fraction of the run that is done after so many iterations and environment steps, 0 to 1."""
        done = [0.0]
        done += [iteration / self.iterations] if self.iterations is not None else []
        done += [steps / self.steps] if self.steps is not None else []
        return min(1.0, max(done))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The five roles' parts, then the extensions."""
        return (
            self.environment,
            self.policy,
            self.estimator,
            self.baseline,
            self.loss,
            *self.extensions,
            *self.reports,
        )


SECTIONS = {"rollout": RolloutSettings, "update": UpdateSettings, "optimizer": OptimizerSettings}
SCALARS: dict[str, Any] = {
    "iterations": int,
    "steps": int,
    "seed": int,
    "device": str,
    "threads": int,
    "compile": bool,
    "trace_gradients": bool,
    "step_timeout": float,
}

DEFAULTS: Tree = {
    "environment": {"name": "line_world"},
    "policy": {"name": "categorical"},
    "estimator": {"name": "rewards_to_go"},
    "baseline": {"name": "none"},
    "loss": {"name": "reinforce"},
    "extensions": {"names": []},
    "reports": ["progress", "record", "plot"],
}
"""REINFORCE on the line world: what a run does by default."""
