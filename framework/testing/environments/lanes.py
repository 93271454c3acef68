"""Lanes are neighbours: none disturbs another, and each has chance of its own."""

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
from .applicability import certain, several, uncertain
from .randomness import ALARM, arbitrary
from .stepping import COLUMNS, Plan, Told, compare, counts, lanes, plans, play, same, spaces_of


@st.composite
def _disturbed(draw: DrawFn, subject: Subject) -> tuple[Plan, int, Plan]:
    """A plan, one lane, and the same plan with other actions in that lane."""
    plan = draw(plans(subject, several=True))
    lane = draw(st.integers(0, plan.lanes - 1))
    others = draw(elements(spaces_of(subject)[1], len(plan.actions)))
    rows = [
        tuple(other.tolist() if n == lane else action for n, action in enumerate(row))
        for row, other in zip(plan.actions, others, strict=True)
    ]
    return plan, lane, evolve(plan, actions=tuple(rows))


@law("environment", cases=_disturbed, applies=several)
def lanes_do_not_disturb_each_other(subject: Subject, case: tuple[Plan, int, Plan]) -> None:
    """What one lane does changes nothing in the others. (Compared as long as both have drawn alike: as the lane's
    episodes have ended at the same steps, and the generator stands at the same place.)"""
    plan, lane, other = case
    stories = []
    for one in (plan, other):
        with lanes(subject, one.lanes) as environment:
            stories.append(play(environment, one))
    calm, disturbed = stories
    for t, (step, again) in enumerate(zip(calm.steps, disturbed.steps, strict=True)):
        if not same(calm.generators[t], disturbed.generators[t]):
            return
        alike = same(calm.ended(t)[lane], disturbed.ended(t)[lane])
        for name in COLUMNS:
            here, there = getattr(step, name), getattr(again, name)
            for n in set(range(plan.lanes)) - {lane} if here is not None else ():
                fresh = name in ("observations", "action_masks") and bool(calm.ended(t)[n]) and not alike
                if not fresh and not same(here[n], there[n]):
                    raise Broken(
                        f"{name} of lane {n} in step {t} change with what lane {lane} does",
                        expected=here[n].tolist(),
                        got=there[n].tolist(),
                        case=(*calm.rows(n, t), *disturbed.rows(n, t), *disturbed.rows(lane, t)),
                    )
        if not alike:
            return


@law("environment", cases=lambda subject: plans(subject, several=True), applies=lambda s: several(s) or certain(s))
def a_lane_alone_tells_what_it_tells_among_others(subject: Subject, plan: Plan) -> None:
    """In a world without chance a lane tells the same among few others as among many. (As long as nothing is drawn.)"""
    few = counts(subject)[0]
    narrow = evolve(plan, lanes=few, actions=tuple(row[:few] for row in plan.actions))
    stories = []
    for one in (narrow, plan):
        with lanes(subject, one.lanes) as environment:
            stories.append(play(environment, one))
    alone, among = stories
    undrawn = torch.Generator().manual_seed(plan.seed).get_state()
    if not all(same(told.generators[-1], undrawn) for told in stories):
        return
    among = Told(among.first[:few], among.actions, [_first_lanes(step, few) for step in among.steps], [])
    compare(alone, among, f"the first lanes of {plan.lanes}")


def _first_lanes(step: Step, count: int) -> Step:
    columns = {name: getattr(step, name) for name in COLUMNS}
    some: dict[str, Any] = {name: None if column is None else column[:count] for name, column in columns.items()}
    return Step(**some)


@law(
    "environment",
    applies=lambda subject: several(subject) or uncertain(subject),
    source="https://numpy.org/doc/stable/reference/random/parallel.html",
)
def lanes_have_chance_of_their_own(subject: Subject) -> None:
    """Lanes that take the same actions do not meet with the same chance: no two lanes (of different groups) tell the
    same eight steps after each of 200 resets."""
    count, resets = max(counts(subject)), 200
    rows = arbitrary(subject, 1, 8).actions
    plan = Plan(count, 0, tuple(row * count for row in rows))
    generator = torch.Generator().manual_seed(0)
    with lanes(subject, count) as environment:
        groups = getattr(environment, "groups", None)
        stories = [play(environment, plan, generator=generator) for _ in range(resets)]
    told = [[_written(story, n) for n in range(count)] for story in stories]
    for m, n in itertools.combinations(range(count), 2):
        if groups is not None and groups[n] == groups[m]:
            continue
        usual = Counter(one[m] for one in told).most_common(1)[0][1] / resets
        if resets * math.log(usual) < math.log(ALARM) and all(one[m] == one[n] for one in told):
            raise Broken(
                f"lanes {m} and {n} meet with the same chance after each of {resets} resets",
                expected="independent lanes",
                got="one stream of random numbers for both",
                case=(*stories[0].rows(m, 7, 3), *stories[0].rows(n, 7, 3)),
            )


def _written(told: Told, n: int) -> bytes:
    """All that lane n told."""
    columns = [told.first, *(column for step in told.steps for column in (step.successors, step.rewards))]
    return b"".join(column[n].numpy().tobytes() for column in columns)
