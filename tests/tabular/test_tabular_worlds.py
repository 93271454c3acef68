"""Worlds of tables: what the literature says of them, and that stepping them, sampling them and solving them agree."""

import json
import math

import gymnasium
import pytest
import torch
from framework_tabular_worlds import Cliff, RandomMDP, ShortCorridor
from hypothesis import given
from hypothesis import strategies as st
from worlds import TabularPolicy

import framework
from framework import TabularLanes, TabularMDP
from framework.cli import main
from framework.exact import expected_return, state_values
from framework.tabular.shard import TabularShard, shard_of
from framework.testing.strategies import mdps

CPU = torch.device("cpu")
RIGHT = 1


def mdp_of(settings):
    return settings.build(1, CPU).mdp()


def corridor_value(right):
    """J of the short corridor where every state's P(RIGHT) is `right`, undiscounted, by the linear solve."""
    return expected_return(mdp_of(ShortCorridor(max_steps=0)), torch.stack([1 - right, right])[None], 1.0)


def test_the_short_corridor_is_best_walked_at_random():
    """Sutton & Barto 2018, Example 13.1. By hand, V(p) = (2p − 4)/(p(1 − p)), whose maximum is at 2 − √2."""
    best = torch.tensor(2 - math.sqrt(2), dtype=torch.float64, requires_grad=True)
    value = corridor_value(best)
    (gradient,) = torch.autograd.grad(value, best)
    assert math.isclose(float(value.detach()), -6 - 4 * math.sqrt(2), abs_tol=1e-9)
    assert abs(float(gradient)) < 1e-9
    for right in (0.05, 0.3, 0.58, 0.6, 0.95):
        by_hand = (2 * right - 4) / (right * (1 - right))
        assert math.isclose(float(corridor_value(torch.tensor(right, dtype=torch.float64))), by_hand, abs_tol=1e-9)
        assert by_hand < -6 - 4 * math.sqrt(2)


def test_nearly_greedy_policies_of_the_short_corridor_earn_what_the_book_says():
    """Its figure: ε-greedy with ε = 0.1 earns less than −44 going right, less than −82 going left."""
    assert int(corridor_value(torch.tensor(0.95, dtype=torch.float64))) == -44
    assert int(corridor_value(torch.tensor(0.05, dtype=torch.float64))) == -82


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [8, 100], ids=["few lanes", "many lanes"])
@pytest.mark.parametrize("way", ["sampled from tables", "stepped"])
def test_hidden_states_are_met_as_they_are_solved(lanes, way):
    """Every step shows the one observation; 4000 uniform episodes earn V(½) = −12 within six standard errors."""
    shard = shard_of(
        environment=ShortCorridor().build(lanes, CPU),
        lanes=lanes,
        steps=None,
        episodes=4000,
        fixed_steps=None,
        seed=3,
        number=0,
        device=CPU,
        labels=("environment", "policy"),
    )
    policy = TabularPolicy(torch.zeros(1, 2))
    assert isinstance(shard, TabularShard)
    if way == "stepped":
        rollout, finished, _ = shard.collect(policy, policy, 0, True)
    else:
        rollout, finished, ends = shard.collect(policy, policy.actor(), 0, True)
        assert (ends.observations == 0).all()
        assert torch.allclose(rollout.log_probs[rollout.mask], torch.tensor(0.5).log())
    assert (rollout.observations == 0).all()
    returns = torch.as_tensor(finished.returns)
    assert abs(float(returns.mean()) + 12) < 6 * float(returns.std()) / math.sqrt(len(returns))


def test_the_cliff_is_gymnasiums():
    """Its table P, state by state: successors, rewards, ends. A fall leads to the start and ends nothing."""
    mdp = mdp_of(Cliff())
    table = gymnasium.make("CliffWalking-v1").unwrapped.P
    goal = 47
    assert mdp.terminal.nonzero().flatten().tolist() == [goal]
    assert mdp.start.nonzero().flatten().tolist() == [36]
    for state in set(range(48)) - set(range(37, 48)):  # the cliff and the goal are never stood on
        for action, outcomes in table[state].items():
            ((probability, successor, reward, terminated),) = outcomes
            assert mdp.transitions[state, action, successor] == probability == 1
            assert mdp.rewards[state, action, successor] == reward
            assert mdp.terminal[successor] == terminated


def test_the_cliffs_paths_earn_what_the_book_says():
    """Sutton & Barto 2018, Example 6.6: −13 is the best return; along the far wall, −17."""
    mdp = mdp_of(Cliff(max_steps=0))
    values = torch.zeros(48, dtype=torch.float64)
    for _ in range(48):
        outcomes = (mdp.transitions * (mdp.rewards + values)).sum(-1).amax(1)
        values = outcomes.masked_fill(mdp.terminal, 0.0)
    assert values[36] == -13
    lanes = Cliff().build(1, CPU)
    lanes.reset(torch.Generator())
    earned = [lanes.step(torch.tensor([action]), torch.Generator()).rewards.item() for action in [0] * 3 + [1] * 11]
    assert sum(earned) == -14
    steps = [lanes.step(torch.tensor([2]), torch.Generator()) for _ in range(3)]
    assert steps[-1].terminated.item()
    assert sum(earned) - 3 == -17


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32))
def test_a_random_world_has_so_many_successors(states, actions, branching, seed):
    """Each state and action leads to `branching` different states, with certainty to one of them."""
    if branching > states:
        with pytest.raises(ValueError, match="'branching' must be <= states"):
            RandomMDP(states=states, actions=actions, branching=branching)
        return
    settings = RandomMDP(states=states, actions=actions, branching=branching, seed=seed)
    mdp = mdp_of(settings)
    assert mdp.transitions.shape == mdp.rewards.shape == (states, actions, states)
    assert (mdp.transitions >= 0).all()
    assert ((mdp.transitions > 0).sum(-1) == branching).all()
    assert torch.allclose(mdp.transitions.sum(-1), torch.ones(states, actions, dtype=torch.float64))
    again = mdp_of(settings)
    assert torch.equal(mdp.transitions, again.transitions)
    assert torch.equal(mdp.rewards, again.rewards)


def test_random_worlds_differ_by_seed_and_have_standard_normal_rewards():
    """Of 40,000 rewards the mean is within six standard errors, 1/200, of 0, and the mean square of 1 (√2/200)."""
    rewards = mdp_of(RandomMDP(states=100, actions=4)).rewards
    assert not torch.equal(rewards, mdp_of(RandomMDP(states=100, actions=4, seed=1)).rewards)
    assert abs(rewards.mean()) < 6 / 200
    assert abs(rewards.square().mean() - 1) < 6 * math.sqrt(2) / 200


def test_cut_points_make_every_piece_alike():
    """Three pieces of the unit interval: each is 1/3 in the mean, with variance 1/18 (a Dirichlet with all ones)."""
    mdp = mdp_of(RandomMDP(states=200, actions=10, branching=3))
    pieces = mdp.transitions[mdp.transitions > 0]
    assert math.isclose(float(pieces.var()), 1 / 18, rel_tol=0.1)


@given(mdps(), st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_lanes_of_tables_go_where_the_tables_allow(world, count, seed, data):
    """Every transition is possible, paid as the table says, and ends where it says or when time is up."""
    lanes = TabularLanes(world, count)
    generator = torch.Generator().manual_seed(seed)
    before, clock = lanes.reset(generator).clone(), torch.zeros(count)
    assert (world.start[before] > 0).all()
    for _ in range(6):
        actions = torch.tensor(
            data.draw(st.lists(st.integers(0, lanes.action_space.n - 1), min_size=count, max_size=count))
        )
        step = lanes.step(actions, generator)
        clock += 1
        assert (world.transitions[before, actions, step.successors] > 0).all()
        assert torch.equal(step.rewards, world.rewards[before, actions, step.successors].float())
        assert torch.equal(step.terminated, world.terminal[step.successors])
        assert torch.equal(step.truncated, clock == world.time_limit)
        ended = step.terminated | step.truncated
        assert torch.equal(step.observations[~ended], step.successors[~ended])
        assert (world.start[step.observations[ended]] > 0).all()
        clock[ended] = 0
        before = step.observations.clone()


def test_lanes_of_tables_go_as_often_as_the_tables_say():
    """100,000 lanes, one step: each share within six standard errors of its probability; so are the starts."""
    settings = RandomMDP(states=4, actions=2, branching=3, seed=5)
    count = 100_000
    lanes, mdp = settings.build(count, CPU), mdp_of(settings)
    generator = torch.Generator().manual_seed(1)
    first = lanes.reset(generator).clone()
    for action in range(2):
        successors = lanes.step(torch.full((count,), action), generator).successors.clone()
        for state in range(4):
            here = successors[first == state]
            for after in range(4):
                p = float(mdp.transitions[state, action, after])
                share = float((here == after).double().mean())
                assert abs(share - p) <= 6 * math.sqrt(p * (1 - p) / len(here))
        first = lanes.reset(generator).clone()
    shares = torch.bincount(first, minlength=4) / count
    assert (shares - 0.25).abs().max() < 6 * math.sqrt(3 / 16 / count)


def test_what_a_state_shows_is_looked_up_in_the_policys_table():
    """A table of one row for all states gives what the same row repeated for every state gives."""
    mdp = mdp_of(ShortCorridor(max_steps=7))
    row = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    plain = TabularMDP(mdp.transitions, mdp.rewards, mdp.start, mdp.terminal, 7)
    assert torch.equal(state_values(mdp, row, 0.9), state_values(plain, row.expand(4, 2), 0.9))


@pytest.mark.parametrize(
    "observations", [torch.tensor([0, 0, 0]), torch.tensor([0, 0, 2, 0]), torch.tensor([0, -1, 0, 0])]
)
def test_observations_that_are_none_of_the_space_are_refused(observations):
    from attrs import evolve, frozen

    class Lanes(TabularLanes):
        def mdp(self):
            return evolve(super().mdp(), observations=observations)

    @frozen
    class Wrong:
        def build(self, num_envs, device):
            return Lanes(evolve(mdp_of(ShortCorridor()), observations=torch.tensor([0, 1, 0, 0])), num_envs, device)

    with pytest.raises(framework.UsageError, match=r"mdp\(\): observations: "):
        framework.train(environment=Wrong(), iterations=1)


def test_commands_know_that_states_look_alike(tmp_path, monkeypatch, capsys):
    """`run` prints one row of probabilities; `credit`, which draws the values of states, refuses."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--environment", "short_corridor", "--iterations", "1", "--reports"]) == 0
    assert json.loads(capsys.readouterr().out)["states"] == [0]
    assert main(["credit", "--environment", "short_corridor"]) == 2
    assert "environment 'short_corridor' (plugin tabular_worlds): hides its states" in capsys.readouterr().err
