"""Laws of estimators: built-in estimators satisfy them."""

import pytest
import torch
from attrs import frozen
from correct_estimators import LOADED, DividesByPowers
from mutants import EXAMPLES

from framework import Estimate
from framework.parts import Part
from framework.returns import episode_groups, episode_sums, rewards_to_go
from framework.testing import check


@pytest.mark.parametrize("name", LOADED.names("estimator"))
def test_built_in_estimators_satisfy_every_law(name):
    for plugin, cls in LOADED.offers["estimator"][name].items():
        report = check(Part("estimator", name, plugin, cls()), examples=EXAMPLES, loaded=LOADED)
        assert report.failed == (), [(verdict.law.name, verdict.reason) for verdict in report.failed]


@pytest.mark.slow
def test_bugs_with_other_settings_are_found():
    """The default γ is correct, but γ = 0 is not, and this is reported."""
    report = check(Part("estimator", "mutant", "tests", DividesByPowers()), only=["estimates_are_finite"])
    assert report.failed[0].subject.settings.gamma == 0.0


@frozen
class WithinGroups:
    """Each episode's return minus the mean of its group, at each of its steps."""

    needs = frozenset({"complete_episodes", "groups"})
    looks_back = False

    def __call__(self, rollout):
        scores, _ = episode_sums(rollout.rewards, rollout.episodes, rollout.mask)
        owner = episode_groups(rollout.groups, rollout.episodes, rollout.mask)
        means = torch.bincount(owner, scores) / torch.bincount(owner)
        returns = (scores - means[owner])[rollout.episodes].masked_fill(~rollout.mask, 0).to(rollout.rewards.dtype)
        if self.looks_back:
            return Estimate(returns, returns)
        targets = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, 1.0)
        return Estimate(returns, targets)


@frozen
class LooksBack(WithinGroups):
    """And with value targets that include past rewards."""

    looks_back = True


@pytest.mark.slow
def test_an_estimator_that_needs_groups_is_given_groups():
    """And laws of single lanes do not apply to it."""
    report = check(Part("estimator", "within_groups", "mine", WithinGroups()), examples=20)
    assert [(verdict.law.name, verdict.reason) for verdict in report.failed] == []
    assert {v.law.name for v in report.verdicts if v.reason.startswith("it needs groups")} == {
        "nothing_leaks_over_a_termination",
        "nothing_leaks_over_a_truncation",
        "nothing_leaks_between_lanes",
        "the_number_of_lanes_changes_nothing",
        "a_long_rollout_is_its_pieces",
    }
    report = check(Part("estimator", "within_groups", "mine", LooksBack()), examples=20)
    assert [verdict.law.name for verdict in report.failed] == ["value_targets_do_not_look_back"]
