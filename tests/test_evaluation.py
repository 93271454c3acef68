"""Evaluations: exactly so many whole episodes, repeated bit for bit, apart from training, with the right statistics."""

import random
import statistics

import framework_evaluation
import framework_policies.gaussian as gaussian
import framework_policies.multi_categorical as multi_categorical
import framework_reinforce.categorical as categorical
import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from framework_classic import CartPole, Pendulum
from framework_corridor import Corridor
from framework_evaluation import EarlyStop, Evaluate
from framework_line_world import LineWorld
from framework_policies import ActorCritic, Gaussian, MultiCategorical, Recurrent, Tabular
from framework_reinforce import BatchMean, Categorical
from framework_reports.plot import learning_curve
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from safetensors.torch import load_file
from scipy import stats
from worlds import Lanes, TabularPolicy

import framework
from framework import Inputs, OptimizerSettings, PartError, Performance, RolloutSettings, TabularMDP, UsageError
from framework import evaluation as evaluations
from framework.exact import expected_return
from framework.hookspecs import hookimpl
from framework.streams import derived_seed
from framework.testing.strategies import mdps

SEEDS = st.integers(0, 2**31)
COUNTS = st.integers(1, 12)
UNIFORM = torch.full((5, 2), 0.5, dtype=torch.float64)


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
    """Whatever the lanes; each ends as the world ends it, and what is told adds up."""
    ends, told = [], []

    class Counted(Lanes):
        def step(self, actions, generator):
            step = super().step(actions, generator)
            ends.append(int((step.terminated | step.truncated).sum()))
            return step

    environment = Counted(world, lanes, tables)
    played = module.play(uniform(world, tables), environment, lanes, episodes, seed=seed, on_progress=told.append)
    assert len(played.returns) == len(played.lengths) == episodes
    assert (played.lengths >= 1).all()
    assert (played.lengths <= world.time_limit).all()
    assert told == [*range(lanes, episodes, lanes), episodes]
    assert tables or sum(ends) >= episodes


WORLDS = (mdps(), st.booleans(), COUNTS, st.integers(1, 5), SEEDS)


@given(*WORLDS)
def test_exactly_so_many_whole_episodes_are_played(world, tables, episodes, lanes, seed):
    law_exactly_so_many_whole_episodes_are_played(evaluations, world, tables, episodes, lanes, seed)


def law_long_episodes_count_in_full(module, tables, lanes, seed):
    """Half of all episodes are the long ones: were those left out that end late, or begun again, more would be short.

    5 standard deviations of the number of heads in 1000 throws are 79.
    """
    world = fork()
    played = module.play(uniform(world, tables), Lanes(world, lanes, tables), lanes, 1000, seed=seed)
    assert abs(int((played.lengths == 4).sum()) - 500) <= 79
    assert (played.returns == np.where(played.lengths == 4, -3.0, 1.0)).all()


FEW_LANES = st.sampled_from([1, 7, 16, 300, 1024])


@pytest.mark.slow
@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("lanes", [1, 7, 300, 1024])
def test_long_episodes_count_in_full(tables, lanes):
    law_long_episodes_count_in_full(evaluations, tables, lanes, 0)


@pytest.mark.slow
@pytest.mark.parametrize("goal", [2, 4])
@pytest.mark.parametrize("lanes", [1, 16, 64])
def test_a_sampled_evaluation_agrees_with_the_exact_expectation(goal, lanes):
    """Within five standard errors of J, for the uniform policy; its time limit included."""
    environment = LineWorld(goal=goal)
    policy = Tabular().build(Discrete(goal + 1), Discrete(2))
    played = framework.evaluate(policy, environment, episodes=2000, lanes=lanes, seed=goal)
    mdp = environment.build(1, torch.device("cpu")).mdp()
    exact = float(expected_return(mdp, UNIFORM[: goal + 1], 1.0))
    assert abs(played.mean - exact) < 5 * played.standard_error


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


@given(*RANDOM)
def test_an_evaluation_repeats_bit_for_bit(tables, lanes, seed):
    law_an_evaluation_repeats_bit_for_bit(evaluations, tables, lanes, seed)


def law_randomness_is_never_that_of_training(module, seed):
    """The same policy and world in as many lanes: other episodes than a run's first rollout of the same seed."""
    settings = RolloutSettings(lanes=32, episodes=32)
    still = OptimizerSettings(lr=0.0)
    run = framework.train(policy=Tabular(), iterations=1, rollout=settings, optimizer=still, seed=seed).run
    environment = LineWorld().build(32, torch.device("cpu"))
    played = module.play(run.policy, environment, 32, 32, seed=seed)
    assert not np.array_equal(played.returns, run.finished.returns)


@pytest.mark.parametrize("seed", [0, 1])
def test_randomness_is_never_that_of_training(seed):
    law_randomness_is_never_that_of_training(evaluations, seed)


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


@given(*CARELESS)
def test_nothing_is_left_changed(own, inner, seed):
    law_nothing_is_left_changed(evaluations, own, inner, seed)


def test_modes_are_put_back_if_a_part_raises():
    policy = uniform(fork(), fast=False)
    policy.act = lambda inputs, generator: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluations.play(policy, Lanes(fork(), 1, False), 1, 1, seed=0)
    assert policy.training


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


@given(RETURNS)
def test_statistics_are_scipys(returns):
    law_statistics_are_scipys(evaluations, returns)


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_the_interval_covers_the_mean_of_normal_returns_19_times_in_20(count):
    """Student's theorem. Of 4000 samples, the share that covers has a standard deviation of √(0.05·0.95/4000) = 0.0034;
    allowed are five."""
    samples = np.random.default_rng(count).normal(3.0, 2.0, (4000, count))
    intervals = (Performance(sample, np.ones(count, np.int64)).interval for sample in samples)
    covered = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert abs(covered - 0.95) < 5 * 0.0034


@pytest.mark.slow
def test_the_interval_covers_the_expected_return_of_the_line_world_about_as_often():
    """Returns of the uniform policy are far from normal (skewness −1.9). Of 1000 evaluations of 100 episodes, the share
    has a standard deviation of 0.0069; the interval's own error is of the order of skewness²/E. 0.946 was seen."""
    mdp = LineWorld().build(1, torch.device("cpu")).mdp()
    exact = float(expected_return(mdp, UNIFORM, 1.0))
    policy, environment = uniform(mdp), Lanes(mdp, 100, True)
    intervals = [evaluations.play(policy, environment, 100, 100, seed=seed).interval for seed in range(1000)]
    covered = np.mean([low <= exact <= high for low, high in intervals])
    assert abs(covered - 0.95) < 0.03


# Greedy

OPTIONS = {"categorical": 3, "actor_critic": 3, "actor_critic, shared": 3, "tabular": 3, "multi_categorical": 5}


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


@pytest.mark.parametrize("name", OPTIONS)
@given(st.data())
def test_greedy_takes_the_most_probable_allowed_action(name, data):
    law_greedy_takes_the_most_probable_allowed_action(name, None, data.draw(masks(OPTIONS[name])), data.draw(SEEDS))


@given(st.lists(st.booleans(), min_size=4, max_size=4), masks(3), SEEDS)
def test_greedy_remembers(starts, allowed, seed):
    """With memory, step by step: what `evaluate` says of the whole sequence is most probable is taken."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = Recurrent(memory=5).build(Discrete(3), Discrete(3, start=-1))
        observations = torch.randint(3, (4, 3))
    started = torch.tensor([starts] * 3).T
    row_masks = None if allowed is None else allowed.expand(4, 3, 3)
    actor, state, chosen = policy.greedy(), None, []
    for t in range(4):
        acted = actor.act(Inputs(observations[t], allowed, state, started[t]), torch.Generator())
        state = acted.state
        chosen.append(acted.actions)
        assert not acted.actions.requires_grad
        assert not state.requires_grad
    inputs = Inputs(observations, row_masks, torch.zeros(3, 5), started)
    table = [policy.evaluate(inputs, torch.full((4, 3), action), False).log_probs for action in (-1, 0, 1)]
    assert torch.equal(torch.stack(chosen), torch.stack(table, -1).argmax(-1) - 1)


@pytest.mark.parametrize("cls", [Categorical, ActorCritic, Recurrent])
def test_greedy_normalises_as_sampling_does(cls):
    """One step from no memory, after statistics of observations have been taken in."""
    policy = framework.train(policy=cls(normalize=True), environment=CartPole(), iterations=2).policy.eval()
    observations = 3 * torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    chosen = policy.greedy().act(Inputs(observations), torch.Generator()).actions
    rows = Inputs(observations) if cls is not Recurrent else Inputs(observations[None])  # a sequence of one step
    table = [policy.evaluate(rows, chosen.new_full(rows.observations.shape[:-1], a), False).log_probs for a in (0, 1)]
    assert torch.equal(chosen, torch.stack(table, -1).reshape(40, 2).argmax(1))
    assert 0 < chosen.sum() < 40


def test_each_greedy_policy_plays():
    """In its own kind of world, to the end; memory included."""
    for policy, environment in ((Recurrent(), Corridor()), (Categorical(), CartPole()), (Gaussian(), Pendulum())):
        trained = framework.train(policy=policy, environment=environment, iterations=1).policy
        one, two = (framework.evaluate(trained, environment, episodes=5, lanes=3, greedy=True) for _ in range(2))
        assert same(one, two)
        assert len(one.returns) == 5


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


@given(st.booleans(), st.sampled_from(["global", "state"]), SEEDS)
def test_greedy_takes_the_mean(squash, deviation, seed):
    law_greedy_takes_the_mean(gaussian, squash, deviation, seed)


def test_a_trained_tabular_policy_is_optimal_when_greedy():
    """7 is the best return of the line world: three steps of −1, and 10. Sampled, it is still less."""
    policy = framework.train(
        policy=Tabular(), baseline=BatchMean(), iterations=50, optimizer=OptimizerSettings(lr=0.05)
    ).policy
    greedy, sampled = (framework.evaluate(policy, LineWorld(), greedy=greedy) for greedy in (True, False))
    assert set(greedy.returns) == {7.0}
    assert set(greedy.lengths) == {4}
    assert sampled.mean < 7


def test_a_policy_without_greedy_is_refused():
    world = fork()
    with pytest.raises(
        UsageError, match="policy 'TabularPolicy' has no greedy.., which takes the most probable action"
    ):
        framework.evaluate(uniform(world), LineWorld(), greedy=True)


@pytest.mark.parametrize("arguments", [{"lanes": 0}, {"episodes": 0}])
def test_nothing_to_play_is_refused(arguments):
    with pytest.raises(UsageError, match="must be >= 1: 0|at least one lane and one episode"):
        framework.evaluate(uniform(fork()), LineWorld(), **arguments)


# The extension `evaluate`

COLUMNS = ("evaluation/mean_return", "evaluation/std_return", "evaluation/mean_length")
TIMES = ("seconds", "steps_per_second")


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(
    "parts",
    [{}, {"policy": ActorCritic(), "rollout": RolloutSettings(lanes=4, episodes=8, shards=2)}],
    ids=["default", "shards"],
)
def test_training_is_the_same_bits_with_evaluations_and_without(parts, greedy):
    extensions = [Evaluate(every=2, episodes=3, lanes=2, greedy=greedy)]
    plain = framework.train(iterations=7, seed=3, **parts)
    evaluated = framework.train(iterations=7, seed=3, extensions=extensions, **parts)
    for name, tensor in plain.policy.state_dict().items():
        assert torch.equal(tensor, evaluated.policy.state_dict()[name]), name
    for name in plain.metrics.keys() - set(TIMES):
        assert np.array_equal(plain.metrics[name], evaluated.metrics[name]), name
    assert evaluated.metrics.keys() == plain.metrics.keys() | set(COLUMNS)


def test_it_evaluates_after_every_so_many_iterations():
    """The policy of that moment, with randomness of that iteration: the very numbers of `play`."""
    evaluated = framework.train(iterations=7, seed=3, extensions=[Evaluate(every=3, episodes=11, lanes=4)])
    for column in COLUMNS:
        assert (~np.isnan(evaluated.metrics[column])).tolist() == [False, False, True] * 2 + [False]
    for iteration in (2, 5):
        policy = framework.train(iterations=iteration + 1, seed=3).policy
        environment = LineWorld().build(4, torch.device("cpu"))
        played = evaluations.play(policy, environment, 4, 11, seed=derived_seed(3, "measure", iteration))
        told = [evaluated.metrics[column][iteration] for column in COLUMNS]
        assert told == [played.mean, played.std, played.mean_length]


def working(result):
    return result.run.manager.get_plugin("evaluation:evaluate")


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


@pytest.mark.parametrize("greedy", [True, False])
def test_the_best_is_kept(tmp_path, greedy):
    law_the_best_is_kept(framework_evaluation, tmp_path, greedy)


def test_each_evaluation_has_randomness_of_its_own(tmp_path):
    law_each_evaluation_has_randomness_of_its_own(framework_evaluation, tmp_path)


def test_without_a_folder_the_best_is_kept_in_memory(tmp_path):
    recorded = trained(framework_evaluation, tmp_path / "run", rate=3e-2)
    unrecorded = trained(framework_evaluation, None, rate=3e-2)
    kept = load_file(recorded.directory / "best.safetensors")
    assert working(recorded).best is None
    assert all(torch.equal(kept[name], tensor) for name, tensor in working(unrecorded).best.items())


def test_a_run_without_evaluations_has_no_best(tmp_path):
    framework.train(iterations=1, directory=tmp_path / "run")
    with pytest.raises(UsageError, match=r"run has no best.safetensors: train with --extensions evaluate to keep"):
        framework.load(tmp_path / "run", best=True)


@frozen
class Plain:
    """A policy without greedy()."""

    def build(self, observation_space, action_space):
        return TabularPolicy(torch.zeros(5, 2))


def test_the_extension_refuses_greedy_before_training():
    with pytest.raises(UsageError, match="policy 'Plain' .plugin test_evaluation. has no greedy"):
        framework.train(policy=Plain(), extensions=[Evaluate(greedy=True)])


@frozen
class Closing:
    """Of this test: says when its lanes are closed; three lanes may break when they are stepped."""

    closed: list
    fails: bool = False

    def build(self, num_envs, device):
        return ClosingLanes(self, num_envs)


class ClosingLanes(Lanes):
    def __init__(self, settings, num_envs):
        super().__init__(LineWorld().build(1, torch.device("cpu")).mdp(), num_envs, False)
        self.settings = settings

    def step(self, actions, generator):
        return super().step(actions, generator) if not self.settings.fails or self.count != 3 else 1 / 0

    def close(self):
        self.settings.closed.append(self.count)


@pytest.mark.parametrize("fails", [False, True])
def test_environments_are_closed_and_named_where_they_raise(fails):
    closed = []
    arguments = {"environment": Closing(closed, fails), "iterations": 1, "rollout": RolloutSettings(lanes=2)}
    arguments |= {"extensions": [Evaluate(every=1, lanes=3)], "policy": Tabular()}
    if fails:
        with pytest.raises(PartError, match="^environment 'Closing' .plugin test_evaluation. raised ZeroDivisionError"):
            framework.train(**arguments)
        assert sorted(closed) == [2, 3]
        return
    policy = framework.train(**arguments).policy
    assert sorted(closed) == [2, 3]
    framework.evaluate(policy, Closing(closed), lanes=5)
    assert sorted(closed) == [2, 3, 5]


def test_the_highest_mean_is_part_of_the_extensions_state():
    one = working(framework.train(iterations=3, extensions=[Evaluate(every=1)]))
    two = working(framework.train(iterations=1, extensions=[Evaluate(every=2)]))
    assert two.highest < one.highest
    two.load_state_dict(one.state_dict())
    assert two.highest == one.highest


def test_numbers_of_the_environments_own_are_kept():
    """`Step.metrics` of each episode's last step: here its length, again."""

    class Telling(Lanes):
        def step(self, actions, generator):
            clock = self.clock + 1
            return evolve(super().step(actions, generator), metrics={"clock": clock.float()})

    played = evaluations.play(uniform(fork(), False), Telling(fork(), 4, False), 4, 9, seed=0)
    assert np.array_equal(played.metrics["clock"], played.lengths)


def test_the_curve_shows_evaluations_where_there_are_some():
    result = framework.train(iterations=30, seed=4, extensions=[Evaluate(every=7)])
    (axes,) = learning_curve(result.run, smooth=10).figure.axes
    line = axes.lines[2]
    assert line.get_label() == "evaluation"
    assert np.array_equal(line.get_xdata(), result.metrics["steps"][6::7])
    assert np.array_equal(line.get_ydata(), result.metrics["evaluation/mean_return"][6::7])


# The extension `early_stop`


def law_it_stops_as_soon_as_the_last_episodes_are_good_enough(module, threshold, episodes):
    """By the run's own returns, taken down after each iteration."""
    seen = []

    @frozen
    class Watch:
        "Of this test."

        def build(self, run):
            return self

        @hookimpl
        def iteration_finished(self, run):
            seen.append(list(run.recent_returns))

    stop = module.EarlyStop(mean_return=threshold, episodes=episodes)
    result = framework.train(iterations=40, seed=1, extensions=[Watch(), stop], baseline=BatchMean())
    good = [len(last) >= episodes and np.mean(last[-episodes:]) >= threshold for last in seen]
    assert good[:-1] == [False] * (len(good) - 1)
    assert good[-1] or len(good) == 40
    reasons = [f"mean return {np.mean(seen[-1][-episodes:]):.2f} of the last {episodes} episodes reached {threshold}"]
    assert list(result.stop_reasons) == (reasons if good[-1] else [])


EARLY = (st.sampled_from([-60.0, -20.0, -5.0, 0.0, 1e6]), st.sampled_from([1, 7, 30, 100]))


@given(*EARLY)
def test_it_stops_as_soon_as_the_last_episodes_are_good_enough(threshold, episodes):
    law_it_stops_as_soon_as_the_last_episodes_are_good_enough(framework_evaluation, threshold, episodes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: Evaluate(every=0), "'every' must be >= 1: 0"),
        (lambda: Evaluate(episodes=0), "'episodes' must be >= 1: 0"),
        (lambda: Evaluate(lanes=0), "'lanes' must be >= 1: 0"),
        (lambda: EarlyStop(episodes=0), "'episodes' must be >= 1: 0"),
        (lambda: EarlyStop(episodes=101), "'episodes' must be <= 100: 101"),
    ],
)
def test_settings_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()


# Mutants

CHANGES = {
    "finishes a batch too many": (
        law_exactly_so_many_whole_episodes_are_played,
        evaluations,
        (),
        WORLDS,
        ("shard.episodes = min(lanes, episodes - first)", "shard.episodes = lanes"),
    ),
    "tells what it began": (
        law_exactly_so_many_whole_episodes_are_played,
        evaluations,
        (),
        WORLDS,
        ("on_progress(first + shard.episodes)", "on_progress(first)"),
    ),
    "takes the first to finish": (
        law_long_episodes_count_in_full,
        evaluations,
        (),
        (st.booleans(), st.just(16), SEEDS),
        (
            "shard.episodes = min(lanes, episodes - first)",
            "shard.episodes = lanes * 3",
        ),
        (
            "EpisodeStats.together(played)",
            "EpisodeStats.together([EpisodeStats(f.returns[:lanes], f.lengths[:lanes]) for f in played])",
        ),
    ),
    "plays each batch alike": (
        law_an_evaluation_repeats_bit_for_bit,
        evaluations,
        (),
        (st.booleans(), st.integers(6, 8), SEEDS),
        ("_actor(policy, greedy), batch, False", "_actor(policy, greedy), 0, False"),
    ),
    "ignores the seed": (
        law_an_evaluation_repeats_bit_for_bit,
        evaluations,
        (),
        RANDOM,
        ('own = streams.derived_seed(seed, "evaluate")', 'own = streams.derived_seed(0, "evaluate")'),
    ),
    "draws the training's numbers": (
        law_randomness_is_never_that_of_training,
        evaluations,
        (),
        (st.just(0),),
        ('own = streams.derived_seed(seed, "evaluate")', "own = seed"),
    ),
    "moves the global generator": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("with same_randomness():", "with torch.random.fork_rng([], False):"),
    ),
    "reads the global generator": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("        streams.seed_global(device, own)\n", ""),
    ),
    "acts in training mode": (law_nothing_is_left_changed, evaluations, (), CARELESS, ("policy.eval()", "pass")),
    "puts all modules into training mode": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("module.training = training", "module.training = True"),
    ),
    "keeps gradients": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("with torch.no_grad(), _in_evaluation", "with _in_evaluation"),
    ),
    "divides by n": (law_statistics_are_scipys, evaluations, (), (RETURNS,), ("ddof=1", "ddof=0")),
    "forgets the root": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("self.std / math.sqrt(len(self.returns))", "self.std / len(self.returns)"),
    ),
    "takes Student's t of n": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("stdtrit(len(self.returns) - 1,", "stdtrit(len(self.returns),"),
    ),
    "takes the mean for the median": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("float(np.median(self.returns))", "self.mean"),
    ),
    "takes one tail of 5 %": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("(1 + CONFIDENCE) / 2)", "CONFIDENCE)"),
    ),
    "forgets masks when greedy": (
        law_greedy_takes_the_most_probable_allowed_action,
        categorical,
        ("categorical",),
        (masks(3), SEEDS),
        ("self._log_probs(inputs).argmax", "self._log_probs(Inputs(inputs.observations)).argmax"),
    ),
    "forgets the first action's number": (
        law_greedy_takes_the_most_probable_allowed_action,
        categorical,
        ("categorical",),
        (masks(3), SEEDS),
        (".argmax(-1) + self._first", ".argmax(-1)"),
    ),
    "takes the least probable": (
        law_greedy_takes_the_most_probable_allowed_action,
        categorical,
        ("categorical",),
        (masks(3), SEEDS),
        ("self._log_probs(inputs).argmax", "self._log_probs(inputs).argmin"),
    ),
    "lets options overlap": (
        law_greedy_takes_the_most_probable_allowed_action,
        multi_categorical,
        ("multi_categorical",),
        (masks(5), SEEDS),
        ("GreedyActor(self.log_probs, self.first)", "GreedyActor(self.log_probs, 0)"),
    ),
    "samples when greedy": (
        law_greedy_takes_the_mean,
        gaussian,
        (),
        (st.booleans(), st.sampled_from(["global", "state"]), SEEDS),
        ("means, _ = self._policy.normal(inputs)", "means = torch.randn(5, 4)"),
    ),
    "stops too early": (
        law_it_stops_as_soon_as_the_last_episodes_are_good_enough,
        framework_evaluation,
        (),
        EARLY,
        ("len(last) < self.episodes or", "not last or"),
    ),
    "looks at all episodes": (
        law_it_stops_as_soon_as_the_last_episodes_are_good_enough,
        framework_evaluation,
        (),
        (st.just(-20.0), st.just(7)),
        ("[-self.episodes :]", "[:]"),
        ("sum(last) / self.episodes", "sum(last) / max(1, len(last))"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_law_kills_the_mutant_that(name):
    law, module, fixed, strategies, *changes = CHANGES[name]
    mutant = mutate(module.__name__, *changes)
    arguments = (*fixed, mutant) if fixed else (mutant,)
    is_killed(law, *strategies, arguments=arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "law"),
    [
        (("> self.highest", ">= self.highest"), law_the_best_is_kept),
        (("> self.highest", "< self.highest"), law_the_best_is_kept),
        (("self.highest = performance.mean", "pass"), law_the_best_is_kept),
        (('"measure", run.iteration', '"measure", 0'), law_each_evaluation_has_randomness_of_its_own),
    ],
    ids=["keeps the later of equals", "keeps the worst", "keeps the last", "evaluates with one seed"],
)
def test_law_of_the_extension_kills_the_mutant_that(change, law, tmp_path):
    mutant = mutate("framework_evaluation", change)
    with pytest.raises(AssertionError):
        law(mutant, tmp_path)
