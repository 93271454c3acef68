"""Where updates cannot be compiled, they run in Python; KL limits, random numbers and extensions are as there."""

import shutil

import pytest
import torch
from attrs import evolve, frozen
from compiled_cases import (
    CRITIC,
    FALLBACKS,
    KL_LIMITS,
    SMALL,
    assert_same,
    cancelling,
    falls_back,
    forgetful,
    limited,
    ran,
)
from framework_gymnasium import Gymnasium
from framework_losses import Ppo
from framework_policies import ActorCritic

import framework
from framework import OptimizerSettings, RolloutSettings, hookimpl

pytestmark = pytest.mark.usefixtures("collected_in_python")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", KL_LIMITS)
def test_a_kl_limit_ends_the_updates_as_in_python(optimizer, graphs):
    one, other = (limited(compile, optimizer) for compile in (True, False))
    assert 8 < one.metrics["updates"].sum() < 64
    assert len(set(one.metrics["updates"])) > 2
    assert_same(one, other)


@pytest.mark.slow
def test_random_numbers_are_those_of_python(graphs):
    """Also after recording, and after the updates that were done both ways."""
    assert_same(forgetful(True), forgetful(False))


@frozen
class Strided:
    """From the second iteration on, advantages are every second number of a tensor, or all one number."""

    expanded: bool

    def build(self, run):
        return Striding(self.expanded)


class Striding:
    def __init__(self, expanded):
        self.expanded = expanded

    @hookimpl(wrapper=True)
    def prepare_batch(self, run):
        batch = yield
        if not run.iteration:
            return batch
        given = batch.advantages
        changed = given.mean().expand(given.shape) if self.expanded else torch.stack([given, given * 9], 1)[:, 0]
        return evolve(batch, advantages=changed)


def strided(expanded, compile):
    return ran("ppo, actor_critic", "minibatches", compile, extensions=[Strided(expanded)])


@pytest.mark.slow
@pytest.mark.parametrize("expanded", [False, True])
def test_columns_that_are_laid_out_otherwise_have_a_program_of_their_own(expanded, graphs):
    assert_same(strided(expanded, True), strided(expanded, False))
    assert len(graphs) == 2


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
@pytest.mark.parametrize("expanded", [False, True])
def test_so_they_have_in_cpp(expanded):
    """Which reads memory at the address that it was given when it was made."""
    assert_same(strided(expanded, True), strided(expanded, False))


def test_a_run_whose_rows_do_not_all_count_is_not_compiled_at_all(graphs):
    """Rather than after some programs that were each made for a minibatch's size."""
    environment = Gymnasium(id="CartPole-v1", vectorization_mode="sync", autoreset="next_step")
    arguments = {**CRITIC, "policy": ActorCritic(**SMALL), "loss": Ppo(), "environment": environment}
    arguments["rollout"] = RolloutSettings(lanes=4, fixed_steps=64)
    with pytest.warns(RuntimeWarning, match="ever other sizes"):
        framework.train(**arguments, iterations=2, compile=True)
    assert graphs == []


@pytest.mark.slow
@pytest.mark.parametrize("reason", FALLBACKS)
def test_what_cannot_be_compiled_runs_in_python(reason, graphs):
    falls_back(reason)


@pytest.mark.slow
def test_without_a_compiler_it_runs_in_python(monkeypatch):
    from torch import _inductor

    def missing(graph, inputs, options):
        raise OSError("no C++ compiler\nand a long story")

    monkeypatch.setattr(_inductor, "compile", missing)
    with pytest.warns(RuntimeWarning, match="the updates go on in Python: OSError: no C\\+\\+ compiler$"):
        one = ran("ppo, gaussian", "minibatches", True)
    assert_same(one, ran("ppo, gaussian", "minibatches", False))


def test_what_only_rounding_tells_apart_is_the_same(graphs):
    """As a critic's error, once it says what comes."""
    cancelling()
    assert len(graphs) == 1


def test_a_loss_that_is_not_finite_is_named_all_the_same(graphs):
    huge = {"optimizer": OptimizerSettings("SGD", lr=1e30), "iterations": 30}
    with pytest.raises(framework.PartError, match="loss 'ppo' .*: term 'value': not finite"):
        ran("ppo, actor_critic", "plain", True, **huge)
