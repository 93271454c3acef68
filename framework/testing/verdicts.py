"""Check a part against one law, on cases that Hypothesis draws and, if one breaks the law, shrinks."""

import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Literal

import torch
from attrs import frozen
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException, Unsatisfiable

from ..guards.process_state import working
from .law import Broken, Law, Subject
from .time_budget import TimeBudget
from .variants import alternating

EXAMPLES = 100  # per law
MIN_EXAMPLES = 5  # per law, however long they take


class _TimeUpError(BaseException):
    """Time has run out; not an Exception, so that Hypothesis does not catch it."""


Outcome = Literal["passed", "failed", "not decided", "not applicable"]


@frozen(eq=False)
class Verdict:
    """The result of checking one law."""

    law: Law
    outcome: Outcome
    reason: str = ""  # why it failed, is not decided, or does not apply
    examples: int = 0  # on which the law was checked, not counting shrinking
    subject: Subject | None = None  # the part with the settings of the counterexample
    case: tuple[Any, ...] = ()  # the shrunk counterexample; empty for laws without cases
    error: BaseException | None = None  # what was raised


def judge(
    law: Law, subjects: Sequence[Subject], examples: int = EXAMPLES, seed: int = 0, budget: TimeBudget | None = None
) -> Verdict:
    """Check a part against one law, with each of its settings to which the law applies. Nothing is printed or saved.

    An exception in the part breaks the law and is reported, even if it is raised while finding out whether the law
    applies, or while drawing a case. `budget` determines when to stop, after at least five examples: then the law is
    not decided.
    """
    budget = budget or TimeBudget()
    budget.start_law()
    try:
        return _verdict(law, subjects, examples, seed, budget)
    finally:
        budget.finish_law()


def _verdict(law: Law, subjects: Sequence[Subject], examples: int, seed: int, budget: TimeBudget) -> Verdict:
    reasons = []
    for subject in subjects:
        try:
            reasons.append(reason(law, subject))
        except Exception as error:
            return Verdict(law, "failed", describe(error), subject=subject, error=error)
    applicable = [subject for subject, why in zip(subjects, reasons, strict=True) if why is None]
    if not applicable:
        return Verdict(law, "not applicable", str(reasons[0]))
    examples = min(examples, law.examples or examples)
    if law.cases is None:
        return _check_each_subject(law, applicable[:examples], budget)
    cases, count, subject_tried = law.cases, 0, applicable[0]
    failure: tuple[Subject, Any, Exception] | None = None

    def cases_of(subject: Subject) -> st.SearchStrategy[tuple[Subject, Any]]:
        nonlocal subject_tried
        subject_tried = subject
        return st.tuples(st.just(subject), cases(subject))

    @seeded(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(alternating(applicable).flatmap(cases_of))
    def search(drawn: tuple[Subject, Any]) -> None:
        nonlocal count, failure
        if budget.exceeded and (failure is not None or count >= MIN_EXAMPLES):
            raise _TimeUpError
        try:
            check_case(law, drawn[0], drawn[1])
            count += failure is None
        except HypothesisException:
            raise
        except Exception as error:
            if failure is None:
                count += 1
                budget.start_shrinking()
            failure = (*drawn, error)
            raise

    try:
        with isolated():
            search()
    except _TimeUpError:
        if failure is not None:
            return Verdict(law, "failed", describe(failure[2]), count, failure[0], (failure[1],), failure[2])
        return _undecided(law, count, examples)
    except Unsatisfiable:
        return Verdict(law, "failed", "refuses every case", count)
    except Exception as error:
        if failure is None:  # no case could be drawn
            error.__notes__ = []  # Hypothesis's notes on what it was about to draw
            return Verdict(law, "failed", describe(error), count, subject_tried, (), error)
        subject, case, broken = failure
        if isinstance(error, HypothesisException):
            return Verdict(law, "failed", f"is not repeatable: {error}", count, subject, (case,), broken)
        return Verdict(law, "failed", describe(broken), count, subject, (case,), broken)
    return Verdict(law, "passed", examples=count)


def check_case(law: Law, subject: Subject, *case: Any) -> None:
    """Check a law on one case, with torch's global generator seeded the same way each time."""
    torch.default_generator.manual_seed(0)
    with _no_exit():
        law.check(subject, *case)


def describe(error: BaseException) -> str:
    """What went wrong, in a line or two; for exceptions raised by the part, also where."""
    if isinstance(error, Broken):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"raised {type(error).__name__}: {error}{place}"


def reason(law: Law, subject: Subject) -> str | None:
    """Why a law does not apply to a part; None if it applies. Raises what the part raises meanwhile."""
    with isolated(), _no_exit():
        return law.applies(subject)


def _undecided(law: Law, count: int, examples: int) -> Verdict:
    """The verdict of a law that no example broke, but that was checked on too few."""
    return Verdict(law, "not decided", f"time ran out after {count} of {examples} examples", count)


def _check_each_subject(law: Law, subjects: Sequence[Subject], budget: TimeBudget) -> Verdict:
    """Check a law without cases, once for each of the settings."""
    with isolated():
        for count, subject in enumerate(subjects, 1):
            if count > MIN_EXAMPLES and budget.exceeded:
                return _undecided(law, count - 1, len(subjects))
            try:
                check_case(law, subject)
            except Exception as error:
                return Verdict(law, "failed", describe(error), count, subject, (), error)
    return Verdict(law, "passed", examples=len(subjects))


@contextmanager
def _no_exit() -> Iterator[None]:
    """Turn `SystemExit` and other non-exceptions of a part into `Broken`: they must not end the check early."""
    try:
        yield
    except SystemExit as error:
        raise Broken(describe(error), expected="to go on", got=f"sys.exit({error.code!r})") from error
    except BaseException as error:
        tools = type(error).__module__.partition(".")[0] in (
            "hypothesis",
            "_pytest",
        )  # which use such errors for control flow
        if tools or isinstance(error, Exception | KeyboardInterrupt | _TimeUpError):
            raise
        raise Broken(describe(error), expected="to go on", got=type(error).__name__) from error


@contextmanager
def isolated() -> Iterator[None]:
    """Run with the process state of a training run, restored afterwards; warnings are ignored.

    Output of the part goes to standard error, because standard output is for the report.
    """
    with _no_exit(), redirect_stdout(sys.stderr), working(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
