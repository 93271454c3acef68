"""`framework evaluate`: it prints what the policy earned, elsewhere too; wrong words are said; videos are real."""

import itertools
import json
import os
import re
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from command_line import in_terminal, said
from framework_line_world import LineWorld

import framework
from framework import PartError, UsageError
from framework.cli import main
from framework.config import DEFAULTS
from framework.parts import Part
from framework.reporting import video
from framework.setup import building
from framework.setup.loading import load
from framework.setup.tree import pick


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with recorded runs: one with evaluations, one without."""
    folder = tmp_path_factory.mktemp("trained")
    parts = {"iterations": 12, "seed": 4, "optimizer": framework.OptimizerSettings(lr=0.03)}
    framework.train(directory=folder / "runs" / "first", **parts)
    best = framework_evaluate(every=2)
    framework.train(directory=folder / "runs" / "best", extensions=[best], **parts)
    return folder


def framework_evaluate(**settings):
    return load().pick("extension", "evaluate")[2](**settings)


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def evaluate_summary(capsys, *words):
    return json.loads(said(capsys, "evaluate", *words).out)


# What is printed


@pytest.mark.parametrize("words", [[], ["--greedy"], ["--best"], ["--seed", "9", "--lanes", "7", "--episodes", "33"]])
def test_the_numbers_are_those_of_the_policy(here, capsys, words):
    summary = evaluate_summary(capsys, "runs/best", *words)
    best, greedy, other = ("--best" in words), ("--greedy" in words), ("--seed" in words)
    played = framework.evaluate(
        framework.load("runs/best", best=best),
        LineWorld(),
        episodes=33 if other else 100,
        lanes=7 if other else 16,
        seed=9 if other else 4,
        greedy=greedy,
    )
    assert summary.pop("seconds") >= 0
    assert summary == {
        "policy": f"runs/best/{'best' if best else 'policy'}.safetensors",
        "environment": "line_world",
        "actions": "greedy" if greedy else "sampled",
        "seed": 9 if other else 4,
        "episodes": len(played.returns),
        "steps": int(played.lengths.sum()),
        "mean_return": played.mean,
        "std_return": played.std,
        "standard_error": played.standard_error,
        "interval": list(played.interval),
        "median_return": played.median,
        "min_return": played.min,
        "max_return": played.max,
        "mean_length": played.mean_length,
        "video": None,
    }


def test_no_more_lanes_are_built_than_there_are_episodes(here, capsys, monkeypatch):
    """Each may be a process."""
    built, real = [], building.build_environment
    monkeypatch.setattr(
        building, "build_environment", lambda part, *given: built.append(given[0]) or real(part, *given)
    )
    assert evaluate_summary(capsys, "runs/first", "--episodes", "3")["episodes"] == 3
    assert evaluate_summary(capsys, "runs/first", "--episodes", "30", "--lanes", "4")["episodes"] == 30
    assert built == [3, 4]


def test_it_may_be_evaluated_elsewhere(here, capsys):
    """Flags and files win over the record: each step costs 2, and time is up after 3."""
    words = ["runs/first", "--environment.max-steps", "3", "--environment.step-reward", "-2"]
    summary = evaluate_summary(capsys, *words)
    assert (summary["mean_return"], summary["max_return"], summary["mean_length"]) == (-6, -6, 3)
    (here / "short.toml").write_text("[environment]\nmax_steps = 2\n")
    assert evaluate_summary(capsys, "runs/first", "--config", "short.toml")["mean_length"] == 2
    assert (
        evaluate_summary(capsys, "runs/first", "--config", "short.toml", "--environment.max-steps", "1")["mean_length"]
        == 1
    )


def test_help_shows_the_recorded_parts_settings_and_none_that_play_no_part(here, capsys):
    text = said(capsys, "evaluate", "runs/first", "--help", "--environment.goal", "9").out
    assert "usage: framework evaluate RUN" in text
    for flag in ("--episodes", "--greedy", "--best", "--video", "--environment.goal", "--policy.hidden", "--seed"):
        assert flag in text, flag
    for flag in ("--iterations", "--optimizer.", "--update.", "--rollout.", "--loss.", "--extensions."):
        assert flag not in text, flag
    assert "--episodes" in said(capsys, "evaluate", "--help").out


def test_numbers_that_do_not_exist_are_null(here, capsys):
    summary = evaluate_summary(capsys, "runs/first", "--episodes", "1")
    assert (summary["std_return"], summary["standard_error"], summary["interval"]) == (None, None, [None, None])


def test_nothing_is_written(here, capsys):
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    evaluate_summary(capsys, "runs/best", "--best")
    assert before == {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_on_a_terminal_there_is_a_table(here):
    output, code = in_terminal(["evaluate", "runs/first", "--episodes", "20"], here)
    assert code == 0
    assert re.search(r"return of an episode\s+┃ 20 episodes", output)
    assert re.search(r"95% interval of the mean\s+│ -?\d+\.\d\d to -?\d+\.\d\d", output)
    assert "runs/first/policy.safetensors in line_world, sampled, seed 4" in output


# What is said of wrong words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which run? Its folder comes first: framework evaluate runs/NAME [OPTIONS]"),
        (["--greedy", "runs/first"], "which run? Its folder comes first"),
        (["runs/frist"], "no run directory runs/frist"),
        (["runs"], "no configuration file runs/config.toml"),
        (["runs/first", "--best"], "runs/first has no best.safetensors: train with --extensions evaluate"),
        (["runs/first", "--episodes", "0"], "episodes must be >= 1: 0"),
        (["runs/first", "--lanes", "0"], "lanes must be >= 1: 0"),
        (["runs/first", "--seed", "-1"], "seed must be >= 0: -1"),
        (["runs/first", "--iterations", "5"], "Unrecognized options: --iterations"),
        (
            ["runs/first", "--environment.goal", "8"],
            "runs/first/policy.safetensors was trained on observations Discrete(5), and environment 'line_world' "
            "(plugin line_world) has observations Discrete(9): choose the environment and settings that it was",
        ),
        (["runs/first", "--policy", "tabular"], "does not fit policy 'tabular' (plugin policies) in environment"),
        (["runs/first", "--video", "seen.gif"], "a video's name ends in .mp4: seen.gif"),
        (["runs/first", "--video", "no/seen.mp4"], "no/seen.mp4 cannot be written: there is no folder no"),
        (
            ["runs/first", "--video", "seen.mp4"],
            "environment 'line_world' (plugin line_world) cannot be filmed: it has no render()",
        ),
    ],
)
def test_wrong_words_exit_2_and_say_what_would_be_right(here, capsys, words, message):
    captured = said(capsys, "evaluate", *words, code=2)
    assert captured.err.startswith(f"error: {message}") or message in captured.err
    assert captured.out == ""


def test_a_run_that_did_not_finish_has_no_policy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    framework.train(iterations=1, directory="runs/half")
    (tmp_path / "runs" / "half" / "policy.safetensors").unlink()
    message = "runs/half has no policy.safetensors: the run did not finish"
    assert message in said(capsys, "evaluate", "runs/half", code=2).err


PLUGIN = '''
import numpy as np
import torch
from attrs import frozen
from framework_line_world import LineWorld, LineWorldLanes
from framework_reinforce import Categorical
from framework import hookimpl


@frozen
class Camera(LineWorld):
    """A line world that can be seen."""

    goal: int = 3
    render_mode: str = "None"
    height: int = 32  # of a picture
    fails: bool = False  # when it is stepped

    def build(self, num_envs, device):
        return CameraLanes(self, num_envs, device)


class CameraLanes(LineWorldLanes):
    metadata = {"render_fps": 12}

    def render(self):
        if self.settings.render_mode != "rgb_array":
            return None
        picture = np.zeros((self.settings.height, 64, 3), np.uint8)
        picture[:, 16 * int(self._step.observations[0]) :][:, :16] = 255
        return picture

    def mdp(self):
        raise AttributeError("hidden")

    def step(self, actions, generator):
        if self.settings.fails:
            raise ValueError("on purpose")
        return super().step(actions, generator)

    def __getattribute__(self, name):
        if name == "mdp":
            raise AttributeError(name)
        return super().__getattribute__(name)


@frozen
class Odd(Categorical):
    """A policy without greedy()."""

    def build(self, observation_space, action_space):
        policy = super().build(observation_space, action_space)
        policy.__class__ = type("OddPolicy", (type(policy),), {"greedy": property(lambda self: self.missing)})
        return policy


@hookimpl
def environments():
    return {"camera": Camera}


@hookimpl
def policies():
    return {"odd": Odd}
'''


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """A record of a run in the world that can be seen."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera.py").write_text(PLUGIN)
    words = ["--plugins", "line_world,reinforce,./camera.py", "--environment", "camera", "--reports", "record"]
    assert main(["run", *words, "--name", "seen", "--iterations", "3", "--policy", "odd"]) == 0
    yield tmp_path
    sys.modules.pop("framework_file_camera", None)


def test_a_policy_without_greedy_is_named(seen, capsys):
    message = "error: policy 'odd' (plugin camera) has no greedy(), which takes the most probable action: evaluate it "
    assert message in said(capsys, "evaluate", "runs/seen", "--greedy", code=2).err


def test_a_part_that_raises_is_named_and_exits_1(seen, capsys):
    captured = said(capsys, "evaluate", "runs/seen", "--environment.fails", code=1)
    assert "error: environment 'camera' (plugin camera) raised ValueError: on purpose (" in captured.err


# Videos


def frames(path, height=32):
    """The pictures of a video [frames, height, 64, 3], as ffmpeg itself decodes them."""
    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(words, capture_output=True, check=True).stdout
    return np.frombuffer(decoded, np.uint8).reshape(-1, height, 64, 3)


@pytest.mark.slow
def test_a_video_shows_the_beginning_and_each_step(seen, capsys):
    """The white square stands where the policy went: at first in 0, then one further or back, or at the wall.

    After the last step the world shows the next episode's beginning, again in 0.
    """
    plain = evaluate_summary(capsys, "runs/seen", "--episodes", "5")
    summary = evaluate_summary(capsys, "runs/seen", "--episodes", "5", "--video", "seen.mp4")
    assert summary.pop("video") == "seen.mp4"
    assert {**plain, "seconds": 0} == {**summary, "seconds": 0, "video": None}
    pictures = frames("seen.mp4")
    count, seconds = imageio_ffmpeg.count_frames_and_secs("seen.mp4")
    assert (count, seconds) == (len(pictures), pytest.approx(count / 12, abs=0.01))  # ffmpeg prints hundredths
    states = [int(picture[:, :, 0].mean(0).reshape(4, 16).mean(1).argmax()) for picture in pictures]
    assert states[0] == states[-1] == 0
    assert states[-2] == 2
    assert all(abs(after - before) <= 1 for before, after in itertools.pairwise(states[:-1]))


def part_of(cls, **settings):
    return Part("environment", "camera", "camera", cls(**settings))


def filmed(tmp_path, part, greedy=False):
    policy = framework.load(tmp_path / "runs" / "seen")
    label, device = "policy 'odd' (plugin camera)", torch.device("cpu")
    return video.film(tmp_path / "film.mp4", policy, part, label, seed=1, greedy=greedy, device=device)


@pytest.mark.slow
def test_there_is_a_picture_more_than_steps(seen):
    for limit in (1, 2, 9):
        camera = load(["line_world", "./camera.py"]).pick("environment", "camera")[2]
        played = filmed(seen, part_of(camera, max_steps=limit, goal=3))
        assert len(frames(seen / "film.mp4")) == 1 + played.lengths.sum()


def test_odd_sides_are_made_even(seen):
    camera = load(["line_world", "./camera.py"]).pick("environment", "camera")[2]
    played = filmed(seen, part_of(camera, height=33))
    assert len(frames(seen / "film.mp4", 34)) == 1 + played.lengths.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (None, "NoneType"),
        (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
)
def test_what_is_no_picture_is_refused(seen, picture, got):
    camera = load(["line_world", "./camera.py"]).pick("environment", "camera")[2]
    part = part_of(camera)
    sys.modules["framework_file_camera"].CameraLanes.render = lambda self: picture
    with pytest.raises(PartError, match=f"environment 'camera' .*: render: expected a numpy array uint8 .*, got {got}"):
        filmed(seen, part)
    assert not list(seen.glob("*.mp4"))


def test_pictures_that_change_their_size_are_refused_in_a_sentence(seen, capsys):
    sizes = iter([(32, 64, 3), (32, 64, 3), *[(34, 64, 3)] * 1000])
    load(["line_world", "./camera.py"])
    lanes = sys.modules["framework_file_camera"].CameraLanes
    lanes.render = lambda self: np.zeros(next(sizes), np.uint8)
    captured = said(capsys, "evaluate", "runs/seen", "--episodes", "1", "--video", "film.mp4", code=1)
    assert captured.err == (
        "error: environment 'camera' (plugin camera): render: all frames of a video must have the same size: "
        "expected [32, 64, 3] as the first one, got [34, 64, 3]\n"
    )
    assert not list(seen.glob("*.mp4"))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [-1, float("nan"), "fast"])
def test_a_rate_that_is_none_is_refused(seen, rate):
    camera = load(["line_world", "./camera.py"]).pick("environment", "camera")[2]
    part = part_of(camera)
    sys.modules["framework_file_camera"].CameraLanes.metadata = {"render_fps": rate}
    with pytest.raises(PartError, match=r"environment 'camera' .*: render_fps: expected a number of frames per second"):
        filmed(seen, part)


@pytest.mark.slow
def test_a_video_that_cannot_be_written_is_reported(seen):
    """As on a full disk, where the encoder ends in the middle."""
    camera = seen / "camera.py"
    camera.write_text(camera.read_text() + "\nCameraLanes.render = lambda self: np.zeros((512, 512, 3), np.uint8)\n")
    real, exe = imageio_ffmpeg.get_ffmpeg_exe(), seen / "encoder"
    full = "head -c 100 > /dev/null; echo 'No space left on device' >&2; exit 1"
    exe.write_text(f'#!/bin/sh\ncase "$*" in *rawvideo*) {full};; esac\nexec "{real}" "$@"\n')
    exe.chmod(0o755)
    words = [sys.executable, "-m", "framework", "evaluate", "runs/seen", "--video", "film.mp4"]
    environment = {**os.environ, "IMAGEIO_FFMPEG_EXE": str(exe)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "No space left on device\nerror: film.mp4 cannot be written: [Errno 32] Broken pipe (the encoder's "
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not list(seen.glob("*.mp4"))


@pytest.mark.parametrize("name", ["imageio", "imageio_ffmpeg"])
def test_without_an_encoder_the_error_says_how_to_install_one(seen, capsys, monkeypatch, name):
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    captured = said(capsys, "evaluate", "runs/seen", "--video", "seen.mp4", code=2)
    assert 'pip install "framework-rl[video]"' in captured.err
    assert not list(seen.glob("*.mp4"))


def test_an_environment_that_cannot_be_seen_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'line_world' .* cannot be filmed: it has no render"):
        video.renderable_environment(pick(load(), "environment", DEFAULTS), torch.device("cpu"))
