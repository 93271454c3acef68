"""Laws of outputs: observations in the space, finite rewards, flags."""

import math
from collections.abc import Sequence

from ...contracts import Inputs
from ...errors import PartError
from ...guards.step_checks import StepChecks
from ..law import Broken, Subject, law
from .stepping import ActionPlan, make_environment, plans, run_plan


@law("environment", cases=plans)
def observations_are_in_the_space(subject: Subject, plan: ActionPlan) -> None:
    """First observations, observations and successors are elements of `observation_space`, with the same shape and
    dtype. Rewards [N] are floating point, flags [N] are bool. Every action of `action_space` is accepted."""
    with make_environment(subject, plan.lanes) as environment:
        checks = StepChecks(environment, plan.lanes, (subject.part.label, "policy"))
        recording = run_plan(environment, plan, steps=0)
        masks = getattr(environment, "action_masks", None)
        try:
            checks.first(recording.first, masks)
            checks.observations("reset: observations", recording.first.unsqueeze(0), _where)
        except PartError as error:
            raise Broken(str(error), case=({"first observations": recording.first.tolist()},)) from None
        inputs = Inputs(recording.first, masks)
    with make_environment(subject, plan.lanes) as environment:
        recording = run_plan(environment, plan)
    for t, step in enumerate(recording.steps):
        try:
            checks.step(step, None, inputs)
            for name in ("observations", "successors"):
                checks.observations(f"step: {name}", getattr(step, name).unsqueeze(0), _where)
        except PartError as error:
            raise Broken(f"{error}, after step {t}", case=recording.rows(0, t)) from None
        inputs = Inputs(step.observations, step.action_masks)


def _where(index: Sequence[int]) -> str:
    return f"lane {index[1]}"


@law("environment", cases=plans)
def rewards_are_finite(subject: Subject, plan: ActionPlan) -> None:
    """No reward is NaN or infinite, also in rows that are not valid steps."""
    with make_environment(subject, plan.lanes) as environment:
        recording = run_plan(environment, plan)
    for t, step in enumerate(recording.steps):
        for n, reward in enumerate(step.rewards.tolist()):
            if not math.isfinite(reward):
                raise Broken(
                    f"reward {reward} in step {t}", expected="a finite number", got=reward, case=recording.rows(n, t)
                )
