"""Every law has a mutant: a bug that it is shown to kill, most of them with the place where somebody else had it."""

import pytest
import test_laws_baselines
import test_laws_claims
import test_laws_environments
import test_laws_estimators
import test_laws_losses
import test_laws_policies

from framework.hookspecs import ROLES
from framework.testing import laws

ROWS = [  # law, source
    *((law, source) for _, law, source in test_laws_estimators.MUTANTS.values()),
    *((law, source) for _, law, source in test_laws_baselines.MUTANTS.values()),
    *((law, source) for law, source, _ in test_laws_losses.MUTANTS.values()),
    *((law, source) for law, source, _ in test_laws_policies.MUTANTS.values()),
    *((law, source or "no source found") for _, source, law in test_laws_environments.MUTANTS.values()),
    *((test_laws_claims.LAW[claim], name) for _, name, part in test_laws_claims.MUTANTS for claim in part.claims),
]


@pytest.mark.parametrize("role", sorted(ROLES.keys() - {"extension"}))
def test_every_law_kills_a_mutant(role):
    """A law that nothing breaks may say nothing."""
    assert {law.name for law in laws(role)} - {law for law, _ in ROWS} == set()


def test_most_bugs_were_made_by_somebody():
    """At least thirty, each with its source: an issue, a commit or a paper."""
    assert sum("no source found" not in source for _, source in ROWS) >= 30
