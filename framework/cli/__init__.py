"""The command line: `framework COMMAND …`.

A command's file is imported when it is called; this one imports no torch.
"""

import gc
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ..errors import FrameworkError, PartError, UsageError, say, unknown
from ..version import __version__
from .output import OutputError, kept, results

HOME = Path(__file__).parent.parent

COMMANDS = {
    "run": "train: the notebook's job, or what flags, a recipe or a file say",
    "show": "print the resolved configuration, without training",
    "evaluate": "let a recorded policy play, and say how well it does",
    "audit": "measure bias and variance of the gradient that estimators, baselines and losses make",
    "credit": "draw the credit that each estimator gives to the steps of one episode",
    "check": "put a part, or all that a plugin or file offers, to the laws of its role",
    "plugins": "list what is installed, what each offers, what failed and why",
    "new": "write a package with a part of your own in it, and its test",
}

HELP = """usage: framework COMMAND [OPTIONS]

Policy-gradient reinforcement learning in which every part is a plugin.

commands:
{commands}

  framework COMMAND --help   a command's options, those of the chosen parts included
  framework --version        the version

examples:
  framework run
  framework run --environment.goal 8 --baseline leave_one_out
  framework run --plugins ./my_estimator.py --estimator mine
  framework evaluate runs/NAME --episodes 1000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    0: done; 1: the run failed, or its result cannot be printed; 2: it was asked for wrongly; 128 + S: interrupted by
    signal S.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    usual, warnings.formatwarning = warnings.formatwarning, _worded
    with kept():
        try:
            return _main(arguments)
        except FrameworkError as error:
            say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
            return 1 if isinstance(error, PartError | OutputError) else 2
        except KeyboardInterrupt:
            say("interrupted")
            return 130
        finally:
            warnings.formatwarning = usual


def _main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        commands = "\n".join(f"  {name:<{width}}   {text}" for name, text in COMMANDS.items())
        with results():
            print(HELP.format(commands=commands), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        with results():
            print(f"framework-rl {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        raise UsageError(unknown("command", command, COMMANDS))
    return int(_imported(f"{__name__}.{command}").main(rest))


def _worded(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of this framework's without the line of source that gave it; others as usual."""
    if Path(filename).is_relative_to(HOME):
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _imported(name: str) -> ModuleType:
    """A command's module, imported without looking for garbage.

    Torch and what comes with it are 180,000 objects that stay. To search them takes 0.2 s while they are imported, and
    0.1 s in every full collection after that.
    """
    if name in sys.modules:
        return sys.modules[name]
    _wait_without_spinning()
    collecting = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()  # from now on only what is made later is searched
        if collecting:
            gc.enable()


def _wait_without_spinning() -> None:
    """Let GNU's OpenMP, which reads this when torch is imported, hand the processor over while its threads wait.

    By itself it spins for milliseconds at the end of each kernel. Where another process has the processor meanwhile,
    that takes 8 times as long as one thread does: `--threads 2` with a policy of small kernels seems to hang.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"
