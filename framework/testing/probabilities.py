"""Laws of probabilities and densities: `evaluate` on all actions of an observation."""

import torch
from torch import Tensor

from .action_distributions import (
    DENSITY_TOLERANCE,
    SUM_TOLERANCE,
    ActionDistribution,
    action_distribution,
    gradients,
    is_enumerable,
)
from .law import Broken, Subject, law
from .policy_harness import BuiltPolicy, PolicyCase, build_policy, precision
from .policy_spaces import policy_cases, requires_pairs, supported_where

ENUMERABLE = supported_where("enumerable", is_enumerable)
HAS_ENUMERABLE = requires_pairs(
    ENUMERABLE, "its actions cannot be enumerated: they are not of one or two numbers, nor of a finite space"
)


def distributions(
    subject: Subject, case: PolicyCase, perturbation: float = 1.0
) -> list[tuple[BuiltPolicy, ActionDistribution]]:
    """The distribution of actions in each observation of a case, where actions can be enumerated."""
    built = build_policy(subject, case, perturbation)
    results = [action_distribution(built, observation) for observation in case.observations]
    return [(built, distribution) for distribution in results if distribution is not None]


@law(
    "policy",
    source="docs/reference/contracts.md#evaluation",
    cases=policy_cases(most=2, pairs=ENUMERABLE),
    applies=HAS_ENUMERABLE,
)
def probabilities_sum_to_one(subject: Subject, case: PolicyCase) -> None:
    """The probabilities of all actions of a finite space sum to 1; a density integrates to 1, either over sampled
    actions or over environment actions. (Checked for actions of one or two numbers, and for densities that are smooth
    on the scale of half a standard deviation.)
    """
    for _, distribution in distributions(subject, case):
        total = float(distribution.probabilities.sum()) + distribution.unresolved
        if not abs(total - 1) <= (SUM_TOLERANCE if distribution.positions is None else DENSITY_TOLERANCE):
            raise Broken(
                f"probabilities of all actions ({case.spaces()}) sum to", expected=1.0, got=total, case=case.rows()
            )


@law(
    "policy",
    source="Cover & Thomas 2006, §2.1 and §8.1",
    cases=policy_cases(most=2, pairs=ENUMERABLE),
    applies=HAS_ENUMERABLE,
)
def entropies_are_those_of_the_probabilities(subject: Subject, case: PolicyCase) -> None:
    """Entropies are −Σ p·log p of the probabilities that `evaluate` reports, or −∫ p·log p of a density, in nats, with
    the gradient of that expression; the same for every action.
    """
    for built, distribution in distributions(subject, case):
        if distribution.unresolved or distribution.evaluation.entropies is None:
            continue
        log_probs = distribution.evaluation.log_probs.double()
        known = log_probs.detach() > -700  # below, p·log p is 0
        surprise = torch.where(known, log_probs.exp() * log_probs, 0.0)
        expected, got = -(surprise * distribution.weights).sum(), distribution.evaluation.entropies.double()
        exact = distribution.positions is None
        tolerance = (10 * SUM_TOLERANCE if exact else 2 * DENSITY_TOLERANCE) * (1 + abs(float(expected.detach())))
        if not ((got - expected).abs() <= tolerance).all():
            raise Broken(
                f"entropy ({case.spaces()})",
                expected=float(expected.detach()),
                got=float(got[0].detach()),
                case=case.rows(),
            )
        if exact:
            _require_equal_gradients("entropy", built, expected, got[0], case)


def _require_equal_gradients(what: str, built: BuiltPolicy, expected: Tensor, got: Tensor, case: PolicyCase) -> None:
    """Raise `Broken` if two totals have different gradients with respect to some parameter."""
    parameters = [p for p in built.policy.parameters() if p.requires_grad]
    expected_gradients, got_gradients = (gradients(total, parameters) for total in (expected, got))
    names = [name for name, p in built.policy.named_parameters() if p.requires_grad]
    for name, left, right in zip(names, expected_gradients, got_gradients, strict=True):
        a, b = (torch.zeros(()) if gradient is None else gradient for gradient in (left, right))
        difference = float((a - b).abs().max())
        if not difference <= 100 * precision(case) * (1 + float(a.abs().max())):
            raise Broken(
                f"the gradient of the {what} with respect to parameter {name} ({case.spaces()})",
                expected=float(a.abs().max()),
                got=float(b.abs().max()),
                case=case.rows(),
            )


@law(
    "policy", source="Sutton & Barto 2018, §13.4", cases=policy_cases(most=2, pairs=ENUMERABLE), applies=HAS_ENUMERABLE
)
def the_score_has_mean_zero(subject: Subject, case: PolicyCase) -> None:
    """Σ π(a|s)·∇log π(a|s) = ∇ Σ π(a|s) = 0 for every parameter, which is why a baseline adds no bias. A term of the
    log-prob that is detached from its graph (a normaliser, a standard deviation) breaks this.
    """
    for built, distribution in distributions(subject, case):
        if distribution.unresolved:
            continue
        parameters = [p for p in built.policy.parameters() if p.requires_grad]
        score = (distribution.probabilities * distribution.evaluation.log_probs.double()).sum()
        second_moment = (
            distribution.probabilities * distribution.evaluation.log_probs.double().square()
        ).sum()  # how large a gradient may be
        names = [name for name, p in built.policy.named_parameters() if p.requires_grad]
        mean_scores = gradients(score, parameters)
        scales = gradients(second_moment, parameters)
        for name, gradient, scale in zip(names, mean_scores, scales, strict=True):
            if gradient is None or scale is None:
                continue
            tolerance = (100 * precision(case) if distribution.positions is None else 2 * DENSITY_TOLERANCE) * (
                1 + float(scale.abs().max())
            )
            if not float(gradient.abs().max()) <= tolerance:
                raise Broken(
                    f"the mean of ∇log π with respect to parameter {name} ({case.spaces()})",
                    expected=0.0,
                    got=float(gradient.abs().max()),
                    case=case.rows(),
                )
