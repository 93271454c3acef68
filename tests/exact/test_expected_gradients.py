"""Exact expected gradients: the enumerated rollouts are those of the runner, and known results are reproduced."""

import math

import attrs
import pytest
import torch
from attrs import evolve, frozen
from framework_baselines import GroupMean, MovingAverage, TimeMean
from framework_losses import ActorCritic, Ppo
from framework_policies.tabular import Tabular
from framework_reinforce.mean_baselines import BatchMean, LeaveOneOut, NoBaseline
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from framework_reinforce.score_function import Reinforce
from framework_returns import LambdaReturns, NStep
from framework_standardize import Standardize
from gymnasium.spaces import Discrete
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from worlds import TabularPolicy, shard

from framework import Estimate, Evaluation, Loss, PartError, TabularMDP
from framework.collecting.rollout import collect
from framework.exact import (
    SoftmaxTable,
    bias,
    by_name,
    expected_gradient,
    expected_return,
    gradient,
    gradient_moments,
    timed_state_values,
)
from framework.exact.rollouts import Episodes
from framework.testing.claims import experiments
from framework.testing.strategies import mdps, tables_of

DOUBLE = torch.float64
SEEDS = st.integers(0, 2**31)


def a_policy(mdp, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(mdp.transitions.shape[:2], generator=generator, dtype=DOUBLE)
    return SoftmaxTable(logits, torch.randn(len(logits), generator=generator, dtype=DOUBLE))


def logits_of(policy, flat):
    return by_name(policy, flat)["logits"]


def bandit(*rewards):
    """One step, then the end; the action's reward."""
    actions = len(rewards)
    transitions = torch.tensor([0.0, 1.0], dtype=DOUBLE).expand(2, actions, 2)
    earned = torch.tensor(rewards, dtype=DOUBLE)[None, :, None].expand(2, actions, 2)
    return TabularMDP(transitions, earned, torch.tensor([1.0, 0.0]), torch.tensor([False, True]), 1)


UNIFORM = SoftmaxTable(torch.zeros(2, 2))


# The rollouts


def contents_of(rollout):
    """All that a part may read of a rollout: integers and rewards (halves) as text, network outputs as numbers.

    In padding, observations and actions are arbitrary. If an episode terminates in the last step of the time limit,
    stepped environments also report a truncation, and environments sampled from tables do not: termination wins.
    """
    columns = {name: column.double().masked_fill(~rollout.mask, 0) for name, column in tables_of(rollout).items()}
    columns["truncated"] *= ~rollout.terminated
    said = torch.stack([columns.pop(name) for name in ("log_probs", "values", "successor_values")])
    return str({name: columns[name].add(0.0).tolist() for name in sorted(columns)}), said


def law_every_collected_rollout_is_enumerated(rollouts, world, seed, episodes, lanes):
    """What the runner collects by number, with a critic, is one of the enumerated rollouts, column by column."""
    policy = a_policy(world, seed).float()
    log_probs = policy.logits.detach().log_softmax(1)
    every = rollouts.Episodes.of(world, log_probs.flatten(), policy.table.detach())
    assert math.isclose(sum(every.chances), 1, abs_tol=1e-6)
    if len(every.lengths) ** episodes > 400:
        return
    enumerated = {}
    for _, rollout in every.rollouts(episodes, lanes, False):
        key, said = contents_of(rollout)
        enumerated.setdefault(key, []).append(said)
    acting = TabularPolicy(policy.logits.detach(), policy.table.detach(), fast=bool(seed % 2))
    lane = shard(world, True, lanes, seed, episodes=episodes)
    for iteration in range(5):
        collected, _ = collect([lane], acting, acting.actor() or acting, iteration, True)
        key, said = contents_of(collected)
        assert any(torch.allclose(said, other, atol=1e-5) for other in enumerated.get(key, ()))  # float32 rounds


COLLECTED = (mdps(states=(2, 3), actions=(2, 2), limits=(1, 3)), SEEDS, st.integers(1, 3), st.integers(1, 3))


@given(*COLLECTED)
def test_every_collected_rollout_is_enumerated(world, seed, episodes, lanes):
    import framework.exact.rollouts as rollouts

    law_every_collected_rollout_is_enumerated(rollouts, world, seed, episodes, lanes)


ROLLOUT_MUTANTS = {
    "takes all steps from the first episode": ("lane] = number", "lane] = 0"),
    "gives the next episode to the wrong lane": ("heapq.heappop(free)", "free.pop()"),
    "values what follows the world's end": ("~real | mdp.terminal[successors]", "~real"),
    "values each step by its successor": ("timed[steps, states].", "timed[steps, successors]."),
}


@pytest.mark.parametrize("name", ROLLOUT_MUTANTS)
def test_enumeration_kills_the_mutant_that(name):
    mutant = mutate("framework.exact.rollouts", ROLLOUT_MUTANTS[name])
    is_killed(law_every_collected_rollout_is_enumerated, *COLLECTED, arguments=(mutant,))


@given(mdps(states=(2, 3), actions=(1, 2), limits=(1, 2)), SEEDS, st.integers(1, 2), st.booleans())
def test_probabilities_of_all_rollouts_sum_to_one(world, seed, episodes, groups):
    policy = a_policy(world, seed)
    every = Episodes.of(world, policy.logits.detach().log_softmax(1).flatten(), None)
    chances = [chance for chance, _ in every.rollouts(episodes, episodes, groups)]
    assert math.isclose(sum(chances), 1, abs_tol=1e-9)


def test_indistinguishable_trajectories_are_enumerated_once():
    """Three states with the same observation and a terminal one: of 2 · 2 · 3 trajectories few can be distinguished."""
    successors = torch.tensor([[1, 2], [3, 2], [1, 3], [3, 3]])
    transitions = torch.nn.functional.one_hot(successors, 4).double()
    terminal = torch.tensor([False, False, False, True])
    start = torch.tensor([1.0, 0.0, 0.0, 0.0])
    world = TabularMDP(transitions, torch.ones(4, 2, 4), start, terminal, 2, torch.tensor([0, 0, 0, 0]))
    moments = gradient_moments(world, SoftmaxTable(torch.zeros(1, 2)), TotalReturn(1.0))
    assert moments.rollouts == 4  # action pairs; which of the middle states it was, and so the end, follows from them
    assert torch.allclose(moments.mean[:2], gradient(world, SoftmaxTable(torch.zeros(1, 2)), 1.0)[:2])


# Known results


def test_mean_and_variance_of_a_bandit_by_hand():
    """Rewards 0 and 4, even odds: ĝ of the second logit is 4·½ = 2 or 0, so mean 1 and variance 1; of E, 1/E."""
    for episodes in (1, 2, 3):
        moments = gradient_moments(bandit(0.0, 4.0), UNIFORM, TotalReturn(1.0), episodes=episodes)
        assert logits_of(UNIFORM, moments.mean).flatten().tolist() == pytest.approx([-1.0, 1.0, 0.0, 0.0])
        assert logits_of(UNIFORM, moments.variance)[0].tolist() == pytest.approx([1 / episodes] * 2, abs=1e-12)


def test_leave_one_out_has_the_variance_that_pairs_give():
    """Rewards 0 and 4 in pairs: unequal ones give Σ(±4)·(±½)/2 = 2, equal ones 0; mean 1, variance 1."""
    moments = gradient_moments(bandit(0.0, 4.0), UNIFORM, TotalReturn(1.0), LeaveOneOut(), episodes=2)
    assert logits_of(UNIFORM, moments.mean)[0].tolist() == [-1.0, 1.0]
    assert logits_of(UNIFORM, moments.variance)[0].tolist() == [1.0, 1.0]
    shrunk = gradient_moments(bandit(0.0, 4.0), UNIFORM, TotalReturn(1.0), BatchMean(), episodes=2)
    assert logits_of(UNIFORM, shrunk.mean)[0].tolist() == [-0.5, 0.5]
    assert logits_of(UNIFORM, shrunk.variance)[0].tolist() == [0.25, 0.25]


@given(experiments((1, 2)), st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.booleans())
def test_lambda_returns_with_the_exact_values_are_unbiased(experiment, lam, subtracted):
    """γ = 1 and Vₜ(s) of the remaining time, 0 at the limit: E[G^λ|s,a] = Q for any λ, with V subtracted or not."""
    from framework_baselines import Value

    policy = experiment.policy
    critic = timed_state_values(experiment.mdp, policy, 1.0)
    parts = (LambdaReturns(gamma=1.0, lam=lam), Value() if subtracted else NoBaseline())
    measured = bias(experiment.mdp, policy, 1.0, *parts, critic=critic, episodes=experiment.episodes)
    assert torch.allclose(measured.got, measured.exact, atol=1e-10)


def test_lambda_returns_with_a_wrong_critic_are_biased():
    """Two steps, the second action earns 1; a critic of 0 hides this from the first step with TD(0)."""
    world = chain()
    policy = SoftmaxTable(torch.zeros(3, 2))
    nothing = torch.zeros(3)
    whole = logits_of(policy, gradient(world, policy, 1.0))
    assert whole[0].tolist() == pytest.approx([-0.25, 0.25])  # p(1 − p)·(Q(RIGHT) − Q(LEFT)) = ¼·1
    seen = {n: expected_gradient(world, policy, NStep(gamma=1.0, n=n), critic=nothing) for n in (1, 2)}
    assert logits_of(policy, seen[1])[0].tolist() == pytest.approx([0.0, 0.0])
    assert logits_of(policy, seen[2])[0].tolist() == pytest.approx([-0.25, 0.25])


def chain():
    """The first action decides whether the second earns 2 times its number, or nothing; then it ends."""
    transitions = torch.zeros(3, 2, 3, dtype=DOUBLE)
    transitions[0, 0, 2] = transitions[0, 1, 1] = transitions[1, :, 2] = 1
    rewards = torch.zeros(3, 2, 3, dtype=DOUBLE)
    rewards[1, 1, 2] = 2
    return TabularMDP(transitions, rewards, torch.tensor([1.0, 0, 0]), torch.tensor([False, False, True]), 2)


def test_rewards_to_go_without_powers_have_neither_objectives_gradient():
    """γ = ½ in the chain, uniform policy. Of a logit, ∇ = p(1 − p)·d(s)·(Q difference) = ¼·d·ΔQ, by hand:

    first state: ΔQ = γ·1 = ½, so ⅛ for J_γ and for the estimate, ¼ for J₁; second state: ΔQ = 2 and d = γ·½ = ¼, so
    ⅛ for J_γ, and ¼ for J₁ and for the estimate, whose visits lack γ. (Nota & Thomas 2020, arXiv:1906.07073.)
    """
    world, policy = chain(), SoftmaxTable(torch.zeros(3, 2))
    plain, powers = RewardsToGo(gamma=0.5), RewardsToGo(gamma=0.5, discounted_objective=True)
    measured = {gamma: bias(world, policy, gamma, plain) for gamma in (0.5, 1.0)}
    assert logits_of(policy, measured[0.5].got)[:2, 1].tolist() == pytest.approx([1 / 8, 1 / 4])
    assert logits_of(policy, measured[0.5].exact)[:2, 1].tolist() == pytest.approx([1 / 8, 1 / 8])
    assert logits_of(policy, measured[1.0].exact)[:2, 1].tolist() == pytest.approx([1 / 4, 1 / 4])
    assert measured[0.5].relative == pytest.approx(1 / math.sqrt(2))  # (0, ⅛) of (⅛, ⅛)
    assert measured[1.0].relative == pytest.approx(0.5 / math.sqrt(2))
    assert measured[0.5].cosine == pytest.approx(3 / math.sqrt(10))
    assert bias(world, policy, 0.5, powers).norm == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
@given(mdps(states=(2, 3), actions=(2, 2), limits=(1, 1)), SEEDS, st.integers(2, 3))
def test_a_mean_over_groups_shrinks_by_one_over_the_group(world, seed, count):
    """All episodes of a rollout start in one state, drawn once: (1 − 1/G)·∇J with its mean, ∇J with the others'."""
    policy = a_policy(world, seed)
    how = {"episodes": count, "groups": True}
    exact = logits_of(policy, gradient(world, policy, 1.0))
    for baseline, factor in ((GroupMean(), 1 - 1 / count), (LeaveOneOut(), 1.0)):
        if len(Episodes.of(world, policy.logits.detach().log_softmax(1).flatten(), None).lengths) ** count <= 300:
            found = logits_of(policy, expected_gradient(world, policy, TotalReturn(1.0), baseline, **how))
            assert torch.allclose(found, factor * exact, atol=1e-10)


def test_time_means_of_one_step_are_batch_means():
    found = [
        expected_gradient(bandit(1.0, 3.0), UNIFORM, TotalReturn(1.0), baseline, episodes=3)
        for baseline in (TimeMean(), BatchMean())
    ]
    assert torch.allclose(found[0], found[1])
    assert torch.allclose(found[0], gradient(bandit(1.0, 3.0), UNIFORM, 1.0) * 2 / 3)


def test_denominators_are_the_core_s():
    """Per step the sum is divided by a random number: half of it for the chain's episodes of two steps."""
    world, policy = chain(), SoftmaxTable(torch.zeros(3, 2))
    found = {
        name: logits_of(policy, expected_gradient(world, policy, TotalReturn(1.0), denominator=name, constant=4.0))
        for name in ("per_episode", "per_step", "constant")
    }
    assert torch.allclose(found["per_step"], found["per_episode"] / 2)  # the episodes of one step earn nothing
    assert torch.allclose(found["constant"], found["per_episode"] / 4)


def test_losses_with_a_critic_reach_its_parameters():
    """½·(V − G)² has gradient −(V − G) uphill; V = 0 and G = 4 or 0: 2 in the mean. PPO begins as REINFORCE does."""
    policy = Tabular().build(Discrete(2), Discrete(2))
    world = bandit(0.0, 4.0)
    found = by_name(policy, expected_gradient(world, policy, RewardsToGo(1.0), NoBaseline(), ActorCritic()))
    assert found["logits"].tolist() == [[-1.0, 1.0], [0.0, 0.0]]
    assert found["critic"].tolist() == [2.0, 0.0]
    first = by_name(policy, expected_gradient(world, policy, RewardsToGo(1.0), NoBaseline(), Ppo(value=0.0)))
    assert torch.allclose(first["logits"], found["logits"])
    assert policy.logits.dtype == torch.float32
    assert policy.logits.grad is None


def test_an_entropy_bonus_adds_its_gradient():
    """Of softmax(x, 0) the entropy's gradient is −x·p(1 − p), here with x = 1; the coefficient is 0.1."""
    policy = SoftmaxTable(torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=DOUBLE))
    plain, with_bonus = (
        expected_gradient(bandit(0.0, 4.0), policy, TotalReturn(1.0), NoBaseline(), Reinforce(entropy=entropy))
        for entropy in (0.0, 0.1)
    )
    p = 1 / (1 + math.exp(-1))
    assert logits_of(policy, with_bonus - plain)[0].tolist() == pytest.approx([-0.1 * p * (1 - p), 0.1 * p * (1 - p)])


def test_the_state_of_a_baseline_is_used():
    """A moving average that has seen a rollout of mean 4: A = −4 or 0; the variance is that of rewards −4 and 0."""
    remembered = MovingAverage().build()
    world = bandit(0.0, 4.0)
    every = Episodes.of(world, torch.full((4,), -math.log(2), dtype=DOUBLE), None)
    rollout = every.rollout((1,), 1, False)
    remembered.update(rollout, rollout.rewards)
    moments = gradient_moments(world, UNIFORM, TotalReturn(1.0), remembered)
    assert logits_of(UNIFORM, moments.mean)[0].tolist() == [-1.0, 1.0]
    shifted = gradient_moments(bandit(-4.0, 0.0), UNIFORM, TotalReturn(1.0))
    assert torch.allclose(moments.variance, shifted.variance)


def test_standardising_is_measured_too():
    """As the extension does it, here wrapped into an estimator. Two episodes, rewards 0 and 4, uniform policy:

    unequal ones (half of the pairs) have A = ∓1/√2, each with ∇log π = ∓½, halved by the denominator; equal ones 0.
    """
    settings = Standardize()

    def standardised(rollout):
        returns = RewardsToGo(1.0)(rollout).returns
        changed = settings.standardized(returns, returns[rollout.mask])
        return Estimate(changed, returns)

    found = logits_of(UNIFORM, expected_gradient(bandit(0.0, 4.0), UNIFORM, standardised, episodes=2))
    assert found[0].tolist() == pytest.approx([-0.25 / math.sqrt(2), 0.25 / math.sqrt(2)], rel=1e-6)


# Errors


def test_too_many_rollouts_are_rejected_with_their_number():
    world = evolve(bandit(*range(50)), time_limit=1)
    policy = SoftmaxTable(torch.zeros(2, 50))
    with pytest.raises(ValueError, match=r"125,000 rollouts of 3 of 50 episodes each, and at most 100,000"):
        expected_gradient(world, policy, TotalReturn(1.0), episodes=3)


def test_worlds_that_cannot_be_enumerated_are_rejected():
    with pytest.raises(ValueError, match="a world with a time limit, and this one has none"):
        expected_gradient(evolve(bandit(0.0, 1.0), time_limit=None), UNIFORM, TotalReturn(1.0))
    ended = evolve(bandit(0.0, 1.0), start=torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="may start in a terminal state"):
        expected_gradient(ended, UNIFORM, TotalReturn(1.0))
    with pytest.raises(ValueError, match=r"critic: expected shape \[2, 2\], got \[3, 2\]"):
        expected_gradient(bandit(0.0, 1.0), UNIFORM, NStep(), critic=torch.zeros(3, 2))


def test_values_come_from_the_policy_or_from_a_critic():
    class WithoutCritic(torch.nn.Module):
        act = SoftmaxTable.act

        def __init__(self, logits):
            super().__init__()
            self.logits = torch.nn.Parameter(logits)

        def evaluate(self, inputs, actions, entropies):
            return Evaluation(self.logits.log_softmax(1)[inputs.observations, actions])

    policy = WithoutCritic(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="the policy has none: pass a critic"):
        expected_gradient(bandit(0.0, 1.0), policy, NStep())
    found = expected_gradient(bandit(0.0, 1.0), policy, NStep(), critic=torch.zeros(2))
    assert logits_of(policy, found)[0].tolist() == [-0.25, 0.25]


def test_parts_that_break_their_contract_are_named():
    world = bandit(0.0, 1.0)

    @frozen
    class Flat:
        def __call__(self, rollout):
            return Estimate(rollout.rewards[0], rollout.rewards[0])

    with pytest.raises(PartError, match=r"the estimator: returns: expected shape \[1, 1\]"):
        expected_gradient(world, UNIFORM, Flat())
    with pytest.raises(PartError, match="the loss: its terms carry no gradient"):
        expected_gradient(world, UNIFORM, TotalReturn(1.0), NoBaseline(), lambda b, e: Loss({"policy": b.advantages}))


def test_a_loss_that_skips_the_update_has_gradient_zero():
    def skipping(batch, evaluation):
        return attrs.evolve(Reinforce()(batch, evaluation), stop_epochs=True)

    found = expected_gradient(bandit(0.0, 1.0), UNIFORM, TotalReturn(1.0), NoBaseline(), skipping)
    assert not bool(found.any())


def test_a_policy_that_never_takes_an_action_has_no_gradient_there():
    policy = SoftmaxTable(torch.tensor([[0.0, -math.inf], [0.0, 0.0]]))
    assert not bool(expected_gradient(bandit(0.0, 1.0), policy, TotalReturn(1.0)).any())
    for route in ("solve", "enumeration"):
        assert not bool(gradient(bandit(0.0, 1.0), policy, 1.0, route).any())
    assert expected_return(bandit(0.0, 1.0), policy, 1.0).item() == 0
