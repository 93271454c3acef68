"""The gradient of the expected return with respect to a policy's parameters, by three nearly independent methods."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..contracts import TabularMDP
from .policy import action_probabilities, in_float64, trainable_parameters, vector_jacobian_product
from .trajectories import pieces
from .values import expected_return

STEPS = (2.0**-5, 2.0**-9, 2.0**-13)  # largest step of central differences; smaller ones if the policy is not smooth
ACCEPTED_ERROR = 1e-11  # estimated error at which no smaller step is tried


def gradient(mdp: TabularMDP, policy: nn.Module, gamma: float, route: str = "solve") -> Tensor:
    """∇J `[P]` in float64, flat, in the order of `named_parameters()` that require a gradient.

    Args:
        mdp: the tabular world.
        policy: a module; it is copied and differentiated in float64.
        gamma: discount per step, in [0, 1].
        route: "solve" (autograd through the linear solve or, with a time limit, through the backward recursion),
            "differences" (central differences) or "enumeration" (autograd through the probabilities of all
            trajectories, for a world with a short time limit: nearly a million trajectories of ten steps per second,
            and at most twenty million).

    Raises:
        ValueError: J does not exist (γ = 1, no time limit, and episodes that may never end); the route is unknown; or
            there are too many trajectories to enumerate.

    The differences Dₕ = (J(θ + h) − J(θ − h)) / 2h have an error in even powers of h. Halving h three times from 2⁻⁵
    and eliminating h², h⁴ and h⁶ (Romberg) leaves c·h⁸/2¹² = c·2⁻⁵², where c = J⁽⁹⁾/9! is about |J| for softmax
    policies, whose J is analytic within a distance of about 1; rounding leaves 2·2⁻⁵³·|J|/2⁻⁸ ≈ 10⁻¹³·|J|. Both are far
    below 1e-9. Where J is not so smooth (a ReLU has kinks), the last elimination still changes the result, and smaller
    h are used: from 2⁻¹³ on, rounding leaves 10⁻¹¹·|J|.
    """
    if route not in ROUTES:
        raise ValueError(f"no route '{route}': choose one of {', '.join(ROUTES)}")
    return ROUTES[route](mdp, in_float64(policy), gamma)


def by_name(policy: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """A flat vector `[P]` as a dict from parameter names to tensors of the parameters' shapes."""
    parameters = trainable_parameters(policy)
    parts = torch.split(flat, [parameter.numel() for parameter in parameters.values()])
    return {name: part.view_as(parameter) for (name, parameter), part in zip(parameters.items(), parts, strict=True)}


def _by_solving(mdp: TabularMDP, policy: nn.Module, gamma: float) -> Tensor:
    return vector_jacobian_product(expected_return(mdp, policy, gamma), list(trainable_parameters(policy).values()))


def _by_enumeration(mdp: TabularMDP, policy: nn.Module, gamma: float) -> Tensor:
    table = action_probabilities(mdp, policy)
    leaf = table.detach().requires_grad_()
    gradient = torch.zeros_like(leaf)
    for piece in pieces(
        mdp
    ):  # each differentiated with respect to the table, and their sum with respect to the parameters
        expected = (piece.probabilities(leaf) * piece.returns(gamma)).sum()
        gradient += torch.autograd.grad(expected, leaf)[0]
    return vector_jacobian_product(table, list(trainable_parameters(policy).values()), gradient)


def _by_differences(mdp: TabularMDP, policy: nn.Module, gamma: float) -> Tensor:
    gradients: list[float] = []
    with torch.no_grad():
        for parameter in trainable_parameters(policy).values():
            numbers = parameter.view(-1)
            for index, original in enumerate(numbers.tolist()):

                def objective(value: float, numbers: Tensor = numbers, index: int = index) -> float:
                    numbers[index] = value
                    return float(expected_return(mdp, policy, gamma))

                candidates = []
                for widest in STEPS:
                    candidates.append(romberg(objective, original, widest))
                    if candidates[-1][1] <= ACCEPTED_ERROR * max(1.0, abs(candidates[-1][0])):
                        break
                gradients.append(min(candidates, key=lambda pair: pair[1])[0])
                numbers[index] = original
    return torch.tensor(gradients, dtype=torch.float64)


def romberg(function: Callable[[float], float], point: float, widest: float) -> tuple[float, float]:
    """The derivative by central differences with four steps, each half of the one before; and its estimated error."""
    row = []
    for level in range(4):
        step = widest / 2**level
        row.append((function(point + step) - function(point - step)) / (2 * step))
    for power in range(1, 4):
        coarser_row = row
        row = [finer + (finer - coarser) / (4**power - 1) for coarser, finer in pairwise(row)]
    return row[0], abs(row[0] - coarser_row[-1])


ROUTES: dict[str, Callable[[TabularMDP, nn.Module, float], Tensor]] = {
    "solve": _by_solving,
    "differences": _by_differences,
    "enumeration": _by_enumeration,
}
"""Three methods for the same gradient."""
