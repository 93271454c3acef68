"""A part is put to the laws: each law is asked of cases that Hypothesis draws, and shrinks where one breaks it."""

import importlib
import math
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Literal

import torch
from attrs import evolve, frozen
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException, Unsatisfiable

from ..errors import UsageError, unknown
from ..plugins import Loaded, Part, load
from .clock import Clock
from .law import LAWS, Broken, Law, Subject
from .variants import taking_turns, variants

ROLE_MODULES = ("estimators", "baselines", "losses", "policies", "environments", "claims")  # where the laws stand
EXAMPLES, QUICK = 100, 15  # examples a law
QUICK_SECONDS = (5.0, 3.0)  # of looking and of shrinking, so that with the start it stays below ten


class _EnoughError(BaseException):
    """Time has run out: no Exception, so that Hypothesis lets it through."""


Outcome = Literal["passed", "failed", "not applicable"]


@frozen(eq=False)
class Verdict:
    """What came of one law."""

    law: Law
    outcome: Outcome
    reason: str = ""  # why it failed, or does not apply
    examples: int = 0  # that it was asked of, while one was looked for that breaks it
    subject: Subject | None = None  # of the counterexample, with its settings
    case: tuple[Any, ...] = ()  # the shrunk counterexample; empty where the law takes none
    error: BaseException | None = None  # what it raised


@frozen(eq=False)
class Report:
    """What came of all laws."""

    part: Part
    verdicts: tuple[Verdict, ...]
    seconds: float
    seed: int

    def of(self, outcome: Outcome) -> tuple[Verdict, ...]:
        """The verdicts that came out so."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == outcome)

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """Of the laws that it breaks."""
        return self.of("failed")

    @property
    def unchecked(self) -> str | None:
        """Why no law at all could be asked, where that is so: such a part has not passed."""
        silent = all(verdict.outcome == "not applicable" for verdict in self.verdicts)
        return self.verdicts[0].reason if silent and self.verdicts else None

    @property
    def examples(self) -> int:
        """How many in all."""
        return sum(verdict.examples for verdict in self.verdicts)


def laws(role: str) -> list[Law]:
    """All laws of a role, file by file, in the order in which they are stated."""
    for name in ROLE_MODULES:
        importlib.import_module(f"{__package__}.{name}")
    return sorted((law for law in LAWS.values() if role in law.roles), key=_place)


def _place(law: Law) -> tuple[int, str]:
    """Where a law stands: whatever was imported first, the order is the same; within a package, as it imports them."""
    home = law.check.__module__
    name = home.removeprefix(f"{__package__}.").partition(".")[0]
    return (ROLE_MODULES.index(name), "") if name in ROLE_MODULES else (len(ROLE_MODULES), home)


def check(
    settings: Any,
    role: str | None = None,
    *,
    only: Iterable[str] | None = None,
    examples: int = EXAMPLES,
    seed: int = 0,
    seconds: tuple[float, float] = (math.inf, math.inf),
    loaded: Loaded | None = None,
    told: Callable[[Law], None] = lambda law: None,
) -> Report:
    """Put a part to its role's laws; the same seed repeats it.

    Args:
        settings: a `Part`, or its settings object.
        role: what it is; may be left out for a Part, and for settings that a loaded plugin offers.
        only: names of laws; without, all.
        examples: how many a law.
        seed: of what is drawn.
        seconds: of looking for examples that break a law, and of shrinking those. After its share of these a law is
            asked of no further ones, but of one at least.
        loaded: the plugins that it may be wired with; without, the installed ones.
        told: called with each law before it is asked.
    """
    began = time.perf_counter()
    loaded = load() if loaded is None else loaded
    judged = settings if isinstance(settings, Part) else _part(settings, role, loaded)
    chosen = laws(judged.role)
    if only is not None:
        names = [law.name for law in chosen]
        for name in (only := tuple(only)):
            if name not in names:
                raise UsageError(unknown(f"law of {judged.role}s", name, names))
        chosen = [law for law in chosen if law.name in only]
    subjects = subjects_of(judged, loaded)
    verdicts = []
    clock = Clock(len(chosen), *seconds)
    for law in chosen:
        told(law)
        verdicts.append(judge(law, subjects, examples, seed, clock))
    return Report(judged, tuple(verdicts), time.perf_counter() - began, seed)


def subjects_of(part: Part, loaded: Loaded) -> list[Subject]:
    """The part with its settings, first, and with other settings that it may have."""
    return [Subject(evolve(part, settings=settings), loaded) for settings in variants(part.role, part.settings)]


def judge(
    law: Law, subjects: Sequence[Subject], examples: int = EXAMPLES, seed: int = 0, clock: Clock | None = None
) -> Verdict:
    """Ask one law of a part, with each of its settings that the law concerns. Nothing is printed, nothing is kept.

    What a part raises breaks the law, and is told: also where it is only asked whether the law concerns it, or tried
    for a case that fits it. `clock` says when to stop, after one example.
    """
    clock = clock or Clock()
    clock.begin()
    try:
        return _judged(law, subjects, examples, seed, clock)
    finally:
        clock.end()


def _judged(law: Law, subjects: Sequence[Subject], examples: int, seed: int, clock: Clock) -> Verdict:
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
        if count and clock.over:
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

    stopped = ""
    try:
        with _apart():
            search()
    except _EnoughError:
        if found is not None:
            return Verdict(law, "failed", words(found[2]), count, found[0], (found[1],), found[2])
        stopped = _stopped(examples)
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
    return Verdict(law, "passed", stopped, count)


def ask(law: Law, subject: Subject, *case: Any) -> None:
    """Ask a law of one case. What it draws from torch's own generator is the same each time."""
    torch.default_generator.manual_seed(0)
    with _staying():
        law.check(subject, *case)


def replay(name: str, part: Part, *case: Any) -> None:
    """Ask the law of this name once more; raises what the law raises.

    Without a case, all that is asked before one is drawn, too; of a law that takes cases, until one fails.
    """
    law, subject = {law.name: law for law in laws(part.role)}[name], subjects_of(part, load())[0]
    if case:
        with _apart():
            ask(law, subject, *case)
    elif (verdict := judge(law, [subject])).error is not None:
        raise verdict.error


def part(role: str, name: str, plugins: Sequence[str] = (), **settings: Any) -> Part:
    """The part that some plugin offers under this name, with these settings."""
    plugin, name, cls = load(plugins, rest=True).pick(role, name)
    return Part(role, name, plugin, cls(**settings))


def words(error: BaseException) -> str:
    """What went wrong, in a line or two; of what the part raised itself, also where."""
    if isinstance(error, Broken):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"raised {type(error).__name__}: {error}{place}"


def _part(settings: Any, role: str | None, loaded: Loaded) -> Part:
    """Of settings: by what plugins offer, if no role is given."""
    if role is not None:
        return loaded.part_of(role, settings)
    for offered in loaded.offers:
        found = loaded.part_of(offered, settings) if offered != "recipe" else None
        if found is not None and type(settings) in loaded.offers[offered].get(found.name, {}).values():
            return found
    raise UsageError(f"no plugin offers {type(settings).__name__}: say its role, as in check(settings, 'estimator')")


def reason(law: Law, subject: Subject) -> str | None:
    """Why a law does not concern a part; None: it does. Raises what the part raises when it is tried for that."""
    with _apart():
        return law.applies(subject)


def _stopped(examples: int) -> str:
    """Why a law that passed was asked of fewer examples."""
    return f"stopped by the clock, before {examples} examples"


def _asked_of_each(law: Law, subjects: Sequence[Subject], clock: Clock) -> Verdict:
    """A law without cases, once for each of the settings."""
    with _apart():
        for count, subject in enumerate(subjects, 1):
            if count > 1 and clock.over:
                return Verdict(law, "passed", _stopped(len(subjects)), count - 1)
            try:
                ask(law, subject)
            except Exception as error:
                return Verdict(law, "failed", words(error), count, subject, (), error)
    return Verdict(law, "passed", examples=len(subjects))


@contextmanager
def _staying() -> Iterator[None]:
    """A part may not end the program that checks it: that would look as if all were well."""
    try:
        yield
    except SystemExit as error:
        raise Broken(words(error), expected="to go on", got=f"sys.exit({error.code!r})") from error


@contextmanager
def _apart() -> Iterator[None]:
    """Torch's generator and thread count as they were, afterwards; warnings are the part's own business.

    What the part prints goes to standard error: standard output is the report's.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _staying(), redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
