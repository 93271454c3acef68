"""Lanes in processes of their own: one that cannot make its environment, or dies, says why."""

import multiprocessing
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import gym_careless_worlds
import pytest
from framework_gymnasium import Gymnasium

import framework
from framework import PartError, RolloutSettings, UsageError

SUPPORT = Path(__file__).parents[1] / "support"
LANES = RolloutSettings(lanes=2, fixed_steps=8)


def run_script(script, path, timeout=100):
    """A program of a user, in a folder with these worlds."""
    path.write_text(f"import sys\nsys.path.insert(0, {str(SUPPORT)!r})\n{textwrap.dedent(script)}")
    return subprocess.run(
        [sys.executable, str(path)], cwd=path.parent, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "ConnectionError: the simulator takes no second client"),
        ("unpicklable", "UnsendableError: the simulator takes no second client"),
        ("panic", "Panic: the simulator takes no second client"),
        ("exit", "SystemExit: 0"),
    ],
)
def test_a_process_that_cannot_make_its_environment_says_why(how, reason):
    part = Gymnasium("gym_careless_worlds:Alone", "async", kwargs={"how": how})
    with pytest.raises(UsageError) as caught:
        framework.train(environment=part, rollout=LANES, recipe="a2c", iterations=1)
    expected = "environment 'gym_careless_worlds:Alone': lane 0, which has a process of its own, cannot make its "
    assert str(caught.value).startswith(f"{expected}environment: {reason}")
    assert not multiprocessing.active_children()


def test_a_process_that_dies_while_it_makes_its_environment():
    part = Gymnasium("gym_careless_worlds:Alone", "async", kwargs={"how": "die"})
    with pytest.raises(UsageError, match="the process of lane 0 ended with exit code 3 while it made its environment"):
        framework.train(environment=part, rollout=LANES, recipe="a2c", iterations=1)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("where", ["step", "reset"])
@pytest.mark.parametrize(("how", "words"), [("killed", "was killed by SIGKILL"), ("exit", "ended with exit code 7")])
def test_a_process_that_dies_is_named_with_lane_and_step(how, words, where):
    gym_careless_worlds.Hanging.made = 0
    part = Gymnasium("gym_careless_worlds:Hanging", "async", kwargs={"how": how, "where": where})
    with pytest.raises(PartError) as caught:
        framework.train(environment=part, rollout=LANES, recipe="a2c", iterations=9)
    doing = "in its reset" if where == "reset" else "in step 1 of its episode"
    assert re.search(rf"LaneError: the process of lane 1 {words}.* {doing}$", str(caught.value))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_no_tracebacks_follow_the_death_of_a_process(tmp_path):
    """Of a real process that ends by a real SIGKILL, with the run unfinished: one traceback, of the error."""
    done = run_script(
        """
        import framework
        from framework_gymnasium import Gymnasium

        part = Gymnasium("gym_careless_worlds:Hanging", "async", kwargs={"how": "killed"})
        rollout = framework.RolloutSettings(lanes=2, fixed_steps=8)
        framework.train(environment=part, rollout=rollout, recipe="a2c", iterations=9)
        """,
        tmp_path / "script.py",
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("framework.errors.PartError: environment 'gymnasium'")
    assert "__del__" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("Traceback (most recent call last)") == 2  # the error, and the one that it comes from


def test_an_error_of_a_process_keeps_its_own_traceback(tmp_path):
    """The line of the user's code is in the message, and the traceback of the process in the record."""
    part = Gymnasium("gym_careless_worlds:odd", "async", kwargs={"how": "bug"})
    with pytest.raises(PartError, match=r"IndexError: pop from empty list \(.*gym_careless_worlds\.py:\d+ in step\)"):
        framework.train(environment=part, rollout=LANES, recipe="a2c", iterations=1, directory=tmp_path / "run")
    assert "[].pop()" in (tmp_path / "run/error.txt").read_text()


@pytest.mark.slow
def test_a_program_without_a_main_guard_gets_a_hint_where_processes_are_spawned(tmp_path):
    done = run_script(
        """
        import multiprocessing
        multiprocessing.set_start_method("spawn")
        import framework
        from framework_gymnasium import Gymnasium

        part = Gymnasium("gym_careless_worlds:odd", "async")
        rollout = framework.RolloutSettings(lanes=2, fixed_steps=8)
        framework.train(environment=part, rollout=rollout, recipe="a2c", iterations=1)
        """,
        tmp_path / "script.py",
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert 'put what the program does under `if __name__ == "__main__":`' in last
