"""Gymnasium's environments: its three ways to reset, its spaces, its own vectorised worlds, and what breaks."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import gym_worlds
import gymnasium
import numpy as np
import pytest
import torch
from framework_gymnasium import Gymnasium
from framework_gymnasium.making import wrapper
from framework_policies import ActorCritic, Gaussian, MultiCategorical
from framework_reinforce import Categorical
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutate

import framework
from framework import Action, Evaluation, RolloutSettings, UsageError
from framework.cli import main
from framework.collecting.rollout import collect
from framework.collecting.shard import Shard
from framework.records.reading import read_record

CPU = torch.device("cpu")
HERE = Path(__file__).parent
MODES = ("next_step", "same_step", "disabled")
WAYS = [*((mode, "sync") for mode in MODES), *((mode, "async") for mode in MODES)]


class Chooser(torch.nn.Module):
    """Draws among the first `count` actions alike; V(s) = Σ weights · observation, different for every state."""

    def __init__(self, count=3, width=3):
        super().__init__()
        self.count = count
        self.weights = torch.tensor([1000.0, 10.0, 1.0, 0.1][:width])

    def act(self, inputs, generator):
        return Action(torch.randint(self.count, (len(inputs.observations),), generator=generator))

    def evaluate(self, inputs, actions, entropies):
        return Evaluation(torch.zeros(actions.shape))

    def values(self, inputs):
        return inputs.observations.float() @ self.weights


class Sum(Chooser):
    """V(s) is the sum of the observation's numbers."""

    def values(self, inputs):
        return inputs.observations.double().reshape(len(inputs.observations), -1).sum(1).float()


def shards(part, lanes, **amount):
    amounts = {"steps": None, "episodes": None, "fixed_steps": None, **amount}
    labels = ("environment 'gymnasium' (plugin gymnasium)", "policy 'chooser' (plugin tests)")
    environment = part.build(lanes, CPU) if isinstance(part, Gymnasium) else part
    return Shard(environment, lanes, *amounts.values(), seed=5, number=0, device=CPU, labels=labels)


def gather(part, lanes, iterations=1, policy=None, **amount):
    """Rollouts with values, and the episodes that ended; the lanes are closed."""
    policy = policy or Chooser()
    shard = shards(part, lanes, **amount)
    try:
        return [collect([shard], policy, policy, i, True) for i in range(iterations)]
    finally:
        shard.environment.close()


def story(mode, vectorization="sync", lengths="3", ends="t", **settings):
    kwargs = {"lengths": lengths, "ends": ends, "reuse": True}
    return Gymnasium("gym_worlds:story", vectorization, mode, kwargs, **settings)


# Gymnasium's published timeline (its documentation, "Autoreset Mode"): an episode whose third step is its last. Which
# observation (episode, step) each call returns, and whether the row that begins there is a step of the world.
TIMELINE = {
    # the call after the end resets: its action is ignored, its row is none of the world's
    "next_step": [(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 0), (1, 0, 1), (1, 1, 1), (1, 2, 1)],
    # the third call returns the next episode's first observation
    "same_step": [(0, 0, 1), (0, 1, 1), (0, 2, 1), (1, 0, 1), (1, 1, 1), (1, 2, 1), (2, 0, 1)],
    # the user resets after the third call; here with a seed of its own, from which this world takes its number
    "disabled": [(0, 0, 1), (0, 1, 1), (0, 2, 1), (..., 0, 1), (..., 1, 1), (..., 2, 1), (..., 0, 1)],
}


@pytest.mark.parametrize(("mode", "vectorization"), WAYS)
def test_each_way_to_reset_keeps_to_gymnasiums_published_timeline(mode, vectorization):
    ((rollout, finished),) = gather(story(mode, vectorization), 1, fixed_steps=7)
    first = int(rollout.observations[0, 0, 0])
    for (episode, clock, real), seen, mask in zip(
        TIMELINE[mode], rollout.observations[:, 0], rollout.mask, strict=True
    ):
        assert (int(seen[1]), bool(mask)) == (clock, bool(real))
        assert episode is ... or int(seen[0]) - first == episode
    assert finished.lengths.tolist() == [3, 3]
    ends = rollout.terminated[:, 0].nonzero().flatten().tolist()
    assert ends == ([2, 6] if mode == "next_step" else [2, 5])
    assert not rollout.truncated.any()


STORIES = st.tuples(
    st.lists(st.integers(1, 4), min_size=1, max_size=3), st.lists(st.sampled_from("tub"), min_size=1, max_size=3)
)
AMOUNTS = [{"steps": 9}, {"episodes": 5}, {"fixed_steps": 6}]


def one_lane_by_hand(lengths, ends, told, seeded):
    """The story told by a single environment with the same actions: of each step, all that a rollout says of it.

    Only an episode that begins with a seed is taken from what was told; any other follows the one before it.
    """
    env = gym_worlds.Story(lengths, ends)
    value = lambda observation: float(observation @ np.array([1000.0, 10.0, 1.0]))  # noqa: E731
    expected, over = [], None
    for action, observation, *_ in told:
        if over is None or (over and seeded):
            env.episode = int(observation[0]) - 1
        if over is None or over:
            seen = env.reset()[0].copy()
        reached, reward, terminated, truncated, _ = env.step(np.int64(action))
        reached = reached.copy()
        row = (seen.tolist(), reward, terminated, truncated, value(seen), 0.0 if terminated else value(reached))
        expected.append((action, *row))
        seen, over = reached, terminated or truncated
    return expected


def law_of_stories(lanes_module, mode, amount, lengths, ends):
    """Real steps, read lane by lane, are what a single environment does with the same actions; V(s′), too.

    At the end of time it is the true last state's, and not the next episode's first. Of fixed steps, just the rows
    after an end are none, and those in mode next_step only.
    """
    lengths, ends = ",".join(map(str, lengths)), "".join(ends)
    part = story(mode, "sync", lengths, ends)
    if lanes_module is not None:
        made = part.build(3, CPU)
        part = lanes_module.GymnasiumLanes(made.lanes, made.autoreset, made.wanted, CPU)
    told, masks, over = [[], [], []], [], []
    for rollout, _ in gather(part, 3, iterations=2 if "fixed_steps" in amount else 1, **amount):
        masks.append(rollout.mask)
        over.append(rollout.terminated | rollout.truncated)
        for n in range(3):
            real = rollout.mask[:, n]
            names = ("actions", "observations", "rewards", "terminated", "truncated", "values", "successor_values")
            columns = [getattr(rollout, name)[real, n].tolist() for name in names]
            told[n] += zip(*columns, strict=True)
    for steps in told:
        assert steps == one_lane_by_hand(lengths, ends, steps, mode == "disabled")
    if "fixed_steps" in amount:
        mask, before = torch.cat(masks), torch.cat(over)[:-1]
        assert bool(mask[0].all())
        assert torch.equal(mask[1:], ~before if mode == "next_step" else torch.ones_like(before))


@pytest.mark.slow
@pytest.mark.parametrize("amount", AMOUNTS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_in_every_mode_a_rollout_is_what_a_single_environment_does(mode, amount):
    @given(STORIES)
    @settings(max_examples=25)
    def check(drawn):
        law_of_stories(None, mode, amount, *drawn)

    check()


@pytest.mark.parametrize("mode", MODES)
def test_lanes_in_processes_are_those_in_this_one_bit_for_bit(mode):
    both = [gather(story(mode, way, "2,4,1", "tub"), 3, iterations=2, fixed_steps=9) for way in ("sync", "async")]
    for (one, scores), (other, other_scores) in zip(*both, strict=True):
        for name in ("observations", "actions", "rewards", "terminated", "truncated", "mask", "successor_values"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert scores.returns.tolist() == other_scores.returns.tolist()


REACHED, ENDED = (
    'copy_into(self._reached[lane : lane + 1], np.asarray(final[lane])[None], "unsafe", lane)',
    "self._ended.copy()",
)
MUTANTS = {
    "reset rows count as steps": (
        "next_step",
        "valid=buffer(torch.bool) if",
        "valid=None if True else buffer(torch.bool) if",
    ),
    "no row after a reset row": (
        "next_step",
        "np.logical_not(self._ended, out=self._valid)",
        "self._valid &= ~self._ended",
    ),
    "the next episode's first state as successor": ("same_step", REACHED, "pass"),
    "only lane 0's last state": ("same_step", REACHED, "self._reached[0] = final[lane]"),
    "nothing is reached": (
        "disabled",
        "if self._valid is None:\n                copy",
        "if False:\n                copy",
    ),
    "all lanes are reset together": ("disabled", ENDED, "np.ones_like(self._ended)"),
    "truncations are lost": ("same_step", "self._out[:] = truncated", "self._out[:] = False"),
    "truncations are ends": ("same_step", "self._over[:] = terminated", "self._over[:] = terminated | truncated"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_law_of_stories_kills(name):
    mode, *change = MUTANTS[name]
    mutant = mutate("framework_gymnasium.lanes", tuple(change))

    def told():
        for lengths, ends in (([2, 3, 1], "utb"), ([1, 4], "tu")):
            law_of_stories(mutant, mode, {"fixed_steps": 6}, lengths, list(ends))

    with pytest.raises(AssertionError):
        told()


def test_lanes_have_seeds_of_their_own_and_repeat():
    """CartPole's first states differ between lanes and between rollouts of whole episodes, and are the run seed's."""
    firsts = []
    for _ in range(2):
        gathered = gather(Gymnasium(vectorization_mode="sync"), 4, 2, Chooser(2, 4), episodes=4)
        firsts.append(torch.cat([rollout.observations[0] for rollout, _ in gathered]))
    assert torch.equal(*firsts)
    assert len({tuple(row) for row in firsts[0].tolist()}) == 8


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_a_lane_of_cartpole_is_gymnasiums_own_with_that_seed(mode):
    """The same seed and actions, stepped by hand: the same numbers in float32, over several episodes."""
    lanes = Gymnasium(vectorization_mode="sync", autoreset=mode).build(3, CPU)
    drawn = torch.randint(2**31 - 1, (3,), generator=torch.Generator().manual_seed(7)).tolist()
    seen = lanes.reset(torch.Generator().manual_seed(7)).clone()
    envs = [gymnasium.make("CartPole-v1") for _ in range(3)]
    expected = [env.reset(seed=seed)[0] for env, seed in zip(envs, drawn, strict=True)]
    assert seen.tolist() == [row.tolist() for row in expected]
    generator, ended = torch.Generator().manual_seed(8), [False] * 3
    episodes = 0
    for _ in range(120):
        actions = torch.randint(2, (3,), generator=generator)
        step = lanes.step(actions, generator)
        for n, env in enumerate(envs):
            if mode == "next_step" and ended[n]:
                observation, ended[n] = env.reset()[0], False
                assert not step.valid[n]
            else:
                observation, reward, terminated, truncated, _ = env.step(int(actions[n]))
                assert (float(step.rewards[n]), bool(step.terminated[n]), bool(step.truncated[n])) == (
                    reward,
                    terminated,
                    truncated,
                )
                assert step.successors[n].tolist() == observation.tolist()
                ended[n] = terminated or truncated
                episodes += ended[n]
                if mode == "same_step" and ended[n]:
                    observation, ended[n] = env.reset()[0], False
            assert step.observations[n].tolist() == observation.tolist()
    assert episodes > 6


def test_gymnasiums_own_vectorised_cartpole_is_used_and_is_cartpole():
    """Each real step leads where the single environment leads from that state; episodes end at 9 steps, truncated."""
    part = Gymnasium(max_episode_steps=9)
    shard = shards(part, 4, fixed_steps=64)
    assert type(shard.environment.lanes).__name__ == "CartPoleVectorEnv"
    policy = Chooser(2, 4)
    rollout, finished = collect([shard], policy, policy, 0, True)
    single = gymnasium.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    checked = 0
    for t in range(63):
        for n in range(4):
            if not rollout.mask[t, n]:
                assert rollout.terminated[t - 1, n] or rollout.truncated[t - 1, n]
                continue
            single.state, single.steps_beyond_terminated = rollout.observations[t, n].double().numpy(), None
            reached, reward, terminated, _, _ = single.step(int(rollout.actions[t, n]))
            assert np.allclose(rollout.observations[t + 1, n], reached, atol=1e-6)
            assert (float(rollout.rewards[t, n]), bool(rollout.terminated[t, n])) == (reward, terminated)
            assert bool(rollout.truncated[t, n]) == (rollout.times[t, n] == 8)
            checked += 1
    assert checked > 200
    assert finished.lengths.max() == 9
    assert int(rollout.truncated.sum()) >= 4


@pytest.mark.parametrize("observations", ["box", "bytes", "integers", "discrete", "dict", "tuple", "options", "bits"])
def test_every_space_of_observations_reaches_the_policy(observations):
    """Dict, Tuple, MultiDiscrete and MultiBinary are laid flat, as Gymnasium's FlattenObservation does."""
    part = Gymnasium("gym_worlds:Sampled", kwargs={"observations": observations})
    ((rollout, _),) = gather(part, 2, policy=Sum(2), fixed_steps=6)
    lanes = part.build(2, CPU)
    space = lanes.observation_space
    for row in rollout.observations.flatten(0, 1):
        sample = row.numpy() if row.ndim else np.int64(row)
        assert space.contains(sample.astype(space.dtype) if row.ndim else sample)
    result = framework.train(
        environment=part, policy=ActorCritic(), rollout=RolloutSettings(lanes=2, steps=8), iterations=2
    )
    assert result.run.iteration == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("actions", "policy"),
    [
        ("discrete", Categorical()),
        ("options", MultiCategorical()),
        ("bits", MultiCategorical()),
        ("lopsided", Gaussian()),
        ("lopsided", Gaussian(squash=True)),
        ("double", Gaussian(initial_deviation=5.0)),
        ("double", Gaussian(squash=True, deviation="state")),
    ],
)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_every_action_is_within_the_environments_space(actions, policy, vectorization):
    """The environment refuses any other, so that a run that ends is the proof; bounds on one side of 0, too."""
    part = Gymnasium("gym_worlds:Sampled", vectorization, kwargs={"actions": actions})
    rollout = RolloutSettings(lanes=2, episodes=12)
    result = framework.train(environment=part, policy=policy, rollout=rollout, iterations=2)
    assert result.run.steps == 96


@pytest.mark.parametrize("how", [{}, {"lengths": "1,2", "ends": "tub"}])
def test_these_worlds_pass_gymnasiums_own_checker(how):
    with pytest.warns(UserWarning, match="Box"):  # its bounds are infinite, which the checker mentions
        check_env(gym_worlds.Story(**how), skip_render_check=True)


def test_a_space_that_no_policy_takes_is_refused():
    with pytest.raises(UsageError, match=r"no policy takes actions of Text"):
        Gymnasium("gym_worlds:Sampled", kwargs={"actions": "text"}).build(1, CPU)


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
def test_a_wrapper_that_cannot_be_is_said(text, message):
    with pytest.raises(UsageError) as caught:
        wrapper(text)
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
    with pytest.warns(RuntimeWarning, match=r"metrics unheard: at the end of none of \d+ episodes was there such a"):
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
        told = list(csv.DictReader(file))
    assert [row["environment/is_success"] for row in told] == ["0.5"] * 3
    assert "environment/success" not in told[0]


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
        [sys.executable, "-c", script], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
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
    path = HERE / "spawned_by_a_test.py"
    path.write_text(script)
    try:
        done = subprocess.run(
            [sys.executable, str(path)], cwd=HERE, capture_output=True, text=True, timeout=120, check=False
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
def test_what_cannot_be_made_is_said_with_the_mend(settings, message, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as if MuJoCo were not here
    with pytest.raises(UsageError) as caught:
        settings.build(2, CPU)
    assert message in str(caught.value)


def test_a_registered_id_of_ones_own_module():
    lanes = Gymnasium("gym_worlds:Story-v0", kwargs={"lengths": "2"}).build(2, CPU)
    assert lanes.reset(torch.Generator().manual_seed(0)).shape == (2, 3)


def test_a_picture_of_the_first_lane_shows_the_last_state_of_an_episode():
    """With something to draw, lanes reset in the step after the end; the picture's numbers are the clock."""
    lanes = Gymnasium("gym_worlds:story", kwargs={"lengths": "2"}, render_mode="rgb_array").build(2, CPU)
    lanes.reset(torch.Generator())
    drawn = []
    for _ in range(4):
        lanes.step(torch.zeros(2, dtype=torch.int64), torch.Generator())
        drawn.append(int(lanes.render()[0, 0, 0]))
    assert drawn == [1, 2, 0, 1]
    assert lanes.render().shape == (4, 6, 3)
    assert lanes.render_fps == 7


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_evaluation_says_how_often_it_succeeded(vectorization, tmp_path, monkeypatch, capsys):
    """After the run, and during it: of two-step episodes all succeed, of three-step ones none (see the world)."""
    monkeypatch.chdir(tmp_path)
    words = ["--environment", "gymnasium", "--environment.id", "gym_worlds:story", "--environment.vectorization-mode"]
    words += [vectorization, "--environment.kwargs", "lengths", "2,3", "--name", "told", "--quiet", "--iterations", "2"]
    words += ["--extensions", "evaluate", "--extensions.evaluate.every", "1"]
    assert main(["run", *words]) == 0
    assert main(["evaluate", "runs/told", "--episodes", "20", "--lanes", "4"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["environment/is_success"] == pytest.approx(3 - told["mean_length"])
    with (tmp_path / "runs/told/metrics.csv").open() as file:
        for row in csv.DictReader(file):
            assert float(row["evaluation/is_success"]) == pytest.approx(3 - float(row["evaluation/mean_length"]))
    assert not multiprocessing.active_children()
