"""How an episode ends: by the world, by the clock, or by the edge of the rollout, where it goes on."""

from attrs import evolve
from torch import Tensor

from ...contracts import Rollout
from ..counterexamples import rows
from ..law import Broken, Subject, law
from .cases import FLAGS, TIME_LIMITS, alike, bootstraps, estimate, stories


def _cuts_traces(subject: Subject) -> str | None:
    if not bootstraps(subject):
        return "it does not bootstrap: it needs no values"
    if subject.says("needs", "complete_episodes"):
        return "it needs complete episodes, and takes every end for the end of the rewards"
    return "it discounts what follows to nothing" if getattr(subject.settings, "gamma", 1) == 0 else None


@law("estimator", source=FLAGS, cases=stories)
def the_worlds_end_wins(subject: Subject, rollout: Rollout) -> None:
    """Terminated and truncated at once is terminated."""
    ended = evolve(rollout, truncated=rollout.truncated & ~rollout.terminated)
    both = evolve(rollout, truncated=rollout.truncated | rollout.terminated)
    message = "{column} at {step} are others where time ran out in the step that ended the world"
    alike(message, both, estimate(subject, ended), estimate(subject, both))


@law(
    "estimator",
    source=FLAGS,
    cases=stories,
    applies=lambda subject: (
        "it bootstraps: it needs values, and no complete episodes"
        if bootstraps(subject) and not subject.says("needs", "complete_episodes")
        else None
    ),
)
def a_truncation_ends_what_it_sums(subject: Subject, rollout: Rollout) -> None:
    """An estimator without a critic takes a truncation for the end: its objective is the return within the limit.

    So does one that needs complete episodes: where its critic expects nothing beyond, either end is the same to it.
    """
    ends = rollout.terminated | rollout.truncated
    if rollout.successor_values is not None:
        rollout = evolve(rollout, successor_values=rollout.successor_values.masked_fill(ends, 0))
    terminated = evolve(rollout, terminated=ends, truncated=ends & False)
    truncated = evolve(rollout, terminated=ends & False, truncated=ends)
    message = "{column} at {step} are others where episodes are truncated than where they terminate"
    alike(message, truncated, estimate(subject, terminated), estimate(subject, truncated))


@law(
    "estimator",
    source=f"{TIME_LIMITS}; {FLAGS}",
    cases=lambda subject: stories(subject, values=True),
    applies=_cuts_traces,
)
def a_truncation_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """Where time ran out, what the critic says of the true successor counts: a higher value there, a higher return."""
    _bootstrapped(subject, rollout, rollout.truncated & ~rollout.terminated, "a truncation")


@law(
    "estimator",
    source=FLAGS,
    cases=lambda subject: stories(subject, values=True, whole=False),
    applies=_cuts_traces,
)
def the_edge_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """Where a rollout is cut and the episode goes on, what the critic says of the next state counts."""
    going = rollout.mask & ~rollout.terminated & ~rollout.truncated
    going[:-1] = False
    _bootstrapped(subject, rollout, going, "the rollout's edge")


def _bootstrapped(subject: Subject, rollout: Rollout, where: Tensor, what: str) -> None:
    assert rollout.successor_values is not None
    raised = evolve(rollout, successor_values=rollout.successor_values + where.to(rollout.rewards.dtype))
    one, two = (estimate(subject, told).returns for told in (rollout, raised))
    off = (where & ~(two > one + 1e-9)).nonzero()
    if len(off):
        t, n = off[0].tolist()
        raise Broken(
            f"the return at step {t} of lane {n}, {what}, does not rise by one more for its successor's value",
            expected=f"more than {float(one[t, n])}",
            got=float(two[t, n]),
            case=rows(rollout, **{"V(s′) then": raised.successor_values, "return": one, "return then": two}),
        )
