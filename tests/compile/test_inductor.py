"""What stands between this project and torch's private interfaces."""

import re
import shutil

import pytest
import torch

from framework.compile.inductor import LOOP, LOOPS, compiled, lifted, traced, undisturbed

ONES = torch.ones(3)


def loop_of(factor):
    """x·factorᵗ, as a loop."""
    from torch._higher_order_ops.while_loop import while_loop_op

    def looped(t, x):
        return while_loop_op(lambda t, x: t > 0, lambda t, x: (t - 1, x * factor), (t, x), ())

    return looped


def made(factor):
    inputs = [torch.tensor(2), ONES]
    with undisturbed():
        return compiled(traced(loop_of(factor), inputs), inputs)


def test_what_a_graph_holds_becomes_its_last_input():
    def function(x):
        return x * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor(5.0)

    graph = traced(function, [ONES])
    held = lifted(graph)
    assert [one.tolist() for one in held] == [[1, 2, 3], 5]
    assert torch.equal(graph(ONES, *held), function(ONES))
    assert torch.equal(graph(ONES, held[0] * 2, held[1]), torch.tensor([7.0, 9.0, 11.0]))
    assert lifted(traced(lambda x: x + 1, [ONES])) == []


def test_programs_are_told_apart_by_the_bodies_of_their_loops(monkeypatch):
    from torch import _inductor

    reported = []
    monkeypatch.setattr(_inductor, "compile", lambda graph, inputs, options: reported.append(options[LOOPS][LOOP]))
    for factor in (2.0, 3.0, 2.0):
        made(factor)
    assert reported[0] == reported[2] != reported[1]
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in reported)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
def test_a_program_with_a_loop_is_found_on_disk(tmp_path, monkeypatch):
    """Where inductor keeps it; another one, of the same shapes, is not taken for it."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    counters.clear()
    found = []
    for factor in (2.0, 3.0, 2.0):
        (_, result) = made(factor)(torch.tensor(2), ONES)
        found.append((result.tolist(), counters["inductor"]["fxgraph_cache_hit"]))
    assert found == [([4, 4, 4], 0), ([9, 9, 9], 0), ([4, 4, 4], 1)]
