"""The job that all sides do, and the watch that times it. Each peer's own environment imports this: no dependencies.

PPO (Schulman et al. 2017, arXiv:1707.06347) on CartPole-v1 with two separate networks, advantages standardised in the
minibatch, and lr in iteration i of 195: LR · (1 − i / 195), as the recipe `ppo` has it.
"""

import argparse
import json
import resource
import time
from collections import deque

STEPS = 128  # of each lane in an iteration
EPOCHS, MINIBATCHES = 4, 4
ITERATIONS = 195
HIDDEN = (64, 64)  # tanh
GAMMA, LAM, CLIP, VALUE, MAX_GRAD_NORM = 0.99, 0.95, 0.2, 0.5, 0.5
LR, EPS = 2.5e-3, 1e-5  # Adam's
WINDOW, SOLVED = 100, 475.0  # episodes, and their mean return; Gymnasium's reward_threshold


class Watch:
    """Is called with episodes and iterations, decides when to stop, and prints what it saw."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser(description="One run of one side; prints a line of JSON.")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--lanes", type=int, default=8)
        parser.add_argument("--iterations", type=int, default=ITERATIONS, help="after which to stop; lr does not know")
        parser.add_argument("--warm-up", type=int, default=5, help="iterations that are not timed")
        parser.add_argument("--solve", action="store_true", help="stop already when it is solved")
        parser.add_argument("--started", type=float, default=time.time(), help="when the command was given (Unix time)")
        self.given = parser.parse_args()
        self.seed, self.lanes = self.given.seed, self.given.lanes
        self.batch = self.lanes * STEPS
        self.minibatch = self.batch // MINIBATCHES
        self.last: deque[float] = deque(maxlen=WINDOW)
        self.ends: list[float] = []  # of iterations
        self.first_at: float | None = None  # seconds after the command, as all that are named so
        self.solved_at: float | None = None
        self.solved_steps: int | None = None

    def episode(self, steps: int, score: float) -> None:
        """An episode of return `score` ended after `steps` environment steps of all lanes."""
        self.last.append(float(score))
        if self.solved_at is None and len(self.last) == WINDOW and sum(self.last) >= WINDOW * SOLVED:
            self.solved_at, self.solved_steps = time.time() - self.given.started, int(steps)

    def iteration(self) -> bool:
        """An iteration ended, its updates included; whether it was the last."""
        self.ends.append(time.perf_counter())
        if self.first_at is None:
            self.first_at = time.time() - self.given.started
        return self.over

    @property
    def over(self) -> bool:
        """Whether all has been seen."""
        return len(self.ends) >= self.given.iterations or (self.given.solve and self.solved_at is not None)

    def rate(self) -> float:
        """The learning rate of the iteration that is under way."""
        return LR * (1 - len(self.ends) / ITERATIONS)

    def report(self, *packages: str) -> None:
        """One line of JSON."""
        from importlib.metadata import version

        timed = self.ends[self.given.warm_up - 1 :]
        speed = (len(timed) - 1) * self.batch / (timed[-1] - timed[0]) if len(timed) > 1 else None
        line = {
            "steps_per_second": speed,
            "first_at": self.first_at,
            "solved_at": self.solved_at,
            "solved_steps": self.solved_steps,
            "mean_return": sum(self.last) / len(self.last) if self.last else None,
            "iterations": len(self.ends),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # Linux: KiB
            "versions": {name: version(name) for name in packages},
        }
        print(json.dumps(line), flush=True)
