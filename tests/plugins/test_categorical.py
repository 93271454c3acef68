"""The categorical policy: a distribution over actions, sampled as evaluated, over every space that it takes."""

import math
from unittest import mock

import framework_reinforce.categorical as categorical
import numpy as np
import pytest
import torch
from attrs import frozen
from framework_reinforce.categorical import Categorical
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import assume, given
from hypothesis import strategies as st
from mutants import is_killed, mutate_either
from scipy.stats import chisquare

import framework
from framework import Inputs, Step, TabularMDP, UsageError

BELOW_ONE = 1 - 2.0**-24  # the largest number that torch.rand draws in float32
SEEDS = st.integers(0, 2**31)
BOXES = [
    Box(-1.0, 1.0, ()),
    Box(-1.0, 1.0, (1,)),
    Box(-2.0, 3.0, (4,)),
    Box(-1.0, 1.0, (2, 3)),
    Box(-np.inf, np.inf, (2, 1, 3), np.float64),
    Box(0, 255, (3, 2), np.uint8),
]
OBSERVATIONS = st.one_of(
    st.sampled_from(BOXES[1:]),
    st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
)
ACTIONS = st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 4), st.integers(-3, 3))


def built(observations, actions, seed=0, module=categorical, **settings):
    """A policy with weights of its own, large enough to be far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = module.Categorical(**settings).build(observations, actions)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.normal_()
    return policy


def some(space, count, seed=0):
    """`count` elements of a space, as a batch."""
    space.seed(seed)
    return torch.stack([torch.as_tensor(space.sample()) for _ in range(count)])


def every(space):
    """All elements of a Discrete space."""
    return torch.arange(int(space.start), int(space.start) + int(space.n))


def probabilities(policy, observations, actions, masks=None):
    """π(a|s) `[B, actions]` as `evaluate` gives them, one action after the other."""
    inputs = Inputs(observations, masks)
    columns = [
        policy.evaluate(inputs, torch.full((len(observations),), action), False).log_probs.detach().exp()
        for action in every(actions).tolist()
    ]
    return torch.stack(columns, 1)


# A distribution


@given(OBSERVATIONS, ACTIONS, SEEDS)
def test_entropies_are_those_of_the_probabilities(observations, actions, seed):
    """H = −Σ p·log p, with 0·log 0 = 0, in float64 from what `evaluate` says of each action; none unless asked for."""
    policy, batch = built(observations, actions, seed).double(), some(observations, 6)
    table = probabilities(policy, batch, actions)
    expected = [-sum(p * math.log(p) for p in row if p > 0) for row in table.tolist()]
    inputs, chosen = Inputs(batch), some(actions, 6)
    assert policy.evaluate(inputs, chosen, True).entropies.tolist() == pytest.approx(expected, abs=1e-12)
    assert policy.evaluate(inputs, chosen, False).entropies is None


@given(OBSERVATIONS, ACTIONS, SEEDS)
def test_log_probs_of_what_was_chosen_are_what_evaluate_says(observations, actions, seed):
    """`act` and `evaluate` may go different ways (row by row, or from a table), whose sums round differently.

    Of some 32 terms of size up to 10, in float32: by 32 · 2⁻²⁴ · 32 · 10 < 1e-3 at worst.
    """
    policy, batch = built(observations, actions, seed), some(observations, 6)
    action = policy.act(Inputs(batch), torch.Generator().manual_seed(seed))
    assert all(actions.contains(a) for a in action.actions.tolist())
    assert not action.log_probs.requires_grad
    evaluated = policy.evaluate(Inputs(batch), action.actions, False).log_probs
    assert torch.allclose(action.log_probs, evaluated, atol=1e-3)


@pytest.mark.parametrize("space", BOXES, ids=str)
def test_boxes_of_every_shape_are_taken(space):
    """One log-prob and one action an observation, whatever its shape and dtype."""
    policy, batch = built(space, Discrete(3)), some(space, 5)
    assert policy.act(Inputs(batch), torch.Generator()).actions.shape == (5,)
    evaluation = policy.evaluate(Inputs(batch), torch.tensor([0, 1, 2, 1, 0]), True)
    assert evaluation.log_probs.shape == evaluation.entropies.shape == (5,)
    assert torch.isfinite(evaluation.log_probs).all()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("start", [0, -2, 5])
def test_every_state_of_the_space_is_taken_and_none_beyond(count, start):
    """All `count` states, the last one too, for acting, evaluating (each way) and learning; the next is an error."""
    policy, states = built(Discrete(count, start=start), Discrete(2)), every(Discrete(count, start=start))
    for batch in (states, states[-1:]):
        chosen = torch.ones(len(batch), dtype=torch.int64)
        for actor in (policy, policy.actor()):
            assert set(actor.act(Inputs(batch), torch.Generator()).actions.tolist()) <= {0, 1}
        assert torch.isfinite(policy.evaluate(Inputs(batch), chosen, True).log_probs).all()
    log_probs = policy.evaluate(Inputs(states), torch.zeros(count, dtype=torch.int64), False).log_probs
    (gradient,) = torch.autograd.grad(log_probs.sum(), policy.embedding.weight)
    assert gradient.shape[0] == count
    with pytest.raises(IndexError):
        policy.act(Inputs(states + 1), torch.Generator())


def law_a_shifted_space_changes_nothing(module, states, actions, first_state, first_action, seed):
    """Spaces that begin elsewhere: the same numbers as those that begin at 0, for states and actions moved along."""
    plain = built(Discrete(states), Discrete(actions), seed, module)
    moved = built(Discrete(states, start=first_state), Discrete(actions, start=first_action), seed, module)
    batch, chosen = torch.arange(8) % states, torch.arange(8) % actions
    try:
        _are_shifted(plain, moved, batch, chosen, first_state, first_action, seed)
    except IndexError as error:
        raise AssertionError("an element of the space is not taken") from error


def _are_shifted(plain, moved, batch, chosen, first_state, first_action, seed):
    for rows in (slice(0, 1), slice(0, 8)):  # fewer than the states, and more: row by row and from the table
        one = plain.evaluate(Inputs(batch[rows]), chosen[rows], True)
        two = moved.evaluate(Inputs(batch[rows] + first_state), chosen[rows] + first_action, True)
        assert torch.equal(one.log_probs, two.log_probs)
        assert torch.equal(one.entropies, two.entropies)
    for here, there in ((plain, moved), (plain.actor(), moved.actor())):
        one, two = (
            actor.act(Inputs(observations), torch.Generator().manual_seed(seed)).actions
            for actor, observations in ((here, batch), (there, batch + first_state))
        )
        assert torch.equal(one + first_action, two)


SHIFTS = (st.integers(2, 4), st.integers(2, 4), st.integers(-3, 3), st.integers(-3, 3), SEEDS)


@given(*SHIFTS)
def test_a_shifted_space_changes_nothing(states, actions, first_state, first_action, seed):
    law_a_shifted_space_changes_nothing(categorical, states, actions, first_state, first_action, seed)


# Sampling


def law_samples_have_the_frequencies_evaluate_says(module, seed, actor=False):
    """20,000 draws in each of three states, by χ²: a right sampler fails for one seed in a million."""
    states, actions = Discrete(3, start=2), Discrete(4, start=-1)
    policy = built(states, actions, seed, module, embedding=2, hidden=())
    sampler = policy.actor() if actor else policy
    generator = torch.Generator().manual_seed(seed)
    table = probabilities(policy, every(states), actions).double()
    for state, expected in zip(every(states).tolist(), table, strict=True):
        drawn = sampler.act(Inputs(torch.full((20_000,), state)), generator).actions
        counts = torch.bincount(drawn - int(actions.start), minlength=4)
        likely = expected * 20_000 > 5  # the others are too rare for χ², and are counted together
        observed = [*counts[likely].tolist(), int(counts[~likely].sum())]
        wanted = [*(expected[likely] * 20_000).tolist(), float(expected[~likely].sum()) * 20_000]
        if wanted[-1] < 5:
            assert observed[-1] < 40
            observed, wanted = observed[:-1], wanted[:-1]
        wanted = np.array(wanted) * (sum(observed) / sum(wanted))
        assert len(observed) == 1 or chisquare(observed, wanted).pvalue > 1e-6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("actor", [False, True], ids=["policy", "actor"])
def test_samples_have_the_frequencies_evaluate_says(seed, actor):
    law_samples_have_the_frequencies_evaluate_says(categorical, seed, actor)


def answers(actor, states, uniforms):
    """What a table actor chooses in each state for each uniform number: `[states, uniforms]`."""
    uniform = torch.as_tensor(uniforms, dtype=torch.float32)
    given_out = uniform.repeat(len(states))
    with mock.patch.object(torch, "rand", lambda rows, lanes, generator: given_out.expand(rows, lanes)):
        observations = torch.as_tensor(states).repeat_interleave(len(uniform))
        actions = actor.act(Inputs(observations), torch.Generator()).actions
    return actions.reshape(len(states), -1).clone()


GRID = torch.arange(4096) / 4096


def law_the_actor_answers_as_often_as_evaluate_says(module, observations, actions, seed):
    """Of 4096 uniform numbers k/4096, an action of probability p takes 4096·p, give or take two.

    An interval of length p holds so many multiples of 1/4096, give or take one; float32 moves its ends by 2⁻²⁴.
    """
    policy = built(observations, actions, seed, module)
    table = probabilities(policy, every(observations), actions)
    chosen = answers(policy.actor(), every(observations), GRID)
    for row, expected in zip(chosen, table, strict=True):
        counts = torch.bincount(row - int(actions.start), minlength=int(actions.n))
        assert len(counts) == len(expected)
        assert (counts - 4096 * expected).abs().max() <= 2


STATES = st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 4), st.integers(-3, 3))


@given(STATES, ACTIONS, SEEDS)
def test_the_actor_answers_as_often_as_evaluate_says(observations, actions, seed):
    law_the_actor_answers_as_often_as_evaluate_says(categorical, observations, actions, seed)


WEIGHTS = st.lists(st.sampled_from([0.0, 1e-45, 1e-30, 1e-9, 0.1, 1.0, 3.0]), min_size=1, max_size=6)


def law_what_is_impossible_is_never_chosen(module, weights):
    """At 0, at the largest number below 1, and beside every edge: an action of probability 0 is not chosen."""
    assume(max(weights) > 0.05)  # at least one real choice
    log_probs = torch.tensor([weights], dtype=torch.float64).div(sum(weights)).log()
    edges = log_probs.exp().cumsum(1).flatten().float()
    beside = [edges, torch.nextafter(edges, edges - 1), torch.nextafter(edges, edges + 1)]
    uniforms = torch.cat([torch.tensor([0.0, 2**-24, 0.5, BELOW_ONE]), *beside]).clamp(0.0, BELOW_ONE)
    for table in (log_probs, log_probs.float()):
        for action in answers(module.TableActor(table), [0], uniforms)[0].tolist():
            assert weights[action] > 0


@given(WEIGHTS)
def test_what_is_impossible_is_never_chosen(weights):
    law_what_is_impossible_is_never_chosen(categorical, weights)


@pytest.mark.parametrize("impossible", [0, 1, 2])
@pytest.mark.parametrize("logit", [-math.inf, -1000.0])
def test_a_logit_that_leaves_no_probability_is_never_chosen(impossible, logit):
    """exp(−1000) is 0 in float64; the policy, too, never samples it, in 10,000 draws."""
    policy = built(Discrete(1), Discrete(3), hidden=())
    with torch.no_grad():
        policy.network[-1].weight.zero_()
        policy.network[-1].bias.zero_()[impossible] = logit
    assert impossible not in answers(policy.actor(), [0], [0.0, 1e-7, 0.5, BELOW_ONE])
    drawn = policy.act(Inputs(torch.zeros(10_000, dtype=torch.int64)), torch.Generator().manual_seed(0))
    assert impossible not in drawn.actions
    assert torch.isfinite(drawn.log_probs).all()
    entropies = policy.evaluate(Inputs(torch.zeros(1, dtype=torch.int64)), torch.tensor([1]), True).entropies
    assert entropies.item() == pytest.approx(math.log(2))


def test_the_actor_is_a_snapshot():
    """Later changes of the weights do not reach it; a new one has them."""
    policy = built(Discrete(2), Discrete(3))
    actor = policy.actor()
    before = answers(actor, [0, 1], GRID)
    with torch.no_grad():
        policy.network[-1].bias += torch.tensor([5.0, 0.0, -5.0])
    assert torch.equal(answers(actor, [0, 1], GRID), before)
    assert not torch.equal(answers(policy.actor(), [0, 1], GRID), before)


@given(OBSERVATIONS, ACTIONS, SEEDS)
def test_all_randomness_is_the_generators(observations, actions, seed):
    """Alike generators, alike actions; the global generator is neither read nor moved."""
    policy, batch = built(observations, actions, seed), some(observations, 9)
    before = torch.get_rng_state()
    for actor in filter(None, (policy, policy.actor())):
        one = actor.act(Inputs(batch), torch.Generator().manual_seed(seed)).actions.clone()
        actor = policy if actor is policy else policy.actor()
        assert torch.equal(actor.act(Inputs(batch), torch.Generator().manual_seed(seed)).actions, one)
    assert torch.equal(torch.get_rng_state(), before)


@given(STATES, ACTIONS, SEEDS)
def test_what_a_generator_gives_is_its_own(observations, actions, seed):
    """An actor serves several shards: the second one's draws do not depend on how far the first one's got."""
    policy, batch = built(observations, actions, seed), some(observations, 40)
    actor, one, other = policy.actor(), torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    actor.act(Inputs(batch), one)
    drawn = actor.act(Inputs(batch), other).actions.clone()
    assert torch.equal(policy.actor().act(Inputs(batch), other.manual_seed(seed + 1)).actions, drawn)


# Action masks


@st.composite
def masks(draw, rows=6, actions=4):
    """Random ones `[rows, actions]`, each with something allowed."""
    lists = st.lists(st.booleans(), min_size=actions, max_size=actions).filter(any)
    return torch.tensor(draw(st.lists(lists, min_size=rows, max_size=rows)))


def law_masks_forbid(module, observations, allowed, seed):
    """What is masked has probability 0, the rest sums to one, and entropies are those of the rest."""
    actions = Discrete(4, start=1)
    policy, batch = built(observations, actions, seed, module), some(observations, 6)
    table = probabilities(policy, batch, actions, allowed)
    assert not table[~allowed].any()
    assert torch.allclose(table.sum(1), torch.ones(6), atol=1e-4)
    entropies = policy.evaluate(Inputs(batch, allowed), torch.full((6,), 1), True).entropies
    expected = [-sum(p * math.log(p) for p in row if p > 0) for row in table.tolist()]
    assert entropies.tolist() == pytest.approx(expected, abs=1e-4)


@given(OBSERVATIONS, masks(), SEEDS)
def test_masks_forbid(observations, allowed, seed):
    law_masks_forbid(categorical, observations, allowed, seed)


@given(OBSERVATIONS, masks(), SEEDS)
def test_masks_leave_gradients_finite(observations, allowed, seed):
    """Log-probs of allowed actions and entropies, in any combination, whose gradients have no NaN."""
    policy, batch = built(observations, Discrete(4), seed), some(observations, 6)
    evaluation = policy.evaluate(Inputs(batch, allowed), allowed.long().argmax(1), True)
    assert torch.isfinite(evaluation.log_probs).all()
    for total in (evaluation.log_probs.sum(), evaluation.entropies.sum(), (evaluation.log_probs * 3).sum()):
        for gradient in torch.autograd.grad(total, list(policy.parameters()), retain_graph=True):
            assert torch.isfinite(gradient).all()


@given(OBSERVATIONS, masks(rows=1), SEEDS)
def test_what_is_masked_is_never_sampled(observations, allowed, seed):
    policy = built(observations, Discrete(4, start=1), seed)
    batch, allowed = some(observations, 1).expand(500, *observations.shape), allowed.expand(500, 4)
    action = policy.act(Inputs(batch, allowed), torch.Generator().manual_seed(seed))
    assert allowed.gather(1, action.actions[:, None] - 1).all()
    assert torch.isfinite(action.log_probs).all()


@frozen
class Forbidding:
    """Round three states for ten steps; one of three actions is forbidden at a time, and all do the same."""

    kind: str

    def build(self, num_envs, device):
        return ForbiddingLanes(self.kind, num_envs)


class ForbiddingLanes:
    """`box`, `discrete`, or `tables`: Discrete, with an `mdp()`, which cannot say what is forbidden."""

    def __init__(self, kind, count):
        self.kind, self.count = kind, count
        self.observation_space = Box(0.0, 2.0, (1,)) if kind == "box" else Discrete(3)
        self.action_space = Discrete(3)
        self.were_allowed = []
        self.stand_at(0)
        if kind == "tables":
            self.mdp = self.tables

    def stand_at(self, time):
        self.time = time
        states = torch.full((self.count,), time % 3)
        self.observations = states.float()[:, None] if self.kind == "box" else states
        self.action_masks = torch.ones(self.count, 3, dtype=torch.bool)
        self.action_masks[:, time % 3] = False

    def reset(self, generator):
        self.stand_at(0)
        return self.observations

    def step(self, actions, generator):
        self.were_allowed += self.action_masks.gather(1, actions[:, None]).flatten().tolist()
        self.stand_at((self.time + 1) % 10)
        over = torch.full((self.count,), self.time == 0)
        never, rewards = torch.zeros_like(over), torch.ones(self.count)
        return Step(self.observations, self.observations, rewards, never, over, action_masks=self.action_masks)

    def tables(self):
        following = torch.eye(3, dtype=torch.float64).roll(1, 1)
        transitions = following[:, None].expand(3, 3, 3)
        start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        return TabularMDP(transitions, torch.ones(3, 3, 3), start, torch.zeros(3, dtype=torch.bool), 10)


@pytest.mark.parametrize("kind", ["box", "discrete", "tables"])
def test_a_run_never_takes_what_is_masked(kind):
    """Whatever collects, the policy, its actor or the tables: 300 steps or more; a blind one would err in a third."""
    run = framework.train(environment=Forbidding(kind), iterations=3).run
    assert run.steps >= 300
    assert len(run.environment.were_allowed) == run.steps
    assert all(run.environment.were_allowed)


# The table of a finite space


def law_the_table_is_a_shortcut(module, states, actions, seed, both):
    """From a table (states ≤ batch) or row after row (an all-True mask): values and gradients agree, in float64."""
    space = Discrete(states, start=1)
    policy = built(space, Discrete(actions), seed, module).double()
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randint(1, states + 1, (8,), generator=generator)
    chosen = torch.randint(0, actions, (8,), generator=generator)
    factors = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    outcomes = []
    for allowed in (None, torch.ones(8, actions, dtype=torch.bool)):
        evaluation = policy.evaluate(Inputs(batch, allowed), chosen, both)
        total = (factors[0] * evaluation.log_probs).sum()
        if both:
            total = total + (factors[1] * evaluation.entropies).sum()
        gradients = torch.autograd.grad(total, list(policy.parameters()), materialize_grads=True)
        outcomes.append([evaluation.log_probs, total, *gradients])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*outcomes, strict=True))


SHORTCUTS = (st.integers(1, 5), st.integers(1, 4), SEEDS, st.booleans())


@given(*SHORTCUTS)
def test_the_table_is_a_shortcut(states, actions, seed, both):
    law_the_table_is_a_shortcut(categorical, states, actions, seed, both)


def test_the_table_is_used_where_it_is_smaller():
    """A batch of a thousand steps over three states is one forward pass of three rows; of two steps, of two."""
    policy, rows = built(Discrete(3), Discrete(2)), []
    policy.network[0].register_forward_hook(lambda module, arguments, output: rows.append(len(output)))
    for count in (1000, 2):
        policy.evaluate(Inputs(torch.arange(count) % 3), torch.zeros(count, dtype=torch.int64), True)
    assert rows == [3, 2]


# Networks and settings


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "silu"])
@pytest.mark.parametrize("hidden", [(), (5,), (4, 3)], ids=str)
def test_the_network_is_the_one_of_the_settings(hidden, activation):
    """log softmax of linear layers with the named activation between them, written out with functions, in float64."""
    function = getattr(torch.nn.functional, activation) if activation != "tanh" else torch.tanh
    space = Box(-1.0, 1.0, (2, 3))
    policy, batch = built(space, Discrete(4), hidden=hidden, activation=activation).double(), some(space, 7)
    weights = list(policy.parameters())
    assert [tuple(w.shape) for w in weights[::2]] == list(zip((*hidden, 4), (6, *hidden), strict=True))
    features = batch.reshape(7, 6).double()
    for layer, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        features = (function(features) if layer else features) @ weight.T + bias
    chosen = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    expected = features.log_softmax(1)[torch.arange(7), chosen]
    assert torch.allclose(policy.evaluate(Inputs(batch), chosen, False).log_probs, expected, atol=1e-12)


def test_discrete_observations_are_embedded():
    policy = built(Discrete(7), Discrete(3), embedding=5, hidden=())
    assert [tuple(p.shape) for p in policy.parameters()] == [(7, 5), (3, 5), (3,)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (32, 0)}, "'hidden' must be >= 1: 0"),
        ({"embedding": 0}, "'embedding' must be >= 1: 0"),
        ({"activation": "elu"}, "'activation' must be in .*'relu'"),
    ],
    ids=str,
)
def test_settings_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        Categorical(**settings)


STRANGE = [
    MultiBinary(3),
    MultiDiscrete([2, 3]),
    Dict({"a": Discrete(2)}),
    Tuple((Discrete(2), Box(-1.0, 1.0, (1,)))),
]


@pytest.mark.parametrize("space", STRANGE, ids=lambda space: type(space).__name__)
def test_observations_that_it_cannot_take_are_refused(space):
    with pytest.raises(UsageError) as refusal:
        Categorical().build(space, Discrete(2))
    assert "takes Discrete or Box observations" in str(refusal.value)
    assert str(space) in str(refusal.value)


@pytest.mark.parametrize("space", [*STRANGE, Box(-1.0, 1.0, (2,))], ids=lambda space: type(space).__name__)
def test_actions_that_it_cannot_take_are_refused(space):
    with pytest.raises(UsageError) as refusal:
        Categorical().build(Discrete(2), space)
    assert "takes Discrete actions" in str(refusal.value)
    assert str(space) in str(refusal.value)


# Mutants

TAKE = "log_probs.take(states * log_probs.shape[1] + actions)"
TABLES = (STATES, st.builds(lambda n: Discrete(n, start=1), st.integers(2, 4)), SEEDS)
MUTANTS = {
    "races the wrong way": (
        law_samples_have_the_frequencies_evaluate_says,
        (st.integers(0, 9),),
        ("(log_probs.exp() / race).argmax(-1)", "(log_probs.exp() * race).argmax(-1)"),
    ),
    "races with uniform numbers": (
        law_samples_have_the_frequencies_evaluate_says,
        (st.integers(0, 9),),
        (".exponential_(generator=generator)", ".uniform_(generator=generator)"),
    ),
    "adds the edges of single actions": (
        law_the_actor_answers_as_often_as_evaluate_says,
        TABLES,
        ("inverse_cdf_edges(self.log_probs.double().exp().numpy())", "self.log_probs.double().exp().numpy()[:, :-1]"),
    ),
    "passes an edge one number late": (
        law_what_is_impossible_is_never_chosen,
        (WEIGHTS,),
        ("edge[states] <= uniform", "edge[states] < uniform"),
    ),
    "forgets the first state in the actor": (
        law_a_shifted_space_changes_nothing,
        SHIFTS,
        ("self._states - self.first_state if self.first_state else self._states", "self._states"),
    ),
    "forgets the first action in the actor": (
        law_a_shifted_space_changes_nothing,
        SHIFTS,
        ("chosen.fill(self.first_action)", "chosen.fill(0)"),
    ),
    "forgets the first action when acting": (
        law_a_shifted_space_changes_nothing,
        SHIFTS,
        ("return Action(actions + first_action, ", "return Action(actions, "),
    ),
    "reads the table by columns": (
        law_the_table_is_a_shortcut,
        SHORTCUTS,
        (TAKE, "log_probs.take(states + actions * log_probs.shape[0])"),
    ),
    "takes the entropy of another state": (
        law_the_table_is_a_shortcut,
        SHORTCUTS,
        ("entropy(log_probs).take(states)", "entropy(log_probs).take(states.flip(0))"),
    ),
    "cuts the entropies' graph": (
        law_the_table_is_a_shortcut,
        SHORTCUTS,
        ("entropy(log_probs).take(states)", "entropy(log_probs).detach().take(states)"),
    ),
    "takes the mask the wrong way round": (
        law_masks_forbid,
        (OBSERVATIONS, masks(), SEEDS),
        ("logits.masked_fill(~allowed", "logits.masked_fill(allowed"),
    ),
    "masks with 0": (law_masks_forbid, (OBSERVATIONS, masks(), SEEDS), ("~allowed, -torch.inf)", "~allowed, 0.0)")),
    "masks what is normalised already": (
        law_masks_forbid,
        (OBSERVATIONS, masks(), SEEDS),
        ("logits = logits.masked_fill(~allowed,", "return torch.log_softmax(logits, -1).masked_fill(~allowed,"),
    ),
    "ignores masks where there is a table": (
        law_masks_forbid,
        (OBSERVATIONS, masks(), SEEDS),
        ("if inputs.action_masks is None:", "if self.states or inputs.action_masks is None:"),
    ),
    "lets 0·log 0 be NaN": (
        law_masks_forbid,
        (OBSERVATIONS, masks(), SEEDS),
        ("log_probs.clamp(min=-1000.0)", "log_probs"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, strategies, change = MUTANTS[name]
    is_killed(
        law,
        *strategies,
        arguments=(mutate_either("framework_reinforce.categorical", "framework_networks.softmax", change),),
    )
