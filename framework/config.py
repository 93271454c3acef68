"""What a run is: one tree of settings, written as TOML, given by flags, or built from Python.

Layers are merged as plain dicts (`merge`), and become settings once (`configure`), so that a wrong key or value
gets the same words from wherever it came. `to_tree` writes a configuration back, complete.
"""

import inspect
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import cattrs
import torch
from attrs import field, frozen, validators

from .errors import UsageError, unknown
from .plugins import Loaded, Part, Plugin

Tree = dict[str, Any]

COLLECT = ("steps", "episodes", "fixed_steps")


@frozen
class RolloutSettings:
    """How much is collected each iteration. Give one of steps, episodes and fixed_steps; without any: 128 steps."""

    lanes: int = field(default=8, validator=validators.ge(1))  # environments stepped together
    steps: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """whole episodes of at least so many steps in all: a lane begins another one only while fewer were taken"""
    episodes: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """whole episodes, exactly so many: all that were begun are finished"""
    fixed_steps: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """so many steps of every lane; episodes are carried over to the next iteration"""
    shards: int = field(default=1, validator=validators.ge(1))  # equal groups of lanes with randomness of their own

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
class UpdateSettings:
    """How the parameters are moved once a rollout is there."""

    epochs: int = field(default=1, validator=validators.ge(1))  # passes over each rollout
    minibatches: int = field(default=1, validator=validators.ge(1))  # optimizer steps a pass
    denominator: Literal["per_step", "per_episode", "constant"] = field(
        default="per_step", validator=validators.in_(("per_step", "per_episode", "constant"))
    )
    """what the summed loss is divided by: steps, episodes, or the number `constant`"""
    constant: float = field(default=1.0, validator=validators.gt(0))  # the divisor where denominator is constant
    max_grad_norm: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    """gradients of a larger 2-norm are scaled down to it; None: never"""


@frozen
class OptimizerSettings:
    """Which optimizer of torch.optim, and how."""

    name: str = field(default="Adam")  # a class of torch.optim
    lr: float = field(default=1e-3, validator=[validators.ge(0), validators.lt(math.inf)])  # learning rate
    schedule: Literal["constant", "linear", "cosine"] = field(
        default="constant", validator=validators.in_(("constant", "linear", "cosine"))
    )
    """how the learning rate falls from `lr` over the iterations"""
    final: float = field(default=0.0, validator=[validators.ge(0), validators.le(1)])
    """the fraction of `lr` that linear and cosine reach when the last iteration ends"""
    options: dict[str, float] = field(factory=dict)  # further arguments of that class: eps, weight_decay, momentum …

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
    iterations: int = field(
        default=100, validator=[validators.instance_of(int), validators.ge(1)]
    )  # rollouts, each followed by its updates
    seed: int = field(default=0, validator=[validators.instance_of(int), validators.ge(0)])  # of all randomness
    device: str = "cpu"  # where policy and rollouts live: cpu, cuda, mps …
    threads: int = field(default=1, validator=validators.ge(1))  # of torch; small networks are fastest on one
    compile: bool = field(
        default=False, validator=validators.instance_of(bool)
    )  # C++ of the updates, made at the start
    trace_gradients: bool = field(
        default=False, validator=validators.instance_of(bool)
    )  # in every update, which term of the loss reached what, as metrics

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


PART_ROLES = ("environment", "policy", "estimator", "baseline", "loss")
SECTIONS = {"rollout": RolloutSettings, "update": UpdateSettings, "optimizer": OptimizerSettings}
SCALARS = {"iterations": int, "seed": int, "device": str, "threads": int, "compile": bool, "trace_gradients": bool}

DEFAULTS: Tree = {
    "environment": {"name": "line_world"},
    "policy": {"name": "categorical"},
    "estimator": {"name": "rewards_to_go"},
    "baseline": {"name": "none"},
    "loss": {"name": "reinforce"},
    "extensions": {"names": []},
    "reports": ["progress", "record", "plot"],
}
"""The notebook's job, as names of parts; their own defaults are the notebook's numbers."""


def read_toml(path: Path) -> Tree:
    """A TOML file's tree; `UsageError` names the file, and the line where it is malformed."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise UsageError(f"no configuration file {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def plugin_list(value: Any, origin: str) -> tuple[str, ...]:
    """What a file's `plugins` asks for; `UsageError` where it is no list of strings."""
    try:
        return tuple(_value(tuple[str, ...], "plugins", value))
    except UsageError as error:
        raise UsageError(f"{origin}: {error}") from None


def merge(*layers: Mapping[str, Any]) -> Tree:
    """Later layers win, key by key; one that names a different part drops the lower layers' settings of that role.

    >>> merge({"estimator": {"name": "gae", "lam": 0.9}}, {"estimator": {"name": "rewards_to_go"}})
    {'estimator': {'name': 'rewards_to_go'}}
    """
    merged: Tree = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            if not isinstance(value, Mapping):
                merged[key] = value
                continue
            below = dict(below) if isinstance(below, Mapping) else {}
            if key in PART_ROLES and value.get("name", below.get("name")) != below.get("name"):
                below = {}
            if key == "rollout" and any(name in value for name in COLLECT):
                below = {name: number for name, number in below.items() if name not in COLLECT}
            merged[key] = {**below, **value} if key != "extensions" else merge(below, value)
        _drop_left_out(merged, layer)
    return merged


def _drop_left_out(merged: Tree, layer: Mapping[str, Any]) -> None:
    """Where a layer names other extensions or reports, the lower layers' settings of those left out go, too."""
    section = merged.get("extensions")
    mine = layer.get("extensions", {})
    if not isinstance(section, Mapping) or not isinstance(mine, Mapping) or not ("reports" in layer or "names" in mine):
        return
    chosen = [*_listed(section.get("names")), *_listed(merged.get("reports"))]
    merged["extensions"] = {key: told for key, told in section.items() if key in ("names", *chosen, *mine)}


def _listed(names: Any) -> Sequence[str]:
    return names if isinstance(names, list | tuple) else ()


def pick(loaded: Loaded, role: str, tree: Mapping[str, Any]) -> Part:
    """The part that a merged tree names for one of the five roles, with its settings."""
    return _part(loaded, role, role, _section(tree, role))


def configure(loaded: Loaded, tree: Mapping[str, Any], origin: str = "") -> Config:
    """Pick the parts that a merged tree names and make all settings. `UsageError` says which key is wrong."""
    known = (*PART_ROLES, *SECTIONS, *SCALARS, "extensions", "reports")
    try:
        for key in tree:
            if key not in known:
                raise UsageError(unknown("section or key", key, known))
        values: dict[str, Any] = {role: pick(loaded, role, tree) for role in PART_ROLES}
        values |= {key: _settings(cls, key, _section(tree, key)) for key, cls in SECTIONS.items() if key in tree}
        values |= {key: _value(cls, key, tree[key]) for key, cls in SCALARS.items() if key in tree}
        section = dict(_section(tree, "extensions"))
        names = _value(tuple[str, ...], "extensions.names", section.pop("names", ()))
        reports = _value(tuple[str, ...], "reports", tree.get("reports", ()))
        for key in section:
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


def used(config: Config, loaded: Loaded) -> list[Plugin]:
    """The plugins whose parts a configuration names: what it takes to run it again."""
    owners = {part.plugin for part in config.parts}
    return [plugin for plugin in loaded.plugins if plugin.name in owners]


def to_tree(config: Config, loaded: Loaded) -> Tree:
    """The complete tree of a configuration: what `configure` takes back, and what config.toml holds."""

    def name_of(part: Part) -> str:
        return loaded.short_name(part.role, part.name, part.plugin)

    tree: Tree = {key: getattr(config, key) for key in SCALARS}
    tree["plugins"] = [plugin.source for plugin in used(config, loaded)]
    tree["reports"] = [name_of(part) for part in config.reports]
    for role in PART_ROLES:
        part = getattr(config, role)
        tree[role] = {"name": name_of(part), **settings_tree(part.settings)}
    tree |= {key: settings_tree(getattr(config, key)) for key in SECTIONS}
    tree["extensions"] = {"names": [name_of(part) for part in config.extensions]}
    for part in (*config.extensions, *config.reports):
        settings = settings_tree(part.settings)
        if settings:
            tree["extensions"][name_of(part)] = settings
    return tree


def settings_tree(settings: Any) -> Tree:
    """A settings object as a tree. TOML has no null: None is left out where it is the default, else written "None"."""
    tree: Tree = {}
    for attribute in attrs.fields(type(settings)):
        value = getattr(settings, attribute.name)
        if value is None:
            if attribute.default is None:
                continue
            value = "None"
        tree[attribute.name] = _CONVERTER.unstructure(value)
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
        raise UsageError(f"{within}{key} must be a table, [{within}{key}], got {section!r}")
    return section


def _part(loaded: Loaded, role: str, where: str, section: Mapping[str, Any]) -> Part:
    name = _value(str, f"{where}.name", section.get("name"))
    plugin, name, cls = loaded.pick(role, name)
    settings = {key: value for key, value in section.items() if key != "name"}
    return Part(role, name, plugin, _settings(cls, where, settings))


def _settings(cls: type[Any], where: str, section: Mapping[str, Any]) -> Any:
    try:
        attributes = {attribute.name: attribute for attribute in attrs.fields(attrs.resolve_types(cls))}
    except NameError as error:
        raise UsageError(
            f"{where}: an annotation of {cls.__name__} names '{error.name}', which its module has not when it runs: "
            f"import it outside `if TYPE_CHECKING:`"
        ) from None
    for key in section:
        if key not in attributes:
            raise UsageError(unknown(f"setting of {where}", key, attributes))
    values = {key: _value(attributes[key].type, f"{where}.{key}", value) for key, value in section.items()}
    try:
        return cls(**{attributes[key].alias: value for key, value in values.items()})
    except (ValueError, TypeError) as error:
        raise UsageError(worded(where, error)) from None


def _value(kind: Any, where: str, value: Any) -> Any:
    try:
        return _CONVERTER.structure(value, kind)
    except Exception:
        raise UsageError(f"{where} must be {_in_words(kind)}: {value!r}") from None


def _in_words(kind: Any) -> str:
    """A type, as an error calls it."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(kind) is tuple:
        return f"a list of {_in_words(arguments[0])}" if Ellipsis in arguments else f"a list of {len(arguments)}"
    if typing.get_origin(kind) is dict:
        return f"a table of {_in_words(arguments[1])}"
    if _is_optional(kind):
        return " or ".join(_in_words(argument) for argument in arguments if argument is not type(None)) + ' or "None"'
    if _is_scalars(kind):
        return " or ".join(_in_words(argument) for argument in arguments)
    return kind.__name__ if isinstance(kind, type) else str(kind)


def worded(where: str, error: Exception) -> str:
    """`'gamma' must be <= 1.0: 1.5` → `estimator.gamma must be <= 1.0: 1.5`."""
    text = str(error.args[0]) if error.args else str(error)
    dotted = f"{where}." if where else ""
    changed = re.sub(r"^'(\w+)'", rf"{dotted}\1", text)
    return changed if changed != text or not where else f"{where}: {text}"


def _strict(*accepted: type) -> Any:
    def structure(value: Any, kind: type) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise ValueError(value)
        return kind(value)

    return structure


def _optional(kind: Any) -> Any:
    (inner,) = [argument for argument in typing.get_args(kind) if argument is not type(None)]
    return lambda value, _: None if value is None or value == "None" else _CONVERTER.structure(value, inner)


def _is_optional(kind: Any) -> bool:
    return (
        typing.get_origin(kind) in (typing.Union, types.UnionType)
        and type(None) in typing.get_args(kind)
        and len(typing.get_args(kind)) == 2
    )


def _is_scalars(kind: Any) -> bool:
    """Whether a type is a union of plain ones, such as `int | str`."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return union and set(typing.get_args(kind)) <= {bool, int, float, str}


def _scalar(value: Any, kind: Any) -> Any:
    if type(value) not in typing.get_args(kind):
        raise ValueError(value)
    return value


def _list(value: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(value)
    arguments = typing.get_args(kind)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_CONVERTER.structure(item, arguments[0]) for item in value)
    if len(arguments) != len(value):
        raise ValueError(value)
    return tuple(_CONVERTER.structure(item, kind) for item, kind in zip(value, arguments, strict=True))


# cattrs alone would turn 1.5 into the integer 1 and "False" into True.
_CONVERTER = cattrs.Converter()
_CONVERTER.register_structure_hook(int, _strict(int))
_CONVERTER.register_structure_hook(float, _strict(int, float))
_CONVERTER.register_structure_hook(bool, _strict(bool))
_CONVERTER.register_structure_hook(str, _strict(str))
_CONVERTER.register_structure_hook_func(lambda kind: getattr(kind, "__origin__", None) is tuple, _list)
_CONVERTER.register_structure_hook_factory(_is_optional, _optional)
_CONVERTER.register_structure_hook_func(_is_scalars, _scalar)
