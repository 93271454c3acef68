"""Only requested entries of `info` are read: nothing else can make a run fail, and no number loses its fraction."""

import math

import gym_vector_worlds
import numpy as np
import pytest
import torch
from framework_gymnasium import Gymnasium
from framework_gymnasium.infos import as_mask, as_number, look_up
from gymnasium import spaces

import framework
from framework import RolloutSettings

CPU = torch.device("cpu")
WAYS = [("sync", "same_step"), ("sync", "next_step"), ("sync", "disabled"), ("async", "same_step")]


def started(made, steps, lanes=2):
    """Steps after a reset, the first action each."""
    generator = torch.Generator().manual_seed(0)
    made.reset(generator)
    return [made.step(torch.zeros(lanes, dtype=torch.int64), generator) for _ in range(steps)]


def played(info, metrics=None, vectorization="sync", mode="auto", lanes=3, steps=12):
    """Every metric of every episode of one step, by name."""
    chosen = {} if metrics is None else {"metrics": metrics}
    kwargs = {"info": info}
    made = Gymnasium("gym_careless_worlds:odd", vectorization, mode, kwargs, **chosen).build(lanes, CPU)
    generator, found = torch.Generator().manual_seed(1), {}
    try:
        made.reset(generator)
        for _ in range(steps):
            step = made.step(torch.zeros(lanes, dtype=torch.int64), generator)
            ended = step.terminated | step.truncated
            for name, column in step.metrics.items():
                assert not ended.all() or column[~ended].isnan().all()
                found.setdefault(name, []).extend(column[ended].tolist())
    finally:
        made.close()
    return found


@pytest.mark.parametrize(("vectorization", "mode"), WAYS)
@pytest.mark.parametrize("info", ["lengths", "mixed", "some lanes", "lock", "two", "dict", "none"])
def test_entries_that_were_not_requested_never_fail(info, vectorization, mode):
    """Arrays of other lengths, None, nested tables and what cannot be sent to another process."""
    if vectorization == "async" and info not in ("lengths", "lock"):
        vectorization = "sync"
    found = played(info, vectorization=vectorization, mode=mode, steps=4)
    assert all(math.isnan(number) for column in found.values() for number in column)


@pytest.mark.parametrize(("vectorization", "mode"), WAYS)
def test_a_float_after_an_int_keeps_its_fraction(vectorization, mode):
    found = played("mixed", ("score",), vectorization, mode)["score"]
    assert set(found) == {1.0, 1.75}


@pytest.mark.parametrize(("vectorization", "mode"), WAYS)
def test_what_some_lanes_say_is_theirs_alone(vectorization, mode):
    found = played("some lanes", ("score",), vectorization, mode)["score"]
    assert sum(number == 0.5 for number in found) > 0
    assert all(number == 0.5 or math.isnan(number) for number in found)
    assert sum(math.isnan(number) for number in found) > 0


def test_arrays_of_one_number_are_that_number():
    found = played("array", ("success", "score"))
    assert set(found["success"]) == {1.0}
    assert set(found["score"]) == {0.25}


@pytest.mark.parametrize(("info", "got"), [("two", "ndarray of shape [2]"), ("dict", "{'left': True, 'right': False}")])
def test_a_requested_metric_that_is_not_a_number_is_an_error(info, got):
    with pytest.raises(RuntimeError) as caught:
        played(info, ("success",))
    assert f"metric 'success': expected one number in info, got {got}" in str(caught.value)
    assert "lane 0, step 0 of its episode" in str(caught.value)
    assert played(info, ("success.left",) if info == "dict" else ("success.0",))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_return_that_record_episode_statistics_says_is_a_metric(vectorization):
    part = Gymnasium(
        "CartPole-v1", vectorization, wrappers=("RecordEpisodeStatistics",), metrics=("episode.r", "episode.l")
    )
    rollout = RolloutSettings(lanes=2, episodes=6)
    result = framework.train(environment=part, rollout=rollout, iterations=1)
    finished = result.run.finished
    assert finished.metrics["episode.r"].tolist() == finished.returns.tolist()
    assert finished.metrics["episode.l"].tolist() == finished.lengths.tolist()


def test_numbers_of_a_vectorised_environment_may_be_nested():
    part = Gymnasium("gym_vector_worlds:Masked-v0", "vector_entry_point", metrics=("episode.r",))
    made, generator = part.build(2, CPU), torch.Generator()
    made.reset(generator)
    steps = [made.step(torch.zeros(2, dtype=torch.int64), generator).metrics["episode.r"].tolist() for _ in range(3)]
    assert steps[2] == [0.5, 1.5]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, 1.0),
        (3, 3.0),
        (np.int8(3), 3.0),
        (np.array([[2.5]]), 2.5),
        (torch.tensor([2.5], requires_grad=True), 2.5),
        ([1, 2], None),
        ("3", None),
        (None, None),
        (1j, None),
        (np.complex64(1), None),
        ({}, None),
        (10**400, None),
    ],
)
def test_what_is_one_number(given, expected):
    assert as_number(given) == expected


def test_dots_lead_to_nested_entries_and_a_name_with_dots_comes_first():
    info = {"a.b": 1, "a": {"b": 2, "c.d": {"e": [3, 4]}}}
    assert look_up(info, "a.b") == 1
    assert look_up(info, "a.c.d.e.1") == 4
    assert look_up(info, "a.c.d.e.7") is None
    assert look_up({"a": 3}, "a.b") is None


# Masks


@pytest.mark.parametrize(("vectorization", "mode"), WAYS)
def test_masks_in_info_are_those_of_the_observation_that_is_seen_next(vectorization, mode):
    """Taxi's, against its own table: after a step and after the reset that follows an episode's end."""
    import gymnasium

    part = Gymnasium("Taxi-v4", vectorization, mode, max_episode_steps=3)
    made, generator = part.build(2, CPU), torch.Generator().manual_seed(0)
    seen = made.reset(generator)
    taxi = gymnasium.make("Taxi-v4").unwrapped
    masks = made.action_masks
    for t in range(9):
        assert masks.dtype == torch.bool
        over = t > 0 and (step.terminated | step.truncated).tolist()  # noqa: F821
        for lane in range(2):
            if over and over[lane] and mode == "next_step":
                assert masks[lane].all()
            else:
                assert masks[lane].tolist() == taxi.action_mask(int(seen[lane])).astype(bool).tolist()
        step = made.step(masks.float().multinomial(1, generator=generator).squeeze(1), generator)
        seen, masks = step.observations, step.action_masks
    made.close()


def test_no_policy_takes_masked_actions_in_taxi():
    part = Gymnasium("Taxi-v4", max_episode_steps=20)
    result = framework.train(
        environment=part, recipe="ppo", rollout=RolloutSettings(lanes=2, fixed_steps=40), iterations=1
    )
    assert result.run.environment.action_masks is not None
    off = Gymnasium("Taxi-v4", action_masks="none").build(1, CPU)
    off.reset(torch.Generator())
    assert off.action_masks is None


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_method_action_masks_is_the_other_convention(vectorization):
    """That of sb3-contrib; a tuple of one mask a component, too."""
    part = Gymnasium("gym_masked_worlds:Locks", vectorization)
    made, generator = part.build(2, CPU), torch.Generator()
    made.reset(generator)
    assert made.action_masks.tolist() == [[True, False, True, True, True]] * 2
    step = made.step(torch.zeros(2, 2, dtype=torch.int64), generator)
    assert step.action_masks.tolist() == [[False, True, True, True, True]] * 2
    made.close()
    with pytest.raises(framework.UsageError, match=r"has no method action_masks\(\): choose info or none"):
        Gymnasium("CartPole-v1", "sync", action_masks="method").build(1, CPU)
    with pytest.raises(RuntimeError, match=r"action mask: expected 2 flags, for Discrete\(2\), got None"):
        Gymnasium("CartPole-v1", "sync", action_masks="info").build(1, CPU).reset(generator)


def test_a_vectorised_environment_may_have_masks():
    made, generator = Gymnasium("gym_vector_worlds:Masked-v0", "vector_entry_point").build(2, CPU), torch.Generator()
    made.reset(generator)
    assert made.action_masks.tolist() == [[True, False]] * 2
    step = made.step(torch.zeros(2, dtype=torch.int64), generator)
    assert step.action_masks.tolist() == [[False, True]] * 2


def test_what_is_a_mask():
    assert as_mask(np.array([1, 0], np.int8), 2).tolist() == [True, False]
    assert as_mask((np.array([1, 0]), np.array([0, 1, 1])), 5).tolist() == [True, False, False, True, True]
    assert as_mask(np.ones(3), 2) is None
    assert as_mask(np.array([0.0, -np.inf]), 2) is None
    assert as_mask([0.5, 1.0], 2) is None
    assert as_mask("ab", 2) is None


@pytest.mark.parametrize(("vectorization", "mode"), WAYS)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("length", r"expected 3 flags, for Discrete\(3\), got ndarray of shape \[4\]"),
        ("logits", r"got ndarray of shape \[3\], with other numbers than 0 and 1"),
        ("steps", "info has an 'action_mask' in a step, and had none at the reset of all lanes: return it there, too"),
    ],
)
def test_masks_that_are_not_used_are_a_warning(how, words, vectorization, mode):
    """Those of another form, and those that first come after the reset of all lanes; −∞ is not an allowed action."""
    part = Gymnasium("gym_masked_worlds:Said", vectorization, mode, kwargs={"how": how})
    made = part.build(2, CPU)
    with pytest.warns(RuntimeWarning, match=f"no action masks are used. .*{words}.*action_masks none stops") as caught:
        steps = started(made, 6)
    assert steps[-1].action_masks is None
    assert len(caught) == 1
    made.close()


def test_masks_of_a_vectorised_environment_that_are_not_used_are_a_warning(monkeypatch):
    monkeypatch.setattr(gym_vector_worlds.Masked, "_info", lambda self, over: {"action_mask": np.ones((2, 3))})
    made = Gymnasium("gym_vector_worlds:Masked-v0", "vector_entry_point").build(2, CPU)
    with pytest.warns(RuntimeWarning, match=r"no action masks are used. .*got ndarray of shape \[2, 3\]"):
        made.reset(torch.Generator())


def test_a_lane_that_says_no_mask_at_its_first_reset_says_it_later():
    made, generator = Gymnasium("gym_masked_worlds:Said", kwargs={"how": "one lane"}).build(2, CPU), torch.Generator()
    made.reset(generator)
    assert sorted(made.action_masks.tolist()) == [[True, False, True], [True, True, True]]
    for _ in range(6):
        step = made.step(torch.zeros(2, dtype=torch.int64), generator)
        assert step.action_masks.tolist() == [[True, False, True]] * 2


@pytest.mark.parametrize("policy", ["multi_categorical"])
def test_masks_that_leave_a_component_without_a_choice_are_the_environments_fault(policy):
    from framework_policies import MultiCategorical

    part = Gymnasium("gym_masked_worlds:Locks", kwargs={"stuck": 1})
    with pytest.raises(framework.PartError, match=r"action_masks: component 0 has no action that is allowed at step "):
        framework.train(
            environment=part, policy=MultiCategorical(), rollout=RolloutSettings(lanes=2, steps=6), iterations=2
        )
    assert spaces.MultiDiscrete([2, 3]) == part.build(1, CPU).action_space
