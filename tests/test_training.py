"""The loop: what is visited, divided, clipped, updated, counted and stopped; and that a broken part is named."""

import functools
import itertools
import math
import re
import tracemalloc
import weakref
from collections import Counter
from unittest import mock

import attrs
import numpy as np
import pytest
import torch
from attrs import evolve, field, frozen
from framework_line_world import LineWorld
from framework_reinforce.score_function import Reinforce
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutate

import framework.api
import framework.learning.batches
import framework.tabular.sampling
from framework import (
    Action,
    Advantages,
    Batch,
    Estimate,
    Evaluation,
    FrameworkError,
    Loss,
    OptimizerSettings,
    PartError,
    RolloutSettings,
    Step,
    TabularMDP,
    UpdateSettings,
    UsageError,
    hookimpl,
)
from framework.learning.batches import flatten, reduce, select
from framework.reporting import metrics as measuring
from framework.testing.strategies import assemble, lanes_of_episodes

DENOMINATORS = ("per_step", "per_episode", "constant")
fewer = settings(max_examples=settings().max_examples // 3)  # where an example is several runs


@pytest.fixture(autouse=True, scope="module")
def plugins_found_once():
    """Finding the installed plugins takes longer than most runs here, and is not what is tested."""
    with mock.patch.object(framework.api, "load_plugins", functools.cache(framework.api.load_plugins)):
        yield


# Parts of our own


@frozen
class Counting:
    """Each lane shows a number that it never shows again; its episodes are 1, 2, … `longest`, 1, 2, … steps long."""

    longest: int = 4

    def build(self, num_envs, device):
        return CountingLanes(self, num_envs)


class CountingLanes:
    observation_space = Box(0.0, np.inf, (1,), np.float64)
    action_space = Discrete(2)

    def __init__(self, settings, count):
        self.longest = settings.longest
        self.lane, self.time = torch.arange(count), torch.zeros(count, dtype=torch.int64)
        self.shown, self.long = torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.int64)

    def observe(self):
        return (self.lane * 10_000 + self.shown).double()[:, None]

    def reset(self, generator):
        self.time = torch.zeros_like(self.time)
        return self.observe()

    def step(self, actions, generator):
        self.shown, self.time = self.shown + 1, self.time + 1
        over = self.time >= self.long
        self.time = torch.where(over, 0, self.time)
        self.long = torch.where(over, self.long % self.longest + 1, self.long)
        rewards = (2.0 * actions - 1 + self.lane).double()
        return Step(self.observe(), self.observe(), rewards, over, torch.zeros_like(over))


@frozen
class Coin:
    """A policy that sees nothing: one logit an action, in float64, so that gradients are easily had by hand."""

    logits: tuple[float, ...] = (0.3, -0.2)

    def build(self, observation_space, action_space):
        return CoinPolicy(self)


class CoinPolicy(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(settings.logits, dtype=torch.float64))

    def act(self, inputs, generator):
        probabilities = self.logits.detach().softmax(0).expand(len(inputs.observations), -1)
        return Action(torch.multinomial(probabilities, 1, generator=generator).squeeze(1))

    def evaluate(self, inputs, actions, entropies):
        table = self.logits.log_softmax(0)
        entropy = -(table.exp() * table).sum().expand(len(actions))
        return Evaluation(table[actions], entropy if entropies else None)


@frozen
class Shown:
    """An estimator without episodes: a step's return is the number that was observed, its target that and a half."""

    padding: float = 0.0  # what stands where no step was

    def __call__(self, rollout):
        returns = torch.where(rollout.mask, rollout.observations[..., 0], self.padding)
        return Estimate(returns, returns + 0.5)


@frozen
class Rewards:
    """An estimator without episodes: a step's return is its reward."""

    def __call__(self, rollout):
        return Estimate(rollout.rewards, rollout.rewards)


@frozen(eq=False)
class Spy:
    """Keeps what passes by, in order: (stage, result); after an update, also the gradients and the new weights."""

    events: list = field(factory=list)

    def build(self, run):
        return Watching(self)

    def of(self, name):
        return [result for event, result in self.events if event == name]


class Watching:
    def __init__(self, settings):
        self.events = settings.events

    @hookimpl(wrapper=True)
    def collect_rollout(self, run):
        rollout = yield
        self.events.append(("rollout", rollout))
        self.events.append(("finished", run.finished))
        return rollout

    @hookimpl(wrapper=True)
    def estimate_advantages(self, rollout):
        advantages = yield
        self.events.append(("advantages", advantages))
        return advantages

    @hookimpl(wrapper=True)
    def prepare_batch(self):
        batch = yield
        self.events.append(("batch", batch))
        return batch

    @hookimpl(wrapper=True)
    def apply_gradients(self, run):
        done = yield
        self.events.append(("gradient", [parameter.grad.clone() for parameter in run.policy.parameters()]))
        self.events.append(("weights", [parameter.detach().clone() for parameter in run.policy.parameters()]))
        return done

    @hookimpl
    def iteration_finished(self, metrics):
        self.events.append(("metrics", dict(metrics)))


def watched(**arguments):
    """A run of our own parts, and what a spy saw."""
    spy = Spy()
    chosen = {"environment": Counting(), "policy": Coin(), "estimator": Rewards(), "iterations": 1, **arguments}
    extensions = (*chosen.pop("extensions", ()), spy)
    return framework.train(**chosen, extensions=extensions), spy


def weights_of(result):
    return [parameter.detach() for parameter in result.policy.parameters()]


SGD = OptimizerSettings("SGD", lr=1.0)
WAYS_TO_COLLECT = st.one_of(
    st.builds(lambda n: {"steps": n}, st.integers(1, 30)),
    st.builds(lambda n: {"episodes": n}, st.integers(4, 12)),
    st.builds(lambda n: {"fixed_steps": n}, st.integers(1, 9)),
)


# What is visited


@fewer
@given(WAYS_TO_COLLECT, st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 40))
def test_each_epoch_visits_every_real_step_once(way, shards, epochs, minibatches):
    """In each epoch the minibatches, of equal sizes up to one step, are together the rollout's real steps."""
    update = UpdateSettings(epochs=epochs, minibatches=minibatches)
    rollout = RolloutSettings(lanes=4, shards=shards, **way)
    result, spy = watched(estimator=Shown(), rollout=rollout, update=update, iterations=2)
    for number, (collected, metrics) in enumerate(zip(spy.of("rollout"), spy.of("metrics"), strict=True)):
        # lanes of different shards show the same numbers, and are therefore counted
        steps = Counter(collected.observations[collected.mask].flatten().tolist())
        count = min(minibatches, steps.total())
        assert metrics["updates"] == epochs * count
        begin = spy.events.index(("metrics", spy.of("metrics")[number - 1])) if number else 0
        end = spy.events.index(("metrics", metrics))
        batches = [result for event, result in spy.events[begin:end] if event == "batch"]
        assert len(batches) == epochs * count
        for epoch in range(epochs):
            parts = [batch.observations.flatten().tolist() for batch in batches[epoch * count : (epoch + 1) * count]]
            assert sum(map(Counter, parts), Counter()) == steps
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(spy.of("weights")) == result.metrics["updates"].sum()


@fewer
@given(WAYS_TO_COLLECT, st.integers(1, 7))
def test_the_columns_of_a_minibatch_stay_together(way, minibatches):
    """Whatever the order, a step keeps its own return, target, advantage, action and log-prob."""
    rollout = RolloutSettings(lanes=4, **way)
    _, spy = watched(estimator=Shown(), rollout=rollout, update=UpdateSettings(minibatches=minibatches))
    (collected,), seen = spy.of("rollout"), 0
    shown = collected.observations[..., 0]
    for batch in spy.of("batch"):
        assert batch.total_steps == len(batch.actions)
        for row, number in enumerate(batch.observations[:, 0].tolist()):
            ((t, n),) = ((shown == number) & collected.mask).nonzero().tolist()
            assert batch.returns[row] == batch.advantages[row] == number
            assert batch.value_targets[row] == number + 0.5
            assert batch.actions[row] == collected.actions[t, n]
            assert batch.log_probs[row] == collected.log_probs[t, n]
            seen += 1
    assert seen == collected.mask.sum()


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_minibatches_are_the_same_however_many_epochs_are_shuffled_at_once(epochs, monkeypatch):
    def seen(light):
        monkeypatch.setattr(framework.learning.batches, "LIGHT", light)
        rollout, update = RolloutSettings(lanes=3, fixed_steps=7), UpdateSettings(epochs=epochs, minibatches=4)
        _, spy = watched(estimator=Shown(), rollout=rollout, update=update)
        return spy.of("batch")

    bytes_of_a_step = 100
    expected = seen(0)
    assert len(expected) == 4 * epochs
    for light in (21 * bytes_of_a_step, 42 * bytes_of_a_step, 10**6):
        for one, other in zip(seen(light), expected, strict=True):
            for name in framework.learning.batches.COLUMNS:
                column = getattr(other, name)
                assert column is None or torch.equal(getattr(one, name), column)
            assert (one.total_steps, one.total_episodes) == (other.total_steps, other.total_episodes)


def test_of_shuffled_epochs_the_last_are_held(monkeypatch):
    """Even if all pieces are listed first, as for compiled updates."""
    steps, settings = torch.arange(12.0), UpdateSettings(epochs=6, minibatches=4)
    batch = Batch(*[steps] * 6, total_steps=12, total_episodes=1)
    size = 6 * steps.nbytes
    for light, held in ((0, 0), (size, 4), (2 * size + 1, 8), (10**6, 24)):
        monkeypatch.setattr(framework.learning.batches, "LIGHT", light)
        pieces = list(framework.learning.batches.minibatches(settings, torch.Generator(), batch))
        cut = [weakref.ref(piece.make()) for piece in pieces]
        assert sum(one() is not None for one in cut) == held


def test_each_epoch_shuffles_anew():
    """64 steps in 8 minibatches, 3 epochs and 2 iterations: six different orders; a whole batch keeps its own."""
    rollout, update = RolloutSettings(lanes=8, fixed_steps=8), UpdateSettings(epochs=3, minibatches=8)
    _, spy = watched(estimator=Shown(), rollout=rollout, update=update, iterations=2)
    shown = [batch.observations[:, 0] for batch in spy.of("batch")[::8]]  # 10,000 · lane + 8 · iteration + time
    assert len({tuple((number // 10_000 * 8 + number % 8).tolist()) for number in shown}) == 6
    _, spy = watched(estimator=Shown(), rollout=rollout, update=UpdateSettings(epochs=2))
    (collected,) = spy.of("rollout")
    for batch in spy.of("batch"):
        assert torch.equal(batch.observations, collected.observations.flatten(0, 1))


# What is learnt from


@frozen
class Thrice:
    """An estimator whose returns are three times the rewards, with weights that count up."""

    def __call__(self, rollout):
        weights = torch.arange(rollout.rewards.numel()).reshape(rollout.rewards.shape).double()
        return Estimate(3 * rollout.rewards, rollout.rewards, weights)


@frozen
class Half:
    """A baseline of half the returns."""

    def __call__(self, rollout, returns):
        return returns / 2


@given(WAYS_TO_COLLECT)
def test_advantages_are_weights_times_returns_minus_baseline(way):
    """A = w·(G − b), which with the parts above is w·3r/2; returns and targets are the estimator's, unweighted."""
    _, spy = watched(estimator=Thrice(), baseline=Half(), rollout=RolloutSettings(lanes=4, **way))
    (rollout,), (made,) = spy.of("rollout"), spy.of("advantages")
    weights = torch.arange(rollout.rewards.numel()).reshape(rollout.rewards.shape)
    assert torch.equal(made.advantages, weights * (3 * rollout.rewards / 2))
    assert torch.equal(made.returns, 3 * rollout.rewards)
    assert torch.equal(made.value_targets, rollout.rewards)


# What it is divided by


def by_hand(batch, logits):
    """−Σ A·∇log π of the coin, undivided: ∇log π(a) is 1[a] − π."""
    chosen = torch.nn.functional.one_hot(batch.actions, 2).double()
    return -(batch.advantages[:, None] * (chosen - logits.softmax(0))).sum(0)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@fewer
@given(way=WAYS_TO_COLLECT, minibatches=st.integers(1, 5), constant=st.sampled_from([0.5, 7.0]))
def test_an_update_descends_the_sum_over_its_denominator(denominator, way, minibatches, constant):
    """Steps of the minibatch; its share of the rollout's episodes; or the constant. SGD with lr 1 steps by just that.

    All in float64: sums of some hundred terms of size below 10 round by less than 1e-12.
    """
    update = UpdateSettings(denominator=denominator, minibatches=minibatches, constant=constant)
    _, spy = watched(rollout=RolloutSettings(lanes=4, **way), update=update, optimizer=SGD)
    (collected,), before = spy.of("rollout"), torch.tensor(Coin().logits, dtype=torch.float64)
    steps, episodes = int(collected.mask.sum()), len(collected.episodes[collected.mask].unique())
    for batch, (gradient,), (after,) in zip(spy.of("batch"), spy.of("gradient"), spy.of("weights"), strict=True):
        share = len(batch.actions) / steps
        divisor = {"per_step": len(batch.actions), "per_episode": episodes * share, "constant": constant}[denominator]
        assert torch.allclose(gradient, by_hand(batch, before) / divisor, atol=1e-12)
        assert torch.allclose(after, before - gradient, atol=1e-12)
        before = after


@given(lanes_of_episodes(), st.randoms(use_true_random=False), st.integers(1, 6))
def test_selections_share_out_steps_and_episodes(lanes, random, count):
    """The parts of a batch have together its steps, and its episodes; every column is gathered alike."""
    rollout = assemble(lanes, extra_padding=1)
    whole = flatten(rollout, Advantages(rollout.rewards, rollout.rewards * 2, rollout.rewards * 3))
    assert whole.total_steps == sum(len(episode.rewards) for lane in lanes for episode in lane)
    assert whole.total_episodes == sum(map(len, lanes))
    order = list(range(whole.total_steps))
    random.shuffle(order)
    parts = [select(whole, torch.tensor(order[k::count], dtype=torch.int64)) for k in range(count) if order[k::count]]
    assert sum(part.total_steps for part in parts) == whole.total_steps
    assert math.isclose(sum(part.total_episodes for part in parts), whole.total_episodes, rel_tol=1e-12)
    for part, k in zip(parts, range(count), strict=False):
        for name in ("observations", "actions", "log_probs", "advantages", "returns", "value_targets"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[order[k::count]])


def test_terms_are_summed_and_divided_one_by_one():
    """Each named term by itself, so that its gradient can be traced."""
    batch = Batch(*([torch.zeros(4)] * 6), total_steps=4, total_episodes=2.0)
    loss = Loss({"policy": torch.tensor([1.0, 2.0, 3.0, 6.0]), "value": torch.tensor([8.0, 0.0, 0.0, 0.0])})
    divided = {denominator: reduce(loss, batch, denominator, 0.5) for denominator in DENOMINATORS}
    assert {name: (float(d["policy"]), float(d["value"])) for name, d in divided.items()} == {
        "per_step": (3.0, 2.0),
        "per_episode": (6.0, 4.0),
        "constant": (24.0, 16.0),
    }


@fewer
@given(WAYS_TO_COLLECT, st.sampled_from([-1e30, -3.0, 1e30]))
def test_padding_is_inert(way, garbage):
    """Whatever an estimator leaves in padding, the run learns the same, bit for bit."""
    rollout = RolloutSettings(lanes=4, **way)
    update = UpdateSettings(minibatches=2, denominator="per_episode")
    (one, _), (two, _) = (
        watched(estimator=Shown(padding), rollout=rollout, update=update, iterations=2) for padding in (0.0, garbage)
    )
    assert all(torch.equal(a, b) for a, b in zip(weights_of(one), weights_of(two), strict=True))


@given(lanes_of_episodes(), st.integers(1, 3))
def test_more_padding_is_no_more_batch(lanes, padding):
    """A rollout that is padded further lies flat as the same batch."""
    one, two = assemble(lanes), assemble(lanes, extra_padding=padding)
    flat = [flatten(rollout, Advantages(rollout.rewards, rollout.rewards, rollout.rewards)) for rollout in (one, two)]
    for name, value in attrs.asdict(flat[0], recurse=False).items():
        other = getattr(flat[1], name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


# How far it goes


@fewer
@given(st.floats(1e-3, 10.0), st.integers(1, 3))
def test_gradients_are_clipped_to_the_norm(limit, minibatches):
    """A gradient keeps its direction, and its 2-norm where that is smaller; else it has the limit's.

    torch adds 1e-6 to the norm before dividing, which for norms above 1e-2 is less than 1e-3 of it.
    """

    def first(max_grad_norm):
        update = UpdateSettings(minibatches=minibatches, max_grad_norm=max_grad_norm)
        _, spy = watched(update=update, optimizer=SGD)
        return spy.of("gradient")[0][0], spy.of("metrics")[0]

    raw, _ = first(None)
    clipped, metrics = first(limit)
    assert raw.norm() > 1e-2
    assert torch.allclose(clipped, raw * min(1.0, limit / float(raw.norm())), rtol=1e-3)
    assert clipped.norm() <= limit
    if minibatches == 1:
        assert metrics["grad_norm"] == pytest.approx(float(raw.norm()))


def test_clipping_takes_the_norm_of_all_parameters_together():
    """With the notebook's network of five tensors: one common factor, and a common norm that is the limit."""
    gradients = []
    for limit in (None, 0.01):
        spy = Spy()
        framework.train(iterations=1, update=UpdateSettings(max_grad_norm=limit), extensions=(spy,))
        gradients.append(torch.cat([gradient.flatten() for gradient in spy.of("gradient")[0]]))
    raw, clipped = gradients
    assert raw.norm() > 0.1
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-3)  # 1e-6 / 0.1, and float32
    assert torch.allclose(clipped, raw * (0.01 / raw.norm()), rtol=1e-3, atol=1e-8)


# Optimizers

OPTIMIZERS = [
    OptimizerSettings("Adam", lr=0.05, options={"eps": 1e-5, "weight_decay": 0.1}),
    OptimizerSettings("AdamW", lr=0.05, options={"weight_decay": 0.5}),
    OptimizerSettings("SGD", lr=0.05),
    OptimizerSettings("SGD", lr=0.05, options={"momentum": 0.9}),
    OptimizerSettings("RMSprop", lr=0.05, options={"alpha": 0.5, "momentum": 0.3}),
    OptimizerSettings("Adagrad", lr=0.05),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_optimizers_are_torchs_with_their_options(optimizer):
    """Fed the same gradients, `torch.optim`'s class with these options makes the same steps, up to float64 rounding."""
    _, spy = watched(optimizer=optimizer, iterations=3, update=UpdateSettings(epochs=2))
    weights = torch.nn.Parameter(torch.tensor(Coin().logits, dtype=torch.float64))
    other = getattr(torch.optim, optimizer.name)([weights], lr=optimizer.lr, **optimizer.options)
    assert len(spy.of("weights")) == 6
    for (gradient,), (after,) in zip(spy.of("gradient"), spy.of("weights"), strict=True):
        weights.grad = gradient
        other.step()
        assert torch.allclose(weights, after, atol=1e-12)


EVERY_OPTIMIZER = sorted(
    name
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
)


@pytest.mark.parametrize("name", EVERY_OPTIMIZER)
def test_every_optimizer_works_or_is_refused(name):
    """None that the settings accept fails once the run is under way."""
    spy, refusal = Spy(), None
    try:
        framework.train(optimizer=OptimizerSettings(name), iterations=2, extensions=(spy,))
    except (UsageError, ValueError) as error:
        refusal = error
    if refusal is not None:
        assert name in str(refusal)
        assert not spy.events
    else:
        one, two = spy.of("weights")
        assert not torch.equal(one[0], two[0])


def test_an_unknown_option_of_an_optimizer_is_refused():
    with pytest.raises(UsageError) as refusal:
        watched(optimizer=OptimizerSettings("SGD", options={"momentun": 0.9}))
    assert "no option of optimizer.name SGD 'momentun'. Did you mean 'momentum'?" in str(refusal.value)


def test_an_option_that_torch_refuses_is_refused():
    with pytest.raises(UsageError, match="optimizer: Adam refuses its options: .*epsilon"):
        watched(optimizer=OptimizerSettings("Adam", options={"eps": -1.0}))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="no optimizer 'Adm'. Did you mean 'Adam'?"):
        OptimizerSettings("Adm")


# What is told to a baseline, and stopping early


@frozen(eq=False)
class Learning:
    """A baseline of 0 that writes into a spy's events what it is told."""

    events: list

    def build(self):
        return LearningBaseline(self.events)


class LearningBaseline:
    def __init__(self, events):
        self.events = events

    def __call__(self, rollout, returns):
        self.events.append(("asked", (rollout, returns)))
        return torch.zeros_like(returns)

    def update(self, rollout, returns):
        self.events.append(("learnt", (rollout, returns)))


@frozen
class Counted:
    """The score-function loss, which says how often it was asked, and would rather stop when asked for these times."""

    stops: tuple[int, ...] = ()

    def build(self):
        return CountedLoss(self.stops)


class CountedLoss:
    def __init__(self, stops):
        self.stops, self.asked = stops, 0

    def __call__(self, batch, evaluation):
        self.asked += 1
        return evolve(
            Reinforce()(batch, evaluation), metrics={"asked": self.asked}, stop_epochs=self.asked in self.stops
        )


@pytest.mark.parametrize("way", [{"steps": 20}, {"fixed_steps": 5}], ids=str)
@pytest.mark.parametrize("stops", [(), (3, 5)], ids=str)
def test_a_baseline_learns_once_an_iteration_after_the_last_update(way, stops):
    """It is asked before the updates, and told the same rollout and returns after them, be they cut short or not."""
    spy = Spy()
    framework.train(
        environment=Counting(),
        policy=Coin(),
        estimator=Rewards(),
        baseline=Learning(spy.events),
        loss=Counted(stops),
        extensions=(spy,),
        rollout=RolloutSettings(lanes=4, **way),
        update=UpdateSettings(epochs=2, minibatches=3),
        iterations=2,
    )
    names = [name for name, _ in spy.events if name in ("rollout", "asked", "weights", "learnt", "metrics")]
    updates = (2, 1) if stops else (6, 6)  # the third and the fifth time: after two of the first, and one of the second
    assert names == [
        name for count in updates for name in ("rollout", "asked", *["weights"] * count, "learnt", "metrics")
    ]
    for asked, learnt, rollout in zip(spy.of("asked"), spy.of("learnt"), spy.of("rollout"), strict=True):
        assert asked[0] is learnt[0] is rollout
        assert asked[1] is learnt[1]


@fewer
@given(st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 30), max_size=3))
def test_stop_epochs_skips_this_update_and_the_iterations_remaining_ones(epochs, minibatches, stops):
    """What is left of the iteration's minibatches is not even asked for; the next iteration begins anew."""
    rollout, update = RolloutSettings(lanes=4, steps=20), UpdateSettings(epochs=epochs, minibatches=minibatches)
    result, spy = watched(loss=Counted(tuple(stops)), rollout=rollout, update=update, iterations=3)
    asked, expected = 0, []
    for _ in range(3):
        updates = 0
        for _ in range(epochs * minibatches):
            asked += 1
            if asked in stops:
                break
            updates += 1
        expected.append(updates)
    assert result.metrics["updates"].tolist() == expected
    assert len(spy.of("weights")) == sum(expected)
    assert len(spy.of("batch")) == asked


@pytest.mark.parametrize("stops", [(1,), (2,), (3,)], ids=["the first", "the second", "the last"])
def test_histories_are_aligned_where_an_iteration_makes_no_update(stops):
    """Each metric has an entry an iteration, NaN where there was nothing to measure."""
    result, _ = watched(loss=Counted(stops), iterations=3)
    skipped = stops[0] - 1
    for name, column in result.metrics.items():
        assert len(column) == 3, name
    for name in ("loss/policy", "asked"):
        assert [math.isnan(number) for number in result.metrics[name]] == [i == skipped for i in range(3)]
    assert result.metrics["iteration"].tolist() == [0, 1, 2]


def law_after_a_million_iterations_a_row_of_numbers_takes_no_more(module):
    result, _ = watched(iterations=1)
    run = result.run
    run.iteration = 10**6
    run.history = {name: [0.0] * run.iteration for name in run.history}
    module.measure(run, 128, 0.0)  # lists grow by more than they need
    tracemalloc.start()
    try:
        module.measure(run, 128, 0.0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10**5


def test_a_history_is_not_made_anew():
    law_after_a_million_iterations_a_row_of_numbers_takes_no_more(measuring)
    change = ("if name not in run.history:", "if name not in run.history or not [math.nan] * run.iteration:")
    with pytest.raises(AssertionError):
        law_after_a_million_iterations_a_row_of_numbers_takes_no_more(mutate("framework.reporting.metrics", change))


@frozen
class Stopping:
    """Gives an answer from the iteration `since` on."""

    answer: str | None
    since: int = 0

    def build(self, run):
        return Answering(self)


class Answering:
    def __init__(self, settings):
        self.settings = settings

    @hookimpl
    def should_stop(self, run, metrics):
        assert metrics["iteration"] == run.iteration
        return self.settings.answer if run.iteration >= self.settings.since else None


class AlsoStopping(Stopping):
    """Another name, to be chosen beside the first."""


@fewer
@given(st.integers(0, 4), st.integers(0, 4))
def test_any_reason_stops_and_all_are_recorded(one, two):
    """The iteration in which the first reason comes up is the last; reasons are kept in the extensions' order."""
    extensions = (Stopping("tired", one), AlsoStopping("bored", two))
    result, spy = watched(extensions=extensions, iterations=4)
    last = min(one, two, 3)
    assert len(spy.of("metrics")) == last + 1
    assert result.stop_reasons == tuple(
        reason for reason, since in (("tired", one), ("bored", two)) if since == last and since < 4
    )
    assert result.run.iteration == last + 1
    assert all(len(column) == last + 1 for column in result.metrics.values())


@pytest.mark.parametrize("answer", ["", None])
def test_no_reason_does_not_stop(answer):
    result, _ = watched(extensions=(Stopping(answer),), iterations=3)
    assert result.stop_reasons == ()
    assert len(result.metrics["steps"]) == 3


@frozen
class Interrupting:
    """The user's Ctrl-C, while an iteration is reported."""

    iteration: int

    def build(self, run):
        return Interrupt(self)


class Interrupt:
    def __init__(self, settings):
        self.settings = settings

    @hookimpl
    def iteration_finished(self, metrics):
        if metrics["iteration"] == self.settings.iteration:
            raise KeyboardInterrupt


@pytest.mark.parametrize("iteration", [0, 2])
def test_an_interrupt_is_a_reason_to_stop(iteration):
    """What was learnt and measured so far is there."""
    result, spy = watched(extensions=(Interrupting(iteration),), iterations=4)
    assert result.stop_reasons == ("interrupted",)
    assert torch.equal(weights_of(result)[0], spy.of("weights")[-1][0])
    assert all(len(column) == iteration + 1 for column in result.metrics.values())


def test_the_same_extension_twice_is_refused():
    """Two objects of one class would be told apart by nothing in a record."""
    with pytest.raises(UsageError, match="'Stopping'.* twice"):
        watched(extensions=(Stopping("tired"), Stopping("bored")))


# What is counted


def scores(rollouts, lanes):
    """Of each rollout, the (return, length) of episodes that ended in it, begun there or before: lane by lane."""
    totals, lengths, told = [0.0] * lanes, [0] * lanes, []
    for rollout in rollouts:
        ended = []
        for n in range(lanes):
            for t in rollout.mask[:, n].nonzero().flatten().tolist():
                totals[n] += float(rollout.rewards[t, n])
                lengths[n] += 1
                if rollout.terminated[t, n] or rollout.truncated[t, n]:
                    ended.append((totals[n], lengths[n]))
                    totals[n], lengths[n] = 0.0, 0
        told.append(ended)
    return told


WORLDS = {  # environment, policy, and up to how many lanes tables are walked lane by lane
    "stepped": (Counting(), Coin(), 64),
    "from tables, lane by lane": (LineWorld(goal=3, max_steps=6), None, 64),
    "from tables, all lanes together": (LineWorld(goal=3, max_steps=6), None, 0),
}


def watched_in(world, **arguments):
    """A run in one of the worlds, each of which is collected from in another way."""
    environment, policy, few = WORLDS[world]
    with mock.patch.object(framework.tabular.sampling, "FEW_LANES", few):
        return watched(environment=environment, policy=policy, **arguments)


@pytest.mark.parametrize("world", WORLDS)
@fewer
@given(way=WAYS_TO_COLLECT, shards=st.sampled_from([1, 2, 4]))
def test_metrics_are_those_of_the_rollouts(world, way, shards):
    """Steps and episodes so far; mean, deviation and length of the episodes that ended; recomputed lane by lane.

    Rewards are small integers, so that sums are exact; mean and deviation round in float64 only.
    """
    result, spy = watched_in(world, rollout=RolloutSettings(lanes=4, shards=shards, **way), iterations=3)
    steps, told = 0, []
    ended = scores(spy.of("rollout"), 4)
    for metrics, collected, now in zip(spy.of("metrics"), spy.of("rollout"), ended, strict=True):
        steps += int(collected.mask.sum())
        told += now
        returns, lengths = ([score[k] for score in now] for k in (0, 1))
        expected = {
            "steps": steps,
            "episodes": len(told),
            "mean_return": np.mean(returns) if now else math.nan,
            "std_return": np.std(returns, ddof=1) if len(now) > 1 else math.nan,
            "mean_length": np.mean(lengths) if now else math.nan,
        }
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    assert (result.run.steps, result.run.episodes) == (steps, len(told))
    if len(told) <= 100:
        assert sorted(result.recent_returns.tolist()) == sorted(score for score, _ in told)


def test_recent_returns_are_the_last_hundred():
    """Of 3 × 60 episodes: all of the last iteration's, and 40 of the one before."""
    result, spy = watched(rollout=RolloutSettings(lanes=4, episodes=60), iterations=3)
    ended = [Counter(score for score, _ in now) for now in scores(spy.of("rollout"), 4)]
    recent = Counter(result.recent_returns.tolist())
    assert recent.total() == 100
    assert recent - ended[1] <= ended[2] <= recent


@fewer
@given(WAYS_TO_COLLECT, st.integers(1, 3))
def test_histories_are_what_observers_were_told(way, iterations):
    """One array a metric, an entry an iteration, the very numbers of `iteration_finished`; iterations count from 0."""
    result, spy = watched(rollout=RolloutSettings(lanes=4, **way), iterations=iterations)
    told = spy.of("metrics")
    assert set(result.metrics) == set(told[0])
    for name, column in result.metrics.items():
        assert column.dtype.kind in "fi"
        assert column.tolist() == pytest.approx([row[name] for row in told], nan_ok=True)
    assert result.metrics["iteration"].tolist() == list(range(iterations))


def test_metrics_of_a_loss_are_means_over_the_updates():
    """Asked six times, the loss said 1 to 6; each named term is the mean of what was descended."""
    update = UpdateSettings(epochs=2, minibatches=3)
    result, spy = watched(loss=Counted(), update=update)
    assert result.metrics["asked"].tolist() == [3.5]
    logits, terms = torch.tensor(Coin().logits, dtype=torch.float64), []
    for batch, (after,) in zip(spy.of("batch"), spy.of("weights"), strict=True):
        terms.append(float(-(batch.advantages * logits.log_softmax(0)[batch.actions]).mean()))
        logits = after
    assert float(result.metrics["loss/policy"][0]) == pytest.approx(np.mean(terms), rel=1e-12)


@frozen
class Fickle:
    """A loss with a metric that it gives every second time only."""

    odd: bool

    def build(self):
        return FickleLoss(self.odd)


class FickleLoss:
    def __init__(self, odd):
        self.odd, self.asked = odd, 0

    def __call__(self, batch, evaluation):
        self.asked += 1
        given_now = {"sometimes": float(self.asked)} if self.asked % 2 == self.odd else {}
        return evolve(Reinforce()(batch, evaluation), metrics=given_now)


@pytest.mark.parametrize("odd", [True, False])
def test_a_metric_that_some_updates_lack_is_the_mean_of_the_others(odd):
    """Of four updates, the first and the third (1 and 3), or the second and the fourth (2 and 4)."""
    result, _ = watched(loss=Fickle(odd), update=UpdateSettings(minibatches=4))
    assert result.metrics["sometimes"].tolist() == [2.0 if odd else 3.0]


@pytest.mark.parametrize("world", WORLDS)
@fewer
@given(way=WAYS_TO_COLLECT, shards=st.sampled_from([2, 4]))
def test_a_shard_depends_on_its_number_only(world, way, shards):
    """The first shard of several collects what it would collect alone, with its share of lanes, steps or episodes."""
    ((name, amount),) = way.items()
    share = amount if name == "fixed_steps" else -(-amount // shards)
    rollouts = []
    for amounts in (
        RolloutSettings(lanes=4, shards=shards, **way),
        RolloutSettings(lanes=4 // shards, **{name: share}),
    ):
        _, spy = watched_in(world, rollout=amounts)
        rollouts.append(spy.of("rollout")[0])
    together, alone = rollouts
    longest, count = alone.mask.shape
    for column in ("observations", "actions", "rewards", "log_probs", "mask", "times", "episodes"):
        assert torch.equal(getattr(together, column)[:longest, :count][alone.mask], getattr(alone, column)[alone.mask])
    assert not together.mask[longest:, :count].any()
    if name == "episodes":
        assert len(together.episodes[together.mask].unique()) == amount


@pytest.mark.parametrize("world", WORLDS)
def test_a_later_shard_does_not_see_the_earlier_ones(world):
    """Of nine and of eight episodes in two shards, the second's share is four: the same four."""
    seconds = []
    for episodes in (8, 9):
        _, spy = watched_in(world, rollout=RolloutSettings(lanes=4, shards=2, episodes=episodes))
        (rollout,) = spy.of("rollout")
        real = rollout.mask[:, 2:]
        seconds.append([getattr(rollout, name)[:, 2:][real] for name in ("observations", "actions", "rewards")])
    assert all(torch.equal(one, two) for one, two in zip(*seconds, strict=True))


@pytest.mark.parametrize("world", WORLDS)
def test_shards_and_iterations_choose_by_numbers_of_their_own(world):
    """Two shards in two iterations: four different tables of 12 · 2 actions, alike by chance once in 10⁶."""
    _, spy = watched_in(world, rollout=RolloutSettings(lanes=4, shards=2, fixed_steps=12), iterations=2)
    halves = [half for rollout in spy.of("rollout") for half in rollout.actions.chunk(2, dim=1)]
    assert len({tuple(half.flatten().tolist()) for half in halves}) == 4


# Broken parts: what each returns is checked where it enters the core, and the message says whose it was.


def as_it_is(given_out):
    return given_out


@frozen(eq=False)
class World:
    """Episodes of three steps over two Box numbers, or three Discrete states; what it hands out can be spoilt."""

    step: object = as_it_is
    reset: object = as_it_is
    discrete: bool = False
    masks: object = None  # of the first masks; without, there are none
    tables: object = None

    def build(self, num_envs, device):
        return WorldLanes(self, num_envs)


class WorldLanes:
    action_space = Discrete(2)

    def __init__(self, settings, count):
        self.settings, self.count, self.time = settings, count, 0
        self.observation_space = Discrete(3) if settings.discrete else Box(-9.0, 9.0, (2,))
        self.masks = None if settings.masks is None else torch.ones(count, 2, dtype=torch.bool)
        if settings.masks is not None:
            self.action_masks = settings.masks(self.masks)
        if settings.tables is not None:
            self.mdp = lambda: settings.tables(mdp_of_three_states())

    def observe(self):
        states = torch.full((self.count,), self.time)
        return states if self.settings.discrete else states.float()[:, None].expand(-1, 2).clone()

    def reset(self, generator):
        self.time = 0
        return self.settings.reset(self.observe())

    def step(self, actions, generator):
        self.time = (self.time + 1) % 3
        over, rewards = torch.full((self.count,), self.time == 0), torch.ones(self.count)
        step = Step(self.observe(), self.observe(), rewards, over & False, over, action_masks=self.masks)
        return self.settings.step(step)


def mdp_of_three_states():
    transitions = torch.eye(3, dtype=torch.float64).roll(1, 1)[:, None].expand(3, 2, 3).clone()
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return TabularMDP(transitions, torch.ones(3, 2, 3), start, torch.zeros(3, dtype=torch.bool), 3)


@frozen(eq=False)
class Chooser:
    """A policy with a critic, after whose `act`, `evaluate` and `values` something can be spoilt."""

    act: object = as_it_is
    evaluate: object = as_it_is
    values: object = as_it_is
    gives = frozenset({"values"})

    def build(self, observation_space, action_space):
        return ChoosingPolicy(self)


class ChoosingPolicy(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.logits = torch.nn.Parameter(torch.zeros(2))
        self.value = torch.nn.Parameter(torch.zeros(()))

    def act(self, inputs, generator):
        actions = torch.randint(0, 2, (len(inputs.observations),), generator=generator)
        return self.settings.act(Action(actions, self.logits.log_softmax(0).detach()[actions]))

    def evaluate(self, inputs, actions, entropies):
        table = self.logits.log_softmax(0)
        entropy = -(table.exp() * table).sum().expand(len(actions)) if entropies else None
        return self.settings.evaluate(Evaluation(table[actions], entropy, self.value.expand(len(actions))))

    def values(self, inputs):
        return self.settings.values(self.value.detach().expand(len(inputs.observations)))


@frozen(eq=False)
class Critical:
    """An estimator that bootstraps from successors' values; what it returns can be spoilt."""

    spoil: object = as_it_is
    needs = frozenset({"values"})

    def __call__(self, rollout):
        returns = rollout.rewards + rollout.successor_values
        return self.spoil(Estimate(returns, returns.clone(), torch.ones_like(returns)))


@frozen(eq=False)
class Level:
    """A baseline of 0, which can be spoilt."""

    spoil: object = as_it_is

    def __call__(self, rollout, returns):
        return self.spoil(torch.zeros_like(returns))


@frozen(eq=False)
class Terms:
    """Policy, value and entropy terms; what is returned can be spoilt."""

    spoil: object = as_it_is
    needs = frozenset({"entropies", "values"})

    def __call__(self, batch, evaluation):
        policy = -batch.advantages * evaluation.log_probs
        value = (evaluation.values - batch.value_targets).square()
        return self.spoil(Loss({"policy": policy, "value": value, "entropy": -0.1 * evaluation.entropies}))


INTACT = {
    "environment": World(),
    "policy": Chooser(),
    "estimator": Critical(),
    "baseline": Level(),
    "loss": Terms(),
    "rollout": RolloutSettings(lanes=2, steps=14),  # at least seven steps a lane
}


def run_with(**parts):
    return framework.train(**{**INTACT, **parts}, iterations=1)


def changed(name, change):
    """A spoiler that changes one field, where it is given."""

    def spoil(given_out):
        value = getattr(given_out, name)
        return given_out if value is None else evolve(given_out, **{name: change(value)})

    return spoil


def replaced(name, value):
    """A spoiler that puts something else into a field."""
    return lambda given_out: evolve(given_out, **{name: value})


def later(spoil):
    """A spoiler that leaves the first two times alone."""
    times = iter(range(10**9))
    return lambda given_out: spoil(given_out) if next(times) > 1 else given_out


def spoilt(tensor, number):
    """A copy whose last number is another."""
    copy = tensor.clone()
    copy.view(-1)[-1] = number
    return copy


def learnable(tensor):
    """A copy that asks for a gradient."""
    return tensor.clone().requires_grad_()


def without_log_probs(action):
    return Action(action.actions)


# What a tensor can be instead, and what the message says of it; after a part's label and the field's name
SHAPES = {
    "no tensor": (lambda tensor: tensor.tolist(), "expected a tensor .*, got list"),
    "too short": (lambda tensor: tensor[:1], "expected shape .*, got"),
    "with an axis more": (lambda tensor: tensor[..., None], "expected shape .*, got"),
}
INTEGERS = {"of integers": (lambda tensor: tensor.long(), "expected .*, got torch.int64")}
OTHERS_LATER = {"of integers": (lambda tensor: tensor.long(), "expected torch.int64, got torch.float32")}
NOT_FINITE = {
    "of NaN": (lambda tensor: spoilt(tensor, math.nan), r"not finite \(nan\)"),
    "of infinity": (lambda tensor: spoilt(tensor, -math.inf), r"not finite \(-inf\)"),
}
LEARNABLE = {"with a gradient": (learnable, "carries a gradient")}
NUMBERS = SHAPES | INTEGERS | NOT_FINITE
FLAGS = SHAPES | {"of numbers": (lambda tensor: tensor.float(), "expected torch.bool, got torch.float32")}
STATES = {"outside the space": (lambda tensor: tensor + 7, r"\d is outside Discrete\(3\)")}
CHOICES = SHAPES | {
    "of numbers": (lambda tensor: tensor.float(), "expected torch.int64 .*, got torch.float32"),
    "outside the space": (lambda tensor: tensor + 5, r"\d is outside Discrete\(2\)"),
}
ESTIMATES = NUMBERS | LEARNABLE | {"batch-major": (lambda tensor: tensor.T, r"\(batch-major\? .* is time-major\)")}
MISSING = {"left out": (lambda _: None, "expected a tensor .*, got NoneType")}


def world(hook, name=None, **settings):
    """Makes runs in whose world what `hook` hands out, or a field of it, is spoilt."""
    return lambda spoil: {"environment": World(**{hook: changed(name, spoil) if name else spoil}, **settings)}


def policy(hook, name=None, **others):
    """Makes runs whose policy is spoilt likewise."""
    return lambda spoil: {"policy": Chooser(**{hook: changed(name, spoil) if name else spoil}, **others)}


def estimator(name):
    return lambda spoil: {"estimator": Critical(changed(name, spoil))}


def loss(spoil):
    return {"loss": Terms(spoil)}


def term(name):
    return lambda spoil: loss(changed("terms", lambda terms: {**terms, name: spoil(terms[name])}))


def no(kind, field):
    """Instead of an object of this kind, only what one of its fields holds."""
    return {f"is no {kind}": (lambda given_out: getattr(given_out, field), f"expected an? {kind}, got ")}


def constant(evaluation):
    return Evaluation(
        *(None if tensor is None else tensor.detach() for tensor in attrs.astuple(evaluation, recurse=False))
    )


def constant_terms(terms):
    return {name: tensor.detach() for name, tensor in terms.items()}


TWO, MASKS = torch.ones(2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
BREAKS = [  # role, place (ending with the field), what can stand there instead, how to make such a run
    ("environment", "reset: observations", SHAPES | NOT_FINITE, world("reset")),
    ("environment", "reset: observations", OTHERS_LATER, world("reset")),
    ("environment", "reset: observations", STATES, world("reset", discrete=True)),
    ("environment", "reset: action_masks", FLAGS, world("masks")),
    ("environment", "step", no("Step", "rewards"), world("step")),
    ("environment", "step: observations", SHAPES | NOT_FINITE, world("step", "observations")),
    ("environment", "step: observations", STATES, world("step", "observations", discrete=True)),
    ("environment", "step: successors", SHAPES | NOT_FINITE, world("step", "successors")),
    ("environment", "step: successors", STATES, world("step", "successors", discrete=True)),
    ("environment", "step: rewards", NUMBERS, world("step", "rewards")),
    ("environment", "later: rewards", NUMBERS, lambda spoil: world("step")(later(changed("rewards", spoil)))),
    ("environment", "step: terminated", FLAGS, world("step", "terminated")),
    ("environment", "step: truncated", FLAGS, world("step", "truncated")),
    ("environment", "step: valid", FLAGS, lambda spoil: world("step")(replaced("valid", spoil(TWO)))),
    ("environment", "step: action_masks", FLAGS | MISSING, world("step", "action_masks", masks=as_it_is)),
    ("policy", "act", no("Action", "actions"), policy("act")),
    ("policy", "act: actions", CHOICES, policy("act", "actions")),
    ("policy", "later: actions", CHOICES, lambda spoil: policy("act")(later(changed("actions", spoil)))),
    ("policy", "act: log_probs", NUMBERS, policy("act", "log_probs")),
    ("policy", "later: log_probs", NUMBERS | MISSING, lambda spoil: policy("act")(later(changed("log_probs", spoil)))),
    ("policy", "evaluate", no("Evaluation", "log_probs"), policy("evaluate")),
    ("policy", "evaluate", {"is constant": (constant, "no gradient")}, policy("evaluate")),
    ("policy", "evaluate: log_probs", NUMBERS | MISSING, policy("evaluate", "log_probs")),
    ("policy", "evaluate: entropies", NUMBERS | MISSING, policy("evaluate", "entropies")),
    ("policy", "evaluate: values", NUMBERS, policy("evaluate", "values")),
    ("policy", "rollout: evaluate", no("Evaluation", "log_probs"), policy("evaluate", act=without_log_probs)),
    ("policy", "rollout: log_probs", NUMBERS | MISSING, policy("evaluate", "log_probs", act=without_log_probs)),
    ("policy", "values", NUMBERS | LEARNABLE, policy("values")),
    ("estimator", "", no("Estimate", "returns"), lambda spoil: {"estimator": Critical(spoil)}),
    ("estimator", "returns", ESTIMATES, estimator("returns")),
    ("estimator", "value_targets", ESTIMATES, estimator("value_targets")),
    ("estimator", "weights", ESTIMATES, estimator("weights")),
    ("baseline", "", ESTIMATES, lambda spoil: {"baseline": Level(spoil)}),
    ("loss", "", no("Loss", "terms"), loss),
    ("loss", "", {"without terms": (replaced("terms", {}), "expected a Loss with at least one term")}, loss),
    ("loss", "terms", {"in a list": (changed("terms", lambda terms: [*terms.values()]), "got list")}, loss),
    ("loss", "terms", {"that are constant": (changed("terms", constant_terms), "carry no gradient")}, loss),
    ("loss", "term 'policy'", NUMBERS, term("policy")),
    ("loss", "term 'value'", NUMBERS, term("value")),
    ("loss", "term 'entropy'", NUMBERS, term("entropy")),
    (
        "loss",
        "stop_epochs",
        {
            "of two numbers": (replaced("stop_epochs", torch.zeros(2, dtype=torch.bool)), r"shape \[2\]"),
            "that is None": (replaced("stop_epochs", None), "got None"),
        },
        loss,
    ),
    ("loss", "metric 'kl'", {"of two numbers": (replaced("metrics", {"kl": torch.zeros(2)}), "")}, loss),
]
BROKEN = {
    f"{role}: {place} {how}": (role, place.split(": ")[-1], message, change, make)
    for role, place, changes, make in BREAKS
    for how, (change, message) in changes.items()
}


def test_intact_parts_run():
    """The parts that are broken below, unbroken: so it is the break that tells."""
    for parts in (
        {},
        world("step", discrete=True)(as_it_is),
        world("masks")(as_it_is),
        policy("act")(without_log_probs),
    ):
        assert run_with(**parts).run.steps >= 14


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_part_is_named(case):
    """A `PartError` begins with role, name and plugin (here: the class's module), and says what was wrong where."""
    role, field_name, message, change, make = BROKEN[case]
    parts = make(change)
    with pytest.raises(PartError) as caught:
        run_with(**parts)
    label = f"{role} '{type(parts[role]).__name__}' (plugin {__name__})"
    assert str(caught.value).startswith(label)
    assert re.search(f"{re.escape(field_name)}.*{message}", str(caught.value).removeprefix(label))


def test_masks_that_the_first_observations_lack_are_refused():
    """They would be known too late for the rollout's first row."""
    with pytest.raises(PartError, match=rf"environment 'World' \(plugin {__name__}\).*action_masks"):
        run_with(**world("step")(replaced("action_masks", MASKS)))


SOURCES = {
    "reset": world("reset"),
    "step: observations": world("step", "observations"),
    "step: successors": world("step", "successors"),
    "step: rewards": world("step", "rewards"),
    "act: log_probs": policy("act", "log_probs"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_gradient_ends_where_the_rollout_begins(source):
    """What environments and `act` hand out is copied, without it: nothing in a rollout carries one."""
    spy = Spy()
    run_with(**SOURCES[source](learnable), extensions=(spy,))
    for rollout in spy.of("rollout"):
        for name, column in attrs.asdict(rollout, recurse=False).items():
            assert column is None or not column.requires_grad, name


def test_a_policy_may_compute_in_float64():
    """Log-probs from `act` are of the policy's own dtype, as those from `evaluate` are."""
    run_with(**policy("act", "log_probs")(torch.Tensor.double))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rewards", lambda rewards: spoilt(rewards, math.nan)),
        ("rewards", lambda rewards: rewards[..., 0]),
        ("transitions", lambda transitions: transitions * 0.5),
        ("transitions", lambda transitions: transitions * 2 - transitions.roll(1, -1)),
        ("start", lambda start: start * 0),
        ("terminal", lambda terminal: terminal[:2]),
    ],
    ids=["NaN", "no reward a successor", "rows of one half", "negative probabilities", "no start", "a state too few"],
)
def test_tables_that_describe_no_world_are_refused(name, change):
    """`mdp()` is trusted with the sampling, so what it says is checked, and the message says whose it was."""
    broken = World(tables=changed(name, change), discrete=True)
    with pytest.raises(FrameworkError, match=rf"environment 'World' \(plugin {__name__}\): mdp.*{name}"):
        framework.train(environment=broken, estimator=Rewards(), iterations=2)
    intact = World(tables=as_it_is, discrete=True)
    assert len(framework.train(environment=intact, estimator=Rewards(), iterations=2).metrics["steps"]) == 2


def test_where_nothing_is_allowed_the_environment_is_named():
    nothing = r"action_masks: no action is allowed at step 0, lane 0"
    with pytest.raises(PartError, match=rf"environment 'World' \(plugin {__name__}\): {nothing}"):
        run_with(**world("masks")(lambda masks: masks.logical_and(torch.tensor(False))))


def test_log_probs_are_given_always_or_never():
    times = itertools.count()
    sometimes = policy("act")(lambda action: without_log_probs(action) if next(times) == 0 else action)
    with pytest.raises(PartError, match=r"policy 'Chooser' .*: act: log_probs: expected None, as before"):
        run_with(**sometimes)


@pytest.mark.parametrize("left_out", [False, True], ids=["log-probs of act", "log-probs of evaluate"])
def test_values_are_those_of_values(left_out):
    """Whatever `evaluate` says of them: what a loss wants may be scaled otherwise (PopArt, say)."""
    collected = []

    class Looking:
        @hookimpl(wrapper=True)
        def collect_rollout(self):
            collected.append((yield))
            return collected[-1]

    @frozen
    class Look:
        def build(self, run):
            return Looking()

    scaled = Chooser(
        act=without_log_probs if left_out else as_it_is,
        evaluate=lambda evaluation: evolve(evaluation, values=evaluation.values + 5),
        values=lambda values: values + 1,
    )
    run_with(policy=scaled, extensions=[Look()])
    assert collected
    for rollout in collected:
        assert (rollout.values[rollout.mask] > 0.5).all()
        assert (rollout.values < 1.5).all()
