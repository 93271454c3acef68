"""A policy in a tabular world as a table of action probabilities."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..contracts import Action, Evaluation, Inputs, TabularMDP
from ..tabular.tables import ROUNDING

Policy = Tensor | nn.Module  # π(a|o) [O, A], or a policy module


class SoftmaxTable(nn.Module):
    """The smallest policy: π(a|o) = softmax of a row of logits `[O, A]`, and V(o) from a table `[O]`."""

    def __init__(self, logits: Tensor, values: Tensor | None = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())
        self.table = nn.Parameter(torch.zeros_like(logits[:, 0]) if values is None else values.detach().clone())

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample one action per lane."""
        probabilities = self.logits.detach().softmax(1)[inputs.observations]
        return Action(torch.multinomial(probabilities, 1, generator=generator).squeeze(1))

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs, values and, if requested, entropies, with gradient."""
        log_probs = self.logits.log_softmax(1)
        entropy = -(log_probs.exp() * log_probs).sum(1)[inputs.observations] if entropies else None
        return Evaluation(log_probs[inputs.observations, actions], entropy, self.values(inputs))

    def values(self, inputs: Inputs) -> Tensor:
        """V(o) `[B]`."""
        return self.table[inputs.observations]


def by_state(mdp: TabularMDP, table: Tensor) -> Tensor:
    """From rows for each observation `[O, …]` to rows for each state `[S, …]`; extra rows are ignored."""
    count = int(mdp.seen.max()) + 1
    if len(table) < count:
        raise ValueError(f"expected a row for each of {count} observations, got {list(table.shape)}")
    return table[mdp.seen]


def action_probabilities(mdp: TabularMDP, policy: Policy) -> Tensor:
    """π(a|s) `[S, A]` of every state, with gradient with respect to the policy; in float64 for a module.

    Raises:
        ValueError: the table has the wrong size, the module has memory, or its probabilities do not sum to 1.
    """
    actions = mdp.transitions.shape[1]
    if isinstance(policy, Tensor):
        if policy.ndim != 2 or policy.shape[1] != actions:
            raise ValueError(f"expected probabilities [observations, {actions}], got {list(policy.shape)}")
        return by_state(mdp, policy)
    return by_state(mdp, evaluate_table(mdp, policy, False).log_probs.exp().reshape(-1, actions)).double()


def evaluate_table(mdp: TabularMDP, policy: nn.Module, entropies: bool) -> Evaluation:
    """A module's evaluation of all pairs of observation and action, `[O·A]`, with gradient; actions vary fastest."""
    num_observations, actions = int(mdp.seen.max()) + 1, mdp.transitions.shape[1]
    device = next((parameter.device for parameter in policy.parameters()), mdp.start.device)
    observations = torch.arange(num_observations, device=device)
    act, evaluate = policy.act, policy.evaluate
    if act(Inputs(observations[:1]), torch.Generator(device).manual_seed(0)).state is not None:  # type: ignore[operator]
        raise ValueError("the policy has memory: it is not a function of the observation alone")
    pairs = torch.arange(actions, device=device).repeat(num_observations)
    evaluation: Evaluation = evaluate(Inputs(observations.repeat_interleave(actions)), pairs, entropies)  # type: ignore[operator]
    sums = evaluation.log_probs.detach().exp().reshape(num_observations, actions).sum(1)
    if bool(((sums - 1).abs() > ROUNDING).any()):
        raise ValueError(f"the policy's probabilities of {actions} actions do not sum to 1: {sums.tolist()}")
    return evaluation


def in_float64(policy: nn.Module) -> nn.Module:
    """A copy to differentiate, in float64 and evaluation mode; the policy itself is left as it is."""
    return copy.deepcopy(policy).double().eval()


def trainable_parameters(policy: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters that require a gradient, by name, in the order of all flat vectors here."""
    return {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}


def vector_jacobian_product(numbers: Tensor, parameters: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """Σ weights·∂ numbers/∂θ, flat `[P]`; 0 for parameters that have no effect. The graph is retained."""
    gradients = torch.autograd.grad(numbers, parameters, weights, retain_graph=True, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat(
        [(torch.zeros_like(parameter) if gradient is None else gradient).flatten() for gradient, parameter in pairs]
    )
