"""Check a part against all laws of its role."""

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

ROLE_MODULES = (
    "estimators",
    "baselines",
    "losses",
    "policies",
    "environments",
    "claims",
)  # modules that define the laws
QUICK_EXAMPLES = 15  # examples a law, where EXAMPLES take too long
QUICK_SECONDS = (20.0, 5.0)  # for searching and for shrinking; built-in parts take one to five in total


@frozen(eq=False)
class Report:
    """The verdicts of all laws on one part."""

    part: Part
    verdicts: tuple[Verdict, ...]
    seconds: float
    seed: int

    def of(self, outcome: Outcome) -> tuple[Verdict, ...]:
        """The verdicts with this outcome."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == outcome)

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """Verdicts of the laws that the part breaks."""
        return self.of("failed")

    @property
    def undecided(self) -> tuple[Verdict, ...]:
        """Verdicts of laws that were checked on too few examples because time ran out: the part has not passed."""
        return self.of("not decided")

    @property
    def unchecked(self) -> str | None:
        """Why no law at all could be checked, if so: the part has not passed."""
        silent = all(verdict.outcome == "not applicable" for verdict in self.verdicts)
        return self.verdicts[0].reason if silent and self.verdicts else None

    @property
    def examples(self) -> int:
        """The number of examples, summed over all laws."""
        return sum(verdict.examples for verdict in self.verdicts)


def laws(role: str) -> list[Law]:
    """All laws of a role, module by module, in the order in which they are defined."""
    for name in ROLE_MODULES:
        importlib.import_module(f"{__package__}.{name}")
    return sorted((law for law in LAWS.values() if role in law.roles), key=_order_key)


def _order_key(law: Law) -> tuple[int, str]:
    """Sort key of a law: the same order whatever was imported first; within a package, in its import order."""
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
    """Check a part against the laws of its role; the same seed gives the same result.

    Args:
        settings: a `Part`, or its settings object.
        role: role of the part; optional for a `Part`, and for settings that a loaded plugin offers.
        only: names of the laws to check; default: all.
        examples: number of examples per law.
        seed: seed of the examples.
        seconds: processor time for searching for examples that break a law, and for shrinking them. A law that has
            used its share is checked on no further examples (but on at least five) and is reported as not decided.
        loaded: the plugins that the part may be combined with; default: the installed ones.
        on_progress: called with each law before it is checked.
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
    """The part with its own settings first, then with other valid settings."""
    return [Subject(evolve(part, settings=settings), loaded) for settings in variants(part.role, part.settings)]


def replay(name: str, part: Part, *case: Any) -> None:
    """Check the law of this name again, on one case; raises what the law raises.

    Without a case, the whole check is repeated: whether the law applies, and new cases until one fails.
    """
    law, subject = {law.name: law for law in laws(part.role)}[name], subjects_of(part, load())[0]
    if case:
        with isolated():
            check_case(law, subject, *case)
    elif (verdict := judge(law, [subject])).error is not None:
        raise verdict.error


def part(role: str, name: str, plugins: Sequence[str] = (), **settings: Any) -> Part:
    """The part that a plugin offers under this name, with these settings."""
    plugin, name, cls = load(plugins, rest=True).pick(role, name)
    return Part(role, name, plugin, cls(**settings))


def _part_from_settings(settings: Any, role: str | None, loaded: Loaded) -> Part:
    """The part with these settings; without a role, the plugins are searched for their class."""
    if role is not None:
        return loaded.part_of(role, settings)
    for offered_role in loaded.offers:
        candidate = loaded.part_of(offered_role, settings) if offered_role != "recipe" else None
        if candidate is not None and type(settings) in loaded.offers[offered_role].get(candidate.name, {}).values():
            return candidate
    raise UsageError(f"no plugin offers {type(settings).__name__}: say its role, as in check(settings, 'estimator')")
