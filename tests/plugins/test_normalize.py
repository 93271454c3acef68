"""Normalised observations: exact statistics of real steps, frozen within an iteration, part of the policy."""

import itertools

import attrs
import framework_networks.network as network
import numpy as np
import pytest
import torch
from attrs import field, frozen
from foreign import publish
from framework_policies import ActorCritic, Gaussian, MultiCategorical, Recurrent
from framework_reinforce import Categorical
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from safetensors.torch import load_file

import framework
from framework import Inputs, OptimizerSettings, Rollout, RolloutSettings, Step, UpdateSettings, UsageError, hookimpl
from framework import running_moments as moments_module
from framework.learning.batches import minibatches
from framework.setup.loading import load
from framework.training import execute

POLICIES = {
    "categorical": (Categorical(normalize=True), Discrete(3)),
    "actor_critic": (ActorCritic(normalize=True), Discrete(3, start=-1)),
    "actor_critic, shared": (ActorCritic(normalize=True, shared=True), Discrete(3)),
    "gaussian": (Gaussian(normalize=True), Box(-1.0, 1.0, (2,))),
    "multi_categorical": (MultiCategorical(normalize=True), MultiDiscrete([2, 3])),
    "recurrent": (Recurrent(normalize=True), Discrete(3)),
}
EACH = pytest.mark.parametrize("case", POLICIES)
SHAPE = (2, 3)


def rollout_of(observations, mask):
    """What a policy's `observe` looks at; the rest is empty."""
    empty = torch.zeros(mask.shape)
    return Rollout(observations, empty, empty, empty, *[mask] * 3, *[empty.long()] * 2)


@st.composite
def rollouts(draw, min_count=1, max_count=4):
    """Rollouts of one world with observations `SHAPE`, of any size and offset; some steps are padding, never all."""
    scale = draw(st.sampled_from([0.01, 1.0, 1000.0]))
    offset = draw(st.sampled_from([0.0, 1.0, -50.0])) * scale
    sampled = []
    for _ in range(draw(st.integers(min_count, max_count))):
        steps, lanes = draw(st.integers(1, 6)), draw(st.integers(1, 3))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        mask = torch.rand(steps, lanes, generator=generator) < draw(st.sampled_from([0.4, 1.0]))
        mask[0, 0] = True
        sampled.append(rollout_of(torch.randn(steps, lanes, *SHAPE, generator=generator) * scale + offset, mask))
    return sampled


def two_passes(sampled):
    """Mean and variance of all real steps, in float64: first the mean, then the squares."""
    real = np.concatenate([rollout.observations[rollout.mask].double().numpy() for rollout in sampled])
    mean = real.sum(0) / len(real)
    return len(real), mean, ((real - mean) ** 2).sum(0) / len(real), real


def close(found, expected, allowed):
    return bool((np.abs(found.double().numpy() - expected) <= allowed).all())


# The laws: each takes the module under test first, so that a mutant can be put in its place.


def law_moments_are_those_of_all_samples(module, sampled):
    """However they are split: in float64, of at most 72 samples, rounding takes less than 1e-13 of the largest."""
    state = (torch.tensor(0), torch.full(SHAPE, 7.0), torch.full(SHAPE, 7.0))
    for rollout in sampled:
        state = module.merged(*state, rollout.observations[rollout.mask])
    count, mean, variance, real = two_passes(sampled)
    size, spread = np.abs(real).max(), real.max() - real.min()
    assert int(state[0]) == count
    assert close(state[1], mean, 1e-12 * size)
    assert close(state[2], variance, 1e-12 * size * spread)


def law_no_samples_change_nothing(module, sampled):
    """A rollout of reset rows alone is none: no NaN."""
    state = module.merged(torch.tensor(0), torch.zeros(SHAPE), torch.ones(SHAPE), sampled[0].observations.flatten(0, 1))
    again = module.merged(*state, torch.zeros(0, *SHAPE))
    assert all(torch.equal(one, two) for one, two in zip(state, again, strict=True))


def law_statistics_are_those_of_all_real_steps(module, sampled):
    """float32 buffers: each of 4 merges rounds by 6e-8, and a mean's error enters the variance times the spread."""
    normalizer = module.Normalizer(SHAPE)
    for rollout in sampled:
        normalizer.observe(rollout)
    count, mean, variance, real = two_passes(sampled)
    size, spread = np.abs(real).max(), real.max() - real.min()
    assert int(normalizer.count) == count
    assert close(normalizer.mean, mean, 1e-6 * size)
    assert close(normalizer.variance, variance, 1e-6 * (size + spread) * spread)


def law_padding_is_inert(module, sampled):
    """Whatever stands in padding, the statistics are the same bits."""
    plain, garbled = module.Normalizer(SHAPE), module.Normalizer(SHAPE)
    for rollout in sampled:
        real = rollout.mask[..., None, None]
        plain.observe(rollout)
        garbled.observe(rollout_of(torch.where(real, rollout.observations, 1e6), rollout.mask))
    assert all(torch.equal(one, two) for one, two in zip(plain.buffers(), garbled.buffers(), strict=True))


def law_formula(module, sampled):
    """(o − mean)/√(variance + 1e-8), cut at ±10; float32 loses 1e-7 of o in the difference, and as much after it."""
    normalizer = module.Normalizer(SHAPE)
    *earlier, last = sampled
    for rollout in earlier:
        normalizer.observe(rollout)
    mean, variance = normalizer.mean.double(), normalizer.variance.double()
    seen = torch.cat([last.observations, mean.expand(1, *last.observations.shape[1:]) + 100 * variance.sqrt()])
    expected = (seen.float().double() - mean) / (variance + 1e-8).sqrt()
    expected = expected.clip(-10, 10)
    allowed = 1e-6 + 1e-6 * ((seen.abs() + mean.abs()) / (variance + 1e-8).sqrt())
    assert bool(((normalizer(seen.float()).double() - expected).abs() <= allowed).all())


LAWS = {
    law_moments_are_those_of_all_samples: ("framework.running_moments", (rollouts(),)),
    law_no_samples_change_nothing: ("framework.running_moments", (rollouts(),)),
    law_statistics_are_those_of_all_real_steps: ("framework_networks.network", (rollouts(),)),
    law_padding_is_inert: ("framework_networks.network", (rollouts(),)),
    law_formula: ("framework_networks.network", (rollouts(2),)),
}
MODULES = {"framework.running_moments": moments_module, "framework_networks.network": network}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    module, strategies = LAWS[law]
    given(st.tuples(*strategies))(lambda drawn: law(MODULES[module], *drawn))()


MUTANTS = {
    "forgets the distance of the means": (law_moments_are_those_of_all_samples, (" + between", "")),
    "takes the distance whole": (law_moments_are_those_of_all_samples, ("share * (1 - share)", "share")),
    "weighs the mean by halves": (law_moments_are_those_of_all_samples, ("difference * share,", "difference / 2,")),
    "divides by n - 1": (law_moments_are_those_of_all_samples, (".square().mean(0)", ".square().sum(0) / (total - 1)")),
    "divides by nothing": (law_no_samples_change_nothing, ("if not len(samples):", "if False:")),
    "keeps the last rollout alone": (
        law_statistics_are_those_of_all_real_steps,
        ("self.count.copy_(count)", "pass"),
    ),
    "does not move the variance": (
        law_statistics_are_those_of_all_real_steps,
        ("self.variance.copy_(variance)", "pass"),
    ),
    "takes padding along": (law_padding_is_inert, ("rows[piece][real[piece]]", "rows[piece]")),
    "does not clip": (law_formula, (".clamp(-CLIP, CLIP)", "")),
    "divides by the variance": (law_formula, ("torch.sqrt(self.variance + EPSILON)", "(self.variance + EPSILON)")),
    "does not centre": (law_formula, ("self.mean.dtype) - self.mean", "self.mean.dtype)")),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    module, strategies = LAWS[law]
    is_killed(law, *strategies, arguments=(mutate(module, change),))


# Policies


def pair(case, seed=0):
    """A policy that has seen observations of size 1000, and one without a normaliser but with the same weights."""
    settings, actions = POLICIES[case]
    plain_settings = type(settings)(**{"shared": True} if getattr(settings, "shared", False) else {})
    policy = settings.build(Box(-np.inf, np.inf, SHAPE), actions)
    plain = plain_settings.build(Box(-np.inf, np.inf, SHAPE), actions)
    policy.observe(rollout_of(observed(40, seed).reshape(10, 4, *SHAPE), torch.ones(10, 4, dtype=torch.bool)))
    weights = {name: tensor for name, tensor in policy.state_dict().items() if not name.startswith("normalizer.")}
    plain.load_state_dict(weights)
    return policy, plain


def evaluated(case, policy, inputs, actions):
    """What a policy says of actions, and its values; one with memory takes them as a row of lanes."""
    if case == "recurrent":
        inputs, actions = Inputs(inputs.observations.unsqueeze(0)), actions.unsqueeze(0)
    return policy.evaluate(inputs, actions, True), policy.values(inputs) if hasattr(policy, "values") else None


def test_every_policy_that_has_the_setting_is_here():
    loaded = load()
    having = {
        name for name in loaded.names("policy") if "normalize" in attrs.fields_dict(loaded.pick("policy", name)[2])
    }
    assert having == {case.split(",")[0] for case in POLICIES}


def observed(count, seed):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 1000 + 5000


@EACH
def test_the_policy_is_the_plain_one_of_normalised_observations(case):
    """Actions, log-probs, entropies and values: actor and critic both see through the one normaliser. To the bit."""
    policy, plain = pair(case)
    inputs = Inputs(observed(7, 1))
    changed = Inputs(policy.normalizer(inputs.observations))
    assert changed.observations.abs().max() < 5  # of 42 numbers at about one deviation each
    one, two = (p.act(i, torch.Generator().manual_seed(3)) for p, i in ((policy, inputs), (plain, changed)))
    assert torch.equal(one.actions, two.actions)
    (said, values), (expected, others) = (
        evaluated(case, p, i, one.actions) for p, i in ((policy, inputs), (plain, changed))
    )
    assert torch.equal(said.log_probs, expected.log_probs)
    assert torch.equal(said.entropies, expected.entropies)
    if values is not None:
        assert torch.equal(said.values, expected.values)
        assert torch.equal(values, others)


@EACH
def test_only_observe_moves_the_statistics(case):
    """Not acting, evaluating or valuing, in training mode as in evaluation; and no optimizer, for they are buffers."""
    policy, _ = pair(case)
    before = {name: tensor.clone() for name, tensor in policy.normalizer.state_dict().items()}
    assert list(policy.normalizer.parameters()) == []
    for mode in (True, False):
        policy.train(mode)
        actions = policy.act(Inputs(observed(7, 1)), torch.Generator().manual_seed(0)).actions
        evaluated(case, policy, Inputs(observed(7, 1)), actions)
    after = policy.normalizer.state_dict()
    assert before.keys() == after.keys() == {"mean", "variance", "count"}
    assert all(torch.equal(before[name], after[name]) for name in before)


@EACH
def test_without_normalize_nothing_is_kept(case):
    _, plain = pair(case)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    plain.observe(rollout_of(observed(4, 0).reshape(2, 2, *SHAPE), torch.ones(2, 2, dtype=torch.bool)))
    assert not any(name.startswith("normalizer") for name in before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())


@EACH
def test_discrete_observations_are_refused(case):
    settings, actions = POLICIES[case]
    name = case.split(",")[0]
    message = rf"policy '{name}' with normalize takes Box observations, and the environment's are Discrete\(4\): leave"
    with pytest.raises(UsageError, match=message):
        settings.build(Discrete(4), actions)


def test_bytes_are_normalised_in_floating_point():
    normalizer = network.Normalizer((1,))
    mask = torch.ones(2, 2, dtype=torch.bool)
    normalizer.observe(rollout_of(torch.tensor([0, 0, 200, 200], dtype=torch.uint8).reshape(2, 2, 1), mask))
    assert normalizer(torch.tensor([[0], [200]], dtype=torch.uint8)).tolist() == [[-1.0], [1.0]]


# In a run: a world whose observations are of size 1000, and where the first number says what is right


@frozen(eq=False)
class Large:
    """Twenty steps; +1 for action 1 where the first number is above 5000, and for action 0 where it is not."""

    def build(self, num_envs, device):
        return LargeLanes(num_envs)


class LargeLanes:
    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Discrete(2)

    def __init__(self, count):
        self.count = count

    def drawn(self, generator):
        return torch.randn(self.count, 2, generator=generator) * 1000 + 5000

    def reset(self, generator):
        self.clock = torch.zeros(self.count, dtype=torch.int64)
        self.seen = self.drawn(generator)
        return self.seen

    def step(self, actions, generator):
        rewards = (actions == (self.seen[:, 0] > 5000)).float()
        self.clock = self.clock + 1
        ended = self.clock >= 20
        self.clock = torch.where(ended, 0, self.clock)
        self.seen = self.drawn(generator)
        return Step(self.seen, self.seen, rewards, torch.zeros_like(ended), ended)


@frozen(eq=False)
class Witness:
    """Keeps rollouts, the normaliser's mean whenever a stage is done, and the first ratios of each iteration."""

    collected: list = field(factory=list)
    means: list = field(factory=list)
    ratios: list = field(factory=list)

    def build(self, run):
        return Watching(self)


class Watching:
    def __init__(self, kept):
        self.kept, self.fresh = kept, False

    def see(self, run):
        self.kept.means[-1].append(run.policy.normalizer.mean.clone())

    @hookimpl(wrapper=True)
    def collect_rollout(self, run):
        self.fresh = True
        self.kept.means.append([])
        self.see(run)
        rollout = yield
        self.see(run)
        self.kept.collected.append(rollout)
        return rollout

    @hookimpl(wrapper=True)
    def compute_loss(self, run, batch):
        self.see(run)
        if self.fresh:
            with torch.no_grad():
                said = run.policy.evaluate(Inputs(batch.observations), batch.actions, False)
            self.kept.ratios.append((said.log_probs - batch.log_probs).exp())
        self.fresh = False
        return (yield)

    @hookimpl(wrapper=True)
    def apply_gradients(self, run):
        done = yield
        self.see(run)
        return done


def watched(directory=None, iterations=4, policy=None, **more):
    """A short run of PPO and what its witness saw."""
    witness = Witness()
    result = framework.train(
        environment=Large(),
        policy=policy or {"normalize": True},
        rollout=RolloutSettings(lanes=4, fixed_steps=32),
        update=UpdateSettings(epochs=2, minibatches=4),
        iterations=iterations,
        extensions=[witness],
        recipe="ppo",
        directory=directory,
        **more,
    )
    return result, witness


def check_frozen(witness):
    """Within an iteration one mean, another in the next; the first minibatch's ratios are 1.

    A row is evaluated among others than when it acted, so that sums are added in another order: 1e-5 of log-probs.
    """
    for means in witness.means:
        assert all(torch.equal(mean, means[0]) for mean in means)
    firsts = [means[0] for means in witness.means]
    assert not any(torch.equal(one, two) for one, two in itertools.pairwise(firsts))
    for ratios in witness.ratios:
        assert (ratios - 1).abs().max() < 1e-5


def test_statistics_are_frozen_within_an_iteration():
    _, witness = watched()
    assert len(witness.means) == len(witness.ratios) == 4
    check_frozen(witness)


AFTER = """        with refuse_writes(run.iteration == 0, f"{run.config.policy.label}: observe", rollout):
            run.policy.observe(rollout)
"""
EARLY = ("    batch = flatten", "    run.policy.observe(rollout)\n    batch = flatten")
BETWEEN = (
    "    run.updater.update(run, batch)",
    "    for piece in minibatches(run.config.update, run.updater.shuffle(run), batch):\n"
    "        run.policy.observe(rollout)\n"
    "        run.updater.step(run, piece)",
)
TIMINGS = {
    "observes before the update": ((AFTER, "        pass\n"), EARLY),
    "observes before and after": (EARLY,),
    "observes between minibatches": (BETWEEN,),
    "never observes": ((AFTER, "        pass\n"),),
}


@pytest.mark.parametrize("name", TIMINGS)
def test_a_loop_is_noticed_that(name, monkeypatch):
    module = mutate("framework.training", *TIMINGS[name], minibatches=minibatches)
    monkeypatch.setattr("framework.api.execute", module.execute)
    _, witness = watched()
    with pytest.raises(AssertionError):
        check_frozen(witness)
    assert module.execute is not execute


LARGE = f"""
    from framework import hookimpl
    from {__name__} import Large

    @hookimpl
    def environments():
        return {{"large": Large}}
"""


def test_the_record_has_the_statistics_and_load_brings_them_back(tmp_path, monkeypatch):
    """Those of all real steps of all rollouts; the loaded policy's log-probs are the trained one's, to the bit."""
    publish(tmp_path, monkeypatch, "large-rl", {"large": "large_world"}, large_world=LARGE)
    result, witness = watched(tmp_path / "run")
    recorded = load_file(tmp_path / "run" / "policy.safetensors")
    count, mean, variance, real = two_passes(witness.collected)
    assert int(recorded["normalizer.count"]) == count == 4 * 32 * 4
    size, spread = np.abs(real).max(), real.max() - real.min()
    assert close(recorded["normalizer.mean"], mean, 1e-6 * size)
    assert close(recorded["normalizer.variance"], variance, 1e-6 * (size + spread) * spread)
    loaded = framework.load(tmp_path / "run")
    observations = witness.collected[-1].observations.flatten(0, 1)
    actions = witness.collected[-1].actions.flatten(0, 1)
    one, two = (policy.evaluate(Inputs(observations), actions, False) for policy in (result.policy, loaded))
    assert torch.equal(one.log_probs, two.log_probs)
    assert torch.equal(one.values, two.values)


@pytest.mark.slow
def test_observations_of_size_1000_are_learnt_from():
    """Guessing earns 10 of 20 on average, with a deviation of √5/√100 = 0.22 of the mean of 100 episodes."""

    def score(normalize):
        result = framework.train(
            environment=Large(),
            policy={"normalize": normalize, "hidden": [32], "activation": "relu", "orthogonal": False},
            rollout=RolloutSettings(fixed_steps=64),
            optimizer=OptimizerSettings(lr=3e-3, schedule="constant"),
            iterations=60,
            recipe="ppo",
        )
        return float(result.recent_returns.mean())

    assert score(True) > 17
    assert score(False) < 12
