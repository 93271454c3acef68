"""Laws of settings with conventional names: `gamma`, `lam` and `n`, at their limits."""

from attrs import evolve
from torch import Tensor

from ...contracts import Rollout
from ...returns import continues, discounted_sums
from ..applicability import allows, claims, needs, set_to, settings_named
from ..counterexamples import ROUNDING, require_close
from ..law import Subject, law
from .cases import estimate, on_policy_cases

BEYOND_THE_END = 20  # steps, more than any rollout has


def expected_returns(rollout: Rollout, gamma: float) -> Tensor:
    """Σₖ γᵏ·rₜ₊ₖ to the end of the trace `[T, N]`, plus γᵏ·V of the state after it if there is a critic."""
    continuing = continues(rollout.terminated, rollout.truncated, rollout.mask).to(rollout.rewards.dtype)
    bootstrap = 0 if rollout.successor_values is None else (1 - continuing) * rollout.successor_values
    return discounted_sums(rollout.rewards + gamma * bootstrap, gamma * continuing)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 3.8",
    cases=on_policy_cases,
    applies=settings_named("gamma", also=[claims("causal")], gamma=0.0),
)
def gamma_zero_is_the_immediate_reward(subject: Subject, rollout: Rollout) -> None:
    """With γ = 0 each step's return is its reward."""
    got = estimate(set_to(subject, gamma=0.0), rollout).returns
    require_close("with gamma = 0 the return at {step} is not its reward", rollout, rollout.rewards, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 3.8",
    cases=lambda subject: on_policy_cases(subject, whole=True),
    applies=settings_named("gamma", also=[needs("complete_episodes"), claims("causal")]),
)
def a_reward_is_discounted_once_a_step(subject: Subject, rollout: Rollout) -> None:
    """A reward k steps ahead in the same episode is discounted by γᵏ; with γ = 1 not at all."""
    gamma = subject.settings.gamma
    expected = expected_returns(evolve(rollout, successor_values=None), gamma)
    got = estimate(subject, rollout).returns
    require_close(f"the return at {{step}} is not the sum of γᵏ·r with γ = {gamma}", rollout, expected, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 12.18",
    cases=lambda subject: on_policy_cases(subject, values=True),
    applies=settings_named("gamma", "lam", also=[needs("values")], lam=1.0),
)
def lambda_one_is_monte_carlo(subject: Subject, rollout: Rollout) -> None:
    """With λ = 1 the return is the sum of rewards to the end of the trace, plus the value of the state after it."""
    _require_monte_carlo(set_to(subject, lam=1.0), rollout, "lam = 1")


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 12.18 and 6.2",
    cases=lambda subject: on_policy_cases(subject, values=True),
    applies=settings_named("gamma", "lam", also=[needs("values")], lam=0.0),
)
def lambda_zero_is_one_step(subject: Subject, rollout: Rollout) -> None:
    """With λ = 0 the return is one reward plus γ·V of the successor.

    With importance weights, as in V-trace, this may hold for the value target instead, the return being one reward plus
    γ times the next state's value target (Espeholt et al. 2018, arXiv:1802.01561, §4.2).
    """
    _require_one_step(set_to(subject, lam=0.0), rollout, "lam = 0")


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 7.1 and 6.2",
    cases=lambda subject: on_policy_cases(subject, values=True),
    applies=settings_named("gamma", "n", also=[needs("values")], n=1),
)
def n_of_one_is_one_step(subject: Subject, rollout: Rollout) -> None:
    """With n = 1 the return is one reward plus γ·V of the successor."""
    _require_one_step(set_to(subject, n=1), rollout, "n = 1")


def _require_one_step(subject: Subject, rollout: Rollout, what: str) -> None:
    assert rollout.successor_values is not None
    expected = rollout.rewards + subject.settings.gamma * rollout.successor_values
    result = estimate(subject, rollout)
    targets = result.weights is not None and bool(
        ((result.value_targets - expected)[rollout.mask].abs() <= ROUNDING).all()
    )
    got = result.value_targets if targets else result.returns
    message = f"with {what} and gamma = {subject.settings.gamma} the return at {{step}} is not r + γ·V(s′)"
    require_close(message, rollout, expected, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 7.1",
    cases=lambda subject: on_policy_cases(subject, values=True),
    applies=settings_named("gamma", "n", also=[needs("values")], n=BEYOND_THE_END),
)
def n_beyond_the_end_is_monte_carlo(subject: Subject, rollout: Rollout) -> None:
    """If n is at least the number of steps, the return is the sum of all rewards plus the value of the next state."""
    for n in (n for n in (len(rollout.mask), BEYOND_THE_END) if allows(subject, n=n)):
        _require_monte_carlo(set_to(subject, n=n), rollout, f"n = {n}")


def _require_monte_carlo(subject: Subject, rollout: Rollout, what: str) -> None:
    gamma = subject.settings.gamma
    got = estimate(subject, rollout).returns
    require_close(
        f"with {what} and gamma = {gamma} the return at {{step}} is not the sum",
        rollout,
        expected_returns(rollout, gamma),
        got,
    )
