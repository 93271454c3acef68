"""`step_timeout`: a reset or step that does not return ends the run; lane, step and line are named, nothing is lost."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import gym_careless_worlds
import pytest
import torch
from attrs import frozen
from framework_gymnasium import Gymnasium
from gymnasium import spaces

import framework
from framework import PartError, RolloutSettings, Step, UsageError
from framework.cli import main

SUPPORT = Path(__file__).parents[1] / "support"
LANES = RolloutSettings(lanes=2, fixed_steps=2)


def hanging(vectorization="sync", **kwargs):
    gym_careless_worlds.Hanging.made = 0
    return Gymnasium("gym_careless_worlds:Hanging", vectorization, kwargs=kwargs)


def trained(part, seconds=0.5):
    began = time.monotonic()
    with pytest.raises(PartError) as caught:
        framework.train(environment=part, recipe="a2c", rollout=LANES, iterations=9, step_timeout=seconds)
    assert time.monotonic() - began < 20
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("where", ["step", "reset"])
def test_lane_and_step_of_an_environment_that_hangs_are_named(where, vectorization):
    said = trained(hanging(vectorization, where=where))
    doing = "in its reset" if where == "reset" else "in step 1 of its episode"
    expected = "environment 'gymnasium' (plugin gymnasium): step did not return within 0.5 s (step_timeout): lane 1 "
    assert said.startswith(expected + doing)
    if vectorization == "sync":
        assert "gym_careless_worlds.py:" in said
        assert said.endswith(" in _hang)")


def test_a_loop_that_never_ends_is_interrupted():
    assert "lane 1 in step 1 of its episode" in trained(hanging(how="loop"))


@pytest.mark.slow
def test_in_another_thread_a_loop_is_interrupted_too():
    """Where no alarm rings, an exception is set in the thread that steps."""
    said = []
    thread = threading.Thread(target=lambda: said.append(trained(hanging(how="loop"), 1.0)))
    thread.start()
    thread.join(30)
    assert "lane 1 in step 1 of its episode" in said[0]


@frozen
class Stuck:
    """An environment of one's own, that says nothing of its lanes and catches every `Exception`."""

    def build(self, num_envs, device):
        return StuckLanes(num_envs)


class StuckLanes:
    observation_space, action_space = spaces.Box(0.0, 1.0, (1,)), spaces.Discrete(2)

    def __init__(self, count):
        self.count, self.clock = count, 0

    def reset(self, generator):
        return torch.zeros(self.count, 1)

    def step(self, actions, generator):
        self.clock += 1
        while self.clock == 7:
            try:
                time.sleep(600)
            except Exception:
                pass
        no = torch.zeros(self.count, dtype=torch.bool)
        return Step(torch.zeros(self.count, 1), torch.zeros(self.count, 1), torch.zeros(self.count), no, no)


def test_any_environment_is_interrupted():
    said = trained(Stuck())
    assert "step did not return within 0.5 s (step_timeout): all lanes, step 7 since they were last reset" in said
    assert "test_step_timeout.py:" in said


@pytest.mark.slow
def test_what_nothing_interrupts_ends_the_process_and_the_record_is_whole(tmp_path):
    """A lock of C that is never opened: another thread writes last parameters and error, and ends the process."""
    words = ["run", "--recipe", "a2c", "--environment", "gymnasium", "--environment.id", "gym_careless_worlds:Hanging"]
    words += ["--environment.kwargs", "how", "c", "--rollout.lanes", "2", "--rollout.fixed-steps", "2", "--name", "a"]
    script = (
        "import os, sys\nfrom framework.cli import main\n"
        f"sys.path.insert(0, {str(SUPPORT)!r})\nos.chdir({str(tmp_path)!r})\n"
        f"sys.exit(main({[*words, '--step-timeout', '0.5', '--iterations', '9']!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "lane 1 in step 1 of its episode (nothing interrupts it, so that the process ends here)" in done.stderr
    assert {"error.txt", "last.safetensors", "metrics.csv"} <= {path.name for path in (tmp_path / "runs/a").iterdir()}


@pytest.mark.slow
def test_the_evaluation_command_and_the_record_have_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--environment", "gymnasium", "--environment.id", "gym_careless_worlds:Hanging", "--iterations", "1"]
    gym_careless_worlds.Hanging.made = 0
    words += ["--environment.kwargs", "lane", "9", "--recipe", "a2c", "--rollout.lanes", "2", "--name", "a", "--quiet"]
    assert main(["run", *words, "--step-timeout", "30"]) == 0
    assert "step_timeout = 30.0" in (tmp_path / "runs/a/config.toml").read_text()
    gym_careless_worlds.Hanging.made = 0
    more = ["--environment.kwargs", "lane", "1", "--step-timeout", "0.5"]
    assert main(["evaluate", "runs/a", "--lanes", "2", "--episodes", "9", *more]) == 1
    assert "step did not return within 0.5 s (step_timeout): lane 1 in step 1" in capsys.readouterr().err


def test_an_alarm_of_ones_own_is_put_back():
    import signal

    signal.signal(signal.SIGALRM, handler := lambda number, frame: None)
    try:
        framework.train(rollout=RolloutSettings(lanes=1, episodes=1), iterations=1, step_timeout=5.0)
        assert signal.getsignal(signal.SIGALRM) is handler
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_seconds_that_cannot_be_are_refused(seconds):
    with pytest.raises(UsageError, match="step_timeout"):
        framework.train(iterations=1, step_timeout=seconds)
