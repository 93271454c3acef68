"""Whatever an environment hands out may be its own buffer, and what it is handed it may keep: both are copied."""

import pytest
import torch
from framework_gymnasium import Gymnasium
from gym_careless_worlds import CONTAINERS

import framework
from framework import Action

CPU = torch.device("cpu")
WAYS = [*((container, "sync") for container in CONTAINERS), ("list", "async"), ("arrays", "async")]
MODES = ("next_step", "same_step", "disabled")


def stories(lanes, steps):
    """What `steps` steps of two lanes gave, with actions out of one buffer that is written anew each time."""
    buffer, generator = torch.zeros(2, 1), torch.Generator().manual_seed(0)
    seen = [lanes.reset(generator).flatten(1).tolist()]
    reached, kept, clocks = [], [], []
    for t in range(steps):
        buffer[:] = float(t + 1)
        step = lanes.step(buffer, generator)
        real = step.valid is None or bool(step.valid.all())
        reached.append(step.successors.flatten(1).tolist() if real else None)
        kept.append(not real or bool((step.rewards == 1).all()))
        clocks.append(step.metrics["clock.0"].tolist())
        seen.append(step.observations.flatten(1).tolist())
    lanes.close()
    return seen, reached, kept, clocks


@pytest.mark.parametrize(("container", "vectorization"), WAYS)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_handed_out_and_in_is_copied(container, mode, vectorization):
    """Two episodes of three steps, both cut by time: the last state is [3, episode], and no kept action changes."""
    kwargs = {"container": container}
    part = Gymnasium("gym_careless_worlds:Reused", vectorization, mode, kwargs, metrics=("clock.0",))
    gap = [[0.0, 2.0]] if mode == "next_step" else []
    seen, reached, kept, clocks = stories(part.build(2, CPU), 6 + len(gap))
    first = [[float(t), 1.0] for t in range(4)]
    second = [[float(t), 2.0] for t in range(4)]
    expected = [*first[1:], *([None] if gap else []), *second[1:]]
    for lane in range(2):
        assert [None if row is None else row[lane] for row in reached] == expected
    ends = first if mode == "next_step" else [*first[:3], second[0]]
    assert [row[0] for row in seen[:4]] == ends
    assert all(kept)
    assert clocks[2] == [3.0, 3.0]


def test_a_wrapper_that_stacks_frames_is_handed_copies():
    """FrameStackObservation keeps what it is handed: with one buffer for all, every frame would be the last."""
    part = Gymnasium(
        "gym_careless_worlds:Reused", kwargs={"container": "array"}, wrappers=("FrameStackObservation(stack_size=2)",)
    )
    lanes = part.build(1, CPU)
    generator = torch.Generator()
    lanes.reset(generator)
    lanes.step(torch.zeros(1, 1), generator)
    stacked = lanes.step(torch.zeros(1, 1), generator).observations
    assert stacked[0].tolist() == [[1.0, 1.0], [2.0, 1.0]]
    lanes.close()


class Buffered(torch.nn.Module):
    """A policy that writes every action into the same tensor, as fast actors do."""

    def __init__(self):
        super().__init__()
        self.actions, self.clock = torch.zeros(2, 1), 0

    def act(self, inputs, generator):
        self.clock += 1
        self.actions[:] = float(self.clock)
        return Action(self.actions, torch.zeros(2))

    def evaluate(self, inputs, actions, entropies):
        raise NotImplementedError


@pytest.mark.parametrize("mode", ["same_step", "disabled"])
def test_an_evaluation_hands_out_copies_too(mode):
    """Each step's reward is 1 while no action that the environment kept has changed."""
    part = Gymnasium("gym_careless_worlds:Reused", "sync", mode, {"container": "deque", "limit": 5})
    assert framework.evaluate(Buffered(), part, episodes=4, lanes=2).returns.tolist() == [5.0] * 4


def test_a_vectorised_environment_may_reuse_its_buffers():
    """Its observations and rewards are one array for ever, and it keeps the actions it is handed."""
    part = Gymnasium("gym_vector_worlds:Counting-v0", "vector_entry_point")
    lanes, generator = part.build(2, CPU), torch.Generator()
    lanes.reset(generator)
    actions = torch.zeros(2, dtype=torch.int64)
    rewards = []
    for t in range(4):
        actions[:] = t % 2
        step = lanes.step(actions, generator)
        rewards.append(step.rewards[0].item())
        if t < 2:
            assert step.successors.tolist() == [[t + 1.0], [t + 1.0]]
    assert step.successors.tolist() == [[1.0], [1.0]]  # of the second episode
    assert rewards == [1.0] * 4
    lanes.close()
