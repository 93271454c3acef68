"""A run's record on disk: the files in `runs/NAME/`, written and read without pickle.

config.toml           the complete configuration; `framework run --config` repeats the run from it
plugins.json          the code that was used: plugins, files, versions; BLAS and OpenMP libraries with their threads
signature.json        that this user made the record, so that the code that its configuration names is trusted
metrics.csv           a row an iteration; a number that does not exist (no episode ended) is left empty
spaces.json           the spaces of observations and actions, so that a policy is read back without its environment
gradients.json        the first update's gradient norms: by term of the loss, then by group of the policy's parameters
policy.safetensors    the final parameters and buffers
last.safetensors      the last finite ones, if the run failed
best.safetensors      those of the best evaluation, with the extension `evaluate`
*.environment.safetensors  statistics of the environment's wrappers, for each policy; absent if there are none
extensions.safetensors  state of extensions and baseline, as NAME.key and baseline.key; absent if there is none
learning_curve.png    mean return over environment steps
error.txt             the error in a line, then its traceback, where the run failed

Each file is written whole or not at all, but metrics.csv, whose rows are appended.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..config import Config
from ..errors import PartError, UsageError, warn
from ..parts import Loaded
from ..reporting.metrics_file import METRICS, MetricsFile, read_metrics, write_rows
from ..run import Run
from ..setup.tree import to_tree, used
from ..spaces import Spaces, from_json, to_json
from ..state import part_state
from .environment_state import beside, carried, read
from .files import PART, write_bytes
from .provenance import describe_code, imports, not_repeatable
from .signing import SIGNATURE, sign

__all__ = ["METRICS", "MetricsFile", "read_metrics", "write_rows"]

CONFIG, PLUGINS, GRADIENTS = "config.toml", "plugins.json", "gradients.json"
POLICY, BEST, LAST, EXTENSIONS = "policy.safetensors", "best.safetensors", "last.safetensors", "extensions.safetensors"
CURVE, ERROR, SPACES = "learning_curve.png", "error.txt", "spaces.json"
BESIDE = tuple(beside(name) for name in (POLICY, BEST, LAST))
FILES = (
    *(CONFIG, PLUGINS, SIGNATURE, METRICS, SPACES, GRADIENTS),
    *(POLICY, BEST, LAST, *BESIDE, EXTENSIONS, CURVE, ERROR),
)
WITHOUT_ROWS = {
    CONFIG,
    PLUGINS,
    SIGNATURE,
    METRICS,
    SPACES,
    GRADIENTS,
    ERROR,
}  # of a run that failed in its first iteration


def create_run_directory(directory: Path) -> Path:
    """Make the folder of a new run; `UsageError` where it exists or cannot be made.

    A folder that only holds a run that failed before its first row is replaced.
    """
    if _is_empty_failure(directory):
        discarded = directory.with_name(f".{directory.name}.{os.getpid()}{PART}")
        directory.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        state = "exists"
        if reason := failure(directory):
            state = f"holds a run that failed ({reason})"
        raise UsageError(f"the run directory {directory} {state}: choose another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"the run directory {directory} cannot be made: {error.strerror}") from None
    return directory


def create_next_run_directory(root: Path, stem: str) -> Path:
    """Make the first free one of `root/stem-1`, `root/stem-2`, …; safe against another run doing the same."""
    number = 1
    while True:
        directory = root / f"{stem}-{number}"
        if not directory.exists():
            try:
                return create_run_directory(directory)
            except UsageError:
                if not directory.exists():  # it was not taken meanwhile, but cannot be made
                    raise
        number += 1


def _is_empty_failure(directory: Path) -> bool:
    """Whether a folder holds a run that failed before its first row of metrics, and nothing else."""
    if directory.is_symlink() or not (directory / ERROR).is_file():
        return False
    names = {path.name for path in directory.iterdir()}
    try:
        return names <= WITHOUT_ROWS and not (METRICS in names and any(map(len, read_metrics(directory).values())))
    except UsageError:
        return False


def failure(directory: Path) -> str:
    """Why a recorded run failed, in one line; empty if it did not."""
    try:
        with (directory / ERROR).open(encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none."""
    write_bytes(path, text.encode())


def clean(directory: Path, age: float = 0.0) -> None:
    """Remove temporary files of at least `age` seconds, which a killed process left."""
    for name in FILES:
        temporary = directory / f"{name}{PART}"
        with contextlib.suppress(OSError):  # there is none, or the folder is read-only
            if time.time() - temporary.stat().st_mtime >= age:
                temporary.unlink()


def write_config(directory: Path, config: Config, loaded: Loaded) -> None:
    """config.toml, plugins.json, and this user's signature of them; warns of parts that cannot be repeated."""
    configuration = tomli_w.dumps(to_tree(config, loaded))
    plugins = json.dumps(describe_code(config, loaded), indent=2) + "\n"
    write_text(directory / CONFIG, configuration)
    write_text(directory / PLUGINS, plugins)
    try:
        signature = sign(configuration.encode(), plugins.encode())
    except OSError as error:
        if any(not plugin.distribution for plugin in used(config, loaded)) or any(map(imports, config.parts)):
            warn(f"this record cannot be signed ({error}): to read it back will take --trust")
    else:
        write_text(directory / SIGNATURE, signature)
    if unrepeatable := not_repeatable(config, loaded):
        warn(
            f"the record of this run cannot repeat it: {'; '.join(unrepeatable)}. Offer it by a plugin, in a file of "
            "its own (mine.py), import it from there, and name the plugin: framework.train(…, plugins='mine')"
        )


def write_spaces(directory: Path, environment: Any) -> None:
    """Write spaces.json, if it can represent the spaces."""
    encoded = [to_json(space) for space in (environment.observation_space, environment.action_space)]
    if None not in encoded:
        observations, actions = encoded
        text = json.dumps({"observations": observations, "actions": actions}, allow_nan=False)
        write_text(directory / SPACES, text + "\n")


def read_spaces(directory: Path) -> Spaces | None:
    """The spaces of a recorded run; None if the record has none."""
    path = directory / SPACES
    if not path.is_file():
        return None
    try:
        encoded = json.loads(path.read_bytes())
        return from_json(encoded["observations"]), from_json(encoded["actions"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{path} does not hold the spaces of a run: {type(error).__name__}: {error}") from None


def write_gradients(directory: Path, norms: Mapping[str, Mapping[str, float]]) -> None:
    """gradients.json."""
    write_text(directory / GRADIENTS, json.dumps(norms, indent=2) + "\n")


def write_policy(directory: Path, policy: nn.Module, name: str = POLICY) -> None:
    """policy.safetensors, or another file; whole or not at all."""
    write_tensors(directory / name, policy.state_dict())
    if statistics := carried(policy):
        write_tensors(directory / beside(name), statistics)


def write_states(directory: Path, run: Run) -> None:
    """extensions.safetensors, where an extension or the baseline has state.

    Raises:
        PartError: a `state_dict` raised, or is no dict of tensors; the state of the others is written all the same.
    """
    tensors: dict[str, Tensor] = {}
    first_error: PartError | None = None
    for name, part in (*run.extensions.items(), ("baseline", run.baseline)):
        if not hasattr(part, "state_dict"):
            continue
        try:
            tensors |= {f"{name}.{key}": tensor for key, tensor in part_state(part, run.label_of(part)).items()}
        except PartError as error:
            first_error = first_error or error
    if tensors:
        write_tensors(directory / EXTENSIONS, tensors)
    if first_error is not None:
        raise first_error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file; whole or not at all."""
    write_bytes(path, save(copied(tensors)))  # not save_file, which does not raise OSError


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, such as of a policy's `state_dict()`."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def policy_file(best: bool, last: bool, directory: Path) -> str:
    """The file of the policy to read: of the best evaluation, the last one, or the final one.

    Raises:
        UsageError: both `best` and `last` are set.
    """
    if best and last:
        raise UsageError("'best' and 'last' cannot be given together: choose one policy")
    if best:
        return BEST
    return LAST if last and not (directory / POLICY).is_file() else POLICY


def read_policy(directory: Path, policy: nn.Module, name: str = POLICY) -> None:
    """Load the recorded parameters into a policy of the same shape."""
    path = directory / name
    if not path.is_file():
        raise UsageError(f"{directory} has no {name}: {_why_missing(directory, name)}")
    try:
        tensors = load_file(path)
    except Exception as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    refuse_other_numbers(path, tensors, policy.state_dict())
    try:
        policy.load_state_dict(tensors)
    except Exception as error:
        raise UsageError(f"{path} does not fit the recorded policy: {error}") from error
    read(path, policy)


def refuse_other_numbers(path: Path, tensors: Mapping[str, Tensor], built: Mapping[str, Tensor]) -> None:
    """Refuse what `load_state_dict` accepts silently: another dtype, which it casts, and numbers that are not finite.

    Args:
        path: the file that was read.
        tensors: the parameters and buffers in it.
        built: those of the new policy. What is not finite there, such as a mask, may be so in `tensors`.

    Raises:
        UsageError: names file and tensor.
    """
    for name, tensor in tensors.items():
        expected = built.get(name)
        if expected is None or expected.shape != tensor.shape:  # `load_state_dict` refuses it
            continue
        if tensor.dtype != expected.dtype:
            raise UsageError(f"{path}: '{name}' is {tensor.dtype}, and the policy's is {expected.dtype}")
        wrong = ~tensor.isfinite() & expected.to(tensor.device).isfinite()
        if bool(wrong.any()):
            count = f"{int(wrong.sum())} of {wrong.numel()} numbers, such as {tensor[wrong][0].item()}"
            raise UsageError(
                f"{path}: '{name}' is not finite: {count}; the run's policy had diverged, or the file is damaged"
            )


def _why_missing(directory: Path, name: str) -> str:
    """Why a file is missing, and what can be loaded instead."""
    if name == BEST:
        return "train with --extensions evaluate to keep the best"
    reason = failure(directory)
    state = f"the run failed ({reason})" if reason else "the run did not finish (it was killed, or still runs)"
    alternatives = [
        f"{flag} (in Python {flag[2:]}=True) for {content}"
        for file, content, flag in (
            (LAST, "the parameters before the failure", "--last"),
            (BEST, "those of the best evaluation", "--best"),
        )
        if name != file and (directory / file).is_file()
    ]
    return f"{state}. Use {', or '.join(alternatives)}" if alternatives else state
