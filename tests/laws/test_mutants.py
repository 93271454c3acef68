"""Every law has a mutant: a bug that it finds, most of them with a reference to where it was found."""

from pathlib import Path

import pytest
import test_laws_baselines
import test_laws_claims
import test_laws_losses
import test_mutants_environments
import test_mutants_estimators
import test_mutants_policies

from framework.hookspecs import ROLES
from framework.testing import laws

UNKNOWN = "no source found"
CLAIMED = [(role, name.rpartition(": "), part) for role, name, part in test_laws_claims.MUTANTS]
ROWS = [  # role, bug, the law that finds it, source
    *(("estimator", name, law, source) for name, (_, law, source) in test_mutants_estimators.MUTANTS.items()),
    *(("baseline", name, law, source) for name, (_, law, source) in test_laws_baselines.MUTANTS.items()),
    *(("loss", name, law, source) for name, (law, source, _) in test_laws_losses.MUTANTS.items()),
    *(("policy", name, law, source) for name, (law, source, _) in test_mutants_policies.MUTANTS.items()),
    *(
        ("environment", name, law, source or UNKNOWN)
        for name, (_, source, law) in test_mutants_environments.MUTANTS.items()
    ),
    *(
        (role, wrong or source, test_laws_claims.LAW[claim], source)
        for role, (source, _, wrong), part in CLAIMED
        for claim in sorted(part.claims)
    ),
]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mutants.md"
HEAD = """# Mutants

{count} parts with a bug, and the [law](laws.md) that finds it; for {known} of them there is a reference to where the
bug was found. The parts are in `tests/laws/`; a test checks that every law finds at least one of them.
This page is generated from them: `PYTHONPATH=tests/support python tests/laws/test_mutants.py`.
"""


def page():
    """A table for each role."""
    known = sum(UNKNOWN not in source for *_, source in ROWS)
    lines = [HEAD.format(count=len(ROWS), known=known)]
    for role in sorted({role for role, *_ in ROWS}):
        lines += [f"## {role.capitalize()}", "", "| bug | law | source |", "|---|---|---|"]
        rows = sorted((law, wrong, source) for of, wrong, law, source in ROWS if of == role)
        lines += [f"| {cell(wrong)} | `{law}` | {cell(source)} |" for law, wrong, source in rows]
        lines.append("")
    return "\n".join(lines)


def cell(text):
    """Text of a table cell, with Markdown escaped."""
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: PYTHONPATH=tests/support python tests/laws/test_mutants.py"


@pytest.mark.parametrize("role", sorted(ROLES.keys() - {"extension"}))
def test_every_law_kills_a_mutant(role):
    """A law that nothing breaks may be vacuous."""
    assert {law.name for law in laws(role)} - {law for _, _, law, _ in ROWS} == set()


def test_most_bugs_have_a_source():
    """At least thirty, each with its source: an issue, a commit or a paper."""
    assert sum(UNKNOWN not in source for *_, source in ROWS) >= 30


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
