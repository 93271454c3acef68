"""Adam's step in tensors, as compiled updates have it, against torch's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from optimizer_cases import adams

from framework.compile import adam


def law_adam_in_tensors_is_torch_s(module, name, options, done):
    """Where a step is taken over: from any state, to rounding, the vector and both moments."""
    vector = torch.nn.Parameter(torch.linspace(-1, 1, 7))
    optimizer = getattr(torch.optim, name)([vector], **options)
    for number in range(done + 3):
        vector.grad = torch.linspace(-1, 1, 7) ** (number + 1)
        if number < done:
            optimizer.step()
    found = module.Adam.of(optimizer)
    if found is None:
        return  # the optimizer steps in Python
    rule, state = found
    scales = rule.scales(optimizer.param_groups[0]["lr"], int(state["step"]) - 1, 3)
    assert scales.shape == (3, 6)
    for number in (1, 2):
        before = [vector.detach().clone(), state["exp_avg"].clone(), state["exp_avg_sq"].clone()]
        moved = rule.moved(before[0], vector.grad, before[1:], scales[number])
        optimizer.step()
        for ours, theirs in zip(moved, (vector, state["exp_avg"], state["exp_avg_sq"]), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


STEPPED = (adams(), st.integers(1, 4))


def made(case):
    """An optimizer of one vector that has stepped."""
    name, options, *_ = case
    vector = torch.nn.Parameter(torch.ones(2))
    vector.grad = torch.ones(2)
    optimizer = getattr(torch.optim, name)([vector], **options)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("name", "options", "taken"),
    [
        ("Adam", {}, True),
        ("AdamW", {"weight_decay": 0.1}, True),
        ("Adam", {"amsgrad": True}, False),
        ("Adam", {"lr": torch.tensor(0.1)}, False),
        ("SGD", {}, False),
    ],
)
def test_which_steps_are_taken_over(name, options, taken):
    assert (adam.Adam.of(made((name, {"fused": True, **options}))) is not None) is taken


@given(*STEPPED)
def test_adam_in_tensors_is_torch_s(case, done):
    law_adam_in_tensors_is_torch_s(adam, *case[:2], done)


@pytest.mark.parametrize(
    "change",
    [
        ("(1 - decay)", "1"),
        ("+ decay * vector", ""),
        ('or group["amsgrad"]', ""),
        ('group.get("decoupled_weight_decay", is_decoupled) != is_decoupled', "False"),
        ("self.weight_decay * (rate if self.decoupled else 1)", "self.weight_decay"),
        ("if self.weight_decay and self.decoupled", "if self.weight_decay"),
        ("-gradient if self.maximize else gradient", "gradient"),
        ("+ epsilon", ""),
        ("square.sqrt() / root", "square.sqrt()"),
        ("rate / (1 - first**t)", "rate"),
        ("math.sqrt(1 - second**t)", "1 - second**t"),
        ("max(1, done + 1 + step)", "done + 1"),
        ("(1 - second) * gradient * gradient", "second * gradient * gradient"),
    ],
    ids=lambda change: change[0],
)
def test_the_law_of_adam_in_tensors_kills_the_mutant_of(change):
    module = mutate("framework.compile.adam", change)
    is_killed(lambda case, done: law_adam_in_tensors_is_torch_s(module, *case[:2], done), *STEPPED)
