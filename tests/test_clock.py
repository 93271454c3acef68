"""Time for laws: a slow part is asked of fewer examples, and what was found is told."""

import types

import pytest
from attrs import frozen

from framework import Estimate
from framework.plugins import Part
from framework.testing import Broken, check, replay
from framework.testing.clock import Clock


@frozen
class Slow:
    """A second each, as a clock has it that nobody waits for."""

    times = 1.0

    def __call__(self, rollout):
        NOW[0] += 1.0
        return Estimate(self.times * rollout.rewards, rollout.rewards.clone())


@frozen
class SlowAndWrong(Slow):
    """And not finite."""

    times = float("nan")


NOW = [0.0]


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("framework.testing.clock.time", types.SimpleNamespace(perf_counter=lambda: NOW[0]))


def test_a_slow_part_is_asked_of_fewer_examples(no_waiting):
    """Of each law one at least; the verdict says so."""
    report = check(Slow(), "estimator", examples=50, seconds=(60.0, 10.0))
    asked = [verdict for verdict in report.verdicts if verdict.outcome != "not applicable"]
    assert all(verdict.examples >= 1 for verdict in asked)
    assert report.examples < 100
    assert any(verdict.reason == "stopped by the clock, before 50 examples" for verdict in asked)
    assert all(verdict.reason.startswith("stopped by the clock, ") for verdict in asked if verdict.examples < 15)
    whole = check(Slow(), "estimator", only=["lanes_permute"], examples=10)
    assert whole.examples == 10
    assert whole.verdicts[0].reason == ""


def test_shrinking_ends_too_and_what_was_found_is_told(no_waiting):
    began = NOW[0]
    (verdict,) = check(
        SlowAndWrong(), "estimator", only=["estimates_are_finite"], examples=50, seconds=(60.0, 10.0)
    ).verdicts
    assert verdict.outcome == "failed"
    assert NOW[0] - began < 60
    with pytest.raises(Broken):
        replay("estimates_are_finite", Part("estimator", "slow", "tests", SlowAndWrong()), *verdict.case)


def test_what_a_law_leaves_the_next_ones_have(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("framework.testing.clock.time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    clock = Clock(4, 8.0, 4.0)
    clock.begin()
    assert clock.until == 2.0
    clock.end()  # took nothing
    clock.begin()
    assert clock.until == 8 / 3
    now[0] = 2.0
    clock.found()
    assert clock.until == 3.0
    now[0] = 10.0
    assert clock.over
    clock.end()
    clock.begin()
    assert clock.until == 10.0 + 3.0  # looking took 2 of 8; two laws are left
    clock.found()
    assert clock.until == 10.1  # nothing is left, and a little is given
