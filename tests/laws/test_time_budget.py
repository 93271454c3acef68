"""Time budget: processor time counts, each law has at least five examples, and too few examples decide nothing."""

import json
import os
import re
import subprocess
import sys
import time
import types

import pytest
from attrs import frozen

from framework import Estimate
from framework.cli import main
from framework.parts import Part
from framework.testing import Broken, check, replay
from framework.testing.time_budget import TimeBudget


@frozen
class Slow:
    """One second per call, on a simulated clock."""

    times = 1.0

    def __call__(self, rollout):
        NOW[0] += 1.0
        return Estimate(self.times * rollout.rewards, rollout.rewards.clone())


@frozen
class SlowAndWrong(Slow):
    """And with returns that are not finite."""

    times = float("nan")


NOW = [0.0]


def clock_of(now, monkeypatch):
    """A clock that shows `now`, on the processor and on the wall."""
    shown = types.SimpleNamespace(process_time=lambda: now[0], perf_counter=lambda: now[0])
    monkeypatch.setattr("framework.testing.time_budget.time", shown)


@pytest.fixture
def no_waiting(monkeypatch):
    clock_of(NOW, monkeypatch)


@pytest.mark.slow
def test_a_slow_part_is_checked_on_fewer_examples_and_has_not_passed(no_waiting):
    """Each law has at least five examples; a law with fewer examples than it should have is not decided."""
    report = check(Slow(), "estimator", examples=50, seconds=(60.0, 10.0))
    asked = [verdict for verdict in report.verdicts if verdict.outcome != "not applicable"]
    assert report.examples < 400
    assert report.undecided
    for verdict in asked:
        whole = verdict.law.cases is None or verdict.examples == min(50, verdict.law.examples or 50)
        assert verdict.examples >= 5 or whole
        assert verdict.outcome == ("passed" if whole else "not decided")
        if not whole:
            assert verdict.reason == f"time ran out after {verdict.examples} of {verdict.law.examples or 50} examples"
    whole = check(Slow(), "estimator", only=["lanes_permute"], examples=10)
    assert whole.examples == 10
    assert whole.verdicts[0].reason == ""
    assert not whole.undecided


def test_shrinking_ends_too_and_the_counterexample_is_reported(no_waiting):
    began = NOW[0]
    (verdict,) = check(
        SlowAndWrong(), "estimator", only=["estimates_are_finite"], examples=50, seconds=(60.0, 10.0)
    ).verdicts
    assert verdict.outcome == "failed"
    assert NOW[0] - began < 60
    with pytest.raises(Broken):
        replay("estimates_are_finite", Part("estimator", "slow", "tests", SlowAndWrong()), *verdict.case)


def test_unused_time_goes_to_the_next_laws(monkeypatch):
    now = [0.0]
    clock_of(now, monkeypatch)
    budget = TimeBudget(4, 12.0, 4.0)
    budget.start_law()
    assert budget.share == 3.0
    budget.finish_law()  # took nothing
    budget.start_law()
    assert budget.share == 12 / 3
    now[0] = 2.0
    budget.start_shrinking()
    assert budget.share == 1.0
    now[0] = 12.0
    assert budget.exceeded
    budget.finish_law()
    budget.start_law()
    assert budget.share == 5.0  # searching took 2 of 12; two laws are left
    budget.start_shrinking()
    assert budget.share == 0.1  # nothing is left, and a little is given


def test_a_fifth_of_wall_clock_time_counts(monkeypatch):
    processor, wall = [0.0], [0.0]
    shown = types.SimpleNamespace(process_time=lambda: processor[0], perf_counter=lambda: wall[0])
    monkeypatch.setattr("framework.testing.time_budget.time", shown)
    budget = TimeBudget(1, 2.0, 1.0)
    budget.start_law()
    processor[0], wall[0] = 1.9, 9.9
    assert not budget.exceeded
    wall[0] = 10.1
    assert budget.exceeded
    budget.start_law()
    processor[0] += 2.1
    assert budget.exceeded


PART = """
import time
from attrs import field, frozen, validators
from framework import Estimate, hookimpl
from framework.returns import rewards_to_go

def pass_time():
    {line}

@frozen
class Mine:
    needs = frozenset({{"complete_episodes"}})
    gamma: float = field(default=0.9, validator=[validators.ge(0), validators.le(1)])

    def __call__(self, rollout):
        pass_time()
        returns = rewards_to_go(rollout.rewards, rollout.terminated {ends}, self.gamma)
        return Estimate(returns, returns)

@hookimpl
def estimators():
    return {{"mine": Mine}}
"""
BURN = "end = time.process_time() + 0.01\n    while time.process_time() < end: pass"


def checked(capsys, folder, line, ends):
    (folder / "mine.py").write_text(PART.format(line=line, ends=ends))
    code = main(["check", "mine.py", "--quick"])
    captured = capsys.readouterr()
    (report,) = json.loads(captured.out)
    return code, report, captured.err


@frozen
class Waits:
    """The reward itself, after a while."""

    def __call__(self, rollout):
        time.sleep(0.03)
        return Estimate(rollout.rewards.clone(), rollout.rewards.clone())


@pytest.mark.slow
def test_a_part_that_waits_is_checked_on_all_examples():
    """As on a busy machine: time passes, but the part uses little of it."""
    names = ["estimates_are_finite", "lanes_permute", "estimates_have_the_rollouts_shape"]
    report = check(Waits(), "estimator", only=names, examples=15, seconds=(1.5, 0.5))
    assert [verdict.outcome for verdict in report.verdicts] == ["passed"] * 3
    assert {verdict.examples for verdict in report.verdicts} == {15}
    assert report.seconds > 1.5


@pytest.fixture
def hurried(monkeypatch, tmp_path):
    """--quick with a tenth of its time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("framework.testing.checking.QUICK_SECONDS", (2.0, 0.5))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "expected"), [("| rollout.truncated", 3), ("", 1)])
def test_a_slow_part_is_not_reported_as_correct(hurried, capsys, ends, expected):
    """A correct part is not decided, exit code 3; a broken one fails."""
    code, report, said = checked(capsys, hurried, BURN, ends)
    assert code == expected
    assert not report["passed"]
    undecided = [entry for entry in report["laws"] if entry["outcome"] == "not decided"]
    assert undecided
    assert all(re.fullmatch(r"time ran out after \d+ of 15 examples", entry["reason"]) for entry in undecided)
    assert all(entry["examples"] >= 5 for entry in undecided)
    if expected == 3:
        assert re.fullmatch(
            r"estimator 'mine' \(plugin mine\): \d+ laws are not decided: time ran out. "
            r"Without --quick there is no limit\n",
            said,
        )


@pytest.mark.slow
def test_a_busy_machine_changes_no_verdict(tmp_path, monkeypatch, capsys):
    """With processes that take every processor."""
    monkeypatch.chdir(tmp_path)
    burners = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        for ends, expected in (("| rollout.truncated", 0), ("", 1)):
            code, report, _ = checked(capsys, tmp_path, "pass", ends)
            assert code == expected
            assert "not decided" not in {entry["outcome"] for entry in report["laws"]}
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
