"""The laws of probabilities and densities: what `evaluate` says of all that may come of an observation."""

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

ENUMERABLE = supported_where("told", is_enumerable)
HAS_ENUMERABLE = requires_pairs(
    ENUMERABLE, "what may come of an observation cannot be told: not of one or two numbers, nor of a finite space"
)


def distributions(
    subject: Subject, case: PolicyCase, perturbation: float = 1.0
) -> list[tuple[BuiltPolicy, ActionDistribution]]:
    """What may come of each observation of a scene; nothing where that cannot be told."""
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
    """Over all actions of a finite space; a density integrates to 1, as one of what is sampled or of what the
    environment gets (of actions of one or two numbers, smooth on half of their deviation).
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
    """−Σ p·log p of what `evaluate` says of all actions, or −∫ p·log p of a density, in nats, with the gradient that
    this has; the same for every action.
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
    """Both have the same gradient by every parameter."""
    parameters = [p for p in built.policy.parameters() if p.requires_grad]
    expected_gradients, got_gradients = (gradients(total, parameters) for total in (expected, got))
    names = [name for name, p in built.policy.named_parameters() if p.requires_grad]
    for name, left, right in zip(names, expected_gradients, got_gradients, strict=True):
        a, b = (torch.zeros(()) if gradient is None else gradient for gradient in (left, right))
        difference = float((a - b).abs().max())
        if not difference <= 100 * precision(case) * (1 + float(a.abs().max())):
            raise Broken(
                f"the gradient of the {what} by parameter {name} ({case.spaces()})",
                expected=float(a.abs().max()),
                got=float(b.abs().max()),
                case=case.rows(),
            )


@law(
    "policy", source="Sutton & Barto 2018, §13.4", cases=policy_cases(most=2, pairs=ENUMERABLE), applies=HAS_ENUMERABLE
)
def the_score_has_mean_zero(subject: Subject, case: PolicyCase) -> None:
    """Σ π(a|s)·∇log π(a|s) = ∇ Σ π(a|s) = 0 for every parameter: why a baseline costs nothing. A part of the log-prob
    that is cut from its graph (a normaliser, a deviation) shows here.
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
                    f"the mean of ∇log π by parameter {name} ({case.spaces()})",
                    expected=0.0,
                    got=float(gradient.abs().max()),
                    case=case.rows(),
                )
