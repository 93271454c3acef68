"""The step of Adam and AdamW: as a pure function of tensors, for compiled updates, and by torch's kernel alone."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

KERNELS = {name: getattr(torch, f"_fused_{name.lower()}_", None) for name in ("Adam", "AdamW")}
"""What their fused steps do to each parameter; not public, so that without them torch's own way is taken."""


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
        name, groups = type(optimizer).__name__, optimizer.param_groups
        if name not in ("Adam", "AdamW") or len(groups) != 1 or len(groups[0]["params"]) != 1:
            return None
        (group,), (parameter,) = groups, groups[0]["params"]
        state, rate = optimizer.state.get(parameter), group["lr"]
        if not state or type(rate) not in (float, int) or not parameter.is_cpu:
            return None  # the first step, which makes the state, is torch's own
        betas, is_decoupled = group["betas"], name == "AdamW"
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

    def moved(self, vector: Tensor, gradient: Tensor, state: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
        """The vector [P] after a step against its gradient [P], and the state after it; nothing is written.

        The state is mean and mean square [P] of the gradients before; `scale` [6] this step's row of `scales`.

        Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
        """
        (mean, square), (rate, root, first, second, epsilon, decay) = state, scale.unbind()
        gradient = -gradient if self.maximize else gradient
        if self.weight_decay and self.decoupled:
            vector = vector * (1 - decay)
        elif self.weight_decay:
            gradient = gradient + decay * vector
        mean, square = mean + (1 - first) * (gradient - mean), second * square + (1 - second) * gradient * gradient
        return [vector - rate * (mean / (square.sqrt() / root + epsilon)), mean, square]


def step_directly(optimizer: Any) -> bool:
    """Move the only parameter by torch's fused kernel, if its Adam would do nothing else; whether it was.

    Torch groups parameters by device and dtype in every step, which takes longer than moving 10,000 numbers.
    """
    found = Adam.of(optimizer)
    if found is None:
        return False
    adam, state = found
    (group,), kernel = optimizer.param_groups, KERNELS.get(type(optimizer).__name__)
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
