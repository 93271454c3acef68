"""Laws of policies with a critic, and their cases."""

import itertools
import math

import framework_policies.actor_critic as actor_critic
import framework_policies.gaussian as gaussian
import framework_policies.multi_categorical as multi_categorical
import framework_policies.tabular as tabular
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import distributions

from framework import Inputs

MODULES = {"ActorCritic": actor_critic, "Gaussian": gaussian, "MultiCategorical": multi_categorical, "Tabular": tabular}
SEEDS = st.integers(0, 2**31)
FINITE = st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3))
BOXES = st.sampled_from([Box(-1.0, 1.0, (1,)), Box(-2.0, 3.0, (2, 3)), Box(0, 255, (3,), np.uint8), Box(-1.0, 1.0, ())])
OBSERVATIONS = st.one_of(FINITE, BOXES)
UNEVEN = Box(np.array([-2.0, 0.5], np.float32), np.array([-1.0, 3.0], np.float32))
BOUNDED = [Box(-1.0, 3.0, ()), Box(-1.0, 1.0, (1,)), UNEVEN, Box(-2.0, 0.5, (2, 2))]
SEVERAL = [MultiDiscrete([3]), MultiDiscrete([2, 4, 1], start=[1, -2, 5]), MultiDiscrete([3, 3])]
EACH_GAUSSIAN = [(deviation, squash) for deviation in ("global", "state") for squash in (False, True)]
CASES = {
    "actor_critic": ("ActorCritic", Discrete(3, start=-1), {}),
    "actor_critic, shared": ("ActorCritic", Discrete(3, start=-1), {"shared": True}),
    "tabular": ("Tabular", Discrete(3, start=2), {}),
    "multi_categorical": ("MultiCategorical", SEVERAL[1], {}),
    **{
        f"gaussian, {deviation}{', squashed' if squash else ''}": (
            "Gaussian",
            UNEVEN,
            {"deviation": deviation, "squash": squash, "initial_deviation": 0.7},
        )
        for deviation, squash in EACH_GAUSSIAN
    },
}


def built(name, observations, actions, seed=0, module=None, dtype=torch.float64, **settings):
    """A policy with weights of its own, far from uniform; hidden layers small and smooth."""
    if name != "Tabular":
        settings = {"hidden": (5,), "activation": "tanh", "embedding": 3, **settings}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = getattr(module or MODULES[name], name)(**settings).build(observations, actions)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.normal_(std=0.7)
    return policy if dtype is None else policy.to(dtype)


def of_case(case, observations, seed=0, **more):
    """A policy of `CASES`, and its actions' space."""
    name, actions, settings = CASES[case]
    return built(name, observations, actions, seed, **settings, **more), actions


def some(space, count, seed=0):
    """`count` elements of a space, as a batch."""
    space.seed(seed)
    return torch.stack([torch.as_tensor(space.sample()) for _ in range(count)])


def every(space):
    """All elements of a Discrete or MultiDiscrete space, `[count, *A]`."""
    if isinstance(space, Discrete):
        return torch.arange(int(space.start), int(space.start) + int(space.n))
    rows = [range(first, first + count) for first, count in zip(space.start, space.nvec, strict=True)]
    return torch.tensor(list(itertools.product(*rows)))


def probabilities(policy, observations, actions, masks=None):
    """π(a|s) `[B, all actions]` as `evaluate` gives them, one action after the other."""
    columns = [
        policy.evaluate(Inputs(observations, masks), action.expand(len(observations), *action.shape), False).log_probs
        for action in every(actions)
    ]
    return torch.stack(columns, 1).detach().exp()


# The network


def law_looking_up_is_a_shortcut(module, observations, seed):
    """All at once (each state is evaluated once, where there are no more than rows), or one by one: outputs, gradients.

    In float64, whose rounding of some ten terms of size 10 is far below 1e-10. The weights' names tell what to expect.
    """
    settings = module.NetworkSettings(hidden=(4,), activation="tanh", embedding=3)
    net = module.Network(settings, observations, 2).double()
    batch = some(observations, 8, seed)
    weights = dict(net.named_parameters())
    if isinstance(observations, Discrete):
        features = weights["embedding.weight"][batch - int(observations.start)]
    else:
        features = batch.reshape(8, -1).double()
    hidden = torch.tanh(features @ weights["network.0.weight"].T + weights["network.0.bias"])
    expected = hidden @ weights["network.2.weight"].T + weights["network.2.bias"]
    outcomes = []
    try:
        looked_up = net(batch), torch.stack([net(row) for row in batch]), net(batch.unflatten(0, (2, 4)))
    except IndexError as error:
        raise AssertionError("an element of the space is not taken") from error
    for outputs in (expected, *looked_up):
        flat = outputs.reshape(8, 2)
        gradients = torch.autograd.grad(flat.square().sum(), list(weights.values()), allow_unused=True)
        assert all(gradient is not None for gradient in gradients)
        outcomes.append([flat, *gradients])
    assert outputs.shape == (2, 4, 2)
    for other in outcomes[1:]:
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(outcomes[0], other, strict=True))


def law_gradients_are_right(case, module, observations, seed):
    """Of a sum of all that `evaluate` gives: each parameter's is that of central differences, and none is 0 or missing.

    In float64 with h = 1e-5 and numbers up to some 100: errors of order h² and 1e-14/h, so 1e-6 of the size is ample.
    """
    policy, actions = of_case(case, observations, seed, module=module)
    generator = torch.Generator().manual_seed(seed)
    batch, chosen = some(observations, 7, seed), some(actions, 7, seed)
    batch = batch if isinstance(observations, Discrete) else batch / observations.high.max()
    factors = torch.randn(3, 7, generator=generator, dtype=torch.float64)

    def total():
        said = policy.evaluate(Inputs(batch), chosen, True)
        return (factors * torch.stack([said.log_probs, said.entropies, said.values])).sum()

    gradients = torch.autograd.grad(total(), list(policy.parameters()), allow_unused=True)
    for (name, parameter), gradient in zip(policy.named_parameters(), gradients, strict=True):
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends = []
        with torch.no_grad():
            for step in (1e-5, -2e-5):
                parameter += step * direction
                ends.append(float(total()))
            parameter += 1e-5 * direction
        expected = (ends[0] - ends[1]) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-6), name


# at least two states: a softmax of one state's logits has every gradient all the same
SMOOTH = st.sampled_from([Discrete(2), Discrete(4, start=-1), Box(-1.0, 1.0, (2, 3))])


def law_several_actions_are_independent(module, observations, actions, seed):
    """Against one distribution of torch's for each, over the network's logits cut one after the other."""
    policy = built("MultiCategorical", observations, actions, seed, module)
    batch, chosen = some(observations, 6, seed), some(actions, 6, seed)
    parts = policy.network(batch).split([int(count) for count in actions.nvec], 1)
    oracles = [distributions.Categorical(logits=part) for part in parts]
    columns = (chosen - torch.as_tensor(actions.start)).unbind(1)
    expected = sum(oracle.log_prob(column) for oracle, column in zip(oracles, columns, strict=True))
    try:
        said = policy.evaluate(Inputs(batch), chosen, True)
    except (IndexError, RuntimeError) as error:
        raise AssertionError("an element of the space is not taken") from error
    assert torch.allclose(said.log_probs, expected, atol=1e-10)
    assert torch.allclose(said.entropies, sum(oracle.entropy() for oracle in oracles), atol=1e-10)


SEVERAL_ARGUMENTS = (OBSERVATIONS, st.sampled_from(SEVERAL), SEEDS)


@st.composite
def masks(draw, counts, rows=6):
    """Random ones `[rows, Σ counts]`, each with something allowed of each action."""
    parts = [
        draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n).filter(any), min_size=rows, max_size=rows))
        for n in counts
    ]
    return torch.cat([torch.tensor(part) for part in parts], 1)


def law_masks_forbid(case, module, observations, allowed, seed):
    """What is masked has probability 0 and is not sampled, the rest sums to one, entropies are the rest's; no NaN."""
    policy, actions = of_case(case, observations, seed, module=module)
    batch, inputs = some(observations, 6, seed), Inputs(some(observations, 6, seed), allowed)
    first = torch.as_tensor(actions.start)
    counts = [int(n) for n in (actions.nvec if isinstance(actions, MultiDiscrete) else [actions.n])]
    numbers = (every(actions) - first).reshape(-1, len(counts))
    permitted = torch.ones(6, len(numbers), dtype=torch.bool)
    for part, column in zip(allowed.split(counts, 1), numbers.unbind(1), strict=True):
        permitted &= part[:, column]
    table = probabilities(policy, batch, actions, allowed)
    assert not table[~permitted].any()
    assert (table[permitted] > 0).all()
    assert torch.allclose(table.sum(1), torch.ones(6, dtype=torch.float64), atol=1e-12)
    action = policy.act(inputs, torch.Generator().manual_seed(seed)).actions
    said = policy.evaluate(inputs, action, True)
    assert torch.isfinite(said.log_probs).all()
    expected = [-sum(p * math.log(p) for p in row if p > 0) for row in table.tolist()]
    assert said.entropies.tolist() == pytest.approx(expected, abs=1e-10)
    total = (said.log_probs + 3 * said.entropies + said.values).sum()  # a factor above 1, which must not overflow
    for gradient in torch.autograd.grad(total, list(policy.parameters())):
        assert torch.isfinite(gradient).all()
    if hasattr(policy, "actor") and policy.actor() is not None:
        drawn = policy.actor().act(inputs, torch.Generator().manual_seed(seed)).actions - first
        for part, column in zip(allowed.split(counts, 1), drawn.reshape(6, -1, 1).unbind(1), strict=True):
            assert part.gather(1, column).all()


# Continuous actions


def oracle_of(policy, batch, actions, settings):
    """torch's distribution of what the environment gets if squashed, else of u, from the network's outputs."""
    count = int(np.prod(actions.shape))
    outputs = policy.network(batch)
    if settings["deviation"] == "state":
        deviations = torch.exp(outputs[:, count:]) * settings["initial_deviation"]
    else:
        deviations = torch.exp(policy.log_deviations).expand(len(batch), count)
    shape = (len(batch), *actions.shape)
    normal = distributions.Normal(outputs[:, :count].reshape(shape), deviations.reshape(shape))
    if settings["squash"]:
        low, high = torch.as_tensor(actions.low).double(), torch.as_tensor(actions.high).double()
        steps = [
            distributions.TanhTransform(),
            distributions.AffineTransform((low + high) / 2, (high - low) / 2, event_dim=0),
        ]
        normal = distributions.TransformedDistribution(normal, steps)
    return distributions.Independent(normal, len(actions.shape))


def law_densities_are_torchs(module, observations, actions, kind, seed):
    """log π in float64: torch inverts tanh, which near |u| = 4 loses a factor of e⁸ of 1e-16, so 1e-9 is ample."""
    settings = {"deviation": kind[0], "squash": kind[1], "initial_deviation": 0.7}
    policy = built("Gaussian", observations, actions, seed, module, **settings)
    batch = some(observations, 6, seed).clamp(max=9)
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(6, *actions.shape, generator=generator, dtype=torch.float64) * 8 - 4
    oracle = oracle_of(policy, batch, actions, settings)
    got = policy.environment_actions(u) if settings["squash"] else u
    said = policy.evaluate(Inputs(batch), u, True)
    assert torch.allclose(said.log_probs, oracle.log_prob(got), atol=1e-9)
    if not settings["squash"]:
        assert torch.allclose(said.entropies, oracle.entropy(), atol=1e-12)


DENSITIES = (OBSERVATIONS, st.sampled_from(BOUNDED), st.sampled_from(EACH_GAUSSIAN), SEEDS)


def one_number(module, squash, mean, deviation, space):
    """A policy of one action number whose mean and deviation are given, in float64."""
    policy = built("Gaussian", Discrete(1), space, 0, module, hidden=(), squash=squash)
    with torch.no_grad():
        policy.network.network[-1].weight.zero_()
        policy.network.network[-1].bias.fill_(mean)
        policy.log_deviations.fill_(math.log(deviation))
    return policy


MEANS, DEVIATIONS = st.floats(-1.5, 1.5), st.floats(0.2, 1.2)
POINTS = 10_001


def law_densities_integrate_to_one(module, squash, mean, deviation):
    """By the trapezoidal rule over what the environment gets (squashed), or over u; entropies are −∫ p·log p.

    u runs over ±8 deviations, beyond which lies 1e-15, in steps of 0.0016 deviations, whose square is the rule's error.
    Squashed, the nodes a are those of evenly spaced u. The quadrature behind the entropy is exact to 1e-6 here.
    """
    space = Box(-1.0, 4.0, (1,), np.float64)
    policy = one_number(module, squash, mean, deviation, space)
    u = mean + deviation * torch.linspace(-8, 8, POINTS, dtype=torch.float64)[:, None]
    said = policy.evaluate(Inputs(torch.zeros(POINTS, dtype=torch.int64)), u, True)
    got = policy.environment_actions(u)[:, 0] if squash else u[:, 0]
    density = said.log_probs.detach().exp()
    assert float(torch.trapezoid(density, got)) == pytest.approx(1, abs=1e-5)
    entropy = -float(torch.trapezoid(density * said.log_probs.detach(), got))
    assert float(said.entropies[0].detach()) == pytest.approx(entropy, abs=1e-4)


def law_samples_are_normal(module, deviation, seed):
    """5,000 samples of each number by Kolmogorov and Smirnov, at 1e-6; numbers uncorrelated within 5/√5000."""
    settings = {"deviation": deviation, "initial_deviation": 0.7}
    policy = built("Gaussian", Discrete(2), Box(-1.0, 1.0, (2, 2)), seed, module, **settings)
    batch = torch.ones(5000, dtype=torch.int64)
    drawn = policy.act(Inputs(batch), torch.Generator().manual_seed(seed)).actions
    assert drawn.shape == (5000, 2, 2)
    outputs = policy.network(batch[:1]).detach()[0]
    logs = outputs[4:] + math.log(0.7) if deviation == "state" else policy.log_deviations.detach()
    standard = ((drawn.reshape(5000, 4) - outputs[:4]) / logs.exp()).numpy()
    for column in standard.T:
        assert kstest(column, "norm").pvalue > 1e-6
    assert np.abs(np.corrcoef(standard.T) - np.eye(4)).max() < 5 / math.sqrt(5000)


def law_the_environment_gets_actions_of_its_space(module, space, squash, seed):
    """Whatever was sampled, and in the space's dtype; at the far ends exactly the bounds; at 0 the middle, or 0."""
    policy = built("Gaussian", Discrete(1), space, 0, module, dtype=None, squash=squash)
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(40, *space.shape, generator=generator) * 10 ** torch.linspace(-3, 3, 40).reshape(
        40, *(1 for _ in space.shape)
    )
    got = policy.environment_actions(u)
    for row in got:
        assert space.contains(row.numpy())
        assert row.numpy().dtype == space.dtype
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    for far in (50.0, 1e30) if squash else (1e30,):
        ends = policy.environment_actions(torch.stack([torch.full(space.shape, sign * far) for sign in (-1.0, 1.0)]))
        assert torch.equal(ends[0], low)
        assert torch.equal(ends[1], high)
    middle = policy.environment_actions(torch.zeros(1, *space.shape))[0]
    expected = (low + high) / 2 if squash else torch.zeros(space.shape).to(low).clamp(low, high)
    assert torch.allclose(middle, expected, rtol=1e-6)
    if not squash:
        inside = (u > low) & (u < high)
        assert torch.equal(got[inside], u[inside].to(got.dtype))


# in float32 −1.4 + (0.8 + 1.4) > 0.8
AWKWARD = [*BOUNDED, Box(-1.4, 0.8, (3,)), Box(0.1, 0.7, (2,), np.float64), Box(-1e-3, 1e4, (2,))]
ENVIRONMENTS = (st.sampled_from(AWKWARD), st.booleans(), SEEDS)
