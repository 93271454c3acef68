"""The parameters that are trained: a policy's parameters, flattened where the optimizer allows it.

An optimizer that treats each number by itself takes one kernel for one vector and a dozen Python calls for a dozen
parameters; so do the norm of the gradients, and setting them to zero. The parameters stay what they are, as views of
the vector, and so do their gradients.
"""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn

ELEMENTWISE = frozenset(
    {"ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"}
)  # optimizers of torch.optim that move a vector as they move its parts

ENGINE: Any = getattr(torch.autograd.Variable, "_execution_engine", None)  # private to torch


@define(eq=False)
class FlatParameters:
    """Parameters, and what the optimizer steps: one vector, of which they are views, or they themselves.

    In the vector, a parameter that the loss does not reach has gradient 0; it moves only where the optimizer moves what
    has gradient 0, as by weight decay or momentum. One that does not require a gradient any more is not moved.
    """

    parameters: list[nn.Parameter]
    stepped: list[nn.Parameter]
    views: list[tuple[nn.Parameter, Tensor, Tensor, int]]  # each, its numbers and gradients in the vector, its address
    gradient: Tensor  # the gradient of the vector; of no element, where there is none
    optimizer: Any = None  # set once it is made, of `stepped`
    frozen: list[tuple[Tensor, Tensor]] = field(factory=list)  # numbers in the vector that a step must not move

    @classmethod
    def of(cls, policy: nn.Module, optimizer: str) -> "FlatParameters":
        """Of a policy that is stepped by an optimizer of this name; on the CPU its parameters become views."""
        parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        if optimizer not in ELEMENTWISE or not _can_be_flattened(parameters):
            return cls(parameters, parameters, [], torch.empty(0))
        vector = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        vector.grad = torch.zeros_like(vector)
        sizes = [parameter.numel() for parameter in parameters]
        parts = zip(parameters, torch.split(vector.detach(), sizes), torch.split(vector.grad, sizes), strict=True)
        views = [
            (one, numbers.view_as(one), gradient.view_as(one), numbers.data_ptr()) for one, numbers, gradient in parts
        ]
        flat = cls(parameters, [vector], views, vector.grad)
        flat.refresh_views()
        return flat

    @property
    def others(self) -> list[nn.Parameter]:
        """What an extension added to the optimizer."""
        groups = self.optimizer.param_groups
        if len(groups) == 1 and len(groups[0]["params"]) == len(self.stepped):
            return []
        own = {id(parameter) for parameter in self.stepped}
        return [one for group in groups for one in group["params"] if id(one) not in own]

    def refresh_views(self) -> None:
        """Before an update: make views again of parameters that were given other storage; see what is frozen."""
        self.frozen = []
        for parameter, numbers, _, address in self.views:
            if parameter.data_ptr() != address:
                numbers.copy_(parameter.detach())
                parameter.data = numbers
            if not parameter.requires_grad:
                self.frozen.append((numbers, numbers.clone()))

    def zero(self) -> None:
        """Before a backward pass: gradients 0, or none where there is no vector."""
        for parameter in self.others if self.views else [*self.parameters, *self.others]:
            parameter.grad = None
        if self.views:
            self.gradient.zero_()
            self._attach()

    def take(self, gradient: Tensor) -> None:
        """In place of a backward pass, or of several: the gradient of the vector [P]."""
        for parameter in self.others:
            parameter.grad = None
        self.gradient.copy_(gradient)
        self._attach()

    def _attach(self) -> None:
        """Let the gradients be views, whatever was put in their place."""
        self.stepped[0].grad = self.gradient
        for parameter, _, gradient, _ in self.views:
            if parameter.grad is not gradient and parameter.requires_grad:
                parameter.grad = gradient

    def gather(self) -> None:
        """After it: bring back gradients that were replaced or removed meanwhile."""
        for parameter, _, gradient, _ in self.views:
            if parameter.grad is not gradient and parameter.requires_grad:
                if parameter.grad is None:
                    gradient.zero_()
                else:
                    gradient.copy_(parameter.grad)
                parameter.grad = gradient

    def clip(self, most: float) -> float | Tensor:
        """Scale all gradients down to 2-norm `most`, if it is more; returns what it was.

        Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1.
        """
        others = self.others
        if others or not self.views:
            return torch.nn.utils.clip_grad_norm_([*self.stepped, *others], most)
        norm = float(torch.linalg.vector_norm(self.gradient))
        if norm > most:
            self.gradient.mul_(most / (norm + 1e-6))
        return norm

    def step(self) -> None:
        """Let the optimizer move everything but what is frozen."""
        self.optimizer.step()
        for numbers, kept in self.frozen:
            numbers.copy_(kept)
        self.touch()

    def release(self) -> None:
        """At the end of a run: storage of its own for each parameter, so that copies and pickles hold it once."""
        for parameter, _, _, _ in self.views:
            parameter.data = parameter.detach().clone()
        self.views = []

    def touch(self) -> None:
        """Let torch notice a backward pass through what has moved."""
        if self.views:
            torch.autograd.graph.increment_version(self.parameters)


def _can_be_flattened(parameters: list[nn.Parameter]) -> bool:
    """Of one dtype, on the CPU, each with numbers and storage of its own."""
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in parameters):
        return False
    alike = len({parameter.dtype for parameter in parameters}) == 1
    simple = all(one.device.type == "cpu" and one.is_contiguous() and one.numel() for one in parameters)
    return alike and simple and len({one.untyped_storage().data_ptr() for one in parameters}) == len(parameters)


def backward(terms: Sequence[Tensor], factor: float) -> None:
    """Accumulate the gradients of a factor times the sum of all numbers of these tensors; their graphs are freed.

    As `torch.autograd.backward`, which looks at each of them for longer than a small kernel takes, and the first time
    imports sympy for it (0.3 s, 34 MB).
    """
    gradients = tuple([torch.full_like(term, factor) for term in terms])
    if ENGINE is None:
        torch.autograd.backward(terms, gradients)
    else:
        ENGINE.run_backward(tuple(terms), gradients, False, False, (), allow_unreachable=True, accumulate_grad=True)
