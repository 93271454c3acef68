"""Where episodes end, and what follows for the rollout: `EpisodeTracker` against one step after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate

from framework.collecting import episodes


@st.composite
def stories(draw):
    """Flags, rewards and lanes at work `[T, N]`, as a step loop has them; sometimes with reset rows."""
    steps, lanes = draw(st.integers(1, 7)), draw(st.integers(1, 3))

    def table(elements):
        return np.array(
            draw(st.lists(st.lists(elements, min_size=lanes, max_size=lanes), min_size=steps, max_size=steps))
        )

    flags = st.sampled_from([True, False, False])
    stops = draw(st.none() | st.lists(st.integers(1, steps), min_size=lanes, max_size=lanes))
    alive = None if stops is None else np.arange(steps)[:, None] < np.array(stops)
    return {
        "terminated": table(flags),
        "truncated": table(flags),
        "rewards": table(st.integers(-3, 3)).astype(np.float32),
        "alive": alive,
        "valid": draw(st.none() | st.just(True)) and ~table(flags),
        "episode_step": np.array(draw(st.lists(st.integers(0, 4), min_size=lanes, max_size=lanes))),
        "episode_return": np.array(draw(st.lists(st.integers(-9, 9), min_size=lanes, max_size=lanes)), np.float64),
    }


def one_by_one(story):
    """The same by hand: (row, lane) → (time, episode) of real steps; ends; what the lanes carry on."""
    steps, lanes = story["rewards"].shape
    alive = np.ones((steps, lanes), bool) if story["alive"] is None else story["alive"]
    real = alive if story["valid"] is None else alive & story["valid"]
    episode_step, episode_return = story["episode_step"].tolist(), story["episode_return"].tolist()
    number, starts = list(range(lanes)), lanes
    places, ends = {}, []
    fresh = []  # lanes whose last episode is over
    for t in range(steps):
        for lane in fresh:
            if alive[t, lane]:
                number[lane], starts = starts, starts + 1
        fresh = []
        for lane in range(lanes):
            if not real[t, lane]:
                continue
            places[t, lane] = episode_step[lane], number[lane]
            episode_return[lane] += float(story["rewards"][t, lane])
            episode_step[lane] += 1
            if story["terminated"][t, lane] or story["truncated"][t, lane]:
                ends.append((t, lane, episode_return[lane], episode_step[lane]))
                episode_return[lane], episode_step[lane] = 0.0, 0
                fresh.append(lane)
    return places, ends, episode_step, episode_return


def law_turns_are_those_of_one_step_after_the_other(module, story):
    """Mask, times, numbers, returns, lengths, metrics, what is left, and what is carried on."""
    given = {name: None if value is None else value.copy() for name, value in story.items()}
    steps, lanes = story["rewards"].shape
    names = [name for name in ("rewards", "terminated", "truncated", "alive", "valid") if given[name] is not None]
    columns = {name: torch.from_numpy(given[name]) for name in names}
    real = np.ones((steps, lanes), bool)
    for name in ("alive", "valid"):
        real &= True if story[name] is None else story[name]
    ended = (story["terminated"] | story["truncated"]) & real
    turns = module.EpisodeTracker()
    every = np.arange(steps * lanes).reshape(steps, lanes, 1)
    for t in range(steps):
        if ended[t].any():
            metrics = {"place": torch.from_numpy(every[t, :, 0].astype(np.float64))} if t % 2 else None
            turns.note(t, ended[t], every[t], None, metrics)
    turns.note(steps - 1, ~ended[-1], every[-1], None)
    finished, left = turns.account(columns, given["episode_step"], given["episode_return"], True)

    places, ends, episode_step, episode_return = one_by_one(story)
    assert "alive" not in columns
    assert "valid" not in columns
    assert {tuple(place) for place in columns["mask"].nonzero().tolist()} == set(places)
    for place, (time, number) in places.items():
        assert (int(columns["times"][place]), int(columns["episodes"][place])) == (time, number)
    assert list(zip(finished.returns.tolist(), finished.lengths.tolist(), strict=True)) == [end[2:] for end in ends]
    reported = finished.metrics.get("place", np.full(len(ends), np.nan))
    for (t, lane, *_), number in zip(ends, reported, strict=True):
        assert number == t * lanes + lane if t % 2 else np.isnan(number)
    last = [(steps - 1, lane) for lane in range(lanes) if not ended[-1, lane]]
    assert list(zip(left.times.tolist(), left.lanes.tolist(), strict=True)) == [end[:2] for end in ends] + last
    assert (left.observations[:, 0] == left.times * lanes + left.lanes).all()
    on = slice(None) if story["alive"] is None else story["alive"].all(0)  # of others it means nothing
    assert given["episode_step"][on].tolist() == np.array(episode_step)[on].tolist()
    assert given["episode_return"].tolist() == episode_return


@given(stories())
def test_turns_are_those_of_one_step_after_the_other(story):
    law_turns_are_those_of_one_step_after_the_other(episodes, story)


MUTANTS = [
    ("since[0] = -episode_step", "since[0] = 0"),
    ("episode_step[:] = times[-1]", "episode_step[:] = times[-2]"),
    ("np.copyto(since[1:], steps_before[1:], where=ended)", "np.copyto(since[1:], steps_before[:-1], where=ended)"),
    ("np.cumsum(valid, 0)", "np.cumsum(np.ones_like(valid), 0)"),
    ("starts &= alive", "pass"),
    ("terminated | truncated, np", "terminated & True, np"),
    ("ended &= mask", "pass"),
    ("(alive, valid):", "(alive,):"),
    ("rewards = np.where(mask, rewards, 0)", "pass"),
    ("by_lane[:, 0] += episode_return", "pass"),
    ("np.where(whole, 0, sums)", "sums"),
    ('[np.argsort(rows[whole], kind="stable")]', ""),
    ("np.append(0, closes[:-1] + 1)", "np.append(0, closes[:-1])"),
    ("metrics[name][first:last] = column", "metrics[name][: len(column)] = column"),
    ("times[rows, lanes] + 1", "times[rows, lanes]"),
    ("(~ended[-1]).nonzero()", "ended[-1].nonzero()"),
]


@pytest.mark.parametrize("change", MUTANTS, ids=lambda change: change[1])
def test_a_law_kills_the_mutant(change):
    is_killed(
        law_turns_are_those_of_one_step_after_the_other,
        stories(),
        arguments=(mutate("framework.collecting.episodes", change),),
    )
