"""Laws of how episodes end: terminated, truncated, or cut at the edge of the rollout."""

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
        return "it needs complete episodes, and treats every end as the end of the rewards"
    return "its discount is 0" if getattr(subject.settings, "gamma", 1) == 0 else None


@law("estimator", source=FLAGS, cases=rollout_cases)
def termination_wins_over_truncation(subject: Subject, rollout: Rollout) -> None:
    """A step that is both terminated and truncated counts as terminated."""
    ended = evolve(rollout, truncated=rollout.truncated & ~rollout.terminated)
    both = evolve(rollout, truncated=rollout.truncated | rollout.terminated)
    message = "{column} at {step} change if the terminated step is also truncated"
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
    """Without a critic, returns end at a truncation: the objective is the return within the time limit.

    The same holds for estimators that need complete episodes: if successor values are 0, termination and truncation
    give the same estimate.
    """
    ends = rollout.terminated | rollout.truncated
    if rollout.successor_values is not None:
        rollout = evolve(rollout, successor_values=rollout.successor_values.masked_fill(ends, 0))
    terminated = evolve(rollout, terminated=ends, truncated=ends & False)
    truncated = evolve(rollout, terminated=ends & False, truncated=ends)
    message = "{column} at {step} change if episodes are truncated instead of terminated"
    require_same_estimate(message, truncated, estimate(subject, terminated), estimate(subject, truncated))


@law(
    "estimator",
    source=f"{TIME_LIMITS}; {FLAGS}",
    cases=lambda subject: rollout_cases(subject, values=True),
    applies=_bootstraps_within_episodes,
)
def a_truncation_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """At a truncation the return includes the value of the true successor: a higher value gives a higher return."""
    _require_bootstrap(subject, rollout, rollout.truncated & ~rollout.terminated, "a truncation")


@law(
    "estimator",
    source=FLAGS,
    cases=lambda subject: rollout_cases(subject, values=True, whole=False),
    applies=_bootstraps_within_episodes,
)
def the_edge_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """Where the rollout ends but the episode continues, the return includes the value of the next state."""
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
            f"the return at step {t} of lane {n}, {what}, does not rise if its successor's value is raised by 1",
            expected=f"more than {float(before[t, n])}",
            got=float(after[t, n]),
            case=rows(rollout, **{"raised V(s′)": raised.successor_values, "return": before, "new return": after}),
        )
