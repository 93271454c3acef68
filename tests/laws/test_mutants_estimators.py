"""Bugs that were found in estimators elsewhere break the law that they should."""

import pytest
import torch
from attrs import evolve, field, frozen, validators
from correct_estimators import (
    LOADED,
    MISTAKABLE,
    MUTANTS,
    UNIT,
    LambdaReturns,
    MonteCarloAndTD,
    NStepReturns,
    RewardsToGo,
    Step,
    mutant,
    shifted,
)
from legal import is_a_legal_rollout
from mutants import EXAMPLES, broken

from framework.parts import Part
from framework.testing import Broken, check
from framework.testing.estimators.cases import estimate
from framework.testing.law import Subject
from framework.testing.strategies import Episode, assemble


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Step, LambdaReturns, NStepReturns, RewardsToGo])
def test_the_parts_that_mutants_are_made_from_are_correct(cls):
    report = check(Part("estimator", "walked", "tests", cls()), examples=EXAMPLES, loaded=LOADED)
    assert report.failed == (), [(verdict.law.name, verdict.reason) for verdict in report.failed]


@pytest.mark.slow
@pytest.mark.parametrize("cls", MISTAKABLE)
def test_correct_estimators_pass_and_inapplicable_laws_give_reasons(cls):
    report = check(Part("estimator", "right", "tests", cls()), examples=EXAMPLES, loaded=LOADED)
    assert report.failed == (), [(verdict.law.name, verdict.reason) for verdict in report.failed]
    reasons = {verdict.law.name: verdict.reason for verdict in report.verdicts}
    assert {law: reasons[law] for law in MISTAKABLE[cls]} == MISTAKABLE[cls]


@pytest.mark.slow
@pytest.mark.parametrize("needs", [set(), {"complete_episodes"}, {"values"}, {"complete_episodes", "values"}])
def test_every_rollout_passed_to_estimators_is_valid(needs):
    """Under all laws, including claims of unbiasedness."""
    words = needs

    @frozen
    class Asking(RewardsToGo):
        needs = frozenset(words)
        claims = frozenset({"causal", "linear", "unbiased:undiscounted"})
        gamma: float = field(default=1.0, validator=UNIT)
        lam: float = field(default=1.0, validator=UNIT)
        n: int = field(default=20, validator=validators.ge(1))

        def __call__(self, rollout):
            is_a_legal_rollout(rollout)
            return super().__call__(rollout)

    report = check(Part("estimator", "asking", "tests", Asking()), examples=EXAMPLES, loaded=LOADED)
    illegal = [verdict for verdict in report.failed if not isinstance(verdict.error, Broken)]
    assert illegal == [], [(verdict.law.name, verdict.reason) for verdict in illegal]


@mutant("a_truncation_bootstraps", "DLR-RM/stable-baselines3#633; skrl#449, time_limit_bootstrap=True")
class TimeLimitIsDeath(LambdaReturns):
    """treats truncation as termination"""

    def bootstrap_values(self, rollout):
        return rollout.successor_values * ~rollout.truncated


@mutant("nothing_leaks_over_a_truncation", "Toni-SM/skrl#449, time_limit_bootstrap=False")
class OnlyDeathIsAnEnd(LambdaReturns):
    """continues the trace over a truncation"""

    def continuing(self, rollout):
        continuing = rollout.mask & ~rollout.terminated
        return torch.cat([continuing[:-1], continuing[-1:] & False])


@mutant("nothing_leaks_over_a_termination", "DLR-RM/stable-baselines3#105; anthonytorlucci/rlevo#342")
class FlagsOfTheNextRow(LambdaReturns):
    """reads the end of the episode one row late"""

    def continuing(self, rollout):
        ends = rollout.terminated | rollout.truncated
        continuing = rollout.mask & ~shifted(ends)
        return torch.cat([continuing[:-1], continuing[-1:] & False])


@mutant("nothing_leaks_over_a_termination", "vietnh1009/Super-mario-bros-PPO-pytorch#21")
class TraceNeverCut(LambdaReturns):
    """masks the value where an episode ends, and not the trace"""

    def continuing(self, rollout):
        return torch.cat([rollout.mask[:-1], rollout.mask[-1:] & False])


@mutant("nothing_leaks_over_a_truncation", "google-deepmind/mujoco_playground#305")
class ValueOfTheReset(LambdaReturns):
    """bootstraps a truncation from the first state of the next episode"""

    def bootstrap_values(self, rollout):
        return torch.where(rollout.truncated & ~rollout.terminated, shifted(rollout.values), rollout.successor_values)


@mutant("a_truncation_bootstraps", "leggedrobotics/rsl_rl#43; DexForce/EmbodiChain#612")
class ValueOfTheStateBefore(LambdaReturns):
    """bootstraps a truncation from the state in which the last action was taken"""

    def bootstrap_values(self, rollout):
        return torch.where(rollout.truncated & ~rollout.terminated, rollout.values, rollout.successor_values)


@mutant("termination_wins_over_truncation", "DLR-RM/stable-baselines3#1276")
class BothIsTruncated(LambdaReturns):
    """bootstraps where a step is both terminated and truncated"""

    def bootstrap_values(self, rollout):
        return rollout.successor_values + rollout.values * (rollout.truncated & rollout.terminated)


@mutant("the_edge_bootstraps", "rohitg00/ai-engineering-from-scratch#54 (review)")
class EdgeIsDeath(LambdaReturns):
    """treats the rollout's edge as termination"""

    def bootstrap_values(self, rollout):
        return torch.cat([rollout.successor_values[:-1], torch.zeros_like(rollout.rewards[:1])])


@mutant("the_edge_bootstraps", "PufferAI/PufferLib#363, fixed in #445")
class LastAdvantageIsZero(LambdaReturns):
    """leaves the last row's advantage at zero"""

    def returns(self, rollout):
        returns = super().returns(rollout)
        return torch.cat([returns[:-1], rollout.values[-1:]])


@mutant("lambda_one_is_monte_carlo", "vwxyzjn/cleanrl#337")
class ZeroPlusValue(LambdaReturns):
    """adds the values to a buffer of advantages that is still empty"""

    def returns(self, rollout):
        return torch.zeros_like(rollout.rewards) + rollout.values


@mutant("lambda_one_is_monte_carlo", "4kasha/CartPole_PPO#1")
class OwnAdvantageTwice(LambdaReturns):
    """uses a row's own advantage, which is still 0, instead of the next row's"""

    def returns(self, rollout):
        return self.rewards(rollout) + self.gamma * self.bootstrap_values(rollout)


@mutant("n_beyond_the_end_is_monte_carlo", "younggyoseo/FastTD3#6")
class GammaOnceForN(NStepReturns):
    """discounts the value after n steps by γ, not by γⁿ"""

    def power(self, steps):
        return self.gamma


@mutant("n_of_one_is_one_step", "thu-ml/tianshou#135")
class LastRewardLost(NStepReturns):
    """multiplies the reward of the last step by 1 − done, too"""

    def rewards(self, rollout):
        return rollout.rewards * ~rollout.terminated


@mutant("nothing_leaks_over_a_truncation", "tensorflow/agents#939")
class SpillsOver(NStepReturns):
    """lets n steps spill into the next episode after a time limit"""

    def continuing(self, rollout):
        continuing = rollout.mask & ~rollout.terminated
        return torch.cat([continuing[:-1], continuing[-1:] & False])


@mutant("a_reward_is_discounted_once_a_step", "hunkim/ReinforcementZeroToAll#1")
class DiscountedByPosition(RewardsToGo):
    """discounts each reward by its place in the episode, and does not sum those that follow"""

    def returns(self, rollout):
        return rollout.rewards * self.gamma**rollout.times


@mutant("a_reward_is_discounted_once_a_step", "huggingface/trl#6626, first part")
class PowersOfAbsoluteTime(RewardsToGo):
    """scales each return by a further γᵗ"""

    def returns(self, rollout):
        return super().returns(rollout) * self.gamma**rollout.times


@mutant("gamma_zero_is_the_immediate_reward", "openai/spinningup#50")
class RewardBefore(RewardsToGo):
    """keeps with each step the reward of the step before"""

    def rewards(self, rollout):
        before = torch.cat([torch.zeros_like(rollout.rewards[:1]), rollout.rewards[:-1]])
        return torch.where(rollout.mask & (rollout.times > 0), before, 0)


@mutant("estimates_are_finite", "pytorch/examples#76; jolibrain/wheatley#93")
class Whitened(RewardsToGo):
    """standardises by a standard deviation that is 0 for equal returns, and undefined for a single one"""

    def returns(self, rollout):
        returns = super().returns(rollout)
        real = returns[rollout.mask]
        return torch.where(rollout.mask, (returns - real.mean()) / real.std(), 0)


@mutant("estimates_scale_with_rewards", "keon/policy-gradient#5")
class Scaled(RewardsToGo):
    """divides by the standard deviation of the batch"""

    def returns(self, rollout):
        returns = super().returns(rollout)
        return returns / (returns[rollout.mask].std(correction=0) + 1e-7)


@mutant("nothing_leaks_between_lanes", "PacktPublishing/Deep-Reinforcement-Learning-Hands-On#9")
class MeanOfTheBatch(RewardsToGo):
    """gives every lane the mean of the batch"""

    def returns(self, rollout):
        returns = super().returns(rollout)
        return returns.mean(1, keepdim=True).expand_as(returns)


@mutant("padding_is_inert", "huggingface/trl#7024, second part")
class MeanOverLength(RewardsToGo):
    """divides by the number of rows, padding included"""

    def returns(self, rollout):
        return super().returns(rollout) / len(rollout.rewards)


@mutant("estimators_do_not_modify_the_rollout", "DLR-RM/stable-baselines3#1355")
class RewardsChanged(LambdaReturns):
    """adds its bootstrap values to its caller's rewards"""

    def rewards(self, rollout):
        rollout.rewards.add_(0.5 * rollout.successor_values * rollout.truncated)
        return rollout.rewards


@mutant("estimates_have_the_rewards_dtype", "nikhilbarhate99/PPO-PyTorch#33")
class Double(LambdaReturns):
    """returns float64, as numpy sums"""

    def returns(self, rollout):
        return super().returns(rollout).double()


@mutant("estimates_have_the_rollouts_shape", "RLinf/RLinf#1568")
class Broadcast(LambdaReturns):
    """adds rewards [T, N] to values [T, N, 1], which gives [T, N, N]"""

    def returns(self, rollout):
        return rollout.rewards[:, None] + self.gamma * rollout.successor_values[..., None]


@mutant("value_targets_do_not_look_back", "luchris429/model-free-opponent-shaping#1")
class NormalisedTargets(RewardsToGo):
    """trains the critic on returns that are normalised over the rollout"""

    def targets(self, rollout, returns):
        return returns - returns[rollout.mask].mean()


@mutant("estimates_carry_no_gradient", "no source found")
class LearntDiscount(RewardsToGo):
    """multiplies by a parameter, and keeps the graph"""

    def targets(self, rollout, returns):
        return returns * torch.nn.Parameter(torch.ones((), dtype=returns.dtype))


@mutant("returns_do_not_look_back", "no source found (the wrong way round: cumulative sums)")
class SumsUpToNow(RewardsToGo):
    """sums past rewards instead of future ones"""

    def returns(self, rollout):
        return rollout.rewards.cumsum(0)


@mutant("the_number_of_lanes_changes_nothing", "no source found")
class DividedByLanes(LambdaReturns):
    """divides by the number of lanes"""

    def returns(self, rollout):
        return super().returns(rollout) / rollout.rewards.shape[1]


@mutant("lanes_permute", "no source found")
class LaneByNumber(LambdaReturns):
    """depends on a lane's place"""

    def rewards(self, rollout):
        return rollout.rewards * torch.arange(1, rollout.rewards.shape[1] + 1)


@mutant("a_truncation_ends_what_it_sums", "no source found")
class CountsTruncations(RewardsToGo):
    """penalises truncation"""

    def rewards(self, rollout):
        return rollout.rewards - 1.0 * (rollout.truncated & ~rollout.terminated)


@mutant("a_long_rollout_is_its_pieces", "no source found")
class AnnealsByRow(RewardsToGo):
    """lets returns of later rows count less"""

    def returns(self, rollout):
        rows = torch.arange(len(rollout.rewards))[:, None]
        return super().returns(rollout) * 0.9 ** (rows - rollout.times)


@mutant("a_truncation_ends_what_it_sums", "no source found (docs/reference/contracts.md: every end is the end)")
class PunishesWithACritic(MonteCarloAndTD):
    """penalises truncation, although it has whole episodes and a critic"""

    def rewards(self, rollout):
        return rollout.rewards - 1.0 * (rollout.truncated & ~rollout.terminated)


@mutant("lambda_zero_is_one_step", "no source found")
class LambdaTurnedRound(LambdaReturns):
    """swaps λ and 1 − λ"""

    def returns(self, rollout):
        return LambdaReturns(self.gamma, 1 - self.lam).returns(rollout)


@mutant("estimates_of_a_sum_are_the_sum_of_estimates", "no source found")
class Sizes(LambdaReturns):
    """uses the absolute value of each reward, which scales correctly with positive factors"""

    def rewards(self, rollout):
        return rollout.rewards.abs()


@mutant("float32_is_near_float64", "OpenRLHF/OpenRLHF#1334")
class Brain16(LambdaReturns):
    """computes in bfloat16 unless it is given float64"""

    def rewards(self, rollout):
        rewards = rollout.rewards
        return rewards if rewards.dtype == torch.float64 else (rewards / 3).bfloat16().to(rewards.dtype) * 3


@mutant("estimators_keep_no_state", "no source found")
class Remembers(RewardsToGo):
    """keeps a running mean of rewards, which is never reset"""

    seen: dict = field(factory=dict, init=False)

    def rewards(self, rollout):
        self.seen["mean"] = self.seen.get("mean", 0.0) + float(rollout.rewards.mean())
        return rollout.rewards - self.seen["mean"] * rollout.mask


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_estimator_that(name):
    cls, law, _ = MUTANTS[name]
    broken(law, Part("estimator", "mutant", "tests", cls()), LOADED)


@pytest.mark.parametrize(
    "cls",
    [
        TimeLimitIsDeath,
        RewardBefore,
        *(pytest.param(cls, marks=pytest.mark.slow) for cls in (OnlyDeathIsAnEnd, TraceNeverCut, GammaOnceForN)),
    ],
)
def test_counterexamples_shrink_to_a_few_steps(cls):
    """One to four rows are enough to show each of these."""
    law = next(law for made, law, _ in MUTANTS.values() if made.__name__ == cls.__name__)
    report = check(Part("estimator", "mutant", "tests", cls()), only=[law], examples=100, loaded=LOADED)
    case = report.failed[0].case[0]
    rollout = case[0] if isinstance(case, tuple) else case
    assert len(rollout.mask) <= 4
    assert int(rollout.mask.sum()) <= 6


def test_an_estimate_is_of_a_copy():
    """A part that writes to its rollout does not change the counterexample."""
    rollout = assemble([[Episode((1.0,), False, True)]], dtype=torch.float64)
    rollout = evolve(rollout, values=rollout.rewards, successor_values=rollout.rewards + 1)
    before = rollout.rewards.clone()
    estimate(Subject(Part("estimator", "mutant", "tests", RewardsChanged()), LOADED), rollout)
    assert torch.equal(rollout.rewards, before)
