"""An update: what minibatches visit, and what is divided, clipped and stepped."""

import math
import weakref
from collections import Counter

import attrs
import pytest
import torch
from attrs import frozen
from counting_parts import DENOMINATORS, SGD, WAYS_TO_COLLECT, Coin, Shown, Spy, fewer, watched, weights_of
from hypothesis import given
from hypothesis import strategies as st

import framework.api
import framework.learning.batches
from framework import Advantages, Batch, Estimate, Loss, OptimizerSettings, RolloutSettings, UpdateSettings, UsageError
from framework.learning.batches import flatten, reduce, select
from framework.testing.strategies import assemble, lanes_of_episodes

pytestmark = pytest.mark.usefixtures("plugins_found_once")


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


@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.randoms(use_true_random=False), st.booleans())
def test_a_minibatch_is_what_its_index_selects(epochs, count, steps, chance, light):
    """In whatever order they are made: an epoch is shuffled as one, its minibatches are views of that."""
    batch = Batch(*[torch.arange(float(steps)) + number for number in range(6)], total_steps=steps, total_episodes=2)
    settings = UpdateSettings(epochs=epochs, minibatches=count)
    bytes_at_once = 2**24 if light else 0
    pieces = list(framework.learning.batches.minibatches(settings, torch.Generator(), batch, bytes_at_once))
    for piece in chance.sample(pieces, len(pieces)):
        made, expected = piece.make(), batch if piece.index is None else select(batch, piece.index)
        for name in framework.learning.batches.COLUMNS:
            column = getattr(expected, name)
            assert column is None or torch.equal(getattr(made, name), column)
        assert (made.total_steps, made.total_episodes) == (expected.total_steps, expected.total_episodes)


def test_one_shuffled_epoch_is_held_at_a_time():
    """Even if all minibatches are listed first, as for compiled updates; of a large batch, none."""
    settings = UpdateSettings(epochs=6, minibatches=4)
    batch = Batch(*[torch.arange(12.0)] * 6, total_steps=12, total_episodes=1)
    size = 6 * batch.returns.nbytes
    for light, held in ((size, 4), (size - 1, 0)):
        pieces = list(framework.learning.batches.minibatches(settings, torch.Generator(), batch, light))
        made = [weakref.ref(piece.make()) for piece in pieces]
        assert sum(one() is not None for one in made) == held


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
