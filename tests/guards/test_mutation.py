"""Who writes into what it was handed is named in the first iteration: others read the same tensors."""

import pytest
import torch
from attrs import evolve, frozen
from framework_parts import GAE, PPO, ActorCritic, CartPole, RewardsToGo
from framework_reinforce import NoBaseline

import framework
from framework import PartError
from framework.guards.mutation import MOST, refuse_writes

WAYS = {
    "in place": lambda column: column.mul_(0.5),
    "by data": lambda column: column.data.mul_(0.5),
    "by numpy": lambda column: column.detach().numpy().__imul__(0.5),
}


def part(name, method, change, plain=None, **members):
    """A part of that class name whose `method` changes the first thing that it is handed, then does as `plain`."""

    def changing(self, given, *others):
        change(given)
        return None if plain is None else plain(given, *others)

    return frozen(type(name, (), {"__doc__": "Of this test.", method: changing, **members}))()


def wrapper(stage, change):
    def wraps(self, **given):
        raise NotImplementedError

    source = {
        "collect_rollout": "def wraps(self):\n    made = yield\n    change(made)\n    return made",
        "estimate_advantages": "def wraps(self, rollout):\n    change(rollout)\n    return (yield)",
        "estimate_advantages's own": "def wraps(self):\n    made = yield\n    change(made)\n    return made",
        "prepare_batch": "def wraps(self, batch):\n    change(batch)\n    return (yield)",
        "compute_loss": "def wraps(self, batch):\n    made = yield\n    change(batch)\n    return made",
    }[stage]
    space = {"change": change}
    exec(source, space)
    hook = framework.hookimpl(wrapper=True)(space["wraps"])
    members = {stage.partition("'")[0]: hook, "build": lambda self, run: self, "__doc__": "Of this test."}
    return frozen(type("Writes", (), members))()


class Wrapped(torch.nn.Module):
    """A policy whose `method` changes observations."""

    def __init__(self, policy, method, change):
        super().__init__()
        self.policy, self.method, self.change = policy, method, change

    def act(self, inputs, generator):
        if self.method == "act":
            self.change(inputs.observations)
        return self.policy.act(inputs, generator)

    def values(self, inputs):
        if self.method == "values":
            self.change(inputs.observations)
        return self.policy.values(inputs)

    def evaluate(self, inputs, actions, entropies):
        if self.method == "evaluate" and torch.is_grad_enabled():
            self.change(inputs.observations)
        return self.policy.evaluate(inputs, actions, entropies)

    def observe(self, rollout):
        if self.method == "observe":
            self.change(rollout.observations)


def policy(method, change):
    def build(self, *spaces):
        return Wrapped(ActorCritic(hidden=(4,)).build(*spaces), method, change)

    members = {"build": build, "gives": frozenset({"values"}), "__doc__": "Of this test."}
    return frozen(type("Writes", (), members))()


def rewards(change):
    return lambda given: change(given.rewards)


PLACES = {
    "estimator": (
        lambda change: {"estimator": part("Writes", "__call__", rewards(change), RewardsToGo())},
        r"estimator 'Writes' .*: changed rollout\.rewards in place",
    ),
    "baseline": (
        lambda change: {"baseline": part("Writes", "__call__", rewards(change), NoBaseline())},
        r"baseline 'Writes' .*: changed rollout\.rewards in place",
    ),
    "loss": (
        lambda change: {"loss": part("Writes", "__call__", lambda batch: change(batch.advantages), framework_loss())},
        r"loss 'Writes' .*: changed batch\.advantages in place",
    ),
    "extension after collecting": (
        lambda change: {"extensions": [wrapper("collect_rollout", rewards(change))]},
        r"extension 'Writes' .*: collect_rollout: changed rollout\.rewards in place",
    ),
    "extension before estimating": (
        lambda change: {"extensions": [wrapper("estimate_advantages", rewards(change))]},
        r"extension 'Writes' .*: estimate_advantages: changed rollout\.rewards in place",
    ),
    "extension after estimating": (
        lambda change: {"extensions": [wrapper("estimate_advantages's own", lambda made: change(made.advantages))]},
        r"extension 'Writes' .*: estimate_advantages: changed advantages\.advantages in place",
    ),
    "extension preparing": (
        lambda change: {"extensions": [wrapper("prepare_batch", lambda batch: change(batch.advantages))]},
        r"extension 'Writes' .*: prepare_batch: changed batch\.advantages in place",
    ),
    "extension around the loss": (
        lambda change: {"extensions": [wrapper("compute_loss", lambda batch: change(batch.returns))]},
        r"extension 'Writes' .*: compute_loss: changed batch\.returns in place",
    ),
    "policy's values": (
        lambda change: {**CRITIC, "policy": policy("values", change)},
        r"policy 'Writes' .*: evaluate or values: changed rollout\.observations in place",
    ),
    "policy's act": (
        lambda change: {**CRITIC, "policy": policy("act", change)},
        r"policy 'Writes' .*: act: changed inputs\.observations in place",
    ),
    "policy's evaluate": (
        lambda change: {**CRITIC, "policy": policy("evaluate", change)},
        r"policy 'Writes' .*: evaluate: changed batch\.observations in place",
    ),
    "policy's observe": (
        lambda change: {**CRITIC, "policy": policy("observe", change)},
        r"policy 'Writes' .*: observe: changed rollout\.observations in place",
    ),
}
CRITIC = {"environment": CartPole(), "estimator": GAE(), "loss": PPO()}


def framework_loss():
    from framework_parts import REINFORCE

    return REINFORCE()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_who_writes_into_what_it_was_handed_is_named(place, way):
    given, message = PLACES[place]
    with pytest.raises(PartError, match=message) as caught:
        framework.train(**given(WAYS[way]), iterations=2)
    assert "work on a copy, such as " in str(caught.value)


def test_a_wrapper_that_returns_a_changed_copy_is_in_its_right():
    class Scales:
        @framework.hookimpl(wrapper=True)
        def collect_rollout(self):
            rollout = yield
            return evolve(rollout, rewards=rollout.rewards * 0.5)

    settings = frozen(type("Scaling", (), {"build": lambda self, run: Scales(), "__doc__": "Of this test."}))()
    assert framework.train(extensions=[settings], iterations=2).run.iteration == 2


def test_large_columns_are_looked_at_too():
    """Not every byte of them, but rows all over."""
    column = torch.zeros(MOST, dtype=torch.float64)

    @frozen
    class Record:
        column: torch.Tensor

    record = Record(column)
    with refuse_writes(True, "nobody", record):
        pass
    message = "a part: changed record.column in place"
    with pytest.raises(PartError, match=message), refuse_writes(True, "a part", record):
        column[MOST // 2 : MOST // 2 + 100] += 1
