"""How long episodes are: after an end as after a reset."""

import copy

import numpy as np
import torch

from ..law import Broken, Subject, law
from .applicability import uncertain
from .randomness import ALARM, fisher
from .stepping import LONGEST, lanes, many, one_a_group, spaces_of, taken

EPISODES = 12  # of each lane, at most
STEPS = LONGEST // 2  # of each lane, at most
LONG = STEPS // 4  # longer episodes count as of this length
ENOUGH = 20  # episodes of each sort


def _lengths(subject: Subject) -> tuple[list[int], list[int]]:
    """Lengths of episodes that began with a reset, and with another's end, of random actions.

    Only those count that begin `LONG` steps before the end of play, so that long ones are not seen less often.
    """
    if "lengths" in subject.memory:
        return subject.memory["lengths"]  # type: ignore[no-any-return]
    space, count = copy.deepcopy(spaces_of(subject)[1]), many(subject)
    space.seed(0)
    actions = [np.asarray(space.sample()).tolist() for _ in range(256)]
    chosen, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    with lanes(subject, count) as environment:
        environment.reset(generator)
        masks = getattr(environment, "action_masks", None)
        told: dict[int, list[int]] = {n: [] for n in one_a_group(environment, count).tolist()}
        clock = dict.fromkeys(told, 0)
        for t in range(STEPS):
            row = torch.randint(len(actions), (count,), generator=chosen).tolist()
            step = environment.step(taken(environment, [actions[k] for k in row], masks), generator)
            masks, ended = step.action_masks, (step.terminated | step.truncated).tolist()
            for n in list(clock):
                if step.valid is not None and not bool(step.valid[n]):
                    continue
                clock[n] += 1
                if ended[n] or clock[n] == LONG:
                    told[n].append(clock[n])
                    clock[n] = 0
                    if not ended[n] or len(told[n]) == EPISODES or t > STEPS - LONG - 2:
                        del clock[n]
            if not clock:
                break
    firsts = [lengths[0] for lengths in told.values() if lengths]
    subject.memory["lengths"] = firsts, [length for lengths in told.values() for length in lengths[1:]]
    return subject.memory["lengths"]  # type: ignore[no-any-return]


def _unseen(subject: Subject) -> str | None:
    """It is a world without chance, whose episodes another law compares step by step; or too few end."""
    if reason := uncertain(subject):
        return reason
    firsts, laters = _lengths(subject)
    if min(len(firsts), len(laters)) >= ENOUGH:
        return None
    return f"only {len(firsts)} first episodes and {len(laters)} later ones were seen, of at most {LONG} steps"


@law("environment", applies=_unseen, source="Fisher 1922, doi:10.2307/2340521")
def later_episodes_are_as_long_as_the_first(subject: Subject) -> None:
    """With random actions, episodes that follow another's end are as long as those after a reset: no clock goes on
    (of each length, how many are longer: all together wrongly refused once in a million)."""
    firsts, laters = _lengths(subject)
    limits = sorted({*firsts, *laters})[:-1]
    for limit in limits:
        first, later = (sum(length <= limit for length in some) for some in (firsts, laters))
        sides = first, len(firsts) - first, later, len(laters) - later
        improbable = 2 * min(fisher(*sides), fisher(*sides[2:], *sides[:2])) * len(limits)
        if improbable < ALARM:
            raise Broken(
                f"episodes after the first are of another length (probability of this, or worse: {improbable:.1g})",
                expected=f"{first} of {len(firsts)} first episodes have at most {limit} steps",
                got=f"{later} of {len(laters)} later ones",
                case=tuple(
                    {"episodes": name, "shortest": min(some), "mean": sum(some) / len(some), "longest": max(some)}
                    for name, some in (("first", firsts), ("later", laters))
                ),
            )
