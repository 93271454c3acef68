"""The laws of evaluations and of greedy actors."""

import random
import statistics

import numpy as np
import pytest
import torch
from attrs import frozen
from framework_line_world import LineWorld
from framework_policies import ActorCritic, MultiCategorical, Tabular
from framework_reinforce import BatchMean, Categorical
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import stats
from worlds import Lanes, TabularPolicy

import framework
from framework import Inputs, OptimizerSettings, RolloutSettings, TabularMDP
from framework.hookspecs import hookimpl
from framework.testing.strategies import mdps

SEEDS = st.integers(0, 2**31)
COUNTS = st.integers(1, 12)


def uniform(world, fast=True):
    return TabularPolicy(torch.zeros(world.transitions.shape[:2]), fast=fast)


def fork():
    """A start that leads to an episode of one step and return 1, or to one of four steps and return −3: a fair coin's
    choice, which nobody acts upon."""
    transitions = torch.zeros(6, 1, 6, dtype=torch.float64)
    transitions[0, 0, 5] = transitions[0, 0, 1] = 0.5
    for state, successor in ((1, 2), (2, 3), (3, 5), (4, 5)):
        transitions[state, 0, successor] = 1
    rewards = torch.full((6, 1, 6), -0.75, dtype=torch.float64)
    rewards[0, 0, 5] = 1.0
    start = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    return TabularMDP(transitions, rewards, start, torch.tensor([False] * 5 + [True]))


# Episodes


def law_exactly_so_many_whole_episodes_are_played(module, world, tables, episodes, lanes, seed):
    """Whatever the lanes; each ends where the environment terminates, and the reported progress adds up."""
    ends, reported = [], []

    class Counted(Lanes):
        def step(self, actions, generator):
            step = super().step(actions, generator)
            ends.append(int((step.terminated | step.truncated).sum()))
            return step

    environment = Counted(world, lanes, tables)
    played = module.play(uniform(world, tables), environment, lanes, episodes, seed=seed, on_progress=reported.append)
    assert len(played.returns) == len(played.lengths) == episodes
    assert (played.lengths >= 1).all()
    assert (played.lengths <= world.time_limit).all()
    assert reported == [*range(lanes, episodes, lanes), episodes]
    assert tables or sum(ends) >= episodes


WORLDS = (mdps(), st.booleans(), COUNTS, st.integers(1, 5), SEEDS)


def law_long_episodes_count_in_full(module, tables, lanes, seed):
    """Half of all episodes are the long ones: were those left out that end late, or begun again, more would be short.

    5 standard deviations of the number of heads in 1000 throws are 79.
    """
    world = fork()
    played = module.play(uniform(world, tables), Lanes(world, lanes, tables), lanes, 1000, seed=seed)
    assert abs(int((played.lengths == 4).sum()) - 500) <= 79
    assert (played.returns == np.where(played.lengths == 4, -3.0, 1.0)).all()


# Randomness


def same(one, other):
    return np.array_equal(one.returns, other.returns) and np.array_equal(one.lengths, other.lengths)


def law_an_evaluation_repeats_bit_for_bit(module, tables, lanes, seed):
    """By its seed alone, also in an environment that has been used; another seed is another evaluation.

    Batches differ, too. Two uniform episodes on the line world are equally long with probability 0.03; six of them and
    six others, in any order, with less than 0.03⁶·6! = 5e-7.
    """
    world = LineWorld().build(1, torch.device("cpu")).mdp()
    environment, policy = Lanes(world, lanes, tables), uniform(world, tables)
    one, two, other = (module.play(policy, environment, lanes, 16, seed=s) for s in (seed, seed, seed + 1))
    assert same(one, two)
    assert not same(one, other)
    if 6 <= lanes <= 8:
        assert not np.array_equal(one.returns[:lanes], one.returns[lanes : 2 * lanes])


RANDOM = (st.booleans(), st.integers(1, 20), SEEDS)


def law_randomness_is_never_that_of_training(module, seed):
    """The same policy and world in as many lanes: other episodes than a run's first rollout of the same seed."""
    settings = RolloutSettings(lanes=32, episodes=32)
    still = OptimizerSettings(lr=0.0)
    run = framework.train(policy=Tabular(), iterations=1, rollout=settings, optimizer=still, seed=seed).run
    environment = LineWorld().build(32, torch.device("cpu"))
    played = module.play(run.policy, environment, 32, 32, seed=seed)
    assert not np.array_equal(played.returns, run.finished.returns)


class Careless(TabularPolicy):
    """Draws from torch's global generator, too; remembers in which mode it acted, and whether with gradient."""

    def __init__(self, logits):
        super().__init__(logits, fast=False)
        self.inner = torch.nn.Dropout()
        self.modes = set()

    def act(self, inputs, generator):
        self.modes.add((self.training, self.inner.training, torch.is_grad_enabled()))
        self.drawn = float(torch.rand(()))
        return super().act(inputs, generator)


def law_nothing_is_left_changed(module, own, inner, seed):
    """Global generators, each module's mode and the parameters; meanwhile it is evaluation mode, without gradient."""
    world = fork()
    policy = Careless(torch.zeros(6, 1))
    policy.training, policy.inner.training = own, inner
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    module.play(policy, Lanes(world, 3, False), 3, 5, seed=seed)
    first = policy.drawn
    torch.rand(7)
    moved = torch.get_rng_state()
    module.play(policy, Lanes(world, 3, False), 3, 5, seed=seed)
    assert policy.drawn == first  # so that even this policy repeats
    assert torch.equal(torch.get_rng_state(), moved)
    torch.set_rng_state(before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert policy.modes == {(False, False, False)}
    assert (policy.training, policy.inner.training) == (own, inner)
    assert torch.is_grad_enabled()


CARELESS = (st.booleans(), st.booleans(), SEEDS)


# Statistics

RETURNS = st.lists(st.integers(-4000, 4000).map(lambda n: n / 4), min_size=1, max_size=40).map(np.array)


def law_statistics_are_scipys(module, returns):
    """And Python's, in exact arithmetic; to float64's rounding of a few operations on numbers up to 1e3."""
    played = module.Performance(returns, np.ones(len(returns), np.int64))
    close = {"rel": 1e-9, "abs": 1e-9}
    assert played.mean == pytest.approx(statistics.mean(returns.tolist()), **close)
    assert played.median == pytest.approx(statistics.median(returns.tolist()), **close)
    assert (played.min, played.max) == (min(returns), max(returns))
    if len(returns) == 1:
        assert np.isnan([played.std, played.standard_error, *played.interval]).all()
        return
    deviation = statistics.stdev(returns.tolist())
    assert played.std == pytest.approx(deviation, **close)
    assert played.standard_error == pytest.approx(deviation / len(returns) ** 0.5, **close)
    if deviation:
        expected = stats.t.interval(0.95, len(returns) - 1, statistics.mean(returns), deviation / len(returns) ** 0.5)
        assert played.interval == pytest.approx(expected, **close)
    else:
        assert played.interval == (returns[0], returns[0])


def built(name, module=None, seed=0):
    """A policy with weights of its own over three states and `OPTIONS`, numbered from −1; its actions' space."""
    several = MultiDiscrete([2, 3], start=[-1, 4])
    actions = several if name == "multi_categorical" else Discrete(3, start=-1)
    settings = {
        "categorical": lambda: getattr(module, "Categorical", Categorical)(),
        "actor_critic": ActorCritic,
        "actor_critic, shared": lambda: ActorCritic(shared=True),
        "tabular": Tabular,
        "multi_categorical": lambda: getattr(module, "MultiCategorical", MultiCategorical)(),
    }[name]()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = settings.build(Discrete(3), actions)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.normal_()
    return policy, actions


def every(actions):
    if isinstance(actions, Discrete):
        return torch.arange(3) - 1
    return torch.cartesian_prod(torch.arange(2) - 1, torch.arange(3) + 4)


def masks(count):
    """[3, count] bool, at least one of each action allowed."""
    pieces = [2, 3] if count == 5 else [count]
    rows = [st.lists(st.booleans(), min_size=n, max_size=n).filter(any) for n in pieces]
    row = st.tuples(*rows).map(lambda parts: [allowed for part in parts for allowed in part])
    return st.one_of(st.none(), st.lists(row, min_size=3, max_size=3).map(torch.tensor))


def law_greedy_takes_the_most_probable_allowed_action(name, module, allowed, seed):
    """By brute force over all actions with `evaluate`; nothing is drawn, and what is forbidden is never taken."""
    policy, actions = built(name, module, seed)
    inputs = Inputs(torch.arange(3), allowed)
    generator = torch.Generator().manual_seed(seed)
    before = generator.get_state()
    chosen = policy.greedy().act(inputs, generator).actions
    assert torch.equal(generator.get_state(), before)
    assert not chosen.requires_grad
    table = []
    for action in every(actions):
        with torch.no_grad():
            table.append(policy.evaluate(inputs, action.expand(3, *action.shape), False).log_probs)
    table = torch.stack(table, 1)
    assert torch.equal(chosen, every(actions)[table.argmax(1)])
    if allowed is not None:
        taken = (chosen + 1)[:, None] if name != "multi_categorical" else chosen - torch.tensor([-1, 2])
        assert allowed.gather(1, taken).all()


def law_greedy_takes_the_mean(module, squash, deviation, seed):
    """Of which `evaluate`, not squashed, says the highest density there is."""
    space = Box(-2.0, 2.0, (2, 2))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = module.Gaussian(squash=squash, deviation=deviation).build(Box(-1.0, 1.0, (3,)), space)
        inputs = Inputs(torch.randn(5, 3))
        policy.squash = False
        chosen = policy.greedy().act(inputs, torch.Generator()).actions
        others = chosen + 0.1 * torch.randn(5, 2, 2)
    assert chosen.shape == (5, 2, 2)
    assert not chosen.requires_grad
    densities = [policy.evaluate(inputs, actions, False).log_probs for actions in (chosen, others)]
    assert (densities[0] > densities[1]).all()


def trained(module, directory, rate=1e-3, iterations=6, greedy=False):
    return framework.train(
        iterations=iterations,
        directory=directory,
        extensions=[module.Evaluate(every=1, episodes=5, greedy=greedy)],
        optimizer=OptimizerSettings(lr=rate),
    )


def law_each_evaluation_has_randomness_of_its_own(module, tmp_path):
    """A policy that does not learn gets other returns each time: five uniform episodes have one mean seldom."""
    means = trained(module, None, rate=0.0).metrics["evaluation/mean_return"]
    assert len(set(means)) > 3


def law_the_best_is_kept(module, tmp_path, greedy=True):
    """The parameters of the first evaluation with the highest mean return: in the record, or in memory without one."""
    result = trained(module, tmp_path / f"{module.__name__}-{greedy}", rate=3e-2, iterations=12, greedy=greedy)
    means = result.metrics["evaluation/mean_return"]
    best = int(means.argmax())  # the first
    policy = framework.train(iterations=best + 1, optimizer=OptimizerSettings(lr=3e-2)).policy.state_dict()
    assert best < 11  # it is none of the run's end
    assert (result.directory / "best.safetensors").is_file()
    kept = load_file(result.directory / "best.safetensors")
    assert kept.keys() == policy.keys()
    assert all(torch.equal(kept[name], policy[name]) for name in kept)
    assert not list(result.directory.glob("*.part"))
    loaded = framework.load(result.directory, best=True).state_dict()
    assert all(torch.equal(kept[name], loaded[name]) for name in kept)
    last = framework.load(result.directory).state_dict()
    assert any(not torch.equal(kept[name], last[name]) for name in kept)


# The extension `early_stop`


def law_it_stops_as_soon_as_the_last_episodes_are_good_enough(module, threshold, episodes):
    """By the run's own returns, taken down after each iteration."""
    seen = []

    @frozen
    class EpisodeWatch:
        "Of this test."

        def build(self, run):
            return self

        @hookimpl
        def iteration_finished(self, run):
            seen.append(list(run.recent_returns))

    stop = module.EarlyStop(mean_return=threshold, episodes=episodes)
    result = framework.train(iterations=40, seed=1, extensions=[EpisodeWatch(), stop], baseline=BatchMean())
    good = [len(last) >= episodes and np.mean(last[-episodes:]) >= threshold for last in seen]
    assert good[:-1] == [False] * (len(good) - 1)
    assert good[-1] or len(good) == 40
    reasons = [f"mean return {np.mean(seen[-1][-episodes:]):.2f} of the last {episodes} episodes reached {threshold}"]
    assert list(result.stop_reasons) == (reasons if good[-1] else [])


EARLY = (st.sampled_from([-60.0, -20.0, -5.0, 0.0, 1e6]), st.sampled_from([1, 7, 30, 100]))
