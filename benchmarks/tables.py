"""The tables of README.md and docs/performance.md, from benchmarks/results/.

    python benchmarks/tables.py

Prints each; the tests look them up in the pages, so that these quote what was measured.
"""

import json
from typing import Any

from common import HERE

NAMES = {
    "framework": "this framework, its own CartPole",
    "framework gymnasium": "this framework, Gymnasium's CartPole",
    "framework compiled": "… its own, `--compile`",
    "purejaxrl": "PureJaxRL-style loop (JAX)",
    "sb3": "Stable-Baselines3",
    "cleanrl": "CleanRL-style loop",
    "skrl": "skrl",
    "torchrl": "TorchRL",
    "tianshou": "Tianshou",
    "rllib": "RLlib",
    "framework 512 lanes": "this framework, 512 lanes",
    "framework 512 lanes compiled": "… 512 lanes, `--compile`",
    "sb3 512 lanes": "Stable-Baselines3, 512 lanes",
}


OF_PARTS = {
    "environment": "environment",
    "policy": "policy",
    "walk": "environment and policy, from tables",
    "estimator and baseline": "estimator and baseline",
    "extensions": "extensions",
    "loss, backward, clipping, optimizer": "loss, backward, clipping, optimizer",
    "framework": "the framework",
}
STARTED = (
    "to the first update, ms",
    "import torch, ms",
    "more than import torch, ms",
    "more than import torch, CPU time, ms",
)


def read(name: str) -> dict[str, Any]:
    """A result file."""
    found: dict[str, Any] = json.loads((HERE / "results" / f"{name}.json").read_text())
    return found


def number(row: dict[str, Any] | None, digits: int = 0, bounds: bool = False) -> str:
    """A median, with its range where wanted."""
    if row is None or row["median"] is None:
        return "–"
    written = f"{row['median']:,.{digits}f}"
    return f"{written} ({row['min']:,.{digits}f}–{row['max']:,.{digits}f})" if bounds else written


def cartpole() -> str:
    """PPO on CartPole beside the peers."""
    lines = [
        "| PPO on CartPole-v1 | steps/s | × Stable-Baselines3 | command to solved, s | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    rows = read("cartpole_ppo")["rows"]
    for side, name in NAMES.items():
        row = rows.get(side)
        if row is None:
            continue
        cells = (
            number(row.get("steps/s")),
            number(row.get("steps/s against sb3"), 2, bounds=True),
            number(row.get("command to solved, s"), 1, bounds=True),
            number(row.get("peak RSS, MB")),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def line_world() -> str:
    """The notebook's job."""
    rows = read("line_world")["rows"]
    return "\n".join(
        [
            "| line world, default run | median | range |",
            "|---|---|---|",
            *(
                f"| {name} | {row['median']:,.2f} | {row['min']:,.2f} to {row['max']:,.2f} |"
                for name, row in rows.items()
            ),
        ]
    )


def shares(run: str, title: str) -> str:
    """What takes an iteration's time, by lanes."""
    measured = read("overhead")["shares"]
    cases = {name.removeprefix(f"{run}, "): rows for name, rows in measured.items() if name.startswith(f"{run}, ")}
    one = next(iter(cases.values()))
    parts = [name for name in OF_PARTS if one[name]["median"]]
    return "\n".join(
        [
            f"| {title}, µs an iteration at | {' | '.join(cases).replace('1 lanes', '1 lane')} |",
            f"|---{'|---' * len(cases)}|",
            *(
                f"| {OF_PARTS.get(name, name)} | {' | '.join(number(rows[name]) for rows in cases.values())} |"
                for name in parts
            ),
            f"| its share, % | {' | '.join(number(rows['share, %'], 1) for rows in cases.values())} |",
        ]
    )


def startup() -> str:
    """From the command to the first update."""
    rows = read("startup")["rows"]
    commands = [name.removesuffix(f": {STARTED[0]}") for name in rows if name.endswith(f": {STARTED[0]}")]
    return "\n".join(
        [
            "| milliseconds, medians | to the first update | `import torch` alone | difference | in processor time |",
            "|---|---|---|---|---|",
            *(
                f"| `{command}` | {' | '.join(number(rows[f'{command}: {name}']) for name in STARTED)} |"
                for command in commands
            ),
        ]
    )


TABLES = {
    "cartpole": cartpole,
    "line world": line_world,
    "shares of PPO": lambda: shares("cartpole, ppo", "PPO on CartPole"),
    "shares of the default run": lambda: shares("line world", "the default run"),
    "start-up": startup,
}

if __name__ == "__main__":
    for made in TABLES.values():
        print(made(), end="\n\n")
