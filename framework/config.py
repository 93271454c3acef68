"""What a run is: one tree of settings, written as TOML, given by flags, or built from Python.

Layers are merged as plain dicts (`merge`), and become settings once (`configure`), so that a wrong key or value
gets the same words from wherever it came. `to_tree` writes a configuration back, complete.
"""

import functools
import inspect
import math
import threading
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import attrs
import torch
from attrs import field, frozen, validators

from .errors import UsageError, unknown
from .guards.episode_limit import MOST
from .kinds import converted, shown, well_formed, written
from .kinds import worded as worded
from .parts import Loaded, Part, Plugin
from .setup.layers import COLLECT as COLLECT
from .setup.layers import PART_ROLES as PART_ROLES
from .setup.layers import Tree as Tree
from .setup.layers import deepened
from .setup.layers import merge as merge
from .setup.suggestions import refuse_key, setting_hint

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
"""REINFORCE on the line world: what a run does when nothing else is said."""


def read_toml(path: Path) -> Tree:
    """A TOML file's tree, with or without a byte order mark; `UsageError` names the file, and the line of a mistake."""
    try:
        data = path.read_bytes()
        if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
            raise UsageError(f"{path} is not UTF-8 (it looks like UTF-16, as Windows may write it): save it as UTF-8")
        return tomllib.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"no configuration file {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path}: its tables or lists are nested too deep") from None
    except ValueError as error:  # of TOML, of UTF-8, and numbers of thousands of digits
        raise UsageError(f"{path} is not TOML: {error}") from None


def plugin_list(value: Any, origin: str) -> tuple[str, ...]:
    """What a file's `plugins` asks for; `UsageError` where it is no list of strings."""
    try:
        return tuple(converted(tuple[str, ...], "plugins", value))
    except UsageError as error:
        raise UsageError(f"{origin}: {error}") from None


def pick(loaded: Loaded, role: str, tree: Mapping[str, Any]) -> Part:
    """The part that a merged tree names for one of the five roles, with its settings."""
    return _part(loaded, role, role, _section(tree, role))


def configure(loaded: Loaded, tree: Mapping[str, Any], origin: str = "") -> Config:
    """Pick the parts that a merged tree names and make all settings. `UsageError` says which key is wrong."""
    known = (*PART_ROLES, *SECTIONS, *SCALARS, "extensions", "reports")
    try:
        well_formed(tree)
        for key in tree:
            if key not in known:
                refuse_key(key)
                raise UsageError(unknown("section or key", key, known))
        values: dict[str, Any] = {role: pick(loaded, role, tree) for role in PART_ROLES}
        values |= {key: _settings(cls, key, _section(tree, key)) for key, cls in SECTIONS.items() if key in tree}
        told = {key: tree[key] for key in SCALARS if tree.get(key) not in (None, "None")}
        values |= {key: converted(SCALARS[key], key, value) for key, value in told.items()}
        if "steps" in values and "iterations" not in values:
            values["iterations"] = None
        section = dict(_section(tree, "extensions"))
        names = converted(tuple[str, ...], "extensions.names", section.pop("names", ()))
        reports = converted(tuple[str, ...], "reports", tree.get("reports", ()))
        for key in section:
            if section[key] is False:
                loaded.pick("extension", key)
                if key in reports:
                    raise UsageError(f"extension '{key}' is one of the reports: leave it out there, reports = […]")
                continue
            _section(section, key, "extensions.")
            if key not in (*names, *reports):
                raise UsageError(
                    f"extensions.{key} is set, but extension '{key}' is not chosen: add it to extensions, "
                    f"which are: {', '.join((*names, *reports)) or 'none'}"
                )
        for key, chosen in (("extensions", names), ("reports", reports)):
            values[key] = tuple(
                _part(loaded, "extension", f"extensions.{name}", {**_section(section, name), "name": name})
                for name in chosen
            )
        try:
            return Config(**values)
        except ValueError as error:
            raise UsageError(worded("", error)) from None
    except UsageError as error:
        raise UsageError(f"{origin}: {error}" if origin else str(error)) from error.__cause__


def is_complete(tree: Mapping[str, Any]) -> bool:
    """Whether a file says everything, as a record's does: then nothing of a recipe is left below it."""
    return {*PART_ROLES, *SECTIONS, "seed", "device", "threads", "reports", "extensions"} <= tree.keys()


def used(config: Config, loaded: Loaded) -> list[Plugin]:
    """The plugins whose parts a configuration names: what it takes to run it again."""
    owners = {part.plugin for part in config.parts}
    return [plugin for plugin in loaded.plugins if plugin.name in owners]


def to_tree(config: Config, loaded: Loaded) -> Tree:
    """The complete tree of a configuration: what `configure` takes back, and what config.toml holds."""

    def name_of(part: Part) -> str:
        return loaded.short_name(part.role, part.name, part.plugin)

    tree: Tree = {key: getattr(config, key) for key in SCALARS if getattr(config, key) is not None}
    tree["plugins"] = [plugin.source for plugin in used(config, loaded)]
    tree["reports"] = [name_of(part) for part in config.reports]
    for role in PART_ROLES:
        part = getattr(config, role)
        tree[role] = {"name": name_of(part), **settings_tree(part.settings, role)}
    tree |= {key: settings_tree(getattr(config, key), key) for key in SECTIONS}
    tree["extensions"] = {"names": [name_of(part) for part in config.extensions]}
    for part in (*config.extensions, *config.reports):
        settings = settings_tree(part.settings, f"extensions.{name_of(part)}")
        if settings:
            tree["extensions"][name_of(part)] = settings
    return tree


def settings_tree(settings: Any, where: str = "") -> Tree:
    """A settings object as a tree. TOML has no null: None is left out where it is the default, else written "None"."""
    tree: Tree = {}
    for attribute in attrs.fields(type(settings)):
        value = getattr(settings, attribute.name)
        if value is None:
            if attribute.default is None:
                continue
            value = "None"
        tree[attribute.name] = written(f"{where}.{attribute.name}", value)
    return tree


def validate(where: str, settings: Any) -> None:
    """Run the validators of settings that were made without (by the command line); `UsageError` says what is wrong."""
    try:
        attrs.validate(settings)
    except (ValueError, TypeError) as error:
        raise UsageError(worded(where, error)) from None


def _section(tree: Mapping[str, Any], key: str, within: str = "") -> Mapping[str, Any]:
    section = tree.get(key, {})
    if not isinstance(section, Mapping):
        means: dict[Any, str] = {str: f", and its name = {shown(section)}", list: f", and its names = {shown(section)}"}
        also = means.get(type(section), "") if key in (*PART_ROLES, "extensions") else ""
        raise UsageError(f"{within}{key} must be a table, [{within}{key}]{also}, got {shown(section)}")
    return section


def _part(loaded: Loaded, role: str, where: str, section: Mapping[str, Any]) -> Part:
    name = converted(str, f"{where}.name", section.get("name"))
    plugin, name, cls = loaded.pick(role, name)
    settings = {key: value for key, value in section.items() if key != "name"}
    return Part(role, name, plugin, _settings(cls, where, settings, loaded=loaded))


def updated(part: Part, where: str, section: Mapping[str, Any], loaded: Loaded) -> Part:
    """The part with these of its settings changed, as flags change them."""
    return attrs.evolve(part, settings=_settings(type(part.settings), where, section, part.settings, loaded))


def _settings(
    cls: type[Any], where: str, section: Mapping[str, Any], base: Any = None, loaded: Loaded | None = None
) -> Any:
    """Settings of a class, of the others' values in `base` or else their defaults."""
    try:
        attributes = {attribute.name: attribute for attribute in attrs.fields(attrs.resolve_types(cls))}
    except NameError as error:
        raise UsageError(
            f"{where}: an annotation of {cls.__name__} names '{error.name}', which its module has not when it runs: "
            f"import it outside `if TYPE_CHECKING:`"
        ) from None
    for key in section:
        if key not in attributes:
            hint = "" if loaded is None else setting_hint(where, key, loaded)
            raise UsageError(unknown(f"setting of {where}", key, attributes) + hint)
    values = {key: converted(attributes[key].type, f"{where}.{key}", value) for key, value in section.items()}
    for key, value in values.items():
        if base is not None and isinstance(value, dict):
            values[key] = deepened(getattr(base, key), value)
    given = {attributes[key].alias: value for key, value in values.items()}
    try:
        return cls(**given) if base is None else attrs.evolve(base, **given)
    except (ValueError, TypeError) as error:
        raise UsageError(worded(where, error)) from None
