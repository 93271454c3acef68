"""Collecting: whole episodes by number and by size, fixed steps, shards; stepped and from tables, by the same laws."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from worlds import Lanes, TabularPolicy, shard

import framework
from framework import Action, PartError, Step
from framework.collecting.rollout import collect
from framework.exact import expected_return
from framework.tabular.shard import TabularShard
from framework.tabular.tables import Tables
from framework.testing.strategies import mdps

WAYS = ("stepped", "stepped with the table actor", "in turn", "together")
"""Step by step with the policy or its actor; from tables lane by lane, and all lanes together."""


def gather(way, world, policy, lanes, iterations=1, shards=1, values=False, **amount):
    """Rollouts of `iterations` iterations, collected in one of the four ways."""
    policy.fast = way != "stepped"
    tables = way in ("in turn", "together")
    parts = [shard(world, tables, lanes // shards, seed=3, number=k, **amount) for k in range(shards)]
    assert all(isinstance(part, TabularShard) == tables for part in parts)
    if way == "together":
        for part in parts:
            part.few_lanes = 0
    return [collect(parts, policy, policy.actor() or policy, i, values) for i in range(iterations)]


def policies(world, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(world.transitions.shape[:2], generator=generator)
    return TabularPolicy(logits, torch.randn(len(world.start), generator=generator))


def lane_story(rollout, n):
    """The real steps of one lane, in order: (t, observation, action, reward, terminated, truncated, time, episode)."""
    names = ("observations", "actions", "rewards", "terminated", "truncated", "times", "episodes")
    return [
        (t, *(getattr(rollout, name)[t, n].item() for name in names))
        for t in range(len(rollout.mask))
        if rollout.mask[t, n]
    ]


def obeys_the_world(world, story):
    """Each step of a lane is possible, its reward and flags are the world's, and times count from each beginning."""
    for position, (_, s, a, reward, terminated, truncated, time, episode) in enumerate(story):
        assert not world.terminal[s]
        following = story[position + 1] if position + 1 < len(story) else None
        possible = world.transitions[s, a] > 0
        if terminated:
            possible = possible & world.terminal
        elif not truncated and following is not None:
            possible = possible & (torch.arange(len(possible)) == following[1])
        else:
            possible = possible & ~world.terminal
        assert any(math.isclose(reward, r, abs_tol=1e-6) for r in world.rewards[s, a][possible].tolist())
        assert truncated <= (time + 1 == world.time_limit)
        assert terminated or truncated or time + 1 < world.time_limit
        if following is not None:
            assert following[6] == (0 if terminated or truncated else time + 1)
            assert (following[7] == episode) == (not (terminated or truncated))


def padding_is_clean(rollout):
    for name in ("rewards", "log_probs", "terminated", "truncated", "times", "episodes"):
        assert not getattr(rollout, name)[~rollout.mask].any(), name


def episodes_of(rollout):
    """Per episode number: (first t, return, length)."""
    by_number = {}
    for n in range(rollout.mask.shape[1]):
        for t, _, _, reward, _, _, _, episode in lane_story(rollout, n):
            first, total, length = by_number.get(episode, (t, 0.0, 0))
            by_number[episode] = (first, total + reward, length + 1)
    return by_number


SEEDS = st.integers(0, 10_000)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["steps", "episodes"])
def test_whole_episodes(way, mode):
    """Whole episodes: stories obey the world, every begun episode is finished, and the amount is met."""

    @given(mdps(), SEEDS, st.integers(1, 4), st.integers(1, 12))
    def check(world, seed, lanes, amount):
        ((rollout, finished),) = gather(way, world, policies(world, seed), lanes, **{mode: amount})
        padding_is_clean(rollout)
        by_number = episodes_of(rollout)
        assert sorted(by_number) == list(range(len(by_number)))
        begins = [by_number[number][0] for number in range(len(by_number))]
        assert begins == sorted(begins)
        for n in range(lanes):
            story = lane_story(rollout, n)
            obeys_the_world(world, story)
            assert [step[0] for step in story] == list(range(len(story)))  # busy from 0 until it stops
            if story:
                assert story[0][6] == 0
                assert story[-1][4] or story[-1][5]
        scores = Counter((round(total, 4), length) for _, total, length in by_number.values())
        assert scores == Counter((round(r, 4), int(k)) for r, k in zip(finished.returns, finished.lengths, strict=True))
        if mode == "episodes":
            assert len(by_number) == amount
        else:
            assert int(rollout.mask.sum()) >= amount
            taken = [int(rollout.mask[:t].sum()) for t in range(len(rollout.mask) + 1)]
            assert all(begin == 0 or taken[begin] < amount for begin in begins)
            assert all(taken[len(lane_story(rollout, n))] >= amount for n in range(lanes))

    check()


@pytest.mark.parametrize("way", WAYS)
def test_fixed_steps_carry_episodes_over(way):
    """Three rollouts read as one: no step is lost between them, and scores are those of whole episodes."""

    @given(mdps(), SEEDS, st.integers(1, 4), st.integers(1, 5))
    def check(world, seed, lanes, steps):
        gathered = gather(way, world, policies(world, seed), lanes, iterations=3, fixed_steps=steps)
        scores, expected = Counter(), Counter()
        for rollout, finished in gathered:
            assert rollout.mask.shape == (steps, lanes)
            assert rollout.mask.all()
            by_number = episodes_of(rollout)
            assert sorted(by_number) == list(range(len(by_number)))
            begins = [by_number[number][0] for number in range(len(by_number))]
            assert begins == sorted(begins)
            scores.update((round(r, 4), int(k)) for r, k in zip(finished.returns, finished.lengths, strict=True))
        for n in range(lanes):
            story, base = [], 0
            for rollout, _ in gathered:
                base += 1000
                story += [(*step[:7], base + step[7]) for step in lane_story(rollout, n)]
            joined, number = [], 0
            for step in story:  # number episodes anew, by their first steps
                number += step[6] == 0
                joined.append((*step[:7], number))
            obeys_the_world(world, joined)
            total = length = 0
            for _, _, _, reward, terminated, truncated, _, _ in joined:
                total, length = total + reward, length + 1
                if terminated or truncated:
                    expected[(round(total, 4), length)] += 1
                    total = length = 0
        assert scores == expected

    check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("amount", [{"steps": 9}, {"episodes": 7}, {"fixed_steps": 4}], ids=str)
def test_values_are_of_the_step_and_of_the_true_successor(way, amount):
    """V(s) of each step; V(s′): 0 where the world ended, the successor's own where time ran out or the rollout does."""

    @given(mdps(), SEEDS)
    def check(world, seed):
        policy = policies(world, seed)
        table = policy.table.detach()
        ((rollout, _),) = gather(way, world, policy, 4, values=True, **amount)
        assert torch.equal(rollout.values, torch.where(rollout.mask, table[rollout.observations], 0.0))
        for n in range(4):
            story = lane_story(rollout, n)
            for position, (t, s, a, _, terminated, truncated, _, _) in enumerate(story):
                value = rollout.successor_values[t, n]
                if terminated:
                    assert value == 0
                elif not truncated and position + 1 < len(story):
                    assert value == table[story[position + 1][1]]
                else:
                    reachable = (world.transitions[s, a] > 0) & ~world.terminal
                    assert value in table[reachable]
        assert not rollout.successor_values[~rollout.mask].any()

    check()


@pytest.mark.parametrize("change", [torch.t, torch.flatten, lambda table: table[:, :1], lambda table: table.long()])
@given(mdps(), SEEDS)
def test_a_table_of_another_shape_is_the_policys_mistake(change, world, seed):
    states, actions = world.transitions.shape[:2]
    assume(states != actions > 1)
    policy = policies(world, seed)
    part = shard(world, True, 2, seed=3, number=0, episodes=2)
    actor = SimpleNamespace(log_probs=change(policy.logits.detach().log_softmax(1)))
    with pytest.raises(PartError, match=r"actor: log_probs: expected (shape .* \[O, A\]|floating point)"):
        collect([part], policy, actor, 0, False)


@pytest.mark.parametrize("way", WAYS)
def test_log_probs_are_the_acting_policys(way):
    @given(mdps(), SEEDS)
    def check(world, seed):
        policy = policies(world, seed)
        ((rollout, _),) = gather(way, world, policy, 3, episodes=5)
        expected = policy.logits.detach().log_softmax(1)[rollout.observations, rollout.actions]
        assert torch.equal(rollout.log_probs, torch.where(rollout.mask, expected, 0.0))

    check()


@pytest.mark.parametrize("way", WAYS)
def test_shards_are_assembled_side_by_side(way):
    """Two shards of two lanes, padded to the longer; the episodes of the second are numbered after the first's."""

    @given(mdps(), SEEDS)
    def check(world, seed):
        policy = policies(world, seed)
        ((rollout, finished),) = gather(way, world, policy, 4, shards=2, episodes=3)
        padding_is_clean(rollout)
        by_number = episodes_of(rollout)
        assert sorted(by_number) == list(range(6))  # each of the two shards here was asked for three
        assert len(finished.returns) == 6
        assert all(by_number[number][0] <= by_number[number + 1][0] for number in (0, 1, 3, 4))
        for n in range(4):
            obeys_the_world(world, lane_story(rollout, n))
        assert not (rollout.episodes[:, :2] >= 3).any()

    check()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_collecting_repeats_bit_for_bit_and_differs_by_iteration(way):
    @given(mdps(states=(3, 4), actions=(2, 3)), SEEDS)
    def check(world, seed):
        policy = policies(world, seed)
        first, again = (gather(way, world, policy, 3, iterations=2, steps=60) for _ in range(2))
        for (one, _), (two, _) in zip(first, again, strict=True):
            for name in ("observations", "actions", "rewards", "log_probs"):
                assert torch.equal(getattr(one, name), getattr(two, name))
        assume(world.time_limit > 1)
        actions = [rollout.actions[rollout.mask].tolist() for rollout, _ in first]
        assert (
            actions[0] != actions[1]
        )  # 60 or more choices among two: alike with probability below 1e-9 (if not certain)

    check()


@given(mdps(), SEEDS)
def test_edges_leave_each_outcome_its_probability(world, seed):
    """The interval of outcome (a, s′) in state s is π(a|s)·P(s′|s,a) long; what is impossible has none."""
    tables = Tables.of(Lanes(world, 1, tables=True))
    log_probs = policies(world, seed).logits.detach().log_softmax(1).numpy()
    edges = np.concatenate([np.zeros((len(world.start), 1)), np.minimum(tables.edges(log_probs), 1.0)], axis=1)
    lengths = np.diff(np.concatenate([edges, np.ones((len(edges), 1))], axis=1), axis=1).reshape(-1)
    joint = np.zeros(world.transitions.shape)
    states = np.arange(len(lengths)) // tables.width
    np.add.at(joint, (states, tables.actions, tables.successors), lengths)
    expected = np.exp(log_probs)[:, :, None] * world.transitions.numpy()
    alive = ~world.terminal.numpy()
    assert np.allclose(joint[alive], expected[alive], atol=1e-6)  # log-probs are float32


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_tables_and_steps_have_one_distribution(way):
    """20,000 episodes of a stochastic world: outcome frequencies and mean return, within six standard errors."""
    generator = torch.Generator().manual_seed(5)
    transitions = torch.rand(4, 3, 4, generator=generator, dtype=torch.float64)
    transitions[0, 0, 1] = 0  # an impossible successor among possible ones
    transitions /= transitions.sum(-1, keepdim=True)
    world = framework.TabularMDP(
        transitions,
        torch.randn(4, 3, 4, generator=generator, dtype=torch.float64),
        torch.tensor([0.5, 0.2, 0.3, 0.0], dtype=torch.float64),
        torch.tensor([False, False, False, True]),
        time_limit=6,
    )
    policy = policies(world, 1)
    ((rollout, finished),) = gather(way, world, policy, 100 if way == "together" else 20, episodes=20_000)
    probabilities = policy.logits.detach().double().softmax(1)
    mean, error = finished.returns.mean(), finished.returns.std() / math.sqrt(len(finished.returns))
    assert abs(mean - float(expected_return(world, probabilities, 1.0))) < 6 * error

    begins = Counter(rollout.observations[rollout.mask & (rollout.times == 0)].tolist())
    steps = Counter(
        zip(*(getattr(rollout, k)[rollout.mask].tolist() for k in ("observations", "actions")), strict=True)
    )
    visits = Counter(rollout.observations[rollout.mask].tolist())
    goes_on = rollout.mask & ~rollout.terminated & ~rollout.truncated
    following = torch.cat([rollout.observations[1:], rollout.observations[-1:]])
    moves = Counter(
        zip(*(x[goes_on].tolist() for x in (rollout.observations, rollout.actions, following)), strict=True)
    )
    going = Counter(zip(*(x[goes_on].tolist() for x in (rollout.observations, rollout.actions)), strict=True))

    def near(count, total, probability):
        spread = math.sqrt(total * probability * (1 - probability)) + 1e-9
        assert abs(count - total * probability) < 6 * spread, (count, total, probability)

    for state, probability in enumerate(world.start.tolist()):
        near(begins[state], 20_000, probability)
    for state in range(3):
        for action in range(3):
            near(steps[state, action], visits[state], float(probabilities[state, action]))
            row = transitions[state, action, :3] / transitions[state, action, :3].sum()  # given that it goes on
            for successor in range(3):
                near(moves[state, action, successor], going[state, action], float(row[successor]))


class NextStepLanes(Lanes):
    """Gymnasium's NEXT_STEP mode: after an end comes a reset row, whose action and reward mean nothing."""

    def reset(self, generator):
        self.over = torch.zeros(self.count, dtype=torch.bool)
        return super().reset(generator)

    def step(self, actions, generator):
        states, clock, over = self.states.clone(), self.clock.clone(), self.over
        step = super().step(actions, generator)
        first = self.first(self.count, generator)
        self.states = torch.where(over, first, step.successors)
        self.clock = torch.where(over, 0, clock + 1)
        ended = (step.terminated | step.truncated) & ~over
        self.over = ended
        self.states = torch.where(ended, torch.where(step.terminated, states, self.states), self.states)
        return Step(
            self.states,
            torch.where(over, first, step.successors),
            torch.where(over, 77.0, step.rewards),  # never to be seen
            step.terminated & ~over,
            step.truncated & ~over,
            valid=~over,
        )


@pytest.mark.parametrize("amount", [{"steps": 9}, {"episodes": 7}, {"fixed_steps": 6}], ids=str)
def test_reset_rows_are_no_steps(amount):
    """Rows with `valid` False are masked, count as no step, and belong to no episode."""

    @given(mdps(), SEEDS)
    def check(world, seed):
        part = shard(world, False, 3, **amount)
        part.environment = NextStepLanes(world, 3, False)
        policy = policies(world, seed)
        rollout, finished = collect([part], policy, policy, 0, False)
        padding_is_clean(rollout)
        assert not (rollout.rewards == 77.0).any()
        by_number = episodes_of(rollout)
        if "fixed_steps" not in amount:
            assert len(finished.returns) == len(by_number)
        else:
            assert rollout.mask.shape == (6, 3)
        for n in range(3):
            obeys_the_world(world, lane_story(rollout, n))

    check()


BROKEN = {
    "rewards of the wrong shape": (
        lambda step: evolve(step, rewards=step.rewards[:, None]),
        r"environment 'world' \(plugin tests\): step: rewards: expected shape \[2\] \[N\], got \[2, 1\]",
    ),
    "rewards of integers": (
        lambda step: evolve(step, rewards=step.rewards.long()),
        "step: rewards: expected floating point, got torch.int64",
    ),
    "flags that are numbers": (
        lambda step: evolve(step, terminated=step.terminated.float()),
        "step: terminated: expected torch.bool, got torch.float32",
    ),
    "rewards that are NaN": (
        lambda step: evolve(step, rewards=torch.full((2,), torch.nan)),
        r"environment 'world' \(plugin tests\): rewards: not finite \(nan\) at step 0, lane 0",
    ),
    "observations outside the space": (
        lambda step: evolve(step, observations=step.observations + 100),
        r"observations: 1\d\d is outside Discrete\(\d\) at step 1, lane 0",
    ),
    "no Step at all": (lambda step: (step.observations, step.rewards), "step: expected a Step, got tuple"),
}


class BlindPolicy(TabularPolicy):
    def act(self, inputs, generator):
        return Action(torch.zeros(2, dtype=torch.int64), torch.zeros(2))


@pytest.mark.parametrize("case", BROKEN)
def test_an_environment_that_breaks_its_contract_is_named(case):
    breaking, message = BROKEN[case]
    world = framework.TabularMDP(
        torch.full((3, 2, 3), 1 / 3, dtype=torch.float64),
        torch.ones(3, 2, 3),
        torch.tensor([1.0, 0, 0]),
        torch.tensor([False, False, True]),
        4,
    )
    part = shard(world, False, 2, fixed_steps=5)
    genuine = part.environment.step
    part.environment.step = lambda actions, generator: breaking(genuine(torch.zeros_like(actions), generator))
    policy = BlindPolicy(torch.zeros(3, 2))
    with pytest.raises(PartError, match=message):
        collect([part], policy, policy, 0, False)


def test_a_policy_that_breaks_its_contract_is_named():
    world = framework.TabularMDP(
        torch.full((2, 2, 2), 0.5, dtype=torch.float64),
        torch.ones(2, 2, 2),
        torch.tensor([1.0, 0]),
        torch.tensor([False, True]),
        4,
    )
    for bad, message in (
        (
            Action(torch.zeros(3, dtype=torch.int64)),
            r"policy 'table' \(plugin tests\): act: actions: expected shape \[2\]",
        ),
        (Action(torch.zeros(2)), r"act: actions: expected torch.int64 \(Discrete actions\), got torch.float32"),
        (torch.zeros(2), "act: expected an Action, got Tensor"),
    ):
        policy = TabularPolicy(torch.zeros(2, 2))
        policy.act = lambda inputs, generator, bad=bad: bad
        with pytest.raises(PartError, match=message):
            collect([shard(world, False, 2, steps=5)], policy, policy, 0, False)
