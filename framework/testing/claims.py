"""Laws of claims: the expected gradient, over every possible rollout of a small tabular world, is as claimed.

Nothing is sampled. The worlds are small enough to enumerate all their episodes (`framework.exact`), and the gradient of
the objective is computed exactly. So a true claim holds up to rounding, and a false one comes with its bias.
"""

from collections.abc import Mapping
from typing import Any

import torch
from attrs import evolve, frozen
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from ..contracts import Estimate, Rollout, TabularMDP
from ..exact import Bias, SoftmaxTable, by_name, count_trajectories, expected_gradient, gradient
from ..exact.expected import score_function, zero_baseline
from ..exact.rollouts import Episodes
from ..returns import episode_sums, rewards_to_go
from .applicability import claims
from .law import Broken, Subject, law
from .observations import as_box, needs_box
from .strategies import mdps

THEOREM = (
    "Williams 1992, doi:10.1007/BF00992696, theorem 1; Sutton et al. 2000 (Policy Gradient Methods for Reinforcement "
    "Learning with Function Approximation), theorem 1; Sutton & Barto 2018, §13.2"
)
ROLLOUTS = 150  # enumerated per case: about 50 ms
TOLERANCE = 1e-6  # relative to the gradient's size: a part may compute in float32, whose rounding error is 6e-8
DISCOUNT = 0.9  # of the objective that losses are checked against


@frozen(eq=False)
class Experiment:
    """A tabular world with a time limit, a policy and a critic for it, and how episodes are collected."""

    mdp: TabularMDP
    logits: Tensor  # [O, A]
    critic: Tensor  # [O] arbitrary: a claim must hold for any critic
    episodes: int
    lanes: int
    earlier: int  # index of the rollout that was collected before

    @property
    def policy(self) -> SoftmaxTable:
        """The policy, with the critic's values."""
        return SoftmaxTable(self.logits, self.critic)


@st.composite
def experiments(draw: DrawFn, episodes: tuple[int, ...]) -> Experiment:
    """Worlds of two or three states, some with the same observation, and up to three steps.

    `episodes` are the allowed numbers of episodes per rollout, the smallest first. Where there would be too many
    rollouts to enumerate, the number of episodes or the time limit is reduced.
    """
    mdp = draw(mdps(states=(2, 3), actions=(2, 2), limits=(1, 3), aliased=True))
    count = draw(st.sampled_from(episodes))
    while count_trajectories(mdp) ** count > ROLLOUTS:
        if count > episodes[0]:
            count = episodes[0]
        else:
            mdp = evolve(mdp, time_limit=(mdp.time_limit or 0) - 1)
    num_observations, actions = int(mdp.seen.max()) + 1, mdp.transitions.shape[1]
    # one seed determines policy and critic, 0 being the uniform policy: cases shrink faster
    generator = torch.Generator().manual_seed(seed := draw(st.integers(0, 9)))
    logits = torch.randn(num_observations, actions, generator=generator, dtype=torch.float64) * (seed > 0)
    critic = torch.randn(num_observations, generator=generator, dtype=torch.float64)
    return Experiment(mdp, logits, critic, count, draw(st.sampled_from([1, count])), draw(st.integers(0, ROLLOUTS - 1)))


# Unbiased


def return_to_go(rollout: Rollout) -> Estimate:
    """Rewards to go: unbiased for the undiscounted return."""
    returns = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, 1.0)
    return Estimate(returns, returns)


def episode_return(rollout: Rollout) -> Estimate:
    """The return of the whole episode at each of its steps: unbiased for the undiscounted return."""
    sums, _ = episode_sums(rollout.rewards, rollout.episodes, rollout.mask)
    returns = sums[rollout.episodes]
    return Estimate(returns, returns)


def discounted_return_to_go(rollout: Rollout) -> Estimate:
    """Discounted rewards to go, weighted by γᵗ: unbiased for the discounted return."""
    returns = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, DISCOUNT)
    return Estimate(returns, returns, DISCOUNT**rollout.times)


def rollout_options(subject: Subject, experiment: Experiment) -> dict[str, Any]:
    """Options for enumerating rollouts: with the columns that the part needs."""
    return {
        "episodes": experiment.episodes,
        "lanes": experiment.lanes,
        "groups": subject.declares("needs", "groups"),
        "critic": experiment.critic[experiment.mdp.seen] if subject.declares("needs", "values") else None,
    }


def with_supported_observations(subject: Subject, part: Any) -> Any:
    """Wrap an estimator or a baseline: it is given observations as vectors if it does not support Discrete ones."""
    if not needs_box(subject):
        return part
    return lambda rollout, *returns: part(as_box(rollout), *returns)


def bias_of(subject: Subject, experiment: Experiment, gamma: float) -> Bias:
    """Bias of the expected gradient with respect to the policy's logits, compared with ∇J for this γ.

    An estimator is combined with no baseline and the loss −A·log π, a loss with returns that are unbiased for this γ.
    """
    policy = experiment.policy
    estimator, loss = None, score_function
    if subject.role == "loss":
        estimator, loss = (return_to_go if gamma == 1 else discounted_return_to_go), subject.settings
    else:
        estimator = with_supported_observations(subject, subject.make())
    got = expected_gradient(
        experiment.mdp, policy, estimator, zero_baseline, loss, **rollout_options(subject, experiment)
    )
    return logits_only(policy, gradient(experiment.mdp, policy, gamma), got)


def logits_only(policy: SoftmaxTable, exact: Tensor, got: Tensor) -> Bias:
    """The bias restricted to the policy's logits, without the critic's parameters."""
    return Bias(*(by_name(policy, flat)["logits"].flatten() for flat in (exact, got)))


@law(
    "estimator",
    "loss",
    source=THEOREM,
    cases=lambda subject: experiments((1, 2)),
    applies=claims("unbiased:undiscounted"),
    examples=40,
)
def expected_gradient_is_that_of_the_undiscounted_return(subject: Subject, experiment: Experiment) -> None:
    """E[ĝ] = ∇J of the undiscounted return within the time limit.

    The expectation is over all rollouts with a fixed number of whole episodes, and losses are divided per episode. An
    estimator is combined with no baseline and the loss −A·log π, a loss with rewards to go.
    """
    require_equal(subject, experiment, bias_of(subject, experiment, 1.0), "that of the undiscounted return")


@law(
    "estimator",
    "loss",
    source=f"{THEOREM}; Nota & Thomas 2020, arXiv:1906.07073",
    cases=lambda subject: experiments((1, 2)),
    applies=claims("unbiased:discounted"),
    examples=40,
)
def expected_gradient_is_that_of_the_discounted_return(subject: Subject, experiment: Experiment) -> None:
    """E[ĝ] = ∇J of the discounted return Σ γᵗ·rₜ within the time limit.

    The expectation is over all rollouts with a fixed number of whole episodes. γ is the estimator's setting `gamma`; a
    loss is checked with γ = 0.9, on rewards to go weighted by γᵗ.
    """
    gamma = DISCOUNT if subject.role == "loss" else getattr(subject.settings, "gamma", None)
    if not isinstance(gamma, int | float):
        raise Broken(
            "claims unbiased:discounted, but has no setting `gamma` that gives the discount",
            expected="a number from 0 to 1",
            got=gamma,
        )
    require_equal(subject, experiment, bias_of(subject, experiment, gamma), f"that of the return discounted by {gamma}")


# Neutral


@law(
    "baseline",
    source="Williams 1992, doi:10.1007/BF00992696, §4; Greensmith et al. 2004 (JMLR 5), §3; Sutton & Barto 2018, §13.4",
    cases=lambda subject: experiments((2, 3)),
    applies=claims("neutral"),
    examples=30,
)
def subtracting_it_keeps_the_expected_gradient(subject: Subject, experiment: Experiment) -> None:
    """E[b·∇log π] = 0: with and without the baseline, the expected gradient E[ĝ] is the same.

    The expectation is over all rollouts of two or three whole episodes, with episode returns and with rewards to go. A
    baseline that learns from earlier rollouts has been updated with one of them.
    """
    policy, options = experiment.policy, rollout_options(subject, experiment)
    exact = gradient(experiment.mdp, policy, 1.0)
    for estimator, name in ((episode_return, "episode returns"), (return_to_go, "rewards to go")):
        baseline = subject.make()
        if hasattr(baseline, "update"):
            rollout = earlier_rollout(experiment, options)
            baseline.update(as_box(rollout) if needs_box(subject) else rollout, estimator(rollout).returns)
        got = expected_gradient(
            experiment.mdp, policy, estimator, with_supported_observations(subject, baseline), **options
        )
        require_equal(
            subject, experiment, logits_only(policy, exact, got), f"the same as without the baseline ({name})"
        )


def earlier_rollout(experiment: Experiment, how: Mapping[str, Any]) -> Rollout:
    """One of the rollouts that may be collected."""
    with torch.no_grad():
        log_probs = experiment.policy.logits.log_softmax(1).flatten()
    episodes = Episodes.of(experiment.mdp, log_probs, how["critic"])
    first = experiment.earlier % len(episodes.lengths)
    alike = [
        k for k, state in enumerate(episodes.firsts) if state == episodes.firsts[first]
    ]  # the episodes of a group share their first state
    indices = [first, *(alike[(experiment.earlier + k) % len(alike)] for k in range(1, how["episodes"]))]
    return episodes.rollout(tuple(indices), how["lanes"], how["groups"])


# Reporting


def require_equal(subject: Subject, experiment: Experiment, bias: Bias, target: str) -> None:
    """Raise `Broken` if the expected gradient differs from the exact one, with its bias and a table of both."""
    scale = max(1.0, float(bias.exact.abs().max()))
    if bool(((bias.got - bias.exact).abs() <= TOLERANCE * scale).all()):
        return
    raise Broken(
        f"{' and '.join(sorted(subject.settings.claims))} is claimed, but the expected gradient is not {target}: "
        f"{amount(bias)}",
        expected=bias.exact.tolist(),
        got=bias.got.tolist(),
        case=gradient_rows(experiment, bias),
    )


def amount(bias: Bias) -> str:
    """The size of a bias, in words.

    >>> amount(Bias(torch.tensor([1.0, -1.0]), torch.tensor([0.5, -0.5])))
    '0.5 times it'
    >>> amount(Bias(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.5])))
    'off by 50 % of its length (cosine 0.894)'
    """
    if not bool(bias.exact.any()):
        return f"of length {bias.norm:.3g} where that is 0"
    if not bool(bias.got.any()):
        return "0 everywhere"
    if abs(bias.cosine) > 1 - 1e-9:
        return f"{bias.cosine * float(bias.got.norm() / bias.exact.norm()):.6g} times it"
    return f"off by {100 * bias.relative:.3g} % of its length (cosine {bias.cosine:.3f})"


def gradient_rows(experiment: Experiment, bias: Bias) -> tuple[Mapping[str, Any], ...]:
    """The expected and the actual gradient of each logit, as a table."""
    count = experiment.logits.shape[1]
    return tuple(
        {"observation": k // count, "action": k % count, "expected": wanted, "got": got}
        for k, (wanted, got) in enumerate(zip(bias.exact.tolist(), bias.got.tolist(), strict=True))
    )
