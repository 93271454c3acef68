"""What estimators that claim to be linear keep to."""

from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ...contracts import Estimate, Rollout
from ..applicability import claims
from ..law import Subject, law
from ..strategies import scaled
from .cases import alike, estimate, retold, stories


@law("estimator", source="Sutton & Barto 2018, eq. 3.8", cases=stories, applies=claims("linear"))
def estimates_scale_with_rewards(subject: Subject, rollout: Rollout) -> None:
    """Rewards and the critic's values times c: returns and value targets times c, and weights as they were."""
    made = estimate(subject, rollout)
    for factor in (4.0, 0.5, -1.0):
        expected = Estimate(factor * made.returns, factor * made.value_targets, made.weights)
        message = f"{{column}} at {{step}} are not {factor} times as much, as the rewards are"
        alike(message, rollout, expected, estimate(subject, scaled(rollout, factor)))


def _two_columns(subject: Subject) -> SearchStrategy[tuple[Rollout, Rollout]]:
    def sum_of(rollout: Rollout) -> SearchStrategy[Rollout]:
        told = retold(rollout)
        return told.map(lambda o: evolve(o, log_probs=rollout.log_probs, target_log_probs=rollout.target_log_probs))

    return stories(subject).flatmap(lambda rollout: st.tuples(st.just(rollout), sum_of(rollout)))


@law("estimator", source="Sutton & Barto 2018, eq. 3.8", cases=_two_columns, applies=claims("linear"))
def estimates_of_a_sum_are_the_sum_of_estimates(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """Rewards (and values) that are the sum of two tables have the sum of their returns and value targets.

    So does a constant that is added to every reward: it adds its own return, whatever the others are.
    """
    first, second = case
    told: dict[str, Any] = {"rewards": first.rewards + second.rewards}
    for name in ("values", "successor_values"):
        if getattr(first, name) is not None:
            told[name] = getattr(first, name) + getattr(second, name)
    one, two, both = (estimate(subject, story) for story in (first, second, evolve(first, **told)))
    expected = Estimate(one.returns + two.returns, one.value_targets + two.value_targets)
    got = Estimate(both.returns, both.value_targets)
    alike("{column} at {step} of a sum are not the sum", first, expected, got, beside={"second reward": second.rewards})
