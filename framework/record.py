"""A run's record on disk: what lies in `runs/NAME/`, written and read. No pickle anywhere.

config.toml           the complete configuration; `framework run --config` repeats the run from it
plugins.json          each used plugin's name, version, distribution and SHA-256; versions of Python and torch
metrics.csv           a row an iteration; a number that does not exist (no episode ended) is left empty
spaces.json           the spaces of observations and actions, so that a policy is read back without its environment
gradients.json        the first update's gradient norms: by term of the loss, then by group of the policy's parameters
policy.safetensors    the final parameters and buffers
best.safetensors      those of the best evaluation, where the extension `evaluate` works
extensions.safetensors  what extensions and the baseline keep, as NAME.key and baseline.key; absent if nothing
learning_curve.png    mean return over environment steps
error.txt             the traceback, where the run failed
"""

import csv
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import Config, read_toml, to_tree, used
from .errors import PartError, UsageError
from .plugins import Loaded
from .run import Run
from .spaces import Spaces, from_json, to_json

CONFIG, PLUGINS, METRICS, GRADIENTS = "config.toml", "plugins.json", "metrics.csv", "gradients.json"
POLICY, BEST, EXTENSIONS = "policy.safetensors", "best.safetensors", "extensions.safetensors"
CURVE, ERROR, SPACES = "learning_curve.png", "error.txt", "spaces.json"


def claim(directory: Path) -> Path:
    """Make the folder of a new run; `UsageError` where it exists or cannot be made."""
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"the run directory {directory} exists: choose another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"the run directory {directory} cannot be made: {error.strerror}") from None
    return directory


def claim_next(root: Path, stem: str) -> Path:
    """Make the first free one of `root/stem-1`, `root/stem-2`, …; safe against another run doing the same."""
    number = 1
    while True:
        directory = root / f"{stem}-{number}"
        if not directory.exists():
            try:
                return claim(directory)
            except UsageError:
                if not directory.exists():  # not taken meanwhile: it cannot be made at all
                    raise
        number += 1


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none: under a temporary name, flushed, then renamed."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_config(directory: Path, config: Config, loaded: Loaded) -> None:
    """config.toml and plugins.json."""
    write_text(directory / CONFIG, tomli_w.dumps(to_tree(config, loaded)))
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    described = [plugin.describe() for plugin in used(config, loaded)]
    write_text(directory / PLUGINS, json.dumps({"versions": versions, "plugins": described}, indent=2) + "\n")


def write_spaces(directory: Path, environment: Any) -> None:
    """spaces.json; nothing where it cannot hold them."""
    written = [to_json(space) for space in (environment.observation_space, environment.action_space)]
    if None not in written:
        observations, actions = written
        text = json.dumps({"observations": observations, "actions": actions}, allow_nan=False)
        write_text(directory / SPACES, text + "\n")


def read_spaces(directory: Path) -> Spaces | None:
    """The spaces of a recorded run; None where the record does not say them."""
    path = directory / SPACES
    if not path.is_file():
        return None
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return from_json(written["observations"]), from_json(written["actions"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{path} does not hold the spaces of a run: {type(error).__name__}: {error}") from None


def write_gradients(directory: Path, norms: Mapping[str, Mapping[str, float]]) -> None:
    """gradients.json."""
    write_text(directory / GRADIENTS, json.dumps(norms, indent=2) + "\n")


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration tree of a recorded run."""
    if not directory.is_dir():
        raise UsageError(f"no run directory {directory}")
    return read_toml(directory / CONFIG)


class MetricsFile:
    """metrics.csv, flushed row by row; its columns are the first row's, and it is written anew if others appear."""

    def __init__(self, path: Path) -> None:
        """Open it; the header comes with the first row."""
        self.path = path
        self.columns: list[str] = []
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)

    def add(self, metrics: Mapping[str, float], history: Mapping[str, list[float]]) -> None:
        """Append this iteration's row; `history` holds all rows, should new columns make them all be written anew."""
        if metrics.keys() <= set(self.columns):
            self._write(metrics.get(name, math.nan) for name in self.columns)
        else:
            self.columns = list(history)
            self._file.seek(0)
            self._file.truncate()
            self._writer.writerow(self.columns)
            length = max(len(column) for column in history.values())
            padded = [column + [math.nan] * (length - len(column)) for column in history.values()]
            for row in zip(*padded, strict=True):
                self._write(row)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, row: Iterable[float]) -> None:
        self._writer.writerow(["" if number != number else repr(number) for number in row])


def write_policy(directory: Path, policy: nn.Module, name: str = POLICY) -> None:
    """policy.safetensors, or another file; whole or not at all."""
    _write_tensors(directory / name, policy.state_dict())


def write_states(directory: Path, run: Run) -> None:
    """extensions.safetensors, where an extension or the baseline has state.

    Raises:
        PartError: a `state_dict` is no dict of tensors.
    """
    tensors: dict[str, Tensor] = {}
    for name, part in (*run.extensions.items(), ("baseline", run.baseline)):
        if not hasattr(part, "state_dict"):
            continue
        state = part.state_dict()
        for key, tensor in state.items():
            if not isinstance(tensor, Tensor):
                got = type(tensor).__name__
                raise PartError(f"{run.owners[id(part)]}: state_dict: '{key}': expected a tensor, got {got}")
            tensors[f"{name}.{key}"] = tensor
    if tensors:
        _write_tensors(directory / EXTENSIONS, tensors)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    mode = temporary.stat().st_mode
    save_file(copied(tensors), temporary)
    temporary.chmod(mode)  # as of the record's other files; safetensors lets nobody else read
    temporary.replace(path)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, such as of a policy's `state_dict()`."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def read_policy(directory: Path, policy: nn.Module, name: str = POLICY) -> None:
    """Put the recorded parameters into a policy of the same shape."""
    path = directory / name
    if not path.is_file():
        reason = "the run did not finish" if name == POLICY else "train with --extensions evaluate to keep the best"
        raise UsageError(f"{directory} has no {name}: {reason}")
    try:
        tensors = load_file(path)
    except Exception as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    refuse_other_numbers(path, tensors, policy.state_dict())
    try:
        policy.load_state_dict(tensors)
    except Exception as error:
        raise UsageError(f"{path} does not fit the recorded policy: {error}") from error


def refuse_other_numbers(path: Path, tensors: Mapping[str, Tensor], built: Mapping[str, Tensor]) -> None:
    """Refuse what `load_state_dict` takes without a word: another dtype, which it casts, and numbers not finite.

    Args:
        path: what was read.
        tensors: the parameters and buffers in it.
        built: those of the policy as it was built. What is not finite there may be so in `tensors`, such as a mask.

    Raises:
        UsageError: names file and tensor.
    """
    for name, tensor in tensors.items():
        mine = built.get(name)
        if mine is None or mine.shape != tensor.shape:  # `load_state_dict` refuses it
            continue
        if tensor.dtype != mine.dtype:
            raise UsageError(f"{path}: '{name}' is {tensor.dtype}, and the policy's is {mine.dtype}")
        wrong = ~tensor.isfinite() & mine.to(tensor.device).isfinite()
        if bool(wrong.any()):
            some = f"{int(wrong.sum())} of {wrong.numel()} numbers, such as {tensor[wrong][0].item()}"
            raise UsageError(
                f"{path}: '{name}' is not finite: {some}; the run's policy had diverged, or the file broke"
            )
