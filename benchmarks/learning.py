"""Do the algorithms learn? Ours beside Stable-Baselines3, at equal settings, seeds 0 to 9.

    python benchmarks/learning.py [--seeds 10]

Makes a virtual environment for Stable-Baselines3, then runs each seed of each side as a process of its own, one thread,
in turn. What is finished lies in benchmarks/.cache and is not run again, so the script may be stopped and started. At
the end it writes benchmarks/results/learning.json and docs/pictures/learning_vs_sb3.png.

Equal: the environment and how it is reset (Gymnasium, 8 copies stepped one by one), rollouts, epochs, minibatches,
sizes and activation of two separate networks, γ, λ, clip, coefficients, gradient norm, Adam and its ε, advantages
standardised in the minibatch, the learning rate of each update, the bootstrap at time limits. Different: the first
weights (Stable-Baselines3: orthogonal, gain √2, 0.01 for actions and 1 for values, biases 0; ours: torch's own,
uniform), and the random numbers. The settings were fixed on seeds from 100 on: of ours, and for CartPole-v1's learning
rate also of theirs (100 to 102: 2.5e-3 solved it on all three, 1e-3 on two). Seeds 0 to 9 were not looked at before.

What others report for PPO (`±` is the standard deviation over runs, where not said otherwise):

| source | HalfCheetah | Hopper | what it is |
|---|---|---|---|
| CleanRL | 1442.64 ± 46.03 | 2382.86 ± 271.74 | v4, 1 M steps, 3 seeds: training returns at the end |
| Tianshou | 5783.9 ± 1244.0 | 2609.3 ± 700.8 | v3, best evaluation within 1 M steps, 10 seeds |
| rl-zoo | 5819.099 ± 663.530 | 2410.435 ± 10.026 | v3, 1 M steps, one tuned agent, over its 150 episodes |
| Schulman et al. | about 1800 | about 2330 | 1 M steps: as Tianshou reads their figure 3 |

CleanRL: vwxyzjn/cleanrl, docs/benchmark/ppo_continuous_action.md (run pr-424; CartPole-v1 after 500,000 steps of its
ppo.py, in ppo.md beside it: 490.04 ± 6.12). Its settings, in cleanrl/ppo_continuous_action.py, are those of Huang et
al. 2022, "The 37 implementation details of proximal policy optimization": 1 lane, 2048 steps, 10 epochs of 32
minibatches, γ 0.99, λ 0.95, clip 0.2, also of values, lr 3e-4 linearly to 0, Adam ε 1e-5, gradient norm 0.5, and
observations and rewards normalised and clipped at 10.
Tianshou: thu-ml/tianshou, examples/mujoco/README.md (gym 0.17.3, mujoco 2.0.2.13; the same without standardised
advantages, and with advantages computed anew in each epoch: it calls that a large part of its scores).
rl-zoo: DLR-RM/rl-baselines3-zoo, benchmark.md ("not a quantitative benchmark": one run each), hyperparams/ppo.yml;
there also CartPole-v1 500 ± 0 and Pendulum-v1 −172.225 ± 104.159, each after 100,000 steps, the best action taken.
Its settings for CartPole-v1: 8 lanes, 32 steps, 20 epochs, minibatches of 256, γ 0.98, λ 0.8, lr 1e-3 and clip 0.2,
both linearly to 0. For Pendulum-v1: 4 lanes, 1024 steps, 10 epochs (minibatches of 64), γ 0.9, λ 0.95, lr 1e-3, clip
0.2, and state-dependent exploration, which we leave out.
Stable-Baselines3's defaults, stable_baselines3/ppo/ppo.py: lr 3e-4, 2048 steps, minibatches of 64, 10 epochs, γ 0.99,
λ 0.95, clip 0.2, entropy 0, value 0.5, gradient norm 0.5, advantages standardised.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import CONSTRAINTS, HERE, environment, write

CACHE = HERE / ".cache" / "learning"
VENV = CACHE / "stable-baselines3"
SIDES = {"framework": "this framework", "sb3": "Stable-Baselines3"}
GRID = 100  # points of a curve
WINDOW = 100  # episodes of a mean
SOLVED = 475  # Gymnasium's reward_threshold of CartPole-v1
TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "lanes": 8,
        "steps": 128,
        "epochs": 4,
        "minibatches": 4,
        "gamma": 0.99,
        "lr": 2.5e-3,
        "linear": True,
        "iterations": 195,  # 199,680 steps
    },
}


# One seed, in a process of its own: every episode's (environment steps taken when it ended, return).


def ours(task: str, seed: int) -> list[tuple[int, float]]:
    import attrs
    from framework_gymnasium import Gymnasium
    from framework_losses import Ppo
    from framework_policies.actor_critic import ActorCritic
    from framework_returns import Gae

    import framework

    episodes: list[tuple[int, float]] = []

    @attrs.frozen(eq=False)
    class Episodes:
        """Writes down when episodes ended."""

        def build(self, run: Any) -> "Episodes":
            return self

        @framework.hookimpl(wrapper=True)
        def collect_rollout(self, run: Any) -> Any:
            rollout = yield
            rows, _ = (rollout.terminated | rollout.truncated).nonzero(as_tuple=True)
            ended = run.steps + (rows + 1) * rollout.mask.shape[1]
            episodes.extend(zip(ended.tolist(), run.finished.returns.tolist(), strict=True))
            return rollout

    given = TASKS[task]
    framework.train(
        recipe="ppo",
        environment=Gymnasium(id=task, vectorization_mode="sync"),
        policy=ActorCritic(hidden=(64, 64), activation="tanh"),
        loss=Ppo(clip=0.2, value=0.5),
        estimator=Gae(gamma=given["gamma"], lam=0.95),
        rollout=framework.RolloutSettings(lanes=given["lanes"], fixed_steps=given["steps"]),
        update=framework.UpdateSettings(given["epochs"], given["minibatches"], max_grad_norm=0.5),
        optimizer=framework.OptimizerSettings(
            "Adam", given["lr"], schedule="linear" if given["linear"] else "constant", options={"eps": 1e-5}
        ),
        iterations=given["iterations"],
        seed=seed,
        extensions=[Episodes()],
    )
    return episodes


def theirs(task: str, seed: int) -> list[tuple[int, float]]:
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    episodes: list[tuple[int, float]] = []

    class Episodes(BaseCallback):
        def _on_step(self) -> bool:
            ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            episodes.extend((self.num_timesteps, float(score)) for score in ended)
            return True

    given = TASKS[task]
    batch = given["lanes"] * given["steps"]

    def rate(remaining: float) -> float:
        # `remaining` has this iteration's steps taken off already, ours has not
        return given["lr"] * (remaining + 1 / given["iterations"]) if given["linear"] else given["lr"]

    learner = PPO(
        "MlpPolicy",
        make_vec_env(task, given["lanes"], seed=seed),
        learning_rate=rate,
        n_steps=given["steps"],
        batch_size=batch // given["minibatches"],
        n_epochs=given["epochs"],
        gamma=given["gamma"],
        gae_lambda=0.95,
        clip_range=0.2,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "optimizer_kwargs": {"eps": 1e-5}},
        seed=seed,
        device="cpu",
    )
    learner.learn(batch * given["iterations"], callback=Episodes())
    return episodes


# All seeds of both sides, their curves, and the picture.


def python_of(side: str) -> str:
    if side == "framework":
        return sys.executable
    constrained = ["-c", str(CONSTRAINTS)]
    return str(environment(VENV, [*constrained, "torch"], [*constrained, "stable-baselines3"]))


def episodes_of(task: str, side: str, seed: int) -> list[tuple[int, float]]:
    """From the cache; run first, where it is not there or was run with other settings."""
    path = CACHE / f"{task}-{side}-{seed}.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found["settings"] == TASKS[task]:
            return [(steps, score) for steps, score in found["episodes"]]
    print(f"{task}, {SIDES[side]}, seed {seed}", flush=True)
    command = [python_of(side), __file__, "--one", task, side, str(seed)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | threads)
    episodes = json.loads(done.stdout.splitlines()[-1])
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"settings": TASKS[task], "episodes": episodes}))
    part.replace(path)
    return [(steps, score) for steps, score in episodes]


def curve(episodes: list[tuple[int, float]], grid: Any) -> Any:
    """The mean return of the last (at most) 100 episodes that had ended by each number of steps; NaN before one had."""
    import numpy as np

    ended, scores = np.array(episodes).T
    sums = np.concatenate([[0.0], scores.cumsum()])
    last = np.searchsorted(ended, grid, side="right")
    first = np.maximum(last - WINDOW, 0)
    with np.errstate(invalid="ignore"):
        return (sums[last] - sums[first]) / (last - first)


def steps_to(bar: float, episodes: list[tuple[int, float]]) -> int | None:
    """Steps taken when 100 episodes in a row first had a mean return of at least `bar`."""
    import numpy as np

    ended, scores = np.array(episodes).T
    if len(scores) < WINDOW:
        return None
    means = np.convolve(scores, np.ones(WINDOW) / WINDOW, "valid")
    reached = np.flatnonzero(means >= bar)
    return int(ended[reached[0] + WINDOW - 1]) if len(reached) else None


def band(curves: Any) -> Any:
    """95 % confidence band of the mean over seeds: percentile bootstrap, 2000 draws of the seeds."""
    import numpy as np

    draws = np.random.default_rng(0).integers(len(curves), size=(2000, len(curves)))
    return np.quantile(curves[draws].mean(1), [0.025, 0.975], axis=0)


def picture(tasks: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(tasks), figsize=(5.2 * len(tasks), 3.6), squeeze=False, layout="constrained")
    for axis, (task, found) in zip(axes[0], tasks.items(), strict=True):
        for side, colour in zip(SIDES, ("C0", "C1"), strict=True):
            curves = np.array(found["sides"][side]["curves"], float)
            low, high = band(curves)
            axis.fill_between(found["grid"], low, high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(found["grid"], curves.mean(0), color=colour, label=SIDES[side])
        if task == "CartPole-v1":
            axis.axhline(SOLVED, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=task, xlabel="environment steps")
        axis.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:.0f}k")
        axis.spines[["top", "right"]].set_visible(False)
    seeds = len(next(iter(tasks.values()))["sides"]["framework"]["curves"])
    axes[0][0].set_ylabel(f"mean return of the last {WINDOW} episodes")
    axes[0][0].legend(frameon=False, loc="lower right", title=f"PPO, mean of {seeds} seeds, 95 % band")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--one", nargs=3, metavar=("TASK", "SIDE", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        task, side, seed = arguments.one
        print(json.dumps((ours if side == "framework" else theirs)(task, int(seed))))
        return

    import numpy as np

    CACHE.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    for task in arguments.tasks:
        given = TASKS[task]
        total = given["lanes"] * given["steps"] * given["iterations"]
        grid = np.linspace(0, total, GRID + 1)[1:].astype(int)
        sides = {}
        runs = [(seed, side) for seed in range(arguments.seeds) for side in SIDES]
        found = {(seed, side): episodes_of(task, side, seed) for seed, side in runs}
        # no seed has a curve before its first episode ended: the grid begins where all have
        begin = max(int(np.searchsorted(grid, episodes[0][0])) for episodes in found.values())
        for side in SIDES:
            episodes = [found[seed, side] for seed in range(arguments.seeds)]
            curves = np.array([curve(one, grid[begin:]) for one in episodes])
            low, high = band(curves)
            sides[side] = {
                "final": round(float(curves[:, -1].mean()), 1),
                "final_band": [round(float(low[-1]), 1), round(float(high[-1]), 1)],
                "final_by_seed": curves[:, -1].round(1).tolist(),
                "area": round(float(curves.mean()), 1),
                "curves": curves.round(1).tolist(),
            }
            if task == "CartPole-v1":
                sides[side][f"steps_to_{SOLVED}"] = [steps_to(SOLVED, one) for one in episodes]
        result[task] = {"settings": given, "grid": grid[begin:].tolist(), "sides": sides}
        for side, row in sides.items():
            print(f"{task}  {SIDES[side]:20} { ({k: v for k, v in row.items() if k != 'curves'}) }")
    names = "import stable_baselines3, torch, gymnasium"
    versions = "print(stable_baselines3.__version__, torch.__version__, gymnasium.__version__)"
    command = [python_of("sb3"), "-c", f"{names}; {versions}"]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    versions = dict(zip(("stable-baselines3", "torch", "gymnasium"), listed, strict=True))
    report = {"versions": {"python": platform.python_version(), **versions}, "window": WINDOW, "tasks": result}
    write("learning", report, indent=1)
    picture(result, HERE.parent / "docs" / "pictures" / "learning_vs_sb3.png")


if __name__ == "__main__":
    main()
