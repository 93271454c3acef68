"""Edges by which a uniform number picks an outcome: each possible outcome has its probability, no other is picked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate

from framework.tabular import tables

ROWS = st.lists(st.lists(st.sampled_from([0.0, 1e-9, 0.1, 0.3, 0.7, 1.0]), min_size=1, max_size=6), max_size=4).map(
    lambda rows: [row + [0.0] * (6 - len(row)) for row in rows]
)


def law_outcomes_have_their_probabilities(module, rows):
    """The interval of each outcome is as long as its share of the row's weights, in order."""
    edges = module.inverse_cdf_edges(np.array(rows).reshape(-1, 6))
    for weights, upper in zip(rows, edges, strict=True):
        total = sum(weights)
        ends = np.clip([0.0, *upper, 1.0], 0.0, 1.0)
        if total:
            assert np.allclose(np.diff(ends), np.array(weights) / total, rtol=0, atol=1e-12)
            last = max(k for k, weight in enumerate(weights) if weight)
            assert (np.array([0.0, *upper])[last + 1 :] > 1).all()  # no number below 1 passes it, however rounded
            below_one = np.nextafter(1.0, 0.0)
            assert sum(edge <= below_one for edge in upper) == last
        else:
            assert (upper > 1).all()


@given(ROWS)
def test_outcomes_have_their_probabilities(rows):
    law_outcomes_have_their_probabilities(tables, rows)


@pytest.mark.parametrize(
    "change",
    [
        ("weights.cumsum(axis=1)", "weights"),
        ("below / np.maximum(total, TINY), NEVER)", "below, NEVER)"),
        ("np.where(below < total, ", "np.where(below <= total, "),
        ("np.maximum(total, TINY), NEVER)", "np.maximum(total, TINY), 1 - 1e-17)"),
    ],
    ids=lambda change: change[1],
)
def test_the_law_kills_the_mutant(change):
    is_killed(law_outcomes_have_their_probabilities, ROWS, arguments=(mutate("framework.tabular.tables", change),))
