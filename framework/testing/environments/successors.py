"""The law of successors: at the end of an episode the successor is its last state, not the first of the next."""

import math
from collections import Counter

import torch
from attrs import frozen
from torch import Tensor

from ..law import Broken, Subject, law
from .randomness import ALARM, fisher, most_frequent_start_share, random_plan
from .stepping import MAX_STEPS, Recording, equal, make_environment, many_lanes, run_plan

CHUNK_STEPS = 200  # steps between checks whether more are needed
MAX_P_VALUE = ALARM / (2 * MAX_STEPS // CHUNK_STEPS)  # for each of two tests, so many times
MIN_PLACES = (
    10  # different last observations that a correct deterministic environment cannot all lead to the same state
)

Place = tuple[bytes, bytes]  # an observation and the action taken there


@frozen(eq=False)
class End:
    """How one episode ended."""

    truncated: bool  # and not terminated
    place: Place
    same_as_start: bool  # its successor is the first observation of the next episode
    recording: Recording
    t: int
    lane: int


@frozen(eq=False)
class Ends:
    """Ends of episodes; and for all other steps, by place, how many led to a start state, and how many did not."""

    ends: list[End]
    returned: Counter[Place]
    elsewhere: Counter[Place]

    @property
    def conclusive(self) -> bool:
        """Whether at least one end of each kind (terminated, truncated) differs from the next start."""
        kinds = {end.truncated for end in self.ends}
        return bool(kinds) and all(
            any(end.truncated == kind and not end.same_as_start for end in self.ends) for kind in kinds
        )

    def p_value(self, kind: list[End], usual: float) -> float:
        """The probability that in a correct environment all of these ended in the first state of the next episode.

        If starts are random: that each next episode happened to start there. If they are not, only truncations are
        informative: they may happen in any step, so a truncated step leads to the start state as rarely as other steps
        from the same place; or as any other step, if there were many different places.
        """
        if usual <= 0.9:
            return float(usual ** len(kind))
        if not kind[0].truncated:
            return 1.0
        truncated = Counter(end.place for end in kind)
        by_place = math.prod(fisher(k, 0, self.returned[at], self.elsewhere[at]) for at, k in truncated.items())
        if len({observation for observation, _ in truncated}) < MIN_PLACES:
            return by_place
        return min(by_place, fisher(len(kind), 0, self.returned.total(), self.elsewhere.total()))

    def wrong(self, usual: float) -> End | None:
        """The last end of a kind that always equals the next start, if that is too improbable."""
        for truncated in (True, False):
            kind = [end for end in self.ends if end.truncated == truncated]
            if kind and all(end.same_as_start for end in kind) and self.p_value(kind, usual) < MAX_P_VALUE:
                return kind[-1]
        return None


def _observe_ends(subject: Subject) -> Ends:
    """Step the environment until the ends of episodes allow a verdict."""
    count, recording, ends = many_lanes(subject), None, Ends([], Counter(), Counter())
    plan, generator = random_plan(subject, count, CHUNK_STEPS), torch.Generator().manual_seed(1)
    with make_environment(subject, count) as environment:
        for _ in range(MAX_STEPS // CHUNK_STEPS):
            recording = run_plan(environment, plan, generator=generator, before=recording)
            if not ends.ends and not ends.elsewhere:
                start = recording.first[0]
            before = recording.first
            for t, step in enumerate(recording.steps[:-1]):
                over, after = recording.ended(t).tolist(), recording.steps[t + 1].valid
                for n in range(count) if step.valid is None else step.valid.nonzero().flatten().tolist():
                    place = _bytes(before[n]), _bytes(recording.actions[t][n])
                    if not over[n]:
                        (ends.returned if equal(step.successors[n], start) else ends.elsewhere)[place] += 1
                    elif after is None or bool(after[n]):  # otherwise the next row is the reset
                        again = equal(step.observations[n], step.successors[n])
                        ends.ends.append(End(not bool(step.terminated[n]), place, again, recording, t, n))
                before = step.observations
            if ends.conclusive or ends.wrong(most_frequent_start_share(subject)) is not None:
                break
    return ends


def _bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


def _finding(subject: Subject) -> str | Broken | None:
    """Why there were too few ends for a verdict, or what is wrong with them; None: nothing is. Computed once."""
    if "ends" not in subject.cache:
        subject.cache["ends"] = _judge_ends(_observe_ends(subject), most_frequent_start_share(subject))
    return subject.cache["ends"]  # type: ignore[no-any-return]


def _judge_ends(ends: Ends, usual: float) -> str | Broken | None:
    wrong, count = ends.wrong(usual), len(ends.ends)
    if wrong is not None:
        return Broken(
            f"the successor of every {'truncated' if wrong.truncated else 'terminated'} step is the first observation "
            "of the next episode",
            expected="the episode's last state",
            got=wrong.recording.steps[wrong.t].successors[wrong.lane].tolist(),
            case=wrong.recording.rows(wrong.lane, wrong.t, 3),
        )
    if any(not end.same_as_start for end in ends.ends):
        return None
    if count and usual > 0.9:
        return f"{count} episodes ended in the start state, which is always the same: too few truncations for a verdict"
    return f"only {count} episodes ended with the next one starting in the same row: too few for a verdict"


def _too_few_ends(subject: Subject) -> str | None:
    """Why the law does not apply: too few ends of episodes."""
    finding = _finding(subject)
    return finding if isinstance(finding, str) else None


@law("environment", applies=_too_few_ends, source="Pardo et al. 2018, arXiv:1712.00378, section 3")
def successors_are_where_the_episode_ended(subject: Subject) -> None:
    """At the end of an episode the successor is its last state, from which a truncated return bootstraps, and not the
    first state of the next episode. (The two may be equal, but not always: start states are random, or truncated steps
    would otherwise lead elsewhere.)"""
    finding = _finding(subject)
    if isinstance(finding, Broken):
        raise finding
