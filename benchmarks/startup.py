"""How long does a run take to begin, and to end, and why?

    python benchmarks/startup.py [--rounds 7] [--write]

Each command is a process of its own, timed from before it is made to the end of its first optimizer step; in turn with
`python -c "import torch"`, which is what no run can do without. The bar: at most half a second more than that. Stamps
are taken by wrapping functions from outside, which costs microseconds. For the first command, too: what its imports
consist of (by `-X importtime`, under which they are slower: read that as shares), and what comes after the last of 100
iterations. On a machine with other work, read the processor's time.

Compiled files lie in a temporary folder and are warm, as they are from a user's second run on. `--write` puts the
numbers into benchmarks/results/startup.json.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import processor, spread, write

COMMANDS = {
    "framework run": [],
    "framework run --recipe ppo --environment cartpole": ["--recipe", "ppo", "--environment", "cartpole"],
    "framework run --recipe ppo, Gymnasium's CartPole-v1": (
        ["--recipe", "ppo", "--environment", "gymnasium", "--environment.id", "CartPole-v1"]
    ),
}
TORCH = "import torch"

STAMPED = """
import importlib, json, sys, time
stamps = {"interpreter": time.time()}
until, sys.argv = sys.argv[1], ["framework", "run", *sys.argv[2:]]

def stamp(name):
    stamps.setdefault(name, time.time())

def stop_here():
    import os
    print(json.dumps({**stamps, "CPU": time.process_time()}), flush=True)
    os._exit(0)

def after(owner, name, label, then=lambda made: None):
    real = getattr(owner, name)
    def timed(*arguments, **keywords):
        made = real(*arguments, **keywords)
        stamp(label)
        then(made)
        return made
    setattr(owner, name, timed)

def built(run):
    from framework import hookimpl
    class Watch:
        @hookimpl(trylast=True)
        def run_started(self):
            stamp("reports")
        @hookimpl(tryfirst=True)
        def run_finished(self):
            stamp("trained")
    run.manager.register(Watch())
    after(run.optimizer, "step", "first update", lambda made: stop_here() if until == "update" else None)

real = importlib.import_module
def import_module(name, package=None):
    module = real(name, package)
    if module.__name__ == "framework.cli.run":
        stamp("imports")
        after(sys.modules["framework.cli.options"], "load", "plugins")
        after(module, "resolve", "command line")
        after(module, "build", "build", built)
        after(module, "execute", "record and picture")
    return module
importlib.import_module = import_module
from framework.cli import main
main()
stamp("summary")
print(json.dumps(stamps), flush=True)
"""


class Process:
    """Starts Python with a folder for compiled files, in a folder for records."""

    def __init__(self, folder: Path, path: Sequence[str] = ()) -> None:
        self.folder, self.count = folder, 0
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.environment |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "MPLCONFIGDIR": str(folder)}
        path = [*path, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment["PYTHONPATH"] = os.pathsep.join(path)

    def __call__(self, *words: str) -> tuple[float, str, str, float]:
        """When it was started, what it said on standard output and error, and when it was over."""
        began = time.time()
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        )
        return began, done.stdout, done.stderr, time.time()

    def name(self) -> list[str]:
        """Flags for a record of its own."""
        self.count += 1
        return ["--name", f"run-{self.count}"]

    def phases(self, until: str, words: Sequence[str], *python: str) -> dict[str, float]:
        """Milliseconds of each phase of a run, to its first `update` or to its `end`."""
        began, said, _, over = self(*python, "-c", STAMPED, until, *words, *self.name())
        stamps = json.loads(said.splitlines()[-1])
        processor = {"CPU time": stamps.pop("CPU") * 1e3} if "CPU" in stamps else {}
        if until == "end":
            stamps["exit"] = over
        ordered = sorted(stamps.items(), key=lambda item: item[1])
        earlier = [began, *(moment for _, moment in ordered)]
        phases = {name: (moment - before) * 1e3 for (name, moment), before in zip(ordered, earlier, strict=False)}
        return {**phases, **({"to the first update": sum(phases.values())} if until == "update" else {}), **processor}

    def torch(self) -> dict[str, float]:
        """Milliseconds to the end of `import torch`."""
        code = f"{TORCH}; import os, time; print(time.time(), time.process_time(), flush=True); os._exit(0)"
        began, said, _, _ = self("-c", code)
        moment, processor = map(float, said.split())
        return {"import torch": (moment - began) * 1e3, "import torch, CPU time": processor * 1e3}

    def imports(self, *words: str) -> dict[str, tuple[float, int]]:
        """Milliseconds and modules of each top-level package, each module's own time."""
        _, _, said, _ = self("-X", "importtime", *words)
        time_of: Counter[str] = Counter()
        modules: Counter[str] = Counter()
        for own, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", said, re.M):
            package = module.partition(".")[0]
            package = (
                "framework" if package.startswith("framework") else "Python's" if _is_pythons(package) else package
            )
            time_of[package] += int(own)
            modules[package] += 1
        return {package: (own / 1e3, modules[package]) for package, own in time_of.most_common()}


def _is_pythons(package: str) -> bool:
    return package in sys.stdlib_module_names or package.startswith("_") or package in ("encodings", "sitecustomize")


def rows(rounds: Sequence[Mapping[str, float]], digits: int = 1) -> dict[str, dict[str, float | None]]:
    """Each quantity's median and range over the rounds."""
    return {name: spread([one[name] for one in rounds], digits) for name in rounds[0]}


def header(rounds: int) -> dict[str, Any]:
    """Machine, versions and rounds: what every result file begins with."""
    names = {"torch": "torch", "framework": "framework-rl"}
    versions = {"python": platform.python_version(), **{name: version(wheel) for name, wheel in names.items()}}
    return {"machine": f"{processor()}, 1 thread", "versions": versions, "rounds": rounds}


def show(title: str, table: Mapping[str, Mapping[str, float | None]]) -> None:
    """Print a table of medians and ranges."""
    print(f"\n{title}")
    for name, row in table.items():
        print(f"  {name:84} {row['median']:>10,.1f}   ({row['min']:,.1f} to {row['max']:,.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/startup.json")
    arguments = parser.parse_args()
    begun: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    ended: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        python = Process(Path(folder))
        for words in COMMANDS.values():  # warm up: compile every module, read every file once
            python.phases("end", [*words, "--iterations", "1"])
        python.torch()
        for _ in range(arguments.rounds):
            for name, words in COMMANDS.items():
                alone, phases = python.torch(), python.phases("update", words)
                more = {"more than import torch": phases["to the first update"] - alone["import torch"]}
                more["more than import torch, CPU time"] = phases["CPU time"] - alone["import torch, CPU time"]
                begun[name].append({**phases, **alone, **more})
            phases = python.phases("end", [])
            last = ("record and picture", "summary", "exit")
            ended.append({name: phases[name] for name in last})
        imports = python.imports("-c", STAMPED, "update", *python.name())
    result = header(arguments.rounds)
    result["rows"] = {
        f"{name}: {phase}, ms": row for name, phases in begun.items() for phase, row in rows(phases).items()
    }
    result["rows"] |= {f"framework run, end: {phase}, ms": row for phase, row in rows(ended).items()}
    result["imports"] = {name: {"ms": round(own, 1), "modules": count} for name, (own, count) in imports.items()}
    print(result["machine"], result["versions"])
    show("milliseconds", result["rows"])
    print("\nimports of `framework run`, by package (-X importtime)")
    for name, (own, count) in imports.items():
        if own >= 2:
            print(f"  {name:84} {own:>10,.1f} ms  {count:>5} modules")
    if arguments.write:
        write("startup", result)


if __name__ == "__main__":
    main()
