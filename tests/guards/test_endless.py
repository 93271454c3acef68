"""Episodes that never end: whole-episode rollouts and evaluations stop and say what to set; bars say it at once."""

import os
import pty
import re
import select
import signal
import sys
import time

import numpy as np
import pytest
import torch
from attrs import frozen
from framework_classic import Pendulum
from framework_line_world import LineWorld
from framework_reinforce import Categorical
from gymnasium.spaces import Box, Discrete

import framework
from framework import PartError, RolloutSettings, Step, UsageError
from framework.cli import main
from framework.guards.episode_limit import EpisodeLimit, EpisodeWatch
from framework.reporting.progress_bar import so_far


def stepped(policy):
    """Without its table of probabilities, so that the world is stepped."""
    policy.__class__ = type("Stepped", (type(policy),), {"actor": lambda self: None})
    return policy


@frozen
class Slow:
    "The categorical policy, acting step by step."

    def build(self, *spaces):
        return stepped(Categorical().build(*spaces))


WORLD = LineWorld(goal=6, max_steps=0)
COLLECTORS = {"one by one": (Categorical(), 4), "together": (Categorical(), 100), "stepped": (Slow(), 4)}


def lengths(policy, most, **rollout):
    """Of the episodes of one rollout, by an untrained policy."""
    settings = RolloutSettings(**rollout, max_episode_steps=most)
    result = framework.train(environment=WORLD, policy=policy, rollout=settings, iterations=1, seed=3)
    return result.recent_lengths, result.run.policy.state_dict()


@pytest.mark.parametrize("amount", [{"steps": 300}, {"episodes": 9}], ids=["steps", "episodes"])
@pytest.mark.parametrize("collector", COLLECTORS)
def test_an_episode_may_take_as_many_steps_as_it_may_and_not_one_more(collector, amount):
    """In each way to collect: with the longest episode's length as limit the run is the same, with one less it ends."""
    policy, lanes = COLLECTORS[collector]
    free, learnt = lengths(policy, 100_000, lanes=lanes, **amount)
    longest = int(max(free))
    again, state = lengths(policy, longest, lanes=lanes, **amount)
    assert np.array_equal(free, again)
    assert all(torch.equal(learnt[name], tensor) for name, tensor in state.items())
    message = (
        rf"^environment 'line_world' \(plugin line_world\): lane \d+: an episode has not ended after {longest - 1:,} "
        r"steps: set environment.max_steps, collect rollout.fixed_steps, or raise rollout.max_episode_steps$"
    )
    with pytest.raises(PartError, match=message):
        lengths(policy, longest - 1, lanes=lanes, **amount)


@frozen
class Endless:
    "Nothing ends but in lane 0, which ends every third step; with resets in rows of their own, if asked for."

    resets: bool = False

    def build(self, lanes, device):
        return EndlessLanes(lanes, self.resets)


class EndlessLanes:
    observation_space, action_space = Box(-1, 1, (1,)), Discrete(2)

    def __init__(self, lanes, resets):
        self.lanes, self.resets, self.clock, self.rows = lanes, resets, 0, 0
        self.zeros = torch.zeros(lanes, 1)

    def reset(self, generator):
        self.clock = 0
        return self.zeros

    def step(self, actions, generator):
        self.rows += 1
        resetting = self.resets and self.clock == 3
        self.clock = 0 if resetting or (self.clock == 2 and not self.resets) else self.clock + 1
        over = torch.zeros(self.lanes, dtype=torch.bool)
        over[0] = self.clock == (3 if self.resets else 0)
        valid = torch.ones(self.lanes, dtype=torch.bool)
        valid[0] = not resetting
        return Step(
            self.zeros,
            self.zeros,
            torch.ones(self.lanes),
            over & valid,
            torch.zeros_like(over),
            valid=valid if self.resets else None,
        )


@pytest.mark.parametrize("resets", [False, True], ids=["", "rows that are no steps"])
def test_the_lane_that_never_ends_is_named(resets):
    rollout = RolloutSettings(lanes=3, steps=50, max_episode_steps=1500)
    with pytest.raises(PartError) as caught:
        framework.train(environment=Endless(resets), policy=Slow(), rollout=rollout, iterations=1)
    assert str(caught.value) == (
        "environment 'Endless' (plugin test_endless): lane 1: an episode has not ended after 1,500 steps: give the "
        "environment a time limit, collect rollout.fixed_steps, or raise rollout.max_episode_steps"
    )


@pytest.mark.slow
def test_a_world_of_tables_that_never_ends_is_refused_too(capsys):
    """A goal that is too far to be found by chance."""
    words = ["--environment.goal", "1000", "--environment.max-steps", "0", "--reports"]
    for more, steps in ([], "100,000"), (["--rollout.lanes", "100", "--rollout.max-episode-steps", "2000"], "2,000"):
        assert main(["run", *words, *more]) == 1
        assert f"an episode has not ended after {steps} steps: set environment.max_steps" in capsys.readouterr().err


@pytest.mark.slow
def test_fixed_steps_are_collected_for_ever():
    result = framework.train(
        environment=Pendulum(max_steps=0),
        recipe="ppo_continuous",
        rollout=RolloutSettings(lanes=2, fixed_steps=64, max_episode_steps=5),
        iterations=2,
    )
    assert result.run.steps == 256


def test_an_evaluation_ends_likewise(tmp_path, capsys):
    policy = Slow().build(Box(-1, 1, (1,)), Discrete(2))
    message = (
        "lane 1: an episode has not ended after 7 steps: give the environment a time limit, or raise max_episode_s"
    )
    with pytest.raises(PartError, match=message):
        framework.evaluate(policy, Endless(), episodes=2, max_episode_steps=7)
    with pytest.raises(UsageError, match="max_episode_steps must be >= 1: 0"):
        framework.evaluate(policy, Endless(), max_episode_steps=0)
    framework.train(environment=WORLD, iterations=1, directory=tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "--max-episode-steps", "5"]) == 1
    said = "has not ended after 5 steps: give the environment a time limit, or raise --max-episode-steps"
    assert said in capsys.readouterr().err
    with pytest.raises(PartError, match="lane 1: .* ended after 40 steps: .* or raise rollout.max_episode_steps"):
        framework.train(
            environment=Endless(),
            policy=Slow(),
            extensions=[evaluating()],
            rollout=RolloutSettings(lanes=1, steps=5, max_episode_steps=40),
            iterations=1,
        )


def evaluating():
    from framework_evaluation import Evaluate

    return Evaluate(every=1, episodes=2)


def test_a_limit_below_one_is_refused(capsys):
    assert main(["show", "--rollout.max-episode-steps", "0"]) == 2
    assert "rollout.max_episode_steps must be >= 1: 0" in capsys.readouterr().err


def test_a_watch_is_called_a_few_times_a_second(monkeypatch):
    """Of rows that take a millisecond each, with and without a limit."""
    from framework.guards import episode_limit as endless

    now, heard = [0.0], []
    monkeypatch.setattr(endless.time, "perf_counter", lambda: now[0])
    for limit in (None, EpisodeLimit(10**6)):
        heard.clear()
        watch = EpisodeWatch("it", limit, lambda steps, ended: heard.append((now[0], steps, ended)))
        began = now[0]
        for t in range(1, 10_001):
            now[0] += 1e-3
            if t == watch.due:
                watch.look(t, 8 * t, 0, {}, np.ones(8, bool))
        assert 35 <= len(heard) <= 45  # in ten seconds
        assert heard[0] == (pytest.approx(began + 0.001), 8, 0)  # a row may take a second


@pytest.mark.parametrize(("episodes", "said"), [(0, "no episode has ended yet (1,234 steps)"), (3, "1,234 steps")])
def test_what_a_bar_says_of_steps(episodes, said):
    assert so_far(episodes, 1234) == said


WAITS = '''
"""A world that is slow and never ends."""
import time
import gymnasium, numpy as np


class Waits(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        time.sleep(0.0005)
        return np.zeros(1, np.float32), 1.0, False, False, {}
'''


def seen(words, folder, wanted, seconds):
    """What a command shows on a terminal until it shows `wanted`; it is then interrupted."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, "-m", "framework", *words], {**os.environ, "COLUMNS": "140"})
    shown, deadline = "", time.monotonic() + seconds
    while not re.search(wanted, shown) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown


@pytest.mark.slow
def test_a_bar_says_at_once_that_no_episode_ends(tmp_path, monkeypatch):
    """Within a first rollout that never ends, between rollouts of fixed steps, and in an evaluation."""
    (tmp_path / "waits.py").write_text(WAITS)
    world = ["--environment", "gymnasium", "--environment.id", "waits:Waits"]
    wanted = r"no episode has ended yet \([\d,]+ steps\)"
    for recipe in ("reinforce", "ppo"):
        words = ["run", "--recipe", recipe, "--policy", "actor_critic", *world, "--reports", "progress"]
        assert re.search(wanted, seen(words, tmp_path, wanted, 60)), recipe
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    short = ["--rollout.fixed-steps", "8", "--iterations", "1", "--name", "a", "--reports", "record", "--quiet"]
    assert main(["run", "--recipe", "ppo", *world, *short]) == 0
    assert re.search(wanted, seen(["evaluate", "runs/a"], tmp_path, wanted, 60))
