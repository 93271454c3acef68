"""How long episodes are: after an end as after a reset."""

import copy

import numpy as np
import torch

from ..law import Broken, Subject, law
from .applicability import is_random
from .randomness import ALARM, fisher
from .stepping import MAX_STEPS, allowed_actions, first_of_each_group, make_environment, many_lanes, spaces_of

MAX_EPISODES = 12  # of each lane, at most
STEPS_PER_LANE = MAX_STEPS // 2  # of each lane, at most
LONGEST_COUNTED = STEPS_PER_LANE // 4  # longer episodes count as of this length
MIN_EPISODES = 20  # episodes of each sort


def _lengths(subject: Subject) -> tuple[list[int], list[int]]:
    """Lengths of episodes that began with a reset, and with another's end, of random actions.

    Only those count that begin `LONG` steps before the end of play, so that long ones are not seen less often.
    """
    if "lengths" in subject.cache:
        return subject.cache["lengths"]  # type: ignore[no-any-return]
    space, count = copy.deepcopy(spaces_of(subject)[1]), many_lanes(subject)
    space.seed(0)
    actions = [np.asarray(space.sample()).tolist() for _ in range(256)]
    action_generator, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    with make_environment(subject, count) as environment:
        environment.reset(generator)
        masks = getattr(environment, "action_masks", None)
        lengths_by_lane: dict[int, list[int]] = {n: [] for n in first_of_each_group(environment, count).tolist()}
        steps_by_lane = dict.fromkeys(lengths_by_lane, 0)
        for t in range(STEPS_PER_LANE):
            row = torch.randint(len(actions), (count,), generator=action_generator).tolist()
            step = environment.step(allowed_actions(environment, [actions[k] for k in row], masks), generator)
            masks, ended = step.action_masks, (step.terminated | step.truncated).tolist()
            for n in list(steps_by_lane):
                if step.valid is not None and not bool(step.valid[n]):
                    continue
                steps_by_lane[n] += 1
                if ended[n] or steps_by_lane[n] == LONGEST_COUNTED:
                    lengths_by_lane[n].append(steps_by_lane[n])
                    steps_by_lane[n] = 0
                    if (
                        not ended[n]
                        or len(lengths_by_lane[n]) == MAX_EPISODES
                        or t > STEPS_PER_LANE - LONGEST_COUNTED - 2
                    ):
                        del steps_by_lane[n]
            if not steps_by_lane:
                break
    firsts = [lengths[0] for lengths in lengths_by_lane.values() if lengths]
    subject.cache["lengths"] = firsts, [length for lengths in lengths_by_lane.values() for length in lengths[1:]]
    return subject.cache["lengths"]  # type: ignore[no-any-return]


def _too_few_episodes(subject: Subject) -> str | None:
    """It is a world without chance, whose episodes another law compares step by step; or too few end."""
    if reason := is_random(subject):
        return reason
    firsts, laters = _lengths(subject)
    if min(len(firsts), len(laters)) >= MIN_EPISODES:
        return None
    return (
        f"only {len(firsts)} first episodes and {len(laters)} later ones were seen, of at most {LONGEST_COUNTED} steps"
    )


@law("environment", applies=_too_few_episodes, source="Fisher 1922, doi:10.2307/2340521")
def later_episodes_are_as_long_as_the_first(subject: Subject) -> None:
    """With random actions, episodes that follow another's end are as long as those after a reset: no clock goes on
    (of each length, how many are longer: all together wrongly refused once in a million)."""
    firsts, laters = _lengths(subject)
    limits = sorted({*firsts, *laters})[:-1]
    for limit in limits:
        first, later = (sum(length <= limit for length in lengths) for lengths in (firsts, laters))
        sides = first, len(firsts) - first, later, len(laters) - later
        p_value = 2 * min(fisher(*sides), fisher(*sides[2:], *sides[:2])) * len(limits)
        if p_value < ALARM:
            raise Broken(
                f"episodes after the first are of another length (probability of this, or worse: {p_value:.1g})",
                expected=f"{first} of {len(firsts)} first episodes have at most {limit} steps",
                got=f"{later} of {len(laters)} later ones",
                case=tuple(
                    {"episodes": name, "shortest": min(some), "mean": sum(some) / len(some), "longest": max(some)}
                    for name, some in (("first", firsts), ("later", laters))
                ),
            )
