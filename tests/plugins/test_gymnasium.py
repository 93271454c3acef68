"""Gymnasium's environments: its three ways to reset, its spaces, its own vectorised worlds."""

import csv
import json
import multiprocessing

import gym_worlds
import gymnasium
import numpy as np
import pytest
import torch
from framework_gymnasium import Gymnasium
from framework_policies import ActorCritic, Gaussian, MultiCategorical
from framework_reinforce import Categorical
from gymnasium.utils.env_checker import check_env
from gymnasium_cases import CPU, MODES, WAYS, Chooser, Sum, gather, shards, story
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutate

import framework
from framework import RolloutSettings, UsageError
from framework.cli import main
from framework.collecting.rollout import collect

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


def one_lane_by_hand(lengths, ends, recorded, seeded):
    """The steps of a single environment with the same actions, with all columns of a rollout.

    Only the start of a seeded episode is taken from `recorded`; any other follows the one before it.
    """
    env = gym_worlds.Story(lengths, ends)
    value = lambda observation: float(observation @ np.array([1000.0, 10.0, 1.0]))  # noqa: E731
    expected, over = [], None
    for action, observation, *_ in recorded:
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
        built = part.build(3, CPU)
        part = lanes_module.GymnasiumLanes(built.lanes, built.autoreset, built.info_settings, CPU)
    lane_steps, masks, over = [[], [], []], [], []
    for rollout, _ in gather(part, 3, iterations=2 if "fixed_steps" in amount else 1, **amount):
        masks.append(rollout.mask)
        over.append(rollout.terminated | rollout.truncated)
        for n in range(3):
            real = rollout.mask[:, n]
            names = ("actions", "observations", "rewards", "terminated", "truncated", "values", "successor_values")
            columns = [getattr(rollout, name)[real, n].tolist() for name in names]
            lane_steps[n] += zip(*columns, strict=True)
    for steps in lane_steps:
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
    'copy_into(self._successors[lane : lane + 1], np.asarray(final[lane])[None], "unsafe", lane)',
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
    "only lane 0's last state": ("same_step", REACHED, "self._successors[0] = final[lane]"),
    "nothing is reached": (
        "disabled",
        "if self._valid is None:\n                copy",
        "if False:\n                copy",
    ),
    "all lanes are reset together": ("disabled", ENDED, "np.ones_like(self._ended)"),
    "truncations are lost": ("same_step", "self._truncated[:] = truncated", "self._truncated[:] = False"),
    "truncations are ends": (
        "same_step",
        "self._terminated[:] = terminated",
        "self._terminated[:] = terminated | truncated",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_law_of_stories_kills(name):
    mode, *change = MUTANTS[name]
    mutant = mutate("framework_gymnasium.lanes", tuple(change))

    def run_law():
        for lengths, ends in (([2, 3, 1], "utb"), ([1, 4], "tu")):
            law_of_stories(mutant, mode, {"fixed_steps": 6}, lengths, list(ends))

    with pytest.raises(AssertionError):
        run_law()


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
    """Dict, Tuple, MultiDiscrete and MultiBinary are flattened, as Gymnasium's FlattenObservation does."""
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
    words += [
        vectorization,
        "--environment.kwargs",
        "lengths",
        "2,3",
        "--name",
        "reported",
        "--quiet",
        "--iterations",
        "2",
    ]
    words += ["--extensions", "evaluate", "--extensions.evaluate.every", "1"]
    assert main(["run", *words]) == 0
    assert main(["evaluate", "runs/reported", "--episodes", "20", "--lanes", "4"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["environment/is_success"] == pytest.approx(3 - summary["mean_length"])
    with (tmp_path / "runs/reported/metrics.csv").open() as file:
        for row in csv.DictReader(file):
            assert float(row["evaluation/is_success"]) == pytest.approx(3 - float(row["evaluation/mean_length"]))
    assert not multiprocessing.active_children()
