"""What `ppo_continuous` reaches on MuJoCo in a million steps, seeds 0 to 2 (extra `mujoco`).

    python benchmarks/mujoco.py [--worlds Hopper-v5] [--seeds 3] [--at-once 2]

Each seed is `framework run --recipe ppo_continuous --environment.id WORLD --seed SEED`, one thread, minutes long. What
is finished lies in benchmarks/.cache/mujoco and is not run again. A seed's score is the mean return of its last 100
training episodes, as the command prints it. At the end it writes benchmarks/results/mujoco.json, and for each world
docs/pictures/WORLD.png: returns over steps, a line for each seed.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from common import HERE, processor, write

CACHE = HERE / ".cache" / "mujoco"
EPISODES = 100  # of a point of a curve


def summary(world: str, seed: int) -> dict[str, Any]:
    """What a seed's command printed; it is run, where it was not."""
    name = f"{world}-{seed}"
    kept = CACHE / f"{name}.json"
    if not kept.exists():
        subprocess.run(["rm", "-rf", str(CACHE / "runs" / name)], check=True)
        command = [sys.executable, "-m", "framework", "run", "--recipe", "ppo_continuous", "--environment.id", world]
        command += ["--seed", str(seed), "--name", name]
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, cwd=CACHE, env=threads, stdout=subprocess.PIPE, text=True)
        kept.write_text(done.stdout.strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def curve(world: str, seed: int) -> tuple[list[float], list[float]]:
    """Steps, and the mean return of the last iterations that hold 100 episodes between them."""
    steps: list[float] = []
    means: list[float] = []
    ended = [(0.0, 0.0)]  # episodes and the sum of their returns, so far
    for row in csv.DictReader((CACHE / "runs" / f"{world}-{seed}" / "metrics.csv").open()):
        episodes, before = float(row["episodes"]), ended[-1]
        ended.append((episodes, before[1] + (episodes - before[0]) * float(row["mean_return"] or 0)))
        begin = next((one for one in reversed(ended) if episodes - one[0] >= EPISODES), ended[0])
        if episodes > begin[0]:
            steps.append(float(row["steps"]))
            means.append((ended[-1][1] - begin[1]) / (episodes - begin[0]))
    return steps, means


def draw(world: str, seeds: Sequence[int]) -> None:
    """docs/pictures/WORLD.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for seed in seeds:
        steps, means = curve(world, seed)
        axes.plot([number / 1e6 for number in steps], means, label=f"seed {seed}", linewidth=1.4)
    axes.set_xlabel("environment steps, millions")
    axes.set_ylabel(f"mean return of the last {EPISODES} episodes")
    axes.set_title(f"{world}, recipe ppo_continuous")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    name = world.split("-")[0].lower()
    figure.savefig(HERE.parent / "docs" / "pictures" / f"{name}.png", dpi=120, metadata={"Software": None})


def main() -> None:
    """Run, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="+", default=["Hopper-v5"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=2)
    given = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    seeds = range(given.seeds)
    jobs = [(world, seed) for world in given.worlds for seed in seeds]
    with ThreadPoolExecutor(given.at_once) as pool:
        found = dict(zip(jobs, pool.map(lambda job: summary(*job), jobs), strict=True))
    path = HERE / "results" / "mujoco.json"
    result: dict[str, Any] = json.loads(path.read_text())["worlds"] if path.exists() else {}
    for world in given.worlds:
        results = [found[world, seed] for seed in seeds]
        scores = [one["mean_return"] for one in results]
        result[world] = {
            "scores": {str(seed): round(score, 1) for seed, score in zip(seeds, scores, strict=True)},
            "deviations of their episodes": [round(one["std_return"], 1) for one in results],
            "mean": round(statistics.mean(scores), 1),
            "deviation over seeds": round(statistics.stdev(scores), 1) if len(scores) > 1 else None,
            "seconds": [round(one["seconds"]) for one in results],
        }
        draw(world, seeds)
        print(json.dumps({world: result[world]}))
    write("mujoco", {"machine": f"{processor()}, 1 thread each", "steps": 999_424, "worlds": result})


if __name__ == "__main__":
    main()
