"""A part is put to all laws of its role, one after the other."""

import importlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import evolve, frozen

from ..errors import UsageError, unknown
from ..parts import Loaded, Part
from ..setup.loading import load
from .law import LAWS, Law, Subject
from .time_budget import TimeBudget
from .variants import variants
from .verdicts import EXAMPLES as EXAMPLES
from .verdicts import Outcome, Verdict, check_case, isolated, judge

ROLE_MODULES = ("estimators", "baselines", "losses", "policies", "environments", "claims")  # where the laws stand
QUICK_EXAMPLES = 15  # examples a law, where EXAMPLES take too long
QUICK_SECONDS = (20.0, 5.0)  # of looking and of shrinking; the built-in parts take one to five in all


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
    def undecided(self) -> tuple[Verdict, ...]:
        """Of the laws that were checked on too few examples, as time ran out: such a part has not passed."""
        return self.of("not decided")

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
    return sorted((law for law in LAWS.values() if role in law.roles), key=_order_key)


def _order_key(law: Law) -> tuple[int, str]:
    """Where a law stands: whatever was imported first, the order is the same; within a package, as it imports them."""
    module = law.check.__module__
    name = module.removeprefix(f"{__package__}.").partition(".")[0]
    return (ROLE_MODULES.index(name), "") if name in ROLE_MODULES else (len(ROLE_MODULES), module)


def check(
    settings: Any,
    role: str | None = None,
    *,
    only: Iterable[str] | None = None,
    examples: int = EXAMPLES,
    seed: int = 0,
    seconds: tuple[float, float] = (math.inf, math.inf),
    loaded: Loaded | None = None,
    on_progress: Callable[[Law], None] = lambda law: None,
) -> Report:
    """Put a part to its role's laws; the same seed repeats it.

    Args:
        settings: a `Part`, or its settings object.
        role: what it is; may be left out for a Part, and for settings that a loaded plugin offers.
        only: names of laws; without, all.
        examples: how many a law.
        seed: of what is drawn.
        seconds: processor time of looking for examples that break a law, and of shrinking those. After its share of
            these a law is checked on no further ones, but on five at least, and is not decided.
        loaded: the plugins that it may be wired with; without, the installed ones.
        on_progress: called with each law before it is asked.
    """
    began = time.perf_counter()
    loaded = load() if loaded is None else loaded
    tested = settings if isinstance(settings, Part) else _part_from_settings(settings, role, loaded)
    selected = laws(tested.role)
    if only is not None:
        names = [law.name for law in selected]
        for name in (only := tuple(only)):
            if name not in names:
                raise UsageError(unknown(f"law of {tested.role}s", name, names))
        selected = [law for law in selected if law.name in only]
    subjects = subjects_of(tested, loaded)
    verdicts = []
    budget = TimeBudget(len(selected), *seconds)
    for law in selected:
        on_progress(law)
        verdicts.append(judge(law, subjects, examples, seed, budget))
    return Report(tested, tuple(verdicts), time.perf_counter() - began, seed)


def subjects_of(part: Part, loaded: Loaded) -> list[Subject]:
    """The part with its settings, first, and with other settings that it may have."""
    return [Subject(evolve(part, settings=settings), loaded) for settings in variants(part.role, part.settings)]


def replay(name: str, part: Part, *case: Any) -> None:
    """Ask the law of this name once more; raises what the law raises.

    Without a case, all that is asked before one is drawn, too; of a law that takes cases, until one fails.
    """
    law, subject = {law.name: law for law in laws(part.role)}[name], subjects_of(part, load())[0]
    if case:
        with isolated():
            check_case(law, subject, *case)
    elif (verdict := judge(law, [subject])).error is not None:
        raise verdict.error


def part(role: str, name: str, plugins: Sequence[str] = (), **settings: Any) -> Part:
    """The part that some plugin offers under this name, with these settings."""
    plugin, name, cls = load(plugins, rest=True).pick(role, name)
    return Part(role, name, plugin, cls(**settings))


def _part_from_settings(settings: Any, role: str | None, loaded: Loaded) -> Part:
    """Of settings: by what plugins offer, if no role is given."""
    if role is not None:
        return loaded.part_of(role, settings)
    for offered_role in loaded.offers:
        candidate = loaded.part_of(offered_role, settings) if offered_role != "recipe" else None
        if candidate is not None and type(settings) in loaded.offers[offered_role].get(candidate.name, {}).values():
            return candidate
    raise UsageError(f"no plugin offers {type(settings).__name__}: say its role, as in check(settings, 'estimator')")
