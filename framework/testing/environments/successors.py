"""Where an episode ended, its last state is the successor: told from the first one of the next by what is seen."""

import math
from collections import Counter

import torch
from attrs import frozen
from torch import Tensor

from ..law import Broken, Subject, law
from .randomness import ALARM, arbitrary, fisher, usual_start
from .stepping import LONGEST, Told, lanes, many, play, same

CHUNK = 200  # steps after which it is asked whether more are needed
RARE = ALARM / (2 * LONGEST // CHUNK)  # of each of two tests, that often
PLACES = 10  # different last observations from which, without chance, no world that is right leads to one and the same

Place = tuple[bytes, bytes]  # an observation and the action that was taken there


@frozen(eq=False)
class End:
    """How one episode ended."""

    truncated: bool  # by its time limit, and not by the world
    place: Place
    same: bool  # its successor is the observation with which the next episode begins
    told: Told
    t: int
    lane: int


@frozen(eq=False)
class Ends:
    """Ends of episodes; and of all other steps, by place, how many led to where episodes begin, how many did not."""

    ends: list[End]
    back: Counter[Place]
    elsewhere: Counter[Place]

    @property
    def told(self) -> bool:
        """Whether of each kind one ended elsewhere than where the next began."""
        kinds = {end.truncated for end in self.ends}
        return bool(kinds) and all(any(end.truncated == kind and not end.same for end in self.ends) for kind in kinds)

    def improbable(self, kind: list[End], usual: float) -> float:
        """How probable it is in a world that is right that these all ended where the next episode began.

        Where starts are random, that each next one happened to be there. Where they are not, only truncations tell: a
        clock strikes anywhere, so the step in which it does leads as seldom back to the start as others do from the
        same place; or, where no place is seen twice, as any other does, if they were many places.
        """
        if usual <= 0.9:
            return float(usual ** len(kind))
        if not kind[0].truncated:
            return 1.0
        truncated = Counter(end.place for end in kind)
        by_place = math.prod(fisher(k, 0, self.back[at], self.elsewhere[at]) for at, k in truncated.items())
        if len({observation for observation, _ in truncated}) < PLACES:
            return by_place
        return min(by_place, fisher(len(kind), 0, self.back.total(), self.elsewhere.total()))

    def wrong(self, usual: float) -> End | None:
        """The last of a kind that all ended where the next began, if that is too improbable."""
        for truncated in (True, False):
            kind = [end for end in self.ends if end.truncated == truncated]
            if kind and all(end.same for end in kind) and self.improbable(kind, usual) < RARE:
                return kind[-1]
        return None


def _ends(subject: Subject) -> Ends:
    """Played out until enough is known."""
    count, told, found = many(subject), None, Ends([], Counter(), Counter())
    plan, generator = arbitrary(subject, count, CHUNK), torch.Generator().manual_seed(1)
    with lanes(subject, count) as environment:
        for _ in range(LONGEST // CHUNK):
            told = play(environment, plan, generator=generator, before=told)
            if not found.ends and not found.elsewhere:
                start = told.first[0]
            before = told.first
            for t, step in enumerate(told.steps[:-1]):
                over, after = told.ended(t).tolist(), told.steps[t + 1].valid
                for n in range(count) if step.valid is None else step.valid.nonzero().flatten().tolist():
                    place = _written(before[n]), _written(told.actions[t][n])
                    if not over[n]:
                        (found.back if same(step.successors[n], start) else found.elsewhere)[place] += 1
                    elif after is None or bool(after[n]):  # else the next row is the one that resets
                        again = same(step.observations[n], step.successors[n])
                        found.ends.append(End(not bool(step.terminated[n]), place, again, told, t, n))
                before = step.observations
            if found.told or found.wrong(usual_start(subject)) is not None:
                break
    return found


def _written(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


def _known(subject: Subject) -> str | Broken | None:
    """Why too few ends tell anything; or what is wrong with those that there are; None: nothing. Seen once."""
    if "ends" not in subject.memory:
        subject.memory["ends"] = _evaluate_rows(_ends(subject), usual_start(subject))
    return subject.memory["ends"]  # type: ignore[no-any-return]


def _evaluate_rows(found: Ends, usual: float) -> str | Broken | None:
    wrong, seen = found.wrong(usual), len(found.ends)
    if wrong is not None:
        return Broken(
            f"each episode that was {'truncated' if wrong.truncated else 'terminated'} ended in just the state in "
            "which the next began",
            expected="the episode's last state",
            got=wrong.told.steps[wrong.t].successors[wrong.lane].tolist(),
            case=wrong.told.rows(wrong.lane, wrong.t, 3),
        )
    if any(not end.same for end in found.ends):
        return None
    if seen and usual > 0.9:
        return f"{seen} episodes ended as the next began, always alike: too few were truncated to tell"
    return f"only {seen} episodes ended with the next one beginning in the same row: too few to tell"


def _untold(subject: Subject) -> str | None:
    """Too few ends tell anything."""
    known = _known(subject)
    return known if isinstance(known, str) else None


@law("environment", applies=_untold, source="Pardo et al. 2018, arXiv:1712.00378, section 3")
def successors_are_where_the_episode_ended(subject: Subject) -> None:
    """Where an episode ended, the successor is its last state, from which a truncation is bootstrapped, and not the
    first of the next one. (They may be the same, but not always: starts are random, or the clock strikes in steps that
    otherwise lead elsewhere.)"""
    known = _known(subject)
    if isinstance(known, Broken):
        raise known
