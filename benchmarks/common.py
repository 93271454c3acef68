"""What the benchmarks share: the machine's name, medians and ranges, virtual environments, result files."""

import json
import math
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE.parent / "constraints.txt"


def processor() -> str:
    """The processor's name and how many of it there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]} × {len(models)}" if models else platform.processor()


def spread(numbers: Sequence[float], digits: int = 2) -> dict[str, float | None]:
    """Median and range, rounded; None for what is infinite, which JSON has no word for."""
    found = {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers)}
    return {name: round(number, digits) if math.isfinite(number) else None for name, number in found.items()}


def environment(directory: Path, *installs: Sequence[str]) -> Path:
    """The interpreter of a virtual environment, which is made first where it is not there; one `pip install` a list.

    Raises:
        RuntimeError: pip failed; with the last of its errors.
    """
    python = directory / "bin" / "python"
    wanted = "\n".join(" ".join(install) for install in installs)
    ready = directory / "ready"
    if ready.exists() and ready.read_text() == wanted:
        return python
    print(f"making {directory.name} …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
    for install in installs:
        done = subprocess.run([python, "-m", "pip", "install", "-q", *install], capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            causes = [line.strip() for line in lines if re.match(r"\s*[\w.]+(Error|Exception): |ERROR: ", line)]
            raise RuntimeError((causes or lines)[-1])
    ready.write_text(wanted)
    return python


def write(name: str, result: dict[str, Any], indent: int = 2) -> None:
    """benchmarks/results/NAME.json."""
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=indent, ensure_ascii=False) + "\n")
