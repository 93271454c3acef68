"""What `train` returns can be pickled and copied, as process pools do, without the environment that was at work."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from attrs import frozen
from framework_parts import (
    ActorCritic,
    CartPole,
    Corridor,
    EarlyStop,
    Evaluate,
    LineWorld,
    Pendulum,
    Recurrent,
    ScaleRewards,
)

import framework

RUNS = {
    "reinforce": {},
    "ppo": {"recipe": "ppo", "environment": CartPole()},
    "ppo_continuous": {"recipe": "ppo_continuous", "environment": Pendulum()},
    "recurrent": {"recipe": "ppo", "environment": Corridor(), "policy": Recurrent()},
    "normalised": {"recipe": "a2c", "environment": CartPole(), "policy": ActorCritic(normalize=True)},
    "evaluated": {"extensions": [Evaluate(every=1, episodes=2), ScaleRewards(), EarlyStop()]},
    "of parameters that are no views": {"optimizer": framework.OptimizerSettings("Adafactor")},
}
if not hasattr(torch.optim, "Adafactor"):
    RUNS.pop("of parameters that are no views")


def trained(name):
    return framework.train(**RUNS[name], iterations=2, seed=1)


def assert_same(one, other):
    assert one.metrics.keys() == other.metrics.keys()
    for name, column in one.metrics.items():
        assert "second" in name or np.array_equal(column, other.metrics[name], equal_nan=True), name
    assert np.array_equal(one.recent_returns, other.recent_returns)
    assert np.array_equal(one.recent_lengths, other.recent_lengths)
    assert (one.stop_reasons, one.directory) == (other.stop_reasons, other.directory)
    assert (one.run.steps, one.run.episodes, one.run.iteration) == (other.run.steps, other.run.episodes, 2)
    assert repr(one) == repr(other)
    for (name, first), second in zip(one.policy.state_dict().items(), other.policy.state_dict().values(), strict=True):
        assert torch.equal(first, second), name


WAYS = {"pickle": lambda result: pickle.loads(pickle.dumps(result)), "copy": copy.deepcopy}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("way", WAYS)
def test_a_result_survives(name, way):
    result = trained(name)
    made = WAYS[way](result)
    assert_same(result, made)
    assert made.policy is not result.policy
    assert made.run.policy is made.policy
    assert made.run.shards is None
    assert made.config.seed == 1
    assert made.config.environment.settings == result.config.environment.settings
    environment = result.config.environment.settings
    played = [framework.evaluate(one.policy, environment, episodes=3).returns for one in (result, made)]
    assert np.array_equal(*played)


def test_a_pickle_holds_each_parameter_once():
    """During the run they are views of one vector, which a pickle would hold once for each parameter."""
    result = trained("ppo")
    size = sum(4 * parameter.numel() for parameter in result.policy.parameters())
    assert len(pickle.dumps(result.policy)) < 1.5 * size + 10_000


@frozen
class Local:
    "An extension of this test, whose working object holds what nobody can pickle."

    def build(self, run):
        return Holding()


class Holding:
    def __init__(self):
        self.held = lambda: None

    @framework.hookimpl
    def iteration_finished(self):
        pass


def test_what_extensions_hold_does_not_matter():
    result = framework.train(extensions=[Local()], iterations=2)
    assert_same(result, pickle.loads(pickle.dumps(result)))


def of_seed(seed):
    return framework.train(environment=LineWorld(), iterations=2, seed=seed)


@pytest.mark.slow
def test_results_come_back_from_a_process_pool():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        (result,) = pool.map(of_seed, [3])
    assert_same(result, of_seed(3))
