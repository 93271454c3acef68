"""Linear layers with their activations as one autograd function.

A network of a few small layers spends half of its time between kernels, and torch's tanh takes seven times as long as
numpy's. So on the CPU, for torch's own layers and activations whose derivative follows from their value, forward and
backward are written out here; recordings have torch's tanh. In any other case (another device, hooks, exchanged layers,
transforms of `torch.func`, autocast), the layers are called one by one.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook
from torch.utils import _python_dispatch

KINDS = (nn.Tanh, nn.ReLU)
ROWS = 2048  # rows per pass, so that hidden values stay in the processor's caches
WIDE = 2**21  # multiplications of a product from which on oneDNN is used, where MKL is slow
SIZES = frozenset({256, 512, 1024, ROWS})  # rows of such a product
SIDE = 64  # least width for gradients of weights; MKL is faster for narrower ones
CPU = Path("/proc/cpuinfo")  # has the processor's vendor


def through(layers: nn.Sequential, features: Tensor) -> Tensor:
    """The same as `layers(features)`, to rounding; `features` in any dtype."""
    return together([(layers, features)])[0]


def together(stacks: Sequence[tuple[nn.Sequential, Tensor]]) -> list[Tensor]:
    """The outputs of each stack of layers for its features, as by `through`, with all stacks as one function."""
    plan: list[tuple[bool, int]] = []  # per stack: whether the activation is tanh, and the number of parameters
    inputs: list[Tensor] = []
    parameters: list[Any] = []
    for layers, features in stacks:
        parts: list[Any] = list(layers._modules.values())
        if not _are_plain(layers, parts):
            return _call_layers(stacks)
        stack_parameters: list[Any] = [layer._parameters[name] for layer in parts[::2] for name in ("weight", "bias")]
        first = stack_parameters[0]
        if features.dtype != first.dtype:
            features = features.to(first.dtype)
        if any(parameter is None for parameter in stack_parameters) or not first.is_cpu or not _is_simple(features):
            return _call_layers(stacks)
        plan.append((len(parts) > 1 and type(parts[1]) is nn.Tanh, len(stack_parameters)))
        inputs.append(features.reshape(-1, features.shape[-1]) if features.ndim != 2 else features)
        parameters += stack_parameters
    counts = {len(features) for features in inputs}
    if max(counts) <= ROWS or len(counts) > 1 or _is_recording():
        results = _outputs(plan, inputs, parameters)
    else:
        batches = zip(*(torch.split(features, ROWS) for features in inputs), strict=True)
        results = [
            torch.cat(parts) for parts in zip(*(_outputs(plan, batch, parameters) for batch in batches), strict=True)
        ]
    return [
        outputs if features.ndim == 2 else outputs.reshape(*features.shape[:-1], outputs.shape[-1])
        for outputs, (_, features) in zip(results, stacks, strict=True)
    ]


def _outputs(plan: list[tuple[bool, int]], features: Sequence[Tensor], parameters: Sequence[Any]) -> Sequence[Tensor]:
    """The outputs `[B, outputs]` of each stack."""
    if torch.is_grad_enabled():
        return Layers.apply(plan, *features, *parameters)  # type: ignore[no-any-return]
    return [values[-1] for values in _all_values(plan, features, parameters)]


def _is_recording() -> bool:
    """Whether torch records the operations."""
    return _python_dispatch._get_current_dispatch_mode() is not None


def _call_layers(stacks: Sequence[tuple[nn.Sequential, Tensor]]) -> list[Tensor]:
    return [layers(features.to(layers[-1].weight.dtype)) for layers, features in stacks]  # type: ignore[arg-type]


class Layers(torch.autograd.Function):
    """h ← f(h·Wᵀ + b) for each layer, without f in a stack's last one; f′ is 1 − f² for tanh, and f > 0 for ReLU."""

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """Torch's `apply` without its check for transforms of `torch.func`: there the layers are called one by one."""
        return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]

    @staticmethod
    def forward(ctx: Any, plan: list[tuple[bool, int]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs `[B, outputs]` of each stack.

        `inputs` are the features `[B, width]` of each stack, then all parameters: for each layer weights
        `[after, before]` and biases.
        """
        features, parameters = inputs[: len(plan)], inputs[len(plan) :]
        values = _all_values(plan, features, parameters)
        ctx.plan = plan
        ctx.save_for_backward(*inputs, *[value for stack_values in values for value in stack_values[:-1]])
        ctx.set_materialize_grads(False)
        return tuple(stack_values[-1] for stack_values in values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients that are needed, of features and parameters."""
        plan, needed = ctx.plan, ctx.needs_input_grad[1:]
        saved = ctx.saved_tensors
        inputs, hidden = saved[: len(needed)], iter(saved[len(needed) :])
        if torch.is_grad_enabled():  # they must be differentiable
            return None, *_differentiable_gradients(plan, inputs, gradients, needed)
        results: list[Tensor | None] = [None] * len(needed)
        end = len(plan)
        for number, ((tanh, count), derivative) in enumerate(zip(plan, gradients, strict=True)):
            begin, end = end, end + count  # of its parameters among the inputs
            before = [inputs[number], *[next(hidden) for _ in range(count // 2 - 1)]]
            if derivative is None:  # nothing depends on this stack
                continue
            for layer in range(len(before) - 1, -1, -1):
                place = begin + 2 * layer
                if needed[place]:
                    results[place] = _product(derivative, before[layer])
                if needed[place + 1]:
                    results[place + 1] = derivative.sum(0)
                if layer or needed[number]:
                    derivative = _times(derivative, inputs[place])
                if layer:
                    derivative = _through_activation(tanh, derivative, before[layer])
            if needed[number]:
                results[number] = derivative
        return None, *results


def _all_values(plan: list[tuple[bool, int]], features: Sequence[Tensor], parameters: Sequence[Any]) -> Any:
    """The outputs of each layer, for each stack."""
    results, end = [], 0
    for (tanh, count), stack_features in zip(plan, features, strict=True):
        begin, end = end, end + count
        results.append(_values(tanh, stack_features, parameters[begin:end]))
    return results


def _values(tanh: bool, features: Tensor, parameters: Any) -> list[Tensor]:
    """The outputs of each layer."""
    values, last = [features], len(parameters) - 2
    recording = _is_recording()  # every operation must be visible
    for place in range(0, len(parameters), 2):
        value = _linear(values[-1], parameters[place], parameters[place + 1])
        if place < last and tanh and recording:
            value = torch.tanh(value)
        elif place < last and tanh:
            numbers = value.detach().numpy()
            np.tanh(numbers, out=numbers)
        elif place < last:
            value.clamp_(min=0)
        values.append(value)
    return values[1:]


@functools.cache
def _onednn() -> Any:
    """oneDNN's x·Wᵀ + b, where MKL, which torch uses by default, takes twice as long; else None.

    MKL uses AVX-512 only on Intel's processors. The operation is private to torch.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    available = torch.backends.mkl.is_available(), torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if capability != "AVX512" or not all(available):
        return None
    try:
        with CPU.open() as cpuinfo:
            is_intels = "GenuineIntel" in cpuinfo.read(1024)
    except OSError:
        return None
    return None if is_intels else getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)


def _is_wide(rows: Tensor, matrix: Tensor, columns: int) -> bool:
    """Whether to use oneDNN for the product of rows with a matrix, which has `columns` columns.

    For each shape it compiles a program, which takes longer than the product, and keeps a thousand of them (1.3 MB
    each): so it is used for few sizes only.
    """
    return (
        rows.numel() * columns >= WIDE
        and len(rows) in SIZES
        and rows.dtype == matrix.dtype == torch.float32
        and _onednn() is not None
        and getattr(torch.backends.mkldnn, "enabled", True)
        and not _is_recording()
    )


def _linear(features: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """features·weightsᵀ + biases."""
    if (
        _is_wide(features, weights, len(weights))
        and features.shape[1] == weights.shape[1]
        and biases.shape == weights.shape[:1]
        and biases.dtype == torch.float32
        and biases.is_contiguous()  # oneDNN ignores strides
        and features.is_contiguous()  # and refuses overlapping rows
    ):
        return _onednn()(features, weights, biases, "none", [], "")  # type: ignore[no-any-return]
    return functional.linear(features, weights, biases)


def _times(derivative: Tensor, weights: Tensor) -> Tensor:
    """derivative·weights."""
    if _is_wide(derivative, weights, weights.shape[1]):
        return _onednn()(derivative, weights.t(), None, "none", [], "")  # type: ignore[no-any-return]
    return torch.mm(derivative, weights)


def _product(derivative: Tensor, value: Tensor) -> Tensor:
    """gradientᵀ·value, computed with fewer columns, which is faster: 5 µs instead of 22 for 64 and 4 columns."""
    if min(derivative.shape[1], value.shape[1]) >= SIDE and _is_wide(derivative, value, value.shape[1]):
        return _onednn()(derivative.t(), value.t(), None, "none", [], "")  # type: ignore[no-any-return]
    if value.shape[1] < derivative.shape[1]:
        return torch.mm(value.t(), derivative).t()
    return torch.mm(derivative.t(), value)


def _through_activation(tanh: bool, derivative: Tensor, value: Tensor) -> Tensor:
    """The gradient before an activation, from the activation's value and the gradient after it, which it overwrites."""
    aten = torch.ops.aten
    if _is_recording():  # recordings have no in-place operations
        return aten.tanh_backward(derivative, value) if tanh else aten.threshold_backward(derivative, value, 0)  # type: ignore[no-any-return]
    if tanh:
        return aten.tanh_backward.grad_input(derivative, value, grad_input=derivative)  # type: ignore[no-any-return]
    return aten.threshold_backward.grad_input(derivative, value, 0, grad_input=derivative)  # type: ignore[no-any-return]


def _differentiable_gradients(
    plan: list[tuple[bool, int]], inputs: Sequence[Tensor], gradients: Sequence[Tensor | None], needed: tuple[bool, ...]
) -> list[Tensor | None]:
    """The gradients, computed with differentiable operations of torch."""
    outputs, end = [], len(plan)
    for number, (tanh, count) in enumerate(plan):
        value = inputs[number]
        begin, end = end, end + count
        for place in range(begin, end, 2):
            if place > begin:
                value = torch.tanh(value) if tanh else torch.relu(value)
            value = functional.linear(value, inputs[place], inputs[place + 1])
        outputs.append(value)
    used = [(value, derivative) for value, derivative in zip(outputs, gradients, strict=True) if derivative is not None]
    targets = [tensor for tensor, is_needed in zip(inputs, needed, strict=True) if is_needed]
    values, derivatives = zip(*used, strict=True)
    results = iter(torch.autograd.grad(values, targets, derivatives, create_graph=True, allow_unused=True))
    return [next(results) if is_needed else None for is_needed in needed]


def _is_simple(features: Tensor) -> bool:
    """Whether it is a plain tensor of floats on the CPU, and no transform of operations is active."""
    return (
        type(features) in (Tensor, nn.Parameter)
        and features.is_cpu
        and features.dtype in (torch.float32, torch.float64)
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and torch._C._get_tracing_state() is None
        and not torch.is_autocast_enabled("cpu")
    )


def _are_plain(layers: nn.Sequential, parts: list[Any]) -> bool:
    """Whether these are unchanged linear layers with one kind of activation between them, without hooks."""
    between = type(parts[1]) if len(parts) > 1 else nn.Tanh
    if between not in KINDS or len(parts) % 2 == 0 or not is_plain(layers, nn.Sequential):
        return False
    return all(
        type(part) is (between if place % 2 else nn.Linear) and _is_bare(part) for place, part in enumerate(parts)
    )


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a module is of exactly one of these classes, without hooks."""
    return type(module) in kinds and _is_bare(module) and not _has_any_global_hook()  # type: ignore[no-untyped-call]


def _is_bare(module: nn.Module) -> bool:
    """Whether a module has no hooks and no replaced `forward`."""
    own = module.__dict__  # faster than attribute access on a module
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )
