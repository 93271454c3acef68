"""Exact values and gradients: the design's numbers, brute force, and the Monte-Carlo gradient that must agree."""

import math

import pytest
import torch
from attrs import evolve
from framework_line_world import LineWorld
from framework_tabular_worlds import RandomMDP
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from worlds import enumerate_episodes

import framework
from framework import RolloutSettings, TabularMDP
from framework.exact import (
    SoftmaxTable,
    action_probabilities,
    action_values,
    advantages,
    by_name,
    count_trajectories,
    expected_return,
    gradient,
    state_values,
    timed_action_values,
    timed_state_values,
    timed_visitation,
    trajectories,
    visitation,
)
from framework.exact.trajectories import PIECE_SIZE, Trajectories, pieces
from framework.learning.batches import flatten
from framework.setup.building import build
from framework.stages import Core
from framework.testing.strategies import mdps

LIMITS = {
    None: ([-9, -7, -3, 3], [4, 9, 10, 7]),  # DESIGN.md §10; by hand: V(3) = ½·10 + ½·(V(2) − 1), and so on
    100: ([-8.986, -6.988, -2.991, 3.005], [3.972, 8.931, 9.922, 6.949]),
}


def line_world_gradient(limit):
    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), time_limit=limit)
    differences = torch.zeros(5, dtype=torch.float64, requires_grad=True)  # logit of RIGHT minus that of LEFT
    probabilities = torch.stack([torch.sigmoid(-differences), torch.sigmoid(differences)], 1)
    values = state_values(mdp, probabilities, 1.0)
    (gradient,) = torch.autograd.grad(expected_return(mdp, probabilities, 1.0), differences)
    return values.detach()[:4], gradient[:4]


@pytest.mark.parametrize("limit", LIMITS)
def test_line_world_has_the_designs_values_and_gradient(limit):
    values, gradient = line_world_gradient(limit)
    expected_values, expected_gradient = LIMITS[limit]
    tolerance = 1e-9 if limit is None else 5e-4  # half a unit of the last digit quoted
    assert torch.allclose(values, torch.tensor(expected_values, dtype=torch.float64), atol=tolerance)
    assert torch.allclose(gradient, torch.tensor(expected_gradient, dtype=torch.float64), atol=tolerance)


@given(mdps(), st.sampled_from([0.0, 0.5, 1.0]))
def test_expected_return_is_the_mean_over_all_episodes(world, gamma):
    probabilities = torch.full(world.transitions.shape[:2], 1 / world.transitions.shape[1], dtype=torch.float64)
    brute = sum(
        p * sum(gamma**t * reward for t, (_, _, reward) in enumerate(steps))
        for p, steps, _ in enumerate_episodes(world, probabilities)
    )
    assert math.isclose(float(expected_return(world, probabilities, gamma)), brute, abs_tol=1e-9)


@given(mdps(), st.sampled_from([0.5, 0.9]))
def test_a_long_limit_is_no_limit(world, gamma):
    """γᵀ·|V| bounds the difference: 0.9⁴⁰⁰·20 < 1e-16."""
    probabilities = torch.full(world.transitions.shape[:2], 1 / world.transitions.shape[1], dtype=torch.float64)
    endless, long = (state_values(evolve(world, time_limit=limit), probabilities, gamma) for limit in (None, 400))
    assert torch.allclose(endless, long, atol=1e-9)


def test_a_policy_that_never_ends_has_no_undiscounted_value():
    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), time_limit=None)
    always_left = torch.tensor([[1.0, 0.0]] * 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="some episode never ends"):
        state_values(mdp, always_left, 1.0)
    assert math.isclose(float(state_values(mdp, always_left, 0.9)[0]), -10.0, abs_tol=1e-9)  # −1/(1 − γ)


def uniform_categorical(policy):
    with torch.no_grad():
        policy.network[-1].weight.zero_()
        policy.network[-1].bias.zero_()


@pytest.mark.slow
@pytest.mark.parametrize("max_steps", [0, 100])
def test_monte_carlo_gradient_agrees_with_the_exact_one(max_steps):
    """REINFORCE with rewards-to-go, γ = 1, 200,000 episodes by number: within six standard errors in each component.

    The gradient by logit difference is taken by hand from what the framework's own stages collected and estimated.
    """
    sums, squares, count = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 0
    config, loaded = _config(max_steps)
    run = build(config, loaded, Core())
    uniform_categorical(run.policy)
    while count < 200_000:
        rollout = run.hook.collect_rollout(run=run)
        advantages = run.hook.estimate_advantages(run=run, rollout=rollout)
        batch = flatten(rollout, advantages)
        episodes = rollout.episodes[rollout.mask]
        number = int(episodes.max()) + 1
        assert number == 20_000
        score = (batch.actions.double() - 0.5) * batch.advantages.double()  # ∇ of log π(a|s) is a − P(RIGHT)
        per_episode = torch.zeros(number, 4, dtype=torch.float64)
        per_episode.index_put_((episodes, batch.observations), score, accumulate=True)
        sums += per_episode.sum(0)
        squares += per_episode.square().sum(0)
        count += number
        run.iteration += 1
    mean = sums / count
    error = ((squares / count - mean.square()) / count).sqrt()
    exact = line_world_gradient(max_steps or None)[1]
    deviations = (mean - exact) / error
    print(f"\nlimit {max_steps}: {mean.tolist()} against {exact.tolist()}; in standard errors {deviations.tolist()}")
    assert deviations.abs().max() < 6


def _config(max_steps):
    import attrs

    from framework.config import DEFAULTS
    from framework.setup.loading import load
    from framework.setup.tree import configure

    loaded = load()
    tree = {**DEFAULTS, "reports": [], "rollout": {"lanes": 1000, "episodes": 20_000}}
    tree["environment"] = {"name": "line_world", "max_steps": max_steps}
    tree["estimator"] = {"name": "rewards_to_go", "gamma": 1.0}
    return attrs.evolve(configure(loaded, tree), seed=7), loaded


def test_training_reaches_the_best_return():
    """After 300 updates sampled episodes come near the best return, 7."""
    result = framework.train(iterations=300, seed=0, rollout=RolloutSettings(episodes=32))
    assert result.recent_returns.mean() > 5.5  # the uniform policy's is −9


@given(st.integers(2, 5), st.integers(0, 2**31))
def test_without_discount_and_limit_endless_episodes_have_no_value(states, seed):
    """Random transitions among the others, none into the terminal state: rejected, not solved by rounding errors."""
    generator = torch.Generator().manual_seed(seed)
    transitions = torch.rand(states + 1, 2, states + 1, generator=generator, dtype=torch.float64)
    transitions[..., -1] = 0
    transitions /= transitions.sum(-1, keepdim=True)
    terminal = torch.arange(states + 1) == states
    start = torch.ones(states + 1, dtype=torch.float64) / (states + 1)
    world = TabularMDP(transitions, torch.ones_like(transitions), start, terminal)
    uniform = torch.full((states + 1, 2), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="V does not exist"):
        state_values(world, uniform, 1.0)
    values = state_values(world, uniform, 0.5)
    assert torch.allclose(values[:-1], torch.tensor(2.0, dtype=torch.float64))  # 1 + 1/2 + 1/4 + …


# The gradient, by three methods

GAMMAS = st.sampled_from([0.0, 0.5, 0.9, 1.0])
SEEDS = st.integers(0, 2**31)
LIMITED, ENDLESS = mdps(states=(2, 4), actions=(1, 3), limits=(1, 3)), mdps(states=(2, 4), actions=(1, 3), limits=None)


def a_policy(mdp, seed, spread=1.5):
    rows = int(mdp.seen.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    return SoftmaxTable(spread * torch.randn(rows, mdp.transitions.shape[1], generator=generator, dtype=torch.float64))


def aliased(mdp, seed):
    """The same world, with some states that have the same observation."""
    shown = torch.randint(0, 2, (len(mdp.start),), generator=torch.Generator().manual_seed(seed))
    return evolve(mdp, observations=torch.cat([torch.zeros(1, dtype=torch.int64), shown[1:]]))


def law_routes_agree(gradients, mdp, gamma, seed, routes):
    """Up to 1e-9 of the largest component (or of 1): `gradient` explains why differences are so accurate."""
    policy = a_policy(mdp, seed)
    found = [gradients.gradient(mdp, policy, gamma, route) for route in routes]
    tolerance = 1e-9 * max(1.0, float(found[0].abs().max()))
    for other in found[1:]:
        assert torch.allclose(found[0], other, rtol=0, atol=tolerance), (found[0] - other).abs().max()


ALL = ("solve", "differences", "enumeration")


@given(LIMITED, GAMMAS, SEEDS, st.booleans())
def test_three_routes_to_the_gradient_agree_within_a_time_limit(mdp, gamma, seed, alike):
    import framework.exact.gradients as gradients

    law_routes_agree(gradients, aliased(mdp, seed) if alike else mdp, gamma, seed, ALL)


@given(ENDLESS, GAMMAS, SEEDS, st.booleans())
def test_two_routes_to_the_gradient_agree_without_a_limit(mdp, gamma, seed, alike):
    """Every action may end an episode here, so every policy is proper, and γ = 1 is allowed."""
    import framework.exact.gradients as gradients

    law_routes_agree(gradients, aliased(mdp, seed) if alike else mdp, gamma, seed, ALL[:2])


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 7, 10, 100])
@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_routes_agree_on_the_line_world(limit, gamma):
    import framework.exact.gradients as gradients

    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), time_limit=limit)
    for seed in range(5):
        law_routes_agree(gradients, mdp, gamma, seed, ALL if limit in (7, 10) else ALL[:2])


@pytest.mark.parametrize("world", [RandomMDP(max_steps=8), pytest.param(RandomMDP(), marks=pytest.mark.slow)])
def test_routes_agree_on_the_random_mdp(world):
    """As it comes with 5 · 4¹⁰ = 5,242,880 trajectories, and a shorter one, in several pieces too."""
    import framework.exact.gradients as gradients

    mdp = world.build(1, torch.device("cpu")).mdp()
    assert count_trajectories(mdp) == 5 * 4**world.max_steps > 2 * PIECE_SIZE
    law_routes_agree(gradients, mdp, 0.9, 0, ALL)


@given(LIMITED, st.integers(1, 20))
def test_pieces_are_all_trajectories(mdp, size):
    """For any size, which bounds the pieces: each trajectory is in one piece, with all its columns."""
    whole = trajectories(mdp)
    parts = list(pieces(mdp, size=size))
    assert all(len(part.chances) <= size for part in parts)

    def rows(every):
        columns = [getattr(every, name) for name in Trajectories.__match_args__]
        return [
            tuple(map(tuple, (column[k].reshape(-1).tolist() for column in columns))) for k in range(len(columns[0]))
        ]

    assert sorted(row for part in parts for row in rows(part)) == sorted(rows(whole))


GRADIENT_MUTANTS = {
    "divides by one step": ("/ (2 * step)", "/ step"),
    "forgets to put a parameter back": ("numbers[index] = original", "pass"),
    "takes differences one-sided": ("function(point - step)) / (2 * step)", "function(point)) / step"),
    "enumerates undiscounted returns": ("piece.returns(gamma)", "piece.returns(1.0)"),
    "weighs all trajectories alike": ("piece.probabilities(leaf) *", "piece.probabilities(leaf).log() *"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENT_MUTANTS)
def test_three_routes_kill_the_mutant_that(name):
    mutant = mutate("framework.exact.gradients", GRADIENT_MUTANTS[name])
    is_killed(law_routes_agree, LIMITED, GAMMAS, SEEDS, st.just(ALL), arguments=(mutant,))


def law_policy_gradient_theorem(values, mdp, gamma, seed):
    """∇J = Σ_s d(s) Σ_a ∇π(a|s)·Q(s, a): Sutton et al. 2000, theorem 1; Sutton & Barto 2018, eq. 13.5.

    With a limit for each number of steps taken, of which both d and Q then are.
    """
    policy = a_policy(mdp, seed)
    table = action_probabilities(mdp, policy)
    fixed = table.detach()
    if mdp.time_limit is None:
        visits, worth = values.visitation(mdp, fixed, gamma)[None], values.action_values(mdp, fixed, gamma)[None]
    else:
        visits, worth = values.timed_visitation(mdp, fixed, gamma), values.timed_action_values(mdp, fixed, gamma)
    (found,) = torch.autograd.grad((visits.unsqueeze(2) * table * worth).sum(), policy.logits)
    exact = by_name(policy, gradient(mdp, policy, gamma))["logits"]
    assert torch.allclose(found, exact, rtol=0, atol=1e-9 * max(1.0, float(exact.abs().max())))


@given(st.one_of(LIMITED, ENDLESS), GAMMAS, SEEDS)
def test_the_policy_gradient_theorem(mdp, gamma, seed):
    import framework.exact.values as values

    law_policy_gradient_theorem(values, mdp, gamma, seed)


VALUE_MUTANTS = {
    "does not discount what follows": (
        "mdp.rewards.to(values.dtype) + gamma *",
        "mdp.rewards.to(values.dtype) + 1.0 *",
    ),
    "takes this state's value for the next one's": ("(mdp, policy, gamma)[1:]]", "(mdp, policy, gamma)[:-1]]"),
    "does not discount visits": ("visits.append(gamma * (", "visits.append(1.0 * ("),
    "counts one visit too many": ("_limit(mdp) - 1", "_limit(mdp)"),
    "looks back instead of ahead": (
        "_system(transitions, gamma, among).T, start",
        "_system(transitions, gamma, among), start",
    ),
}


@pytest.mark.parametrize("name", VALUE_MUTANTS)
def test_the_theorem_kills_the_mutant_that(name):
    def law(mdp, gamma, seed):
        try:
            law_policy_gradient_theorem(mutant, mdp, gamma, seed)
        except RuntimeError as error:  # a step too many fits no table
            raise AssertionError from error

    mutant = mutate("framework.exact.values", VALUE_MUTANTS[name])
    is_killed(law, st.one_of(LIMITED, ENDLESS), GAMMAS, SEEDS)


@given(st.one_of(LIMITED, ENDLESS), GAMMAS, SEEDS, SEEDS)
def test_the_performance_difference_lemma(mdp, gamma, seed, another):
    """J(π′) − J(π) = Σ_s d_π′(s) Σ_a π′(a|s)·A_π(s, a): Kakade & Langford 2002, lemma 6.1; with a limit, by step."""
    old, new = (action_probabilities(mdp, a_policy(mdp, s)).detach() for s in (seed, another))
    if mdp.time_limit is None:
        visits, better = visitation(mdp, new, gamma), advantages(mdp, old, gamma)
    else:
        visits = timed_visitation(mdp, new, gamma)
        better = timed_action_values(mdp, old, gamma) - timed_state_values(mdp, old, gamma)[:-1].unsqueeze(2)
    gained = expected_return(mdp, new, gamma) - expected_return(mdp, old, gamma)
    assert torch.allclose((visits.unsqueeze(-1) * new * better).sum(), gained, rtol=0, atol=1e-9)


@given(LIMITED, GAMMAS, SEEDS)
def test_values_and_visits_are_those_of_all_trajectories(mdp, gamma, seed):
    """J and d by brute force over episodes; V is the mean of Q, advantages have mean 0, V_L is 0."""
    table = action_probabilities(mdp, a_policy(mdp, seed)).detach()
    visits = torch.zeros(mdp.time_limit, len(table), dtype=torch.float64)
    for probability, steps, _ in enumerate_episodes(mdp, table):
        for t, (state, _, _) in enumerate(steps):
            visits[t, state] += gamma**t * probability
    assert torch.allclose(timed_visitation(mdp, table, gamma), visits, atol=1e-12)
    assert torch.allclose(visitation(mdp, table, gamma), visits.sum(0), atol=1e-12)
    timed = timed_state_values(mdp, table, gamma)
    assert torch.allclose((table * timed_action_values(mdp, table, gamma)).sum(2), timed[:-1], atol=1e-12)
    assert torch.allclose((table * advantages(mdp, table, gamma)).sum(1), torch.zeros(()).double(), atol=1e-12)
    assert torch.equal(state_values(mdp, table, gamma), timed[0])
    assert torch.equal(action_values(mdp, table, gamma), timed_action_values(mdp, table, gamma)[0])
    assert not bool(timed[-1].any())


@given(LIMITED, SEEDS)
def test_trajectories_are_all_episodes(mdp, seed):
    """As many as the recursion counts, each with the probability and the steps found by brute force."""
    table = action_probabilities(mdp, a_policy(mdp, seed)).detach()
    every = trajectories(mdp)
    expected = {
        (*((s, a, r) for s, a, r in steps), over, len(steps)): 0.0 for _, steps, over in enumerate_episodes(mdp, table)
    }
    for probability, steps, over in enumerate_episodes(mdp, table):
        expected[(*steps, over, len(steps))] += probability
    found = dict.fromkeys(expected, 0.0)
    for k, probability in enumerate(every.probabilities(table).tolist()):
        length = int(every.real[k].sum())
        steps = zip(every.states[k].tolist(), every.actions[k].tolist(), every.rewards[k].tolist(), strict=True)
        found[(*list(steps)[:length], bool(every.terminated[k]), length)] += probability
    assert len(every.chances) == count_trajectories(mdp) == len(enumerate_episodes(mdp, table))
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[key], expected[key], abs_tol=1e-12) for key in expected)


def test_the_design_s_gradient_by_name():
    """RIGHT's logits have [4, 9, 10, 7], the gradient by logit differences, and LEFT's the negative."""
    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), time_limit=None)
    policy = SoftmaxTable(torch.zeros(5, 2))
    found = by_name(policy, gradient(mdp, policy, 1.0))
    assert found.keys() == {"logits", "table"}
    assert torch.allclose(found["logits"][:4, 1], torch.tensor([4.0, 9, 10, 7], dtype=torch.float64), atol=1e-9)
    assert torch.allclose(found["logits"][:, 0], -found["logits"][:, 1])
    assert not bool(found["table"].any())
    assert visitation(mdp, torch.full((5, 2), 0.5, dtype=torch.float64), 1.0).tolist() == pytest.approx([8, 6, 4, 2, 0])


def test_the_short_corridors_best_policy_is_where_the_gradient_is_zero():
    """Sutton & Barto 2018, Example 13.1: P(RIGHT) = 2 − √2 and −6 − 4√2, states with one observation, γ = 1."""
    from framework_tabular_worlds import ShortCorridor

    mdp = ShortCorridor(max_steps=0).build(1, torch.device("cpu")).mdp()
    right = 2 - math.sqrt(2)
    policy = SoftmaxTable(torch.tensor([[math.log(1 - right), math.log(right)]], dtype=torch.float64))
    assert math.isclose(expected_return(mdp, policy, 1.0).item(), -6 - 4 * math.sqrt(2), abs_tol=1e-9)
    for route in ALL[:2]:
        assert torch.allclose(gradient(mdp, policy, 1.0, route), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    lower = SoftmaxTable(torch.zeros(1, 2))
    assert gradient(mdp, lower, 1.0)[1] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(3))
def test_networks_have_exact_gradients_too(activation, seed):
    """The default policy, which is not changed; its J has kinks from ReLUs, which differences must handle."""
    from framework_reinforce.categorical import Categorical
    from gymnasium.spaces import Discrete

    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), time_limit=6)
    torch.manual_seed(seed)
    policy = Categorical(hidden=(3,), activation=activation).build(Discrete(5), Discrete(2))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    found = [gradient(mdp, policy, 0.9, route) for route in ALL]
    for other in found[1:]:
        assert torch.allclose(found[0], other, rtol=0, atol=1e-9)
    assert found[0].dtype == torch.float64
    assert [part.shape for part in by_name(policy, found[0]).values()] == [p.shape for p in policy.parameters()]
    for name, tensor in policy.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype
    assert all(parameter.grad is None for parameter in policy.parameters())


# Errors


def test_only_states_that_can_be_reached_must_come_to_an_end():
    """0 → end; 1 → 1 forever, but no episode reaches it: J is −1, but V(1) does not exist."""
    transitions = torch.tensor([[[0.0, 0, 1]], [[0.0, 1, 0]], [[0.0, 0, 1]]], dtype=torch.float64)
    start, terminal = torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([False, False, True])
    mdp = TabularMDP(transitions, -torch.ones_like(transitions), start, terminal)
    only = torch.ones(3, 1, dtype=torch.float64)
    assert float(expected_return(mdp, only, 1.0)) == -1
    assert visitation(mdp, only, 1.0).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="from state 1 no terminal state can be reached"):
        state_values(mdp, only, 1.0)
    assert state_values(mdp, only, 0.5).tolist() == pytest.approx([-1, -2, 0])
    there = evolve(mdp, start=start.roll(1))
    for number in (expected_return, visitation):
        with pytest.raises(ValueError, match="V does not exist"):
            number(there, only, 1.0)


@given(LIMITED, GAMMAS, SEEDS)
def test_a_terminal_start_has_return_zero(mdp, gamma, seed):
    """Half of the episodes have no step: J is halved, by every route, and so is its gradient."""
    over = evolve(mdp, start=0.5 * mdp.start + 0.5 * mdp.terminal)
    policy = a_policy(mdp, seed)
    for route in ALL:
        halved = gradient(over, policy, gamma, route)
        assert torch.allclose(halved, 0.5 * gradient(mdp, policy, gamma), rtol=0, atol=1e-8)


def test_too_many_trajectories_are_rejected_with_their_number():
    mdp = LineWorld().build(1, torch.device("cpu")).mdp()
    policy = SoftmaxTable(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"\d\.\d\de\+\d\d trajectories, and at most 20,000,000 are enumerated"):
        gradient(mdp, policy, 1.0, "enumeration")
    assert count_trajectories(evolve(mdp, time_limit=4)) == 16  # LEFT or RIGHT four times; RIGHT may always end it, too
    with pytest.raises(ValueError, match="time limit, and this one has none"):
        gradient(evolve(mdp, time_limit=None), policy, 1.0, "enumeration")
    with pytest.raises(ValueError, match="no route 'sampling': choose one of solve, differences, enumeration"):
        gradient(mdp, policy, 1.0, "sampling")
    with pytest.raises(ValueError, match="this one has none"):
        timed_state_values(evolve(mdp, time_limit=None), policy, 1.0)


def test_an_observation_that_never_occurs_may_have_a_row():
    """As in a table for an observation space whose last element no state has."""
    mdp = evolve(LineWorld().build(1, torch.device("cpu")).mdp(), observations=torch.tensor([0, 1, 2, 3, 3]))
    few, more = torch.full((4, 2), 0.5), torch.full((6, 2), 0.5)
    assert torch.equal(state_values(mdp, few, 0.9), state_values(mdp, more, 0.9))


def test_invalid_tables_and_modules_are_rejected():
    from framework_policies.recurrent import Recurrent
    from gymnasium.spaces import Discrete

    mdp = LineWorld().build(1, torch.device("cpu")).mdp()
    with pytest.raises(ValueError, match=r"expected a row for each of 5 observations, got \[4, 2\]"):
        state_values(mdp, torch.full((4, 2), 0.5), 1.0)
    with pytest.raises(ValueError, match=r"expected probabilities \[observations, 2\], got \[5, 3\]"):
        state_values(mdp, torch.full((5, 3), 0.5), 1.0)
    with pytest.raises(ValueError, match="has memory"):
        gradient(mdp, Recurrent().build(Discrete(5), Discrete(2)), 1.0)
    with pytest.raises(ValueError, match="probabilities of 2 actions do not sum to 1"):
        gradient(mdp, SoftmaxTable(torch.zeros(5, 3)), 1.0)
