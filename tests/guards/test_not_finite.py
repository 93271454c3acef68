"""Numbers that are not finite: what made them is named, be it an extension, a gradient or a step that was too large."""

import pytest
import torch
from attrs import evolve, frozen
from framework_parts import CartPole
from framework_reinforce import Reinforce

import framework
from framework import Loss, PartError

NAN = float("nan")
STAGES = {
    "collect_rollout": "def hook(self, run):\n    made = yield\n    return change(run, made)",
    "estimate_advantages": "def hook(self, run):\n    made = yield\n    return change(run, made)",
    "prepare_batch": "def hook(self, run):\n    made = yield\n    return change(run, made)",
    "compute_loss": "def hook(self, run):\n    made = yield\n    return change(run, made)",
    "apply_gradients": "def hook(self, run):\n    made = yield\n    change(run, made)\n    return made",
    "iteration_finished": "def hook(self, run):\n    change(run, None)",
    "run_started": "def hook(self, run):\n    change(run, None)",
}


def extension(stage, change, since=1):
    """One that makes a change from that iteration on."""
    space = {"change": lambda run, made: change(run, made) if run.iteration >= since else made}
    exec(STAGES[stage], space)
    wrapper = "yield" in STAGES[stage]
    hook = framework.hookimpl(wrapper=True)(space["hook"]) if wrapper else framework.hookimpl(space["hook"])
    members = {"__doc__": "Of this test.", "build": lambda self, run: self, stage: hook}
    return frozen(type("Breaks", (), members))()


def column(name):
    return lambda run, made: evolve(made, **{name: getattr(made, name) * NAN})


def terms(run, made):
    return evolve(made, terms={name: term * NAN for name, term in made.terms.items()})


def parameters(run, made):
    next(run.policy.parameters()).data[0] = NAN


def hooks(run, made):
    next(run.policy.parameters()).register_hook(lambda gradient: gradient * NAN)


PPO = {"recipe": "ppo", "environment": CartPole(), "rollout": {"lanes": 4, "fixed_steps": 32}}
EXTENSIONS = {
    "rewards": ("collect_rollout", column("rewards"), "collect_rollout: rewards: not finite"),
    "observations": ("collect_rollout", column("observations"), "collect_rollout: observations: not finite"),
    "log-probs": ("collect_rollout", column("log_probs"), "collect_rollout: log_probs: not finite"),
    "advantages": ("estimate_advantages", column("advantages"), "estimate_advantages: advantages: not finite"),
    "advantages of a batch": ("prepare_batch", column("advantages"), "prepare_batch: advantages: not finite"),
    "value targets": ("prepare_batch", column("value_targets"), "prepare_batch: value_targets: not finite"),
    "observations of a batch": ("prepare_batch", column("observations"), "prepare_batch: observations: not finite"),
    "log-probs of a batch": ("prepare_batch", column("log_probs"), "prepare_batch: log_probs: not finite"),
    "terms": ("compute_loss", terms, "compute_loss: term '[a-z]+': not finite"),
    "parameters after a step": (
        "apply_gradients",
        parameters,
        "apply_gradients: parameter '[a-z.0-9]+' of policy 'actor_critic' .* is not finite, and was after the step",
    ),
    "parameters": (
        "iteration_finished",
        parameters,
        "parameter '[a-z.0-9]+' of policy 'actor_critic' .* is not finite, and was before",
    ),
}


@pytest.mark.parametrize("what", EXTENSIONS)
def test_an_extension_that_makes_it_is_named(what):
    stage, change, message = EXTENSIONS[what]
    with pytest.raises(PartError, match=rf"^extension 'Breaks' \(plugin test_not_finite\): {message}"):
        framework.train(**PPO, extensions=[extension(stage, change)], iterations=3)


@pytest.mark.parametrize("most", [None, 0.5])
def test_a_hook_of_a_parameter_that_makes_it_is_named(most):
    breaks = extension("iteration_finished", hooks)
    message = (
        r"^extension 'Breaks' .*: the gradient by parameter '.*' of policy .* is not finite, and was before a hook"
    )
    with pytest.raises(PartError, match=message):
        framework.train(**PPO, extensions=[breaks], update={"max_grad_norm": most}, iterations=3)


@frozen
class Rooted:
    """A term whose gradient is not finite once it is 0: from the second iteration on."""

    power: float = 0.5

    def build(self):
        return Counting(self.power)


class Counting:
    def __init__(self, power):
        self.power, self.calls = power, 0

    def __call__(self, batch, evaluation):
        self.calls += 1
        made = Reinforce()(batch, evaluation)
        away = evaluation.log_probs.detach() if self.calls > 1 else 0
        near = (evaluation.log_probs - away).abs() ** self.power
        return Loss({**made.terms, "near": near})


@pytest.mark.parametrize("most", [None, 0.5])
@pytest.mark.parametrize("optimizer", ["Adam", "Adafactor"])
def test_a_gradient_that_makes_it_is_named_before_the_step(most, optimizer, tmp_path):
    """The policy is as it was: its last good parameters are those of the end."""
    settings = {"update": {"max_grad_norm": most}, "optimizer": {"name": optimizer}}
    with pytest.raises(
        PartError, match=r"^loss 'Rooted' .*: the gradient .* by parameter '.*' of policy 'categorical'"
    ):
        framework.train(loss=Rooted(), **settings, iterations=5, directory=tmp_path / "run")
    policy = framework.load(tmp_path / "run", last=True)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in policy.parameters())


@pytest.mark.parametrize("recipe", [None, "ppo"])
@pytest.mark.parametrize(("name", "rate"), [("SGD", 1e30), ("Adam", 1e30), ("RMSprop", 1e30)])
def test_a_learning_rate_that_makes_it_is_named(recipe, name, rate):
    arguments = PPO if recipe else {}
    message = rf"^optimizer '{name}': parameter '.*' of policy '.* is .*after .*: .* the learning rate is {rate:g}"
    with pytest.raises(PartError, match=message.replace("+", r"\+")):
        framework.train(**arguments, optimizer={"name": name, "lr": rate, "schedule": "constant"}, iterations=4)


def test_an_option_of_the_optimizer_that_makes_it_is_named():
    """Adam without eps divides 0 by 0 where a parameter has no gradient yet."""
    message = (
        r"^optimizer 'Adam': parameter '.*' of policy '.* is not finite after update \d+ of iteration 0: .*options"
    )
    with pytest.raises(PartError, match=message):
        framework.train(loss=Nothing(), optimizer={"name": "Adam", "options": {"eps": 0.0}}, iterations=2)


@frozen
class Nothing:
    """A gradient of 0."""

    def __call__(self, batch, evaluation):
        return Loss({"policy": 0.0 * evaluation.log_probs})


@frozen
class Wrong:
    """A loss that is not finite by itself."""

    def __call__(self, batch, evaluation):
        return Loss({"policy": evaluation.log_probs / 0.0})


def test_a_loss_that_is_wrong_by_itself_is_still_its_own():
    neutral = extension("compute_loss", lambda run, made: made)
    with pytest.raises(PartError, match="^loss 'Wrong' .*: term 'policy': not finite"):
        framework.train(loss=Wrong(), extensions=[neutral], iterations=2)
