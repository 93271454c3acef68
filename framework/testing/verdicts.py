"""A part is checked against one law, on cases that Hypothesis draws, and shrinks where one breaks it."""

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
from .time_budget import Clock
from .variants import taking_turns

EXAMPLES = 100  # of a law
LEAST = 5  # examples, however long they take


class _EnoughError(BaseException):
    """Time has run out: no Exception, so that Hypothesis lets it through."""


Outcome = Literal["passed", "failed", "not decided", "not applicable"]


@frozen(eq=False)
class Verdict:
    """What came of one law."""

    law: Law
    outcome: Outcome
    reason: str = ""  # why it failed, is not decided, or does not apply
    examples: int = 0  # that it was checked on, in search of one that breaks it
    subject: Subject | None = None  # of the counterexample, with its settings
    case: tuple[Any, ...] = ()  # the shrunk counterexample; empty where the law takes none
    error: BaseException | None = None  # what it raised


def judge(
    law: Law, subjects: Sequence[Subject], examples: int = EXAMPLES, seed: int = 0, clock: Clock | None = None
) -> Verdict:
    """Ask one law of a part, with each of its settings that the law concerns. Nothing is printed, nothing is kept.

    What a part raises breaks the law, and is told: also where it is only asked whether the law concerns it, or tried
    for a case that fits it. `clock` says when to stop, after five examples: then the law is not decided.
    """
    clock = clock or Clock()
    clock.begin()
    try:
        return _evaluate_rows(law, subjects, examples, seed, clock)
    finally:
        clock.end()


def _evaluate_rows(law: Law, subjects: Sequence[Subject], examples: int, seed: int, clock: Clock) -> Verdict:
    reasons = []
    for subject in subjects:
        try:
            reasons.append(reason(law, subject))
        except Exception as error:
            return Verdict(law, "failed", words(error), subject=subject, error=error)
    concerned = [subject for subject, why in zip(subjects, reasons, strict=True) if why is None]
    if not concerned:
        return Verdict(law, "not applicable", str(reasons[0]))
    examples = min(examples, law.examples or examples)
    if law.cases is None:
        return _asked_of_each(law, concerned[:examples], clock)
    cases, count, tried = law.cases, 0, concerned[0]
    found: tuple[Subject, Any, Exception] | None = None

    def of(subject: Subject) -> st.SearchStrategy[tuple[Subject, Any]]:
        nonlocal tried
        tried = subject
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
    @given(taking_turns(concerned).flatmap(of))
    def search(drawn: tuple[Subject, Any]) -> None:
        nonlocal count, found
        if clock.over and (found is not None or count >= LEAST):
            raise _EnoughError
        try:
            ask(law, drawn[0], drawn[1])
            count += found is None
        except HypothesisException:
            raise
        except Exception as error:
            if found is None:
                count += 1
                clock.found()
            found = (*drawn, error)
            raise

    try:
        with apart():
            search()
    except _EnoughError:
        if found is not None:
            return Verdict(law, "failed", words(found[2]), count, found[0], (found[1],), found[2])
        return _undecided(law, count, examples)
    except Unsatisfiable:
        return Verdict(law, "failed", "refuses every case that it was given", count)
    except Exception as error:
        if found is None:  # no case could be drawn
            error.__notes__ = []  # Hypothesis's, of what it was about to draw
            return Verdict(law, "failed", words(error), count, tried, (), error)
        subject, case, broken = found
        if isinstance(error, HypothesisException):
            return Verdict(law, "failed", f"is not repeatable: {error}", count, subject, (case,), broken)
        return Verdict(law, "failed", words(broken), count, subject, (case,), broken)
    return Verdict(law, "passed", examples=count)


def ask(law: Law, subject: Subject, *case: Any) -> None:
    """Ask a law of one case. What it draws from torch's own generator is the same each time."""
    torch.default_generator.manual_seed(0)
    with _staying():
        law.check(subject, *case)


def words(error: BaseException) -> str:
    """What went wrong, in a line or two; of what the part raised itself, also where."""
    if isinstance(error, Broken):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"raised {type(error).__name__}: {error}{place}"


def reason(law: Law, subject: Subject) -> str | None:
    """Why a law does not concern a part; None: it does. Raises what the part raises when it is tried for that."""
    with apart(), _staying():
        return law.applies(subject)


def _undecided(law: Law, count: int, examples: int) -> Verdict:
    """Of a law that no example broke, and that was checked on too few."""
    return Verdict(law, "not decided", f"time ran out after {count} of {examples} examples", count)


def _asked_of_each(law: Law, subjects: Sequence[Subject], clock: Clock) -> Verdict:
    """A law without cases, once for each of the settings."""
    with apart():
        for count, subject in enumerate(subjects, 1):
            if count > LEAST and clock.over:
                return _undecided(law, count - 1, len(subjects))
            try:
                ask(law, subject)
            except Exception as error:
                return Verdict(law, "failed", words(error), count, subject, (), error)
    return Verdict(law, "passed", examples=len(subjects))


@contextmanager
def _staying() -> Iterator[None]:
    """A part may not end the program that checks it: that would look as if all were well. Nor may a panic of its."""
    try:
        yield
    except SystemExit as error:
        raise Broken(words(error), expected="to go on", got=f"sys.exit({error.code!r})") from error
    except BaseException as error:
        tools = type(error).__module__.partition(".")[0] in ("hypothesis", "_pytest")  # which steer by such errors
        if tools or isinstance(error, Exception | KeyboardInterrupt | _EnoughError):
            raise
        raise Broken(words(error), expected="to go on", got=type(error).__name__) from error


@contextmanager
def apart() -> Iterator[None]:
    """The process as a run has it, and afterwards as it was; warnings are the part's own business.

    What the part prints goes to standard error: standard output is the report's.
    """
    with _staying(), redirect_stdout(sys.stderr), working(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
