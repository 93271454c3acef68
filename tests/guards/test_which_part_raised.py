"""The part that raised is named, whatever its code is: a closure, a partial, a helper, another object of its plugin."""

import importlib
import sys

import pytest
from framework_parts import CartPole, LineWorld

import framework
from framework import PartError
from framework.setup.loading import load

PLUGIN = '''
import functools
import sys

import torch
from attrs import frozen
from framework_parts import *
from framework_reinforce import Categorical, NoBaseline

from framework import Estimate, Evaluation, Loss, hookimpl
{imports}

HERE = None  # where it is to raise


def trip(where):
    if where == HERE:
        raise KeyError("on purpose")


def decorated(function):
    @functools.wraps(function)
    def outer(*arguments):
        trip("decorator")
        return function(*arguments)

    return outer


class Helper:
    def __init__(self, where):
        self.where = where

    def help(self):
        trip(self.where)

    @staticmethod
    def help_statically(where):
        trip(where)


def steps(where):
    yield 1
    trip(where)


@frozen
class Estimator:
    needs = frozenset({{"complete_episodes"}})

    def build(self):
        helper, plain = Helper("estimator's helper"), REINFORCE_ESTIMATOR()

        def closure(rollout):
            trip("estimator's closure")
            helper.help()
            Helper.help_statically("estimator's static method")
            list(steps("estimator's generator"))
            (lambda: trip("estimator's lambda"))()
            {nested}
            return plain(rollout)

        return decorated(closure)


REINFORCE_ESTIMATOR = RewardsToGo


@frozen
class Baseline:
    def build(self):
        def subtracted(scale, rollout, returns):
            trip("baseline's partial")
            return scale * torch.zeros_like(returns)

        return functools.partial(subtracted, 0.0)


class Learning:
    """A baseline that asks another part of its plugin."""

    def __init__(self, other):
        self.other = other

    def __call__(self, rollout, returns):
        self.other.help()
        return torch.zeros_like(returns)

    def update(self, rollout, returns):
        self.other.where = "baseline's update"
        self.other.help()


@frozen
class Asking:
    def build(self):
        return Learning(Helper("baseline's object"))


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        trip("loss's function forward")
        return x

    @staticmethod
    def backward(ctx, gradient):
        trip("loss's function backward")
        return gradient


@frozen
class Losing:
    def build(self):
        plain = REINFORCE()

        def loss(batch, evaluation):
            trip("loss's closure")
            made = plain(batch, evaluation)
            return Loss({{name: Squared.apply(term) for name, term in made.terms.items()}})

        return loss


class Inner(torch.nn.Module):
    def forward(self, x):
        trip("policy's module")
        return x


class Policy(torch.nn.Module):
    def __init__(self, policy):
        super().__init__()
        self.policy, self.inner = policy, torch.nn.Sequential(Inner())
        self.values_of = lambda inputs: trip("policy's lambda")

    def actor(this):
        trip("policy's actor")
        return None

    def act(this, inputs, generator):
        trip("policy's act")
        this.values_of(inputs)
        return this.policy.act(inputs, generator)

    def evaluate(this, inputs, actions, entropies):
        trip("policy's evaluate")
        this.inner(torch.zeros(1))
        return this.policy.evaluate(inputs, actions, entropies)


@frozen
class Policies:
    def build(self, observation_space, action_space):
        return Policy(Categorical().build(observation_space, action_space))


@frozen
class World:
    def build(self, num_envs, device):
        world = LineWorld().build(num_envs, device)
        plain, world.mdp = world.step, None
        del world.mdp

        def step(actions, generator):
            trip("environment's closure")
            return plain(actions, generator)

        world.step = step
        return world


class Hooks:
    def __init__(self):
        self.helper = Helper("extension's helper")

    @hookimpl
    def run_started(this):
        trip("extension's run_started")

    @hookimpl
    def iteration_finished(self, metrics):
        self.helper.help()
        (lambda: trip("extension's lambda"))()

    @hookimpl
    def measure(self):
        list(steps("extension's generator"))

    @staticmethod
    @hookimpl
    def should_stop():
        trip("extension's static hook")

    @hookimpl(wrapper=True)
    def estimate_advantages(self):
        Helper.help_statically("extension's wrapper before")
        made = yield
        Helper.help_statically("extension's wrapper after")
        return made


@frozen
class Extension:
    def build(self, run):
        return Hooks()


@hookimpl
def environments():
    return {{"mine": World}}


@hookimpl
def policies():
    return {{"mine": Policies}}


@hookimpl
def estimators():
    return {{"mine": Estimator}}


@hookimpl
def baselines():
    return {{"mine": Baseline, "asking": Asking}}


@hookimpl
def losses():
    return {{"mine": Losing}}


@hookimpl
def extensions():
    return {{"mine": Extension}}
'''
WHERE = [
    "decorator", "estimator's helper", "estimator's closure", "estimator's static method", "estimator's generator",
    "estimator's lambda", "baseline's partial", "baseline's object", "baseline's update", "loss's closure",
    "loss's function forward", "policy's module", "policy's lambda", "policy's actor", "policy's act",
    "policy's evaluate", "environment's closure", "extension's helper", "extension's run_started", "extension's lambda",
    "extension's generator", "extension's static hook", "extension's wrapper before", "extension's wrapper after",
]  # fmt: skip


def parts_of(module, where):
    baseline = module.Asking() if where in ("baseline's object", "baseline's update") else module.Baseline()
    made = {"estimator": module.Estimator(), "baseline": baseline, "loss": module.Losing()}
    made |= {"policy": module.Policies(), "environment": module.World(), "extensions": [module.Extension()]}
    return made


def error_message(module, where, **arguments):
    module.HERE = where
    with pytest.raises(PartError) as caught:
        framework.train(**parts_of(module, where), **arguments, iterations=2)
    return str(caught.value)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The same code as a module that nobody loads as a plugin, and as a plugin in a file."""
    folder = tmp_path_factory.mktemp("blame")
    source = PLUGIN.format(imports="", nested="pass")
    (folder / "mine_in_python.py").write_text(source)
    (folder / "mine_in_a_file.py").write_text(source)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("mine_in_python"), str(folder / "mine_in_a_file.py")
    sys.path.remove(str(folder))
    sys.modules.pop("mine_in_python")


@pytest.mark.parametrize("where", WHERE)
def test_whatever_its_code_is_the_part_is_named(where, plugins):
    role = "estimator" if where == "decorator" else where.split("'")[0]
    module, file = plugins
    message = error_message(module, where)
    assert message.startswith(f"{role} '"), message
    assert "(plugin mine_in_python) raised KeyError: 'on purpose' (" in message
    assert "mine_in_python.py:" in message
    (loaded,) = [plugin for plugin in load([file]).plugins if plugin.name == "mine_in_a_file"]
    message = error_message(loaded.module, where, plugins=[file])
    name = "asking" if where in ("baseline's object", "baseline's update") else "mine"
    assert message.startswith(f"{role} '{name}' (plugin mine_in_a_file) raised KeyError: 'on purpose' ("), message


def test_a_backward_pass_that_raises_is_of_the_one_part_or_of_the_plugin(plugins):
    """No frame says which of the plugin's parts a function of autograd belongs to."""
    message = error_message(plugins[0], "loss's function backward")
    assert message.startswith("plugin 'mine_in_python' raised KeyError: 'on purpose' ("), message
    plugins[0].HERE = "loss's function backward"
    with pytest.raises(PartError) as caught:
        framework.train(loss=plugins[0].Losing(), iterations=1)
    assert str(caught.value).startswith("loss 'Losing' (plugin mine_in_python) raised KeyError: 'on purpose' (")


def test_a_nested_module_of_the_package_is_its_part_s(tmp_path, monkeypatch):
    package = tmp_path / "mine_as_package"
    (package / "deep").mkdir(parents=True)
    imports = "from .deep.inside import fails"
    (package / "__init__.py").write_text(PLUGIN.format(imports=imports, nested="fails(HERE)"))
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "inside.py").write_text("def fails(where):\n    if where == 'nested':\n        {}['x']\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("mine_as_package")
    message = error_message(module, "nested", plugins=["mine_as_package"])
    assert message.startswith("estimator 'mine' (plugin mine_as_package) raised KeyError: 'x' ("), message
    assert "inside.py:3 in fails" in message


class Both:
    """One object as estimator and as baseline: which of the two is called, the core knows."""

    fails = "estimator"

    def __call__(self, rollout, returns=None):
        if (returns is None) == (self.fails == "estimator"):
            raise KeyError("on purpose")
        return framework.Estimate(rollout.rewards, rollout.rewards) if returns is None else returns * 0


BOTH = Both()


def settings(name):
    from attrs import frozen

    return frozen(type(name, (), {"__doc__": "Of this test.", "build": lambda self: BOTH}))()


@pytest.mark.parametrize("role", ["estimator", "baseline"])
def test_an_object_that_plays_two_roles_is_named_by_the_one_it_plays(role):
    BOTH.fails = role
    with pytest.raises(PartError, match=f"^{role} '{role.title()}' .* raised KeyError"):
        framework.train(estimator=settings("Estimator"), baseline=settings("Baseline"), iterations=1)


def test_code_of_another_plugin_that_a_part_calls_is_the_part_s(monkeypatch):
    """A policy of plugin `policies` uses the network of plugin `reinforce`."""
    from framework_networks import layers

    def broken(*arguments):
        raise KeyError("on purpose")

    monkeypatch.setattr(layers, "_values", broken)
    with pytest.raises(PartError, match=r"^policy 'actor_critic' \(plugin policies\) raised KeyError"):
        framework.train(recipe="ppo", environment=CartPole(), iterations=1)
    assert LineWorld is not None
