"""`framework check` of parts that raise, exit, print or return odd values: a broken law, reported once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen
from check_cases import LEAK, ODD, Raises, listing

from framework import Estimate, UsageError
from framework.cli import main
from framework.parts import Part
from framework.testing import check, conforms, laws, replay
from framework.testing.counterexamples import snippet
from framework.testing.selection import select_parts

# From Python


@frozen
class Fine:
    """The reward itself."""

    def __call__(self, rollout):
        return Estimate(rollout.rewards.clone(), rollout.rewards.clone())


def test_settings_that_no_plugin_offers_need_a_role():
    assert check(Fine(), "estimator", examples=3).failed == ()
    with pytest.raises(UsageError, match="no plugin offers Fine: say its role"):
        check(Fine())
    with pytest.raises(UsageError, match="no law of estimators 'lanes_permut'. Did you mean 'lanes_permute'"):
        check(Fine(), "estimator", only=["lanes_permut"])


def test_what_a_part_raises_is_reported():
    (verdict,) = check(Raises(), "estimator", only=["estimates_are_finite"], examples=3).verdicts
    assert verdict.reason.startswith("raised RuntimeError: no such thing (")
    with pytest.raises(RuntimeError, match="no such thing"):
        replay("estimates_are_finite", Part("estimator", "raises", "tests", Raises()), *verdict.case)


FAULTY = """import numpy as np
import torch
from attrs import frozen
from framework import Step, hookimpl
from gymnasium.spaces import Box, Discrete

def fails(here):
    if here == {place!r}:
        raise RuntimeError("the motor is out of order")

class World:
    def __init__(self, count):
        fails("build")
        self.count = count
        self.observation_space, self.action_space = Discrete(2), Discrete(2)

    def reset(self, generator):
        fails("reset")
        return torch.zeros(self.count, dtype=torch.int64)

    def step(self, actions, generator):
        fails("step")
        seen, end = torch.zeros(self.count, dtype=torch.int64), torch.ones(self.count, dtype=torch.bool)
        return Step(seen, seen.clone(), torch.zeros(self.count), end, ~end)

    def mdp(self):
        fails("mdp")

@frozen
class Faulty:
    def build(self, num_envs, device):
        return World(num_envs)

@frozen
class Mute:
    @property
    def needs(self):
        fails("needs")
        return frozenset()

    def build(self, observations, actions):
        fails("build")

    def __call__(self, rollout, returns=None):
        fails("call")

@hookimpl
def environments():
    return {{"faulty": Faulty}}

@hookimpl
def policies():
    return {{"faulty": Mute}}

@hookimpl
def estimators():
    return {{"faulty": Mute}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "place"),
    [
        *(("environment", place) for place in ("build", "reset", "step", "mdp")),
        ("policy", "build"),
        ("estimator", "needs"),
    ],
)
def test_what_a_part_raises_anywhere_is_a_broken_law(role, place, capsys, tmp_path, monkeypatch):
    """Never a traceback: also where a law only asks whether it applies, or draws a case that fits the part."""
    monkeypatch.chdir(tmp_path)
    text = FAULTY.format(place=place)
    Path("faulty.py").write_text(text, "utf-8")
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "raise RuntimeError" in line)
    reason = f"raised RuntimeError: the motor is out of order ({tmp_path / 'faulty.py'}:{line} in fails)"
    code, (report,) = listing(capsys, "faulty.py", "--role", role, "--examples", "2")
    broken = [entry for entry in report["laws"] if entry["outcome"] == "failed"]
    assert code == 1
    assert {entry["law"] for entry in report["laws"]} == {law.name for law in laws(role)}
    assert any(reason in entry["reason"] for entry in broken)


@pytest.mark.slow
def test_a_failure_without_a_case_can_be_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("faulty.py").write_text(FAULTY.format(place="build"), "utf-8")
    loaded, (part,) = select_parts("faulty.py", "environment")
    for name in ("every_episode_is_like_the_first", "rewards_are_finite"):  # whether it applies; a case
        (verdict,) = check(part, only=[name], examples=2, loaded=loaded).failed
        Path("again.py").write_text(snippet(name, verdict.subject.part, verdict.case, loaded, 0, 2), "utf-8")
        again = subprocess.run([sys.executable, "again.py"], capture_output=True, text=True, check=False)
        assert again.stderr.strip().endswith("RuntimeError: the motor is out of order"), again.stderr


def test_conforms_leaves_what_raises_to_the_test(tmp_path, monkeypatch):
    """The module can be collected; the laws that cannot be asked fail, each by itself."""
    monkeypatch.chdir(tmp_path)
    Path("faulty.py").write_text(FAULTY.format(place="build"), "utf-8")
    (mark,) = conforms("faulty.py", role="environment", examples=1).pytestmark
    assert [case.marks for case in mark.args[1]] == [()] * len(laws("environment"))


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_a_failure_is_reported_with_any_settings(terminal, capsys, tmp_path, monkeypatch):
    """Those that no source and no JSON is known of, those made by a factory, those that only tell identity."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("framework.cli.check.is_terminal", lambda: terminal)
    Path("odd.py").write_text(ODD.format(does=""), "utf-8")
    assert main(["check", "odd.py", "--examples", "5"]) == 1
    printed = capsys.readouterr().out
    match = re.search(
        r"tested = part\('estimator', 'odd:odd', \['.*odd.py'\](.*)\)  # and with plain=<framework_file_odd", printed
    )
    assert match[1] in ("", ", clip=0.0, odd=math.nan")  # default settings are not printed
    if not terminal:
        (report,) = json.loads(printed)
        (entry,) = [entry for entry in report["laws"] if entry["law"] == LEAK]
        assert {key: entry["settings"][key] for key in ("mode", "other", "path", "scales", "odd", "clips")} == {
            "mode": "Mode.A",
            "other": "Mode.B",
            "path": "here",
            "scales": "tensor([1., 1.])",
            "odd": "nan",
            "clips": [["inf", 1.0], {"low": "-inf"}],
        }
        Path("again.py").write_text(entry["snippet"], "utf-8")
        again = subprocess.run([sys.executable, "again.py"], capture_output=True, text=True, check=False)
        assert again.stderr.strip().splitlines()[-1].endswith(entry["reason"])


def test_nan_in_a_case_is_reported(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nan.py").write_text(
        "from attrs import frozen\nfrom framework import Loss, hookimpl\n\n@frozen\nclass NaN:\n"
        "    def __call__(self, batch, evaluation):\n"
        '        return Loss({"policy": evaluation.log_probs * batch.advantages / batch.advantages.detach()})\n\n'
        '@hookimpl\ndef losses():\n    return {"nan": NaN}\n',
        "utf-8",
    )
    code, (report,) = listing(capsys, "nan.py", "--examples", "5")
    assert code == 1
    assert "nan" in json.dumps([entry.get("case", entry) for entry in report["laws"]])


def test_a_part_that_ends_the_program_breaks_the_law(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(ODD.format(does="sys.exit(0)"), "utf-8")
    code, (report,) = listing(capsys, "odd.py", "--examples", "2")
    assert code == 1
    assert not report["passed"]
    entry = report["laws"][0]
    assert entry["reason"].startswith("raised SystemExit: 0 (")
    assert entry["got"] == "sys.exit(0)"


def test_a_part_that_ends_the_program_while_it_is_tried_breaks_the_law(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = FAULTY.format(place="build").replace('raise RuntimeError("the motor is out of order")', "raise SystemExit")
    Path("faulty.py").write_text(text, "utf-8")
    code, (report,) = listing(capsys, "faulty.py", "--role", "environment", "--examples", "2")
    assert code == 1
    assert any(entry.get("reason", "").startswith("raised SystemExit:  (") for entry in report["laws"])


def test_ctrl_c_interrupts(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(ODD.format(does="raise KeyboardInterrupt"), "utf-8")
    assert main(["check", "odd.py", "--examples", "2"]) == 130


@pytest.mark.slow
def test_the_same_error_is_reported_once(capsys, tmp_path, monkeypatch):
    """Of all laws that it breaks; one snippet."""
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(ODD.format(does="raise RuntimeError('boom')"), "utf-8")
    code, (report,) = listing(capsys, "odd.py", "--examples", "2")
    assert code == 1
    first, *others = [entry for entry in report["laws"] if entry["outcome"] == "failed"]
    assert "snippet" in first
    assert len(others) > 10
    for entry in others:
        assert entry["same_as"] == first["law"]
        assert entry["reason"] == first["reason"]
        assert "snippet" not in entry
    monkeypatch.setattr("framework.cli.check.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["check", "odd.py", "--examples", "2"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("# to reproduce it:") == 1
    assert f"  also broken: {others[0]['law']}, {others[1]['law']}," in printed
