"""Laws of lanes: they do not affect each other, and their random numbers are independent."""

import itertools
import math
from collections import Counter
from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from ...contracts import Step
from ..law import Broken, Subject, law
from ..strategies import elements
from .applicability import is_deterministic, is_random, several_lanes
from .randomness import ALARM, random_plan
from .stepping import (
    COLUMNS,
    ActionPlan,
    Recording,
    equal,
    lane_counts,
    make_environment,
    plans,
    require_same_recording,
    run_plan,
    spaces_of,
)


@st.composite
def _plans_changed_in_one_lane(draw: DrawFn, subject: Subject) -> tuple[ActionPlan, int, ActionPlan]:
    """A plan, one lane, and the same plan with other actions in that lane."""
    plan = draw(plans(subject, several=True))
    lane = draw(st.integers(0, plan.lanes - 1))
    others = draw(elements(spaces_of(subject)[1], len(plan.actions)))
    rows = [
        tuple(other.tolist() if n == lane else action for n, action in enumerate(row))
        for row, other in zip(plan.actions, others, strict=True)
    ]
    return plan, lane, evolve(plan, actions=tuple(rows))


@law("environment", cases=_plans_changed_in_one_lane, applies=several_lanes)
def lanes_do_not_disturb_each_other(subject: Subject, case: tuple[ActionPlan, int, ActionPlan]) -> None:
    """Actions in one lane have no effect on other lanes. (Compared while both recordings use the same random numbers:
    the lane's episodes have ended in the same steps, and the generator is in the same state.)
    """
    plan, lane, changed_plan = case
    recordings = []
    for each_plan in (plan, changed_plan):
        with make_environment(subject, each_plan.lanes) as environment:
            recordings.append(run_plan(environment, each_plan))
    original, changed = recordings
    for t, (step, again) in enumerate(zip(original.steps, changed.steps, strict=True)):
        if not equal(original.generators[t], changed.generators[t]):
            return
        ends_agree = equal(original.ended(t)[lane], changed.ended(t)[lane])
        for name in COLUMNS:
            expected, got = getattr(step, name), getattr(again, name)
            for n in set(range(plan.lanes)) - {lane} if expected is not None else ():
                fresh = name in ("observations", "action_masks") and bool(original.ended(t)[n]) and not ends_agree
                if not fresh and not equal(expected[n], got[n]):
                    raise Broken(
                        f"{name} of lane {n} in step {t} change with the actions in lane {lane}",
                        expected=expected[n].tolist(),
                        got=got[n].tolist(),
                        case=(*original.rows(n, t), *changed.rows(n, t), *changed.rows(lane, t)),
                    )
        if not ends_agree:
            return


@law(
    "environment",
    cases=lambda subject: plans(subject, several=True),
    applies=lambda s: several_lanes(s) or is_deterministic(s),
)
def lanes_do_not_depend_on_the_number_of_lanes(subject: Subject, plan: ActionPlan) -> None:
    """In a deterministic environment a lane gives the same steps with few other lanes as with many. (Compared while
    nothing is drawn from the generator.)"""
    few = lane_counts(subject)[0]
    narrow_plan = evolve(plan, lanes=few, actions=tuple(row[:few] for row in plan.actions))
    recordings = []
    for each_plan in (narrow_plan, plan):
        with make_environment(subject, each_plan.lanes) as environment:
            recordings.append(run_plan(environment, each_plan))
    alone, among = recordings
    initial_state = torch.Generator().manual_seed(plan.seed).get_state()
    if not all(equal(recording.generators[-1], initial_state) for recording in recordings):
        return
    among = Recording(among.first[:few], among.actions, [_first_lanes_of(step, few) for step in among.steps], [])
    require_same_recording(alone, among, f"the first lanes of {plan.lanes}")


def _first_lanes_of(step: Step, count: int) -> Step:
    columns = {name: getattr(step, name) for name in COLUMNS}
    first_columns: dict[str, Any] = {
        name: None if column is None else column[:count] for name, column in columns.items()
    }
    return Step(**first_columns)


@law(
    "environment",
    applies=lambda subject: several_lanes(subject) or is_random(subject),
    source="https://numpy.org/doc/stable/reference/random/parallel.html",
)
def lanes_have_independent_randomness(subject: Subject) -> None:
    """Lanes have independent random numbers: with the same actions, no two lanes (of different groups) have the same
    first eight steps after each of 200 resets."""
    count, resets = max(lane_counts(subject)), 200
    rows = random_plan(subject, 1, 8).actions
    plan = ActionPlan(count, 0, tuple(row * count for row in rows))
    generator = torch.Generator().manual_seed(0)
    with make_environment(subject, count) as environment:
        groups = getattr(environment, "groups", None)
        recordings = [run_plan(environment, plan, generator=generator) for _ in range(resets)]
    lane_bytes = [[_lane_bytes(recording, n) for n in range(count)] for recording in recordings]
    for m, n in itertools.combinations(range(count), 2):
        if groups is not None and groups[n] == groups[m]:
            continue
        usual = Counter(row[m] for row in lane_bytes).most_common(1)[0][1] / resets
        if resets * math.log(usual) < math.log(ALARM) and all(row[m] == row[n] for row in lane_bytes):
            raise Broken(
                f"lanes {m} and {n} have the same steps after each of {resets} resets",
                expected="independent lanes",
                got="one stream of random numbers for both",
                case=(*recordings[0].rows(m, 7, 3), *recordings[0].rows(n, 7, 3)),
            )


def _lane_bytes(recording: Recording, n: int) -> bytes:
    """Everything that was recorded of lane n."""
    columns = [recording.first, *(column for step in recording.steps for column in (step.successors, step.rewards))]
    return b"".join(column[n].numpy().tobytes() for column in columns)
