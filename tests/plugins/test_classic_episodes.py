"""Classic control: spaces, saved lanes, whole episodes and training."""

import math

import framework_classic
import gymnasium
import numpy as np
import pytest
import torch
from classic_cases import CPU, WORLDS, Oracle, generator, near, settings_class, step_rows
from framework_classic import lanes as shared
from framework_policies import Gaussian

import framework
from framework.config import RolloutSettings


def test_only_the_cpu_computes_in_floats_and_numpy():
    assert shared.arithmetic(8, CPU) is shared.FLOATS
    assert shared.arithmetic(64, CPU) is shared.NUMPY
    assert shared.arithmetic(8, torch.device("cuda")) is shared.TORCH


@pytest.mark.parametrize("name", WORLDS)
def test_spaces_limits_and_names_are_gymnasiums(name):
    oracle, settings = gymnasium.make(WORLDS[name].gymnasium), settings_class(name)()
    lanes = settings.build(3, CPU)
    assert lanes.observation_space == oracle.observation_space
    assert lanes.action_space == oracle.action_space
    assert settings.max_steps == oracle.spec.max_episode_steps
    assert isinstance(lanes, framework.contracts.Environment)
    if name != "pendulum":
        assert len(lanes.action_names) == lanes.action_space.n


@pytest.mark.parametrize("name", WORLDS)
def test_lanes_that_were_never_reset_can_be_saved(name, arithmetic):
    """They stand at 0."""
    saved = settings_class(name)().build(2, CPU).state_dict()
    assert saved["states"].shape == (len(WORLDS[name].starts), 2)
    assert not saved["states"].any()
    assert saved["clock"].tolist() == [0, 0]


def test_a_torque_that_is_no_number_is_seen(arithmetic):
    """NaN goes on as NaN, so that the core can say where it came from."""
    world, draw = settings_class("pendulum")().build(2, CPU), generator()
    world.reset(draw)
    for torque in (math.nan, 0.0):
        (step,) = step_rows(world, [[[torque], [0.0]]], draw)
        assert step["successors"].isnan().any(1).tolist() == [True, False]


def pumping(name, observation, choice):
    """An action that gets somewhere: along the motion, where that swings a world up."""
    if name == "mountain_car":
        return 2 if observation[1] >= 0 else 0
    if name == "acrobot":
        return 2 if observation[4] < 0 else 0
    return choice


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_whole_episodes_are_gymnasiums(name, arithmetic):
    """A thousand steps under the registered limit, with the actions of a policy that gets to the world's end.

    Errors grow along an episode, the fastest in acrobot: by less than 1e4 in what it takes to swing it up.
    """
    settings = settings_class(name)()
    world, draw = settings.build(2, CPU), generator(3)
    seen = world.reset(draw).clone()
    oracles = [Oracle(name, settings.max_steps) for _ in range(2)]
    for oracle, state in zip(oracles, world.state_dict()["states"].T, strict=True):
        oracle.put(state)
    chance = np.random.default_rng(4)
    ends = {"terminated": 0, "truncated": 0}
    for _ in range(1000):
        choices = chance.integers(-16, 17, (2, 1)) / 8 if name == "pendulum" else chance.integers(0, 2, 2)
        row = [pumping(name, see, choice) for see, choice in zip(seen.tolist(), choices.tolist(), strict=True)]
        (step,) = step_rows(world, [row], draw)
        for n, (oracle, action) in enumerate(zip(oracles, row, strict=True)):
            observation, reward, *flags = oracle.step(action)
            near(step["successors"][n], observation)
            near(step["rewards"][n], reward)
            assert [bool(step[flag][n]) for flag in ends] == flags
            for flag, value in zip(ends, flags, strict=True):
                ends[flag] += value
            if any(flags):
                oracle.put(world.state_dict()["states"][:, n])
        seen = step["observations"]
    assert ends["truncated" if name == "pendulum" else "terminated"] >= 4


# Training


def test_they_train():
    """PPO on the cart, and with a Gaussian policy on the pendulum; every number is finite."""
    fixed = RolloutSettings(lanes=4, fixed_steps=64)
    for parts in (
        {"environment": framework_classic.CartPole(max_steps=20)},
        {"environment": framework_classic.Pendulum(max_steps=20), "policy": Gaussian()},
    ):
        result = framework.train(recipe="ppo", rollout=fixed, iterations=1, **parts)
        assert np.isfinite(result.metrics["mean_return"]).all()
        assert all(torch.isfinite(parameter).all() for parameter in result.policy.parameters())
