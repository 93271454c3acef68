"""Laws of baselines: built-in baselines satisfy them, and each historical bug breaks the law that it should.

A mutant is a small baseline that is correct except for one bug.
"""

import pytest
import torch
from attrs import define, frozen
from legal import is_a_legal_rollout
from mutants import EXAMPLES, broken, entering

from framework.parts import Part
from framework.returns import episode_groups, episode_means
from framework.setup.loading import load
from framework.testing import check
from framework.testing.baselines.neutral import share_of_return
from framework.testing.law import Subject

LOADED = load()
NEUTRAL, LINEAR = frozenset({"neutral", "linear"}), frozenset({"linear"})


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADED.names("baseline"))
def test_built_in_baselines_keep_every_law(name):
    for plugin, cls in LOADED.offers["baseline"][name].items():
        report = check(Part("baseline", name, plugin, cls()), examples=EXAMPLES, loaded=LOADED)
        assert report.failed == (), [(verdict.law.name, verdict.reason) for verdict in report.failed]


# Correct baselines


def scores(rollout, returns):
    return episode_means(returns, rollout.episodes, rollout.mask)


@frozen
class OfOthers:
    """The mean return of the other episodes."""

    claims = NEUTRAL

    def __call__(self, rollout, returns):
        values = scores(rollout, returns)
        return ((values.sum() - values) / (len(values) - 1))[rollout.episodes]


@frozen
class OfTheGroup:
    """The mean return of the group."""

    needs = frozenset({"complete_episodes", "groups"})
    claims = LINEAR

    def __call__(self, rollout, returns):
        groups = episode_groups(rollout.groups, rollout.episodes, rollout.mask)
        means = torch.bincount(groups, scores(rollout, returns)) / torch.bincount(groups).clamp(min=1)
        return means[groups][rollout.episodes]


@define(eq=False)
class Mean:
    """The mean of all returns in earlier rollouts."""

    total: float = 0.0
    count: int = 0

    def __call__(self, rollout, returns):
        return torch.full_like(returns, self.total / max(self.count, 1))

    def update(self, rollout, returns):
        values = scores(rollout, returns)
        self.total, self.count = self.total + float(values.sum()), self.count + len(values)

    def state_dict(self):
        return {"state": torch.tensor([self.total, self.count], dtype=torch.float64)}

    def load_state_dict(self, state):
        self.total, self.count = float(state["state"][0]), int(state["state"][1])


@frozen
class OfThePast:
    """Settings of the same."""

    claims = NEUTRAL

    def build(self):
        return Mean()


@define(eq=False)
class Regression:
    """A ridge regression on o, o², t and 1, of observations that are vectors."""

    coefficients: torch.Tensor | None = None

    def features(self, rollout):
        seen, times = rollout.observations.double(), rollout.times.double()[..., None]
        return torch.cat([seen, seen**2, times, torch.ones_like(times)], -1)

    def __call__(self, rollout, returns):
        features = self.features(rollout)
        return torch.zeros_like(returns) if self.coefficients is None else features @ self.coefficients

    def update(self, rollout, returns):
        features, targets = self.features(rollout)[rollout.mask], returns[rollout.mask].double()
        square = features.T @ features + 1e-3 * torch.eye(features.shape[1], dtype=torch.float64)
        self.coefficients = torch.linalg.solve(square, features.T @ targets)

    def state_dict(self):
        return {} if self.coefficients is None else {"coefficients": self.coefficients.clone()}

    def load_state_dict(self, state):
        self.coefficients = state["coefficients"].clone() if state else None


@frozen
class OfVectors:
    """Settings of the same."""

    claims = NEUTRAL

    def build(self):
        return Regression()


@pytest.mark.slow
@pytest.mark.parametrize("cls", [OfOthers, OfTheGroup, OfThePast, OfVectors])
def test_the_parts_that_mutants_are_made_from_are_correct(cls):
    report = check(Part("baseline", "right", "tests", cls()), examples=EXAMPLES, loaded=LOADED)
    assert report.failed == (), [(verdict.law.name, verdict.reason) for verdict in report.failed]


@pytest.mark.slow
@pytest.mark.parametrize("words", [set(), {"complete_episodes", "groups"}, {"values"}])
def test_every_rollout_passed_to_baselines_is_valid(words):
    """Under all laws, including the claim to be neutral; for calls and for `update`."""

    class Careful(Mean):
        def __call__(self, rollout, returns):
            is_a_legal_rollout(rollout)
            return super().__call__(rollout, returns)

        def update(self, rollout, returns):
            is_a_legal_rollout(rollout)
            super().update(rollout, returns)

    @frozen
    class Asking:
        needs = frozenset(words)
        claims = NEUTRAL

        def build(self):
            return Careful()

    report = check(Part("baseline", "asking", "tests", Asking()), examples=EXAMPLES, loaded=LOADED)
    assert report.failed == (), [(verdict.law.name, verdict.reason) for verdict in report.failed]


MUTANTS = {}  # name → class, law, source
mutant = entering(MUTANTS)


NEUTRALITY = "baselines_do_not_depend_on_the_action"


@mutant(NEUTRALITY, "areal-project/AReaL#354; Kool, van Hoof & Welling 2019")
class OfAll(OfOthers):
    """claims to be neutral, but is the mean of all episodes including its own"""

    def __call__(self, rollout, returns):
        return scores(rollout, returns).mean().expand_as(returns)


@mutant(NEUTRALITY, "rlworkgroup/garage#1172; Tucker et al. 2018, arXiv:1802.10031")
class FitsFirst(OfOthers):
    """fits a line to the returns from which it is subtracted"""

    def __call__(self, rollout, returns):
        times = rollout.times[rollout.mask].double()
        features = torch.stack([times, torch.ones_like(times)], 1)
        rate, offset = torch.linalg.lstsq(features, returns[rollout.mask].double()[:, None], driver="gelsd").solution
        return rate * rollout.times + offset


@mutant(NEUTRALITY, "Tucker et al. 2018, arXiv:1802.10031")
class OfTheAction(OfOthers):
    """depends on the action of its step"""

    def __call__(self, rollout, returns):
        return rollout.actions.to(returns.dtype)


@mutant(NEUTRALITY, "no source found (the state that the action led to, taken for the one in which it was chosen)")
class NextValue(OfOthers):
    """uses the value of the next state"""

    needs = frozenset({"values"})

    def __call__(self, rollout, returns):
        return rollout.successor_values


LOOKS = "baselines_see_the_future_only_through_mean_returns"


@mutant(LOOKS, "no source found (advantages are all 0)")
class ItsOwnReturn:
    """subtracts each return from itself, without a claim"""

    def __call__(self, rollout, returns):
        return returns.clone()


@mutant(LOOKS, "no source found")
class MostOfItsOwnReturn:
    """subtracts 90 % of each return from itself, which is not a mean"""

    def __call__(self, rollout, returns):
        return 0.9 * returns


@mutant(LOOKS, "Tucker et al. 2018, arXiv:1802.10031")
class OfTheActionUnclaimed:
    """depends on the action of its step, without a claim"""

    def __call__(self, rollout, returns):
        return rollout.actions.to(returns.dtype)


@mutant(LOOKS, "no source found")
class OfTheNextObservation:
    """depends on the next observation, without a claim"""

    def __call__(self, rollout, returns):
        return torch.cat([rollout.observations[1:], rollout.observations[:1]]).to(returns.dtype)


@mutant(LOOKS, "no source found")
class OfTheEnd:
    """depends on whether the action terminated the episode, without a claim"""

    def __call__(self, rollout, returns):
        return rollout.terminated.to(returns.dtype)


@mutant("nothing_leaks_between_groups", "THUDM/slime#2062")
class GlobalMean(OfTheGroup):
    """falls back to the mean of all where groups have different sizes"""

    def __call__(self, rollout, returns):
        groups = episode_groups(rollout.groups, rollout.episodes, rollout.mask)
        if len(set(torch.bincount(groups).tolist()) - {0}) > 1:
            return scores(rollout, returns).mean().expand_as(returns)
        return super().__call__(rollout, returns)


@mutant("baselines_permute_with_lanes", "ServiceNow/PipelineRL#54")
class OnlyTheFirst(OfOthers):
    """takes only the first rollout of the batch for its mean"""

    def __call__(self, rollout, returns):
        return returns[:, 0].sum().div(rollout.mask[:, 0].sum()).expand_as(returns)


@mutant("padding_is_not_averaged", "NovaSky-AI/SkyRL#1305; huggingface/trl#7024")
class OverPadding(OfOthers):
    """includes padding in the mean"""

    def __call__(self, rollout, returns):
        return returns.mean().expand_as(returns)


@mutant("baselines_carry_no_gradient", "ChenRocks/fast_abs_rl#49")
class WithGraph(OfOthers):
    """keeps the graph to its parameter, which the policy's loss then trains"""

    def __call__(self, rollout, returns):
        return torch.nn.Parameter(torch.zeros((), dtype=returns.dtype)).expand_as(returns)


@mutant("state_survives_saving_and_loading", "hill-a/stable-baselines#228")
class NotSaved(OfThePast):
    """does not save its running mean"""

    def build(self):
        class Forgetful(Mean):
            def state_dict(self):
                return {}

            def load_state_dict(self, state):
                pass

        return Forgetful()


@mutant("calling_does_not_change_the_baseline", "DLR-RM/rl-baselines3-zoo#275; Farama-Foundation/Gymnasium#256")
class LearnsWhenAsked(OfThePast):
    """updates its running mean whenever it is called"""

    def build(self):
        class Eager(Mean):
            def __call__(self, rollout, returns):
                values = super().__call__(rollout, returns)
                self.update(rollout, returns)
                return values

        return Eager()


SHARED = Mean()


@mutant("baselines_of_two_runs_share_no_state", "keiohta/tf2rl#69 (a mutable default)")
class OneForAll(OfThePast):
    """returns the same object to every run"""

    def build(self):
        return SHARED


@mutant("baselines_have_the_returns_shape", "RLinf/RLinf#1568; ai4co/rl4co#99")
class KeepsADimension(OfOthers):
    """returns [T, 1], which is broadcast against [T, N]"""

    def __call__(self, rollout, returns):
        return returns.mean(1, keepdim=True) if returns.shape[1] > 1 else returns[:, :, None]


@mutant("baselines_are_finite", "Unity-Technologies/ml-agents#117 (mean of an empty slice)")
class EmptyMean(OfOthers):
    """divides by the number of others at the same time, which may be none"""

    def __call__(self, rollout, returns):
        count = rollout.mask.sum(1, keepdim=True) - rollout.mask.long()
        return ((returns * rollout.mask).sum(1, keepdim=True) - returns) / count


@mutant("baselines_in_float32_are_near_float64", "OpenRLHF/OpenRLHF#1334")
class InBfloat16(OfOthers):
    """computes in bfloat16, in which 1 and 1.004 are the same, unless it is given float64"""

    def __call__(self, rollout, returns):
        values = super().__call__(rollout, returns)
        return values if returns.dtype == torch.float64 else values.bfloat16().to(returns.dtype)


@mutant("baselines_do_not_modify_their_inputs", "pytorch/rl#322 (review)")
class CentredInPlace(OfOthers):
    """centres its caller's returns in place"""

    def __call__(self, rollout, returns):
        returns -= 1.0
        return super().__call__(rollout, returns)


@mutant("baselines_scale_with_returns", "no source found")
class Clipped(OfOthers):
    """clips its values to 1"""

    def __call__(self, rollout, returns):
        return super().__call__(rollout, returns).clamp(-1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_baseline_that(name):
    cls, law, _ = MUTANTS[name]
    broken(law, Part("baseline", "mutant", "tests", cls()), LOADED)


# The share of an episode's own return in its baseline


def of(name):
    plugin, _, cls = LOADED.pick("baseline", name)
    return Subject(Part("baseline", name, plugin, cls()), LOADED)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch_mean", "group_mean", "time_mean"])
def test_means_that_include_the_own_episode_are_biased_by_one_nth(name):
    """With four episodes, a quarter of an episode's own return is subtracted; this is measured, but no failure."""
    assert share_of_return(of(name)) == pytest.approx(0.25)
    verdict, looks = check(of(name).part, only=[NEUTRALITY, LOOKS], loaded=LOADED).verdicts
    assert looks.outcome == "passed"
    assert verdict.outcome == "not applicable"
    assert "0.25 of an episode's own return" in verdict.reason
    assert verdict.reason.endswith("by 1/n")


@pytest.mark.parametrize("name", ["none", "constant", "leave_one_out", "linear_features", "moving_average", "value"])
def test_neutral_baselines_have_no_share_of_the_own_return(name):
    """And the law applies, and passes."""
    assert share_of_return(of(name)) == 0.0
    (verdict,) = check(of(name).part, only=[NEUTRALITY], examples=EXAMPLES, loaded=LOADED).verdicts
    assert verdict.outcome == "passed"


@pytest.mark.slow
def test_a_false_claim_is_reported_with_its_share():
    (verdict,) = check(Part("baseline", "mutant", "tests", OfAll()), only=[NEUTRALITY], loaded=LOADED).verdicts
    assert "0.25 of an episode's own return is subtracted from it" in verdict.reason
