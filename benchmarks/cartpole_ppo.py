"""PPO on CartPole-v1 at equal work: ours beside the libraries that install, in turn, in one run.

    python benchmarks/cartpole_ppo.py [--rounds 5] [--seeds 10] [--sides framework sb3 …] [--solve] [--write [NAME]]

The job (peers/job.py): 8 lanes × 128 steps, 4 epochs × 4 minibatches of 256, two separate networks of 64 × 64 tanh,
γ 0.99, λ 0.95, clip 0.2, value 0.5, gradient norm 0.5, Adam with ε 1e-5 and lr 2.5e-3, linearly to 0 over 195
iterations, advantages standardised in the minibatch. One thread. Each peer is a script in peers/ that says in its first
lines what it does otherwise, and runs in a virtual environment of its own, made here when it is first wanted.

Speed   steps a second of whole iterations, rollout and updates, after a few that warm up. All do all 16 updates: ours
        without the recipe's limit `target_kl`, which ends some iterations' updates early.
Memory  the peak resident set of that process.
Start   seconds from the start of the command until the first iteration has ended: imports, and what is compiled.
Solved  seconds from the start of the command, imports included, until the last 100 training episodes first had a mean
        return of at least 475. Ours is `framework run --recipe ppo` with `early_stop`, reports and picture as always,
        and the time that of the last row of metrics.csv; theirs see each episode as it ends, and have no such limit.
        Peers other than Stable-Baselines3 and the one in JAX are asked with `--solve` only.

PufferLib is not among them: building 3.0.0 (and 2.0.6) loads a library from elsewhere, which failed here, and 1.0.1,
which installs, has no learner.

Sides follow one another, round after round, so that a drift of the machine meets all; ratios to Stable-Baselines3 are
taken within a round (of equal lanes too), medians and ranges over rounds, or over seeds. `--write` puts the table into
benchmarks/results/cartpole_ppo.json, after every round; `--write NAME` into NAME.json, for some of the sides.
"""

import argparse
import csv
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from common import CONSTRAINTS, HERE, environment, processor, spread, write

CACHE = HERE / ".cache" / "peers"
TORCH = ("-c", str(CONSTRAINTS), "torch")
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"
}


@dataclass(frozen=True)
class Side:
    """One column of the comparison."""

    flags: str = ""  # ours: of `framework run`; theirs: of the script
    script: str = ""  # peers/ppo_….py; empty: ours
    installs: tuple[tuple[str, ...], ...] = ()  # arguments of `pip install`, one after the other
    iterations: int = 100
    warm_up: int = 5
    solves: bool = False  # is always asked how long it takes to solve it
    equal: str = "sb3"  # with as many lanes


CLASSIC, GYMNASIUM = "--environment cartpole", "--environment gymnasium --environment.id CartPole-v1"
MANY = "--environment cartpole --rollout.lanes 512"
SB3 = (TORCH, ("stable-baselines3==2.9.2",))
SIDES = {
    "framework": Side(CLASSIC, solves=True),
    "framework gymnasium": Side(GYMNASIUM, solves=True),
    "framework 512 lanes": Side(MANY, iterations=20, equal="sb3 512 lanes"),
    "framework compiled": Side(f"{CLASSIC} --compile", warm_up=20, solves=True),
    "framework gymnasium compiled": Side(f"{GYMNASIUM} --environment.vectorization-mode sync --compile", warm_up=20),
    "framework 512 lanes compiled": Side(f"{MANY} --compile", iterations=20, equal="sb3 512 lanes"),
    "sb3": Side(script="sb3", installs=SB3, solves=True),
    "sb3 512 lanes": Side("--lanes 512", "sb3", SB3, iterations=5, warm_up=2),
    "purejaxrl": Side(script="purejaxrl", installs=(("gymnax==1.0.1", "six"),), solves=True),  # gymnax forgets six
    "cleanrl": Side(script="cleanrl", installs=((*TORCH, "gymnasium", "numpy"),)),
    "torchrl": Side(script="torchrl", installs=(TORCH, ("torchrl==0.14.1", "gymnasium"))),
    "tianshou": Side(script="tianshou", installs=(TORCH, ("tianshou==2.0.1",))),
    "skrl": Side(script="skrl", installs=(TORCH, ("skrl==2.1.1", "gymnasium"))),
    "rllib": Side(script="rllib", installs=(TORCH, ("ray[rllib]==2.60.0",))),
}


class LeftOutError(Exception):
    """A side that cannot be measured here, and why."""


def run(command: list[str]) -> tuple[str, float, float]:
    """What it printed, when it was given (Unix time) and its peak resident set in MB."""
    with tempfile.TemporaryFile("w+") as errors:
        started = time.time()
        given = [part.replace("{started}", repr(started)) for part in command]
        process = subprocess.Popen(
            given, cwd=CACHE, env=os.environ | THREADS, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            errors.seek(0)
            raise LeftOutError((errors.read().strip().splitlines() or [f"exit {process.returncode}"])[-1])
    return printed, started, usage.ru_maxrss / 1024


def compile_flag() -> str:
    """What `framework run` calls it."""
    listed = subprocess.run(
        [sys.executable, "-m", "framework", "run", "--help"], capture_output=True, text=True, check=True
    )
    found = re.search(r"--(update\.)?compile\b", listed.stdout)
    if found is None:
        raise LeftOutError("this version cannot compile updates")
    return found[0]


def ours(side: Side, seed: int, solve: bool) -> dict[str, Any]:
    flags = side.flags.replace("--compile", compile_flag()) if "--compile" in side.flags else side.flags
    if solve:
        flags += " --extensions standardize,early_stop"
    else:
        flags += f" --loss.target-kl None --reports record --iterations {side.iterations}"
    folder = CACHE / "runs" / f"{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "framework", "run", "--recipe", "ppo", *shlex.split(flags)]
    printed, started, peak = run([*command, "--seed", str(seed), "--name", folder.name])
    with (folder / "metrics.csv").open() as file:
        rows = [(int(float(row["steps"])), float(row["seconds"])) for row in csv.DictReader(file)]
    (first, began), (steps, ended) = rows[side.warm_up - 1], rows[-1]
    solved = bool(json.loads(printed.splitlines()[-1])["stopped"])
    last_at = (folder / "metrics.csv").stat().st_mtime - started
    shutil.rmtree(folder)
    return {
        "steps_per_second": (steps - first) / (ended - began),
        "first_at": last_at - (ended - rows[0][1]),
        "solved_at": last_at if solved else None,
        "solved_steps": steps if solved else None,
        "peak_rss_mb": peak,
        "versions": {name: version(name) for name in ("framework-rl", "torch", "gymnasium", "numpy")},
    }


def theirs(side: Side, seed: int, solve: bool) -> dict[str, Any]:
    try:
        python = environment(CACHE / side.script, *side.installs)
    except RuntimeError as error:
        raise LeftOutError(f"is not installed: {error}") from None
    command = [str(python), str(HERE / "peers" / f"ppo_{side.script}.py"), *shlex.split(side.flags)]
    command += ["--seed", str(seed), "--started", "{started}"]
    if solve:
        command.append("--solve")
    else:
        command += ["--iterations", str(side.iterations), "--warm-up", str(side.warm_up)]
    printed, _, _ = run(command)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


class Table:
    """What was measured of each side: a number a round, or a seed."""

    def __init__(self, names: list[str]) -> None:
        self.names = list(names)
        self.speeds: dict[str, list[float]] = {name: [] for name in names}
        self.peaks: dict[str, list[float]] = {name: [] for name in names}
        self.firsts: dict[str, list[float]] = {name: [] for name in names}
        self.solved: dict[str, list[tuple[float, float]]] = {name: [] for name in names}  # seconds, steps; inf: never
        self.versions: dict[str, dict[str, str]] = {}
        self.skipped: dict[str, str] = {}

    def measure(self, name: str, seed: int, solve: bool) -> None:
        """One run of one side, which is left out from now on if it fails."""
        side = SIDES[name]
        try:
            found = (theirs if side.script else ours)(side, seed, solve)
        except LeftOutError as why:
            print(f"{name}: left out: {why}", flush=True)
            self.skipped[name] = str(why)
            self.names.remove(name)
            return
        self.versions[name] = found["versions"]
        if solve:
            never = math.inf
            self.solved[name].append((found["solved_at"] or never, found["solved_steps"] or never))
            print(
                f"{name:30} seed {seed}: solved after {found['solved_at']} s, {found['solved_steps']} steps", flush=True
            )
        else:
            self.speeds[name].append(found["steps_per_second"])
            self.peaks[name].append(found["peak_rss_mb"])
            self.firsts[name].append(found["first_at"])
            measured = "{steps_per_second:12,.0f} steps/s {peak_rss_mb:8.0f} MB {first_at:8.1f} s to start"
            print(f"{name:30} {measured.format(**found)}", flush=True)

    def row(self, name: str) -> dict[str, Any]:
        """Medians and ranges of a side."""
        found: dict[str, Any] = {}
        if self.speeds[name]:
            found["steps/s"] = spread(self.speeds[name])
            for other in dict.fromkeys(("sb3", SIDES[name].equal)):
                if self.speeds.get(other):
                    pairs = zip(self.speeds[name], self.speeds[other], strict=False)
                    found[f"steps/s against {other}"] = spread([a / b for a, b in pairs])
            found["peak RSS, MB"] = spread(self.peaks[name])
            found["command to first iteration, s"] = spread(self.firsts[name])
        if self.solved[name]:
            seconds, steps = zip(*self.solved[name], strict=True)
            found["command to solved, s"] = spread(seconds)
            found["steps to solved"] = spread(steps)
            found["solved seeds"] = f"{sum(map(math.isfinite, steps))} of {len(steps)}"
            if self.solved.get("sb3"):
                pairs = zip(seconds, (s for s, _ in self.solved["sb3"]), strict=False)
                finite = [a / b for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
                found |= {"command to solved against sb3": spread(finite)} if finite else {}
        return found

    def result(self, rounds: int, seeds: int) -> dict[str, Any]:
        """All of it, as the file has it."""
        rows = {name: self.row(name) for name in self.speeds if name not in self.skipped}
        return {
            "machine": f"{processor()}, 1 thread",
            "versions": self.versions,
            "rounds": rounds,
            "seeds": seeds,
            "rows": rows,
            "left out": self.skipped,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10, help="until solved: 0, 1, …")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument("--iterations", type=int, help="of each speed run, instead of each side's: a quick look")
    parser.add_argument("--solve", action="store_true", help="ask all sides how long they take to solve it")
    parser.add_argument(
        "--write", nargs="?", const="cartpole_ppo", metavar="NAME", help="write benchmarks/results/cartpole_ppo.json"
    )
    arguments = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    if arguments.iterations:
        for name, side in SIDES.items():
            warm_up = min(side.warm_up, arguments.iterations - 1)
            SIDES[name] = replace(side, iterations=arguments.iterations, warm_up=warm_up)
    table = Table(arguments.sides)
    turns = [(number, False) for number in range(arguments.rounds)] + [(seed, True) for seed in range(arguments.seeds)]
    for number, solve in turns:
        for name in list(table.names):
            if not solve or arguments.solve or SIDES[name].solves:
                table.measure(name, number, solve)
        result = table.result(arguments.rounds, arguments.seeds)
        if arguments.write:
            write(arguments.write, result)
    for name, row in result["rows"].items():
        print(f"\n{name}")
        for measure, number in row.items():
            print(f"    {measure:32} {number if isinstance(number, str) else describe(number)}")


def describe(number: dict[str, float | None]) -> str:
    """Median and range, to be read."""
    median, low, high = ("never" if one is None else f"{one:,.10g}" for one in number.values())
    return f"{median} ({low} to {high})"


if __name__ == "__main__":
    main()
