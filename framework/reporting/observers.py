"""Calls the observer hooks of a run, one after the other; a report that raises is switched off, and the run continues.

A plot or progress bar must not end a run, for example because the terminal was closed or the disk is full: a report
that raises is named in one warning and not called again. What an extension raises is an error of the run, and so is a
`FrameworkError` of a report, which is about another part.
"""

import os
from collections.abc import Iterator
from typing import Any

import pluggy

from ..errors import FrameworkError, PartError, say, warn
from ..guards.finite_checks import check_parameters
from ..guards.process_state import restore_after
from ..run import Run


def notify(run: Run, hook: str, **arguments: Any) -> None:
    """Call an observer hook of all extensions that have it, in pluggy's order."""
    for _ in responses(run, hook, **arguments):
        pass


def responses(run: Run, hook: str, **arguments: Any) -> Iterator[tuple[Any, Any]]:
    """Call an observer hook; yields each extension that has it, with its return value if that is not None."""
    for implementation in _implementations(run, hook):
        extension = implementation.plugin
        try:
            answer = _call(implementation, run, arguments)
        except (KeyboardInterrupt, FrameworkError):
            raise
        except BaseException as error:
            if not _is_dispensable(run, extension):
                raise
            _switch_off(run, extension, hook, error)
        else:
            if id(extension) not in run.reports:
                check_parameters(run, run.label_of(extension))
            if answer is not None:
                yield extension, answer


def reasons_to_stop(run: Run, metrics: dict[str, float]) -> list[str]:
    """The reasons that extensions return from `should_stop`.

    Raises:
        PartError: an answer is neither a string nor None.
    """
    reasons = []
    for extension, answer in responses(run, "should_stop", metrics=metrics):
        if not isinstance(answer, str):
            label = run.label_of(extension)
            raise PartError(f"{label}: should_stop: expected a reason (a string) or None, got {answer!r}")
        reasons.append(answer)
    return [reason for reason in reasons if reason]


def notify_of_failure(run: Run, error: BaseException) -> None:
    """Call `run_failed` of all extensions; what one raises is added to the error as a note."""
    for implementation in _implementations(run, "run_failed"):
        extension = implementation.plugin
        try:
            _call(implementation, run, {"error": error})
        except BaseException as second:
            if _is_dispensable(run, extension):
                _switch_off(run, extension, "run_failed", second)
            else:
                label = run.label_of(extension)
                error.add_note(f"{label} raised {type(second).__name__} in run_failed, too: {second}")


def abandon(run: Run, error: PartError) -> None:
    """Record that a step does not return, from another thread than the one that waits for it, and end the process."""
    notify_of_failure(run, error)
    for line in (f"error: {error}", *getattr(error, "__notes__", ())):
        say(line)
    os._exit(1)


def _implementations(run: Run, hook: str) -> list[pluggy.HookImpl]:
    return getattr(run.hook, hook).get_hookimpls()[::-1]  # type: ignore[no-any-return]


def _call(implementation: pluggy.HookImpl, run: Run, arguments: dict[str, Any]) -> Any:
    _called = run.labels.get(id(implementation.plugin))  # for blame
    answer = implementation.function(*[run if name == "run" else arguments[name] for name in implementation.argnames])
    if id(implementation.plugin) not in run.reports:
        restore_after(lambda: run.label_of(implementation.plugin))
    return answer


def _is_dispensable(run: Run, extension: Any) -> bool:
    """Whether it is a report that is not `essential`; the record is essential."""
    return id(extension) in run.reports and not getattr(extension, "essential", False)


def _switch_off(run: Run, report: Any, hook: str, error: BaseException) -> None:
    """Unregister a report, with a warning."""
    run.manager.unregister(report)
    run.reports.discard(id(report))
    label = run.labels.get(id(report), "a report")
    warn(f"{label} is switched off, and the run goes on: {hook} raised {type(error).__name__}: {error}")
