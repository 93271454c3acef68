"""What names of settings promise: `gamma`, `lam` and `n`, at their limits."""

from attrs import evolve
from torch import Tensor

from ...contracts import Rollout
from ...returns import continues, discounted_sums
from ..applicability import allows, claims, needs, set_to, settings_named
from ..counterexamples import ROUNDING, same
from ..law import Subject, law
from .cases import estimate, on_policy

BEYOND = 20  # steps, more than any rollout has here


def to_go(rollout: Rollout, gamma: float) -> Tensor:
    """Σₖ γᵏ·rₜ₊ₖ to the end of the trace `[T, N]`, and γᵏ·V of the state beyond it, where there is a critic."""
    going = continues(rollout.terminated, rollout.truncated, rollout.mask).to(rollout.rewards.dtype)
    beyond = 0 if rollout.successor_values is None else (1 - going) * rollout.successor_values
    return discounted_sums(rollout.rewards + gamma * beyond, gamma * going)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 3.8",
    cases=on_policy,
    applies=settings_named("gamma", also=[claims("causal")], gamma=0.0),
)
def gamma_zero_is_the_immediate_reward(subject: Subject, rollout: Rollout) -> None:
    """γ = 0: each step's return is its reward."""
    got = estimate(set_to(subject, gamma=0.0), rollout).returns
    same("with gamma = 0 the return at {step} is not its reward", rollout, rollout.rewards, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 3.8",
    cases=lambda subject: on_policy(subject, whole=True),
    applies=settings_named("gamma", also=[needs("complete_episodes"), claims("causal")]),
)
def a_reward_is_discounted_once_a_step(subject: Subject, rollout: Rollout) -> None:
    """A reward k steps ahead counts γᵏ times, up to the end of its own episode; with γ = 1, as it is."""
    gamma = subject.settings.gamma
    expected = to_go(evolve(rollout, successor_values=None), gamma)
    got = estimate(subject, rollout).returns
    same(f"the return at {{step}} is not the sum of γᵏ·r with γ = {gamma}", rollout, expected, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 12.18",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "lam", also=[needs("values")], lam=1.0),
)
def lambda_one_is_monte_carlo(subject: Subject, rollout: Rollout) -> None:
    """λ = 1: all rewards to the end of the trace, and the critic's word on what lies beyond it."""
    _monte_carlo(set_to(subject, lam=1.0), rollout, "lam = 1")


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 12.18 and 6.2",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "lam", also=[needs("values")], lam=0.0),
)
def lambda_zero_is_one_step(subject: Subject, rollout: Rollout) -> None:
    """λ = 0: one reward, and γ·V of its successor. With weights, as V-trace has, that may be the value target instead.

    There the return is one reward and γ times the next state's value target (Espeholt et al. 2018, arXiv:1802.01561,
    §4.2).
    """
    _one_step(set_to(subject, lam=0.0), rollout, "lam = 0")


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 7.1 and 6.2",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "n", also=[needs("values")], n=1),
)
def n_of_one_is_one_step(subject: Subject, rollout: Rollout) -> None:
    """n = 1: one reward, and γ·V of its successor."""
    _one_step(set_to(subject, n=1), rollout, "n = 1")


def _one_step(subject: Subject, rollout: Rollout, what: str) -> None:
    assert rollout.successor_values is not None
    expected = rollout.rewards + subject.settings.gamma * rollout.successor_values
    made = estimate(subject, rollout)
    targets = made.weights is not None and bool(((made.value_targets - expected)[rollout.mask].abs() <= ROUNDING).all())
    got = made.value_targets if targets else made.returns
    message = f"with {what} and gamma = {subject.settings.gamma} the return at {{step}} is not r + γ·V(s′)"
    same(message, rollout, expected, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 7.1",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "n", also=[needs("values")], n=BEYOND),
)
def n_beyond_the_end_is_monte_carlo(subject: Subject, rollout: Rollout) -> None:
    """n no less than the rollout's steps: all rewards, and the critic's word on what lies beyond them."""
    for n in (n for n in (len(rollout.mask), BEYOND) if allows(subject, n=n)):
        _monte_carlo(set_to(subject, n=n), rollout, f"n = {n}")


def _monte_carlo(subject: Subject, rollout: Rollout, what: str) -> None:
    gamma = subject.settings.gamma
    got = estimate(subject, rollout).returns
    same(f"with {what} and gamma = {gamma} the return at {{step}} is not the sum", rollout, to_go(rollout, gamma), got)
