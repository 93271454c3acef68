"""A run's state: whoever loads it into a run built anew goes on as if nothing had happened, to the last bit."""

import math

import numpy as np
import pytest
import torch
from attrs import frozen
from framework_classic import CartPole, Pendulum
from framework_corridor import Corridor
from framework_gymnasium import Gymnasium
from framework_line_world import LineWorld
from framework_policies import Recurrent

from framework import PartError, RolloutSettings, UsageError, hookimpl
from framework.config import DEFAULTS
from framework.contracts import Stateful
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.resolving import recipe_of, resolve_arguments
from framework.stages import Core
from framework.state import copied, stateful
from framework.training import execute

LOADED = load()
TIMES = ("seconds", "steps_per_second")
FIXED = RolloutSettings(lanes=4, fixed_steps=12)  # shorter than most episodes: these go on in the next rollout
WHOLE = RolloutSettings(lanes=4, episodes=6)
MANY = RolloutSettings(lanes=80, fixed_steps=7)
MEMORY = Recurrent(hidden=(4,))

CASES = {
    "reinforce": ("reinforce", {}),
    "a2c, many lanes": ("a2c", {"rollout": MANY}),
    "reinforce, cartpole": ("reinforce", {"environment": CartPole(), "rollout": WHOLE}),
    "a2c": ("a2c", {}),
    "a2c, cartpole": ("a2c", {"environment": CartPole(max_steps=30)}),
    "ppo": ("ppo", {"environment": CartPole(max_steps=30), "rollout": FIXED}),
    "ppo, in arrays": (
        "ppo",
        {"environment": CartPole(max_steps=30), "rollout": RolloutSettings(lanes=32, fixed_steps=7)},
    ),
    "ppo, whole episodes": ("ppo", {"environment": CartPole(max_steps=30), "rollout": WHOLE}),
    "ppo, shards": ("ppo", {"environment": CartPole(), "rollout": RolloutSettings(lanes=4, fixed_steps=12, shards=2)}),
    "ppo_continuous": (
        "ppo_continuous",
        {
            "environment": Pendulum(max_steps=20),
            "rollout": RolloutSettings(lanes=2, fixed_steps=32),
            "update": {"epochs": 2},
        },
    ),
    "rloo": ("rloo", {}),
    "grpo": ("grpo", {}),
    "grpo, fixed steps": (
        "ppo",
        {"environment": LineWorld(group_size=2), "rollout": RolloutSettings(lanes=4, fixed_steps=3)},
    ),
    "recurrent": ("ppo", {"environment": Corridor(length=3), "policy": MEMORY, "rollout": FIXED}),
    "recurrent, whole": (
        "ppo",
        {"environment": Corridor(length=3), "policy": MEMORY, "rollout": WHOLE},
    ),
    "moving_average": ("reinforce", {"baseline": "moving_average"}),
    "linear_features": ("reinforce", {"baseline": "linear_features"}),
    "evaluate": ("reinforce", {"extensions": ["evaluate", "early_stop"], "extensions__evaluate__every": 2}),
}
LENGTH = 5  # iterations
QUICK = ("reinforce", "a2c", "ppo", "recurrent")
EACH = [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES]


@frozen
class Keep:
    """Keep the state after each iteration, from a hook."""

    def build(self, run):
        return Keeper()


class Keeper:
    @hookimpl
    def run_started(self, run):
        self.states = {run.iteration: run.state_dict()}

    @hookimpl
    def iteration_finished(self, run):
        self.states[run.iteration + 1] = run.state_dict()


def built(recipe, settings, iterations=LENGTH, reports=()):
    arguments = {key: value for key, value in settings.items() if "__" not in key}
    flags = {key: value for key, value in settings.items() if "__" in key}
    arguments = {"iterations": iterations, **arguments}
    extensions = arguments.pop("extensions", [])
    arguments["extensions"] = [*extensions, Keep()]
    below = (DEFAULTS, recipe_of(LOADED, recipe), {"reports": list(reports)})
    config, _ = resolve_arguments(LOADED, below, arguments, flags)
    return build(config, LOADED, Core())


def seen(value):
    """Something that is equal for the same bits only; NaN is equal to itself."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        return str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, dict):
        return {key: seen(one) for key, one in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [seen(one) for one in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def outcome(run):
    """Train to the end: the result as far as it does not depend on the clock, and the state then."""
    result = execute(run)
    said = {name: getattr(result, name) for name in ("metrics", "recent_returns", "recent_lengths", "stop_reasons")}
    return seen(said | {"state": run.state_dict()})


def uninterrupted(case):
    run = built(*CASES[case])
    whole = outcome(run)
    (keeper,) = (one for one in run.extensions.values() if isinstance(one, Keeper))
    return whole, keeper.states


@pytest.mark.parametrize("case", EACH)
def test_a_run_goes_on_from_its_state_to_the_same_bits(case):
    whole, states = uninterrupted(case)
    assert set(states) == set(range(LENGTH + 1))
    for done in range(LENGTH + 1):
        run = built(*CASES[case])
        run.load_state_dict(states[done])
        assert outcome(run) == whole, done


PLACES = {
    "iteration": ("ppo", "iteration"),
    "steps": ("ppo", "steps"),
    "episodes": ("ppo", "episodes"),
    "history": ("ppo", "history"),
    "recent returns": ("ppo", "recent_returns"),
    "recent lengths": ("ppo", "recent_lengths"),
    "first gradients": ("ppo", "traced"),
    "policy": ("ppo", "policy"),
    "optimizer": ("ppo", "optimizer"),
    "environment": ("ppo", "shards", 0, "environment"),
    "inputs": ("ppo", "shards", 0, "inputs"),
    "episode_step": ("ppo", "shards", 0, "episode_step"),
    "episode_return": ("ppo", "shards", 0, "episode_return"),
    "states of tables": ("a2c", "shards", 0, "states"),
    "baseline": ("moving_average", "parts", "baseline"),
    "extension": ("ppo_continuous", "parts", "extensions.scale_rewards"),
    "memory": ("recurrent", "shards", 0, "inputs", "state"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_every_entry_of_the_state_is_needed(name):
    case, *path = PLACES[name]
    whole, states = uninterrupted(case)
    state, fresh = copied(states[3]), built(*CASES[case]).state_dict()
    inner, other = state, fresh
    for key in path[:-1]:
        inner, other = inner[key], None if other is None else other[key]
    inner[path[-1]] = None if other is None else other[path[-1]]
    assert seen(state) != seen(states[3])
    run = built(*CASES[case])
    try:
        run.load_state_dict(state)
        found = outcome(run)
    except (PartError, UsageError, RuntimeError, AttributeError):
        return
    assert found != whole


@pytest.mark.parametrize("case", ["ppo", "a2c", "moving_average", "recurrent"])
def test_a_state_does_not_change_when_its_run_goes_on_or_one_that_took_it(case):
    _, states = uninterrupted(case)
    before = seen(states[2])
    run = built(*CASES[case])
    run.load_state_dict(states[2])
    execute(run)
    assert seen(states[2]) == before


def test_gymnasium_s_lanes_begin_new_episodes():
    """Its environments cannot say where they stand: whole episodes go on to the same bits, fixed steps begin anew."""
    settings = {"environment": Gymnasium(id="CartPole-v1"), "rollout": WHOLE}
    run = built("ppo", settings)
    whole = outcome(run)
    (keeper,) = (one for one in run.extensions.values() if isinstance(one, Keeper))
    assert keeper.states[2]["shards"][0]["environment"] is None
    run = built("ppo", settings)
    run.load_state_dict(keeper.states[2])
    assert outcome(run) == whole
    run = built("ppo", settings | {"rollout": FIXED})
    execute(run)
    (keeper,) = (one for one in run.extensions.values() if isinstance(one, Keeper))
    assert keeper.states[2]["shards"][0]["inputs"] is None
    run = built("ppo", settings | {"rollout": FIXED})
    run.load_state_dict(keeper.states[2])
    assert execute(run).run.iteration == LENGTH


class Shy:
    """A baseline with a state that cannot be had."""

    def __call__(self, rollout, returns):
        return returns * 0

    def state_dict(self):
        raise KeyError("lost")

    def load_state_dict(self, state):
        raise KeyError("found")


def test_a_state_of_another_run_is_refused():
    state = built(*CASES["ppo"]).state_dict()
    with pytest.raises(UsageError, match=r"does not fit this run: lanes: \[4\] in the state, \[32\] here"):
        built(*CASES["ppo, in arrays"]).load_state_dict(state)
    with pytest.raises(UsageError, match=r"parts with state: none in the state, \['baseline'\] here"):
        built(*CASES["moving_average"]).load_state_dict(state)
    with pytest.raises(UsageError, match="does not fit this run"):
        built(*CASES["recurrent"]).load_state_dict(state)


def test_a_part_that_cannot_say_its_state_is_named():
    run = built(*CASES["moving_average"])
    state = run.state_dict()
    label = run.label_of(run.baseline)
    run.labels[id(shy := Shy())] = label
    run.baseline = shy
    with pytest.raises(PartError, match="^baseline 'moving_average'.*: state_dict raised KeyError"):
        run.state_dict()
    with pytest.raises(PartError, match="^baseline 'moving_average'.*: load_state_dict raised KeyError"):
        run.load_state_dict(state)


def attributes(part):
    """Of an object with a `__dict__`, slots, or both."""
    slots = (name for cls in type(part).__mro__ for name in getattr(cls, "__slots__", ()))
    names = {*getattr(part, "__dict__", {}), *(name for name in slots if not name.startswith("__"))}
    return {name: copied(getattr(part, name)) for name in names if hasattr(part, name)}


def changing(run):
    """Train; the names of parts with attributes that changed meanwhile."""
    parts = {"estimator": run.estimator, "baseline": run.baseline, "loss": run.loss}
    parts |= {f"extensions.{name}": one for name, one in run.extensions.items() if not isinstance(one, Keeper)}
    before = {name: seen(attributes(part)) for name, part in parts.items()}
    execute(run)
    return {name for name, part in parts.items() if seen(attributes(part)) != before[name]}


@pytest.mark.parametrize("case", EACH)
def test_a_part_whose_attributes_change_has_a_state(case):
    """Of the built-in ones, each that changes while a run goes on says so."""
    run = built(*CASES[case], iterations=2)
    expected = {
        "moving_average": {"baseline"},
        "linear_features": {"baseline"},
        "ppo_continuous": {"extensions.scale_rewards"},
        "evaluate": {"extensions.evaluate"},
    }
    assert changing(run) == expected.get(case, set())
    assert expected.get(case, set()) <= stateful(run).keys()
    assert isinstance(run.environment, Stateful)


@pytest.mark.parametrize("case", EACH)
def test_a_run_that_loaded_a_state_says_that_state(case):
    """No entry is left out, nor one that shows only later, such as the time so far."""
    _, states = uninterrupted(case)
    run = built(*CASES[case])
    run.load_state_dict(states[3])
    loaded = run.state_dict()
    assert seen(loaded) == seen(states[3])
    assert loaded["seconds"] == states[3]["seconds"] > 0


def test_the_time_of_a_run_that_goes_on_counts_from_where_it_was():
    _, states = uninterrupted("a2c")
    state = copied(states[3])
    state["seconds"] = 1000.0
    run = built(*CASES["a2c"])
    run.load_state_dict(state)
    metrics = execute(run).metrics
    assert (metrics["seconds"][3:] > 1000).all()
    assert (metrics["steps_per_second"][3:] > 0).all()
