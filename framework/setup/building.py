"""From a wired configuration to a run: every part is built, in one order, from seeds of its own."""

import functools
import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy
import torch
from attrs import evolve
from torch import nn

from .. import streams
from ..capabilities import HasClose, HasResolved, HasValues, has
from ..collecting.rollout import Collector
from ..config import Config
from ..contracts import Environment, Policy
from ..errors import UsageError, unknown, warn
from ..flat_parameters import FlatParameters
from ..guards.episode_limit import EpisodeLimit
from ..guards.process_state import restore_after, working
from ..guards.randomness import same_randomness
from ..guards.step_timeout import Limit
from ..hookspecs import GIVES, NEEDS, PROJECT, STAGES, RunHooks
from ..learning.updates import Updater
from ..parts import Loaded, Part
from ..places import own_line
from ..run import Run
from ..spaces import ATTRIBUTE
from ..tabular.shard import shard_of
from .optimizers import make_optimizer
from .plugin_hooks import names
from .suggestions import refuse_actions
from .wiring import needed, words

if TYPE_CHECKING:
    from ..stages import Core


class RunManager(pluggy.PluginManager):
    """pluggy, with observers called in the order in which extensions are named.

    pluggy calls the last registered first. For wrappers that makes the first-named extension the innermost, so that its
    change comes first, as wanted; for observers it would turn the order round.
    """

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """An implementation's options; observers become `trylast` unless they say otherwise."""
        options = super().parse_hookimpl_opts(plugin, name)
        if options is not None and not options.get("wrapper") and not options.get("tryfirst"):
            options["trylast"] = True
        return options


def build(config: Config, loaded: Loaded, stages: "Core", directory: Path | None = None) -> Run:
    """Make every part of a wired configuration; `stages` implements the core's stages.

    Raises:
        UsageError: a part cannot be built, or an extension does not keep to the rules of hooks.
    """
    with ExitStack() as opened, working(config.threads):  # closed where one of the following cannot be built
        run = _build_run(config, loaded, stages, directory, opened)
        run.resources = opened.pop_all()
    return run


def _build_run(config: Config, loaded: Loaded, stages: "Core", directory: Path | None, opened: ExitStack) -> Run:
    device = choose_device(config.device)
    count = config.rollout.shards
    shards = []
    for number in range(count):
        lanes = config.rollout.lanes // count
        streams.seed_global(device, streams.derived_seed(config.seed, "build environment"))
        environment = build_environment(config.environment, lanes, device)
        opened.callback(close, environment, config.environment.label)
        shards.append(
            _guarded(
                config.environment,
                functools.partial(
                    shard_of,
                    environment,
                    lanes=lanes,
                    steps=_share(config.rollout.steps, count, number),
                    episodes=_share(config.rollout.episodes, count, number),
                    fixed_steps=config.rollout.fixed_steps,
                    seed=config.seed,
                    number=number,
                    device=device,
                    labels=(config.environment.label, config.policy.label),
                    episode_limit=EpisodeLimit.of_rollouts(config.rollout.max_episode_steps, config.environment),
                ),
            )
        )
    config = resolved(config, shards[0].environment)
    spaces = shards[0].environment.observation_space, shards[0].environment.action_space
    refuse_actions(config.policy, spaces[1], loaded)
    policy = build_policy(config.policy, config.seed, spaces, device)
    streams.seed_global(device, streams.derived_seed(config.seed, "build parts"))
    working = build_learning_parts(config)
    parameters = FlatParameters.of(policy, config.optimizer.name)
    parameters.optimizer = make_optimizer(config, parameters.stepped)
    run = Run(
        config,
        loaded,
        directory,
        device,
        shards,
        policy,
        **working,
        parameters=parameters,
        optimizer=parameters.optimizer,
        stages=stages,
        manager=RunManager(PROJECT),
        collector=Collector(),
        updater=Updater(),
    )
    run.needs, run.loss_needs = needed(config), words(config.loss, "needs", NEEDS)
    run.labels = labels_of(config, working)
    run.labels |= {id(shard.environment): config.environment.label for shard in shards}
    run.labels[id(policy)] = config.policy.label
    if config.step_timeout is not None:
        limit = Limit(config.step_timeout, config.environment.label)
        opened.callback(limit.close)
        for shard in shards:
            shard.limit = limit

    run.manager.add_hookspecs(RunHooks)
    run.manager.register(stages, "core")
    for number, part in enumerate((*config.reports, *config.extensions)):  # reports first: their hooks are called first
        streams.seed_global(device, streams.derived_seed(config.seed, f"build {part.name}"))
        extension = _build(part, run)
        opened.callback(close, extension, part.label)
        for stage in _register(run.manager, part, extension):
            run.wrappers.setdefault(stage, []).append(part.label)
        run.extensions[part.name] = extension
        run.labels[id(extension)] = part.label
        if number < len(config.reports):
            run.reports.add(id(extension))
    if config.compile:
        from ..compile.rollouts import CompiledCollector
        from ..compile.updates import CompiledUpdater

        run.collector, run.updater = CompiledCollector(run), CompiledUpdater(run)
    return run


@contextmanager
def closed_on_error(run: Run) -> Iterator[None]:
    """Close a run that is built if it cannot be started."""
    try:
        yield
    except BaseException:
        run.close()
        raise


def resolved(config: Config, environment: Environment) -> Config:
    """With what the environment's "auto" came to, so that a repetition and an evaluation have the same world."""
    part = config.environment
    found = environment.resolved if has(environment, HasResolved) else {}
    changed = {name: value for name, value in found.items() if getattr(part.settings, name, value) != value}
    if not changed:
        return config
    return evolve(config, environment=evolve(part, settings=evolve(part.settings, **changed)))


def build_learning_parts(config: Config) -> dict[str, Any]:
    """The working estimator, baseline and loss, by role."""
    working = {role: _build(getattr(config, role)) for role in ("estimator", "baseline", "loss")}
    for role, part in working.items():
        if not callable(part):
            raise UsageError(f"{getattr(config, role).label}: is not callable, and has no build()")
    return working


def labels_of(config: Config, working: dict[str, Any]) -> dict[int, str]:
    """The label of each of these, and of its settings: id → label."""
    labels = {role: getattr(config, role).label for role in working}
    labels_by_id = {id(getattr(config, role).settings): label for role, label in labels.items()}
    return labels_by_id | {id(part): labels[role] for role, part in working.items()}


def build_environment(part: Part, lanes: int, device: torch.device) -> Any:
    """The working environment of a part."""
    environment = _build(part, lanes, device)
    try:
        _guarded(part, _check_protocol, part, environment, Environment)
    except BaseException:
        close(environment, part.label)
        raise
    return environment


def close(working: Any, label: str = "the environment") -> None:
    """Close an environment or extension, if it has close(); what that raises is a warning that names it."""
    try:
        if has(working, HasClose):
            working.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        warn(f"{label}: close() raised {type(error).__name__}: {error}")


def build_policy(part: Part, seed: int, spaces: tuple[Any, Any], device: torch.device) -> Any:
    """The policy, initialised from the run's seed; the global generators are left as they were."""
    with same_randomness():
        streams.seed_global(device, streams.derived_seed(seed, "policy"))
        policy = _build(part, *spaces)
    if not isinstance(policy, nn.Module):
        raise UsageError(f"{part.label}: build must return an nn.Module, got {type(policy).__name__}")
    _check_protocol(part, policy, Policy)
    if "values" in words(part, "gives", GIVES) and not has(policy, HasValues):
        raise UsageError(f"{part.label}: gives values, and what build() returned has no method values(inputs)")
    policy = policy.to(device)
    setattr(policy, ATTRIBUTE, spaces)  # so that another world's environment is refused
    return policy


def choose_device(name: str) -> torch.device:
    """The device of that name; `UsageError` where this machine or torch has none."""
    try:
        made = torch.zeros((), device=name)
        made.item()  # which the device meta, where nothing is computed, refuses
        return made.device
    except Exception as error:  # of all kinds: some backends are packages that are not installed
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UsageError(f"device '{name}' cannot be used: {reason or type(error).__name__}") from None


def _share(total: int | None, count: int, number: int) -> int | None:
    """A shard's share of a total: the first ones take one more where it does not divide."""
    return None if total is None else total // count + (number < total % count)


def _build(part: Part, *arguments: Any) -> Any:
    build = getattr(part.settings, "build", None)
    if build is None:
        if arguments:
            raise UsageError(f"{part.label}: its settings have no build() method")
        return part.settings
    return _guarded(part, build, *arguments)


def _guarded(part: Part, build: Any, *arguments: Any) -> Any:
    """Call what runs a part's code while it is built; an error is the part's."""
    try:
        return build(*arguments)
    except (UsageError, KeyboardInterrupt):
        raise
    except BaseException as error:  # an exit, or a panic of a library in Rust, too
        place = own_line(error, or_else=False)
        where = f" ({place})" if place else ""
        raise UsageError(f"{part.label} cannot be built: {type(error).__name__}: {error}{where}") from error
    finally:
        restore_after(lambda: f"{part.label}: build")


def _check_protocol(part: Part, made: Any, protocol: type) -> None:
    wanted = [name for name in dir(protocol) if not name.startswith("_")]
    wanted += [name for name in inspect.get_annotations(protocol) if not name.startswith("_")]
    missing = [name for name in dict.fromkeys(wanted) if not hasattr(made, name)]
    if missing:
        raise UsageError(f"{part.label}: what build() returned has no {', '.join(missing)}")


def _register(manager: pluggy.PluginManager, part: Part, extension: Any) -> list[str]:
    """Check an extension's hooks and add it; returns the stages that it wraps."""
    marked = {
        name: options
        for name in dir(type(extension))
        if (options := getattr(getattr(type(extension), name, None), f"{PROJECT}_impl", None)) is not None
    }
    known = names(RunHooks)
    if not marked:
        raise UsageError(f"{part.label}: implements no hook; is @hookimpl missing?")
    for name, options in marked.items():
        if name not in known and not options.get("optionalhook"):
            raise UsageError(f"{part.label}: {unknown('hook', name, known).replace('no hook', 'unknown hook', 1)}")
        if name in known and name not in STAGES and (options.get("wrapper") or options.get("hookwrapper")):
            raise UsageError(f"{part.label}: {name} is no stage, so there is nothing to wrap: implement it plainly")
        if name in STAGES and not options.get("wrapper"):
            raise UsageError(
                f"{part.label}: {name} is a stage and would be replaced: wrap it, with @hookimpl(wrapper=True)"
            )
    try:
        manager.register(extension, f"{part.plugin}:{part.name}")
    except pluggy.PluginValidationError as error:
        raise UsageError(f"{part.label}: {' '.join(str(error).split())}") from error
    return [name for name in marked if name in STAGES]
