"""Gymnasium's environments: wrappers, processes, and what breaks."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tomllib

import gym_worlds
import numpy as np
import pytest
import torch
from framework_gymnasium import Gymnasium
from framework_gymnasium.making import parse_wrapper
from gymnasium_cases import CPU, SUPPORT, WAYS, Sum, gather, story

import framework
from framework import RolloutSettings, UsageError
from framework.cli import main
from framework.records.reading import read_record

# Wrappers and arguments


def test_wrappers_go_round_each_lane_with_their_arguments():
    part = story(
        "same_step",
        wrappers=("gym_worlds:Bounded(bonus=1000)", "FrameStackObservation(stack_size=2)", "FlattenObservation"),
    )
    ((rollout, _),) = gather(part, 2, policy=Sum(), fixed_steps=3)
    assert rollout.observations.shape == (3, 2, 6)
    assert bool((rollout.rewards >= 1000).all())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ClipAction(**{'low': 1})", "is not of the form"),
        ("ClipActoin", "no wrapper 'ClipActoin'. Did you mean 'ClipAction'?"),
        ("ClipAction(", "is not of the form"),
        ("ClipAction(low=open('x'))", "is not of the form"),
        ("nowhere:Wrap", "cannot import nowhere"),
    ],
)
def test_an_invalid_wrapper_is_reported(text, message):
    with pytest.raises(UsageError) as caught:
        parse_wrapper(text)
    assert message in str(caught.value)


@pytest.mark.slow
def test_arguments_and_wrappers_come_from_flags_and_from_the_record(tmp_path, monkeypatch, capsys):
    """They are TOML tables and lists, and come back as they were: true stays true, 2 an integer, 2.5 a float."""
    monkeypatch.chdir(tmp_path)
    words = ["--environment", "gymnasium", "--environment.id", "gym_worlds:story", "--environment.vectorization-mode"]
    words += ["sync", "--environment.kwargs", "lengths", "2,3", "ends", "u", "--environment.wrappers"]
    words += ["FrameStackObservation(stack_size=2)", "--iterations", "2", "--name"]
    assert main(["run", *words, "first", "--quiet"]) == 0
    recorded = read_record(tmp_path / "runs" / "first").tree["environment"]
    assert recorded["kwargs"] == {"lengths": "2,3", "ends": "u"}
    assert recorded["wrappers"] == ["FrameStackObservation(stack_size=2)"]
    assert main(["run", "--config", "runs/first/config.toml", "--name", "again", "--quiet"]) == 0
    one, two = (tmp_path / "runs" / name / "policy.safetensors" for name in ("first", "again"))
    assert one.read_bytes() == two.read_bytes()
    (tmp_path / "kinds.toml").write_text(
        '[environment]\nname = "gymnasium"\n[environment.kwargs]\na = true\nb = 2\nc = 2.5\nd = "x"\n'
    )
    capsys.readouterr()
    assert main(["show", "--config", "kinds.toml"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["environment"]["kwargs"] == {"a": True, "b": 2, "c": 2.5, "d": "x"}


# Metrics


@pytest.mark.parametrize(("mode", "vectorization"), WAYS)
def test_the_last_info_of_each_episode_reaches_the_metrics(mode, vectorization):
    """Episodes with an even number have two steps and succeed; `clock` is the length; what no info has is unknown."""
    part = story(mode, vectorization, "2,3", metrics=("is_success", "clock", "unheard"))
    with pytest.warns(RuntimeWarning, match=r"metrics unheard: \d+ episodes ended, and info had no such number"):
        ((_, finished),) = gather(part, 2, episodes=6)
    assert finished.metrics["clock"].tolist() == finished.lengths.tolist()
    assert np.isnan(finished.metrics["unheard"]).all()
    even = finished.lengths == 2
    assert finished.metrics["is_success"].tolist() == even.astype(float).tolist()


def test_a_success_flag_is_a_column_of_metrics_csv(tmp_path):
    framework.train(
        environment=story("same_step", lengths="1,1"),
        rollout=RolloutSettings(lanes=1, episodes=4, shards=1),
        iterations=3,
        directory=tmp_path / "run",
    )
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["environment/is_success"] for row in rows] == ["0.5"] * 3
    assert "environment/success" not in rows[0]


# Ends of runs


@pytest.mark.parametrize("fails", [False, True])
def test_processes_end_with_the_run(fails):
    part = Gymnasium("gym_worlds:broken", "async", kwargs={"how": "raise", "lane": 1 if fails else 99})
    gym_worlds.Broken.made = 0
    before = set(multiprocessing.active_children())
    try:
        framework.train(environment=part, rollout=RolloutSettings(lanes=2, steps=64), iterations=1)
    except framework.PartError:
        assert fails
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_an_error(tmp_path):
    """A real SIGKILL, in the third episode of lane 1: no waiting for an answer, and the record has the traceback."""
    script = (
        "import framework\nfrom framework import RolloutSettings\nfrom framework_gymnasium import Gymnasium\n"
        "part = Gymnasium('gym_worlds:broken', 'async', kwargs={'how': 'killed', 'lane': 2})\n"
        "rollout = RolloutSettings(lanes=2, episodes=8)\n"
        f"framework.train(environment=part, rollout=rollout, directory={str(tmp_path / 'run')!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SUPPORT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "framework.errors.PartError: environment 'gymnasium' (plugin gymnasium) raised " in done.stderr
    assert "LaneError" in (tmp_path / "run" / "error.txt").read_text()


@pytest.mark.slow
def test_ctrl_c_reaches_the_run_and_not_its_processes(tmp_path):
    """A terminal's SIGINT goes to the whole group: the run ends as any interrupted one, and no process is left."""
    words = ["run", "--environment", "gymnasium", "--environment.vectorization-mode", "async", "--rollout.lanes", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "framework", *words, "--iterations", "100000", "--name", "long"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    metrics, deadline = tmp_path / "runs/long/metrics.csv", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert json.loads(output)["stopped"] == ["interrupted"]
    assert not (tmp_path / "runs/long/error.txt").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_spawned_processes_import_what_registers_their_id():
    """Where processes are not forked, a child knows nothing but what it imports."""
    script = (
        "import multiprocessing, torch\nfrom framework_gymnasium import Gymnasium\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    lanes = Gymnasium('gym_worlds:Story-v0', 'async').build(1, torch.device('cpu'))\n"
        "    print(lanes.reset(torch.Generator()).shape)\n    lanes.close()\n"
    )
    path = SUPPORT / "spawned_by_a_test.py"
    path.write_text(script)
    try:
        done = subprocess.run(
            [sys.executable, str(path)], cwd=SUPPORT, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        path.unlink()
    assert "torch.Size([1, 3])" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.0.0", "1.1.1", "1.2.0"])
def test_older_gymnasiums_train_too(version, tmp_path):
    """From 1.0 on, which has one way to reset; in its own vectorised CartPole, and lane by lane."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, f"gymnasium=={version}"], check=True, capture_output=True, timeout=300)
    script = (
        "import gymnasium, framework\nfrom framework_gymnasium import Gymnasium\n"
        f"assert gymnasium.__version__ == '{version}'\n"
        "for mode in ('auto', 'sync', 'async'):\n"
        "    part = Gymnasium(vectorization_mode=mode)\n"
        "    print(framework.train(recipe='ppo', environment=part, iterations=1).run.steps)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(0 < int(steps) <= 1024 for steps in done.stdout.split())


# What breaks


LABEL = "environment 'gymnasium' (plugin gymnasium)"
RAISED = f"{LABEL} raised LaneError: lane 1, step 1 of its episode, action "
BREAKS = {
    "raise": (RAISED, ": ValueError: the gripper is stuck"),
    "shape": (RAISED, ": observation of shape [3], and the space is Box(-1.0, 1.0, (2,), float32)"),
    "hole": (f"{LABEL}: observations: not finite (nan) at step 12, lane 1, after action ",),
    "outside": (f"{LABEL}: observations: 1.5 is outside its space, -1.0 to 1.0, at step 12, lane 1, after action ",),
    "reward": (f"{LABEL}: rewards: not finite (inf) at step 11, lane 1, after action ",),
    "last": (f"{LABEL}: step: successors: not finite (nan) at step 11, lane 1, after action ",),
    "row": (RAISED, ": reward: expected one number, got ndarray of shape [3] (", "gym_worlds.py:"),
    "few": (RAISED, ": step must return 5 values: observation, reward, terminated, truncated, info; got 4: "),
    "metric": (RAISED, ": metric 'success': expected one number in info, got 'yes'"),
    "begin": (f"{LABEL} raised LaneError: lane 1, reset with seed ", "observation of shape [3], and the space is Box"),
    "state": (f"{LABEL}: observations: 9 is outside Discrete(4) at step 12, lane 1, after action ",),
}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["categorical", "actor_critic"])
@pytest.mark.parametrize("how", BREAKS)
def test_an_environment_that_breaks_is_named_with_lane_step_and_action(how, policy, tmp_path, monkeypatch, capsys):
    """In lane 1, in the second step of its third episode of five: row 11, and what it led to is seen in row 12."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gym_worlds.Broken, "made", 0)
    words = ["--environment", "gymnasium", "--environment.id", "gym_worlds:broken", "--environment.kwargs", "how", how]
    words += ["--rollout.lanes", "2", "--rollout.episodes", "8", "--policy", policy, "--name", "broken"]
    words += ["--environment.metrics", "success"]
    assert main(["run", *words]) == 1
    said = capsys.readouterr().err
    assert all(text in said for text in BREAKS[how]), said
    assert "Error" in (tmp_path / "runs/broken/error.txt").read_text()


def test_what_was_recorded_before_an_environment_breaks_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(gym_worlds.Broken, "made", 0)
    part = Gymnasium("gym_worlds:broken", kwargs={"how": "hole"})
    with pytest.raises(framework.PartError, match=r"not finite \(nan\) at step 4, lane 1, after action [01]"):
        framework.train(
            recipe="a2c",
            environment=part,
            rollout=RolloutSettings(lanes=2, fixed_steps=8),
            directory=tmp_path / "run",
        )
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert [row["steps"] for row in csv.DictReader(file)] == ["16"]
    assert "not finite" in (tmp_path / "run" / "error.txt").read_text()


OWN = "vector_entry_point"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Gymnasium("CartPol-v1"), "Gymnasium has no environment 'CartPol-v1'. Did you mean 'CartPole-v1' or "),
        (Gymnasium("CartPole-v9"), "Gymnasium has no environment 'CartPole-v9'. Did you mean 'CartPole-v1'"),
        (Gymnasium("zzz"), "One of your own is named module:id or module:function"),
        (Gymnasium("nowhere:Thing-v0"), "environment.id: cannot import nowhere: ModuleNotFoundError"),
        (Gymnasium("gym_worlds:nothing"), "no environment 'nothing', nor a function of that name in gym_worlds"),
        (Gymnasium("gym_worlds:without_package"), 'not installed: pip install "framework-rl[mujoco]"'),
        (Gymnasium("Pendulum-v1", OWN), "'Pendulum-v1' has no vectorised version: choose sync or async"),
        (Gymnasium("CartPole-v1", OWN, "same_step"), "the vectorised CartPole-v1 resets by next_step"),
        (Gymnasium("CartPole-v1", OWN, wrappers=("ClipAction",)), "wrappers go around single lanes"),
        (Gymnasium("Pendulum-v1", kwargs={"gravity": 3}), "'Pendulum-v1' refuses its arguments or wrappers: "),
    ],
)
def test_an_environment_that_cannot_be_made_is_reported_with_a_remedy(settings, message, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as if MuJoCo were not here
    with pytest.raises(UsageError) as caught:
        settings.build(2, CPU)
    assert message in str(caught.value)


def test_a_registered_id_of_ones_own_module():
    lanes = Gymnasium("gym_worlds:Story-v0", kwargs={"lengths": "2"}).build(2, CPU)
    assert lanes.reset(torch.Generator().manual_seed(0)).shape == (2, 3)
