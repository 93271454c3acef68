"""Greedy actors take the most probable allowed action, or the mean."""

import framework_policies.gaussian as gaussian
import pytest
import torch
from evaluation_laws import (
    SEEDS,
    fork,
    law_greedy_takes_the_mean,
    law_greedy_takes_the_most_probable_allowed_action,
    masks,
    same,
    uniform,
)
from framework_classic import CartPole, Pendulum
from framework_corridor import Corridor
from framework_line_world import LineWorld
from framework_policies import ActorCritic, Gaussian, Recurrent, Tabular
from framework_reinforce import BatchMean, Categorical
from gymnasium.spaces import Discrete
from hypothesis import given
from hypothesis import strategies as st

import framework
from framework import Inputs, OptimizerSettings, UsageError

# Greedy

OPTIONS = {"categorical": 3, "actor_critic": 3, "actor_critic, shared": 3, "tabular": 3, "multi_categorical": 5}


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
