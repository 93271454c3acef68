"""What only some environments have: states that are saved, groups of lanes, masks of actions."""

import copy

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from ..law import Broken, Subject, law
from .applicability import has
from .stepping import Plan, compare, counts, lanes, plans, play, same


@st.composite
def _interrupted(draw: DrawFn, subject: Subject) -> tuple[Plan, int, int]:
    """A plan, after how many of its steps it is interrupted, and how many the other lanes had taken."""
    plan = draw(plans(subject))
    return plan, draw(st.integers(1, len(plan.actions))), draw(st.integers(0, 3))


@law("environment", cases=_interrupted, applies=has("state_dict", "load_state_dict"))
def lanes_put_back_go_on_as_if_never_left(subject: Subject, case: tuple[Plan, int, int]) -> None:
    """Another environment that is handed the state of this one, and its generator's, goes on as this one does; what was
    saved does not change under way."""
    plan, interrupted, elsewhere = case
    generator = torch.Generator().manual_seed(plan.seed)
    with lanes(subject, plan.lanes) as environment:
        before = play(environment, plan, steps=interrupted, generator=generator)
        saved = environment.state_dict()
        kept = copy.deepcopy(saved)
        continues = play(environment, plan, generator=generator, before=before)
    if not same(saved, kept):
        raise Broken("the state that was saved changes as the environment goes on: it must be a copy")
    with lanes(subject, plan.lanes) as environment:
        if elsewhere:
            play(environment, evolve(plan, seed=plan.seed + 1), steps=elsewhere)
        environment.load_state_dict(saved)
        generator.set_state(before.generators[-1])
        again = play(environment, plan, generator=generator, before=before)
    compare(continues, again, f"put back after {interrupted} steps")


@law("environment", cases=plans, applies=lambda s: None if s.says("gives", "groups") else has("groups")(s))
def groups_share_their_starts(subject: Subject, plan: Plan) -> None:
    """`groups` [N] is int64 and stays; lanes of one group begin in the same state, and keep it from episode to episode
    until the next reset."""
    with lanes(subject, plan.lanes) as environment:
        groups = environment.groups
        if groups is None or groups.dtype != torch.int64 or groups.shape != (plan.lanes,):
            raise Broken("groups: expected int64 [N]", expected=[plan.lanes], got=groups)
        kept = groups.clone()
        told = play(environment, plan, steps=4 * len(plan.actions))
        if not same(environment.groups, kept):
            raise Broken("groups change", expected=kept.tolist(), got=environment.groups.tolist())
    for n in range(plan.lanes):
        leader = int((kept == kept[n]).nonzero()[0])
        if not same(told.first[n], told.first[leader]):
            raise Broken(
                f"lanes {leader} and {n} are of one group and begin in different states",
                expected=told.first[leader].tolist(),
                got=told.first[n].tolist(),
            )
    for t, step in enumerate(told.steps):
        if step.valid is not None:
            return
        for n in told.ended(t).nonzero().flatten().tolist():
            if not same(step.observations[n], told.first[n]):
                raise Broken(
                    f"lane {n} begins its next episode elsewhere, without a reset",
                    expected=told.first[n].tolist(),
                    got=step.observations[n].tolist(),
                    case=told.rows(n, t),
                )


def _masked(subject: Subject) -> str | None:
    with lanes(subject, counts(subject)[0]) as environment:
        environment.reset(torch.Generator().manual_seed(0))
        return None if getattr(environment, "action_masks", None) is not None else "forbids no action"


@law("environment", cases=plans, applies=_masked)
def something_is_always_allowed(subject: Subject, plan: Plan) -> None:
    """With `action_masks`, every observation has its row of them, and each row allows something."""
    with lanes(subject, plan.lanes) as environment:
        environment.reset(torch.Generator().manual_seed(plan.seed))
        first = environment.action_masks.clone()
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan)
    for t, masks in enumerate([first, *(step.action_masks for step in told.steps)]):
        if masks is None or masks.dtype != torch.bool or masks.shape != first.shape:
            raise Broken(
                f"action_masks {'of reset' if t == 0 else f'of step {t - 1}'}: expected bool {list(first.shape)}"
            )
        for n in (~masks.any(-1)).nonzero().flatten().tolist():
            raise Broken(f"no action is allowed in lane {n} after {t} steps", case=told.rows(n, t - 1) if t else ())
