"""Optimizers: torch's own, without the import of its compiler; schedules of the learning rate."""

import csv
import itertools
import math
import subprocess
import sys

import pytest
import torch
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from torch.optim.optimizer import register_optimizer_step_pre_hook

import framework
from framework import OptimizerSettings, UpdateSettings, UsageError, hookimpl
from framework.learning import learning_rate as schedules
from framework.setup.optimizers import without_dynamo

BY_GRADIENT = ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"]


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_the_class_without_dynamo_moves_parameters_as_torchs_own_does(name):
    """The same bits after five steps, and after the state has gone through a dictionary."""
    weights = []
    for cls in (getattr(torch.optim, name), without_dynamo(getattr(torch.optim, name))):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        optimizer = cls([weight], lr=0.01)
        for number in range(5):
            if number == 3:
                state = optimizer.state_dict()
                optimizer = cls([weight], lr=0.5)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            (weight**2 * torch.arange(7.0)).sum().backward()
            optimizer.step()
        assert isinstance(optimizer, torch.optim.Optimizer)
        assert not weight.grad.requires_grad
        weights.append(weight.detach().clone())
    assert torch.equal(*weights)


def test_gradients_that_a_scaler_has_scaled_are_moved_as_torch_moves_them():
    """As torch's `GradScaler` sets them on the optimizer before a step."""
    vectors = []
    for cls in (torch.optim.Adam, without_dynamo(torch.optim.Adam)):
        vector = torch.nn.Parameter(torch.ones(3))
        optimizer = cls([vector], fused=True)
        for scale in (1.0, 8.0, 8.0):
            vector.grad = torch.linspace(1, 2, 3) * scale
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)
            optimizer.step()
        vectors.append(vector)
    assert torch.equal(*vectors)


def test_hooks_of_a_step_are_still_called():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, called = without_dynamo(torch.optim.SGD)([weight], lr=0.1), []
    optimizer.register_step_post_hook(lambda *arguments: called.append(arguments[0]))
    weight.sum().backward()
    optimizer.step()
    assert called == [optimizer]


def test_hooks_of_all_optimizers_are_still_called():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, called = without_dynamo(torch.optim.SGD)([weight], lr=0.1), []
    handle = register_optimizer_step_pre_hook(lambda *arguments: called.append(arguments[0]))
    try:
        weight.sum().backward()
        optimizer.step()
    finally:
        handle.remove()
    optimizer.step()
    assert called == [optimizer]


@pytest.mark.slow
def test_a_run_does_not_import_torchs_compiler():
    """It takes longer than torch itself; `--help` of a run and its first update would wait for it."""
    code = "import sys, framework; framework.train(iterations=2); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def trained(**settings):
    return framework.train(iterations=3, optimizer=OptimizerSettings(**settings))


def test_options_reach_the_optimizer():
    result = trained(name="SGD", lr=0.5, options={"momentum": 0.25})
    (group,) = result.run.optimizer.param_groups
    assert (type(result.run.optimizer).__name__, group["lr"], group["momentum"]) == ("SGD", 0.5, 0.25)
    assert result.config.optimizer.options == {"momentum": 0.25}


def test_adam_is_fused_where_torch_has_that():
    (group,) = trained().run.optimizer.param_groups
    assert group["fused"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"momentum": 0.9}}, "no option of optimizer.name Adam 'momentum'. There is: amsgrad, betas"),
        ({"options": {"epz": 0.9}}, "no option of optimizer.name Adam 'epz'. Did you mean 'eps'?"),
        ({"options": {"eps": -1.0}}, "optimizer: Adam refuses its options: Invalid epsilon value: -1.0"),
        ({"name": "Muon"}, "optimizer: Muon refuses its options: "),
    ],
)
def test_what_the_optimizer_refuses_is_said_before_the_first_step(settings, message):
    with pytest.raises(UsageError) as caught:
        trained(**settings)
    assert message in str(caught.value)


def test_one_that_needs_more_than_gradients_is_refused():
    with pytest.raises(ValueError, match="'name' must be an optimizer that steps by gradients alone, which LBFGS does"):
        OptimizerSettings(name="LBFGS")


# Schedules

FALLING = st.builds(
    lambda lr, schedule, final: OptimizerSettings(lr=lr, schedule=schedule, final=final),
    st.floats(1e-6, 1.0),
    st.sampled_from(["linear", "cosine"]),
    st.floats(0.0, 1.0),
)


def law_closed_form(module, settings, iterations):
    """Of every iteration, at its start; to 1e-12, for a dozen roundings."""
    for k in range(iterations):
        way = {"linear": k / iterations, "cosine": math.sin(math.pi * k / iterations / 2) ** 2}[settings.schedule]
        expected = settings.lr * settings.final + settings.lr * (1 - settings.final) * (1 - way)
        assert module.learning_rate(settings, k, iterations) == pytest.approx(expected, rel=1e-12, abs=1e-16)


def law_ends(module, settings, iterations):
    """`lr` itself at the first iteration, and the fraction `final` when the last one has ended."""
    assert module.learning_rate(settings, 0, iterations) == settings.lr
    last = module.learning_rate(settings, iterations, iterations)
    assert last == pytest.approx(settings.lr * settings.final, rel=1e-12, abs=1e-15)


def law_falls(module, settings, iterations):
    """Never up, never below what it ends with; a rounding of 1e-16 apart."""
    rates = [module.learning_rate(settings, k, iterations) for k in range(iterations + 1)]
    assert all(later <= earlier + 1e-15 for earlier, later in itertools.pairwise(rates))


def law_half_way_linear_and_cosine_meet(module, settings, half):
    """Both at the mean of the two ends: the cosine is symmetric."""
    middle = module.learning_rate(settings, half, 2 * half)
    assert middle == pytest.approx(settings.lr * (1 + settings.final) / 2, rel=1e-12)


SCHEDULES = {
    law: (FALLING, st.integers(1, 20))
    for law in (law_closed_form, law_ends, law_falls, law_half_way_linear_and_cosine_meet)
}
WAY = "way = iteration / iterations"
SCHEDULE_MUTANTS = {
    "counts from 1": (law_closed_form, (WAY, "way = (iteration + 1) / iterations")),
    "reaches the end an iteration early": (law_ends, (WAY, "way = min(iteration + 1, iterations) / iterations")),
    "turns through a whole period": (law_falls, ("math.cos(math.pi * way)", "math.cos(2 * math.pi * way)")),
    "takes the cosine's quarter": (
        law_half_way_linear_and_cosine_meet,
        ("(1 - math.cos(math.pi * way)) / 2", "1 - math.cos(math.pi * way / 2)"),
    ),
    "ends at 0": (law_ends, ("(1 - settings.final) * way", "way")),
}


@pytest.mark.parametrize("law", SCHEDULES, ids=lambda law: law.__name__)
def test_schedule(law):
    given(st.tuples(*SCHEDULES[law]))(lambda drawn: law(schedules, *drawn))()


def test_every_law_of_schedules_has_a_mutant():
    assert {law for law, _ in SCHEDULE_MUTANTS.values()} == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULE_MUTANTS)
def test_law_kills_the_schedule_that(name):
    law, change = SCHEDULE_MUTANTS[name]
    is_killed(law, *SCHEDULES[law], arguments=(mutate("framework.learning.learning_rate", change),))


@frozen(eq=False)
class Rates:
    """Keeps the learning rate of every optimizer step."""

    used: list = field(factory=list)

    def build(self, run):
        return RateKeeper(self.used)


class RateKeeper:
    def __init__(self, used):
        self.used = used

    @hookimpl(wrapper=True)
    def apply_gradients(self, run):
        self.used += [(run.iteration, group["lr"]) for group in run.optimizer.param_groups]
        return (yield)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_step_of_an_iteration_has_its_rate_and_the_metrics_say_so(schedule, tmp_path):
    settings, rates = OptimizerSettings(lr=0.01, schedule=schedule, final=0.1), Rates()
    result = framework.train(
        iterations=5,
        optimizer=settings,
        update=UpdateSettings(epochs=2, minibatches=3),
        extensions=[rates],
        directory=tmp_path / "run",
    )
    expected = [schedules.learning_rate(settings, k, 5) for k in range(5)]
    assert rates.used == [(k, expected[k]) for k in range(5) for _ in range(6)]
    assert result.metrics["lr"].tolist() == expected
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == expected


def weights(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.policy.parameters()])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_one_that_ends_where_it_begins_changes_no_bit(schedule):
    """final = 1 is the constant, set anew each iteration; without a schedule there is no column and nothing is set."""
    plain = trained()
    assert "lr" not in plain.metrics
    assert torch.equal(weights(plain), weights(trained(schedule=schedule, final=1.0)))
    assert not torch.equal(weights(plain), weights(trained(schedule=schedule)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "step"}, "'schedule' must be in"),
        ({"final": -0.1}, "'final' must be >= 0: -0.1"),
        ({"final": 1.1}, "'final' must be <= 1: 1.1"),
    ],
    ids=str,
)
def test_schedules_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**settings)
