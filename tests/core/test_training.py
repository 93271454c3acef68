"""The loop: what is updated, counted, measured and stopped."""

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from counting_parts import WAYS_TO_COLLECT, Coin, Counting, Rewards, Spy, fewer, watched, weights_of
from framework_line_world import LineWorld
from framework_reinforce.score_function import Reinforce
from hypothesis import given
from hypothesis import strategies as st
from mutants import mutate

import framework.api
import framework.learning.batches
from framework import RolloutSettings, UpdateSettings, UsageError, hookimpl
from framework.reporting import metrics as measuring

pytestmark = pytest.mark.usefixtures("plugins_found_once")


# Updates of a baseline, and stopping early


@frozen(eq=False)
class Learning:
    """A baseline of 0 that writes into a spy's events how it is called."""

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
    """It is called before the updates and updated after them, with the same rollout, even if they are cut short."""
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
    """Two objects of one class could not be distinguished in a record."""
    with pytest.raises(UsageError, match="'Stopping'.* twice"):
        watched(extensions=(Stopping("tired"), Stopping("bored")))


# What is counted


def scores(rollouts, lanes):
    """Of each rollout, the (return, length) of episodes that ended in it, begun there or before: lane by lane."""
    totals, lengths, reported = [0.0] * lanes, [0] * lanes, []
    for rollout in rollouts:
        ended = []
        for n in range(lanes):
            for t in rollout.mask[:, n].nonzero().flatten().tolist():
                totals[n] += float(rollout.rewards[t, n])
                lengths[n] += 1
                if rollout.terminated[t, n] or rollout.truncated[t, n]:
                    ended.append((totals[n], lengths[n]))
                    totals[n], lengths[n] = 0.0, 0
        reported.append(ended)
    return reported


WORLDS = {  # environment, policy, and up to how many lanes tables are sampled lane by lane
    "stepped": (Counting(), Coin(), 64),
    "from tables, lane by lane": (LineWorld(goal=3, max_steps=6), None, 64),
    "from tables, all lanes together": (LineWorld(goal=3, max_steps=6), None, 0),
}


def watched_in(world, **arguments):
    """A run in one of the worlds, each of which is collected from in another way."""
    environment, policy, few = WORLDS[world]
    return watched(environment=environment, policy=policy, few_lanes=few, **arguments)


@pytest.mark.parametrize("world", WORLDS)
@fewer
@given(way=WAYS_TO_COLLECT, shards=st.sampled_from([1, 2, 4]))
def test_metrics_are_those_of_the_rollouts(world, way, shards):
    """Steps and episodes so far; mean, deviation and length of the episodes that ended; recomputed lane by lane.

    Rewards are small integers, so that sums are exact; mean and deviation round in float64 only.
    """
    result, spy = watched_in(world, rollout=RolloutSettings(lanes=4, shards=shards, **way), iterations=3)
    steps, reported = 0, []
    ended = scores(spy.of("rollout"), 4)
    for metrics, collected, now in zip(spy.of("metrics"), spy.of("rollout"), ended, strict=True):
        steps += int(collected.mask.sum())
        reported += now
        returns, lengths = ([score[k] for score in now] for k in (0, 1))
        expected = {
            "steps": steps,
            "episodes": len(reported),
            "mean_return": np.mean(returns) if now else math.nan,
            "std_return": np.std(returns, ddof=1) if len(now) > 1 else math.nan,
            "mean_length": np.mean(lengths) if now else math.nan,
        }
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    assert (result.run.steps, result.run.episodes) == (steps, len(reported))
    if len(reported) <= 100:
        assert sorted(result.recent_returns.tolist()) == sorted(score for score, _ in reported)


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
    reported = spy.of("metrics")
    assert set(result.metrics) == set(reported[0])
    for name, column in result.metrics.items():
        assert column.dtype.kind in "fi"
        assert column.tolist() == pytest.approx([row[name] for row in reported], nan_ok=True)
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
