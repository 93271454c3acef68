"""The optimizer: any of torch.optim that steps by gradients alone, fused where torch has that."""

import contextlib
import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import optimizer as module

from .config import Config, OptimizerSettings
from .errors import UsageError, unknown

# what they do to each parameter; not public, so that without them torch's own way is gone
FUSED = {"Adam": getattr(torch, "_fused_adam_", None), "AdamW": getattr(torch, "_fused_adamw_", None)}


def optimizer(config: Config, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The configured optimizer of these parameters.

    Raises:
        UsageError: nothing to learn, or options that the optimizer does not take.
    """
    settings = config.optimizer
    cls = lean(getattr(torch.optim, settings.name))
    if not parameters:
        raise UsageError(f"{config.policy.label}: has no parameters to learn")
    arguments: dict[str, Any] = {"lr": settings.lr, **settings.options}
    accepted = inspect.signature(cls.__init__).parameters.keys() - {"self", "params", "lr"}
    for name in settings.options:
        if name not in accepted:
            raise UsageError(unknown(f"option of optimizer.name {settings.name}", name, accepted))
    try:
        if "fused" in accepted:
            with contextlib.suppress(RuntimeError):  # not for this device or dtype
                fused: torch.optim.Optimizer = cls(parameters, **arguments, fused=True)
                return fused
        plain: torch.optim.Optimizer = cls(parameters, **arguments)
        return plain
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer: {settings.name} refuses its options: {error}") from None


def learning_rate(settings: OptimizerSettings, iteration: int, iterations: int) -> float:
    """η·(1 − (1 − f)·w) in iteration k of K: linear w = k/K, cosine w = (1 − cos πk/K)/2, constant w = 0.

    η is `lr`, f is `final`. Source of the cosine: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5 (here without
    restarts).

    >>> [learning_rate(OptimizerSettings(lr=1.0, schedule="linear"), k, 4) for k in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if settings.schedule == "constant":
        return settings.lr
    way = iteration / iterations
    if settings.schedule == "cosine":
        way = (1 - math.cos(math.pi * way)) / 2
    return settings.lr * (1 - (1 - settings.final) * way)


def _step_of_one(optimizer: Any, fused: Any) -> bool:
    """Move the only parameter by torch's fused kernel, if that is all that its Adam would do; whether it was.

    Torch looks for parameters of one device and dtype in every step, which takes longer than moving 10,000 numbers.
    """
    groups = optimizer.param_groups
    if len(groups) != 1 or len(groups[0]["params"]) != 1:
        return False
    (group,), (parameter,) = groups, groups[0]["params"]
    state, slopes, rate = optimizer.state.get(parameter), parameter.grad, group["lr"]
    if not state or slopes is None or slopes.is_sparse or type(rate) is not float or not parameter.is_cpu:
        return False  # the first step, which makes the state, is torch's own
    betas, is_decoupled = group["betas"], fused is FUSED["AdamW"]
    if group.get("decoupled_weight_decay", is_decoupled) != is_decoupled:  # an option of either, from torch 2.7 on
        return False
    if not group["fused"] or group["amsgrad"] or any(map(torch.is_tensor, betas)):
        return False
    if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
        return False
    with torch.no_grad():
        state["step"] += 1
        fused(
            [parameter],
            [slopes],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=rate,
            beta1=betas[0],
            beta2=betas[1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
        )
    return True


@functools.cache
def lean(cls: type[torch.optim.Optimizer]) -> Any:
    """The same class without torch's decorators for its compiler, whose import would take two seconds of every run.

    Each of them would import `torch._dynamo` when it is first called; in eager mode they do nothing else, apart from
    switching gradients off during a step, which is done here.
    """
    step = inspect.unwrap(cls.step)
    fused = FUSED.get(cls.__name__)

    def eager_step(self: Any, *arguments: Any) -> Any:
        if self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or any(hooks):
            return watched(self, *arguments)
        if fused is not None and not arguments and _step_of_one(self, fused):
            return None
        return plainly(self, *arguments)

    def plainly(self: Any, *arguments: Any) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return step(self, *arguments)

    # those of all optimizers
    hooks = (module._global_optimizer_pre_hooks, module._global_optimizer_post_hooks)
    watched = torch.optim.Optimizer.profile_hook_step(plainly)
    eager_step.hooked = True  # type: ignore[attr-defined]  # torch wraps no more: a mark in its profiler costs 30 µs
    plain = {name: inspect.unwrap(getattr(cls, name)) for name in ("add_param_group", "zero_grad", "load_state_dict")}
    return type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "step": eager_step, **plain})
