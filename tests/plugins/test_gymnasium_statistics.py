"""What wrappers learn of the observations in training is what an evaluation elsewhere uses."""

import json
import tomllib

import numpy as np
import pytest
import torch
from framework_gymnasium import Gymnasium
from framework_gymnasium.statistics import merge_statistics
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import framework
from framework import RolloutSettings
from framework.cli import main

CPU = torch.device("cpu")
WORLD = "gym_learning_wrappers:Far"
WORDS = ["--recipe", "ppo", "--environment", "gymnasium", "--environment.id", WORLD, "--environment.wrappers"]
WORDS += ["NormalizeObservation", "--rollout.lanes", "4", "--rollout.fixed-steps", "64", "--quiet"]


@pytest.mark.slow
def test_a_recorded_policy_sees_what_it_saw_in_training(tmp_path, monkeypatch, capsys):
    """The right action depends on a difference of 10 around 100: without statistics 1 and 2 look the same."""
    monkeypatch.chdir(tmp_path)
    words = [
        *WORDS,
        "--iterations",
        "24",
        "--optimizer.lr",
        "0.01",
        "--name",
        "a",
        "--extensions",
        "evaluate",
        "standardize",
    ]
    assert main(["run", *words, "--extensions.evaluate.every", "12"]) == 0
    capsys.readouterr()
    for extra in ([], ["--best"]):
        assert main(["evaluate", "runs/a", "--episodes", "16", *extra]) == 0
        assert json.loads(capsys.readouterr().out)["mean_return"] == 20.0
    state = load_file("runs/a/policy.environment.safetensors")
    assert float(state["0.NormalizeObservation.obs_rms.mean"]) == pytest.approx(100, abs=1)
    assert float(state["0.NormalizeObservation.obs_rms.var"]) == pytest.approx(25, abs=1)
    assert float(state["0.NormalizeObservation.obs_rms.count"]) > 4 * 24 * 64
    part = Gymnasium(WORLD, wrappers=("NormalizeObservation",))
    assert framework.evaluate(framework.load("runs/a"), part, episodes=16).mean == 20.0
    (tmp_path / "runs/a/policy.environment.safetensors").unlink()
    with pytest.warns(RuntimeWarning, match="NormalizeObservation begins without what it learnt in training"):
        framework.evaluate(framework.load("runs/a"), part, episodes=1)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_every_wrapper_that_keeps_something_is_carried(vectorization):
    """In another lane, in another environment: moments of all lanes, and the state of a wrapper of one's own."""
    wrappers = ("gym_learning_wrappers:Centred", "NormalizeObservation", "NormalizeReward(gamma=0.5)")
    part = Gymnasium(WORLD, vectorization, wrappers=wrappers)
    result = framework.train(
        environment=part, recipe="ppo", rollout=RolloutSettings(lanes=2, fixed_steps=64), iterations=1
    )
    state = result.policy.environment_statistics
    assert float(state["0.Centred.state.largest"]) == 105.0
    assert {name.split(".")[1] for name in state} == {"Centred", "NormalizeObservation", "NormalizeReward"}
    lanes = part.build(3, CPU)
    lanes.load_statistics(state)
    lanes.reset(torch.Generator())
    lanes.step(torch.zeros(3, dtype=torch.int64), torch.Generator())
    again = lanes.statistics()
    lanes.close()
    for name, value in state.items():
        assert name.endswith("count") or np.allclose(again[name], value), name


LANE = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9)


@given(st.lists(LANE, min_size=1, max_size=4))
def test_moments_of_all_lanes_are_those_of_all_numbers(lanes):
    statistics = [
        {f"0.W.obs_rms.{name}": value for name, value in (("mean", np.mean(x)), ("var", np.var(x)), ("count", len(x)))}
        for x in lanes
    ]
    whole, numbers = merge_statistics(statistics), np.concatenate(lanes)
    assert float(whole["0.W.obs_rms.mean"]) == pytest.approx(numbers.mean(), abs=1e-8)
    assert float(whole["0.W.obs_rms.var"]) == pytest.approx(numbers.var(), abs=1e-6)
    assert float(whole["0.W.obs_rms.count"]) == len(numbers)


def test_nothing_is_kept_where_nothing_is_learnt(tmp_path):
    result = framework.train(
        environment=Gymnasium("CartPole-v1", "sync"),
        rollout=RolloutSettings(lanes=1, episodes=1),
        iterations=1,
        directory=tmp_path / "run",
    )
    assert not hasattr(result.policy, "environment_statistics")
    assert not list((tmp_path / "run").glob("*.environment.safetensors"))


@pytest.mark.parametrize(
    ("wrapper", "vectorization", "name"),
    [
        ("Forgetful", "sync", "Forgetful"),
        ("Forgetful", "async", "Forgetful"),
        ("transformed", "sync", "TransformObservation"),
        ("closed_over", "sync", "TransformObservation"),
        ("Noisy", "sync", None),
        ("Episodic", "sync", None),
        ("pure", "sync", None),
    ],
)
def test_a_wrapper_that_learns_and_cannot_say_what_is_a_warning(wrapper, vectorization, name, recwarn):
    """Its observations are others in every evaluation; of gymnasium's own and of noise nothing is said."""
    part = Gymnasium(WORLD, vectorization, wrappers=(f"gym_learning_wrappers:{wrapper}",))
    made, generator = part.build(2, CPU), torch.Generator().manual_seed(0)
    made.reset(generator)
    for _ in range(25):
        made.step(torch.zeros(2, dtype=torch.int64), generator)
    made.close()
    said = [str(warning.message) for warning in recwarn]
    assert len(said) == (name is not None)
    for message in said:
        assert f"what {name} returns depends on what it saw before" in message
        assert "state_dict() and load_state_dict(state), or use NormalizeObservation or --policy.normalize" in message


# What `auto` came to is part of the record, too


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [("Counting", "vector_entry_point"), ("Other", "sync")])
def test_the_vectorization_mode_that_was_chosen_is_recorded_printed_and_used(name, mode, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--environment", "gymnasium", "--environment.id", f"gym_vector_worlds:{name}-v0", "--iterations", "1"]
    assert main(["run", *words, "--name", "a"]) == 0
    assert json.loads(capsys.readouterr().out)["vectorization_mode"] == mode
    with open("runs/a/config.toml", "rb") as file:
        assert tomllib.load(file)["environment"]["vectorization_mode"] == mode
    assert main(["evaluate", "runs/a", "--episodes", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["vectorization_mode"] == mode


@pytest.mark.parametrize("received", [0, 1])
def test_lanes_that_ctrl_c_interrupted_in_a_step_still_say_what_they_learnt(received):
    """The step was asked for, and some lanes had answered, when the interrupt came."""
    lanes = Gymnasium(WORLD, "async", wrappers=("NormalizeObservation",)).build(2, CPU)
    lanes.reset(torch.Generator())
    lanes.lanes.step_async(np.zeros(2, np.int64))
    for pipe in lanes.lanes.parent_pipes[:received]:
        pipe.recv()
    assert float(lanes.statistics()["0.NormalizeObservation.obs_rms.count"]) == pytest.approx(4, abs=0.01)
    lanes.close()
