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
            "| the notebook's job | median | range |",
            "|---|---|---|",
            *(
                f"| {name} | {row['median']:,.2f} | {row['min']:,.2f} to {row['max']:,.2f} |"
                for name, row in rows.items()
            ),
        ]
    )


TABLES = {"cartpole": cartpole, "line world": line_world}

if __name__ == "__main__":
    for made in TABLES.values():
        print(made(), end="\n\n")
