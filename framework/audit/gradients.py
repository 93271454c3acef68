"""Gradients of a loss through a policy's log-probs, for hundreds of samples at a time.

The gradient with respect to parameters θ through the log-probs is Σ g·∂ log π(a|s)/∂θ, with g = ∂ Σ terms/∂ log π for
each step. A finite policy is a table of log π `[S, A]`, whose Jacobian J `[S·A, P]` is computed once: the gradient of a
batch is then W·J, where W `[S·A]` sums g over the steps in each state and action. Any other policy needs one backward
pass per gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ..contracts import Batch, Evaluation, Inputs
from ..errors import PartError
from ..exact.policy import in_float64, trainable_parameters, vector_jacobian_product
from ..guards import checks
from ..learning.evaluate import evaluate_batch
from ..run import Run

MAX_ENTRIES = 2**22  # of J; finite policies with larger tables use backward passes, too

Spaces = tuple["Discrete[Any]", "Discrete[Any]"]
Row = Callable[[Tensor], Tensor]


def log_prob_gradients(run: Run, batch: Batch, log_probs: Tensor, entropies: Tensor | None) -> Tensor:
    """∂ Σ terms/∂ log π `[B]` of the run's loss at `log_probs` `[B]`, without a denominator.

    Entropies and values are constants: the gradients of an entropy bonus and of a critic are left out.

    Raises:
        PartError: no term of the loss depends on the log-probs.
    """
    leaf = log_probs.detach().requires_grad_()
    fixed = None if entropies is None else entropies.detach()
    loss = run.loss(batch, Evaluation(leaf, fixed, batch.values))
    checks.loss(run.config.loss.label, loss, batch.advantages.shape)
    sums = [term.sum() for term in loss.terms.values() if term.requires_grad]
    if not sums:
        raise PartError(
            f"{run.config.loss.label}: no term depends on the log-probs (graph cut by detach or torch.tensor?)"
        )
    (gradients,) = torch.autograd.grad(sum(sums[1:], sums[0]), leaf)
    return gradients


def finite_spaces(environment: Any) -> Spaces | None:
    """The observation and action space, if both are Discrete and actions are never masked; else None."""
    spaces = environment.observation_space, environment.action_space
    if getattr(environment, "action_masks", None) is not None:
        return None
    return spaces if all(isinstance(space, Discrete) for space in spaces) else None


def has_memory(run: Run) -> bool:
    """Whether the policy has memory; it acts once to find out."""
    space = run.environment.observation_space
    assert isinstance(space, Discrete)
    first = torch.tensor([int(space.start)], device=run.device)
    with torch.no_grad():
        action = run.policy.act(Inputs(first), torch.Generator(run.device).manual_seed(0))
    return action.state is not None


def policy_table(policy: Any, spaces: Spaces, entropies: bool = False) -> Evaluation:
    """log π `[S, A]` of every action in every state and, if requested, entropies `[S]`; with gradient."""
    states, actions = (torch.arange(int(space.n)) + int(space.start) for space in spaces)
    device = next((parameter.device for parameter in policy.parameters()), None)
    pairs = torch.cartesian_prod(states, actions).to(device)
    evaluation: Evaluation = policy.evaluate(Inputs(pairs[:, 0]), pairs[:, 1], entropies)
    shape = len(states), len(actions)
    state_entropies = evaluation.entropies
    return Evaluation(
        evaluation.log_probs.reshape(shape), None if state_entropies is None else state_entropies.reshape(shape)[:, 0]
    )


class TableGradients:
    """Gradients of a finite policy by its table, as it was when this object was created; in float64."""

    def __init__(self, policy: Any, spaces: Spaces) -> None:
        double: Any = in_float64(policy)
        self.first_state, self.first_action = (int(space.start) for space in spaces)
        self.actions = int(spaces[1].n)
        log_probs = policy_table(double, spaces).log_probs.flatten()
        parameters = list(trainable_parameters(double).values())
        rows = [vector_jacobian_product(log_prob, parameters) for log_prob in log_probs]
        self.derivative = torch.stack(rows).detach()  # J [S·A, P]
        with torch.no_grad():
            self._entropies = policy_table(policy, spaces, True).entropies

    def of(self, batch: Batch) -> tuple[Tensor, Tensor | None, Row]:
        """For a batch: log-probs `[B]`, entropies `[B]`, and a function from gradients `[B]` to a row W `[S·A]`."""
        states = batch.observations - self.first_state
        index = (states * self.actions + batch.actions - self.first_action).cpu()
        size = len(self.derivative)
        entropies = None if self._entropies is None else self._entropies[states]
        return batch.log_probs, entropies, lambda gradients: torch.bincount(index, gradients.double().cpu(), size)

    def gradients(self, rows: Tensor) -> Tensor:
        """Gradients `[n, P]` of rows `[n, S·A]`."""
        return rows @ self.derivative


class BackwardGradients:
    """Gradients of any policy by backward passes: a row is a gradient."""

    def __init__(self, run: Run) -> None:
        self.run, self.parameters = run, list(trainable_parameters(run.policy).values())

    def of(self, batch: Batch) -> tuple[Tensor, Tensor | None, Row]:
        """For a batch: log-probs `[B]`, entropies `[B]`, and a function from gradients `[B]` to a row `[P]`."""
        evaluation = evaluate_batch(self.run, batch)
        log_probs = evaluation.log_probs
        return (
            log_probs,
            evaluation.entropies,
            lambda gradients: vector_jacobian_product(log_probs, self.parameters, gradients).double(),
        )

    def gradients(self, rows: Tensor) -> Tensor:
        """The rows themselves `[n, P]`."""
        return rows


def gradients_of(run: Run, spaces: Spaces | None) -> TableGradients | BackwardGradients:
    """Gradients by the table of a finite policy if it is small, otherwise by backward passes."""
    if spaces is None:
        return BackwardGradients(run)
    count = sum(parameter.numel() for parameter in trainable_parameters(run.policy).values())
    small = int(spaces[0].n) * int(spaces[1].n) * count <= MAX_ENTRIES
    return TableGradients(run.policy, spaces) if small else BackwardGradients(run)
