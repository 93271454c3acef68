"""What belongs to the whole process and decides what a run computes: the run sets it, keeps it, and puts it back.

Torch's default dtype and device, gradient and inference mode, thread counts, the working directory, and the global
generators of torch, numpy and Python are shared by everything in a process. A caller or a part that changes one of them
must not change a run silently. So a run works in a state of its own (`working`), looks at the end of each stage whether
a part has changed it (`restore_after`), and loads plugins likewise (`undisturbed`). Reading all of it takes 6 µs.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from attrs import evolve, frozen
from threadpoolctl import ThreadpoolController

from ..errors import UsageError, warn
from .randomness import Randomness

PATIENCE = 5.0  # seconds of waiting for a run in another thread, before a warning


@frozen
class State:
    """One moment's values; None: unknown."""

    directory: str | None
    dtype: torch.dtype
    device: torch.device
    gradients: bool
    inference: bool
    autocast: bool
    threads: int
    libraries: tuple[int, ...]  # threads of each BLAS and OpenMP library
    deterministic: bool
    anomaly: bool
    precision: str  # of float32 products

    @classmethod
    def read(cls) -> "State":
        """The values now."""
        made = torch.empty(0)  # one call reveals dtype, device and inference mode
        return cls(
            _directory(),
            made.dtype,
            made.device,
            torch.is_grad_enabled(),
            made.is_inference(),
            torch.is_autocast_enabled("cpu"),
            torch.get_num_threads(),
            tuple([library.get_num_threads() for library in _libraries()]),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_anomaly_enabled(),
            torch.get_float32_matmul_precision(),
        )


WORDS = {
    "directory": "the working directory",
    "dtype": "torch's default dtype",
    "device": "torch's default device",
    "gradients": "torch's gradient mode",
    "inference": "torch's inference mode",
    "autocast": "torch's autocast",
    "threads": "torch's number of threads",
    "libraries": "the number of threads of BLAS and OpenMP",
    "deterministic": "torch's deterministic algorithms",
    "anomaly": "torch's anomaly detection",
    "precision": "torch's float32 matmul precision",
}


class _Process:
    """What this module knows of the process."""

    lock = threading.RLock()  # held by the run that works
    own: State | None = None  # what the run that works wants
    leaving: ExitStack  # of that run
    for_good = ExitStack()  # never left: modes that a part entered and did not leave stay as they are put back
    warned: set[str]  # in that run
    forked = False  # and not yet known to have threads that work
    modules = -1  # imported when the libraries were looked for
    libraries: list[Any]


def _after_fork() -> None:
    """In a forked process: no other thread holds the lock, and the threads of OpenMP are gone."""
    _Process.lock, _Process.own, _Process.forked = threading.RLock(), None, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _libraries(look: bool = False) -> list[Any]:
    """The BLAS and OpenMP libraries. To look for them takes 2 ms, so that is done only after imports."""
    if _Process.modules < 0 or (look and _Process.modules != len(sys.modules)):
        _Process.modules = len(sys.modules)
        _Process.libraries = ThreadpoolController().lib_controllers
    return _Process.libraries


def libraries() -> list[dict[str, Any]]:
    """Name, version, architecture and number of threads of each BLAS and OpenMP library: what a record keeps."""
    kept = ("internal_api", "version", "architecture", "num_threads")
    found = [{**library.info(), "num_threads": library.get_num_threads()} for library in _libraries()]
    return [{name: library.get(name) for name in kept} for library in found]


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _write(name: str, value: Any, leaving: ExitStack) -> None:
    """Set one value; what torch offers as a context only is entered, and left with `leaving`."""
    if name == "directory":
        if value is not None:
            os.chdir(value)
    elif name == "dtype":
        torch.set_default_dtype(value)
    elif name == "device":
        torch.set_default_device(None)
        if torch.empty(0).device != value:
            torch.set_default_device(value)
    elif name == "gradients":
        torch.set_grad_enabled(value)
    elif name == "inference":
        leaving.enter_context(torch.inference_mode(value))
    elif name == "autocast":
        torch.set_autocast_enabled("cpu", value)
    elif name == "threads":
        torch.set_num_threads(value)
    elif name == "libraries":
        for library, number in zip(_libraries(), value, strict=False):
            library.set_num_threads(number)
    elif name == "deterministic":
        torch.use_deterministic_algorithms(value)
    elif name == "anomaly":
        torch.autograd.set_detect_anomaly(value)
    elif name == "precision":
        torch.set_float32_matmul_precision(value)


def _changes(now: State, wanted: State) -> list[str]:
    """What differs, in words; of threads, torch's number is enough."""
    names = [name for name in WORDS if getattr(now, name) != getattr(wanted, name)]
    if "threads" in names and "libraries" in names:
        names.remove("libraries")
    return [f"{WORDS[name]} from {getattr(wanted, name)} to {getattr(now, name)}" for name in names]


def _put_back(now: State, wanted: State, leaving: ExitStack) -> None:
    for name in WORDS:
        if getattr(now, name) != getattr(wanted, name):
            _write(name, getattr(wanted, name), leaving)


def _warn(label: str, changes: list[str]) -> None:
    warn(f"{label} changed {', '.join(changes)}: put back. Others in the process depend on it: leave it as it is")


@contextmanager
def alone() -> Iterator[None]:
    """One run at a time in a process: another thread waits here until it ends. A run within a run does not wait."""
    lock = _Process.lock
    if not lock.acquire(timeout=PATIENCE):
        warn(
            "waiting for a run in another thread of this process: they share torch's global generators and number of "
            "threads, so that they work one after the other. To run them at once, use processes. If that run waits for "
            "this thread, neither ends"
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def working(threads: int) -> Iterator[None]:
    """Give a run the process as it needs it, with so many threads; at the end, all is as the caller had it.

    Within: torch's default dtype float32, default device cpu, gradients on, no inference mode, no autocast. The global
    generators may be seeded and used.

    Raises:
        UsageError: this process was forked from one that used several threads, and `threads` of them would hang.
    """
    with alone():
        _refuse_lost_threads(threads)
        if _Process.own is None:
            _libraries(look=True)
        before, randomness = State.read(), Randomness()
        own = evolve(
            before,
            dtype=torch.float32,
            device=torch.device("cpu"),
            gradients=True,
            inference=False,
            autocast=False,
            threads=threads,
            libraries=(threads,) * len(before.libraries),
        )
        outer = _Process.own, getattr(_Process, "leaving", None), getattr(_Process, "warned", None)
        try:
            with ExitStack() as leaving:
                if before.device != own.device:
                    leaving.enter_context(own.device)
                _put_back(evolve(before, device=own.device), own, leaving)
                own = evolve(own, libraries=State.read().libraries)  # OpenBLAS takes 64 threads at most
                _Process.own, _Process.leaving, _Process.warned = own, leaving, set()
                try:
                    yield
                except Exception as error:
                    for change in _changes(State.read(), own):
                        error.add_note(f"When this was raised, a part had changed {change}.")
                    raise
        finally:
            _Process.own, _Process.leaving, _Process.warned = outer  # type: ignore[assignment]
            _put_back(State.read(), before, _Process.for_good)
            randomness.put_back()


def restore_after(label_of: Callable[[], str]) -> None:
    """Put back what a part has changed meanwhile, and warn: once in a run. `label_of` names the part."""
    own = _Process.own
    if own is None or (now := State.read()) == own:
        return
    changes = _changes(now, own)
    _put_back(now, own, _Process.leaving)
    label = label_of()
    if (text := f"{label} {changes}") not in _Process.warned:
        _Process.warned.add(text)
        _warn(label, changes)


@contextmanager
def undisturbed(label: str, generators: bool = True) -> Iterator[None]:
    """Put back what the code within changes, and warn; the global generators, too, whose reading takes 0.1 ms."""
    with alone():
        before, randomness = State.read(), Randomness() if generators else None
        try:
            yield
        finally:
            now = State.read()
            changes = _changes(now, before)
            _put_back(now, before, _Process.for_good)
            if randomness is not None:
                changes += randomness.put_back()
            if changes:
                _warn(label, changes)


def _refuse_lost_threads(threads: int) -> None:
    """In a forked process, OpenMP would wait for threads that only the parent has: one thread works, several may not.

    Whether they do is tried out in a process forked from this one.
    """
    if threads == 1 or not _Process.forked:
        return
    child = os.fork()
    if child == 0:
        torch.set_num_threads(threads)
        torch.ones(2**20).add_(1)
        os._exit(0)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            _Process.forked = False
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise UsageError(
        f"threads = {threads} would hang: this process was forked from one that had used several threads of OpenMP, "
        "which waits for them for ever. Use threads = 1, or start processes by 'spawn' or 'forkserver' "
        "(multiprocessing.get_context('spawn'))"
    )
