"""Actors of policies over boxes: the policy's own distribution, by weights that stay as they were, in numpy."""

from unittest import mock

import framework_networks.snapshot as snapshot
import framework_policies.actor_critic as actor_critic
import framework_policies.gaussian as gaussian
import framework_policies.multi_categorical as multi_categorical
import framework_reinforce.categorical as categorical
import numpy as np
import pytest
import torch
from attrs import frozen
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from scipy.stats import chisquare
from torch import nn
from torch.nn.utils import parametrizations

import framework
from framework import Inputs, PartError, Rollout, RolloutSettings, Step, streams

SEEDS = st.integers(0, 2**31)
BOXES = [
    Box(-1.0, 1.0, ()),
    Box(-2.0, 3.0, (4,)),
    Box(-1.0, 1.0, (2, 3)),
    Box(-3.0, 3.0, (2, 1, 3), np.float64),
    Box(0, 255, (3, 2), np.uint8),
]
ONE, SEVERAL = Discrete(3, start=-1), MultiDiscrete([2, 4, 1], start=[1, -2, 5])
CHOICES = {
    "categorical": (categorical, "Categorical", ONE, {}),
    "actor_critic": (actor_critic, "ActorCritic", ONE, {}),
    "actor_critic, shared": (actor_critic, "ActorCritic", ONE, {"shared": True}),
    "multi_categorical": (multi_categorical, "MultiCategorical", SEVERAL, {}),
}
NORMALS = {
    f"gaussian, {deviation}, {list(actions.shape)}": (
        gaussian,
        "Gaussian",
        actions,
        {"deviation": deviation, "initial_deviation": 0.7},
    )
    for deviation in ("global", "state")
    for actions in (Box(-1.0, 1.0, ()), Box(-1.0, 1.0, (2, 2)))
}
CASES = {**CHOICES, **NORMALS}
EACH = pytest.mark.parametrize("case", CASES)
NETWORKS = st.fixed_dictionaries(
    {
        "hidden": st.sampled_from([(), (5,), (4, 3)]),
        "activation": st.sampled_from(["relu", "tanh", "gelu", "silu"]),
        "normalize": st.booleans(),
    }
)
DTYPES = st.sampled_from([torch.float32, torch.float64])


def some(space, count, seed=0):
    """`count` elements of a space, as a batch."""
    space.seed(seed)
    return torch.stack([torch.as_tensor(space.sample()) for _ in range(count)])


def built(case, space, seed=0, dtype=torch.float32, module=None, **settings):
    """A policy with weights of its own, far from uniform; a normaliser has seen some of the space, which it cuts."""
    original, name, actions, more = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = getattr(module or original, name)(**settings, **more).build(space, actions)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.normal_(std=0.7)
    if settings.get("normalize"):
        look(policy, some(space, 6, seed).float() * 0.05)
    return policy.to(dtype)


def look(policy, observations):
    """Let a normaliser take these in."""
    empty, mask = torch.zeros(len(observations), 1), torch.ones(len(observations), 1, dtype=torch.bool)
    rollout = Rollout(observations.unsqueeze(1), empty, empty, empty, *[mask] * 3, *[empty.long()] * 2)
    policy.observe(rollout)


def counts_of(actions):
    """How many options each choice has, and their first numbers."""
    if isinstance(actions, Discrete):
        return [int(actions.n)], torch.tensor([int(actions.start)])
    return [int(n) for n in actions.nvec], torch.as_tensor(actions.start)


def masks_of(actions, lanes, seed):
    """Random ones `[lanes, Σ options]`, each with something allowed of each choice."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for count in counts_of(actions)[0]:
        part = torch.rand(lanes, count, generator=generator) < 0.5
        part[torch.arange(lanes), torch.randint(count, (lanes,), generator=generator)] = True
        parts.append(part)
    return torch.cat(parts, 1)


def blocks(draw, shape, steps, seed):
    """What a generator gives, in blocks of 8, 16, 32 and then always 64 rows: a row for each step."""
    generator, rows, count = torch.Generator().manual_seed(seed), [], 8
    while len(rows) < steps:
        rows += draw((count, *shape), generator)
        count = min(2 * count, 64)
    return rows[:steps]


def steps_of(space, lanes, count, seed):
    """Observations of several steps, in one tensor that is written anew each time, as environments do."""
    reported = some(space, lanes * count, seed).unflatten(0, (count, lanes))
    given = torch.empty(reported.shape[1:][::-1], dtype=reported.dtype).permute(
        *range(reported.ndim - 2, -1, -1)
    )  # not contiguous
    for observations in reported:
        given.copy_(observations)
        yield given


# The network


def law_outputs_are_the_networks(module, space, lanes, network, dtype, by_torch, seed):
    """Of some ten terms of size up to 255 · 3 in each of three layers, of which float32 loses 6e-8 each: 1e-4 of them.

    Both ways to multiply: numpy's, and torch's for what is large.
    """
    policy = built("categorical", space, seed, dtype, **network)
    with mock.patch.multiple(module, **dict.fromkeys(LIMITS, 0 if by_torch else 10**9)):
        copied = module.Snapshot.of(policy, type(policy), policy)
        for observations in steps_of(space, lanes, 2, seed):
            expected = policy(policy.normalizer(observations)).detach()
            found = torch.from_numpy(copied(observations))
            assert found.dtype == dtype
            allowed = (1e-4 if dtype == torch.float32 else 1e-12) * (1 + expected.abs().max())
            assert (found - expected).abs().max() <= allowed


LIMITS = ("MOST_PRODUCTS", "MOST_PRODUCTS_OF_ONE_LANE")
OUTPUTS = (st.sampled_from(BOXES), st.integers(1, 5), NETWORKS, DTYPES, st.booleans(), SEEDS)


@given(*OUTPUTS)
def test_outputs_are_the_networks(space, lanes, network, dtype, by_torch, seed):
    law_outputs_are_the_networks(snapshot, space, lanes, network, dtype, by_torch, seed)


@pytest.mark.parametrize(("lanes", "by_torch"), [(1, True), (2, False), (26, False), (27, True)])
def test_what_numpy_would_give_to_several_threads_is_torchs(lanes, by_torch):
    """A layer of 96 × 100 is too large for one lane; 9600 · 27 < 2¹⁸ < 9600 · 28. Both ways are as the network."""
    lanes += by_torch and lanes > 1
    policy = built("categorical", Box(-1.0, 1.0, (96,)), hidden=(100,))
    observations = some(Box(-1.0, 1.0, (96,)), lanes)
    with mock.patch.object(torch, "addmm", side_effect=torch.addmm) as addmm:
        found = torch.from_numpy(snapshot.Snapshot.of(policy, type(policy), policy)(observations))
    assert bool(addmm.call_count) == by_torch
    assert torch.allclose(found, policy(observations), atol=1e-3)


# Choices


def law_the_policys_choice_under_the_same_noise(case, module, space, lanes, network, masked, seed):
    """Each step's action is argmax of the policy's log-probs + Gumbel noise −log(−log u), in float64.

    Where the two best differ by less than 1e-8, as good as never, rounding may decide. Ten steps need a second block.
    """
    actions = CASES[case][2]
    counts, first = counts_of(actions)
    policy = built(case, space, seed, torch.float64, module, **network)
    actor, generator = policy.actor(), torch.Generator().manual_seed(seed)
    uniform = blocks(
        lambda shape, given: torch.rand(shape, dtype=torch.float64, generator=given),
        (lanes, len(counts), max(counts)),
        10,
        seed,
    )
    given_out = None
    for step, observations in enumerate(steps_of(space, lanes, 10, seed)):
        allowed = masks_of(actions, lanes, seed + step) if masked else None
        inputs = Inputs(observations, allowed)
        log_probs = policy.log_probs(inputs).detach().reshape(uniform[0].shape)
        race = log_probs - torch.log(-torch.log(uniform[step]))
        best = race.topk(min(2, race.shape[-1])).values
        sure = (best[..., 0] - best[..., -1] > 1e-8) | (race.shape[-1] == 1)
        action = actor.act(inputs, generator)
        found = action.actions.reshape(lanes, len(counts)) - first
        assert torch.equal(found[sure], race.argmax(-1)[sure])
        assert action.log_probs is None
        assert action.actions.shape == (lanes, *(actions.shape or ()))
        assert given_out is None or action is given_out
        given_out = action


RACES = (st.sampled_from(BOXES), st.integers(1, 5), NETWORKS, st.booleans(), SEEDS)


@pytest.mark.parametrize("case", CHOICES)
@given(*RACES)
def test_the_policys_choice_under_the_same_noise(case, space, lanes, network, masked, seed):
    law_the_policys_choice_under_the_same_noise(case, None, space, lanes, network, masked, seed)


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
@pytest.mark.parametrize("case", CHOICES)
def test_samples_have_the_frequencies_of_the_log_probs(case, masked):
    """200 lanes that see the same, 300 steps: 60,000 draws of each choice, by χ². A right sampler's p-value is below
    1e-6 for one seed in a million; the seed is fixed. Options expected less than five times are counted together."""
    actions = CASES[case][2]
    counts, first = counts_of(actions)
    policy = built(case, BOXES[1], 3, hidden=(5,))
    observations = some(BOXES[1], 1).expand(200, 4)
    inputs = Inputs(observations, masks_of(actions, 1, 5).expand(200, -1) if masked else None)
    actor, generator = policy.actor(), torch.Generator().manual_seed(3)
    drawn = torch.stack([actor.act(inputs, generator).actions.clone() for _ in range(300)]).reshape(-1, len(counts))
    log_probs = policy.log_probs(inputs).detach()[0].reshape(len(counts), -1)
    for column, row in zip((drawn - first).unbind(1), log_probs.double().exp() * len(drawn), strict=True):
        observed = torch.bincount(column, minlength=len(row))
        likely = row > 5
        assert observed[~likely].sum() < 40
        wanted = row[likely] * observed[likely].sum() / row[likely].sum()
        assert likely.sum() == 1 or chisquare(observed[likely], wanted).pvalue > 1e-6


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize("case", CHOICES)
def test_what_is_masked_is_never_chosen_at_the_ends_of_the_noise(case, uniform):
    """The least and the largest number that torch.rand draws in float64: their noise is finite."""
    actions = CASES[case][2]
    counts, first = counts_of(actions)
    policy, allowed = built(case, BOXES[1]), torch.zeros(3, sum(counts_of(actions)[0]), dtype=torch.bool)
    lasts = np.cumsum(counts) - 1
    allowed[:, lasts] = True
    draw = mock.Mock(side_effect=lambda shape, dtype, generator: torch.full(shape, uniform, dtype=dtype))
    with mock.patch.object(torch, "rand", draw):
        found = policy.actor().act(Inputs(some(BOXES[1], 3), allowed), torch.Generator()).actions
    assert draw.call_count == 1
    assert (found.reshape(3, -1) - first == torch.tensor(counts) - 1).all()


def test_large_logits_do_not_swallow_the_noise():
    """Logits of 10⁸ + {0, 0}, where float32 knows no number between multiples of 8: still one half each, give or take
    six standard deviations of 10,000 draws."""
    policy = built("categorical", BOXES[1], hidden=())
    with torch.no_grad():
        policy.network[-1].weight.zero_()
        policy.network[-1].bias.copy_(torch.tensor([1e8, 1e8, 0.0]))
    actor = policy.actor()
    drawn = actor.act(Inputs(torch.zeros(10_000, 4)), torch.Generator().manual_seed(0)).actions + 1
    assert abs(int((drawn == 0).sum()) - 5000) < 6 * 50
    assert not (drawn == 2).any()


# Numbers


def law_means_and_deviations_are_the_policys(case, module, space, lanes, network, dtype, seed):
    """Each step's action is μ + σ·noise of the policy's μ and σ: in float32 to 1e-4 of the largest of them."""
    policy = built(case, space, seed, dtype, module, **network)
    shape = CASES[case][2].shape
    count = int(np.prod(shape))
    noise = blocks(lambda shape, given: torch.randn(shape, dtype=dtype, generator=given), (lanes, count), 10, seed)
    actor, generator, given_out = policy.actor(), torch.Generator().manual_seed(seed), None
    for step, observations in enumerate(steps_of(space, lanes, 10, seed)):
        with torch.no_grad():
            means, logs = policy.normal(Inputs(observations))
        parts = means, logs.exp() * noise[step]
        action = actor.act(Inputs(observations), generator)
        assert action.actions.shape == (lanes, *shape)
        assert action.actions.dtype == dtype
        size = 1 + parts[0].abs().max() + parts[1].abs() * (1 + logs.abs().max() + means.abs().max())
        found = action.actions.reshape(lanes, count)
        error, allowed = (found - sum(parts)).abs(), (1e-4 if dtype == torch.float32 else 1e-12) * size
        assert ((error <= allowed) | (found == sum(parts))).all()  # both may overflow
        assert given_out is None or action is given_out
        given_out = action


SPREADS = (st.sampled_from(BOXES[:4]), st.integers(1, 5), NETWORKS, DTYPES, SEEDS)


@pytest.mark.parametrize("case", NORMALS)
@given(*SPREADS)
def test_means_and_deviations_are_the_policys(case, space, lanes, network, dtype, seed):
    law_means_and_deviations_are_the_policys(case, None, space, lanes, network, dtype, seed)


# What every actor keeps to


def drawn_by(actor, observations, seed, steps=3):
    """The actions of some steps."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([actor.act(Inputs(observations), generator).actions.clone() for _ in range(steps)])


def law_an_actor_is_a_snapshot(case, module, normalize, seed):
    """All weights and statistics change in place, and it draws what it drew; a new one does not.

    Of 40 lanes, in which random weights agree three times over with others for less than one seed in a million.
    """
    policy = built(case, BOXES[1], seed, module=module, normalize=normalize, hidden=(5,))
    observations = some(BOXES[1], 40, seed)
    late = policy.actor()  # has not acted before the change
    before = drawn_by(policy.actor(), observations, seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=2.0)
    if normalize:
        look(policy, 3 + 5 * observations)
    assert torch.equal(drawn_by(late, observations, seed), before)
    assert not torch.equal(drawn_by(policy.actor(), observations, seed), before)


@EACH
@given(SEEDS)
def test_all_randomness_is_the_generators(case, seed):
    """Alike generators, alike actions, whoever acted before; others with another; the global one is not touched."""
    policy, observations = built(case, BOXES[1], 1), some(BOXES[1], 60)
    before = torch.get_rng_state()
    one = drawn_by(policy.actor(), observations, seed, 30)
    assert torch.equal(drawn_by(policy.actor(), observations, seed, 30), one)
    assert not torch.equal(drawn_by(policy.actor(), observations, seed + 1, 30), one)
    assert len({tuple(row.flatten().tolist()) for row in one}) > 20  # each step has noise of its own
    assert torch.equal(torch.get_rng_state(), before)


def law_what_a_generator_gives_is_its_own(case, module, seed):
    """An actor serves several shards: the second one's draws do not depend on how far the first one's got."""
    policy, observations = built(case, BOXES[1], 1, module=module), some(BOXES[1], 60)
    actor = policy.actor()
    drawn_by(actor, observations, seed, 3)
    assert torch.equal(drawn_by(actor, observations, seed + 1), drawn_by(policy.actor(), observations, seed + 1))


@EACH
@given(SEEDS)
def test_what_a_generator_gives_is_its_own(case, seed):
    law_what_a_generator_gives_is_its_own(case, None, seed)


@EACH
def test_another_number_of_lanes_is_taken(case):
    """As a new actor would take it, with an `Action` of its own."""
    policy, few, many = built(case, BOXES[2]), some(BOXES[2], 2), some(BOXES[2], 7)
    actor = policy.actor()
    small = actor.act(Inputs(few), torch.Generator())
    large = drawn_by(actor, many, 4)
    assert torch.equal(large, drawn_by(policy.actor(), many, 4))
    assert len(small.actions) == 2
    assert large.shape[1] == 7


def exchanged(policy, place, layer):
    """Another module in the network."""
    network = policy if isinstance(policy, categorical.CategoricalPolicy) else policy.network
    network.network[place] = layer


def stack(policy):
    """The layers that a policy acts with."""
    return getattr(policy.network, "network", policy.network)


UNKNOWN = {
    "on another device": lambda policy: policy.to("meta"),
    "in half precision": lambda policy: policy.to(torch.bfloat16),
    "partly in float64": lambda policy: exchanged(policy, 0, nn.Linear(4, 32).double()),
    "with another activation": lambda policy: exchanged(policy, 1, nn.ELU()),
    "with a layer of one's own": lambda policy: exchanged(policy, 0, type("Mine", (nn.Linear,), {})(4, 32)),
    "without biases": lambda policy: exchanged(policy, 0, nn.Linear(4, 32, bias=False)),
    "with a parametrised layer": lambda policy: exchanged(policy, 0, parametrizations.weight_norm(nn.Linear(4, 32))),
    "with a hook": lambda policy: policy.normalizer.register_forward_pre_hook(lambda module, given: None),
    "with another normaliser": lambda policy: setattr(policy, "normalizer", nn.Tanh()),
    "that acts otherwise": lambda policy: setattr(policy, "act", lambda inputs, generator: None),
    "of which a layer is called otherwise": lambda policy: setattr(stack(policy)[0], "forward", lambda some: some),
    "with an activation at the end": lambda policy: stack(policy).append(torch.nn.Tanh()),
    "of a class of one's own": lambda policy: setattr(policy, "__class__", type("Mine", (type(policy),), {})),
}


@pytest.mark.parametrize("how", UNKNOWN)
@EACH
def test_there_is_no_actor_for_a_policy(case, how):
    """That is not the one that was built: `act` is used instead."""
    policy = built(case, BOXES[1])
    assert policy.actor() is not None
    UNKNOWN[how](policy)
    assert policy.actor() is None


@pytest.mark.parametrize("case", [*NORMALS, "multi_categorical"])
def test_there_is_no_actor_over_discrete_observations(case):
    assert built(case, Discrete(3)).actor() is None


# In a run


@frozen
class Drifting:
    """Ten steps on a box of float64, of which an observation beyond float32 may be one; what is done does not count."""

    actions: object
    third: str = "0.5"  # as text: settings refuse NaN

    def build(self, num_envs, device):
        return DriftingLanes(self, num_envs)


class DriftingLanes:
    observation_space = Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, settings, count):
        self.settings, self.action_space = settings, settings.actions
        self.observations = torch.zeros(count, 3, dtype=torch.float64)
        self.step_of_all = Step(
            self.observations,
            self.observations,
            torch.ones(count),
            torch.zeros(count, dtype=torch.bool),
            torch.zeros(count, dtype=torch.bool),
        )
        self.time = 0

    def reset(self, generator):
        self.time = 0
        return self.observations.zero_()

    def step(self, actions, generator):
        self.time += 1
        self.observations.normal_(generator=generator)
        if self.time == 3:
            self.observations[1, 2] = float(self.settings.third)
        self.step_of_all.truncated.fill_(self.time % 10 == 0)
        return self.step_of_all


EIGHT = RolloutSettings(lanes=4, episodes=8)  # 20 rows


@EACH
def test_a_run_keeps_what_the_actor_chose(case):
    """Replayed by a new actor of the weights that acted: the rollout's actions and log-probs, bit for bit."""
    module, name, actions, settings = CASES[case]
    policy = getattr(module, name)(**settings)
    run = framework.train(policy=policy, environment=Drifting(actions), rollout=EIGHT, iterations=1).run
    generator = streams.generator(run.config.seed, "act", run.iteration, 0)
    rollout = run.hook.collect_rollout(run=run)
    actor = run.policy.actor()
    for observations, chosen in zip(rollout.observations, rollout.actions, strict=True):
        assert torch.equal(actor.act(Inputs(observations), generator).actions, chosen)
    said = run.policy.evaluate(Inputs(rollout.observations.flatten(0, 1)), rollout.actions.flatten(0, 1), False)
    assert torch.equal(said.log_probs.detach().reshape(20, 4), rollout.log_probs)


@pytest.mark.parametrize("third", ["inf", "nan", "1e300"])
@EACH
def test_numbers_that_are_not_finite_are_the_cores_to_refuse(case, third):
    """The error names the part; the actor itself does not warn. 1e300 is beyond float32."""
    module, name, actions, settings = CASES[case]
    policy = getattr(module, name)(**settings)
    label = "policy" if third == "1e300" else "environment 'Drifting'.* observations"
    with pytest.raises(PartError, match=f"^{label}.*: not finite"):
        framework.train(policy=policy, environment=Drifting(actions, third), rollout=EIGHT, iterations=1)


# Mutants


def of_changed(case, module, change):
    """The policy's module, changed itself or using changed snapshots; without a case, the changed module."""
    changed = mutate(module.__name__, change)
    if case is None or module is not snapshot:
        return changed
    policies = CASES[case][0]
    names = [name for name in ("Snapshot", "GumbelMaxActor", "Noise") if hasattr(policies, name)]
    return mutate(policies.__name__, **{name: getattr(changed, name) for name in names})


def outputs(change):
    return law_outputs_are_the_networks, None, snapshot, OUTPUTS, change


def stays(change):
    return law_an_actor_is_a_snapshot, "categorical", snapshot, (st.just(True), SEEDS), change


def races(case, module, change):
    return law_the_policys_choice_under_the_same_noise, case, module, RACES, change


def spreads(case, module, change):
    return law_means_and_deviations_are_the_policys, case, module, SPREADS, change


OF_ALL, OF_EACH = "gaussian, global, [2, 2]", "gaussian, state, [2, 2]"
CHANGES = {
    "does not copy weights": stays((".numpy().T.copy() for weight", ".numpy().T for weight")),
    "does not copy biases": stays(("[b.detach().numpy().copy()", "[b.detach().numpy()")),
    "does not copy means": stays(("means.numpy().flatten()", "means.numpy().ravel()")),
    "serves a shard with another's noise": (
        law_what_a_generator_gives_is_its_own,
        "categorical",
        snapshot,
        (SEEDS,),
        ("if generator is not self._generator:", "if self._generator is None:"),
    ),
    "forgets biases": outputs(("np.tile(biases, (lanes, 1))", "np.tile(0 * biases, (lanes, 1))")),
    "forgets activations": outputs(("if activation is not None:", "if False:")),
    "takes every activation for tanh": outputs(("isinstance(activation, nn.Tanh)", "True")),
    "does not centre": outputs(("np.subtract(features, means, features)", "pass")),
    "does not scale": outputs(("np.divide(features, deviations, features)", "pass")),
    "scales by the variance": outputs(("torch.sqrt(variances + EPSILON)", "(variances + EPSILON)")),
    "does not cut above": outputs(("np.minimum(features, CLIP, out=features)", "pass")),
    "does not cut below": outputs(("np.maximum(features, -CLIP, out=features)", "pass")),
    "looks once": outputs(("observations, observations.numpy()", "observations, observations.numpy().copy()")),
    "adds the noise of exponentials": races(
        "categorical", snapshot, ("np.subtract(logits, self._noise", "np.add(logits, self._noise")
    ),
    "takes uniform noise": races("categorical", snapshot, ("np.negative(numbers, numbers)\n", "return numbers\n")),
    "draws once": races(
        "categorical",
        snapshot,
        ("            return row\n", "            self._rows = iter((row,))\n            return row\n"),
    ),
    "ignores masks": races("categorical", snapshot, ("if inputs.action_masks is not None:", "if False:")),
    "ignores the masks' order": races(
        "multi_categorical", snapshot, ("allowed[:, self._options]", "allowed[:, self._options[::-1]]")
    ),
    "forgets first numbers": races("multi_categorical", snapshot, ("self._chosen += self._first", "pass")),
    "offers what is missing": races(
        "multi_categorical",
        multi_categorical,
        ("self.missing.flatten().numpy()] = -np.inf", "self.missing.flatten().numpy()] = 9.0"),
    ),
    "offers the value": races("actor_critic, shared", actor_critic, ("network, slice(self.count))", "network)")),
    "forgets deviations": spreads(OF_ALL, gaussian, ("noise *= self._deviations", "pass")),
    "forgets the first deviation": spreads(
        OF_EACH, gaussian, ("NormalActor(snapshot, math.exp(self.first_log)", "NormalActor(snapshot, 1.0")
    ),
    "takes logs for deviations": spreads(OF_EACH, gaussian, ("np.exp(self._logs, self._logs)", "pass")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_law_kills_the_mutant_that(name):
    law, case, module, strategies, change = CHANGES[name]
    changed = of_changed(case, module, change)
    is_killed(law, *strategies, arguments=(changed,) if case is None else (case, changed))
