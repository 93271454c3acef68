"""Mistakes that authors of parts make: the message names the part and the fix."""

import re
import subprocess
import sys

import pytest
import torch
from attrs import frozen
from framework_classic import CartPole
from framework_losses import Ppo
from framework_policies import ActorCritic, Tabular
from framework_returns import Gae

import framework
from framework import Estimate, Loss, PartError, UsageError
from framework.cli import main
from framework.config import DEFAULTS
from framework.setup.layers import merge
from framework.setup.loading import load
from framework.setup.tree import configure

SHORT = {"iterations": 3, "optimizer": framework.OptimizerSettings("SGD", lr=1e-3)}


@frozen
class Two:
    """Takes one argument too many."""

    def __call__(self, rollout, more):
        raise NotImplementedError


@frozen
class Swapped:
    """An estimator where a loss belongs."""

    def __call__(self, rollout):
        return Estimate(rollout.rewards, rollout.rewards)


@frozen
class Rooted:
    """A finite term whose gradient at a ratio of 1 is not."""

    def __call__(self, batch, evaluation):
        ratios = (evaluation.log_probs - batch.log_probs).exp()
        return Loss({"policy": ratios * -batch.advantages, "near": 0.1 * (ratios - 1).abs().clamp(min=0).sqrt()})


@frozen
class Bare:
    """A tensor where a dict belongs."""

    def __call__(self, batch, evaluation):
        return Loss(evaluation.log_probs)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"estimator": Two()}, "estimator 'Two' .*: __call__ is called with other arguments than it takes: .*'more'"),
        ({"loss": Swapped()}, "loss 'Swapped' .*: __call__ is called with other arguments than it takes"),
        (
            {"loss": Rooted(), "policy": Tabular()},
            "loss 'Rooted' .*: the gradient of term 'near' by parameter 'logits'",
        ),
        ({"loss": Bare()}, "loss 'Bare' .*: terms: expected a dict from name to tensor, got Tensor"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_the_part_is_named(parts, words):
    with pytest.raises(PartError, match=words):
        framework.train(**SHORT, **parts)


class Silent(torch.nn.Module):
    """A policy of which only the critic learns."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def act(self, inputs, generator):
        return self.policy.act(inputs, generator)

    def values(self, inputs):
        return self.policy.values(inputs)

    def evaluate(self, inputs, actions, entropies):
        said = self.policy.evaluate(inputs, actions, entropies)
        return framework.Evaluation(said.log_probs.detach(), said.entropies, said.values)


@frozen
class OnlyItsCritic:
    gives = frozenset({"values"})

    def build(self, observation_space, action_space):
        policy = ActorCritic(hidden=(4,)).build(observation_space, action_space)
        policy.network.requires_grad_(False)
        return Silent(policy)


def test_a_policy_of_which_only_the_critic_learns_learns():
    before = OnlyItsCritic
    result = framework.train(
        **SHORT, environment=CartPole(), policy=before(), estimator=Gae(), loss=Ppo(), directory=None
    )
    assert result.metrics["loss/value"][-1] != result.metrics["loss/value"][0]


SETTINGS = {
    "needs a type, as in `gamma: float`": "    gamma = field(default=0.9)",
    "setting 'count' is of type int, and its default is 0.5": "    count: int = 0.5",
    "its own defaults are refused: 'gamma' must be <= 1: 1.5": (
        "    gamma: float = field(default=1.5, validator=validators.le(1))"
    ),
}
PLUGIN = """
from attrs import field, frozen, validators
from framework import hookimpl

@frozen
class Mine:
{settings}
    def __call__(self, rollout):
        raise NotImplementedError

@hookimpl
def estimators():
    return {{"mine": Mine}}
"""


@pytest.mark.parametrize("words", SETTINGS)
def test_settings_that_no_command_could_take_are_refused_when_they_are_loaded(words, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(settings=SETTINGS[words]))
    with pytest.raises(UsageError, match=re.escape(words)):
        load([str(file)])


def test_where_a_plugin_fails_is_said(tmp_path):
    file = tmp_path / "fails.py"
    file.write_text("def late():\n    return {}['x']\n\n\nlate()\n")
    with pytest.raises(UsageError, match=r"KeyError: 'x' \(.*fails.py:2\)"):
        load([str(file)])


def test_extensions_that_a_layer_leaves_out_take_their_settings_along():
    """Those of a recipe or a record; what the layer itself sets of one that it leaves out is still refused."""
    loaded = load()
    ppo = loaded.pick("recipe", "ppo")[2]
    for tree, expected in (
        ({"extensions": {"names": ["evaluate"]}}, ["standardize", "evaluate"]),
        ({"extensions": {"names": []}}, ["standardize"]),
        ({"extensions": {"standardize": False, "names": ["evaluate"]}}, ["evaluate"]),
        ({"reports": []}, ["standardize"]),
    ):
        config = configure(loaded, merge(DEFAULTS, ppo, tree))
        assert [part.name for part in config.extensions] == expected
    with pytest.raises(UsageError, match="extensions.standardize is set, but extension 'standardize' is not chosen"):
        configure(loaded, merge(DEFAULTS, {"extensions": {"names": [], "standardize": {"center": True}}}))


def test_a_new_part_may_not_have_the_name_of_an_old_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "estimator", "gae"]) == 2
    assert "estimator 'gae' is offered by plugin 'returns' already: choose another name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_named_like_an_installed_plugin_is_taken_however_its_path_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "returns.py").write_text(PLUGIN.format(settings="    gamma: float = 0.9"))
    for path in ("returns.py", "./returns.py", str(tmp_path / "returns.py")):
        assert "mine" in load([path], rest=True).names("estimator")


@pytest.mark.slow
def test_a_warning_of_the_framework_is_one_line(tmp_path):
    words = ["run", "--compile", "--trace-gradients", "--iterations", "2", "--reports", "--quiet"]
    said = subprocess.run([sys.executable, "-m", "framework", *words], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0
    assert (
        said.stderr == "warning: compile: the updates go on in Python: trace_gradients looks at each term by itself\n"
    )
    assert said.stdout == ""


def test_log_probs_that_are_not_finite_are_the_policys_and_not_a_wrappers():
    """Deviations that explode: the recipe's own extensions wrap the rollout, and made nothing of it."""
    from framework_parts import PPO, Pendulum

    with pytest.raises(PartError, match=r"^policy 'gaussian' .plugin policies.: .*not finite"):
        framework.train(
            recipe="ppo_continuous",
            environment=Pendulum(),
            iterations=60,
            rollout={"lanes": 2, "fixed_steps": 16},
            loss=PPO(entropy=10.0),
            optimizer={"lr": 0.5},
        )


class Exhausted:
    """Asks an iterator for more than it has, in one hook."""

    def __init__(self, where):
        self.where = where

    def ask(self, where):
        if where == self.where:
            next(iter(()))

    @framework.hookimpl
    def measure(self):
        self.ask("measure")

    @framework.hookimpl
    def iteration_finished(self):
        self.ask("iteration_finished")

    @framework.hookimpl(wrapper=True)
    def collect_rollout(self):
        self.ask("collect_rollout")
        return (yield)


@frozen
class Exhausts:
    """`Exhausted`, as a part."""

    where: str

    def build(self, run):
        return Exhausted(self.where)


@pytest.mark.parametrize("where", ["measure", "iteration_finished", "collect_rollout"])
def test_a_stop_iteration_is_named_like_any_other_error(where):
    """Python turns it into a RuntimeError where it passes through a generator, and the core calls hooks in one."""
    with pytest.raises(PartError, match=r"^extension 'Exhausts' .* raised StopIteration: .*test_blame.py:\d+ in ask"):
        framework.train(**SHORT, extensions=[Exhausts(where)])
