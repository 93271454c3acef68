"""Randomness: streams named by a hash, and runs that neither read nor move anyone else's generators."""

import random
import sys
from hashlib import md5
from unittest import mock

import framework_standardize
import numpy as np
import pytest
import torch
from attrs import field, frozen
from framework_line_world import LineWorld
from gymnasium.spaces import Box, Discrete
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mutants import is_killed, mutate

import framework
from framework import Action, Evaluation, PartError, RolloutSettings, Step, UpdateSettings, hookimpl, streams
from framework.setup.loading import installed, load

# Names of streams

PURPOSES = st.sampled_from(["act", "environment", "shuffle", "update", "policy"])
SMALL = st.integers(0, 5)
NAMES = st.tuples(st.one_of(SMALL, st.integers(0, 2**63)), PURPOSES, st.one_of(SMALL, st.integers(0, 10**6)), SMALL)


def numbers(generator):
    """What a generator draws: 128 bits of it."""
    return torch.randint(0, 2**31, (4,), generator=generator).tolist()


def law_a_name_is_a_stream(module, name):
    """The same four give the same seed and numbers each time, whatever was drawn between."""
    first = numbers(module.generator(*name))
    numbers(module.generator(*name))
    assert module.derived_seed(*name) == module.derived_seed(*name)
    assert numbers(module.generator(*name)) == first


def law_different_names_are_different_streams(module, one, two):
    """Two names that differ anywhere have different seeds; so have those that a sum or a swap would confuse.

    By chance, 64-bit seeds collide once in 2⁶⁴, and torch's CPU generators, which use 32 bits, once in 2³².
    """
    seed, purpose, iteration, shard = one
    confusable = [
        one,
        two,
        (iteration, purpose, seed, shard),
        (seed, purpose, shard, iteration),
        (seed + 1, purpose, iteration, shard),
        (seed, purpose, iteration + 1, shard),
        (seed, purpose, iteration, shard + 1),
        (seed + 1, purpose, iteration + 1, shard + 1),
        (seed, purpose, iteration, 10 + shard),  # 7, 13 and 71, 3 are the same digits
        (seed, purpose, 10 * iteration + 1, shard),
        (seed, f"{purpose}/{iteration}", iteration, shard),
    ]
    names = set(confusable)
    assert len({module.derived_seed(*name) for name in names}) == len(names)
    assert len({tuple(numbers(module.generator(*name))) for name in names}) == len(names)


def law_seeds_are_64_bits(module, name):
    """In the range that a torch generator takes, and not in half of it: of 64 seeds, some reach the upper half."""
    seeds = [module.derived_seed(name[0], name[1], k, name[3]) for k in range(64)]
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) >= 2**63  # fails by chance once in 2⁶⁴


LAWS = {
    law_a_name_is_a_stream: (NAMES,),
    law_different_names_are_different_streams: (NAMES, NAMES),
    law_seeds_are_64_bits: (NAMES,),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(streams, *drawn))()


NAME = 'f"{seed}/{purpose}/{iteration}/{shard}"'
OTHER_NAMES = {
    "adds seed and iteration": 'f"{seed + iteration}/{purpose}/{shard}"',
    "forgets the purpose": 'f"{seed}/{iteration}/{shard}"',
    "forgets the iteration": 'f"{seed}/{purpose}/{shard}"',
    "forgets the shard": 'f"{seed}/{purpose}/{iteration}"',
    "writes numbers without a mark between": 'f"{seed}/{purpose}/{iteration}{shard}"',
    "takes the numbers in any order": 'f"{purpose}/{sorted([seed, iteration, shard])}"',
}
MUTANTS = {name: (law_different_names_are_different_streams, (NAME, other)) for name, other in OTHER_NAMES.items()}
MUTANTS |= {
    "draws from one generator": (
        law_a_name_is_a_stream,
        ("made = torch.Generator(device=device)", "return torch.default_generator"),
    ),
    "keeps 32 bits": (law_seeds_are_64_bits, ("digest_size=8", "digest_size=4")),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    with torch.random.fork_rng():
        is_killed(law, *LAWS[law], arguments=(mutate("framework.streams", change),))


def test_seeding_the_global_generators_is_seeding_by_hand():
    """`seed_global` does what `torch.manual_seed` does to the CPU's generator."""
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        expected = torch.rand(3)
        streams.seed_global(torch.device("cpu"), 12345)
        assert torch.equal(torch.rand(3), expected)


# Runs


@frozen
class Noisy:
    """A world that draws: a drifting number, observed, and paid if the action has its sign."""

    def build(self, num_envs, device):
        return NoisyLanes(num_envs)


class NoisyLanes:
    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Discrete(2)

    def __init__(self, count):
        self.count = count

    def reset(self, generator):
        self.observations = torch.randn(self.count, 2, generator=generator)
        return self.observations

    def step(self, actions, generator):
        rewards = torch.where(actions == 1, 1.0, -1.0) * self.observations[:, 0]
        successors = self.observations + torch.randn(self.count, 2, generator=generator)
        over = torch.rand(self.count, generator=generator) < 0.1
        self.observations = torch.where(over[:, None], torch.randn(self.count, 2, generator=generator), successors)
        return Step(self.observations, successors, rewards, over, torch.zeros_like(over))


@frozen
class Dropping:
    """A policy with dropout, label forwards draw from torch's global generator, as torch's own layers do."""

    def build(self, observation_space, action_space):
        return DroppingPolicy()


class DroppingPolicy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))

    def act(self, inputs, generator):
        with torch.no_grad():
            probabilities = self.network(inputs.observations).softmax(1)
            return Action(torch.multinomial(probabilities, 1, generator=generator).squeeze(1))

    def evaluate(self, inputs, actions, entropies):
        log_probs = self.network(inputs.observations).log_softmax(1)
        return Evaluation(log_probs.gather(1, actions[:, None]).squeeze(1))


STANDARD = framework_standardize.Standardize
RUNS = {
    "the notebook's": {},
    "of a short time limit, by number": {
        "environment": LineWorld(max_steps=7),
        "rollout": RolloutSettings(lanes=70, episodes=90),
    },
    "of minibatches, in two shards": {
        "environment": Noisy(),
        "rollout": RolloutSettings(lanes=6, steps=40, shards=2),
        "update": UpdateSettings(epochs=2, minibatches=3, max_grad_norm=0.5),
        "extensions": (STANDARD(within="minibatch"),),
    },
    "with dropout": {"environment": Noisy(), "policy": Dropping()},
}


def global_states():
    """Everyone's generators, each as a digest of its state."""
    states = {"torch": torch.get_rng_state().tolist(), "numpy": np.random.get_state(), "python": random.getstate()}
    return {label: md5(repr(state).encode()).hexdigest() for label, state in states.items()}


def seed_all(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.fixture
def own_global_states():
    """The global generators, put back after the test."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


def outcome(result):
    """The bits of every weight, and of every metric that is no time; NaN is written as itself."""
    weights = {name: tensor.numpy().tobytes() for name, tensor in result.policy.state_dict().items()}
    columns = {name: np.asarray(column).tobytes() for name, column in result.metrics.items() if "second" not in name}
    return weights, columns


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.usefixtures("own_global_states")
def test_a_run_is_its_seed(name):
    """Same configuration, same bits, however the global generators are seeded, which are left where they stood."""
    load()  # what is imported may draw (see the next test)
    outcomes = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        seed_all(global_seed)
        before = global_states()
        outcomes.append(outcome(framework.train(**RUNS[name], iterations=3, seed=seed)))
        assert global_states() == before
    assert outcomes[0] == outcomes[1]
    for one, other in zip(outcomes[0], outcomes[2], strict=True):
        assert one != other


@pytest.mark.usefixtures("own_global_states")
def test_loading_the_plugins_moves_no_generator():
    """Nor does what they import, and has been set aside here, so that it is imported anew."""
    before = global_states()
    ours = ("rich", *(point.module for point in installed().values()))
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] not in ours}
    with mock.patch.dict(sys.modules, kept, clear=True):
        load()
    assert global_states() == before


@frozen
class Reading:
    """Looks at what is global during a run."""

    seen: list

    def build(self, run):
        return Looking(self)


class Looking:
    def __init__(self, settings):
        self.settings = settings

    @hookimpl
    def iteration_finished(self, run, metrics):
        self.settings.seen.append((torch.get_num_threads(), torch.rand(1).item()))


def test_iterations_forward_in_streams_of_their_own():
    """What draws from torch's global generator during an iteration (dropout, say) gets new numbers in each."""
    seen = [[], []]
    for drawn in seen:
        framework.train(iterations=3, extensions=(Reading(drawn),))
    assert seen[0] == seen[1]
    assert len({number for _, number in seen[0]}) == 3


@frozen
class Failing:
    """An estimator that raises in the first iteration."""

    def __call__(self, rollout):
        raise ArithmeticError("on purpose")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.usefixtures("own_global_states")
def test_threads_and_generators_are_put_back(fails):
    """A run works with as many threads as configured; afterwards, even after a failure, all is as it was."""
    seed_all(3)
    before, seen = global_states(), []
    for here, configured in ((1, 2), (2, 1)):
        torch.set_num_threads(here)  # the conftest's fixture puts back what was there before the test
        if fails:
            with pytest.raises(PartError, match="on purpose"):
                framework.train(threads=configured, iterations=1, estimator=Failing())
        else:
            framework.train(threads=configured, iterations=1, extensions=(Reading(seen),))
        assert torch.get_num_threads() == here
    assert [threads for threads, _ in seen] == ([] if fails else [2, 1])
    assert global_states() == before


@settings(max_examples=10)
@given(SMALL, SMALL)
def test_runs_with_different_seeds_share_no_iteration(one, two):
    """Not even a later iteration of one is an earlier one of the other, as with seeds that are added up."""
    assume(one != two)
    actions = []
    for seed in (one, two):
        spied = Spying()
        framework.train(iterations=3, seed=seed, extensions=(spied,), rollout=RolloutSettings(steps=64))
        actions += spied.actions
    assert len(set(actions)) == 6  # alike by chance: 64 choices or more, each of probability below 0.7: 1e-9


@frozen
class Guarding:
    """Notes whether collecting moved the global generators."""

    moved: list = field(factory=list)

    def build(self, run):
        return Guard(self.moved)


class Guard:
    def __init__(self, moved):
        self.moved = moved

    @hookimpl(wrapper=True)
    def collect_rollout(self):
        before = global_states()
        rollout = yield
        self.moved.append(global_states() != before)
        return rollout


@pytest.mark.parametrize("name", [name for name in RUNS if name != "with dropout"])
def test_collecting_draws_from_streams_only(name):
    """Even the run's own global state, put back at its end, stays: a shard's numbers depend on no other's."""
    guarding = Guarding()
    extensions = (*RUNS[name].get("extensions", ()), guarding)
    framework.train(**{**RUNS[name], "extensions": extensions}, iterations=2)
    assert guarding.moved == [False, False]


def test_each_shard_and_iteration_has_a_world_of_its_own():
    """First observations are drawn anew in each of 3 iterations, 2 shards and 3 lanes: 18 different ones."""
    spied = Spying()
    rollout = RolloutSettings(lanes=6, shards=2, steps=20)
    framework.train(environment=Noisy(), iterations=3, extensions=(spied,), rollout=rollout)
    first = [tuple(numbers) for observations in spied.observations for numbers in observations[0].tolist()]
    assert len(set(first)) == len(first) == 18


@frozen
class Spying:
    """Keeps each iteration's actions and observations."""

    actions: list = field(factory=list)
    observations: list = field(factory=list)

    def build(self, run):
        return Listening(self)


class Listening:
    def __init__(self, settings):
        self.settings = settings

    @hookimpl(wrapper=True)
    def collect_rollout(self):
        rollout = yield
        self.settings.actions.append(tuple(rollout.actions[rollout.mask].tolist()))
        self.settings.observations.append(rollout.observations)
        return rollout
