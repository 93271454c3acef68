"""Compiled updates against those in Python."""

import shutil

import pytest
import torch
from attrs import frozen
from compiled_cases import (
    AT_ONCE,
    CASES,
    MOVES,
    OFTEN,
    SHORT,
    STOPPING,
    UPDATES,
    After,
    Each,
    Wrapping,
    assert_same,
    beyond_float32,
    exchanging,
    leads_elsewhere,
    ran,
    replaced_step,
    scheduled,
    seen_alike,
    unlucky,
    watched,
)

import framework
from framework import Loss, OptimizerSettings, UpdateSettings
from framework.compile import update_program as programs

pytestmark = pytest.mark.usefixtures("collected_in_python")


EACH = [(case, update) for case in CASES for update in UPDATES]
QUICK = [(case, update) for case, update in EACH if update == "minibatches" and "gaussian" in case]


@pytest.mark.parametrize(
    ("case", "update"),
    [pytest.param(*one, marks=[] if one in QUICK else [pytest.mark.slow]) for one in EACH],
)
def test_compiled_updates_are_those_of_python(case, update, graphs):
    """Terms, metrics, gradients, clipping, denominators and buffers that move: traced once for each size."""
    assert_same(ran(case, update, True), ran(case, update, False))
    assert len(graphs) == (2 if update == "uneven" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("update", UPDATES)
def test_so_they_are_where_the_optimizer_steps_in_python(update, graphs):
    assert_same(*(ran("ppo, actor_critic", update, compile, optimizer=MOVES) for compile in (True, False)))
    assert len(graphs) == (2 if update == "uneven" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_learning_rate_with_a_schedule_is_no_constant(schedule, graphs):
    scheduled(None, schedule)
    assert len(graphs) == 1


@pytest.mark.slow
def test_an_iteration_is_one_call(graphs, monkeypatch):
    """But where an update is compared."""
    calls, real = [], programs.compiled

    def counting(graph, inputs):
        program = real(graph, inputs)
        return lambda *given: (calls.append(int(given[1]) - int(given[0])), program(*given))[1]

    monkeypatch.setattr(programs, "compiled", counting)
    ran("ppo, actor_critic", "minibatches", True, iterations=6)
    # the very first update is Python's; then those numbered 0, 1, 2, 3, 4, 6, 9, 14, 22 are compared
    assert calls == [1, 1, 1, *[1, 1, 1, 1], *[2, 1, 1], *[3, 1], 4, *[3, 1]]


@pytest.mark.slow
def test_who_watches_the_optimizer_sees_each_step(graphs):
    watched(None)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [OFTEN, STOPPING], ids=["all", "some"])
def test_what_others_see_is_as_in_python(arguments, graphs):
    seen_alike(arguments)


@pytest.mark.parametrize("more", [{}, {"minibatches": 2}], ids=["whole", "minibatches"])
def test_updates_that_end_in_python_are_seen_as_well(more, graphs):
    """After a fallback, and with a loss that ends its first update."""
    arguments = {**STOPPING, "update": UpdateSettings(epochs=3, **more), "extensions": [Wrapping()]}
    with pytest.warns(RuntimeWarning, match="wraps compute_loss"):
        seen_alike(arguments)


def options(run):
    group = run.optimizer.param_groups[0]
    group["betas"] = [0.8 - 0.02 * run.iteration, 0.99]
    group["eps"], group["weight_decay"], group["lr"] = (
        1e-2 / (1 + run.iteration),
        0.1 / (1 + run.iteration),
        0.01 / (1 + run.iteration),
    )


def test_an_optimizer_s_numbers_may_change(graphs):
    """Without another program for each."""
    seen_alike({**OFTEN, "optimizer": OptimizerSettings("AdamW", lr=1e-3, options={"eps": 1e-2})}, options)
    assert len(graphs) == 1


@pytest.mark.slow
def test_what_a_step_is_replaced_by_is_called(graphs):
    replaced_step(None)


@pytest.mark.slow
def test_who_watches_may_exchange_parameters(graphs):
    exchanging(None)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_hook_of_the_optimizer_raises_is_its_own(when, graphs):
    def fail(*arguments):
        raise ValueError("boom")

    def watch(run):
        getattr(run.optimizer, f"register_step_{'pre' if when == 'before' else 'post'}_hook")(fail)

    with pytest.raises((framework.PartError, ValueError), match="boom"):
        ran("ppo, actor_critic", "minibatches", True, extensions=[After(watch)])


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5, 9])
def test_what_an_extension_raises_as_it_prepares_is_its_own(number, graphs):
    def fail(run, count):
        if count == number:
            raise ValueError("boom")

    with pytest.raises((framework.PartError, ValueError), match="boom"):
        ran("ppo, actor_critic", "minibatches", True, extensions=[Each(fail)])


@frozen
class UnluckyGradient:
    """A loss that is a number, and its gradient by chance is none."""

    limit: float

    def __call__(self, batch, evaluation):
        factor = (torch.rand(()) >= self.limit).float()
        near = (factor * evaluation.log_probs).abs().sqrt()
        return Loss({"policy": -batch.advantages * evaluation.log_probs, "near": near})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_is_no_number_by_chance_is_so_at_the_same_update(seed, graphs):
    unlucky(seed)


def test_a_gradient_that_is_no_number_by_chance_is_so_at_the_same_update(graphs):
    """Its step is not taken, compiled or not."""
    unlucky(0, loss=UnluckyGradient(0.03), words="loss 'UnluckyGradient' .*: .*gradient")


def test_a_sum_beyond_float32_ends_nothing(graphs):
    beyond_float32(None)


@pytest.mark.slow
def test_a_step_that_is_not_torch_s_ends_it(graphs):
    leads_elsewhere(None)


@pytest.mark.slow
def test_the_batch_is_not_held_while_the_next_one_is_collected(graphs):
    held = []
    ran("ppo, actor_critic", "minibatches", True, extensions=[After(lambda run: held.append(run.updater.columns))])
    assert held == [{}] * 5


@frozen
class Halving:
    """A loss with a tensor that it makes anew, which a recording holds."""

    def __call__(self, batch, evaluation):
        return Loss({"policy": evaluation.log_probs * -batch.advantages * torch.tensor([0.5, 2.0])[:1]})


def test_a_tensor_that_a_loss_makes_is_held(graphs):
    arguments = {**SHORT, "loss": Halving(), "optimizer": AT_ONCE, "iterations": 3}
    assert_same(*(framework.train(**arguments, compile=compile) for compile in (True, False)))
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
@pytest.mark.parametrize("case", ["ppo, actor_critic", "actor_critic, categorical states", "ppo, squashed"])
def test_so_are_those_in_cpp(case):
    assert_same(ran(case, "minibatches", True), ran(case, "minibatches", False))
