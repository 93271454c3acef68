"""Linear layers and what lies between them as one function of autograd.

A network of a few small layers spends half of its time between the kernels, and torch's tanh takes seven times as long
as numpy's. So on the CPU, where the layers are torch's own and the activation's slope follows from its value, forward
and backward are written out here; recordings have torch's tanh. Wherever anything else is asked of them (another
device, hooks, exchanged layers, transforms of `torch.func`, autocast), the layers are called one by one.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook
from torch.utils import _python_dispatch

KINDS = (nn.Tanh, nn.ReLU)


def through(layers: nn.Sequential, features: Tensor) -> Tensor:
    """The same as `layers(features)`, to rounding; `features` in any dtype."""
    parts: list[Any] = list(layers._modules.values())
    if not _are_plain(layers, parts):
        return _one_by_one(layers, features)
    parameters: list[Any] = [layer._parameters[name] for layer in parts[::2] for name in ("weight", "bias")]
    first = parameters[0]
    if features.dtype != first.dtype:
        features = features.to(first.dtype)
    if any(one is None for one in parameters) or not first.is_cpu or not _is_simple(features):
        return _one_by_one(layers, features)
    tanh = len(parts) > 1 and type(parts[1]) is nn.Tanh
    rows = features.reshape(-1, features.shape[-1]) if features.ndim != 2 else features
    if torch.is_grad_enabled():
        outputs: Tensor = Layers.apply(tanh, rows, *parameters)  # type: ignore[no-untyped-call]
    else:
        outputs = _values(tanh, rows, parameters)[-1]
    return outputs if features.ndim == 2 else outputs.reshape(*features.shape[:-1], outputs.shape[-1])


def _one_by_one(layers: nn.Sequential, features: Tensor) -> Tensor:
    outputs: Tensor = layers(features.to(layers[-1].weight.dtype))  # type: ignore[arg-type]
    return outputs


class Layers(torch.autograd.Function):
    """h ← f(h·Wᵀ + b) for each layer but the last, which has no f; f′ is 1 − f² of tanh, and f > 0 of ReLU."""

    @staticmethod
    def forward(ctx: Any, tanh: bool, features: Tensor, *parameters: Tensor) -> Tensor:
        """Outputs `[B, outputs]` of features `[B, width]`; of each layer weights `[after, before]` and biases."""
        *hidden, outputs = _values(tanh, features, parameters)
        ctx.tanh = tanh
        ctx.save_for_backward(features, *parameters, *hidden)
        return outputs

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that are needed, of features and parameters."""
        needed = ctx.needs_input_grad[1:]
        count = len(needed)
        features, *parameters = ctx.saved_tensors[:count]
        if torch.is_grad_enabled():  # they are to be differentiated again
            return None, *_again(ctx.tanh, [features, *parameters], slopes[0], needed)
        (slope,), before = slopes, [features, *ctx.saved_tensors[count:]]
        found: list[Tensor | None] = [None] * count
        for layer in range(len(before) - 1, -1, -1):
            place = 1 + 2 * layer
            if needed[place]:
                found[place] = _product(slope, before[layer])
            if needed[place + 1]:
                found[place + 1] = slope.sum(0)
            if layer or needed[0]:
                slope = torch.mm(slope, parameters[2 * layer])
            if layer:
                backward = torch.ops.aten.tanh_backward if ctx.tanh else _relu_backward
                slope = backward(slope, before[layer])
        if needed[0]:
            found[0] = slope
        return None, *found


def _values(tanh: bool, features: Tensor, parameters: Any) -> list[Tensor]:
    """What each layer makes of the one before."""
    values, last = [features], len(parameters) - 2
    watched = _python_dispatch._get_current_dispatch_mode() is not None  # a recording: it must see each operation
    for place in range(0, len(parameters), 2):
        value = functional.linear(values[-1], parameters[place], parameters[place + 1])
        if place < last and tanh and watched:
            value = torch.tanh(value)
        elif place < last and tanh:
            numbers = value.detach().numpy()
            np.tanh(numbers, out=numbers)
        elif place < last:
            value.clamp_(min=0)
        values.append(value)
    return values[1:]


def _product(slope: Tensor, value: Tensor) -> Tensor:
    """slopeᵀ·value, as the product of few columns that is the faster one: 5 µs instead of 22 for 64 and 4 of them."""
    if value.shape[1] < slope.shape[1]:
        return torch.mm(value.t(), slope).t()
    return torch.mm(slope.t(), value)


def _relu_backward(slope: Tensor, value: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(slope, value, 0)  # type: ignore[no-any-return]


def _again(tanh: bool, inputs: list[Tensor], slope: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
    """The gradients, by operations of torch's that have gradients of their own."""
    value, parameters = inputs[0], inputs[1:]
    for place in range(0, len(parameters), 2):
        if place:
            value = torch.tanh(value) if tanh else torch.relu(value)
        value = functional.linear(value, parameters[place], parameters[place + 1])
    wanted = [one for one, is_needed in zip(inputs, needed, strict=True) if is_needed]
    found = iter(torch.autograd.grad(value, wanted, slope, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needed]


def _is_simple(features: Tensor) -> bool:
    """A tensor of numbers on the CPU, and nothing that transforms operations."""
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
    """Linear layers with one kind of activation between them, as they were built, and nothing hangs on a call."""
    between = type(parts[1]) if len(parts) > 1 else nn.Tanh
    if between not in KINDS or len(parts) % 2 == 0 or not is_plain(layers, nn.Sequential):
        return False
    return all(is_plain(part, between if place % 2 else nn.Linear) for place, part in enumerate(parts))


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Exactly of one of these classes, and nothing else happens when it is called."""
    return type(module) in kinds and not (
        _has_any_global_hook()  # type: ignore[no-untyped-call]
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
