"""What an environment returns is taken where its meaning is clear; else lane, step, expected and got are said."""

import re
import warnings

import gym_careless_worlds
import gym_vector_worlds
import gymnasium
import numpy as np
import pytest
import torch
from framework_gymnasium import Gymnasium
from gymnasium import spaces

import framework
from framework import RolloutSettings, UsageError
from framework.cli import main

CPU = torch.device("cpu")
WHERE = "lane 0, step 0 of its episode, action 0: "
OLD = ": is it written for the old gym API? Wrap it in shimmy.GymV21CompatibilityV0"


def careless(name="odd", vectorization="sync", **kwargs):
    return Gymnasium(f"gym_careless_worlds:{name}", vectorization, kwargs=kwargs)


def first_step(part, lanes=1, steps=1):
    """The first step after a reset, or one after it."""
    made, generator = part.build(lanes, CPU), torch.Generator().manual_seed(0)
    try:
        made.reset(generator)
        return [made.step(torch.zeros(lanes, dtype=torch.int64), generator) for _ in range(steps)][-1]
    finally:
        made.close()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("reward", "number"), [("array", 2), ("numpy", 2), ("int", 2), ("bool", 1), ("tensor", 2), ("0-d", 2)]
)
def test_every_form_of_one_number_is_a_reward(reward, number, vectorization):
    if vectorization == "async" and reward != "array":
        vectorization = "sync"
    assert first_step(careless(reward=reward, vectorization=vectorization)).rewards.tolist() == [number]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"reward": "none"}, WHERE + "reward: expected one number, got None"),
        ({"reward": "text"}, WHERE + "reward: expected one number, got '2.0'"),
        ({"reward": "two"}, WHERE + "reward: expected one number, got ndarray of shape [2]"),
        ({"reward": "list"}, WHERE + "reward: expected one number, got [1.0, 2.0]"),
        ({"how": "none"}, "step must return 5 values: observation, reward, terminated, truncated, info; got None"),
        ({"how": "four"}, WHERE + "step must return 5 values: observation, reward, terminated, truncated, info; got 4"),
        ({"how": "four"}, "got 4" + OLD),
        ({"how": "info none"}, "reset must return (observation, info), info a dict, got None as info"),
        ({"how": "bare"}, "reset must return (observation, info), info a dict, got ndarray of shape [2]" + OLD),
        ({"how": "three"}, "reset must return (observation, info)"),
        ({"how": "flag"}, WHERE + "truncated: expected True or False, got {}"),
        ({"how": "text"}, WHERE + "observation: expected numbers of shape [2], got 'seen'"),
        ({"how": "ragged"}, WHERE + "observation: expected numbers of shape [2], got "),
        ({"how": "exits"}, WHERE + "SystemExit: 0"),
    ],
)
def test_what_has_no_clear_meaning_is_refused_with_lane_and_step(kwargs, message):
    with pytest.raises(RuntimeError) as caught:
        first_step(careless(**kwargs))
    assert message in str(caught.value)
    assert str(caught.value).startswith("lane 0, ")


@pytest.mark.parametrize("name", ["four", "bug"])
def test_the_users_own_line_is_cited(name):
    """Of an exception the line that raised it; of a wrong result the method that returned it."""
    with pytest.raises(framework.PartError, match=r"gym_careless_worlds\.py:\d+ in step\)$"):
        framework.train(environment=careless(how=name), rollout=RolloutSettings(lanes=2, steps=4), iterations=1)


def test_a_reset_of_the_old_api_is_refused_and_one_without_options_is_not():
    with pytest.raises(RuntimeError, match=r"reset takes no seed, and Gymnasium's is reset\(self, \*, seed=None, "):
        first_step(careless("NoSeed"))
    assert first_step(careless("OnlySeed")).rewards.tolist() == [1.0]


@pytest.mark.parametrize(
    ("dtype", "seen", "expected"),
    [
        ("uint8", [1, 255], [1, 255]),
        ("uint8", [1.0, 2.0], [1, 2]),
        ("uint16", [1, 65535], [1, 65535]),
        ("uint64", [1, 2**62], [1.0, 2.0**62]),
        ("uint8", [1, 256], "observation: the space's dtype uint8 cannot hold 256 (int64)"),
        ("uint8", [-1, 2], "observation: the space's dtype uint8 cannot hold -1 (int64)"),
        ("int32", [0.5, 2.0], "observation: the space's dtype int32 cannot hold 0.5 (float64)"),
    ],
)
def test_whole_numbers_stay_what_they_are_or_are_refused(dtype, seen, expected):
    part = careless("Whole", dtype=dtype, seen=seen)
    if isinstance(expected, list):
        assert first_step(part).successors.tolist() == [expected]
        return
    with pytest.raises(RuntimeError) as caught:
        first_step(part)
    assert expected in str(caught.value)


def test_uint64_and_the_largest_float64_are_trained_on_without_warnings():
    """Whole numbers beyond int64 become float32, as floating-point observations do; bounds beyond float32 are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lanes = careless("Whole", dtype="uint64").build(1, CPU)
    assert lanes.observation_space.dtype == np.float32
    largest = np.finfo(np.float64).max

    class Far(gymnasium.Env):
        observation_space = spaces.Box(-largest, largest, (2,), np.float64)
        action_space = spaces.Discrete(2)

    from framework_gymnasium.lanes import _observations

    space, dtype = _observations(Far.observation_space)
    assert dtype == torch.float32
    assert np.isinf(space.high).all()


@pytest.mark.parametrize(("when", "dtype"), [(0, "float64"), (1, "float64"), (2, "float64"), (1, "float32")])
def test_a_number_beyond_float32_is_refused_with_its_lane_and_without_warnings(when, dtype):
    part = careless("Beyond", when=when, dtype=dtype)
    with pytest.raises(RuntimeError) as caught:  # a warning of numpy's would be an error, too, and name no lane
        first_step(part, lanes=2, steps=3)
    assert "lane 0" in str(caught.value)
    assert "observation: -1e+300 is beyond float32" in str(caught.value)


def test_an_environment_without_a_space_is_refused():
    with pytest.raises(UsageError, match="its action_space is None, and must be a space of gymnasium.spaces"):
        careless("NoSpace").build(1, CPU)


@pytest.mark.parametrize("limit", [None, 3])
def test_a_function_that_makes_no_environment_is_refused(limit):
    part = Gymnasium("gym_careless_worlds:no_environment", max_episode_steps=limit)
    with pytest.raises(
        UsageError, match=r"no_environment' makes a builtins.int, and must make a gymnasium.Env: derive"
    ):
        part.build(1, CPU)


def test_a_wrong_result_cites_the_environments_own_line_through_wrappers_too():
    part = Gymnasium("gym_careless_worlds:odd", kwargs={"how": "text"}, wrappers=("RecordEpisodeStatistics",))
    with pytest.raises(framework.PartError, match=r"gym_careless_worlds\.py:\d+ in step\)$"):
        framework.train(environment=part, rollout=RolloutSettings(lanes=2, steps=4), iterations=1)


def test_a_wrapper_that_refuses_its_environment_is_named():
    scaled = "RescaleAction(min_action=-1.0, max_action=1.0)"
    part = Gymnasium("Pendulum-v1", wrappers=("ClipAction", scaled))
    with pytest.raises(
        UsageError, match=f"environment.wrappers: {re.escape(scaled)} refuses <ClipAction<.*: For unbounded"
    ):
        part.build(1, CPU)


def test_a_keyword_that_this_framework_has_too_reaches_the_environment():
    """`kwargs` are the environment's own; the setting of the same name is the time limit."""
    for name in ("gym_careless_worlds:OwnLimit", "gym_careless_worlds:OwnLimit-v0"):
        for own, limit, length in ((3, None, 3), (3, 2, 2)):
            part = Gymnasium(name, "sync", kwargs={"max_episode_steps": own}, max_episode_steps=limit)
            result = framework.evaluate(framework.train(environment=part, iterations=1).policy, part, episodes=2)
            assert result.lengths.tolist() == [length] * 2


def test_a_keyword_that_the_environment_has_not_is_refused_with_the_setting():
    with pytest.raises(
        UsageError, match=r"argument 'max_episode_steps' .*; the time limit is environment.max_episode_steps"
    ):
        Gymnasium("CartPole-v1", "sync", kwargs={"max_episode_steps": 9}).build(1, CPU)


# Vectorised environments


def vectorised(name, **kwargs):
    return Gymnasium(f"gym_vector_worlds:{name}-v0", "vector_entry_point", kwargs=kwargs)


def test_a_vectorised_environment_must_say_how_it_resets(monkeypatch):
    """Otherwise steps and resets look the same; `auto` uses single lanes, and a setting can declare the mode."""
    monkeypatch.setattr(gym_vector_worlds.Counting, "metadata", {})
    with pytest.raises(UsageError, match=r'give its class metadata = \{"autoreset_mode": .*NEXT_STEP\} \(or SAME_STEP'):
        vectorised("Counting").build(2, CPU)
    lanes = Gymnasium("gym_vector_worlds:Counting-v0").build(2, CPU)
    assert lanes.resolved["vectorization_mode"] == "sync"
    asked = Gymnasium("gym_vector_worlds:Counting-v0", "vector_entry_point", "same_step").build(2, CPU)
    assert asked.autoreset == "same_step"


def test_auto_takes_the_vectorised_version_where_there_are_no_single_lanes():
    lanes = Gymnasium("gym_vector_worlds:Alone-v0").build(2, CPU)
    assert lanes.resolved["vectorization_mode"] == "vector_entry_point"


def test_auto_makes_the_world_that_gymnasium_make_makes():
    """A vectorised version with other spaces is another world: it is taken only if it is asked for."""
    for name, mode in (("Other", "sync"), ("Counting", "vector_entry_point")):
        lanes = Gymnasium(f"gym_vector_worlds:{name}-v0").build(2, CPU)
        assert lanes.resolved["vectorization_mode"] == mode
        assert lanes.observation_space.high[0] == np.inf
    assert vectorised("Other").build(2, CPU).observation_space.high[0] == 9.0


def test_rewards_of_a_vectorised_environment_are_one_a_lane(monkeypatch):
    assert first_step(vectorised("Counting"), 2).rewards.tolist() == [1.0, 1.0]
    monkeypatch.setattr(gym_vector_worlds.Counting, "__init__", shaped("[N, 1]"))
    assert first_step(vectorised("Counting"), 2).rewards.tolist() == [1.0, 1.0]
    monkeypatch.setattr(gym_vector_worlds.Counting, "__init__", shaped("[2, N]"))
    with pytest.raises(RuntimeError, match=r"rewards: expected 2 numbers, one per lane, got ndarray of shape \[2, 2\]"):
        first_step(vectorised("Counting"), 2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda seen: (seen, [1.0, 1.0], [False] * 2, {}),
            "step must return 5 values: observations, rewards, .*; got 4",
        ),
        (lambda seen: None, "step must return 5 values: .*; got None"),
        (
            lambda seen: (seen[0], [1.0] * 2, [False] * 2, [False] * 2, {}),
            r"expected numbers of shape \[2, 1\], got nda",
        ),
        (lambda seen: (seen, [1.0] * 2, [False], [False] * 2, {}), "terminated: expected 2 numbers, one per lane"),
    ],
)
def test_what_a_vectorised_environment_must_return(returned, message, monkeypatch):
    """A row for all lanes would be spread over them, silently."""
    monkeypatch.setattr(gym_vector_worlds.Counting, "step", lambda self, actions: returned(self.seen))
    with pytest.raises(RuntimeError, match=message) as caught:
        first_step(vectorised("Counting"), 2)
    assert "since the last reset of all lanes, actions [0, 0]: " in str(caught.value)


def test_a_vectorised_version_that_cannot_be_made_is_no_reason_to_refuse_single_lanes(monkeypatch):
    def fails(self, num_envs=1, **kwargs):
        raise ImportError("jax is not installed")

    monkeypatch.setattr(gym_vector_worlds.Counting, "__init__", fails)
    assert Gymnasium("gym_vector_worlds:Counting-v0").build(2, CPU).resolved == {"vectorization_mode": "sync"}
    with pytest.raises(UsageError, match="needs a package that is not installed"):
        vectorised("Counting").build(2, CPU)


@pytest.mark.filterwarnings("ignore")  # Gymnasium's checker of registered ids warns of the same
def test_a_registered_environment_of_the_old_api_gets_the_same_error():
    """Gymnasium's own wrappers unpack first; the line that is cited is the environment's all the same."""
    gymnasium.register("OldStep-v0", entry_point="gym_careless_worlds:odd", max_episode_steps=9)
    try:
        with pytest.raises(RuntimeError, match=f"5 values: .*; got 4{re.escape(OLD)}") as caught:
            first_step(Gymnasium("OldStep-v0", "sync", kwargs={"how": "four"}))
        assert "gym_careless_worlds.py:" in caught.value.place
    finally:
        del gymnasium.registry["OldStep-v0"]


def shaped(shape, make=gym_vector_worlds.Counting.__init__):
    return lambda self, num_envs=1, **kwargs: make(self, num_envs, shape=shape)


def test_the_last_line_of_an_error_is_the_one_that_names_the_lane(tmp_path, monkeypatch, capsys):
    """Whoever reads one line of standard error reads that: no other sentence follows, of the rollout's step, say."""
    monkeypatch.chdir(tmp_path)
    words = ["--environment", "gymnasium", "--environment.id", "gym_careless_worlds:odd", "--reports"]
    assert main(["run", *words, "--environment.kwargs", "how", "bare", "--iterations", "1"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: environment 'gymnasium' (plugin gym")


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_lane_that_cannot_be_closed_is_a_warning_and_the_others_are_closed(vectorization):
    gym_careless_worlds.Unclosable.tried = 0
    part = careless("Unclosable", vectorization)
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        result = framework.train(environment=part, rollout=RolloutSettings(lanes=2, steps=4), iterations=1)
    assert re.search(
        r"close of lane 0 raised RuntimeError: the simulator is gone \(.*in close\)", str(caught_warnings[0].message)
    )
    assert result.run.iteration == 1
    assert gym_careless_worlds.Unclosable.tried == 2
