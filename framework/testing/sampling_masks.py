"""The law of action masks: masked actions are never taken, however actions are chosen."""

from typing import Any

import torch
from attrs import frozen
from gymnasium.spaces import Discrete
from hypothesis import strategies as st

from ..errors import PartError, UsageError
from .action_distributions import SUM_TOLERANCE, action_distribution
from .law import Broken, Subject, law
from .policy_harness import BuiltPolicy, PolicyCase, build_policy, require_same
from .policy_spaces import policy_cases, requires_pairs, supported_where


def mask_aware_actors(built: BuiltPolicy) -> dict[str, Any]:
    """The policy, its actor and its greedy actor by name, without those that refuse masks."""
    offered = {"act": built.policy}
    for name in ("actor", "greedy"):
        member = getattr(built.policy, name, None)
        actor_object = None if member is None else member()
        if actor_object is not None:
            offered[name] = actor_object
    return {name: actor for name, actor in offered.items() if not refuses_masks(built, actor)}


def refuses_masks(built: BuiltPolicy, actor: Any) -> bool:
    """Whether an actor raises a UsageError or PartError when given masks that allow everything."""
    observations = built.case.observations[:1]
    try:
        built.act(observations, masks=torch.ones(1, int(built.case.action_space.n), dtype=torch.bool), actor=actor)  # type: ignore[attr-defined]
    except (UsageError, PartError):
        return True
    except Exception:  # not a refusal: the law will report it
        return False
    return False


MASKABLE = supported_where("masks", lambda built: bool(mask_aware_actors(built)), Discrete)
FIX = (
    "if it does not support masks, it should refuse them: "
    "if inputs.action_masks is not None: raise UsageError(\"policy '…' takes no action masks\")"
)


@frozen
class MaskedCase:
    """A case, and which actions are allowed in it."""

    base: PolicyCase
    allowed: tuple[tuple[bool, ...], ...]


@st.composite
def masked_cases(draw: st.DrawFn, subject: Subject) -> MaskedCase:
    """Masks that each allow at least one action."""
    base = draw(policy_cases(pairs=MASKABLE)(subject))
    count = int(base.action_space.n)
    row = st.lists(st.booleans(), min_size=count, max_size=count).filter(any).map(tuple)
    rows = draw(st.lists(row, min_size=len(base.observed), max_size=len(base.observed)))
    return MaskedCase(base, tuple(rows))


@law(
    "policy",
    source="docs/reference/contracts.md#policy; Huang & Ontañón 2020, arXiv:2006.14171",
    cases=masked_cases,
    applies=requires_pairs(MASKABLE, "it refuses masks", Discrete),
)
def masked_actions_are_never_taken(subject: Subject, masked_case: MaskedCase) -> None:
    """A masked action has probability 0, and neither `act`, nor the actor, nor `greedy` takes it. The probabilities of
    the allowed actions sum to 1, and entropies and finite gradients are those of the allowed actions. Alternatively
    each of the three may refuse masks with a UsageError, but not ignore them.
    """
    case, masks = masked_case.base, torch.tensor(masked_case.allowed)
    built, observations = build_policy(subject, case), case.observations
    repeated, allowed = (column.repeat_interleave(64, 0) for column in (observations, masks))
    actors = mask_aware_actors(built)
    first_action = int(case.action_space.start)  # type: ignore[attr-defined]
    for name, actor in actors.items():
        chosen = built.act(repeated, case.weight_seed, allowed, actor).actions
        permitted = allowed.gather(1, (chosen - first_action).unsqueeze(1)).squeeze(1)
        if not permitted.all():
            b = int((~permitted).nonzero()[0])
            raise Broken(
                f"{name} takes action {int(chosen[b])}, which is masked ({case.spaces()}); {FIX}",
                expected="an allowed action",
                got=int(chosen[b]),
                case=case.rows(allowed=masked_case.allowed),
            )
    if "act" not in actors:
        return
    for b, observation in enumerate(observations):
        distribution = action_distribution(built, observation, masks[b : b + 1])
        if distribution is None:
            return
        probabilities, entropies = distribution.probabilities, distribution.evaluation.entropies
        forbidden = float(probabilities[~masks[b]].sum())
        if forbidden or not abs(float(probabilities.sum()) - 1) <= SUM_TOLERANCE:
            raise Broken(
                f"probabilities of masked actions, and of all actions, in row {b} ({case.spaces()})",
                expected=[0.0, 1.0],
                got=[forbidden, float(probabilities.sum())],
                case=case.rows(allowed=masked_case.allowed),
            )
        total = distribution.evaluation.log_probs[masks[b]].sum()
        if entropies is not None:
            entropy = -(probabilities[probabilities > 0] * probabilities[probabilities > 0].log()).sum()
            require_same(
                "entropy under a mask", entropy.expand(len(probabilities)), entropies, case, 10 * SUM_TOLERANCE
            )
            total = total + entropies.sum()
        for gradient in torch.autograd.grad(total, [*built.policy.parameters()], allow_unused=True):
            if gradient is not None and not torch.isfinite(gradient).all():
                raise Broken(
                    "a gradient under a mask", expected="finite", got="not", case=case.rows(allowed=masked_case.allowed)
                )
