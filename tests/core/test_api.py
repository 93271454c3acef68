"""From Python: parts as objects, a result object, and the trained policy back."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from attrs import field, frozen
from framework_line_world import LineWorld
from framework_reinforce import BatchMean, Categorical, Reinforce, RewardsToGo
from framework_reports import Record
from framework_standardize import Standardize

import framework
from framework import Estimate, Inputs, OptimizerSettings, RolloutSettings, UpdateSettings, UsageError


def test_every_argument_has_the_notebooks_default():
    signature = inspect.signature(framework.train)
    named = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    assert all(one.default is not inspect.Parameter.empty for one in named)
    explicit = framework.train(
        environment=LineWorld(goal=4, step_reward=-1.0, goal_reward=10.0, max_steps=100),
        policy=Categorical(hidden=(32,), embedding=8, activation="relu"),
        estimator=RewardsToGo(gamma=0.99),
        loss=Reinforce(),
        optimizer=OptimizerSettings(name="Adam", lr=1e-3),
        rollout=RolloutSettings(lanes=8, steps=128),
        iterations=3,
        seed=0,
    )
    implicit = framework.train(iterations=3)
    for name, tensor in explicit.policy.state_dict().items():
        assert torch.equal(tensor, implicit.policy.state_dict()[name])


def test_parts_are_the_objects_that_were_given():
    estimator, baseline = RewardsToGo(gamma=0.5), BatchMean()
    result = framework.train(
        environment=LineWorld(goal=6), estimator=estimator, baseline=baseline, extensions=[Standardize()], iterations=1
    )
    assert result.run.estimator is estimator
    assert result.run.baseline is baseline
    assert result.run.environment.observation_space.n == 7
    assert result.config.estimator.label == "estimator 'rewards_to_go' (plugin reinforce)"


def test_the_result_holds_policy_metrics_and_record(tmp_path):
    result = framework.train(iterations=5, directory=tmp_path / "run")
    assert isinstance(result.policy, torch.nn.Module)
    assert {len(column) for column in result.metrics.values()} == {5}
    assert all(column.dtype == np.float64 for column in result.metrics.values())
    assert result.directory == tmp_path / "run"
    assert result.stop_reasons == ()
    assert repr(result).startswith("<Result: 5 iterations, mean return ")
    assert str(tmp_path / "run") in repr(result)


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = framework.train(iterations=1)
    assert result.directory is None
    assert "record: none" in repr(result)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_needs_a_directory_is_refused_without_one():
    with pytest.raises(UsageError, match="extension 'record' .plugin reports. needs a directory: pass directory="):
        framework.train(extensions=[Record()], iterations=1)
    with pytest.raises(UsageError, match="extension 'record' .plugin reports. needs a directory: pass directory="):
        framework.train(iterations=1, reports=["record"])


@frozen
class Tripled:
    """A class of one's own, in a notebook: no plugin, no name, no file."""

    needs = frozenset({"complete_episodes"})
    factor: float = field(default=3.0)

    def __call__(self, rollout):
        return Estimate(self.factor * rollout.rewards, rollout.rewards)


def test_a_class_of_ones_own_needs_no_plugin(tmp_path):
    result = framework.train(estimator=Tripled(factor=2.0), iterations=2, directory=tmp_path / "run")
    assert result.config.estimator.label == "estimator 'Tripled' (plugin test_api)"


@frozen
class OwnPolicy:
    """A class of one's own, too."""

    def build(self, observation_space, action_space):
        return Categorical().build(observation_space, action_space)


def test_a_policy_is_given_back_if_a_plugin_offers_it_and_its_world(tmp_path):
    """An estimator of one's own does not matter to that; a policy's class cannot be found again by its name."""
    framework.train(estimator=Tripled(), iterations=1, directory=tmp_path / "run")
    assert framework.load(tmp_path / "run") is not None
    framework.train(policy=OwnPolicy(), iterations=1, directory=tmp_path / "own")
    with pytest.raises(UsageError, match="no policy 'OwnPolicy'"):
        framework.load(tmp_path / "own")


def test_wrong_arguments_are_said_like_flags():
    with pytest.raises(UsageError, match="iterations must be >= 1: 0"):
        framework.train(iterations=0)
    with pytest.raises(UsageError, match="seed must be >= 0: -1"):
        framework.train(seed=-1)
    with pytest.raises(
        UsageError, match=r"estimator must be a settings object, got the class RewardsToGo: RewardsToGo"
    ):
        framework.train(estimator=RewardsToGo)
    with pytest.raises(UsageError, match="device 'cdua' cannot be used"):
        framework.train(device="cdua")


def test_a_loaded_policy_acts_as_the_trained_one(tmp_path):
    trained = framework.train(iterations=20, seed=1, directory=tmp_path / "run").policy
    loaded = framework.load(str(tmp_path / "run"))
    states = torch.arange(5)
    with torch.no_grad():
        for action in (0, 1):
            one, other = (
                p.evaluate(Inputs(states), torch.full((5,), action), False).log_probs for p in (trained, loaded)
            )
            assert torch.equal(one, other)
    draws = [p.act(Inputs(states), torch.Generator().manual_seed(3)).actions for p in (trained, loaded)]
    assert torch.equal(*draws)


def test_many_updates_of_each_rollout_are_a_setting():
    result = framework.train(iterations=2, update=UpdateSettings(epochs=3, minibatches=2))
    assert result.metrics["updates"].tolist() == [6, 6]


def test_every_public_name_is_there_and_documented():
    assert framework.__all__ == list(dict.fromkeys(framework.__all__))
    for name in framework.__all__:
        value = getattr(framework, name)
        assert isinstance(value, str) or name == "hookimpl" or value.__doc__, name
    assert set(framework.__all__) == set(dir(framework))
    with pytest.raises(AttributeError, match="module 'framework' has no attribute 'trian'"):
        _ = framework.trian


def test_importing_the_package_imports_no_torch():
    code = "import sys, framework; assert 'torch' not in sys.modules; framework.Rollout; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_learnt_policy_is_better_than_the_untrained_one():
    """300 updates: far beyond chance (the uniform policy's expected return is −9)."""
    result = framework.train(iterations=300, seed=0, baseline=BatchMean())
    assert result.recent_returns.mean() > 4
