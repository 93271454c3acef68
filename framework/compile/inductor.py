"""C++ of what a function does to tensors, made by torch's inductor.

Both interfaces, `make_fx` and inductor's `compile`, are private to torch, so they stand here only; whoever calls this
goes on in Python where it fails.
"""

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

OPTIONS = {
    "fallback_random": True,  # torch's random numbers
    "cpp.use_decompose_tanh": True,  # tanh by exp, 2e-7 off
    "compile_threads": 1,
    "cpp_wrapper": True,  # no Python between the kernels
    "size_asserts": False,  # a program is only called with tensors laid out as those that it was made for
}

# inductor keeps programs with loops on disk, too, if it knows what else than their inputs distinguishes them
LOOPS, LOOP = "unsafe_marked_cacheable_functions", "torch.ops.higher_order.while_loop"


class FallbackError(Exception):
    """Why something is not compiled."""


def traced(function: Callable[..., Any], inputs: Sequence[Tensor], rules: Mapping[Any, Any] | None = None) -> Any:
    """A graph of what the function does to such inputs; `rules`: what is traced in place of an operation of torch.

    Raises:
        Exception: whatever torch, or a part, raises while it is traced.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # seconds to import, and only needed here

    return make_fx(function, decomposition_table=rules)(*inputs)


def lifted(graph: Any) -> list[Tensor]:
    """Make further inputs of the tensors that a graph holds, as loops want them; those tensors."""
    held: dict[str, Tensor] = {}
    (*_, last) = graph.graph.find_nodes(op="placeholder")
    for node in graph.graph.find_nodes(op="get_attr"):
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"held_{len(held)}")
        held[last.name] = getattr(graph, node.target)
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
    graph.recompile()
    return list(held.values())


def compiled(
    graph: Any, inputs: Sequence[Tensor], options: Mapping[str, Any] = MappingProxyType({})
) -> Callable[..., Any]:
    """A program that does what a graph does, for inputs laid out like these; `options`: more of inductor's."""
    from torch import _inductor
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    for part in graph.modules():  # those within are loops
        for node in part.graph.nodes:  # each has been traced in a mode of its own, which the C++ wrapper refuses
            node.meta.pop("val", None)
    given: dict[str, Any] = {**OPTIONS, **options}
    if hasattr(config, LOOPS):  # not in every torch
        code = "".join(part.code for part in graph.modules() if hasattr(part, "code"))
        given[LOOPS] = {LOOP: hashlib.sha256(code.encode()).hexdigest()}
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True, static_shapes=True)  # which loops ask for
    with tracing(TracingContext(mode)):
        return _inductor.compile(graph, list(inputs), options=given)  # type: ignore[no-any-return]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """While something is traced: torch's random numbers are put back, and its warnings are not shown."""
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tensors_of(policy: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, in the order of the vector, then buffers."""
    return [*policy.named_parameters(), *policy.named_buffers()]


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """What a program relies on of a tensor that it is given."""
    return tensor.shape, tensor.stride(), tensor.dtype
