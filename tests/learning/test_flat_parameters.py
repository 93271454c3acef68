"""Flattened parameters: any optimizer that treats each number by itself moves them as it moves the parts."""

import copy

import attrs
import pytest
import torch
from framework_classic import CartPole
from framework_policies import ActorCritic
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from torch import nn

import framework
from framework import flat_parameters as learnt
from framework.flat_parameters import ELEMENTWISE, FlatParameters
from framework.setup.optimizers import without_dynamo

SEEDS = st.integers(0, 2**31)
OPTIONS = {"SGD": {"momentum": 0.9, "nesterov": True}, "RMSprop": {"momentum": 0.5, "centered": True}}


def network(seed, dtype=torch.float64):
    """Layers, a table of which a loss may use nothing, and a number."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Embedding(2, 3)).to(dtype)
        layers.scale = nn.Parameter(torch.ones((), dtype=dtype))
    return layers


def loss_of(layers, seed, reach=True):
    inputs = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(layers.scale)
    outputs = layers[2](layers[1](layers[0](inputs)))
    return outputs.square().sum() * (layers.scale if reach else 1.0) + (outputs[:, 0] * 3).sin().sum()


def moved(module, name, seed, most=None, steps=4):
    """A network after some steps of an optimizer, and the norms of its gradients."""
    layers, norms = network(seed), []
    parts = module.FlatParameters.of(layers, name)
    parts.optimizer = without_dynamo(getattr(torch.optim, name))(parts.stepped, lr=0.02, **OPTIONS.get(name, {}))
    for number in range(steps):
        parts.refresh_views()
        parts.zero()
        loss_of(layers, seed + number).backward()
        parts.gather()
        if most is not None:
            norms.append(float(parts.clip(most)))
        parts.step()
    return layers, norms


def moved_by_torch(name, seed, most=None, steps=4):
    layers, norms = network(seed), []
    optimizer = getattr(torch.optim, name)(layers.parameters(), lr=0.02, **OPTIONS.get(name, {}))
    for number in range(steps):
        optimizer.zero_grad()
        loss_of(layers, seed + number).backward()
        for parameter in layers.parameters():  # ASGD decays what has gradient 0; torch skips what has none
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if most is not None:
            norms.append(float(nn.utils.clip_grad_norm_(layers.parameters(), most)))
        optimizer.step()
    return layers, norms


def law_moves_as_the_parts_do(module, seed, name, most):
    """Float64: some dozen operations on each number round by less than 1e-10; norms are summed in another order."""
    (ours, norms), (theirs, expected) = moved(module, name, seed, most), moved_by_torch(name, seed, most)
    assert norms == pytest.approx(expected, rel=1e-12)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-10)
        # what was stepped with stands in `grad`, clipped
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-10)


def law_others_are_left_alone(module, seed, name):
    """Muon and Adafactor look at whole matrices: they get the parameters themselves."""
    layers = network(seed)
    parts = module.FlatParameters.of(layers, name)
    assert parts.stepped == list(layers.parameters())
    assert not parts.views
    parts.optimizer = torch.optim.SGD(parts.stepped, lr=0.0)
    parts.zero()
    loss_of(layers, seed, reach=False).backward()
    parts.gather()
    assert layers.scale.grad is None
    expected = torch.cat([p.grad.flatten() for p in layers.parameters() if p.grad is not None]).norm()
    assert float(parts.clip(0.1)) == pytest.approx(float(expected), rel=1e-9)


def law_exchanged_storage_is_taken_over(module, seed):
    """A policy that loads its parameters by `data =`, and an extension that sets gradients to None, lose nothing."""
    layers = network(seed)
    parts, other = module.FlatParameters.of(layers, "SGD"), network(seed + 1)
    parts.optimizer = torch.optim.SGD(parts.stepped, lr=1.0)
    parts.optimizer.zero_grad()  # as an extension might: it takes the vector's gradient away
    for parameter, replaced in zip(layers.parameters(), other.parameters(), strict=True):
        parameter.data = replaced.detach().clone()
        parameter.grad = torch.full_like(parameter, 9.0)
    parts.refresh_views()
    parts.zero()
    layers[0].weight.grad = None
    loss_of(layers, seed).backward()
    parts.gather()
    parts.step()
    loss_of(other, seed).backward()
    for one, theirs in zip(layers.parameters(), other.parameters(), strict=True):
        gradient = 0 if theirs.grad is None else theirs.grad
        assert torch.allclose(one, theirs - gradient, rtol=1e-12)


def law_what_an_extension_adds_is_learnt_along(module, seed, most):
    """Zeroed, clipped together with the rest, and stepped, as by torch."""
    found = []
    for ours in (True, False):
        layers, added = network(seed), nn.Parameter(torch.ones(3, dtype=torch.float64))
        parts = module.FlatParameters.of(layers, "SGD") if ours else None
        optimizer = torch.optim.SGD(parts.stepped if ours else layers.parameters(), lr=0.02)
        optimizer.add_param_group({"params": [added]})
        if ours:
            parts.optimizer = optimizer
        for number in range(3):
            parts.zero() if ours else optimizer.zero_grad()
            (loss_of(layers, seed + number) + (added * torch.arange(3.0)).sum()).backward()
            if ours:
                parts.gather()
                parts.clip(most)
                parts.step()
            else:
                nn.utils.clip_grad_norm_([*layers.parameters(), added], most)
                optimizer.step()
        found.append([*layers.parameters(), added])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-10)


def law_what_is_frozen_stays(module, seed, name):
    """Neither momentum nor decay moves it; the rest goes on."""
    layers = network(seed)
    parts = module.FlatParameters.of(layers, name)
    parts.optimizer = without_dynamo(getattr(torch.optim, name))(parts.stepped, lr=0.02, weight_decay=0.1)
    before = []
    for number in range(4):
        if number == 2:
            layers[0].requires_grad_(False)
            before = [parameter.clone() for parameter in layers.parameters()]
        parts.refresh_views()
        parts.zero()
        loss_of(layers, seed + number).backward()
        parts.gather()
        parts.step()
    same = [torch.equal(one, other) for one, other in zip(layers.parameters(), before, strict=True)]
    # scale, two of each layer; of the table nothing was ever reached, but it decays
    assert same[1:3] == [True, True]
    assert not any(same[:1] + same[3:5])


def law_backward_accumulates_the_gradient_of_a_scaled_sum(module, seed, rows, factor):
    """Beside the sum with its graph, as autograd differentiates it; terms may share a graph, or be the same."""
    generator = torch.Generator().manual_seed(seed)
    leaf = torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_()

    def terms():
        shared = (leaf * torch.arange(1.0, rows * 3 + 1, dtype=torch.float64).view(rows, 3)).sin()
        return [one := shared.sum(1), leaf.exp().sum().expand(rows), shared.prod(1), leaf.sum(), one]

    (expected,) = torch.autograd.grad(factor * sum(term.sum() for term in terms()), leaf)
    made = terms()
    leaf.grad = torch.ones_like(leaf)
    module.backward(made, factor)
    assert torch.allclose(leaf.grad, 1 + expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(RuntimeError, match="second time"):
        made[2].sum().backward()


def test_so_it_does_where_torch_hides_its_engine(monkeypatch):
    monkeypatch.setattr(learnt, "ENGINE", None)
    for rows in (1, 3):
        leaf = torch.ones(3, requires_grad=True)
        learnt.backward([leaf.exp().sum().expand(rows), leaf * leaf], 0.5)
        assert torch.allclose(leaf.grad, (rows * leaf.exp() / 2 + leaf).detach())


LAWS = {
    law_backward_accumulates_the_gradient_of_a_scaled_sum: (SEEDS, st.integers(1, 4), st.floats(0.01, 10.0)),
    law_moves_as_the_parts_do: (SEEDS, st.sampled_from(sorted(ELEMENTWISE)), st.sampled_from([None, 1e-3, 1.0, 1e6])),
    law_others_are_left_alone: (SEEDS, st.sampled_from(["Muon", "Adafactor"])),
    law_exchanged_storage_is_taken_over: (SEEDS,),
    law_what_an_extension_adds_is_learnt_along: (SEEDS, st.sampled_from([1e-2, 1.0, 1e6])),
    law_what_is_frozen_stays: (SEEDS, st.sampled_from(["Adam", "AdamW", "SGD", "RMSprop"])),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(learnt, *drawn))()


SCALED = law_backward_accumulates_the_gradient_of_a_scaled_sum
MUTANTS = {
    "goes backward from one term only": (SCALED, ("(tuple(terms), gradients,", "(tuple(terms[:1]), gradients[:1],")),
    "forgets the factor": (SCALED, ("torch.full_like(term, factor)", "torch.ones_like(term)")),
    "keeps the graphs": (SCALED, ("gradients, False, False", "gradients, True, False")),
    "does not accumulate": (SCALED, ("accumulate_grad=True", "accumulate_grad=False")),
    "clips by no epsilon": (law_moves_as_the_parts_do, ("(norm + 1e-6)", "(norm + 1e-3)")),
    "always scales": (law_moves_as_the_parts_do, ("if norm > most:", "if True:")),
    "adds to the last gradient": (law_moves_as_the_parts_do, ("self.gradient.zero_()", "self.gradient.mul_(0.5)")),
    "lays all flat": (law_others_are_left_alone, ("optimizer not in ELEMENTWISE or ", "")),
    "keeps the old numbers": (law_exchanged_storage_is_taken_over, ("numbers.copy_(parameter.detach())", "pass")),
    "steps what is no parameter any more": (law_exchanged_storage_is_taken_over, ("parameter.data = numbers", "pass")),
    "keeps the old gradient": (
        law_exchanged_storage_is_taken_over,
        ("gradient.copy_(parameter.grad)", "gradient.zero_()"),
    ),
    "takes a stale gradient along": (
        law_exchanged_storage_is_taken_over,
        ("parameter.grad = gradient\n\n    def gather", "pass\n\n    def gather"),
    ),
    "loses the vector's gradient": (
        law_exchanged_storage_is_taken_over,
        ("self.stepped[0].grad = self.gradient", "pass"),
    ),
    "adds to what was added": (
        law_what_an_extension_adds_is_learnt_along,
        ("self.others if self.views else [*self.parameters, *self.others]", "[] if self.views else self.parameters"),
    ),
    "clips the vector alone": (
        law_what_an_extension_adds_is_learnt_along,
        ("others = self.others\n        if", "others = []\n        if"),
    ),
    "moves what is frozen": (law_what_is_frozen_stays, ("numbers.copy_(kept)", "pass")),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    mutant = mutate("framework.flat_parameters", change)

    def fails_or_is_refused(*arguments):
        try:
            law(*arguments)
        except (RuntimeError, pytest.fail.Exception) as error:
            raise AssertionError from error

    is_killed(fails_or_is_refused, *LAWS[law], arguments=(mutant,))


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize(
    "breaking",
    [
        lambda layers: layers[0].double(),
        lambda layers: setattr(layers[0], "weight", nn.Parameter(torch.randn(3, 4).t())),
        lambda layers: setattr(layers[0], "bias", nn.Parameter(layers[2].weight.detach()[0])),
        lambda layers: layers.append(nn.LazyLinear(2)),
        lambda layers: setattr(layers, "nothing", nn.Parameter(torch.empty(0))),
    ],
    ids=["two dtypes", "not contiguous", "one storage for two", "not there yet", "no numbers"],
)
def test_what_cannot_be_flattened_is_left_alone(breaking):
    layers = network(0, torch.float32)
    breaking(layers)
    assert not FlatParameters.of(layers, "Adam").views


def test_frozen_parameters_are_not_learnt():
    layers = network(0)
    layers[0].weight.requires_grad_(False)
    parts = FlatParameters.of(layers, "Adam")
    assert parts.stepped[0].numel() == sum(p.numel() for p in layers.parameters()) - 12
    assert layers[0].weight is not parts.parameters[0]


def test_a_trained_policy_can_be_copied_loaded_and_saved(tmp_path):
    """Its parameters are views: copies share no storage with them, and loading into them is not undone."""
    arguments = {"environment": CartPole(), "policy": ActorCritic(), "iterations": 1}
    trained = framework.train(**arguments, directory=tmp_path / "run").policy
    copied = copy.deepcopy(trained)
    loaded = framework.load(tmp_path / "run")
    for one, two, three in zip(*(policy.parameters() for policy in (trained, copied, loaded)), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    assert not torch.equal(next(trained.parameters()), next(copied.parameters()))
    copied.load_state_dict(trained.state_dict())
    assert torch.equal(next(trained.parameters()), next(copied.parameters()))


def test_a_gradient_that_a_hook_takes_away_moves_nothing():
    layers = network(0)
    parts = FlatParameters.of(layers, "SGD")
    parts.optimizer = torch.optim.SGD(parts.stepped, lr=1.0)
    layers.scale.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
    parts.zero()
    loss_of(layers, 0).backward()
    parts.gather()
    parts.step()
    assert layers.scale.item() == 1.0


def test_torch_notices_a_backward_pass_through_what_has_moved():
    layers = network(0)
    parts = FlatParameters.of(layers, "SGD")
    parts.optimizer = torch.optim.SGD(parts.stepped, lr=1.0)
    parts.zero()
    loss = loss_of(layers, 0)
    loss.backward(retain_graph=True)
    parts.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Clamping:
    """Gives parameters other storage after every update."""

    def __init__(self):
        self.moves = []

    @framework.hookimpl(wrapper=True)
    def apply_gradients(self, run):
        before = [parameter.detach().clone() for parameter in run.policy.parameters()]
        result = yield
        after = [parameter.detach() for parameter in run.policy.parameters()]
        moved = [float((one - two).abs().max()) for one, two in zip(after, before, strict=True)]
        self.moves.append(max(moved))
        for parameter in run.policy.parameters():
            parameter.data = parameter.data.clamp(-10, 10)
        return result


def test_storage_exchanged_between_minibatches_is_taken_over_too():
    clamping = Clamping()

    @attrs.frozen(eq=False)
    class Settings:
        def build(self, run):
            return clamping

    framework.train(
        environment=CartPole(),
        recipe="ppo",
        iterations=1,
        extensions=[Settings()],
    )
    assert len(clamping.moves) == 16
    assert min(clamping.moves) > 1e-4


def test_a_gradient_that_is_taken_is_what_the_parameters_have_whatever_was_in_its_place():
    """As after `optimizer.zero_grad()`, or by an extension; what was added to the optimizer has none."""
    layers, added = network(0), nn.Parameter(torch.ones(2))
    parts = FlatParameters.of(layers, "SGD")
    parts.optimizer = torch.optim.SGD(parts.stepped, lr=0.1)
    parts.optimizer.add_param_group({"params": [added]})
    added.grad, parts.stepped[0].grad = torch.ones(2), None
    for parameter in layers.parameters():
        parameter.grad = torch.ones_like(parameter)
    gradient = torch.arange(float(len(parts.gradient)), dtype=parts.gradient.dtype)
    parts.take(gradient)
    assert torch.equal(parts.stepped[0].grad, gradient)
    assert torch.equal(torch.cat([parameter.grad.flatten() for parameter in layers.parameters()]), gradient)
    assert added.grad is None
