"""The optimizer: any of torch.optim that steps by gradients alone, fused where torch has that."""

import contextlib
import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import optimizer as module

from ..config import Config, OptimizerSettings
from ..errors import UsageError, unknown
from ..kinds import converted, finite

# what they do to each parameter; not public, so that without them torch's own way is gone
FUSED = {"Adam": getattr(torch, "_fused_adam_", None), "AdamW": getattr(torch, "_fused_adamw_", None)}


def optimizer(config: Config, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
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
    """The optimizer's further arguments, each of the type that the signature of its class says.

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


def learning_rate(settings: OptimizerSettings, iteration: float, iterations: float) -> float:
    """η·(1 − (1 − f)·w) in iteration k of K: linear w = k/K, cosine w = (1 − cos πk/K)/2, constant w = 0.

    η is `lr`, f is `final`; k of K may be any fraction of the run. Source of the cosine: Loshchilov & Hutter 2017,
    arXiv:1608.03983, eq. 5 (here without restarts).

    >>> [learning_rate(OptimizerSettings(lr=1.0, schedule="linear"), k, 4) for k in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if settings.schedule == "constant":
        return settings.lr
    way = iteration / iterations
    if settings.schedule == "cosine":
        way = (1 - math.cos(math.pi * way)) / 2
    return settings.lr * (1 - (1 - settings.final) * way)


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, progress: float) -> None:
    """Where there is a schedule: the learning rate after this share of the run, 0 to 1."""
    if settings.schedule != "constant":
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, progress, 1)


class Adam(NamedTuple):
    """What Adam, or AdamW, does to a vector, its own arithmetic only: without AMSGrad or scaled gradients."""

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool
    maximize: bool

    @classmethod
    def of(cls, optimizer: Any) -> "tuple[Adam, dict[str, Tensor]] | None":
        """That of an optimizer of one parameter, and its state; None where it is, or does, something else."""
        fused, groups = FUSED.get(type(optimizer).__name__), optimizer.param_groups
        if fused is None or len(groups) != 1 or len(groups[0]["params"]) != 1:
            return None
        (group,), (parameter,) = groups, groups[0]["params"]
        state, rate = optimizer.state.get(parameter), group["lr"]
        if not state or type(rate) not in (float, int) or not parameter.is_cpu:
            return None  # the first step, which makes the state, is torch's own
        betas, is_decoupled = group["betas"], fused is FUSED["AdamW"]
        if group.get("decoupled_weight_decay", is_decoupled) != is_decoupled:  # an option of either, from torch 2.7 on
            return None
        if not group["fused"] or group["amsgrad"] or any(map(torch.is_tensor, betas)):
            return None
        if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
            return None
        return cls(betas, group["eps"], group["weight_decay"], is_decoupled, group["maximize"]), state

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        """What is no number: whether weights decay, whether apart from the gradient, and whether it climbs."""
        return bool(self.weight_decay), self.decoupled, self.maximize

    def scales(self, rate: float, done: int, steps: int) -> Tensor:
        """The numbers that `moved` needs in each of the next steps [steps, 6], in float64.

        η/(1 − β₁ᵗ), √(1 − β₂ᵗ), β₁, β₂, ε, and the decay λ, or η·λ where it is apart from the gradient; η is the
        learning rate, `done` how many steps are done. Rows of t < 1 mean nothing.
        """
        first, second = self.betas
        decay = self.weight_decay * (rate if self.decoupled else 1)
        counts = [max(1, done + 1 + step) for step in range(steps)]
        rows = [[rate / (1 - first**t), math.sqrt(1 - second**t), first, second, self.eps, decay] for t in counts]
        return torch.tensor(rows, dtype=torch.float64)

    def moved(self, vector: Tensor, slopes: Tensor, state: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
        """The vector [P] after a step against its gradient [P], and the state after it; nothing is written.

        The state is mean and mean square [P] of the gradients before; `scale` [6] this step's row of `scales`.

        Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
        """
        (mean, square), (rate, root, first, second, epsilon, decay) = state, scale.unbind()
        slopes = -slopes if self.maximize else slopes
        if self.weight_decay and self.decoupled:
            vector = vector * (1 - decay)
        elif self.weight_decay:
            slopes = slopes + decay * vector
        mean, square = mean + (1 - first) * (slopes - mean), second * square + (1 - second) * slopes * slopes
        return [vector - rate * (mean / (square.sqrt() / root + epsilon)), mean, square]


def is_watched(optimizer: Any) -> bool:
    """Whether somebody is told of its steps."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or module._global_optimizer_pre_hooks
        or module._global_optimizer_post_hooks
    )


def _step_of_one(optimizer: Any) -> bool:
    """Move the only parameter by torch's fused kernel, if that is all that its Adam would do; whether it was.

    Torch looks for parameters of one device and dtype in every step, which takes longer than moving 10,000 numbers.
    """
    found = Adam.of(optimizer)
    if found is None:
        return False
    adam, state = found
    (group,), kernel = optimizer.param_groups, FUSED[type(optimizer).__name__]
    (parameter,) = group["params"]
    if parameter.grad is None or parameter.grad.is_sparse or kernel is None:
        return False
    state["step"] += 1
    kernel(
        [parameter.detach()],
        [parameter.grad],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        lr=group["lr"],
        beta1=adam.betas[0],
        beta2=adam.betas[1],
        weight_decay=adam.weight_decay,
        eps=adam.eps,
        amsgrad=False,
        maximize=adam.maximize,
    )
    return True


@functools.cache
def without_dynamo(cls: type[torch.optim.Optimizer]) -> Any:
    """The same class without torch's decorators for its compiler, whose import would take two seconds of every run.

    Each of them would import `torch._dynamo` when it is first called; in eager mode they do nothing else, apart from
    switching gradients off during a step, which is done here.
    """
    step = inspect.unwrap(cls.step)
    fused = FUSED.get(cls.__name__) is not None

    def eager_step(self: Any, *arguments: Any) -> Any:
        if is_watched(self):
            return watched(self, *arguments)
        if fused and not arguments and _step_of_one(self):
            return None
        return plainly(self, *arguments)

    def plainly(self: Any, *arguments: Any) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return step(self, *arguments)

    watched = torch.optim.Optimizer.profile_hook_step(plainly)
    eager_step.hooked = True  # type: ignore[attr-defined]  # torch wraps no more: a mark in its profiler costs 30 µs
    plain = {name: inspect.unwrap(getattr(cls, name)) for name in ("add_param_group", "zero_grad", "load_state_dict")}
    return type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "step": eager_step, **plain})
