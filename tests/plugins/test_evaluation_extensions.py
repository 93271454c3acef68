"""The extensions `evaluate` and `early_stop`."""

import framework_evaluation
import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from evaluation_laws import (
    EARLY,
    fork,
    law_each_evaluation_has_randomness_of_its_own,
    law_it_stops_as_soon_as_the_last_episodes_are_good_enough,
    law_the_best_is_kept,
    trained,
    uniform,
)
from framework_evaluation import EarlyStop, Evaluate
from framework_line_world import LineWorld
from framework_policies import ActorCritic, Tabular
from framework_reports.plot import learning_curve
from hypothesis import given
from safetensors.torch import load_file
from worlds import Lanes, TabularPolicy

import framework
from framework import PartError, RolloutSettings, UsageError
from framework import evaluation as evaluations
from framework.streams import derived_seed

# The extension `evaluate`

COLUMNS = ("evaluation/mean_return", "evaluation/std_return", "evaluation/mean_length")
TIMES = ("seconds", "steps_per_second")


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(
    "parts",
    [{}, {"policy": ActorCritic(), "rollout": RolloutSettings(lanes=4, episodes=8, shards=2)}],
    ids=["default", "shards"],
)
def test_training_is_the_same_bits_with_evaluations_and_without(parts, greedy):
    extensions = [Evaluate(every=2, episodes=3, lanes=2, greedy=greedy)]
    plain = framework.train(iterations=7, seed=3, **parts)
    evaluated = framework.train(iterations=7, seed=3, extensions=extensions, **parts)
    for name, tensor in plain.policy.state_dict().items():
        assert torch.equal(tensor, evaluated.policy.state_dict()[name]), name
    for name in plain.metrics.keys() - set(TIMES):
        assert np.array_equal(plain.metrics[name], evaluated.metrics[name]), name
    assert evaluated.metrics.keys() == plain.metrics.keys() | set(COLUMNS)


def test_it_evaluates_after_every_so_many_iterations():
    """The policy of that moment, with randomness of that iteration: the very numbers of `play`."""
    evaluated = framework.train(iterations=7, seed=3, extensions=[Evaluate(every=3, episodes=11, lanes=4)])
    for column in COLUMNS:
        assert (~np.isnan(evaluated.metrics[column])).tolist() == [False, False, True] * 2 + [False]
    for iteration in (2, 5):
        policy = framework.train(iterations=iteration + 1, seed=3).policy
        environment = LineWorld().build(4, torch.device("cpu"))
        played = evaluations.play(policy, environment, 4, 11, seed=derived_seed(3, "measure", iteration))
        reported = [evaluated.metrics[column][iteration] for column in COLUMNS]
        assert reported == [played.mean, played.std, played.mean_length]


def working(result):
    return result.run.manager.get_plugin("evaluation:evaluate")


@pytest.mark.parametrize("greedy", [True, False])
def test_the_best_is_kept(tmp_path, greedy):
    law_the_best_is_kept(framework_evaluation, tmp_path, greedy)


def test_each_evaluation_has_randomness_of_its_own(tmp_path):
    law_each_evaluation_has_randomness_of_its_own(framework_evaluation, tmp_path)


def test_without_a_folder_the_best_is_kept_in_memory(tmp_path):
    recorded = trained(framework_evaluation, tmp_path / "run", rate=3e-2)
    unrecorded = trained(framework_evaluation, None, rate=3e-2)
    kept = load_file(recorded.directory / "best.safetensors")
    assert working(recorded).best is None
    assert all(torch.equal(kept[name], tensor) for name, tensor in working(unrecorded).best.items())


def test_a_run_without_evaluations_has_no_best(tmp_path):
    framework.train(iterations=1, directory=tmp_path / "run")
    with pytest.raises(UsageError, match=r"run has no best.safetensors: train with --extensions evaluate to keep"):
        framework.load(tmp_path / "run", best=True)


@frozen
class Plain:
    """A policy without greedy()."""

    def build(self, observation_space, action_space):
        return TabularPolicy(torch.zeros(5, 2))


def test_the_extension_refuses_greedy_before_training():
    with pytest.raises(UsageError, match="policy 'Plain' .plugin test_evaluation_extensions. has no greedy"):
        framework.train(policy=Plain(), extensions=[Evaluate(greedy=True)])


@frozen
class Closing:
    """Of this test: says when its lanes are closed; three lanes may break when they are stepped."""

    closed: list
    fails: bool = False

    def build(self, num_envs, device):
        return ClosingLanes(self, num_envs)


class ClosingLanes(Lanes):
    def __init__(self, settings, num_envs):
        super().__init__(LineWorld().build(1, torch.device("cpu")).mdp(), num_envs, False)
        self.settings = settings

    def step(self, actions, generator):
        return super().step(actions, generator) if not self.settings.fails or self.count != 3 else 1 / 0

    def close(self):
        self.settings.closed.append(self.count)


@pytest.mark.parametrize("fails", [False, True])
def test_environments_are_closed_and_named_where_they_raise(fails):
    closed = []
    arguments = {"environment": Closing(closed, fails), "iterations": 1, "rollout": RolloutSettings(lanes=2)}
    arguments |= {"extensions": [Evaluate(every=1, lanes=3)], "policy": Tabular()}
    if fails:
        with pytest.raises(PartError, match="^environment 'Closing' .plugin test_evaluation_extensions. raised"):
            framework.train(**arguments)
        assert sorted(closed) == [2, 3]
        return
    policy = framework.train(**arguments).policy
    assert sorted(closed) == [2, 3]
    framework.evaluate(policy, Closing(closed), lanes=5)
    assert sorted(closed) == [2, 3, 5]


def test_the_highest_mean_is_part_of_the_extensions_state():
    one = working(framework.train(iterations=3, extensions=[Evaluate(every=1)]))
    two = working(framework.train(iterations=1, extensions=[Evaluate(every=2)]))
    assert two.highest < one.highest
    two.load_state_dict(one.state_dict())
    assert two.highest == one.highest


def test_numbers_of_the_environments_own_are_kept():
    """`Step.metrics` of each episode's last step: here its length, again."""

    class Telling(Lanes):
        def step(self, actions, generator):
            clock = self.clock + 1
            return evolve(super().step(actions, generator), metrics={"clock": clock.float()})

    played = evaluations.play(uniform(fork(), False), Telling(fork(), 4, False), 4, 9, seed=0)
    assert np.array_equal(played.metrics["clock"], played.lengths)


def test_the_curve_shows_evaluations_where_there_are_some():
    result = framework.train(iterations=30, seed=4, extensions=[Evaluate(every=7)])
    (axes,) = learning_curve(result.run, smooth=10).figure.axes
    line = axes.lines[2]
    assert line.get_label() == "evaluation"
    assert np.array_equal(line.get_xdata(), result.metrics["steps"][6::7])
    assert np.array_equal(line.get_ydata(), result.metrics["evaluation/mean_return"][6::7])


@given(*EARLY)
def test_it_stops_as_soon_as_the_last_episodes_are_good_enough(threshold, episodes):
    law_it_stops_as_soon_as_the_last_episodes_are_good_enough(framework_evaluation, threshold, episodes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: Evaluate(every=0), "'every' must be >= 1: 0"),
        (lambda: Evaluate(episodes=0), "'episodes' must be >= 1: 0"),
        (lambda: Evaluate(lanes=0), "'lanes' must be >= 1: 0"),
        (lambda: EarlyStop(episodes=0), "'episodes' must be >= 1: 0"),
        (lambda: EarlyStop(episodes=101), "'episodes' must be <= 100: 101"),
    ],
)
def test_settings_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()
