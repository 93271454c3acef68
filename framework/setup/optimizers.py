"""The optimizer: any of torch.optim that steps by gradients alone, fused where torch has that."""

import contextlib
import functools
import inspect
import operator
import types
import typing
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as module

from ..compile.adam import KERNELS, step_directly
from ..config import Config, OptimizerSettings
from ..errors import UsageError, unknown
from ..kinds import converted, finite


def make_optimizer(config: Config, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The configured optimizer of these parameters.

    Raises:
        UsageError: nothing to learn, or options that the optimizer does not take.
    """
    settings = config.optimizer
    cls = without_dynamo(getattr(torch.optim, settings.name))
    if not parameters:
        raise UsageError(f"{config.policy.label}: has no parameters to learn")
    arguments: dict[str, Any] = {"lr": settings.lr, **options(settings)}
    try:
        _try_step(cls, parameters[0], arguments)
        if "fused" in inspect.signature(cls.__init__).parameters and "fused" not in settings.options:
            with contextlib.suppress(RuntimeError):  # not for this device or dtype
                fused: torch.optim.Optimizer = cls(parameters, **arguments, fused=True)
                return fused
        plain: torch.optim.Optimizer = cls(parameters, **arguments)
        return plain
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UsageError(f"optimizer: {settings.name} refuses its options: {error}") from None


def _try_step(cls: Any, like: nn.Parameter, arguments: dict[str, Any]) -> None:
    """Some combinations of options, such as `capturable` on a CPU, are refused by the first step only."""
    if len(arguments) > 1:
        probe = nn.Parameter(torch.zeros_like(like))
        probe.grad = torch.zeros_like(like)
        cls([probe], **arguments).step()


def options(settings: OptimizerSettings) -> dict[str, Any]:
    """The optimizer's further arguments, each of the type in the signature of its class.

    Raises:
        UsageError: there is no such argument, or it takes another type.
    """
    cls = getattr(torch.optim, settings.name)
    accepted = inspect.signature(cls.__init__).parameters.keys() - {"self", "params", "lr"}
    annotations = typing.get_type_hints(cls.__init__)
    given = {}
    for name, value in settings.options.items():
        where = f"optimizer.options.{name}"
        if name not in accepted:
            raise UsageError(unknown(f"option of optimizer.name {settings.name}", name, accepted))
        given[name] = converted(_without_tensors(annotations.get(name, Any)), where, value)
        finite(where, given[name])
    return given


def _without_tensors(kind: Any) -> Any:
    """A type without the tensors that it also allows, which no configuration holds."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, (_without_tensors(one) for one in arguments if one is not Tensor))
    if typing.get_origin(kind) is tuple:
        return types.GenericAlias(tuple, tuple(map(_without_tensors, arguments)))
    return kind


@functools.cache
def without_dynamo(cls: type[torch.optim.Optimizer]) -> Any:
    """The same class without torch's decorators for its compiler, whose import would take two seconds of every run.

    Each of them would import `torch._dynamo` when it is first called; in eager mode they do nothing else, apart from
    switching gradients off during a step, which is done here.
    """
    step, direct = inspect.unwrap(cls.step), KERNELS.get(cls.__name__) is not None

    def eager_step(self: Any, *arguments: Any) -> Any:
        if is_watched(self):
            return watched(self, *arguments)
        if direct and not arguments and step_directly(self):
            return None
        return plainly(self, *arguments)

    def plainly(self: Any, *arguments: Any) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return step(self, *arguments)

    watched = torch.optim.Optimizer.profile_hook_step(plainly)
    eager_step.hooked = True  # type: ignore[attr-defined]  # torch wraps no more: a mark in its profiler costs 30 µs
    plain = {name: inspect.unwrap(getattr(cls, name)) for name in ("add_param_group", "zero_grad", "load_state_dict")}
    return type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "step": eager_step, **plain})


def is_watched(optimizer: Any) -> bool:
    """Whether a hook is called around its steps."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or module._global_optimizer_pre_hooks
        or module._global_optimizer_post_hooks
    )
