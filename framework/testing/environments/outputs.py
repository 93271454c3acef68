"""What is handed out: observations of the space, finite rewards, flags."""

import math
from collections.abc import Sequence

from ...contracts import Inputs
from ...errors import PartError
from ...guards.step_checks import StepChecks
from ..law import Broken, Subject, law
from .stepping import Plan, lanes, plans, play


@law("environment", cases=plans)
def what_is_seen_is_in_the_space(subject: Subject, plan: Plan) -> None:
    """First observations, observations and successors are elements of `observation_space`, of one shape and dtype;
    rewards [N] are floating point, flags [N] bool; every action of `action_space` is taken."""
    with lanes(subject, plan.lanes) as environment:
        entry = StepChecks(environment, plan.lanes, (subject.part.label, "policy"))
        told = play(environment, plan, steps=0)
        masks = getattr(environment, "action_masks", None)
        try:
            entry.first(told.first, masks)
            entry.observations("reset: observations", told.first.unsqueeze(0), _where)
        except PartError as error:
            raise Broken(str(error), case=({"first observations": told.first.tolist()},)) from None
        inputs = Inputs(told.first, masks)
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan)
    for t, step in enumerate(told.steps):
        try:
            entry.step(step, None, inputs)
            for name in ("observations", "successors"):
                entry.observations(f"step: {name}", getattr(step, name).unsqueeze(0), _where)
        except PartError as error:
            raise Broken(f"{error}, after step {t}", case=told.rows(0, t)) from None
        inputs = Inputs(step.observations, step.action_masks)


def _where(index: Sequence[int]) -> str:
    return f"lane {index[1]}"


@law("environment", cases=plans)
def rewards_are_finite(subject: Subject, plan: Plan) -> None:
    """No reward is NaN or infinite, in rows that are no real steps neither."""
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan)
    for t, step in enumerate(told.steps):
        for n, reward in enumerate(step.rewards.tolist()):
            if not math.isfinite(reward):
                raise Broken(
                    f"reward {reward} in step {t}", expected="a finite number", got=reward, case=told.rows(n, t)
                )
