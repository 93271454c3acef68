"""What the framework itself costs: the share of a run that is no part's work and no arithmetic of learning.

    python benchmarks/overhead.py [--rounds 5] [--write] [--only shares growth plugins observers look] [--lanes 1 8]

Whatever a part does (environment, policy, estimator, baseline, loss, extensions that are no reports), the division and
sum of the loss, backward, clipping and the optimizer's step are wrapped from outside by timers that count a time once,
as the innermost's. All the rest is the framework's, reports included. Worlds of tables are sampled by the core
(framework/tabular/sampling.py): that is the environment's and the policy's work, and counted as such, `walk`.

The timers' own cost is measured and subtracted; each run is also made without timers, in turn, so that their
disturbance is known. Times are the thread's processor time, so that other work on the machine does not count; one
thread.

    shares      CartPole with PPO (128 steps a lane, 4 epochs of 4 minibatches) and the default run, 1 to 4096 lanes
    growth      CartPole with PPO at 8 lanes, 32 to 512 steps a lane
    plugins     0, 10 and 100 more distributions, each with a plugin of two parts: start-up, and the default run
    observers   0, 1, 10 and 100 extensions that wrap every stage and implement every other run hook: the default run
    look        the first update's look at which term of the loss reaches which parameters
                (framework/guards/gradient_flow.py), once a run: its share of the default run of 100 iterations, and
                of CartPole's with PPO of 20

`--write` puts medians and ranges over the rounds into benchmarks/results/overhead.json.
"""

import argparse
import contextlib
import functools
import importlib
import inspect
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from common import spread, write
from startup import Process, header, rows, show

from framework import hookimpl
from framework.cli.run import keep_memory
from framework.config import DEFAULTS
from framework.hookspecs import STAGES, RunHooks
from framework.learning import updates
from framework.parts import Part
from framework.run import Run
from framework.setup.building import build
from framework.setup.layers import merge
from framework.setup.loading import load
from framework.setup.plugin_hooks import names
from framework.setup.tree import configure
from framework.setup.wiring import wire
from framework.stages import Core
from framework.training import execute

LANES = (1, 8, 64, 512, 4096)
STEPS = (32, 128, 512)
PLUGINS = (0, 10, 100)
OBSERVERS = (0, 1, 10, 100)
LOOKS = (100, 20)  # iterations of the default run and of CartPole's that the first update's look is a share of
WARM = 2  # iterations before the clock starts
clock = time.thread_time


WALK, LEARNING, REPORTS = "walk", "loss, backward, clipping, optimizer", "reports"
PARTS = ("environment", "policy", WALK, "estimator and baseline", "extensions", LEARNING)
FUNCTIONS = {  # where a function is looked up: what its time is; one that is not there is passed over
    ("framework.tabular.shard", "sample"): WALK,
    ("framework.learning.updates", "divided"): LEARNING,
    ("framework.learning.updates", "backward"): LEARNING,
    ("torch.Tensor", "backward"): LEARNING,
    ("torch.autograd", "grad"): LEARNING,
    ("torch.nn.utils", "clip_grad_norm_"): LEARNING,
    ("framework.flat_parameters.FlatParameters", "zero"): LEARNING,
    ("framework.flat_parameters.FlatParameters", "clip"): LEARNING,
    ("framework.training", "flatten"): "flatten",
    ("framework.learning.updates", "minibatches"): "minibatches",
    ("framework.streams", "generator"): "seeding",
    ("framework.streams", "seed_global"): "seeding",
    ("framework.training", "measure"): "measure",
    ("framework.collecting.shard.Shard", "collect"): "collect: loop and recording",
    ("framework.tabular.shard.TabularShard", "collect"): "collect: loop and recording",
}
FRAMEWORK = (*(set(FUNCTIONS.values()) - set(PARTS)), *(f"stage {name}" for name in STAGES), REPORTS, "loop and pluggy")


class Timers:
    """Time by key; where timers are nested, each counts what the inner ones do not."""

    def __init__(self) -> None:
        self.stack = ["loop and pluggy"]
        self.last = clock()
        self.calibrated = (0.0, 0.0)  # seconds that a pair of stamps adds to its own key and to the one around it
        self.clear()
        pairs = 20_000
        timed = self.timed("inner", lambda: None)
        for _ in range(pairs):
            timed()
        began = clock()
        for _ in range(pairs):
            timed()
        outer = clock() - began
        self.calibrated = (self.time["inner"] / 2 / pairs, (outer - self.time["inner"] / 2) / pairs)
        self.clear()

    def clear(self) -> None:
        self.time: dict[str, float] = defaultdict(float)
        self.pairs: dict[tuple[str, str], int] = defaultdict(int)
        self.last = clock()

    def enter(self, key: str) -> None:
        now = clock()
        around = self.stack[-1]
        self.time[around] += now - self.last
        self.pairs[around, key] += 1
        self.stack.append(key)
        self.last = clock()

    def leave(self) -> None:
        now = clock()
        self.time[self.stack.pop()] += now - self.last
        self.last = now

    def timed(self, key: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timing(*arguments: Any, **keywords: Any) -> Any:
            self.enter(key)
            try:
                return function(*arguments, **keywords)
            finally:
                self.leave()

        return timing

    def timed_generator(self, key: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a function that yields one thing after the other."""

        @functools.wraps(function)
        def timing(*arguments: Any) -> Any:
            going, end = iter(function(*arguments)), object()
            following = self.timed(key, next)
            while (item := following(going, end)) is not end:
                yield item

        return timing

    def timed_wrapper(self, key: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a hook's wrapper, which yields in its middle."""

        @functools.wraps(function)
        def timing(*arguments: Any) -> Any:
            self.enter(key)
            going = function(*arguments)
            next(going)
            self.leave()
            result = yield
            self.enter(key)
            try:
                going.send(result)
            except StopIteration as stop:
                return stop.value
            finally:
                self.leave()

        return timing

    def read(self) -> dict[str, float]:
        """Seconds by key since `clear`, without the timers' own."""
        now = clock()
        self.time[self.stack[-1]] += now - self.last
        self.last = now
        times = dict(self.time)
        inner, outer = self.calibrated
        for (around, key), count in self.pairs.items():
            times[around] = times.get(around, 0.0) - count * outer
            times[key] = times.get(key, 0.0) - count * inner
        return times


class Timed:
    """A part whose call and methods are timed."""

    def __init__(self, timers: Timers, key: str, part: Any) -> None:
        self.__dict__.update(_timers=timers, _key=key, _part=part)

    def __call__(self, *arguments: Any) -> Any:
        self._timers.enter(self._key)
        try:
            return self._part(*arguments)
        finally:
            self._timers.leave()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if callable(found):
            found = self.__dict__[name] = self._timers.timed(self._key, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._part, name, value)


@contextlib.contextmanager
def watched(run: Run, timers: Timers) -> Iterator[None]:
    """Put timers around all that a run calls."""
    for shard in run.shards:
        shard.environment = Timed(timers, "environment", shard.environment)
    # a policy whose `act` was exchanged gives no actor
    acts = ["act"] if not hasattr(run.policy, "actor") or run.policy.actor() is None else []
    for name in (*acts, "evaluate", "values", "observe", "environment_actions"):
        if hasattr(run.policy, name):
            setattr(run.policy, name, timers.timed("policy", getattr(run.policy, name)))
    if hasattr(run.policy, "actor"):
        actor = timers.timed("policy", run.policy.actor)

        def timed_actor() -> Any:
            made = actor()
            return None if made is None else Timed(timers, "policy", made)

        run.policy.actor = timed_actor
    for role, key in (("estimator", PARTS[3]), ("baseline", PARTS[3]), ("loss", LEARNING)):
        setattr(run, role, Timed(timers, key, getattr(run, role)))
    run.optimizer.step = timers.timed(LEARNING, run.optimizer.step)
    for name in STAGES:  # those that no extension wraps are called here
        setattr(run.stages, name, timers.timed(f"stage {name}", getattr(run.stages, name)))
    reports = [run.extensions[part.name] for part in run.config.reports]
    for name in names(RunHooks):
        for implementation in getattr(run.hook, name).get_hookimpls():
            owner = implementation.plugin
            key = REPORTS if owner in reports else "extensions" if owner in run.extensions.values() else f"stage {name}"
            timed = timers.timed_wrapper if implementation.wrapper else timers.timed
            implementation.function = timed(key, implementation.function)
    real = []
    for (place, name), key in FUNCTIONS.items():
        owner = _found(place)
        if hasattr(owner, name):
            real.append((owner, name, getattr(owner, name)))
            timed = timers.timed_generator if inspect.isgeneratorfunction(getattr(owner, name)) else timers.timed
            setattr(owner, name, timed(key, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in real:
            setattr(owner, name, function)


def _found(place: str) -> Any:
    """A module, or a class in one."""
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, name = place.rpartition(".")
        return getattr(importlib.import_module(module), name, None)


class Clock:
    """Starts when the run is warm, stops with its last iteration."""

    def __init__(self, iterations: int, timers: Timers | None = None) -> None:
        self.iterations, self.timers, self.seconds = iterations, timers, 0.0
        self.times: dict[str, float] = {}

    @hookimpl
    def iteration_finished(self, run: Run) -> None:
        if run.iteration + 1 == WARM:
            self.seconds = -clock()
            if self.timers is not None:
                self.timers.clear()
        elif run.iteration + 1 == self.iterations:
            self.seconds += clock()
            if self.timers is not None:
                self.times = self.timers.read()


@attrs.frozen
class Watch:
    """An extension that wraps every stage and implements every other run hook."""

    def build(self, run: Run) -> Any:
        return Watching()


class Watching:
    def observe(self) -> None:
        pass

    def wrap(self) -> Any:
        return (yield)


for _name in names(RunHooks):
    _wraps = _name in STAGES
    # a function of its own for each hook, since the marker is an attribute
    _copy = type(Watching.wrap)((Watching.wrap if _wraps else Watching.observe).__code__, globals(), _name)
    setattr(Watching, _name, hookimpl(wrapper=_wraps)(_copy))


def prepared(tree: Mapping[str, Any], recipe: str | None, directory: Path, observers: int = 0) -> Run:
    """A run that is built and records itself; as `framework run`, without the picture at its end."""
    loaded = load()
    named = {} if recipe is None else loaded.pick("recipe", recipe)[2]
    config = configure(loaded, merge(DEFAULTS, named, tree, {"reports": ["progress", "record"]}))
    watching = tuple(Part("extension", f"watch_{number}", "overhead", Watch()) for number in range(observers))
    config = attrs.evolve(config, extensions=(*config.extensions, *watching))
    run = build(wire(config, loaded), loaded, Core())
    run.quiet = True
    run.directory = directory
    return run


def measured(
    timers: Timers | None, iterations: int, *arguments: Any, **keywords: Any
) -> tuple[float, dict[str, float]]:
    """Seconds an iteration, and with timers by key."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(*arguments, Path(folder), **keywords)
        run.config = attrs.evolve(run.config, iterations=iterations)
        watch = Clock(iterations, timers)
        run.manager.register(watch)
        with contextlib.nullcontext() if timers is None else watched(run, timers):
            execute(run)
    count = iterations - WARM
    return watch.seconds / count, {key: seconds / count for key, seconds in watch.times.items()}


def cartpole(lanes: int = 8, steps: int = 128) -> tuple[dict[str, Any], str]:
    """CartPole with PPO."""
    rollout = {"lanes": lanes, "fixed_steps": steps}
    return {"environment": {"name": "cartpole"}, "rollout": rollout}, "ppo"


def line_world(lanes: int = 8) -> tuple[dict[str, Any], None]:
    """The default run; from 64 lanes on with as many steps for each lane as it has at 8."""
    return {"rollout": {"lanes": lanes, "steps": max(128, 16 * lanes)}}, None


def cases(chosen: Sequence[int]) -> dict[str, tuple[int, tuple[Any, Any]]]:
    """Name → iterations, what is run."""
    found = {}
    for lanes in chosen:
        found[f"cartpole, ppo, {lanes} lanes"] = (WARM + max(1, 160 // (8 + lanes)), cartpole(lanes))
    for lanes in chosen:
        found[f"line world, {lanes} lanes"] = (WARM + max(20, 2000 // (8 + lanes)), line_world(lanes))
    return found


def shares(chosen: Mapping[str, tuple[int, tuple[Any, Any]]], rounds: int) -> dict[str, Any]:
    """Of each case: µs an iteration by key, the framework's share, and what the timers disturbed."""
    timers = Timers()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for number in range(rounds):
        for name, (iterations, what) in chosen.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            plain, _ = measured(None, iterations, *what)
            _, times = measured(timers, iterations, *what)
            own = sum(seconds for key, seconds in times.items() if key not in PARTS)
            whole = sum(times.values())
            row = {key: times.get(key, 0.0) * 1e6 for key in (*PARTS, *FRAMEWORK)}
            row |= {"framework": own * 1e6, "whole": whole * 1e6, "without timers": plain * 1e6}
            found[name].append({**row, "share, %": 100 * own / whole, "timers, %": 100 * (whole / plain - 1)})
    return {name: rows(all_rounds) for name, all_rounds in found.items()}


def write_plugins(folder: Path, count: int) -> None:
    """Distributions in a folder, as an installer leaves them: each with a plugin of an estimator and an extension."""
    for number in range(count):
        name = f"fake_{number}"
        (folder / f"{name}.py").write_text(
            f'''"""A plugin that is not used."""
from attrs import field, frozen, validators
from framework import hookimpl

@frozen
class Estimator:
    gamma: float = field(default=0.9, validator=[validators.ge(0), validators.le(1)])
    def __call__(self, rollout):
        raise NotImplementedError

@frozen
class Extension:
    within: str = "batch"
    def build(self, run):
        raise NotImplementedError

@hookimpl
def estimators():
    return {{"{name}": Estimator}}

@hookimpl
def extensions():
    return {{"{name}": Extension}}
'''
        )
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: of no use\n")
        (info / "entry_points.txt").write_text(f"[framework.plugins]\n{name} = {name}\n")


ONE_RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import overhead, torch
torch.set_num_threads(1)
print(json.dumps(overhead.measured(None, 1000, *overhead.line_world())[0] * 1e6))
"""


def with_plugins(rounds: int) -> dict[str, Any]:
    """Start-up and the default run's iteration, beside 0, 10, 100 plugins that are installed and not used."""
    found: dict[str, list[dict[str, float]]] = {f"{count} more plugins": [] for count in PLUGINS}
    with tempfile.TemporaryDirectory() as temporary:
        processes = {}
        for count in PLUGINS:
            folder = Path(temporary) / str(count)
            (folder / "installed").mkdir(parents=True)
            write_plugins(folder / "installed", count)
            processes[count] = Process(folder, [str(folder / "installed")])
            processes[count].phases("update", [])  # compile
        for _ in range(rounds):
            for count, python in processes.items():
                phases = python.phases("update", [])
                _, said, _, _ = python("-c", ONE_RUN, str(Path(__file__).parent))
                row = {"to the first update, CPU ms": phases["CPU time"], "finding and loading, ms": phases["plugins"]}
                found[f"{count} more plugins"].append({**row, "an iteration, µs": json.loads(said)})
    return {name: rows(all_rounds) for name, all_rounds in found.items()}


def with_observers(rounds: int) -> dict[str, Any]:
    """µs an iteration of the default run, and of CartPole's with its 16 updates, beside extensions that only watch."""
    works = {"default run, µs an iteration": (300, line_world()), "cartpole, µs an iteration": (12, cartpole())}
    found: dict[str, list[float]] = {f"{count} observers: {name}": [] for name in works for count in OBSERVERS}
    for _ in range(rounds):
        for name, (iterations, what) in works.items():
            for count in OBSERVERS:
                seconds, _ = measured(None, iterations, *what, observers=count)
                found[f"{count} observers: {name}"].append(seconds * 1e6)
    return {name: spread(numbers, 1) for name, numbers in found.items()}


def first_look(rounds: int) -> dict[str, Any]:
    """What `norms_by_term` takes of a whole run, which asks for it once."""
    works = {f"default run, {LOOKS[0]} iterations": (LOOKS[0], line_world())}
    works |= {f"cartpole, ppo, {LOOKS[1]} iterations": (LOOKS[1], cartpole())}
    timers, real = Timers(), updates.norms_by_term
    found: dict[str, list[float]] = {f"{name}, {unit}": [] for name in works for unit in ("% of it", "µs")}
    for _ in range(rounds):
        for name, (iterations, what) in works.items():
            with tempfile.TemporaryDirectory() as folder:
                run = prepared(*what, Path(folder))
                run.config = attrs.evolve(run.config, iterations=iterations)
                updates.norms_by_term = timers.timed("look", real)
                timers.clear()
                try:
                    execute(run)
                finally:
                    updates.norms_by_term = real
                times = timers.read()
            found[f"{name}, % of it"].append(100 * times["look"] / sum(times.values()))
            found[f"{name}, µs"].append(times["look"] * 1e6)
    return {name: spread(numbers, 2) for name, numbers in found.items()}


def main() -> None:
    kinds = ("shares", "growth", "plugins", "observers", "look")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--lanes", nargs="+", type=int, default=LANES, help="of the shares")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/overhead.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as `framework run` does
    growth = {
        f"cartpole, ppo, 8 lanes, {steps} steps": (WARM + max(3, 1280 // steps), cartpole(8, steps)) for steps in STEPS
    }
    work: dict[str, Callable[[int], dict[str, Any]]] = {
        "shares": functools.partial(shares, cases(arguments.lanes)),
        "growth": functools.partial(shares, growth),
        "plugins": with_plugins,
        "observers": with_observers,
        "look": first_look,
    }
    result = header(arguments.rounds)
    print(result["machine"], result["versions"])
    for kind in arguments.only:
        result[kind] = work[kind](arguments.rounds)
        title = {"observers": "extensions that observe every hook", "look": "the first update's look"}.get(kind)
        if title is not None:
            show(title, result[kind])
            continue
        for name, table in result[kind].items():
            show(f"{name}, µs an iteration" if kind != "plugins" else name, table)
    if arguments.write:
        write("overhead", result)


if __name__ == "__main__":
    main()
