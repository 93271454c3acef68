"""The law of masks: what they forbid is never done, by nothing that chooses actions."""

from typing import Any

import torch
from attrs import frozen
from gymnasium.spaces import Discrete
from hypothesis import strategies as st

from ..errors import PartError, UsageError
from .action_distributions import SUMS, outcomes
from .law import Broken, Subject, law
from .policy_harness import Player, Scene, made, same
from .policy_spaces import only, scenes, some


def choosers(player: Player) -> dict[str, Any]:
    """All that chooses actions for a policy, by name, but for what refuses masks."""
    offered = {"act": player.policy}
    for name in ("actor", "greedy"):
        member = getattr(player.policy, name, None)
        other = None if member is None else member()
        if other is not None:
            offered[name] = other
    return {name: actor for name, actor in offered.items() if not refused(player, actor)}


def refused(player: Player, actor: Any) -> bool:
    """Whether it raises an error of ours when some masks come, which allow everything."""
    rows = player.scene.observations[:1]
    try:
        player.act(rows, masks=torch.ones(1, int(player.scene.action_space.n), dtype=torch.bool), actor=actor)  # type: ignore[attr-defined]
    except (UsageError, PartError):
        return True
    except Exception:  # no refusal: the law meets it again
        return False
    return False


MASKABLE = only("masks", lambda player: bool(choosers(player)), Discrete)
MEND = (
    "if it knows no masks, it refuses them: "
    "if inputs.action_masks is not None: raise UsageError(\"policy '…' takes no action masks\")"
)


@frozen
class Masked:
    """A scene, and which actions are allowed in it."""

    scene: Scene
    allowed: tuple[tuple[bool, ...], ...]


@st.composite
def masked(draw: st.DrawFn, subject: Subject) -> Masked:
    """Some masks, each with something allowed."""
    scene = draw(scenes(of=MASKABLE)(subject))
    count = int(scene.action_space.n)
    row = st.lists(st.booleans(), min_size=count, max_size=count).filter(any).map(tuple)
    rows = draw(st.lists(row, min_size=len(scene.observed), max_size=len(scene.observed)))
    return Masked(scene, tuple(rows))


@law(
    "policy",
    source="docs/reference/contracts.md#policy; Huang & Ontañón 2020, arXiv:2006.14171",
    cases=masked,
    applies=some(MASKABLE, "it refuses masks", Discrete),
)
def what_a_mask_forbids_is_never_done(subject: Subject, case: Masked) -> None:
    """Where an action is not allowed its probability is 0, and neither `act`, nor the actor, nor `greedy` takes it; the
    rest sums to 1, with the entropy and finite gradients of the rest. Or each of the three refuses masks, by a
    UsageError: what ignores them, does what is forbidden.
    """
    scene, masks = case.scene, torch.tensor(case.allowed)
    player, observations = made(subject, scene), scene.observations
    many, allowed = (column.repeat_interleave(64, 0) for column in (observations, masks))
    actors = choosers(player)
    first_action = int(scene.action_space.start)  # type: ignore[attr-defined]
    for name, actor in actors.items():
        chosen = player.act(many, scene.weights, allowed, actor).actions
        done = allowed.gather(1, (chosen - first_action).unsqueeze(1)).squeeze(1)
        if not done.all():
            b = int((~done).nonzero()[0])
            raise Broken(
                f"{name} takes action {int(chosen[b])}, which is forbidden ({scene.where()}); {MEND}",
                expected="an allowed one",
                got=int(chosen[b]),
                case=scene.rows(allowed=case.allowed),
            )
    if "act" not in actors:
        return
    for b, observation in enumerate(observations):
        every = outcomes(player, observation, masks[b : b + 1])
        if every is None:
            return
        shares, entropies = every.shares, every.said.entropies
        forbidden = float(shares[~masks[b]].sum())
        if forbidden or not abs(float(shares.sum()) - 1) <= SUMS:
            raise Broken(
                f"probabilities of what is forbidden, and of all, in row {b} ({scene.where()})",
                expected=[0.0, 1.0],
                got=[forbidden, float(shares.sum())],
                case=scene.rows(allowed=case.allowed),
            )
        total = every.said.log_probs[masks[b]].sum()
        if entropies is not None:
            surprise = -(shares[shares > 0] * shares[shares > 0].log()).sum()
            same("entropy under a mask", surprise.expand(len(shares)), entropies, scene, 10 * SUMS)
            total = total + entropies.sum()
        for slope in torch.autograd.grad(total, [*player.policy.parameters()], allow_unused=True):
            if slope is not None and not torch.isfinite(slope).all():
                raise Broken(
                    "a gradient under a mask", expected="finite", got="not", case=scene.rows(allowed=case.allowed)
                )
