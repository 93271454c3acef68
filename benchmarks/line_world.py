"""The notebook's job, four ways in one run: what the framework gains, and what is left to gain.

    python benchmarks/line_world.py [--rounds 7] [--write]

(a) a notebook-style loop: one environment, one step at a time, the graph kept while sampling;
(b) this framework's default run: 8 lanes, whole episodes of at least 128 steps, 100 updates from the start;
(c) this framework at 4096 lanes, whole episodes of at least 524,288 steps;
(d) the bare update: zero_grad, forward, backward and fused Adam of the same network on a ready batch of 128.

One thread. The four are measured in turn, round after round, so that a drift of the machine meets all of
them; medians and ranges are over the rounds. `--write` puts the table into benchmarks/results/line_world.json,
which the README quotes.
"""

import argparse
import platform
import time

import torch
from common import processor, spread, write
from torch import nn
from torch.distributions import Categorical

import framework
from framework import RolloutSettings

UPDATES = 100


class NotebookWorld:
    """The notebook's environment, written anew."""

    def __init__(self) -> None:
        self.state = 0

    def step(self, action: int) -> float:
        self.state = max(0, self.state - 1) if action == 0 else min(4, self.state + 1)
        return 10.0 if self.state == 4 else -1.0


def network() -> tuple[nn.Embedding, nn.Sequential]:
    return nn.Embedding(5, 8), nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))


def notebook(updates: int) -> float:
    """Seconds an update of the notebook's loop, from the start of training."""
    embedding, net = network()
    optimizer = torch.optim.Adam([*embedding.parameters(), *net.parameters()], lr=1e-3)
    began = time.perf_counter()
    for _ in range(updates):
        log_probs: list[torch.Tensor] = []
        returns: list[float] = []
        while len(log_probs) < 128:
            world, rewards = NotebookWorld(), []
            for _ in range(100):
                if world.state == 4:
                    break
                choice = Categorical(logits=net(embedding(torch.tensor([world.state]))))
                action = choice.sample()
                log_probs.append(choice.log_prob(action))
                rewards.append(world.step(int(action.item())))
            tail, episode = 0.0, []
            for reward in reversed(rewards):
                tail = reward + 0.99 * tail
                episode.append(tail)
            returns += reversed(episode)
        terms = [a * b for a, b in zip(log_probs[:128], returns[:128], strict=True)]
        optimizer.zero_grad()
        loss = -torch.stack(terms).mean()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - began) / updates


def default_run(seed: int) -> float:
    """Seconds an update of the default run (without its progress bar, record and picture)."""
    return framework.train(iterations=UPDATES, seed=seed).run.seconds / UPDATES


def many_lanes(seed: int) -> float:
    """Environment steps a second at 4096 lanes, learning included; the first iteration warms up."""
    result = framework.train(iterations=8, seed=seed, rollout=RolloutSettings(lanes=4096, steps=524_288))
    steps, seconds = result.metrics["steps"], result.metrics["seconds"]
    return float((steps[-1] - steps[0]) / (seconds[-1] - seconds[0]))


def bare_update(updates: int = 500) -> float:
    """Seconds of one update on a ready batch."""
    embedding, net = network()
    optimizer = torch.optim.Adam([*embedding.parameters(), *net.parameters()], lr=1e-3, fused=True)
    states, actions = torch.randint(0, 4, (128,)), torch.randint(0, 2, (128, 1))
    advantages = torch.randn(128)
    began = time.perf_counter()
    for _ in range(updates):
        optimizer.zero_grad()
        log_probs = torch.log_softmax(net(embedding(states)), -1).gather(1, actions).squeeze(1)
        loss = -(log_probs * advantages).mean()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - began) / updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/line_world.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bare_update(100), default_run(0), many_lanes(0), notebook(3)  # warm up
    rows: dict[str, list[float]] = {name: [] for name in ("a", "b", "c", "d")}
    for number in range(arguments.rounds):
        rows["a"].append(notebook(20) * 1e6)
        rows["b"].append(default_run(number) * 1e6)
        rows["c"].append(many_lanes(number) / 1e6)
        rows["d"].append(bare_update() * 1e6)
    pairs = list(zip(*rows.values(), strict=True))
    ratios = {
        "b against a (updates/s)": [a / b for a, b, _, _ in pairs],
        "b against d (time an update)": [b / d for _, b, _, d in pairs],
    }
    names = {
        "a": "notebook, µs/update",
        "b": "default run, µs/update",
        "c": "4096 lanes, M steps/s",
        "d": "bare update, µs",
    }
    table = {names[key]: numbers for key, numbers in rows.items()} | ratios
    result = {
        "machine": f"{processor()}, 1 thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "framework": framework.__version__,
        },
        "rounds": arguments.rounds,
        "rows": {name: spread(numbers) for name, numbers in table.items()},
    }
    print(result["machine"], result["versions"])
    for name, row in result["rows"].items():
        print(f"{name:32} {row['median']:>12,.2f}   ({row['min']:,.2f} to {row['max']:,.2f})")
    if arguments.write:
        write("line_world", result)


if __name__ == "__main__":
    main()
