"""Laws as pytest tests: each law of each part is one test. The complete test file of a third party:

import acme

from framework.testing import conforms

test_laws = conforms(acme)
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ..errors import UsageError, unknown
from ..parts import Loaded
from .checking import laws, subjects_of
from .counterexamples import as_text
from .law import Law, Subject
from .selection import select_parts
from .verdicts import EXAMPLES, judge, reason


def conforms(
    *what: str | ModuleType,
    role: str | None = None,
    examples: int = EXAMPLES,
    seed: int = 0,
    but: Mapping[str, str] | None = None,
) -> Callable[..., None]:
    """A test function that checks parts against all their laws, one test per law; skips those that do not apply.

    If no law applies to a part, its first test fails: nothing could be checked.

    Args:
        what: modules or module paths, `FILE.py`, names of plugins or parts.
        role: only parts of this role.
        examples: number of examples per law.
        seed: seed of the examples.
        but: laws that the parts break on purpose, with the reason: their tests are skipped.

    Raises:
        UsageError: `but` contains a name that is no law of the parts' roles.
    """
    import pytest

    excused = dict(but or {})

    cases: list[Any] = []
    law_names: set[str] = set()
    for target in what:
        loaded, parts = select_parts(target, role)
        for part in parts:
            subjects = subjects_of(part, loaded)
            skips = [_skip_marks(law, subjects) for law in laws(part.role)]
            if skips and all(skips):
                skips[0] = ()  # no law applies: one test reports this, and fails
            for law, skip in zip(laws(part.role), skips, strict=True):
                law_names.add(law.name)
                why = excused.get(law.name)
                marks = skip if why is None else pytest.mark.skip(reason=f"on purpose: {why}")
                name = f"{part.role}:{part.name}-{law.name}"
                cases.append(pytest.param(law, subjects, loaded, id=name, marks=marks))
    for name in excused:
        if name not in law_names:
            raise UsageError(unknown("law", name, law_names))

    @pytest.mark.parametrize(("law", "subjects", "loaded"), cases)
    def test_laws(law: Law, subjects: list[Subject], loaded: Loaded) -> None:
        __tracebackhide__ = True
        verdict = judge(law, subjects, examples, seed)
        if verdict.outcome == "failed":
            pytest.fail(as_text(verdict, loaded, seed, examples), pytrace=False)
        if verdict.outcome == "not applicable":
            pytest.fail(f"nothing could be checked: {verdict.reason}", pytrace=False)

    return test_laws


def _skip_marks(law: Law, subjects: list[Subject]) -> Any:
    """A skip mark for a law that applies to none of a part's settings."""
    import pytest

    try:
        reasons = [reason(law, subject) for subject in subjects]
    except Exception:  # the test reports it
        return ()
    return () if None in reasons else pytest.mark.skip(reason=f"not applicable: {reasons[0]}")
