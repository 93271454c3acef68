"""Scaled rewards: the running deviation of the discounted return, against an oracle that walks every lane."""

import math
import statistics

import framework_scale_rewards as scale_rewards
import pytest
import torch
from attrs import evolve, field, frozen
from framework_line_world import LineWorld
from framework_scale_rewards import ScaleRewards
from hypothesis import assume, given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from safetensors.torch import load_file

import framework
from framework import Rollout, RolloutSettings, hookimpl
from framework.testing import strategies

GAMMAS = st.sampled_from([0.0, 0.5, 0.99, 1.0])
CLIPS = st.sampled_from([0.5, 10.0])


@st.composite
def sequences(draw, min_count=1, max_count=3, whole=None):
    """What one run collects: rollouts of the same lanes, of fixed steps (carried over, with reset rows) or whole."""
    lanes = draw(st.integers(1, 3))
    whole = draw(st.booleans()) if whole is None else whole
    reported = strategies.rollouts(min_lanes=lanes, max_lanes=lanes, whole=whole, values=True)
    return draw(st.lists(reported, min_size=min_count, max_size=max_count))


def scaled(extension, rollouts):
    """What the learner gets of each."""
    made = []
    for rollout in rollouts:
        generator = extension.collect_rollout()
        next(generator)
        with pytest.raises(StopIteration) as returned:
            generator.send(rollout)
        made.append(returned.value.value.rewards)
    return made


def walked(rollouts, gamma, clip, epsilon=1e-8):
    """The same, step by step in Python: R of each lane, the variance of all R so far in two passes, the quotient."""
    standing, seen, expected = [0.0] * rollouts[0].mask.shape[1], [], []
    for rollout in rollouts:
        steps, lanes = rollout.mask.shape
        for t in range(steps):
            for n in range(lanes):
                if not rollout.mask[t, n]:
                    continue
                standing[n] = gamma * standing[n] + float(rollout.rewards[t, n])
                seen.append(standing[n])
                if rollout.terminated[t, n] or rollout.truncated[t, n]:
                    standing[n] = 0.0
        divisor = math.sqrt(statistics.pvariance(seen) + epsilon)
        expected.append(
            [
                [max(-clip, min(clip, float(rollout.rewards[t, n]) / divisor)) for n in range(lanes)]
                for t in range(steps)
            ]
        )
    return expected


# The laws: each takes the module under test first, so that a mutant can be put in its place.


def law_oracle(module, rollouts, gamma, clip):
    """In float64, to 1e-9: where the deviation is 0, √ε = 1e-4 divides, and 1e-16 of R's variance is 1e-8 of ε."""
    made = scaled(module.ScaleRewards(gamma=gamma, clip=clip).build(None), rollouts)
    for rewards, expected in zip(made, walked(rollouts, gamma, clip), strict=True):
        for row, wanted in zip(rewards.tolist(), expected, strict=True):
            assert row == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def law_padding_is_inert(module, rollouts, garbage):
    """What stands in padding and reset rows, before a change of the same row or after it, moves no real step."""
    garbled = [
        evolve(rollout, rewards=torch.where(rollout.mask, rollout.rewards, float(garbage))) for rollout in rollouts
    ]
    one, two = (scaled(module.ScaleRewards().build(None), reported) for reported in (rollouts, garbled))
    for rollout, plain, changed in zip(rollouts, one, two, strict=True):
        assert torch.equal(plain[rollout.mask], changed[rollout.mask])


def law_the_unit_of_rewards_does_not_matter(module, rollouts, factor):
    """c·r and r come out alike for any c > 0, as far as ε lets them: here it is nothing."""
    settings = {"epsilon": 1e-200}
    plain = module.ScaleRewards(**settings).build(None)
    larger = module.ScaleRewards(**settings).build(None)
    one = scaled(plain, rollouts)
    two = scaled(larger, [evolve(rollout, rewards=factor * rollout.rewards) for rollout in rollouts])
    assume(plain.variance > 1e-3)
    assert torch.allclose(one[-1], two[-1], rtol=1e-9, atol=0)


def law_state_goes_on(module, rollouts, cut):
    """A new extension that is given the state of an old one goes on as the old one would have, to the bit."""
    cut = min(cut, len(rollouts) - 1)
    whole = module.ScaleRewards().build(None)
    expected = scaled(whole, rollouts)
    first, second = module.ScaleRewards().build(None), module.ScaleRewards().build(None)
    scaled(first, rollouts[:cut])
    state = first.state_dict()
    scaled(first, rollouts[cut:])  # what was handed out does not move with it
    second.load_state_dict(state)
    for rewards, wanted in zip(scaled(second, rollouts[cut:]), expected[cut:], strict=True):
        assert torch.equal(rewards, wanted)


def law_nothing_is_mutated(module, rollouts):
    """What was handed in stays, also where R is carried into it."""
    copies = [rollout.rewards.clone() for rollout in rollouts]
    scaled(module.ScaleRewards().build(None), rollouts)
    assert all(torch.equal(copy, rollout.rewards) for copy, rollout in zip(copies, rollouts, strict=True))


LAWS = {
    law_oracle: (sequences(), GAMMAS, CLIPS),
    law_padding_is_inert: (sequences(), st.sampled_from([-1000.0, 3.0])),
    law_the_unit_of_rewards_does_not_matter: (sequences(), st.sampled_from([1e-3, 0.3, 7.0, 1e6])),
    law_state_goes_on: (sequences(2), st.integers(1, 2)),
    law_nothing_is_mutated: (sequences(2),),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(scale_rewards, *drawn))()


FORWARD = "discounted_sums(rewards.flip(0), discounts.flip(0)).flip(0)"
MASKED, RAW = "torch.where(rollout.mask, rollout.rewards.double(), 0.0)", "rollout.rewards.double()"
DEVIATION = "torch.sqrt(self.variance + self.settings.epsilon)"
MUTANTS = {
    "does not discount": (law_oracle, ("discounts = gamma * torch", "discounts = torch")),
    "goes on after a truncation": (law_oracle, ("~(rollout.terminated | rollout.truncated)", "~rollout.terminated")),
    "goes on after the world's end": (law_oracle, ("~(rollout.terminated | rollout.truncated)", "~rollout.truncated")),
    "carries nothing over": (law_oracle, ("rewards[0] += gamma", "rewards[0] += 0 * gamma")),
    "carries without discount": (law_oracle, ("rewards[0] += gamma * ", "rewards[0] += ")),
    "carries past an end": (law_oracle, ("returns[-1] * continues[-1]", "returns[-1]")),
    "restarts a step early": (
        law_oracle,
        ("torch.cat([torch.zeros_like(continues[:1]), continues[:-1]])", "continues"),
    ),
    "runs backward in time": (law_oracle, (FORWARD, "discounted_sums(rewards, discounts)")),
    "scales by what was known before": (law_oracle, ("torch.sqrt(self.variance +", "torch.sqrt(variance +")),
    "centres": (law_oracle, ("rollout.rewards.double() / torch", "(rollout.rewards.double() - self.mean) / torch")),
    "does not clip": (law_oracle, (".clamp(-self.settings.clip, self.settings.clip)", "")),
    "takes padding along": (law_oracle, ("returns[rollout.mask]", "returns.flatten()")),
    "carries what padding holds": (law_padding_is_inert, (MASKED, RAW + ".clone()")),
    "divides by the variance": (
        law_the_unit_of_rewards_does_not_matter,
        (DEVIATION, DEVIATION.removeprefix("torch.sqrt")),
    ),
    "forgets where lanes stand": (law_state_goes_on, ("self.carried.clone(),", "0 * self.carried,")),
    "writes into what it was handed": (law_nothing_is_mutated, (MASKED, RAW)),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(mutate("framework_scale_rewards", change),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1.5}, "'gamma' must be <= 1.0: 1.5"),
        ({"clip": 0.0}, "'clip' must be > 0.0: 0.0"),
        ({"epsilon": 0.0}, "'epsilon' must be > 0.0: 0.0"),
    ],
    ids=str,
)
def test_settings_are_refused_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        ScaleRewards(**settings)


def test_rewards_without_spread_are_clipped():
    """One step that earned −1: over √1e-8 it would be −10,000."""
    flags = torch.ones(1, 1, dtype=torch.bool)
    zeros = torch.zeros(1, 1)
    rollout = Rollout(zeros, zeros, zeros, zeros - 1, flags, ~flags, flags, zeros.long(), zeros.long())
    assert scaled(ScaleRewards().build(None), [rollout])[0].tolist() == [[-10.0]]


# In a run


@frozen(eq=False)
class Onlooker:
    """Keeps the rollouts that pass by."""

    collected: list = field(factory=list)

    def build(self, run):
        return Looking(self)


class InnerOnlooker(Onlooker):
    """Another name, to be chosen beside the first."""


class Looking:
    def __init__(self, settings):
        self.settings = settings

    @hookimpl(wrapper=True)
    def collect_rollout(self):
        rollout = yield
        self.settings.collected.append(rollout)
        return rollout


@pytest.mark.slow
@pytest.mark.parametrize(
    "amount",
    [{"fixed_steps": 7}, {"fixed_steps": 7, "shards": 2}, {"episodes": 9}, {"steps": 40, "shards": 2}],
    ids=str,
)
def test_in_a_run_rewards_are_those_of_the_oracle(amount, tmp_path):
    """Lanes keep their places from rollout to rollout, in shards, too; float32's rewards are 1e-6 off.

    The scores in the metrics stay the environment's own, and the record keeps the state.
    """
    before, after = InnerOnlooker(), Onlooker()
    extensions = [before, ScaleRewards(gamma=0.9), after]
    settings = {"environment": LineWorld(max_steps=11), "rollout": RolloutSettings(lanes=4, **amount), "iterations": 4}
    if "fixed_steps" in amount:
        settings["recipe"] = "a2c"
    result = framework.train(**settings, extensions=extensions, directory=tmp_path / "run")
    for rollout, expected in zip(after.collected, walked(before.collected, 0.9, 10.0), strict=True):
        assert torch.allclose(rollout.rewards.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6)
    scores = [-11.0 <= score <= 10.0 and score == round(score) for score in result.recent_returns]
    assert scores
    assert all(scores)  # whole numbers, as the world's rewards are
    kept = load_file(tmp_path / "run" / "extensions.safetensors")
    assert set(kept) == {f"scale_rewards.{key}" for key in ("count", "mean", "variance", "carried")}
    assert int(kept["scale_rewards.count"]) == sum(int(rollout.mask.sum()) for rollout in before.collected)
    assert torch.equal(kept["scale_rewards.carried"], result.run.extensions["scale_rewards"].carried)
    if "fixed_steps" not in amount:
        assert not kept["scale_rewards.carried"].any()
