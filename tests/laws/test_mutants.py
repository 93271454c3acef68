"""Every law has a mutant: a bug that it is shown to kill, most of them with the place where somebody else had it."""

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
ROWS = [  # role, what is wrong, the law that finds it, where it was so
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

What the laws find: {count} parts with a bug, each killed by the [law](laws.md) beside it, {known} of them bugs that
somebody had, with the place. The parts stand in `tests/laws/`; a test holds that every law kills one at least.
This page is made from them: `PYTHONPATH=tests/support python tests/laws/test_mutants.py`.
"""


def page():
    """Of each role a table."""
    known = sum(UNKNOWN not in source for *_, source in ROWS)
    lines = [HEAD.format(count=len(ROWS), known=known)]
    for role in sorted({role for role, *_ in ROWS}):
        lines += [f"## {role.capitalize()}", "", "| what is wrong | law | where it was so |", "|---|---|---|"]
        rows = sorted((law, wrong, source) for of, wrong, law, source in ROWS if of == role)
        lines += [f"| {cell(wrong)} | `{law}` | {cell(source)} |" for law, wrong, source in rows]
        lines.append("")
    return "\n".join(lines)


def cell(text):
    """Without what would end it, or be read as markup."""
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def test_the_page_is_as_the_tests_are():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "make it anew: PYTHONPATH=tests/support python tests/laws/test_mutants.py"
    )


@pytest.mark.parametrize("role", sorted(ROLES.keys() - {"extension"}))
def test_every_law_kills_a_mutant(role):
    """A law that nothing breaks may say nothing."""
    assert {law.name for law in laws(role)} - {law for _, _, law, _ in ROWS} == set()


def test_most_bugs_were_made_by_somebody():
    """At least thirty, each with its source: an issue, a commit or a paper."""
    assert sum(UNKNOWN not in source for *_, source in ROWS) >= 30


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
