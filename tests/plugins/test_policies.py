"""Policies with a critic: sampled as evaluated, with gradients that are right."""

import math

import framework_networks.network as network
import framework_policies.multi_categorical as multi_categorical
import numpy as np
import pytest
import torch
from framework_policies import Tabular
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from policy_laws import (
    CASES,
    FINITE,
    OBSERVATIONS,
    SEEDS,
    SEVERAL_ARGUMENTS,
    SMOOTH,
    built,
    every,
    law_gradients_are_right,
    law_looking_up_is_a_shortcut,
    law_masks_forbid,
    law_several_actions_are_independent,
    masks,
    of_case,
    probabilities,
    some,
)
from scipy.stats import chisquare
from torch import distributions

from framework import Inputs

FEWER = hypothesis_settings(max_examples=max(3, hypothesis_settings.default.max_examples // 4))  # there are many cases
CHOICES = [name for name in CASES if not name.startswith("gaussian")]
EVERY = pytest.mark.parametrize("case", CASES)


def observed(case):
    """The observations that a policy takes."""
    return FINITE if case == "tabular" else OBSERVATIONS


@given(OBSERVATIONS, SEEDS)
def test_looking_up_is_a_shortcut(observations, seed):
    law_looking_up_is_a_shortcut(network, observations, seed)


@pytest.mark.parametrize("case", ["actor_critic", "actor_critic, shared", "multi_categorical", "gaussian, state"])
def test_each_state_is_evaluated_once(case):
    """A thousand steps over three states are forward passes of three rows, for actions and values; two are of two."""
    policy, actions = of_case(case, Discrete(3))
    rows = []
    for module in policy.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, arguments, output: rows.append(len(output)))
    for count in (1000, 2):
        rows.clear()
        batch, chosen = torch.arange(count) % 3, some(actions, 1).expand(count, *actions.shape)
        policy.evaluate(Inputs(batch), chosen, True)
        policy.values(Inputs(batch))
        assert set(rows) == {min(3, count)}


# What every policy keeps to


@EVERY
@FEWER
@given(st.data(), SEEDS)
def test_every_observation_is_taken(case, data, seed):
    """Of a finite space all, the last too, for acting, evaluating and valuing: one finite number an observation."""
    observations = data.draw(observed(case))
    policy, actions = of_case(case, observations, seed, dtype=torch.float32)
    batch = every(observations) if isinstance(observations, Discrete) else some(observations, 5)
    action = policy.act(Inputs(batch), torch.Generator().manual_seed(seed))
    assert action.actions.shape == (len(batch), *actions.shape)
    translated = getattr(policy, "environment_actions", lambda given: given)(action.actions)
    assert all(actions.contains(np.asarray(row)) or actions.contains(int(row)) for row in translated)
    evaluation = policy.evaluate(Inputs(batch), action.actions, True)
    for numbers in (evaluation.log_probs, evaluation.entropies, evaluation.values):
        assert numbers.shape == (len(batch),)
        assert numbers.dtype == torch.float32
        assert torch.isfinite(numbers).all()
    assert policy.evaluate(Inputs(batch), action.actions, False).entropies is None
    # looked up or row by row, in float32: some ten terms of size 10, each off by 6e-8 of it
    assert torch.allclose(policy.values(Inputs(batch)), evaluation.values, atol=1e-4)
    if action.log_probs is not None:
        assert not action.log_probs.requires_grad
        assert torch.allclose(action.log_probs, evaluation.log_probs, atol=1e-4)


@EVERY
@FEWER
@given(st.data(), SEEDS)
def test_gradients_are_right(case, data, seed):
    observations = data.draw(SMOOTH.filter(lambda space: case != "tabular" or isinstance(space, Discrete)))
    law_gradients_are_right(case, None, observations, seed)


@EVERY
def test_judging_never_looks_at_the_numbers(case):
    """On tensors without data, where reading a number or branching on one is an error: it can be compiled."""
    for observations in (Discrete(3), Box(-1.0, 1.0, (2,))):
        if case == "tabular" and isinstance(observations, Box):
            continue
        policy, actions = of_case(case, observations, dtype=torch.float32)
        policy, batch, chosen = policy.to("meta"), some(observations, 5).to("meta"), some(actions, 5).to("meta")
        evaluation = policy.evaluate(Inputs(batch), chosen, True)
        assert evaluation.log_probs.shape == evaluation.entropies.shape == evaluation.values.shape == (5,)


@EVERY
@FEWER
@given(st.data(), SEEDS)
def test_a_state_dict_is_the_whole_policy(case, data, seed):
    """Handed to a policy with other weights, it makes that one the same, bit for bit; all of it is learnt."""
    observations = data.draw(observed(case))
    (one, actions), (two, _) = of_case(case, observations, 1), of_case(case, observations, 2)
    two.load_state_dict(one.state_dict())
    assert set(one.state_dict()) == {name for name, _ in one.named_parameters()}
    batch, chosen = some(observations, 6, seed), some(actions, 6, seed)
    said = [policy.evaluate(Inputs(batch), chosen, True) for policy in (one, two)]
    for name in ("log_probs", "entropies", "values"):
        assert torch.equal(getattr(said[0], name), getattr(said[1], name))
    acts = [policy.act(Inputs(batch), torch.Generator().manual_seed(3)).actions for policy in (one, two)]
    assert torch.equal(*acts)


# Discrete actions


@pytest.mark.parametrize("case", CHOICES)
@FEWER
@given(st.data(), SEEDS)
def test_probabilities_sum_to_one_and_entropies_are_theirs(case, data, seed):
    """Over all actions (of several at once: over all combinations), in float64; H = −Σ p·log p."""
    observations = data.draw(observed(case))
    policy, actions = of_case(case, observations, seed)
    batch = some(observations, 6, seed)
    table = probabilities(policy, batch, actions)
    assert torch.allclose(table.sum(1), torch.ones(6, dtype=torch.float64), atol=1e-12)
    expected = [-sum(p * math.log(p) for p in row if p > 0) for row in table.tolist()]
    assert policy.evaluate(Inputs(batch), some(actions, 6), True).entropies.tolist() == pytest.approx(
        expected, abs=1e-10
    )


@given(OBSERVATIONS, st.booleans(), SEEDS)
def test_an_actor_critic_is_a_softmax(observations, shared, seed):
    """Against torch's distribution over the network's logits."""
    actions = Discrete(4, start=2)
    policy = built("ActorCritic", observations, actions, seed, shared=shared)
    batch, chosen = some(observations, 6, seed), some(actions, 6, seed)
    oracle = distributions.Categorical(logits=policy.network(batch)[:, :4])
    said = policy.evaluate(Inputs(batch), chosen, True)
    assert torch.allclose(said.log_probs, oracle.log_prob(chosen - 2), atol=1e-12)
    assert torch.allclose(said.entropies, oracle.entropy(), atol=1e-12)
    values = policy.network(batch)[:, 4] if shared else policy.critic(batch)[:, 0]
    assert torch.allclose(said.values, values, atol=1e-12)


@given(*SEVERAL_ARGUMENTS)
def test_several_actions_are_independent(observations, actions, seed):
    law_several_actions_are_independent(multi_categorical, observations, actions, seed)


@pytest.mark.parametrize("faster", [False, True], ids=["policy", "actor"])
@pytest.mark.parametrize("case", CHOICES)
def test_samples_have_the_frequencies_that_evaluate_says(case, faster):
    """20,000 draws in each of three states over all actions, by χ²: a right sampler fails for one seed in a million.

    What is expected less than five times is too rare for χ², and left out: at most 60 draws in all.
    """
    states = Discrete(3, start=2)
    policy, actions = of_case(case, states, 4, dtype=torch.float32)
    if faster and policy.actor() is None:
        assert case == "multi_categorical"
        return
    sampler, generator = policy.actor() if faster else policy, torch.Generator().manual_seed(4)
    for state, expected in zip(every(states), probabilities(policy, every(states), actions), strict=True):
        drawn = sampler.act(Inputs(state.expand(20_000)), generator).actions
        matches = drawn.reshape(20_000, 1, -1) == every(actions).reshape(1, len(expected), -1)
        counts = matches.all(-1).sum(0)
        assert counts.sum() == 20_000
        wanted = expected.double() * 20_000
        likely = wanted > 5
        assert counts[~likely].sum() < 60
        wanted = wanted[likely] * counts[likely].sum() / wanted[likely].sum()
        assert chisquare(counts[likely], wanted).pvalue > 1e-6


@pytest.mark.parametrize("case", CHOICES)
@FEWER
@given(st.data(), SEEDS)
def test_masks_forbid(case, data, seed):
    counts = [2, 4, 1] if case == "multi_categorical" else [3]
    law_masks_forbid(case, None, data.draw(observed(case)), data.draw(masks(counts)), seed)


def test_a_table_begins_uniform_and_valued_at_zero():
    policy = Tabular().build(Discrete(3, start=1), Discrete(4))
    said = policy.evaluate(Inputs(torch.tensor([1, 2, 3])), torch.tensor([0, 1, 3]), True)
    assert said.log_probs.tolist() == pytest.approx([-math.log(4)] * 3)
    assert said.values.tolist() == [0.0] * 3
    assert [tuple(parameter.shape) for parameter in policy.parameters()] == [(3, 4), (3,)]


def test_a_table_says_what_its_parameters_say():
    """Each state's own row and value, and no other's."""
    policy = built("Tabular", Discrete(3, start=1), Discrete(2, start=5))
    said = policy.evaluate(Inputs(torch.tensor([3, 1])), torch.tensor([6, 5]), False)
    rows = policy.logits.log_softmax(1)
    assert torch.allclose(said.log_probs, torch.stack([rows[2, 1], rows[0, 0]]))
    assert torch.equal(said.values, policy.critic[[2, 0]])


@pytest.mark.parametrize("case", CHOICES)
def test_tables_and_actors_say_what_evaluate_says(case):
    """`table()`, and the actor's, are log π of each state and action; several actions have no actor."""
    policy, actions = of_case(case, Discrete(3, start=1), 2)
    table = policy.table()
    expected = probabilities(policy, torch.tensor([1, 2, 3]), actions)
    if case == "multi_categorical":
        assert policy.actor() is None
        columns = (every(actions) - torch.as_tensor(actions.start)).unbind(1)
        table = sum(table[:, k, column] for k, column in enumerate(columns))
    else:
        assert torch.equal(policy.actor().log_probs, table)
    assert torch.allclose(table.exp(), expected, atol=1e-12)


@pytest.mark.parametrize("observations", [Discrete(4), Box(-1.0, 1.0, (3,))], ids=str)
def test_a_shared_network_learns_from_values_and_a_separate_one_does_not(observations):
    """The gradient of values in the network that decides; and of log-probs in the critic."""
    for shared in (True, False):
        policy = built("ActorCritic", observations, Discrete(2), shared=shared)
        said = policy.evaluate(Inputs(some(observations, 6)), torch.tensor([0, 1] * 3), True)
        inner = list(policy.network.parameters())
        of_values = torch.autograd.grad(said.values.sum(), inner, retain_graph=True, allow_unused=True)
        assert all((gradient is not None and gradient.abs().sum() > 0) == shared for gradient in of_values)
        if shared:
            assert policy.critic is None
            continue
        critic = list(policy.critic.parameters())
        uncertain = (said.log_probs + said.entropies).sum()
        assert torch.autograd.grad(uncertain, critic, allow_unused=True) == (None,) * len(critic)
