"""From Python: train with parts as objects, get a recorded policy back, and evaluate one."""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import attrs

from .config import DEFAULTS, MOST_THREADS, PART_ROLES, OptimizerSettings, RolloutSettings, UpdateSettings
from .errors import PartError, UsageError
from .evaluation import Performance, play
from .guards.blame import meant_for_caller, part_that_raised
from .guards.episode_limit import MOST, EpisodeLimit
from .guards.process_state import alone, working
from .hookspecs import NEEDS
from .kinds import checked, converted, shown
from .parts import Loaded, Part
from .records.reading import Recorded, read_record
from .records.record import create_run_directory, policy_file, read_policy, read_spaces
from .records.trust import foreign_imports, foreign_plugins, named_beside, refuse
from .result import Result, policy_of
from .run import Run
from .setup.building import build, build_environment, build_policy, choose_device, close, closed_on_error
from .setup.loading import load as load_plugins
from .setup.resolving import recipe_of, resolve_arguments
from .setup.tree import pick, plugin_list, to_tree
from .setup.wiring import words
from .stages import Core
from .training import execute

TRUSTING = "framework.load(…, trust=True)"


@alone()
def train(
    *,
    environment: Any = None,
    policy: Any = None,
    estimator: Any = None,
    baseline: Any = None,
    loss: Any = None,
    extensions: Any = None,
    recipe: str | None = None,
    rollout: RolloutSettings | Mapping[str, Any] | None = None,
    update: UpdateSettings | Mapping[str, Any] | None = None,
    optimizer: OptimizerSettings | Mapping[str, Any] | None = None,
    iterations: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    device: Any = None,
    threads: int | None = None,
    compile: bool | None = None,
    trace_gradients: bool | None = None,
    step_timeout: float | None = None,
    directory: str | Path | None = None,
    plugins: str | Sequence[str] = (),
    **flags: Any,
) -> Result:
    """Train a policy. What is left out is the recipe's, or else the default (REINFORCE on the line world).

    A part is a name (`policy="recurrent"`), a dict (`policy={"shared": True}`, of the recipe's part if it has no
    "name"), or a settings object, of an installed plugin or of your own class. A section is a dict or a settings
    object. All of them win over the recipe in what they give, and in nothing else.

    The run works in a process state of its own (torch's default dtype, device, modes, threads and global generators),
    whatever the caller's is, and puts the caller's back. Runs in several threads of one process work one after the
    other; one that an extension starts within a run works at once. To run several at once, use processes.

    Args:
        environment, policy, estimator, baseline, loss: the five parts.
        extensions: names and settings objects, added to the recipe's; or a dict, in which `name=False` takes one out.
        recipe: a named configuration to start from.
        rollout, update, optimizer: size of the rollouts, number of updates, and the optimizer.
        iterations: number of iterations, each a rollout and its updates; 100 if `steps` is not given either.
        steps: number of environment steps; the run ends after the iteration that reaches it.
        seed: seed of all random numbers; 0.
        device: torch device of policy and rollouts; cpu.
        threads: number of threads of torch and of numpy's linear algebra during the run; 1.
        compile: compile updates and rollouts to C++, where that is possible; False.
        trace_gradients: measure in every update which term of the loss reaches which parameters; False.
        step_timeout: longest time in seconds of a reset or step of the environment; None: no limit.
        directory: where to record the run (a folder that does not exist yet); None: nowhere.
        plugins: module paths and files (FILE.py) to load besides the installed plugins; their parts win over others of
            the same name.
        flags: single settings by their dotted names: `update__epochs=10`, or `**{"update.epochs": 10}`.

    Returns:
        The trained policy, the metrics as arrays, and where the record lies.

    Raises:
        UsageError: a setting or combination that cannot be run.
        PartError: a part raised, or broke its contract.
        Exception: an extension raised one of a class that is not Python's, torch's or numpy's, such as a tuner's to
            prune a trial: it reaches the caller as it is, after the record was finished as that of a failed run.

    >>> import framework
    >>> framework.train(iterations=2, seed=1)
    <Result: 2 iterations, mean return ..., record: none>
    >>> framework.train(recipe="ppo", environment="cartpole", update={"epochs": 2}, steps=1024).metrics["updates"]
    array([8.])
    """
    loaded = load_plugins((plugins,) if isinstance(plugins, str) else plugin_list(plugins, "train"), rest=True)
    reports = {"reports": [] if directory is None else ["record", "plot"]}
    arguments: dict[str, Any] = dict(zip(PART_ROLES, (environment, policy, estimator, baseline, loss), strict=True))
    arguments |= {"extensions": extensions, "rollout": rollout, "update": update, "optimizer": optimizer}
    arguments |= {"iterations": iterations, "steps": steps, "seed": seed, "threads": threads, "compile": compile}
    arguments |= {"device": None if device is None else str(device), "trace_gradients": trace_gradients}
    arguments |= {"step_timeout": step_timeout}
    below = (DEFAULTS, recipe_of(loaded, recipe), reports)
    config, kept = resolve_arguments(loaded, below, arguments, flags)
    if kept:
        warnings.warn(
            f"recipe '{recipe}' sets {', '.join(kept)}, and the object given leaves that at its default: the recipe's "
            f"is kept. A dict is unambiguous, such as {kept[0].partition('.')[0]}={{…}}",
            stacklevel=3,  # of whom called: `alone` is a frame between
        )
    if directory is not None:
        _path("directory", directory)
        to_tree(config, loaded)  # a value that no file can hold is refused before there is a folder
    run = build(config, loaded, Core())
    with closed_on_error(run):
        if directory is None:
            for part in (*config.extensions, *config.reports):
                if "directory" in words(part, "needs", NEEDS):
                    raise UsageError(f"{part.label} needs a directory: pass directory=")
        else:
            run.directory = create_run_directory(_path("directory", directory)).absolute()
    result = _execute(run)
    return result if directory is None else attrs.evolve(result, directory=Path(directory))  # as it was given


@working(1)
def load(run: str | Path, device: str = "cpu", best: bool = False, last: bool = False, trust: bool = False) -> Any:
    """The trained policy of a recorded run: an `nn.Module`, ready to `act` and `evaluate`.

    Args:
        run: the record's folder.
        device: where the policy shall live.
        best: that of the best evaluation (the extension `evaluate` keeps it), not that of the end.
        last: that of a run that failed, as it was before; of one that did not fail, that of the end.
        trust: import code that only the record names (plugins by file or module, an environment's module): needed for
            a record that is not your own.

    Raises:
        UsageError: there is no such record, a plugin is missing, or the run failed and `last` is not given; the record
            is incomplete; the parameters are not finite, or not the policy's; the record names code and `trust` is not
            given.
    """
    directory, where = _path("run", run), choose_device(str(device))
    record, spaces = read_record(directory), read_spaces(directory)
    part, loaded = None, load_plugins()
    if spaces is not None:  # else a record of an older version, or of spaces that the file cannot hold
        part = _installed_policy(loaded, record)
    if part is None:
        if not trust and (plugins := foreign_plugins(record)):
            refuse(record, plugins, named_beside(record), TRUSTING)
        loaded = load_plugins(record.plugins, rest=True)
    record.refuse_incomplete(loaded, ("policy", "seed"))
    part = pick(loaded, "policy", record.tree) if part is None else part
    built = [part] if spaces is not None else [part, pick(loaded, "environment", record.tree)]
    if not trust and (modules := foreign_imports(built, [record])):
        refuse(record, [], modules, TRUSTING)
    if spaces is not None:
        record.warn_of_differences(loaded, [part], files=False)
    else:
        world = built[1]
        record.refuse_incomplete(loaded, ("environment",))
        record.warn_of_differences(loaded, [part, world])
        environment = build_environment(world, 1, where)
        spaces = environment.observation_space, environment.action_space
        close(environment, world.label)
    policy = build_policy(part, record.tree.get("seed", 0), spaces, where)
    read_policy(directory, policy, policy_file(best, last, directory))
    return policy.eval()


@alone()
def evaluate(
    policy: Any,
    environment: Any,
    *,
    episodes: int = 100,
    lanes: int = 16,
    greedy: bool = False,
    seed: int = 0,
    device: str = "cpu",
    max_episode_steps: int = MOST,
    threads: int = 1,
) -> Performance:
    """Let a policy play whole episodes in a fresh environment: returns, lengths, and statistics of the returns.

    Args:
        policy: as `load` gives it, or what `train` returned.
        environment: a name, a dict with its name and settings, or a settings object.
        episodes: number of whole episodes.
        lanes: how many are played at once.
        greedy: take the most probable action instead of a sampled one.
        seed: seed of all random numbers, which are never those of a training run.
        device: where the policy lives.
        max_episode_steps: an episode that does not end by then is an error.
        threads: of torch and of numpy's linear algebra, meanwhile.

    Raises:
        UsageError: `policy` is no policy, or one of another world; settings that cannot be used; `greedy` for a
            policy that has no `greedy()`.
        PartError: a part broke its contract.

    >>> import framework
    >>> from framework_parts import LineWorld
    >>> framework.evaluate(framework.train(iterations=2).policy, LineWorld(), episodes=5).returns.shape
    (5,)
    """
    policy = policy_of(policy)
    part, where = _environment(load_plugins(), environment), choose_device(str(device))
    episodes, lanes = converted(int, "episodes", episodes), converted(int, "lanes", lanes)
    seed, threads = converted(int, "seed", seed), converted(int, "threads", threads)
    max_episode_steps = converted(int, "max_episode_steps", max_episode_steps)
    greedy = converted(bool, "greedy", greedy)
    for name, number in (("lanes", lanes), ("max_episode_steps", max_episode_steps)):
        if number < 1:
            raise UsageError(f"{name} must be >= 1: {number}")
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads must be 1 to {MOST_THREADS}: {threads}")
    lanes = max(1, min(lanes, episodes))  # more would play nothing
    labels = part.label, f"policy '{type(policy).__name__}'"
    with working(threads):
        lanes_of_its_own = build_environment(part, lanes, where)
        try:
            played = (policy, lanes_of_its_own, lanes, episodes)
            return play(
                *played,
                seed=seed,
                greedy=greedy,
                device=where,
                labels=labels,
                episode_limit=EpisodeLimit(max_episode_steps),
            )
        except BaseException as error:  # an exit, or a panic: it is to be seen, and not to end the program
            if isinstance(error, Exception | KeyboardInterrupt):
                raise
            owners = {id(lanes_of_its_own): labels[0], id(policy): labels[1]}
            label, _ = part_that_raised(error.__traceback__, owners, {}, {}) or (" or ".join(labels), "")
            raise PartError(f"{label} raised {type(error).__name__}: {error}") from error
        finally:
            close(lanes_of_its_own, part.label)


def _execute(run: Run) -> Result:
    """Train; what an extension raises on purpose, to end the run from outside, reaches the caller as it is."""
    try:
        return execute(run)
    except PartError as error:
        ended = meant_for_caller(error)
        if ended is None:
            raise
    raise ended


def _installed_policy(loaded: Loaded, record: Recorded) -> Part | None:
    """The policy's part, where an installed plugin offers it that the record names; its others need not be here."""
    try:
        part = pick(loaded, "policy", record.tree)
    except UsageError:
        return None
    return part if part.plugin in record.plugins else None


def _path(name: str, given: Any) -> Path:
    if not isinstance(given, str | PathLike):
        raise UsageError(f"{name} must be a folder's path, got {shown(given)}")
    return Path(given)


def _environment(loaded: Loaded, given: Any) -> Part:
    if isinstance(given, str | Mapping):
        return pick(loaded, "environment", {"environment": {"name": given} if isinstance(given, str) else given})
    part = loaded.part_of("environment", given)
    return attrs.evolve(part, settings=checked("environment", part.settings))
