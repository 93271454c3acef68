"""Laws of episode lengths: the same after the end of an episode as after a reset."""

import copy

import numpy as np
import torch

from ..law import Broken, Subject, law
from .applicability import is_random
from .randomness import ALARM, fisher
from .stepping import MAX_STEPS, allowed_actions, first_of_each_group, make_environment, many_lanes, spaces_of

MAX_EPISODES = 12  # per lane
STEPS_PER_LANE = MAX_STEPS // 2  # maximum per lane
LONGEST_COUNTED = STEPS_PER_LANE // 4  # longer episodes are counted as of this length
MIN_EPISODES = 20  # of first and of later episodes, for a test


def _lengths(subject: Subject) -> tuple[list[int], list[int]]:
    """Lengths of episodes with random actions: those that start with a reset, and those that follow another one.

    Only episodes that start at least `LONGEST_COUNTED` steps before the end of the recording count, so that long ones
    are not underrepresented.
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
    """Why the law does not apply: deterministic environments are covered by another law, or too few episodes end."""
    if reason := is_random(subject):
        return reason
    firsts, laters = _lengths(subject)
    if min(len(firsts), len(laters)) >= MIN_EPISODES:
        return None
    return (
        f"there were only {len(firsts)} first episodes and {len(laters)} later ones, of at most {LONGEST_COUNTED} steps"
    )


@law("environment", applies=_too_few_episodes, source="Fisher 1922, doi:10.2307/2340521")
def later_episodes_are_as_long_as_the_first(subject: Subject) -> None:
    """With random actions, episodes that follow another one are as long as those after a reset: step counts are reset
    (Fisher's exact test for each length, with a total false alarm rate of one in a million)."""
    firsts, laters = _lengths(subject)
    limits = sorted({*firsts, *laters})[:-1]
    for limit in limits:
        first, later = (sum(length <= limit for length in lengths) for lengths in (firsts, laters))
        sides = first, len(firsts) - first, later, len(laters) - later
        p_value = 2 * min(fisher(*sides), fisher(*sides[2:], *sides[:2])) * len(limits)
        if p_value < ALARM:
            raise Broken(
                f"episodes after the first differ in length (p-value {p_value:.1g})",
                expected=f"{first} of {len(firsts)} first episodes have at most {limit} steps",
                got=f"{later} of {len(laters)} later ones",
                case=tuple(
                    {"episodes": name, "shortest": min(some), "mean": sum(some) / len(some), "longest": max(some)}
                    for name, some in (("first", firsts), ("later", laters))
                ),
            )
