"""Laws of estimators that claim to be linear."""

from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ...contracts import Estimate, Rollout
from ..applicability import claims
from ..law import Subject, law
from ..strategies import scaled
from .cases import estimate, require_same_estimate, rollout_cases, with_other_numbers


@law("estimator", source="Sutton & Barto 2018, eq. 3.8", cases=rollout_cases, applies=claims("linear"))
def estimates_scale_with_rewards(subject: Subject, rollout: Rollout) -> None:
    """If rewards and the critic's values are scaled by c, so are returns and value targets; weights do not change."""
    original = estimate(subject, rollout)
    for factor in (4.0, 0.5, -1.0):
        expected = Estimate(factor * original.returns, factor * original.value_targets, original.weights)
        message = f"{{column}} at {{step}} are not {factor} times as large, although the rewards are"
        require_same_estimate(message, rollout, expected, estimate(subject, scaled(rollout, factor)))


def _two_columns(subject: Subject) -> SearchStrategy[tuple[Rollout, Rollout]]:
    def second_rollout(rollout: Rollout) -> SearchStrategy[Rollout]:
        changed = with_other_numbers(rollout)
        return changed.map(lambda o: evolve(o, log_probs=rollout.log_probs, target_log_probs=rollout.target_log_probs))

    return rollout_cases(subject).flatmap(lambda rollout: st.tuples(st.just(rollout), second_rollout(rollout)))


@law("estimator", source="Sutton & Barto 2018, eq. 3.8", cases=_two_columns, applies=claims("linear"))
def estimates_of_a_sum_are_the_sum_of_estimates(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The estimate for the sum of two tables of rewards (and values) is the sum of the two estimates.

    In particular, a constant that is added to every reward adds its own return, whatever the rewards are.
    """
    first, second = case
    sums: dict[str, Any] = {"rewards": first.rewards + second.rewards}
    for name in ("values", "successor_values"):
        if getattr(first, name) is not None:
            sums[name] = getattr(first, name) + getattr(second, name)
    first_estimate, second_estimate, both = (estimate(subject, each) for each in (first, second, evolve(first, **sums)))
    expected = Estimate(
        first_estimate.returns + second_estimate.returns, first_estimate.value_targets + second_estimate.value_targets
    )
    got = Estimate(both.returns, both.value_targets)
    require_same_estimate(
        "{column} at {step} for a sum of rewards are not the sum",
        first,
        expected,
        got,
        extra_columns={"second reward": second.rewards},
    )
