"""After how many steps is a world solved? The commands of docs/evidence.md, seeds 0 to 9, one after the other.

    python benchmarks/solved.py [--seeds 10] [--first 0] [--only ppo a2c]

Each command is run as it is shown, with `--seed` and `--name`, one thread. Its record lies in benchmarks/.cache and is
not made again, so the script may be stopped and started. *Solved*: the last iterations that hold at least 100
episodes between them have a mean return of at least the bar. At the end it prints the table, and with seeds 0 to 9
writes benchmarks/results/solved.json.

The settings were fixed on seeds from 100 on (`--first 100` runs those).
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import HERE, write

CACHE = HERE / ".cache" / "solved"
EPISODES = 100
CARTPOLE = "--environment gymnasium --environment.id CartPole-v1"
COMMANDS = {  # name → bar, flags
    "ppo": (475, f"--recipe ppo {CARTPOLE}"),
    "a2c": (
        475,
        f"--recipe a2c {CARTPOLE} --policy.hidden 64 64 --policy.activation tanh --loss.entropy 0"
        " --optimizer.lr 3e-3 --optimizer.schedule linear --iterations 6250",
    ),
    "reinforce": (
        475,
        f"--recipe reinforce {CARTPOLE} --baseline time_mean --rollout.steps 1000 --optimizer.lr 5e-3 --iterations 300",
    ),
    "ppo_continuous": (
        -250,
        "--recipe ppo_continuous --estimator.gamma 0.9 --extensions.scale_rewards.gamma 0.9 --rollout.lanes 8"
        " --rollout.fixed_steps 256 --update.minibatches 8 --optimizer.lr 1e-3 --iterations 146",
    ),
}


def record(name: str, seed: int) -> Path:
    """The folder of a finished run; it is made, where it is not there."""
    flags = COMMANDS[name][1]
    folder = CACHE / "runs" / f"{name}-{seed}"
    done = CACHE / f"{name}-{seed}.txt"
    if not done.exists() or done.read_text() != flags:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        print(f"framework run {flags} --seed {seed}", flush=True)
        command = [sys.executable, "-m", "framework", "run", *shlex.split(flags), "--seed", str(seed)]
        command += ["--name", folder.name, "--quiet"]
        subprocess.run(command, check=True, cwd=CACHE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        done.write_text(flags)
    return folder


def solved_at(folder: Path, bar: float) -> tuple[int | None, float, int]:
    """Steps until solved (None: never), the mean return at the end, steps in all."""
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    solved, last, ended = None, float("nan"), [(0, 0.0)]  # episodes and the sum of their returns, so far
    for row in rows:
        episodes, before = int(float(row["episodes"])), ended[-1]
        earned = (episodes - before[0]) * float(row["mean_return"] or 0)
        ended.append((episodes, before[1] + earned))
        begin = next((one for one in reversed(ended) if episodes - one[0] >= EPISODES), None)
        if begin is not None:
            last = (ended[-1][1] - begin[1]) / (episodes - begin[0])
            if solved is None and last >= bar:
                solved = int(float(row["steps"]))
    return solved, last, int(float(rows[-1]["steps"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    arguments = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    table: dict[str, Any] = {}
    for name in arguments.only:
        bar, flags = COMMANDS[name]
        rows = [solved_at(record(name, seed), bar) for seed in seeds]
        table[name] = {
            "flags": flags,
            "bar": bar,
            "steps": max(steps for _, _, steps in rows),
            "solved_at": {seed: solved for seed, (solved, _, _) in zip(seeds, rows, strict=True)},
            "final": {seed: round(last, 1) for seed, (_, last, _) in zip(seeds, rows, strict=True)},
        }
        print(json.dumps({name: table[name]}), flush=True)
    if seeds == range(10) and len(table) == len(COMMANDS):
        write("solved", table, indent=1)


if __name__ == "__main__":
    main()
