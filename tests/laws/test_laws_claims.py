"""Laws of claims: claims of built-in parts are true, and those of parts with a known bug are not.

Every mutant is a bug that existed: the first words of its row say where.
"""

import math

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import find, given, settings
from hypothesis import strategies as st
from mutants import is_killed

from framework import Estimate, Loss
from framework.exact import bias, count_trajectories
from framework.parts import Part
from framework.returns import discounted_sums, episode_groups, episode_means, rewards_to_go
from framework.setup.loading import load
from framework.testing import check
from framework.testing.claims import ROLLOUTS, amount, experiments, logits_only
from framework.testing.law import LAWS, Broken, Subject

UNDISCOUNTED, DISCOUNTED, NEUTRAL = "unbiased:undiscounted", "unbiased:discounted", "neutral"
LAW = {
    UNDISCOUNTED: "expected_gradient_is_that_of_the_undiscounted_return",
    DISCOUNTED: "expected_gradient_is_that_of_the_discounted_return",
    NEUTRAL: "subtracting_it_keeps_the_expected_gradient",
}
LOADED = load()


def ends(rollout):
    return rollout.terminated | rollout.truncated


def returns(rollout, gamma=1.0):
    return rewards_to_go(rollout.rewards, ends(rollout), gamma)


# Estimators


@frozen
class Estimator:
    """An estimator from a function of the rollout that gives returns, or returns and weights."""

    made: object
    claims: frozenset = frozenset({UNDISCOUNTED})
    needs: frozenset = frozenset({"complete_episodes"})
    gamma: float = 1.0

    def __call__(self, rollout):
        made = self.made(rollout)
        return Estimate(made[0], made[0], made[1]) if isinstance(made, tuple) else Estimate(made, made)


def no_powers(rollout):
    return returns(rollout, 0.9)


def powers_by_row(rollout):
    """γᵗ counted from the first row of the rollout, not of each episode."""
    rows = torch.arange(len(rollout.mask), dtype=torch.float64)[:, None].expand_as(rollout.rewards)
    return returns(rollout, 0.9), 0.9**rows


def powers_twice(rollout):
    """γᵗ·Σ γᵏ·rₖ, where returns are already discounted from the start of the episode."""
    return returns(rollout, 0.9) * 0.9**rollout.times, 0.9**rollout.times


def rewards_shifted(rollout):
    """Each step is credited with the reward of the step before it."""
    before = torch.where(rollout.times > 0, rollout.rewards.roll(1, 0), 0)
    return rewards_to_go(before, ends(rollout), 1.0)


def past_rewards(rollout):
    """The sum runs backwards in time."""
    return discounted_sums(rollout.rewards.flip(0), (rollout.times.flip(0) > 0).double()).flip(0)


def only_own_reward(rollout):
    return rollout.rewards * 0.9**rollout.times


def reset_at_rewards(rollout):
    """The running sum is set to 0 wherever a reward is not 0, as if that ended the episode."""
    return rewards_to_go(rollout.rewards, ends(rollout) | (rollout.rewards != 0), 1.0)


def divided_by_length(rollout):
    lengths = torch.bincount(rollout.episodes[rollout.mask])
    return returns(rollout) / lengths[rollout.episodes]


def standardised(rollout):
    """Standardised by mean and standard deviation of the rollout's own returns."""
    made = returns(rollout)
    real = made[rollout.mask]
    return (made - real.mean()) / (real.std(correction=0) + 1e-7)


def only_scaled(rollout):
    made = returns(rollout)
    return made / (made[rollout.mask].std(correction=0) + 1e-7)


def averaged(rollout):
    """One number for the minibatch, where each step should have its own."""
    made = returns(rollout)
    return made[rollout.mask].mean().expand_as(made)


def truncated_dropped(rollout):
    """Truncated episodes get no advantage."""
    cut = torch.zeros(int(rollout.episodes.max()) + 1, dtype=torch.bool)
    cut[rollout.episodes[rollout.truncated & ~rollout.terminated]] = True
    return returns(rollout).masked_fill(cut[rollout.episodes], 0)


def bootstrapped_with_own_value(rollout):
    """At a truncation γ·V(sₜ) is added: V of the state before the action."""
    return rewards_to_go(rollout.rewards + rollout.values * rollout.truncated, ends(rollout), 1.0)


def bootstrapped(rollout):
    """λ-returns with λ = 1: V(s′) of an arbitrary critic is added at truncations."""
    cut = rollout.truncated & ~rollout.terminated
    return rewards_to_go(rollout.rewards + rollout.successor_values * cut, ends(rollout), 1.0)


VALUES = frozenset({"values"})
ESTIMATORS = {
    "facebookresearch/Pearl #46 (and nearly every library: Nota & Thomas 2020, arXiv:1906.07073): γᵗ is missing": (
        Estimator(no_powers, frozenset({DISCOUNTED}), gamma=0.9)
    ),
    "no source found: γᵗ counts from the rollout's start": Estimator(powers_by_row, frozenset({DISCOUNTED}), gamma=0.9),
    "no source found: γᵗ twice": Estimator(powers_twice, frozenset({DISCOUNTED}), gamma=0.9),
    "openai/spinningup #50, fixed by PR #126: rewards are one step late": Estimator(rewards_shifted),
    "mohmdelsayed/streaming-drl #3: past rewards instead of future ones": Estimator(past_rewards),
    "hunkim/ReinforcementZeroToAll #1: rewards are discounted, and not summed": (
        Estimator(only_own_reward, frozenset({DISCOUNTED}), gamma=0.9)
    ),
    "titu1994/neural-architecture-search PR #9: the sum is reset at each reward": Estimator(reset_at_rewards),
    "Liu et al. 2025, arXiv:2503.20783, §3.1; huggingface/trl PR #3138: divided by the episode's length": (
        Estimator(divided_by_length)
    ),
    "pytorch/examples #590: returns are standardised within the batch": Estimator(standardised),
    "keon/policy-gradient #5: returns are divided by their standard deviation": Estimator(only_scaled),
    "PacktPublishing/Deep-Reinforcement-Learning-Hands-On PR #9: one advantage for the whole minibatch": (
        Estimator(averaged)
    ),
    "meta-pytorch/torchforge PR #744: truncated episodes get advantage 0": Estimator(truncated_dropped),
    "DexForce/EmbodiChain PR #612; dennybritz/reinforcement-learning PR #39: V(sₜ) for V(sₜ₊₁) where it is cut": (
        Estimator(bootstrapped_with_own_value, needs=VALUES)
    ),
    "Pardo et al. 2018, arXiv:1712.00378, turned round: a critic beyond the limit of a time-limited objective": (
        Estimator(bootstrapped, needs=VALUES)
    ),
}


# Baselines


@frozen
class Baseline:
    """A baseline from a function of rollout and returns."""

    made: object
    claims: frozenset = frozenset({NEUTRAL})
    needs: frozenset = frozenset({"complete_episodes"})

    def __call__(self, rollout, returns):
        return self.made(rollout, returns)


def batch_mean(rollout, returns):
    return episode_means(returns, rollout.episodes, rollout.mask).mean().expand_as(returns)


def group_mean(rollout, returns):
    scores = episode_means(returns, rollout.episodes, rollout.mask)
    groups = episode_groups(rollout.groups, rollout.episodes, rollout.mask)
    return (torch.bincount(groups, scores) / torch.bincount(groups))[groups][rollout.episodes]


def own_mean(rollout, returns):
    """The mean over the steps of the same episode."""
    return episode_means(returns, rollout.episodes, rollout.mask)[rollout.episodes]


def updated_first(rollout, returns):
    """A table V(s), updated halfway towards the returns of the rollout before it is used."""
    seen, count = rollout.observations[rollout.mask], int(rollout.observations.max()) + 1
    means = torch.bincount(seen, returns[rollout.mask], minlength=count)
    return 0.5 * (means / torch.bincount(seen, minlength=count).clamp(min=1))[rollout.observations]


def next_value(rollout, returns):
    return rollout.successor_values


def of_the_action(rollout, returns):
    """A table of state and action."""
    return 1.0 + rollout.observations + 2.0 * rollout.actions


def second_best(rollout, returns):
    """The second best return of all episodes, including the own one."""
    scores = episode_means(returns, rollout.episodes, rollout.mask)
    return scores.topk(min(2, len(scores))).values[-1].expand_as(returns)


BASELINES = {
    "jsboige/CoursIA PR #15256, which takes the claim back: the batch mean includes the step's own reward": (
        Baseline(batch_mean)
    ),
    "Shao et al. 2024, arXiv:2402.03300, §4.1.2 (redai-studio/Relax #174 compares): the mean of the group, itself "
    "included": Baseline(group_mean, needs=frozenset({"groups", "complete_episodes"})),
    "alessiodm/drl-zh #5: the mean of the episode's own future rewards": Baseline(own_mean),
    "dennybritz/reinforcement-learning PR #134; rlworkgroup/garage PR #1172 ('before'): fitted before it is called": (
        Baseline(updated_first)
    ),
    "no source found: the value of the successor": Baseline(next_value, needs=VALUES),
    "Tucker et al. 2018, arXiv:1802.10031: depends on the action, and the correction is left out": (
        Baseline(of_the_action)
    ),
    "no source found: the second best return, so that only one episode has a positive advantage": Baseline(second_best),
}


# Losses


@frozen
class Claimant:
    """A loss from a function of batch and evaluation that gives one term."""

    made: object
    claims: frozenset = frozenset({UNDISCOUNTED})
    needs: frozenset = frozenset()

    def __call__(self, batch, evaluation):
        return Loss({"policy": self.made(batch, evaluation)})


def mean_of_log_probs(batch, evaluation):
    return -evaluation.log_probs.mean() * batch.advantages


def over_steps(batch, evaluation):
    """The mean over all steps, before the core divides by the episodes."""
    return -evaluation.log_probs * batch.advantages / batch.total_steps


def scaled(batch, evaluation):
    """Divided by the standard deviation of the batch's advantages, as in GRPO and PPO."""
    deviation = batch.advantages.std(correction=0)
    return -evaluation.log_probs * batch.advantages / (deviation + 1e-4)


def with_entropy(batch, evaluation):
    return -evaluation.log_probs * batch.advantages - 0.01 * evaluation.entropies


def only_gains(batch, evaluation):
    return -evaluation.log_probs * batch.advantages.clamp(min=0)


LOSSES = {
    "Farama-Foundation/Gymnasium #1336: the mean log-prob times each return": Claimant(mean_of_log_probs),
    "huggingface/trl PR #3138 (0.16.0): the mean over all steps, whose number is random": Claimant(over_steps),
    "Liu et al. 2025, arXiv:2503.20783, §3.1: divided by the standard deviation": Claimant(scaled),
    "Ahmed et al. 2019, arXiv:1811.11214: an entropy bonus is another objective": (
        Claimant(with_entropy, needs=frozenset({"entropies"}))
    ),
    "Oh et al. 2018, arXiv:1806.05635, eq. 2, taken for a policy gradient: only positive advantages count": (
        Claimant(only_gains)
    ),
}

MUTANTS = [
    *(("estimator", name, part) for name, part in ESTIMATORS.items()),
    *(("baseline", name, part) for name, part in BASELINES.items()),
    *(("loss", name, part) for name, part in LOSSES.items()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("role", "name", "part"), MUTANTS, ids=[name for _, name, _ in MUTANTS])
def test_the_claim_of_the_mutant_is_rejected(role, name, part):
    (claim,) = part.claims
    law, subject = LAWS[LAW[claim]], Subject(Part(role, "mutant", "tests", part), LOADED)
    assert law.applies(subject) is None
    is_killed(law.check, st.just(subject), law.cases(subject))


@pytest.mark.slow
def test_check_reports_the_bias_of_a_false_claim():
    """The batch mean of two episodes leaves half of the gradient; reported by state and action."""
    (verdict,) = check(Baseline(batch_mean), "baseline", only=[LAW[NEUTRAL]], loaded=LOADED).failed
    assert isinstance(verdict.error, Broken)
    assert verdict.reason == (
        "neutral is claimed, but the expected gradient is not the same as without the baseline "
        "(episode returns): 0.5 times it"
    )
    assert {"observation", "action", "expected", "got"} == verdict.error.case[0].keys()
    for row in verdict.error.case:
        assert math.isclose(row["got"], 0.5 * row["expected"], abs_tol=1e-12)


def offered(role):
    return [(role, name, LOADED.pick(role, name)[2]()) for name in LOADED.names(role)]


PROVED = {
    "estimator": {"rewards_to_go": {UNDISCOUNTED, DISCOUNTED}, "total_return": {UNDISCOUNTED, DISCOUNTED}},
    "baseline": {
        name: {NEUTRAL} for name in ("constant", "leave_one_out", "linear_features", "moving_average", "none", "value")
    },
    "loss": {"reinforce": {UNDISCOUNTED, DISCOUNTED}},
}


@pytest.mark.parametrize(("role", "name", "part"), [row for role in PROVED for row in offered(role)])
def test_built_in_parts_keep_what_they_claim(role, name, part):
    """With all their settings; their claims are listed above."""
    only = [LAW[claim] for claim in ((NEUTRAL,) if role == "baseline" else (UNDISCOUNTED, DISCOUNTED))]
    report = check(part, role, only=only, examples=max(5, settings.default.max_examples // 4), loaded=LOADED)
    assert not report.failed, [verdict.reason for verdict in report.failed]
    assert {v.law.name for v in report.of("passed")} == {LAW[c] for c in PROVED[role].get(name, ())}


def test_a_claim_without_a_discount_cannot_be_proved():
    @frozen
    class Nameless:
        claims = frozenset({DISCOUNTED})

        def __call__(self, rollout):
            return Estimate(rollout.rewards, rollout.rewards)

    (verdict,) = check(Nameless(), "estimator", only=[LAW[DISCOUNTED]], loaded=LOADED).failed
    assert "no setting `gamma`" in verdict.reason


def test_laws_of_claims_do_not_apply_without_claims():
    modest = evolve(ESTIMATORS[next(iter(ESTIMATORS))], claims=frozenset())
    (verdict,) = check(modest, "estimator", only=[LAW[DISCOUNTED]], loaded=LOADED).verdicts
    assert verdict.outcome == "not applicable"
    assert verdict.reason == "it does not claim 'unbiased:discounted'"


@given(experiments((1, 2)))
def test_experiments_are_small_and_complete(experiment):
    """They have few enough rollouts, and the requested number of episodes, in one lane or in one lane each."""
    assert count_trajectories(experiment.mdp) ** experiment.episodes <= ROLLOUTS
    assert experiment.mdp.time_limit >= 1
    assert experiment.lanes in (1, experiment.episodes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        lambda mdp: bool((mdp.seen[:1] == mdp.seen[1:-1]).any()),
        lambda mdp: int(mdp.terminal.sum()) == 2,
        lambda mdp: mdp.observations is None,
    ],
)
def test_experiments_include_aliased_states_and_several_terminal_states(what):
    find(experiments((1, 2)), lambda experiment: what(experiment.mdp))


def test_rewards_of_another_episode_are_no_bias():
    """Adding the rewards of the next episode adds noise, but no bias. Other laws reject it; this one must not."""

    @frozen
    class Leaky:
        claims = frozenset({UNDISCOUNTED})

        def __call__(self, rollout):
            returns = rewards_to_go(rollout.rewards, torch.zeros_like(rollout.mask), 1.0)
            return Estimate(returns, returns)

    assert not check(Leaky(), "estimator", only=[LAW[UNDISCOUNTED]], loaded=LOADED).failed


@given(experiments((2,)), st.data())
def test_the_batch_mean_leaves_one_minus_one_over_the_episodes(experiment, data):
    """E[ĝ] = (1 − 1/E)·∇J with episode returns: `check` reports this factor."""
    policy = experiment.policy
    whole = LOADED.pick("estimator", "total_return")[2](gamma=1.0)
    measured = bias(experiment.mdp, policy, 1.0, whole, batch_mean, episodes=2)
    found = logits_only(policy, measured.exact, measured.got)
    assert torch.allclose(found.got, 0.5 * found.exact, atol=1e-10)
    if bool((found.exact.abs() > 1e-6).any()):
        assert amount(found) == "0.5 times it"
        assert math.isclose(found.relative, 0.5)


def test_the_laws_are_registered_with_their_sources():
    subject = Subject(Part("baseline", "x", "y", Baseline(batch_mean, frozenset())), LOADED)
    for name in LAW.values():
        assert "Sutton" in LAWS[name].source
        assert LAWS[name].applies(subject).startswith("it does not claim")
