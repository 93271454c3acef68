"""The numbers of an audit are those of enumeration, of formulas by hand and of autograd."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from framework_line_world import LineWorld
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from worlds import TabularPolicy, TabularWorld, enumerate_episodes, shard

from framework import Loss, PartError, RolloutSettings, UsageError, audit
from framework.audit import gradients, samples
from framework.collecting.rollout import collect
from framework.config import DEFAULTS
from framework.contracts import Inputs, TabularMDP
from framework.exact import gradient, state_values
from framework.learning.batches import flatten, reduce
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.stages import Core
from framework.testing.strategies import mdps

LOADED = load()
GAMMA = 0.9


def run_of(estimator="rewards_to_go", baseline="none", loss="reinforce", batch=2, environment=None, **sections):
    """A run whose lanes are a batch, in a short line world; logits are not uniform, and the critic errs."""
    tree = {**DEFAULTS, "reports": [], "policy": {"name": "tabular"}, **sections}
    tree |= {"estimator": {"name": estimator, "gamma": GAMMA}, "baseline": {"name": baseline}}
    tree["loss"] = {"name": loss} if isinstance(loss, str) else loss
    world = LineWorld(goal=2, max_steps=4) if environment is None else environment
    rollout = RolloutSettings(lanes=batch, episodes=batch)
    config = evolve(configure(LOADED, tree), environment=LOADED.part_of("environment", world), rollout=rollout)
    run = build(config, LOADED, Core())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # a network stays as it is built: it would saturate
        for parameter in [run.policy.logits, run.policy.critic] if run.config.policy.name == "tabular" else []:
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return run


def softmax(run):
    return run.policy.logits.detach().double().softmax(1)


# Against enumeration by hand


def by_hand(run):
    """E G `[P]` of the logits, and E · tr Cov G: score functions and formulas, over all tuples of episodes."""
    mdp, table, batch = run.environment.mdp(), softmax(run), run.config.rollout.episodes
    values = state_values(mdp, table, GAMMA)
    reported = []
    for chance, steps, _ in enumerate_episodes(mdp, table):
        rewards = [reward for _, _, reward in steps]
        returns = [sum(GAMMA**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
        if run.config.estimator.name == "total_return":
            returns = returns[:1] * len(steps)
        reported.append((chance, steps, returns, sum(returns) / len(returns)))
    samples, chances = [], []
    for chosen in product(reported, repeat=batch):
        firsts = {steps[0][0] for _, steps, _, _ in chosen}
        grouped = run.environment.groups is not None  # one start for all
        if grouped and len(firsts) > 1:
            continue
        starts = float(mdp.start[firsts.pop()]) ** (batch - 1) if grouped else 1.0
        total = torch.zeros_like(table)
        for number, (_, steps, returns, _) in enumerate(chosen):
            for (state, action, _), earned in zip(steps, returns, strict=True):
                baselines = {"none": 0.0, "value": float(values[state]), "leave_one_out": chosen[number - 1][3]}
                score = -table[state]
                score[action] += 1
                total[state] += (earned - baselines[run.config.baseline.name]) * score
        samples.append(total.flatten() / batch)
        chances.append(math.prod(chance for chance, *_ in chosen) / starts)
    every, weights = torch.stack(samples), torch.tensor(chances, dtype=torch.float64)
    assert math.isclose(float(weights.sum()), 1, abs_tol=1e-9)
    mean = weights @ every
    return mean, batch * float(weights @ (every - mean).square().sum(1))


def law_mean_and_variance_are_those_of_enumeration(module, estimator, baseline, batch, groups=0, episodes=4000):
    """Within five of the reported standard errors, which are small; enumerated results, exactly."""
    run = run_of(estimator, baseline, batch=batch, environment=LineWorld(goal=2, max_steps=4, group_size=groups))
    (row,) = module.audit([run], episodes=episodes).rows
    mean, variance = by_hand(run)
    count = len(mean)
    assert not row.mean[count:].any()  # the critic's part
    assert float((row.mean[:count] - mean).norm()) < 5 * row.noise
    assert abs(row.variance - variance) < 5 * row.variance_error
    assert row.variance_error < 0.1 * variance
    assert math.isclose(row.noise, math.sqrt(variance / episodes), rel_tol=0.1)
    assert torch.allclose(row.expected[:count], mean, atol=1e-5)  # rewards and V are float32 numbers of up to 10
    assert torch.allclose(row.gradient, gradient(run.environment.mdp(), run.policy, GAMMA))
    length = sum(len(steps) * chance for chance, steps, _ in enumerate_episodes(run.environment.mdp(), softmax(run)))
    assert math.isclose(row.steps, batch * length, rel_tol=0.05)


CASES = [
    ("total_return", "none", 1),
    ("rewards_to_go", "none", 2),
    ("rewards_to_go", "value", 1),
    ("total_return", "leave_one_out", 2),
    ("rewards_to_go", "leave_one_out", 2),
    ("rewards_to_go", "leave_one_out", 2, 2, 2000),  # lanes with a common start: stepped, not sampled from tables
]


@pytest.mark.parametrize(
    "case", [pytest.param(one, marks=[pytest.mark.slow] * (one != CASES[1])) for one in CASES], ids=str
)
def test_mean_and_variance_are_those_of_enumeration(case):
    law_mean_and_variance_are_those_of_enumeration(audit, *case)


@pytest.mark.slow
def test_a_batch_s_own_mean_shrinks_the_gradient_and_the_others_does_not():
    """`batch_mean` keeps 1 − 1/E of it with total_return, of E = 2 episodes half; `leave_one_out` all of it."""
    runs = [run_of("total_return", baseline) for baseline in ("batch_mean", "leave_one_out")]
    half, whole = audit.audit(runs, episodes=2000).rows
    assert torch.allclose(half.expected, half.gradient / 2, atol=1e-5)
    assert torch.allclose(whole.expected, whole.gradient, atol=1e-5)
    assert (half.is_biased, whole.is_biased) == (True, False)
    assert abs(half.bias - half.expected_bias) < 5 * half.noise


def test_combinations_see_the_same_episodes():
    runs = [run_of("total_return"), run_of("total_return"), run_of("rewards_to_go")]
    one, same, other = audit.audit(runs, episodes=200).rows
    assert torch.equal(one.mean, same.mean)
    assert one.steps == same.steps == other.steps
    (alone,) = audit.audit([run_of("total_return")], episodes=200).rows
    assert torch.equal(one.mean, alone.mean)


def test_a_seed_repeats_an_audit_and_another_does_not():
    means = [audit.audit([run_of(seed=seed)], episodes=200).rows[0].mean for seed in (3, 3, 4)]
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])


@pytest.mark.slow
def test_the_line_world_s_variances_are_in_the_known_ratio():
    """6800 : 2050 : 1600 by logit difference, γ = 1 and 100 steps; a table's two logits have ±g, so twice as much.

    The numbers are given to two or three digits, which is 2 %; chance leaves 2 % of 100,000 episodes. Exact gradient:
    DESIGN.md §10.
    """
    tree = [("total_return", "none"), ("rewards_to_go", "none"), ("rewards_to_go", "value")]
    runs = [run_of(name, baseline, batch=16, environment=LineWorld()) for name, baseline in tree]
    for run in runs:
        settings = type(run.config.estimator.settings)(gamma=1.0)
        run.config = evolve(run.config, estimator=evolve(run.config.estimator, settings=settings))
        run.estimator = settings
    with torch.no_grad():
        runs[0].policy.logits.zero_()
    rows = audit.audit(runs, episodes=100_000).rows
    for row, known in zip(rows, (6800, 2050, 1600), strict=True):
        assert abs(row.variance / 2 - known) < 0.02 * known + 4 * row.variance_error / 2
        differences = torch.tensor([3.972, 8.931, 9.922, 6.949], dtype=torch.float64)
        assert torch.allclose(row.gradient[1:8:2], differences, atol=5e-4)
        assert not row.is_biased


# Statistics of samples


def law_statistics_are_those_of_all_samples_at_once(module, given, parts, exact):
    """In any chunks; compared with numpy's mean and variance (n − 1), and plain means of squares and cosines."""
    batches = torch.tensor(given, dtype=torch.float64).tensor_split(min(parts, len(given)))
    account = module.Samples(gradient=torch.tensor(exact, dtype=torch.float64))
    for part in batches:
        account.add(part)
    reported = account.audited(3, 7.0, 0.0)
    every, target = np.array(given), np.array(exact)
    variance = every.var(0, ddof=1).sum()
    assert math.isclose(reported.variance, 3 * variance, rel_tol=1e-9, abs_tol=1e-9)
    assert np.allclose(reported.mean, every.mean(0))
    distances = np.square(every - batches[0].mean(0).numpy()).sum(1)
    error = 3 * distances.std(ddof=1) / math.sqrt(len(given))
    assert math.isclose(reported.variance_error, error, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(reported.noise, math.sqrt(variance / len(given)), rel_tol=1e-9, abs_tol=1e-6)
    squares = np.square(every - target).sum(1).mean()
    assert math.isclose(reported.mean_squared_error, squares, rel_tol=1e-9, abs_tol=1e-9)
    norms = np.linalg.norm(every, axis=1) * np.linalg.norm(target)
    cosines = [float(one @ target) / norm if norm else 0.0 for one, norm in zip(every, norms, strict=True)]
    assert math.isclose(reported.batch_cosine, np.mean(cosines), abs_tol=1e-9)
    assert math.isclose(reported.bias, np.linalg.norm(every.mean(0) - target), rel_tol=1e-9, abs_tol=1e-9)
    if np.linalg.norm(target):
        assert math.isclose(reported.relative_bias, reported.bias / np.linalg.norm(target), rel_tol=1e-9)
    signal = max(0.0, np.square(every.mean(0)).sum() - variance / len(given))
    if variance > 1e-12:
        ratio = math.sqrt(signal / (3 * variance))
        assert math.isclose(reported.signal_to_noise, ratio, rel_tol=1e-6, abs_tol=1e-5)


VECTORS = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=2)
STATISTICS_CASES = (st.lists(VECTORS, min_size=2, max_size=9), st.integers(1, 4), VECTORS)


@given(*STATISTICS_CASES)
def test_statistics_are_those_of_all_samples_at_once(given, parts, exact):
    law_statistics_are_those_of_all_samples_at_once(samples, given, parts, exact)


# Gradients of batches

LOSSES = [
    {"name": "reinforce"},
    {"name": "reinforce", "entropy": 0.3},
    {"name": "actor_critic", "entropy": 0.2},
    {"name": "ppo", "entropy": 0.1},
]


def law_rows_are_autograd_s_gradients(module, loss, policy, by_table):
    """−G·E of each batch is the gradient of the loss's policy term alone, by autograd through the policy."""
    estimator = ("rewards_to_go", "none") if policy == "categorical" else ("lambda_returns", "value")
    run = run_of(*estimator, loss, batch=5, policy={"name": policy})
    spaces = gradients.finite_spaces(run.environment)
    method = module.TableGradients(run.policy, spaces) if by_table else module.BackwardGradients(run)
    for iteration in range(3):
        run.iteration = iteration
        rollout = run.stages.collect_rollout(run)
        batch = flatten(rollout, run.stages.estimate_advantages(run, rollout))
        log_probs, entropies, row = method.of(batch)
        found = method.gradients(row(module.log_prob_gradients(run, batch, log_probs, entropies))[None])[0]
        evaluation = run.policy.evaluate(Inputs(batch.observations), batch.actions, True)
        evaluation = evolve(evaluation, values=batch.values)
        terms = {"policy": run.loss(batch, evaluation).terms["policy"]}
        total = reduce(Loss(terms), batch, "constant", 1.0)["policy"]
        parameters = list(run.policy.parameters())
        wanted = torch.autograd.grad(total, parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, wanted, strict=True)]
        expected = torch.cat([one.flatten() for one in flat]).double()
        assert expected.abs().max() > 0.1
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)  # sums of some dozen float32 numbers of up to 30


@pytest.mark.parametrize("by_table", [True, False])
@pytest.mark.parametrize(
    ("loss", "policy"),
    [*product(LOSSES, ["tabular", "actor_critic"]), (LOSSES[1], "categorical")],
    ids=str,
)
def test_rows_are_autograd_s_gradients(loss, policy, by_table):
    law_rows_are_autograd_s_gradients(gradients, loss, policy, by_table)


def test_an_audit_goes_backward_where_a_table_would_be_large(monkeypatch):
    """And gives the same numbers, up to float32."""
    runs = [run_of("rewards_to_go", "value"), run_of("total_return", "leave_one_out")]
    tables = audit.audit(runs, episodes=100).rows
    monkeypatch.setattr(gradients, "MAX_ENTRIES", 0)
    for table, backward in zip(tables, audit.audit(runs, episodes=100).rows, strict=True):
        assert torch.allclose(table.mean, backward.mean, atol=1e-4)
        assert math.isclose(table.variance, backward.variance, rel_tol=1e-4)


def test_a_loss_without_log_probs_is_named():
    @frozen
    class Cut:
        def __call__(self, batch, evaluation):
            return Loss({"policy": -batch.advantages * evaluation.log_probs.detach()})

    run = run_of()
    part = LOADED.part_of("loss", Cut())
    cut = evolve(run, loss=part.settings, config=evolve(run.config, loss=part))
    with pytest.raises(PartError, match=r"loss 'Cut' .*no term depends on the log-probs"):
        gradients.log_prob_gradients(cut, *batch_of(cut))


def batch_of(run):
    rollout = run.stages.collect_rollout(run)
    batch = flatten(rollout, run.stages.estimate_advantages(run, rollout))
    return batch, batch.log_probs, None


# Values and batches


def law_with_values_gives_a_critics_values(module, world, gamma, seed):
    """V of each step and successor is what a policy with this V would have recorded while collecting."""
    logits = torch.zeros(world.transitions.shape[:2])
    values = state_values(world, logits.double().softmax(1), gamma)
    numbers = torch.arange(len(values)).float()
    rollouts = []
    for critic in (values.float(), numbers):
        policy = TabularPolicy(logits, critic)
        part = shard(world, True, 3, seed, episodes=3)
        rollouts.append(collect([part], policy, policy.actor(), 0, True)[0])
    with_exact = module.with_values(rollouts[1], values)
    assert torch.equal(with_exact.values, rollouts[0].values)
    assert torch.equal(with_exact.successor_values, rollouts[0].successor_values)


VALUED = (mdps(), st.sampled_from([0.5, 1.0]), st.integers(0, 99))


@given(*VALUED)
def test_with_values_gives_a_critics_values(world, gamma, seed):
    law_with_values_gives_a_critics_values(audit, world, gamma, seed)


def law_split_batches_equal_separately_collected_ones(module, world, batch, count, seed):
    """Its episodes, one per lane, numbered from 0, with no more rows than the longest; nothing else changes."""
    policy = TabularPolicy(torch.zeros(world.transitions.shape[:2]))
    lanes = batch * count
    rollout = collect([shard(world, True, lanes, seed, episodes=lanes)], policy, policy.actor(), 0, True)[0]
    cuts = list(module.split_into_batches(rollout, batch))
    assert len(cuts) == count
    for number, part in enumerate(cuts):
        where = slice(number * batch, (number + 1) * batch)
        rows = int(rollout.mask[:, where].any(1).sum())
        assert part.mask.shape == (rows, batch)
        assert torch.equal(part.episodes, torch.arange(batch).expand(rows, batch) * part.mask)
        for name in ("observations", "actions", "rewards", "terminated", "truncated", "mask", "times", "values"):
            assert torch.equal(getattr(part, name), getattr(rollout, name)[:rows, where]), name
            assert getattr(part, name).is_contiguous()


CUTS = (mdps(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))


@given(*CUTS)
def test_split_batches_equal_separately_collected_ones(world, batch, count, seed):
    law_split_batches_equal_separately_collected_ones(audit, world, batch, count, seed)


def law_aliased_states_share_the_mean_of_their_values(module):
    """Two states with the same observation, one visited twice as often: V(o) = (2·V(0) + V(1))/3.

    0 → 0 or 1 with ½ each, 1 → 2, the end; −1 a step, γ = 1: V(1) = −1, V(0) = −3, visits 2 and 1: −7/3.
    """
    transitions = torch.zeros(3, 1, 3, dtype=torch.float64)
    transitions[0, 0, 0] = transitions[0, 0, 1] = 0.5
    transitions[1, 0, 2] = transitions[2, 0, 2] = 1
    start, terminal = torch.tensor([1.0, 0, 0]).double(), torch.tensor([False, False, True])
    rewards = -torch.ones_like(transitions)
    world = TabularMDP(transitions, rewards, start, terminal, observations=torch.tensor([0, 0, 1]))
    values = module.exact_critic(world, torch.ones(2, 1, dtype=torch.float64), 1.0)
    assert torch.allclose(values, torch.tensor([-7 / 3, 0]).double())
    apart = module.exact_critic(evolve(world, observations=None), torch.ones(3, 1, dtype=torch.float64), 1.0)
    assert torch.allclose(apart, torch.tensor([-3.0, -1, 0]).double())


def test_aliased_states_share_the_mean_of_their_values():
    law_aliased_states_share_the_mean_of_their_values(audit)


@pytest.mark.slow
def test_the_policy_s_own_critic_is_used_if_requested():
    """Its values are wrong, so bootstrapping from them is biased; with exact ones only the time limit biases."""
    run = run_of("td0", "value", "actor_critic", environment=LineWorld(goal=2, max_steps=4))
    exact, own = (audit.audit([run], episodes=2000, critic=critic) for critic in ("exact", "policy"))
    assert (exact.critic, own.critic) == ("exact", "policy")
    assert not torch.allclose(exact.rows[0].expected, own.rows[0].expected, atol=0.1)
    for found in (exact, own):
        row = found.rows[0]
        assert float((row.mean - row.expected).norm()) < 5 * row.noise
    assert audit.audit([run_of()], episodes=20).critic is None


# The objective


def law_the_objective_is_the_claimed_one(module):
    parts = {
        ("rewards_to_go", 0.9, False): ("discounted", 0.9),  # claims nothing: its own γ
        ("rewards_to_go", 0.9, True): ("discounted", 0.9),
        ("rewards_to_go", 1.0, False): ("undiscounted", 1.0),
        ("total_return", 0.5, None): ("discounted", 0.5),
        ("lambda_returns", 0.5, None): ("discounted", 0.5),
    }
    for (name, gamma, weighted), expected in parts.items():
        extra = {} if weighted is None else {"discounted_objective": weighted}
        assert module.objective(LOADED.pick("estimator", name)[2](gamma=gamma, **extra)) == expected

    @frozen
    class Claiming:
        claims = frozenset({"unbiased:undiscounted"})
        gamma: float = 0.3

    assert module.objective(Claiming()) == ("undiscounted", 1.0)
    assert module.objective(object()) == ("undiscounted", 1.0)


def test_the_objective_is_the_claimed_one():
    law_the_objective_is_the_claimed_one(audit)


@pytest.mark.slow
def test_the_missing_weights_of_rewards_to_go_are_seen():
    """With γ < 1 it is biased unless each step has its weight γᵗ (Nota & Thomas 2020, arXiv:1906.07073)."""
    plain, weighted = run_of(), run_of()
    settings = evolve(weighted.config.estimator.settings, discounted_objective=True)
    weighted.estimator = settings
    weighted.config = evolve(weighted.config, estimator=evolve(weighted.config.estimator, settings=settings))
    biased, unbiased = audit.audit([plain, weighted], episodes=2000).rows
    assert (biased.is_biased, unbiased.is_biased) == (True, False)
    assert unbiased.expected_bias < 1e-5


def test_a_single_batch_has_no_variance():
    with pytest.raises(UsageError, match="at least two batches: 2 episodes, with 2 per batch"):
        audit.audit([run_of()], episodes=2)


def test_a_value_that_does_not_exist_is_refused():
    endless = TabularMDP(
        torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).double(),
        torch.ones(2, 1, 2).double(),
        torch.tensor([1.0, 0.0]).double(),
        torch.tensor([False, True]),
        3,
    )
    run = run_of(environment=TabularWorld(endless))
    settings = type(run.estimator)(gamma=1.0)
    run.estimator = settings
    run.config = evolve(run.config, estimator=evolve(run.config.estimator, settings=settings))
    assert audit.audit([run], episodes=20).rows[0].mean is not None  # within a time limit it has one
    run.environment.mdp = lambda: evolve(endless, time_limit=None)
    with pytest.raises(UsageError, match="environment 'TabularWorld'.* never ends"):
        audit.audit([run], episodes=20)


def test_a_baseline_learns_from_batch_to_batch():
    """As in a run: `moving_average` is 0 in the first batch only."""
    run = run_of(baseline="moving_average")
    audit.audit([run], episodes=20)
    assert run.baseline.weight > 0


@pytest.mark.slow
def test_gradients_without_an_exact_one_have_a_variance_and_no_bias():
    run = run_of(environment=TabularWorld(run_of().environment.mdp(), tables=False))
    found = audit.audit([run], episodes=1000)
    (known,) = audit.audit([run_of()], episodes=4000).rows
    (row,) = found.rows
    assert found.missing == "environment 'TabularWorld' (plugin worlds) has no mdp()"
    statistics = (row.bias, row.relative_bias, row.mean_squared_error, row.cosine, row.batch_cosine, row.is_biased)
    assert statistics == (None,) * 6
    assert abs(row.variance - known.variance) < 5 * (row.variance_error + known.variance_error)
    assert math.isclose(row.signal_to_noise, known.signal_to_noise, rel_tol=0.2)


# Mutants

STATISTICS = [
    (
        "episodes * float(torch.cat(self.distances).std()) / math.sqrt(n)",
        "episodes * float(torch.cat(self.distances).std())",
    ),
    ("episodes * float(self.spread.sum()) * n / (n - 1)", "episodes * float(self.spread.sum())"),
    ("episodes * float(self.spread.sum()) * n / (n - 1)", "float(self.spread.sum()) * n / (n - 1)"),
    ("(self.batches - 1) / self.batches * self.variance", "self.variance"),
    (
        "return math.sqrt(self.variance / self.episodes / self.batches)",
        "return math.sqrt(self.variance / self.batches)",
    ),
    ("max(0.0, float(self.mean.square().sum()) - self.noise**2)", "float(self.mean.square().sum())"),
    ("norms = gradients.norm(dim=1) * exact.norm()", "norms = gradients.norm() * exact.norm()"),
]


@pytest.mark.parametrize("change", STATISTICS, ids=lambda change: change[1])
def test_wrong_statistics_are_noticed(change):
    mutant = mutate("framework.audit.samples", change)
    is_killed(law_statistics_are_those_of_all_samples_at_once, *STATISTICS_CASES, arguments=(mutant,))


SAMPLING = [
    ("sampled.add(-method.gradients(row) / size)", "sampled.add(method.gradients(row) / size)", 1),
    ("sampled.add(-method.gradients(row) / size)", "sampled.add(-method.gradients(row))", 3),
    ("values = {gamma: exact_critic(mdp, policy, gamma)", "values = {gamma: 0 * exact_critic(mdp, policy, gamma)", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize("change", SAMPLING, ids=lambda change: change[1])
def test_wrong_samples_are_noticed(change):
    old, new, case = change
    with pytest.raises(AssertionError):
        law_mean_and_variance_are_those_of_enumeration(mutate("framework.audit", (old, new)), *CASES[case][:3], 0, 2000)


@pytest.mark.parametrize(
    "change",
    [
        ("continuing = rollout.mask & ~rollout.terminated", "continuing = rollout.mask"),
        ("values=table[rollout.values.long()] * rollout.mask", "values=table[rollout.values.long()]"),
    ],
    ids=lambda change: change[1],
)
def test_wrong_values_are_noticed(change):
    is_killed(law_with_values_gives_a_critics_values, *VALUED, arguments=(mutate("framework.audit", change),))


@pytest.mark.parametrize(
    "change",
    [
        ('columns["episodes"] - first_episodes[:, None, None], 0)', 'columns["episodes"], 0)'),
        (".any(2).sum(1).tolist()", ".any(2).sum(1).clamp(min=99).tolist()"),
        (".movedim(1, 0).contiguous()", ".movedim(1, 0)"),
        ("column.unflatten(1, (-1, episodes)).movedim(1, 0)", "column.unflatten(1, (episodes, -1)).movedim(2, 0)"),
    ],
    ids=lambda change: change[1],
)
def test_wrong_batches_are_noticed(change):
    is_killed(law_split_batches_equal_separately_collected_ones, *CUTS, arguments=(mutate("framework.audit", change),))


@pytest.mark.parametrize(
    ("law", "change"),
    [
        (law_aliased_states_share_the_mean_of_their_values, ("visits * values)", "values)")),
        (law_the_objective_is_the_claimed_one, ('"unbiased:undiscounted" in claims or ', "")),
    ],
    ids=["unweighted", "unclaimed"],
)
def test_wrong_objectives_are_noticed(law, change):
    with pytest.raises(AssertionError):
        law(mutate("framework.audit", change))


@pytest.mark.parametrize(
    "change",
    [
        ("(states * self.actions + batch.actions - self.first_action)", "(states + batch.actions - self.first_action)"),
        ("Evaluation(leaf, fixed, batch.values)", "Evaluation(2 * leaf, fixed, batch.values)"),
        ("torch.stack(rows).detach()", "torch.stack(rows[::-1]).detach()"),
    ],
    ids=lambda change: change[1],
)
def test_wrong_rows_are_noticed(change):
    with pytest.raises(AssertionError):
        law_rows_are_autograd_s_gradients(mutate("framework.audit.gradients", change), LOSSES[0], "tabular", True)
