"""Adam's step in tensors, as compiled updates have it, against torch's own."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from optimizer_cases import adams

from framework.compile import adam
from framework.setup import optimizers


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


def with_steps_of(module, name):
    """Torch's class, with the direct step of this module."""
    cls = optimizers.without_dynamo.__wrapped__(getattr(torch.optim, name))

    class Stepping(cls):
        def step(self):
            with mock.patch.multiple(optimizers, step_directly=module.step_directly, KERNELS=module.KERNELS):
                return super().step()

    Stepping.__name__ = name
    return Stepping


def law_a_vector_is_moved_at_once_as_torch_moves_it(module, case):
    """The same bits, whatever the options, after the rate has changed, and where a step has no gradient to go by."""
    name, options, steps, count = case
    ended = []
    for cls in (getattr(torch.optim, name), with_steps_of(module, name)):
        vectors = [torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(1 if count == "one" else 2)]
        optimizer = cls(vectors[:1] if count == "a group later" else vectors, **options)
        for number in range(3 * steps):
            if number == 1 and count == "a group later":
                optimizer.add_param_group({"params": vectors[1:], "lr": 0.02})
            for vector in vectors:
                vector.grad = None if number == 4 else torch.linspace(-1, 1, 7) ** (number + 1)
            if number == 2:
                optimizer.param_groups[0]["lr"] = 0.05
            optimizer.step()
        ended.append([*vectors, *(number for state in optimizer.state.values() for number in state.values())])
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))


@given(adams())
def test_a_vector_is_moved_at_once_as_torch_moves_it(case):
    law_a_vector_is_moved_at_once_as_torch_moves_it(adam, case)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_a_vector_is_moved_at_once(name, monkeypatch):
    """By one kernel, but for the first step, which makes the state."""
    kernel, moved = adam.KERNELS[name], []
    monkeypatch.setitem(adam.KERNELS, name, lambda *given, **options: (moved.append(1), kernel(*given, **options)))
    vector = torch.nn.Parameter(torch.ones(3))
    optimizer = with_steps_of(adam, name)([vector], fused=True)
    for _ in range(4):
        vector.grad = torch.ones(3)
        optimizer.step()
    assert len(moved) == 3


@pytest.mark.parametrize(
    "change",
    [
        ("weight_decay=adam.weight_decay", "weight_decay=0.0"),
        ("maximize=adam.maximize", "maximize=False"),
        ("eps=adam.eps", "eps=1e-8"),
        ('or group["amsgrad"]', ""),
        ('state["step"] += 1', "pass"),
        ("beta1=adam.betas[0]", "beta1=0.9"),
        ("beta2=adam.betas[1]", "beta2=0.999"),
        ('lr=group["lr"]', "lr=optimizer.defaults['lr']"),
        ('group.get("decoupled_weight_decay", is_decoupled) != is_decoupled', "False"),
        ('f"_fused_{name.lower()}_"', '"_fused_adam_"'),
    ],
    ids=lambda change: change[0],
)
def test_the_law_of_vectors_kills_the_mutant_of(change):
    is_killed(
        law_a_vector_is_moved_at_once_as_torch_moves_it,
        adams(),
        arguments=(mutate("framework.compile.adam", change),),
    )


BREAKING = [
    ('len(groups[0]["params"]) != 1', "False", "two"),
    ("len(groups) != 1 or", "", "a group later"),
    ("parameter.grad is None or ", "", "one"),
]


@pytest.mark.parametrize(("old", "new", "count"), BREAKING)
def test_what_would_break_is_left_to_torch(old, new, count):
    case = ("Adam", {"fused": True}, 2, count)
    law_a_vector_is_moved_at_once_as_torch_moves_it(adam, case)
    with pytest.raises((ValueError, AttributeError)):
        law_a_vector_is_moved_at_once_as_torch_moves_it(mutate("framework.compile.adam", (old, new)), case)
