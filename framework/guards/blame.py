"""Which part an error comes from: of the parts of a run, the one whose code raised.

Nothing is paid for this while all goes well: no part's call is wrapped. When an exception reaches the loop, its
traceback is read from the inside out (see decision 6). Frames of a part are known by their `self`, which is the part or
an object that it alone holds. Frames without one, of closures say, are known by the core's frame outside them: before
it calls a part, the core keeps the part's label in a local variable `_called`.
"""

import functools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

from torch import nn

from ..config import PART_ROLES
from ..errors import FrameworkError, PartError
from ..run import Run
from .process_state import restore_after

CALLED = "_called"  # the local variable
ORDINARY = {"builtins", "framework", "numpy", "pyo3_runtime", "torch", *sys.stdlib_module_names}  # raise errors only
HOME = str(Path(__file__).parents[1])


EDGES = 3  # iterations in which the process is looked at after every stage: a part that changes it does so at once


def check_process_state(run: Run, *where: str) -> None:
    """At the end of a stage, in the first iterations: put back what these parts or wrappers changed, and name them."""
    if run.iteration < EDGES:
        restore_after(lambda: labels_in(run, *where))


def labels_in(run: Run, *where: str) -> str:
    """The labels of the parts that have just run: in these roles and stages; by default, of all."""
    labels = {role: [getattr(run.config, role).label] for role in PART_ROLES} | run.wrappers
    labels["extensions"] = [part.label for part in run.config.extensions]
    found = [label for place in where or labels for label in labels.get(place, ())]
    return " or ".join(dict.fromkeys(found))


def attribute_error(run: Run, error: BaseException) -> BaseException:
    """An error under the name of the part or plugin whose code raised it; the error itself, if it was none's."""
    if type(error) is RuntimeError and isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # Python makes the one of the other, passing through a generator, as `responses`
    owner = None if isinstance(error, FrameworkError) else part_that_raised(error.__traceback__, *_known(run))
    if owner is None:
        return _wrongly_called(run, error) or error
    label, place = owner
    place = getattr(error, "place", place)  # an error that knows the line of the user's own code, or that there is none
    where = f" ({place})" if place else ""
    named = PartError(f"{label} raised {type(error).__name__}: {error}{where}")
    named.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        named.add_note(note)
    return named


def meant_for_caller(error: PartError) -> BaseException | None:
    """What an extension raised on purpose: an exception of a class that is not Python's, torch's or numpy's.

    Such a class is a message to an outer caller, such as a tuner's to prune a trial. None: an ordinary error.
    """
    raised = error.__cause__
    if raised is None or not str(error).startswith("extension '"):
        return None
    if type(raised).__module__.partition(".")[0] in ORDINARY:
        return None
    raised.add_note(str(error).partition(" raised ")[0] + " raised this during a run.")
    return raised


def part_that_raised(
    traceback: TracebackType | None, objects: Mapping[int, str], codes: Mapping[int, str], files: Mapping[str, str]
) -> tuple[str, str] | None:
    """The label of the part whose code raised, and the place; None: no part's.

    `objects` maps `id` of parts and of what they hold to labels, `codes` likewise their functions without `self`, and
    `files` source files to labels. A wrapper that an error merely passes through is not to blame: its frame lies
    directly outside one of pluggy's.
    """
    entries = []
    while traceback is not None:
        entries.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    entries.reverse()
    found: tuple[str, str] | None = None  # by an object
    held = 0  # its id
    written: tuple[str, str] | None = None  # by the file that the code is in
    for index, (frame, line) in enumerate(entries):
        if _is_core(frame):
            called = frame.f_locals.get(CALLED)
            if called is not None and index and not _is_core(entries[0][0]):
                entered = next(other for other, _ in reversed(entries[:index]) if not _is_core(other))
                if found is not None:  # of an object that plays several roles, the core knows which
                    return (called, found[1]) if id(_first(entered)) == held else found
                return called, written[1] if written is not None else _place(*_innermost(entries[:index], entered))
        if index and entries[index - 1][0].f_globals.get("__name__", "").startswith("pluggy."):
            continue  # it passes through
        label = objects.get(id(_first(frame))) or codes.get(id(frame.f_code))
        if found is None and label is not None:
            found, held = (label, written[1] if written is not None else _place(frame, line)), id(_first(frame))
        elif written is None and frame.f_code.co_filename in files:
            written = files[frame.f_code.co_filename], _place(frame, line)
    return found or written


def _is_core(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(HOME)


def _first(frame: FrameType) -> Any:
    """The first argument, which is `self` in a method."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def _innermost(entries: list[tuple[FrameType, int]], entered: FrameType) -> tuple[FrameType, int]:
    """Of a call, the innermost frame that is in the file of its first one: what is further inside is a library's."""
    return next(entry for entry in entries if entry[0].f_code.co_filename == entered.f_code.co_filename)


def _place(frame: FrameType, line: int) -> str:
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


def _known(run: Run) -> tuple[dict[int, str], dict[int, str], dict[str, str]]:
    """Objects, functions and files, as `part_that_raised` takes them; what several parts hold belongs to none."""
    working = [run.environment, run.policy, run.estimator, run.baseline, run.loss, *run.extensions.values()]
    parts = [(part, run.label_of(part)) for part in working if id(part) in run.labels]
    objects: dict[int, set[str]] = {}
    codes: dict[int, set[str]] = {}
    for part, label in parts:
        for code in _codes(part):
            codes.setdefault(id(code), set()).add(label)
        held = list(part.modules()) if isinstance(part, nn.Module) else []
        held += [value for value in getattr(part, "__dict__", {}).values() if hasattr(value, "__dict__")]
        for thing in held:
            if not isinstance(thing, ModuleType | type | FunctionType | Run):
                objects.setdefault(id(thing), set()).add(label)
    alone = {identity: label for identity, (label, *others) in objects.items() if not others}
    return alone | run.labels, {code: label for code, (label, *others) in codes.items() if not others}, _files(run)


def _codes(part: Any) -> list[Any]:
    """Code of what has no `self`: the part itself, its static methods, and functions that it holds."""
    own = list(getattr(part, "__dict__", {}).values())
    static = [one for cls in type(part).__mro__ for one in vars(cls).values() if isinstance(one, staticmethod)]
    found = []
    for function in (part, *own, *static):
        while not hasattr(function, "__code__"):
            inner = function.func if isinstance(function, functools.partial) else getattr(function, "__func__", None)
            if inner is None:
                break
            function = inner
        else:
            found.append(function.__code__)
    return found


def label_of_functions(run: Run, *functions: Any) -> str:
    """The labels of the parts that these functions belong to, by their files."""
    files = _files(run)
    found = [files.get(function.__code__.co_filename, "") for function in functions if hasattr(function, "__code__")]
    return " or ".join(dict.fromkeys(filter(None, found))) or labels_in(run, "policy", "extensions")


def _files(run: Run) -> dict[str, str]:
    """Source files of plugins, and of classes of settings from Python: the label of the part, or the plugin."""
    config = run.config
    parts = [getattr(config, role) for role in PART_ROLES] + [*config.extensions, *config.reports]
    of: dict[str, set[str]] = {}
    for part in parts:
        of.setdefault(part.plugin, set()).add(part.label)
    files = {str(path): plugin.name for plugin in run.loaded.plugins for path in plugin.files}
    for part in parts:
        for method in vars(type(part.settings)).values():
            if isinstance(method, FunctionType) and not method.__code__.co_filename.startswith(("<", HOME)):
                files.setdefault(method.__code__.co_filename, part.plugin)
    labels = {plugin: min(some) if len(some) == 1 else f"plugin '{plugin}'" for plugin, some in of.items()}
    return {file: labels.get(plugin, f"plugin '{plugin}'") for file, plugin in files.items()}


def _wrongly_called(run: Run, error: BaseException) -> PartError | None:
    """The error of a method that takes other arguments than it is called with: its part is not in the traceback."""
    found = re.match(r"(\S+)\.(\w+)\(\) (missing|takes|got) ", str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return None
    parts = (run.environment, run.policy, run.estimator, run.baseline, run.loss, *run.extensions.values())
    for part in parts:
        if type(part).__qualname__ == found[1] and id(part) in run.labels:
            label = run.label_of(part)
            named = PartError(f"{label}: {found[2]} is called with other arguments than it takes: {error}")
            named.__cause__ = error
            return named
    return None
