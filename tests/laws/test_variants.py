"""Settings that parts are checked with, and how cases are divided among them."""

import pytest
from attrs import field, frozen, validators
from hypothesis import strategies as st

from framework.setup.loading import load
from framework.testing import judge
from framework.testing.law import Law
from framework.testing.variants import variants


def test_variants_begin_with_the_default_and_reach_the_ends():
    loaded = load()
    for name, ends in {
        "gae": {("gamma", 0.0), ("gamma", 1.0), ("lam", 0.0), ("lam", 1.0)},
        "n_step": {("n", 1)},
    }.items():
        settings = loaded.pick("estimator", name)[2]()
        found = variants("estimator", settings)
        assert found[0] is settings
        assert ends <= {(key, getattr(one, key)) for one in found for key, _ in ends}


def test_variants_that_change_little_come_first():
    """One setting at a time, then two."""
    gae = load().pick("estimator", "gae")[2]()
    changed = [
        sum(getattr(one, key) != getattr(gae, key) for key in ("gamma", "lam")) for one in variants("estimator", gae)
    ]
    assert changed == sorted(changed)
    assert set(changed) == {0, 1, 2}


@frozen
class Optional:
    """Both may be left out."""

    clip: float | None = field(default=None, validator=validators.optional(validators.gt(1.0)))
    horizon: int | None = field(default=5, validator=validators.optional(validators.ge(1)))


def test_optional_settings_are_varied():
    found = variants("estimator", Optional())
    assert {None, 2.0} <= {one.clip for one in found}
    assert all(one.clip is None or one.clip > 1 for one in found)
    assert {one.horizon for one in found} == {5, None, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("others", [0, 1, 3, 40])
def test_the_default_settings_have_about_half_the_cases_and_the_others_share_the_rest(others):
    """Each of the others has at least one, if there are enough."""
    asked = []

    subjects = list(range(others + 1))
    entry = Law("", (), lambda subject, case: asked.append(subject), "", lambda subject: st.integers(0, 1000))
    assert judge(entry, subjects, examples=100).examples == 100
    assert asked.count(0) >= 45  # a key that is drawn again belongs to the same subject
    assert set(asked) == set(subjects)
