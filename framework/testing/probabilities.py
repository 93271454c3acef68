"""The laws of probabilities and densities: what `evaluate` says of all that may come of an observation."""

import torch
from torch import Tensor

from .action_distributions import DENSITIES, SUMS, Outcomes, can_be_told, gradients, outcomes
from .law import Broken, Subject, law
from .policy_harness import Player, Scene, made, precision
from .policy_spaces import only, scenes, some

TELLABLE = only("told", can_be_told)
TOLD = some(
    TELLABLE, "what may come of an observation cannot be told: not of one or two numbers, nor of a finite space"
)


def told(subject: Subject, scene: Scene, shaken: float = 1.0) -> list[tuple[Player, Outcomes]]:
    """What may come of each observation of a scene; nothing where that cannot be told."""
    player = made(subject, scene, shaken)
    found = [outcomes(player, observation) for observation in scene.observations]
    return [(player, one) for one in found if one is not None]


@law("policy", source="docs/reference/contracts.md#evaluation", cases=scenes(most=2, of=TELLABLE), applies=TOLD)
def probabilities_sum_to_one(subject: Subject, scene: Scene) -> None:
    """Over all actions of a finite space; a density integrates to 1, as one of what is sampled or of what the
    environment gets (of actions of one or two numbers, smooth on half of their deviation).
    """
    for _, every in told(subject, scene):
        total = float(every.shares.sum()) + every.missing
        if not abs(total - 1) <= (SUMS if every.places is None else DENSITIES):
            raise Broken(
                f"probabilities of all actions ({scene.where()}) sum to", expected=1.0, got=total, case=scene.rows()
            )


@law("policy", source="Cover & Thomas 2006, §2.1 and §8.1", cases=scenes(most=2, of=TELLABLE), applies=TOLD)
def entropies_are_those_of_the_probabilities(subject: Subject, scene: Scene) -> None:
    """−Σ p·log p of what `evaluate` says of all actions, or −∫ p·log p of a density, in nats, with the gradient that
    this has; the same for every action.
    """
    for player, every in told(subject, scene):
        if every.missing or every.said.entropies is None:
            continue
        log_probs = every.said.log_probs.double()
        known = log_probs.detach() > -700  # below, p·log p is 0
        surprise = torch.where(known, log_probs.exp() * log_probs, 0.0)
        expected, got = -(surprise * every.weights).sum(), every.said.entropies.double()
        exact = every.places is None
        limit = (10 * SUMS if exact else 2 * DENSITIES) * (1 + abs(float(expected.detach())))
        if not ((got - expected).abs() <= limit).all():
            raise Broken(
                f"entropy ({scene.where()})",
                expected=float(expected.detach()),
                got=float(got[0].detach()),
                case=scene.rows(),
            )
        if exact:
            _slopes_agree("entropy", player, expected, got[0], scene)


def _slopes_agree(what: str, player: Player, expected: Tensor, got: Tensor, scene: Scene) -> None:
    """Both have the same gradient by every parameter."""
    parameters = [p for p in player.policy.parameters() if p.requires_grad]
    one, other = (gradients(total, parameters) for total in (expected, got))
    names = [name for name, p in player.policy.named_parameters() if p.requires_grad]
    for name, left, right in zip(names, one, other, strict=True):
        a, b = (torch.zeros(()) if slope is None else slope for slope in (left, right))
        apart = float((a - b).abs().max())
        if not apart <= 100 * precision(scene) * (1 + float(a.abs().max())):
            raise Broken(
                f"the gradient of the {what} by parameter {name} ({scene.where()})",
                expected=float(a.abs().max()),
                got=float(b.abs().max()),
                case=scene.rows(),
            )


@law("policy", source="Sutton & Barto 2018, §13.4", cases=scenes(most=2, of=TELLABLE), applies=TOLD)
def the_score_has_mean_zero(subject: Subject, scene: Scene) -> None:
    """Σ π(a|s)·∇log π(a|s) = ∇ Σ π(a|s) = 0 for every parameter: why a baseline costs nothing. A part of the log-prob
    that is cut from its graph (a normaliser, a deviation) shows here.
    """
    for player, every in told(subject, scene):
        if every.missing:
            continue
        parameters = [p for p in player.policy.parameters() if p.requires_grad]
        score = (every.shares * every.said.log_probs.double()).sum()
        spreads = (every.shares * every.said.log_probs.double().square()).sum()  # how large a gradient may be
        names = [name for name, p in player.policy.named_parameters() if p.requires_grad]
        found = gradients(score, parameters)
        scales = gradients(spreads, parameters)
        for name, slope, scale in zip(names, found, scales, strict=True):
            if slope is None or scale is None:
                continue
            limit = (100 * precision(scene) if every.places is None else 2 * DENSITIES) * (1 + float(scale.abs().max()))
            if not float(slope.abs().max()) <= limit:
                raise Broken(
                    f"the mean of ∇log π by parameter {name} ({scene.where()})",
                    expected=0.0,
                    got=float(slope.abs().max()),
                    case=scene.rows(),
                )
