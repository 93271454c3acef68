"""log π from logits: the same whichever of torch's kernels is the faster one for a shape."""

import math

import pytest
import torch
from framework_networks import softmax
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate


@st.composite
def logits_and_masks(draw):
    """Logits on both sides of where the kernels change, of a batch or of sequences; with and without masks."""
    actions, rows = draw(st.integers(1, 20)), draw(st.sampled_from([1, 7, 60, 300, 600]))
    shape = (rows, actions) if draw(st.booleans()) else (3, rows, actions)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(shape, generator=generator) * draw(st.sampled_from([0.01, 1.0, 100.0]))
    if not draw(st.booleans()):
        return logits, None
    allowed = torch.rand(shape, generator=generator) < 0.5
    allowed[..., 0] = True
    return logits, allowed


def law_log_probs_are_those_of_float64(module, case):
    """log π = z − log Σ e^z over what is allowed, and its gradient, whatever the shape."""
    logits, allowed = case
    exact = logits.double().requires_grad_()
    possible = exact if allowed is None else exact.masked_fill(~allowed, -math.inf)
    expected = possible - possible.logsumexp(-1, keepdim=True)
    given = logits.clone().requires_grad_()
    got = module.masked_log_softmax(given, allowed)
    assert got.shape == logits.shape
    size = 1 + float(logits.abs().max())
    real = torch.ones_like(logits, dtype=torch.bool) if allowed is None else allowed
    assert torch.isneginf(got[~real]).all()
    assert torch.allclose(got[real].double(), expected[real], rtol=0, atol=1e-6 * size)
    weights = torch.linspace(-1, 1, int(real.sum()))
    (got[real] * weights).sum().backward()
    (expected[real] * weights.double()).sum().backward()
    assert torch.allclose(given.grad.double(), exact.grad, rtol=0, atol=1e-5)


@given(logits_and_masks())
def test_log_probs_are_those_of_float64(case):
    law_log_probs_are_those_of_float64(softmax, case)


@pytest.mark.parametrize(
    "change",
    [
        ("torch.log_softmax(logits.movedim(-1, 0), 0)", "torch.log_softmax(logits.movedim(-1, 0), -1)"),
        (".movedim(0, -1)\n", ".reshape(logits.shape)\n"),
        ("    return torch.log_softmax(logits, -1)\n", "    return torch.log_softmax(logits, 0)\n"),
        ("logits.masked_fill(~allowed, -torch.inf)", "logits.masked_fill(allowed, -torch.inf)"),
    ],
    ids=lambda change: change[1],
)
def test_the_law_kills_the_mutant(change):
    mutant = mutate("framework_networks.softmax", change)
    is_killed(law_log_probs_are_those_of_float64, logits_and_masks(), arguments=(mutant,))
