"""Laws of optional features: saving states, groups of lanes, action masks."""

import copy

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from ..law import Broken, Subject, law
from .applicability import has_members
from .stepping import ActionPlan, equal, lane_counts, make_environment, plans, require_same_recording, run_plan


@st.composite
def _interrupted_plans(draw: DrawFn, subject: Subject) -> tuple[ActionPlan, int, int]:
    """A plan, after how many steps it is interrupted, and how many steps the other environment has taken before."""
    plan = draw(plans(subject))
    return plan, draw(st.integers(1, len(plan.actions))), draw(st.integers(0, 3))


@law("environment", cases=_interrupted_plans, applies=has_members("state_dict", "load_state_dict"))
def restored_lanes_continue_identically(subject: Subject, case: tuple[ActionPlan, int, int]) -> None:
    """Another environment that loads the state of this one and of its generator continues exactly as this one does. A
    saved state does not change afterwards."""
    plan, interrupted, other_steps = case
    generator = torch.Generator().manual_seed(plan.seed)
    with make_environment(subject, plan.lanes) as environment:
        before = run_plan(environment, plan, steps=interrupted, generator=generator)
        saved = environment.state_dict()
        saved_copy = copy.deepcopy(saved)
        continued = run_plan(environment, plan, generator=generator, before=before)
    if not equal(saved, saved_copy):
        raise Broken("the saved state changes when the environment is stepped: it must be a copy")
    with make_environment(subject, plan.lanes) as environment:
        if other_steps:
            run_plan(environment, evolve(plan, seed=plan.seed + 1), steps=other_steps)
        environment.load_state_dict(saved)
        generator.set_state(before.generators[-1])
        restored = run_plan(environment, plan, generator=generator, before=before)
    require_same_recording(continued, restored, f"restored after {interrupted} steps")


@law("environment", cases=plans, applies=lambda s: None if s.declares("gives", "groups") else has_members("groups")(s))
def groups_share_their_starts(subject: Subject, plan: ActionPlan) -> None:
    """`groups` [N] is int64 and constant. The lanes of a group start in the same state, in every episode until the next
    reset."""
    with make_environment(subject, plan.lanes) as environment:
        groups = environment.groups
        if groups is None or groups.dtype != torch.int64 or groups.shape != (plan.lanes,):
            raise Broken("groups: expected int64 [N]", expected=[plan.lanes], got=groups)
        original_groups = groups.clone()
        recording = run_plan(environment, plan, steps=4 * len(plan.actions))
        if not equal(environment.groups, original_groups):
            raise Broken("groups change", expected=original_groups.tolist(), got=environment.groups.tolist())
    for n in range(plan.lanes):
        leader = int((original_groups == original_groups[n]).nonzero()[0])
        if not equal(recording.first[n], recording.first[leader]):
            raise Broken(
                f"lanes {leader} and {n} are in one group, but start in different states",
                expected=recording.first[leader].tolist(),
                got=recording.first[n].tolist(),
            )
    for t, step in enumerate(recording.steps):
        if step.valid is not None:
            return
        for n in recording.ended(t).nonzero().flatten().tolist():
            if not equal(step.observations[n], recording.first[n]):
                raise Broken(
                    f"lane {n} starts its next episode in another state, without a reset",
                    expected=recording.first[n].tolist(),
                    got=step.observations[n].tolist(),
                    case=recording.rows(n, t),
                )


def _has_masks(subject: Subject) -> str | None:
    with make_environment(subject, lane_counts(subject)[0]) as environment:
        environment.reset(torch.Generator().manual_seed(0))
        return None if getattr(environment, "action_masks", None) is not None else "it has no action masks"


@law("environment", cases=plans, applies=_has_masks)
def an_action_is_always_allowed(subject: Subject, plan: ActionPlan) -> None:
    """With `action_masks`, every observation has a mask, and every mask allows at least one action."""
    with make_environment(subject, plan.lanes) as environment:
        environment.reset(torch.Generator().manual_seed(plan.seed))
        first = environment.action_masks.clone()
    with make_environment(subject, plan.lanes) as environment:
        recording = run_plan(environment, plan)
    for t, masks in enumerate([first, *(step.action_masks for step in recording.steps)]):
        if masks is None or masks.dtype != torch.bool or masks.shape != first.shape:
            raise Broken(
                f"action_masks {'of reset' if t == 0 else f'of step {t - 1}'}: expected bool {list(first.shape)}"
            )
        for n in (~masks.any(-1)).nonzero().flatten().tolist():
            raise Broken(
                f"no action is allowed in lane {n} after {t} steps", case=recording.rows(n, t - 1) if t else ()
            )
