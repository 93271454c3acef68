"""Recorded weights are read as they are or refused: numbers that are not finite, other dtypes, shapes and names."""

import math

import pytest
import torch
from attrs import frozen
from framework_reinforce import Categorical
from safetensors.torch import load_file, save_file

import framework
from framework import UsageError
from framework.cli import main
from framework.records.record import refuse_other_numbers


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "run"
    framework.train(iterations=1, directory=folder)
    return folder


@pytest.fixture
def weights(record):
    """The file, which is put back."""
    path = record / "policy.safetensors"
    kept = path.read_bytes()
    yield path
    path.write_bytes(kept)


def refused(capsys, record, message):
    """By Python and by both commands, before anything is played."""
    with pytest.raises(UsageError) as caught:
        framework.load(record)
    assert message in str(caught.value)
    for command in ("evaluate", "audit"):
        assert main([command, str(record), "--episodes", "16"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_with_file_and_name(capsys, record, weights, number):
    """Anywhere in any tensor: none is left out."""
    original = load_file(weights)
    for name, tensor in original.items():
        broken = tensor.clone()
        broken.view(-1)[-1] = number
        save_file({**original, name: broken}, weights)
        message = f"run/policy.safetensors: '{name}' is not finite: 1 of {tensor.numel()} numbers, such as {number}"
        with pytest.raises(UsageError) as caught:
            framework.load(record)
        assert message in str(caught.value)
    refused(capsys, record, message)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_other_dtypes_are_refused_and_not_cast(capsys, record, weights, dtype):
    original = load_file(weights)
    name = next(iter(original))
    save_file({**original, name: original[name].to(dtype)}, weights)
    refused(capsys, record, f"run/policy.safetensors: '{name}' is {dtype}, and the policy's is torch.float32")


def test_what_goes_with_the_weights_is_finite_too(capsys, record):
    """Such as the running means of a wrapper's observations."""
    path = record / "policy.environment.safetensors"
    save_file({"0.Normalize.mean": torch.tensor([0.0, math.nan])}, path)
    refused(capsys, record, "policy.environment.safetensors: '0.Normalize.mean' is not finite")
    path.unlink()


def test_other_names_and_shapes_are_refused(capsys, record, weights):
    original = load_file(weights)
    name, *others = original
    for changed in (
        {other: original[other] for other in others},
        {**original, "more": torch.zeros(1)},
        {**original, name: original[name][:-1].clone()},
    ):
        save_file(changed, weights)
        with pytest.raises(UsageError, match=f"(?s)does not fit the recorded policy: .*(more|{name})"):
            framework.load(record)


def test_a_file_that_is_cut_off_is_refused(capsys, record, weights):
    weights.write_bytes(weights.read_bytes()[:-7])
    refused(capsys, record, "run/policy.safetensors cannot be read: ")


@frozen
class Masked(Categorical):
    """A policy whose buffer holds −∞ by design."""

    def build(self, observation_space, action_space):
        policy = super().build(observation_space, action_space)
        policy.register_buffer("never", torch.tensor([0.0, -math.inf]))
        return policy


def test_what_is_not_finite_by_design_is_read(tmp_path):
    policy = framework.train(policy=Masked(), iterations=1).policy
    refuse_other_numbers(tmp_path, policy.state_dict(), policy.state_dict())
    broken = {**policy.state_dict(), "never": torch.tensor([-math.inf, -math.inf])}
    with pytest.raises(UsageError, match="'never' is not finite: 1 of 2 numbers, such as -inf"):
        refuse_other_numbers(tmp_path, broken, policy.state_dict())
