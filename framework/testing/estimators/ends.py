"""How an episode ends: by the world, by the clock, or by the edge of the rollout, where it goes on."""

from attrs import evolve
from torch import Tensor

from ...contracts import Rollout
from ..counterexamples import rows
from ..law import Broken, Subject, law
from .cases import FLAGS, TIME_LIMITS, bootstraps, estimate, require_same_estimate, rollout_cases


def _bootstraps_within_episodes(subject: Subject) -> str | None:
    if not bootstraps(subject):
        return "it does not bootstrap: it needs no values"
    if subject.declares("needs", "complete_episodes"):
        return "it needs complete episodes, and takes every end for the end of the rewards"
    return "it discounts what follows to nothing" if getattr(subject.settings, "gamma", 1) == 0 else None


@law("estimator", source=FLAGS, cases=rollout_cases)
def termination_wins_over_truncation(subject: Subject, rollout: Rollout) -> None:
    """Terminated and truncated at once is terminated."""
    ended = evolve(rollout, truncated=rollout.truncated & ~rollout.terminated)
    both = evolve(rollout, truncated=rollout.truncated | rollout.terminated)
    message = "{column} at {step} are others where time ran out in the step that ended the world"
    require_same_estimate(message, both, estimate(subject, ended), estimate(subject, both))


@law(
    "estimator",
    source=FLAGS,
    cases=rollout_cases,
    applies=lambda subject: (
        "it bootstraps: it needs values, and no complete episodes"
        if bootstraps(subject) and not subject.declares("needs", "complete_episodes")
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
    require_same_estimate(message, truncated, estimate(subject, terminated), estimate(subject, truncated))


@law(
    "estimator",
    source=f"{TIME_LIMITS}; {FLAGS}",
    cases=lambda subject: rollout_cases(subject, values=True),
    applies=_bootstraps_within_episodes,
)
def a_truncation_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """Where time ran out, what the critic says of the true successor counts: a higher value there, a higher return."""
    _require_bootstrap(subject, rollout, rollout.truncated & ~rollout.terminated, "a truncation")


@law(
    "estimator",
    source=FLAGS,
    cases=lambda subject: rollout_cases(subject, values=True, whole=False),
    applies=_bootstraps_within_episodes,
)
def the_edge_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """Where a rollout is cut and the episode goes on, what the critic says of the next state counts."""
    continuing = rollout.mask & ~rollout.terminated & ~rollout.truncated
    continuing[:-1] = False
    _require_bootstrap(subject, rollout, continuing, "the rollout's edge")


def _require_bootstrap(subject: Subject, rollout: Rollout, where: Tensor, what: str) -> None:
    assert rollout.successor_values is not None
    raised = evolve(rollout, successor_values=rollout.successor_values + where.to(rollout.rewards.dtype))
    before, after = (estimate(subject, each).returns for each in (rollout, raised))
    wrong = (where & ~(after > before + 1e-9)).nonzero()
    if len(wrong):
        t, n = wrong[0].tolist()
        raise Broken(
            f"the return at step {t} of lane {n}, {what}, does not rise by one more for its successor's value",
            expected=f"more than {float(before[t, n])}",
            got=float(after[t, n]),
            case=rows(rollout, **{"V(s′) then": raised.successor_values, "return": before, "return then": after}),
        )
