"""Laws of policies: every built-in policy satisfies them."""

import copy
import json
import math
import re

import pytest
from correct_policies import Normal, PolicySettings, Softmax
from framework_policies import ActorCritic, Gaussian, MultiCategorical, Recurrent, Tabular
from framework_reinforce import Categorical
from mutants import EXAMPLES
from policy_cases import LOADED
from torch import nn

from framework import UsageError
from framework.cli.check import main as cli_check
from framework.parts import Part
from framework.testing import conforms
from framework.testing.checking import check, laws

BUILT_IN = [
    Categorical(),
    Categorical(normalize=True, hidden=(8, 8), activation="tanh"),
    Categorical(orthogonal=True),
    ActorCritic(),
    ActorCritic(shared=True),
    ActorCritic(shared=True, normalize=True, activation="silu"),
    MultiCategorical(),
    MultiCategorical(normalize=True),
    Gaussian(),
    Gaussian(squash=True),
    Gaussian(deviation="state"),
    Gaussian(deviation="state", squash=True, initial_deviation=0.5, normalize=True),
    Recurrent(),
    Recurrent(normalize=True, memory=5),
    Tabular(),
]


ONE_OF_EACH = {type(policy): policy for policy in BUILT_IN}.values()  # the last


@pytest.mark.parametrize(
    "policy",
    [pytest.param(policy, marks=[] if policy in ONE_OF_EACH else [pytest.mark.slow]) for policy in BUILT_IN],
    ids=repr,
)
def test_every_built_in_policy_satisfies_the_laws(policy):
    report = check(policy, "policy", examples=min(EXAMPLES, 10), loaded=LOADED)
    assert [(verdict.law.name, verdict.reason, verdict.case) for verdict in report.failed] == []
    assert len(report.verdicts) == len(laws("policy"))


def test_every_offered_policy_is_among_these():
    offered = {cls for owners in LOADED.offers["policy"].values() for cls in owners.values()}
    assert {type(policy) for policy in BUILT_IN} == offered


class Nothing:
    def build(self, observations, actions):
        raise UsageError("pictures of 84 × 84 only")


def test_a_policy_that_supports_none_of_the_spaces_gets_this_reason():
    """No law passes or fails: each reports why it does not apply, with the policy's error message."""
    report = check(Part("policy", "nothing", "tests", Nothing()), loaded=LOADED)
    assert len(report.of("not applicable")) == len(report.verdicts)
    for verdict in report.verdicts:
        assert verdict.reason.startswith("it supports none of the spaces that laws try")
        assert verdict.reason.endswith("pictures of 84 × 84 only")
    assert report.unchecked == report.verdicts[0].reason
    assert check(Tabular(), "policy", only=["greedy_takes_the_most_probable_action"], examples=1).unchecked is None


PICTURES = """
import torch
from attrs import frozen
from framework import Action, Evaluation, UsageError, hookimpl
from gymnasium.spaces import Box, Discrete
from torch import nn

SPACE = Box(0.0, 1.0, (1, 9, 9))

@frozen
class Look:
    def build(self, observations, actions):
        if observations != SPACE:
            raise UsageError("pictures of 9 × 9 only")
        return Looking(int(actions.n))

class Looking(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layer = nn.Linear(81, count)

    def act(self, inputs, generator):
        if inputs.action_masks is not None:
            raise UsageError("no masks")
        with torch.no_grad():
            chances = self.layer(inputs.observations.flatten(1)).softmax(-1)
        return Action(torch.multinomial(chances, 1, generator=generator).squeeze(1))

    def evaluate(self, inputs, actions, entropies):
        table = self.layer(inputs.observations.flatten(1)).log_softmax(-1)
        chosen = table.gather(1, actions.unsqueeze(1)).squeeze(1)
        return Evaluation(chosen, -(table.exp() * table).sum(-1) if entropies else None)

@hookimpl
def policies():
    return {"look": Look}
"""
SHOWN = """
@frozen
class Pictures:
    def build(self, num_envs, device):
        return self

    observation_space, action_space = SPACE, Discrete(2)

@hookimpl
def environments():
    return {"pictures": Pictures}
"""


def test_spaces_of_the_same_plugins_environments_are_tried(tmp_path, monkeypatch, capsys):
    """Without them, nothing can be checked, so exit code 2; with them, laws are checked in that space."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alone.py").write_text(PICTURES)
    (tmp_path / "together.py").write_text(PICTURES + SHOWN)
    with pytest.raises(UsageError, match="nothing could be checked of policy 'look' .*: pictures of 9 × 9 only"):
        cli_check(["alone.py", "--quick"])
    assert not json.loads(capsys.readouterr().out)[0]["passed"]
    test_of_laws = conforms("alone.py", role="policy", examples=1)
    (mark,) = test_of_laws.pytestmark
    asked, *skipped = mark.args[1]
    assert all(case.marks for case in skipped)
    with pytest.raises(pytest.fail.Exception, match="nothing could be checked: it supports none"):
        test_of_laws(*asked.values)
    assert cli_check(["together.py", "--role", "policy", "--examples", "3"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["passed"]


def test_laws_of_missing_features_are_not_applicable():
    class Silent(Normal):
        """Returns no log-probs from `act`, and has actions of three numbers."""

        def __init__(self, observations, actions):
            super().__init__(observations, actions)
            if math.prod(actions.shape) < 2:
                raise UsageError("two numbers")

    report = check(PolicySettings(Silent), "policy", examples=1, loaded=LOADED)
    assert not report.failed
    reasons = {verdict.law.name: verdict.reason for verdict in report.of("not applicable")}
    assert reasons["act_and_evaluate_agree"] == "its act leaves log-probs to evaluate"
    assert reasons["masked_actions_are_never_taken"] == "it supports no Discrete actions"


class Untold(nn.Module):
    """Maps its samples to another finite space, so that its actions cannot be enumerated."""

    def __init__(self, observations, actions):
        super().__init__()
        self.inner = Softmax(observations, actions)

    def act(self, inputs, generator):
        return self.inner.act(inputs, generator)

    def evaluate(self, inputs, actions, entropies):
        return self.inner.evaluate(inputs, actions, entropies)

    def environment_actions(self, actions):
        return actions


def test_laws_of_probabilities_do_not_apply_without_enumerable_actions():
    report = check(PolicySettings(Untold), "policy", examples=1, loaded=LOADED)
    silent = {verdict.law.name for verdict in report.of("not applicable")}
    assert silent >= {
        "probabilities_sum_to_one",
        "entropies_are_those_of_the_probabilities",
        "the_score_has_mean_zero",
        "act_samples_the_evaluated_probabilities",
    }


def without_masks(inputs):
    return type(inputs)(inputs.observations)


class Refusing(nn.Module):
    """A softmax that does not support masks, and refuses them."""

    def __init__(self, observations, actions):
        super().__init__()
        self.inner = Softmax(observations, actions)

    def act(self, inputs, generator):
        if inputs.action_masks is not None:
            self.refuse()
        return self.inner.act(without_masks(inputs), generator)

    def refuse(self):
        raise UsageError("policy 'refusing' takes no action masks")

    def evaluate(self, inputs, actions, entropies):
        return self.inner.evaluate(without_masks(inputs), actions, entropies)


class Ignoring(Refusing):
    def refuse(self):
        pass


class Crashing(Refusing):
    def refuse(self):
        raise RuntimeError("shapes cannot be multiplied")


class ActorIgnoring(Refusing):
    """It refuses masks in `act`, which is not called if there is an actor."""

    def actor(self):
        blind = copy.deepcopy(self)
        blind.__class__ = Ignoring
        return blind


MASKS = "masked_actions_are_never_taken"


def test_masks_may_be_refused():
    (verdict,) = check(PolicySettings(Refusing), "policy", only=[MASKS], loaded=LOADED).verdicts
    assert (verdict.outcome, verdict.reason) == ("not applicable", "it refuses masks")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "reported"),
    [
        (Ignoring, "act takes action .* UsageError"),
        (ActorIgnoring, "actor takes action .* UsageError"),
        (Crashing, "RuntimeError: shapes cannot be multiplied"),
    ],
)
def test_masks_must_be_refused_explicitly(cls, reported):
    """For a policy that ignores them, the report says how to refuse them; a crash is not a refusal."""
    (verdict,) = check(PolicySettings(cls), "policy", only=[MASKS], examples=30, loaded=LOADED).verdicts
    assert verdict.outcome == "failed"
    assert re.search(reported, verdict.reason)
