"""A stack of layers as one function: values, gradients and their gradients are those of the layers one by one."""

import copy
import functools
import itertools
from unittest import mock

import framework_networks.layers as layers_module
import pytest
import torch
from framework_networks.layers import through
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

SEEDS = st.integers(0, 2**31)
WIDTHS = st.lists(st.integers(1, 6), min_size=2, max_size=5)
LEADING = st.lists(st.integers(1, 4), min_size=1, max_size=3)
KINDS = st.sampled_from([nn.Tanh, nn.ReLU])


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def stack(seed, widths, kind, dtype=torch.float64):
    parts = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after, dtype=dtype), kind()]
    for parameter in (made := nn.Sequential(*parts[:-1])).parameters():
        parameter.data = torch.randn(parameter.shape, dtype=dtype, generator=drawn(seed + parameter.numel()))
    return made


def case(seed, widths, kind, leading):
    features = torch.randn(*leading, widths[0], dtype=torch.float64, generator=drawn(seed))
    return stack(seed, widths, kind), features.requires_grad_()


def law_values_and_gradients_are_those_of_the_layers(module, seed, widths, kind, leading):
    """In float64 to 1e-12 of numbers of size 1: numpy's tanh and torch's differ in the last bit."""
    network, features = case(seed, widths, kind, leading)
    gradients = torch.randn(*leading, widths[-1], dtype=torch.float64, generator=drawn(seed + 1))
    inputs = [features, *network.parameters()]
    outputs, expected = module.through(network, features), network(features)
    assert torch.allclose(outputs, expected, rtol=1e-12, atol=1e-12)
    found, wanted = (torch.autograd.grad(values, inputs, gradients) for values in (outputs, expected))
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        assert torch.equal(module.through(network, features), outputs)


def law_what_needs_no_gradient_gets_none(module, seed, widths, leading, frozen):
    network, features = case(seed, widths, nn.Tanh, leading)
    frozen = frozen % len(list(network.parameters()))
    features = features.detach()
    parameters = list(network.parameters())
    parameters[frozen].requires_grad_(False)
    if len(parameters) > 1:
        module.through(network, features).sum().backward()
        found = [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]
        network.zero_grad()
        network(features).sum().backward()
        assert found[frozen] is None
        for one, parameter in zip(found, parameters, strict=True):
            assert (one is None) == (parameter.grad is None)
            assert one is None or torch.allclose(one, parameter.grad, rtol=1e-11, atol=1e-11)


def law_gradients_have_gradients(module, seed, widths, kind, leading):
    """As for a penalty on a gradient, or a natural gradient: d/dθ of |d(Σf³)/dx|² + |d(Σf³)/dθ|²."""
    network, features = case(seed, widths, kind, leading)
    inputs = [features, *network.parameters()]

    def penalty(values):
        first = torch.autograd.grad(values.pow(3).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in first), inputs)

    for one, other in zip(penalty(module.through(network, features)), penalty(network(features)), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-8 * (1 + float(other.abs().max())))


def law_several_stacks_are_each_as_if_alone(module, seed, widths, others, rows, used):
    """Values and gradients, of all stacks or of those that something depends on; features may be shared."""
    features = torch.randn(rows, widths[0], dtype=torch.float64, generator=drawn(seed)).requires_grad_()
    stacks = [stack(seed, widths, nn.Tanh), stack(seed + 1, [widths[0], *others], nn.ReLU)]
    inputs = [features, *stacks[0].parameters(), *stacks[1].parameters()]

    def gradients(outputs):
        total = sum(output.pow(2).sum() for output, wanted in zip(outputs, used, strict=True) if wanted)
        return torch.autograd.grad(total, inputs, allow_unused=True)

    made, expected = module.together([(one, features) for one in stacks]), [one(features) for one in stacks]
    for one, other in zip(made, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    if any(used):
        for one, other in zip(gradients(made), gradients(expected), strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=1e-10, atol=1e-10)


def law_wide_products_are_those_of_the_layers(module, seed, widths, kind, leading, strided):
    """By oneDNN, in float32, beside the layers in float64: values and gradients to 1e-5 of the largest.

    Biases may be `strided`: oneDNN would read them as if they were not.
    """
    network, features = case(seed, widths, kind, leading)
    single, narrow = copy.deepcopy(network).float(), features.detach().float().requires_grad_()
    if strided:
        for layer in single[::2]:
            layer.bias.data = torch.stack([layer.bias.detach(), layer.bias.detach() + 1], 1)[:, 0]
    expected = torch.autograd.grad((sums := network(features)).sum(), [features, *network.parameters()])
    with mock.patch.multiple(module, WIDE=1, SIDE=1, SIZES=range(1000), _onednn=lambda: asked()):
        outputs = module.through(single, narrow)
        found = torch.autograd.grad(outputs.sum(), [narrow, *single.parameters()])
    for one, other in zip([outputs.detach(), *found], [sums.detach(), *expected], strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() <= 1e-5 * (1 + float(other.abs().max()))


def asked():
    return torch.ops.mkldnn._linear_pointwise.default


LAWS = {
    law_several_stacks_are_each_as_if_alone: (
        SEEDS,
        WIDTHS,
        st.lists(st.integers(1, 6), min_size=1, max_size=3),
        st.integers(1, 5),
        st.tuples(st.booleans(), st.booleans()),
    ),
    law_values_and_gradients_are_those_of_the_layers: (SEEDS, WIDTHS, KINDS, LEADING),
    law_what_needs_no_gradient_gets_none: (SEEDS, WIDTHS, LEADING, st.integers(0, 7)),
    law_gradients_have_gradients: (SEEDS, WIDTHS, KINDS, LEADING),
    law_wide_products_are_those_of_the_layers: (SEEDS, WIDTHS, st.just(nn.Tanh), LEADING, st.booleans()),
}


@pytest.mark.parametrize("rows", [2, layers_module.ROWS])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law, rows, monkeypatch):
    """Also where a few rows are taken at once."""
    monkeypatch.setattr(layers_module, "ROWS", rows)
    given(st.tuples(*LAWS[law]))(lambda drawn: law(layers_module, *drawn))()


VALUES = law_values_and_gradients_are_those_of_the_layers
WIDE = law_wide_products_are_those_of_the_layers
MUTANTS = {
    "mixes the stacks up": (
        law_several_stacks_are_each_as_if_alone,
        ("results[number] = derivative", "results[0] = derivative"),
    ),
    "gives the first stack's layers to all": (
        law_several_stacks_are_each_as_if_alone,
        ("begin, end = end, end + count  # of its parameters among the inputs", "begin = len(plan)"),
    ),
    "takes the derivative of the argument": (
        VALUES,
        ("derivative = _through_activation(tanh, derivative, before[layer])", "derivative = derivative * 1.0"),
    ),
    "keeps relu's gradient above 1 only": (
        VALUES,
        ("value, 0, grad_input=derivative)", "value, 1, grad_input=derivative)"),
    ),
    "sums too little": (VALUES, ("derivative.sum(0)", "derivative[0]")),
    "activates the last layer, too": (VALUES, ("elif place < last and tanh:", "elif tanh:")),
    "forgets the biases": (
        VALUES,
        (
            "parameters[place], parameters[place + 1])\n        if",
            "parameters[place], 0 * parameters[place + 1])\n        if",
        ),
    ),
    "turns a product round": (
        VALUES,
        ("return torch.mm(value.t(), derivative).t()", "return torch.mm(derivative.t(), value) * 2"),
    ),
    "has no gradient of the features": (
        VALUES,
        ("results[number] = derivative", "results[number] = torch.zeros_like(derivative)"),
    ),
    "gives every parameter a gradient": (
        law_what_needs_no_gradient_gets_none,
        ("if needed[place]:", "if not needed[place]:"),
    ),
    "stops at a layer that needs none": (
        law_what_needs_no_gradient_gets_none,
        ("if layer or needed[number]:", "if needed[place - 2]:"),
    ),
    "forgets the biases of wide products": (WIDE, ("(features, weights, biases, ", "(features, weights, None, ")),
    "reads strided biases as they lie": (WIDE, ("        and biases.is_contiguous()", "        and biases.ndim")),
    "turns a wide product round": (
        WIDE,
        ("(derivative, weights.t(), None,", "(derivative, weights.t().flip(0), None,"),
    ),
    "gives wide weights another's gradient": (
        WIDE,
        ("(derivative.t(), value.t(), None,", "(derivative.t(), -value.t(), None,"),
    ),
    "cuts the second graph": (
        law_gradients_have_gradients,
        ("if torch.is_grad_enabled():  # they", "if False:  # they"),
    ),
    "takes another activation again": (
        law_gradients_have_gradients,
        ("torch.tanh(value) if tanh else torch.relu(value)", "torch.sigmoid(value)"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    mutant = mutate("framework_networks.layers", change)

    def fails_or_raises(*arguments):
        try:
            law(*arguments)
        except RuntimeError as error:
            raise AssertionError from error

    is_killed(fails_or_raises, *LAWS[law], arguments=(mutant,))


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize(
    ("vendor", "capability", "is_asked"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_onednn_is_asked_where_mkl_holds_back(vendor, capability, is_asked, tmp_path, monkeypatch):
    (vendor_file := tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(layers_module, "CPU", vendor_file)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    look = layers_module._onednn.__wrapped__
    assert look() is (asked() if is_asked else None)
    vendor_file.unlink()
    assert look() is None


@pytest.fixture
def counts(monkeypatch):
    """The sizes of what oneDNN is asked for."""
    found = []

    def count(one, other, *more):
        found.append((tuple(one.shape), tuple(other.shape)))
        return asked()(one, other, *more)

    monkeypatch.setattr(layers_module, "_onednn", lambda: count)
    return found


def test_only_wide_products_of_single_precision_are_onednns(counts):
    """Where it is not switched off; and what is recorded holds torch's own operations."""

    def learnt(rows, dtype):
        counts.clear()
        network, features = stack(0, [64, 64, 64], nn.Tanh, dtype), torch.ones(rows, 64, dtype=dtype).requires_grad_()
        through(network, features).sum().backward()
        return len(counts)

    assert learnt(2048, torch.float32) == 6
    assert learnt(256, torch.float32) == 0
    assert learnt(2048, torch.float64) == 0
    torch._C._set_mkldnn_enabled(False)  # as `torch.backends.mkldnn.flags` does, with a warning about other devices
    try:
        assert learnt(2048, torch.float32) == 0
    finally:
        torch._C._set_mkldnn_enabled(True)
    make_fx(lambda features: through(stack(0, [64, 64], nn.Tanh, torch.float32), features))(torch.ones(2048, 64))
    assert not counts


@pytest.mark.slow
def test_onednn_is_asked_for_few_sizes(counts):
    """It would keep a program for each."""
    network = stack(0, [128, 128, 64], nn.Tanh, torch.float32)
    for rows in [*range(250, 2100, 3), 256, 512, 1024, 5000, 70_001]:
        through(network, torch.ones(rows, 128)).sum().backward()
    forward = {one[0] for one, other in counts if one[1] in (64, 128)}
    assert forward == {256, 512, 1024, 2048}
    assert len(set(counts)) <= 4 * 6


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.append(nn.Linear(63, 3)),
        lambda network: network.append(nn.Linear(64, 3, dtype=torch.float64)),
    ],
)
def test_networks_that_do_not_fit_are_refused_in_torchs_words(change, counts):
    network = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
    change(network)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied|same dtype"):
        through(network, torch.ones(2048, 64))


def test_rows_that_overlap_are_not_onednns(counts):
    """Nor does it know them."""
    network, rows = stack(0, [64, 64], nn.Tanh, torch.float32), torch.randn(2048 + 63).unfold(0, 64, 1)
    assert torch.allclose(through(network, rows), network(rows.clone()), atol=1e-5)
    assert not counts


def test_a_checkpoint_of_the_layers_is_worked_out_again():
    network, features = stack(0, [3, 4, 2], nn.Tanh), torch.ones(5, 3, dtype=torch.float64).requires_grad_()
    outputs = checkpoint(functools.partial(through, network), features, use_reentrant=False)
    (found,) = torch.autograd.grad(outputs.sum(), features)
    (expected,) = torch.autograd.grad(network(features).sum(), features)
    assert torch.allclose(found, expected)


def calls(network, features):
    """How often the function was taken: its name in the graph."""
    return "Layers" in type(through(network, features).grad_fn).__name__


def plain():
    return stack(0, [3, 4, 2], nn.Tanh), torch.ones(5, 3, dtype=torch.float64)


def test_plain_layers_are_taken_as_one():
    assert calls(*plain())


def hooked(network):
    network[0].register_forward_hook(lambda *arguments: None)


def halved(network):
    network[1] = nn.Hardtanh()


class Own(nn.Linear):
    """A user's layer."""


def own(network):
    network[2] = Own(4, 2, dtype=torch.float64)


def without_bias(network):
    network[2] = nn.Linear(4, 2, bias=False, dtype=torch.float64)


def watched(network):
    network.register_full_backward_hook(lambda *arguments: None)


def watched_before(network):
    network[2].register_full_backward_pre_hook(lambda *arguments: None)


def patched(network):
    network[0].forward = lambda some: 2 * nn.functional.linear(some, network[0].weight, network[0].bias)


@pytest.mark.parametrize("change", [hooked, halved, own, without_bias, watched, watched_before, patched])
def test_anything_else_is_called_layer_by_layer(change):
    network, features = plain()
    change(network)
    assert not calls(network, features)
    assert torch.equal(through(network, features), network(features))


def test_of_several_stacks_one_that_is_not_plain_sends_all_layer_by_layer():
    network, features = plain()
    other = stack(1, [3, 2], nn.Tanh)
    without_bias(network)
    made = layers_module.together([(other, features), (network, features)])
    assert all(torch.equal(one, net(features)) for one, net in zip(made, (other, network), strict=True))


def test_features_of_another_dtype_are_converted():
    network, features = plain()
    whole = torch.arange(6).reshape(2, 3)
    assert torch.allclose(through(network, whole), network(whole.double()))
    assert torch.allclose(through(network.float(), features), network(features.float()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what jvp imports
def test_transforms_of_torch_func_see_the_layers():
    network, features = plain()
    parameters = dict(network.named_parameters())

    def value(parameters, row):
        with_parameters = {f"inner.{name}": one for name, one in parameters.items()}
        whole = nn.Module()
        whole.inner = network
        whole.forward = lambda row: through(network, row).sum()
        return torch.func.functional_call(whole, with_parameters, (row,))

    each = torch.func.vmap(torch.func.grad(value), (None, 0))(parameters, features)
    for name, parameter in network.named_parameters():
        (expected,) = torch.autograd.grad(network(features[:1]).sum(), parameter)
        assert torch.allclose(each[name][0], expected)
    _, derivative = torch.func.jvp(lambda row: through(network, row), (features,), (features,))
    _, expected = torch.func.jvp(network, (features,), (features,))
    assert torch.allclose(derivative, expected)


def test_a_recording_holds_operations_and_no_numbers():
    network, features = plain()

    def derivative(some):
        some = some.detach().requires_grad_()
        return torch.autograd.grad(through(network, some).pow(2).sum(), [some, network[0].weight])

    graph = make_fx(derivative)(features)
    other = (2 * features).requires_grad_()
    expected = torch.autograd.grad(network(other).pow(2).sum(), [other, network[0].weight])
    for one, theirs in zip(graph(2 * features), expected, strict=True):
        assert torch.allclose(one, theirs)


def test_under_autocast_torch_chooses_the_dtype():
    network, features = stack(0, [3, 4, 2], nn.Tanh, torch.float32), torch.ones(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert through(network, features).dtype == torch.bfloat16


def test_hooks_of_all_modules_are_called():
    network, features = plain()
    called = []
    handle = nn.modules.module.register_module_forward_hook(lambda *arguments: called.append(1))
    try:
        through(network, features)
    finally:
        handle.remove()
    assert len(called) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_holds_every_operation():
    network, features = plain()

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, some):
            return through(self.inner, some)

    with torch.no_grad():
        traced = torch.jit.trace(Whole(), features)
        assert torch.allclose(traced(2 * features), network(2 * features))
