"""What is learnt: a policy's parameters, laid flat where the optimizer allows it.

An optimizer that treats each number by itself takes one kernel for one vector and a dozen Python calls for a dozen
parameters; so do the norm of the gradients, and setting them to zero. The parameters stay what they are, as views of
the vector, and so do their gradients.
"""

import torch
from attrs import define
from torch import Tensor, nn

ELEMENTWISE = frozenset(
    {"ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"}
)  # optimizers of torch.optim that move a vector as they move its parts


@define(eq=False)
class Learnt:
    """Parameters, and what the optimizer steps: one vector, of which they are views, or they themselves.

    In the vector, a parameter that the loss does not reach has gradient 0; it moves only where the optimizer moves what
    has gradient 0, as by weight decay.
    """

    parameters: list[nn.Parameter]
    stepped: list[nn.Parameter]
    views: list[tuple[nn.Parameter, Tensor, Tensor]]  # each parameter, its numbers and gradients in the vector

    @classmethod
    def of(cls, policy: nn.Module, optimizer: str) -> "Learnt":
        """Of a policy that is stepped by an optimizer of this name; on the CPU its parameters become views."""
        parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        alike = len({parameter.dtype for parameter in parameters}) == 1
        simple = all(parameter.device.type == "cpu" and parameter.is_contiguous() for parameter in parameters)
        if not (alike and simple and optimizer in ELEMENTWISE):
            return cls(parameters, parameters, [])
        vector = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        vector.grad = torch.zeros_like(vector)
        sizes = [parameter.numel() for parameter in parameters]
        parts = zip(parameters, torch.split(vector.detach(), sizes), torch.split(vector.grad, sizes), strict=True)
        learnt = cls(parameters, [vector], [(p, number.view_as(p), slope.view_as(p)) for p, number, slope in parts])
        learnt.hold()
        return learnt

    def hold(self) -> None:
        """Make views again of parameters that somebody gave other storage."""
        for parameter, numbers, _ in self.views:
            if parameter.data_ptr() != numbers.data_ptr():
                numbers.copy_(parameter.detach())
                parameter.data = numbers

    def zero(self) -> None:
        """Before a backward pass: gradients 0, or none where there is no vector."""
        if not self.views:
            for parameter in self.parameters:
                parameter.grad = None
            return
        self.slopes.zero_()
        for parameter, _, slopes in self.views:
            if parameter.grad is not slopes:
                parameter.grad = slopes

    def gather(self) -> None:
        """After it: bring back gradients that somebody put elsewhere meanwhile."""
        for parameter, _, slopes in self.views:
            if parameter.grad is not slopes:
                if parameter.grad is not None:
                    slopes.copy_(parameter.grad)
                parameter.grad = slopes

    @property
    def slopes(self) -> Tensor:
        """The gradient of the vector."""
        assert self.stepped[0].grad is not None
        return self.stepped[0].grad

    def clip(self, most: float) -> float | Tensor:
        """Scale all gradients down to 2-norm `most`, if it is more; returns what it was.

        Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1.
        """
        if not self.views:
            return torch.nn.utils.clip_grad_norm_(self.parameters, most)
        norm = float(torch.linalg.vector_norm(self.slopes))
        if norm > most:
            self.slopes.mul_(most / (norm + 1e-6))
        return norm
