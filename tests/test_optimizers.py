"""Optimizers: torch's own, without the import of its compiler."""

import subprocess
import sys

import pytest
import torch

import framework
from framework import OptimizerSettings, UsageError
from framework.optimizers import lean

BY_GRADIENT = ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"]


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_the_lean_class_moves_parameters_as_torchs_own_does(name):
    """The same bits after five steps, and after the state has gone through a dictionary."""
    weights = []
    for cls in (getattr(torch.optim, name), lean(getattr(torch.optim, name))):
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


def test_hooks_of_a_step_are_still_called():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, called = lean(torch.optim.SGD)([weight], lr=0.1), []
    optimizer.register_step_post_hook(lambda *arguments: called.append(arguments[0]))
    weight.sum().backward()
    optimizer.step()
    assert called == [optimizer]


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
