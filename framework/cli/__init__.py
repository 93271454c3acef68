"""The command line: `framework COMMAND …`.

A command's module is imported when the command runs; this one does not import torch.
"""

import errno
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ..errors import FrameworkError, PartError, UsageError, say, unknown, visible
from ..version import __version__
from .help import wrap_help
from .output import OutputError, redirected, results

HOME = Path(__file__).parent.parent

GROUPS = {
    "train": {
        "run": "train a policy and record the run",
        "show": "print the configuration that a run would use",
        "evaluate": "measure, and film, how well a recorded policy plays",
    },
    "compare parts": {
        "plugins": "list the installed plugins and the parts that they offer",
        "audit": "measure bias and variance of the gradient for each combination",
        "credit": "draw how each estimator credits the steps of an episode",
    },
    "write parts": {
        "new": "write a package with a part of your own and its test",
        "check": "test parts against the laws of their roles",
    },
    "set up": {"completion": "print the completion script for bash or zsh"},
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}

HELP = """usage: framework COMMAND [OPTIONS]

Policy-gradient reinforcement learning in which every part is a plugin.

{commands}

examples:
  framework run
  framework run --recipe ppo \\
      --environment gymnasium --environment.id CartPole-v1
  framework evaluate runs/CartPole-v1-ppo-1 --episodes 100
  framework run --plugins ./my_estimator.py --estimator mine
  framework run --recipe ppo --estimator vtrace --help

options:
  -h, --help   this help; after a command: its options and those of the parts
  --version    the version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Exit code 0: done; 1: the run failed, or its result cannot be printed; 2: wrong arguments; 128 + S: interrupted
    by signal S.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    previous, warnings.formatwarning = warnings.formatwarning, _format_warning
    with redirected(ends=argv is None):
        try:
            return _main(arguments)
        except FrameworkError as error:
            say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
            return 1 if isinstance(error, PartError | OutputError) else 2
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            say(f"error: a name of a file or folder is too long: {str(error.filename)[:80]} …")
            return 2
        except KeyboardInterrupt:
            say("interrupted")
            return 130
        finally:
            warnings.formatwarning = previous


def _main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        with results():
            print(wrap_help(HELP.format(commands=_command_list())), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        with results():
            print(f"framework-rl {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        raise UsageError(unknown("command", command, COMMANDS))
    return int(_imported(f"{__name__}.{command}").main(rest))


def _command_list() -> str:
    """The commands by group, one line each."""
    width = max(map(len, COMMANDS))
    groups = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}   {text}" for name, text in commands.items())])
        for title, commands in GROUPS.items()
    ]
    return "\n\n".join(groups)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of this framework without its line of source; others as usual."""
    if Path(filename).is_relative_to(HOME):
        return visible(f"warning: {message}\n", but="\n\t")
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _imported(name: str) -> ModuleType:
    """A command's module, imported with garbage collection off.

    Torch and its dependencies are 180,000 objects that stay. The collector would spend 0.2 s on them during the import,
    and 0.1 s in every full collection after that.
    """
    if name in sys.modules:
        return sys.modules[name]
    _wait_without_spinning()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()  # later collections skip these objects
        if was_enabled:
            gc.enable()


def _wait_without_spinning() -> None:
    """Let the threads of GNU OpenMP, which reads this when torch is imported, yield the processor while they wait.

    By default they spin for milliseconds at the end of each kernel. If another process uses the processor meanwhile, a
    run takes 8 times as long as with one thread: `--threads 2` with a policy of small kernels seems to hang.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"
