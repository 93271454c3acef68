"""Groups: lanes of the line world that share a start, and what RLOO, GRPO and their kin make of them."""

import math
import statistics

import framework_line_world
import framework_standardize
import pytest
import torch
from attrs import evolve
from counting_parts import Spy
from framework_baselines import GroupMean
from framework_line_world import LineWorld
from framework_reinforce.mean_baselines import LeaveOneOut
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from framework_standardize import Standardize
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate

import framework
from framework import Advantages, PartError, RolloutSettings, Step, UsageError
from framework.config import DEFAULTS
from framework.exact import state_values
from framework.parts import Part
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.stages import Core
from framework.testing.strategies import Episode, assemble, lanes_of_episodes, permute_lanes, real_steps

CPU = torch.device("cpu")


def seen(world=None, extensions=(), **options):
    """The rollouts and advantages of a short run on the line world, groups of four lanes."""
    spy = Spy()
    framework.train(
        environment=world or LineWorld(group_size=4),
        extensions=[*extensions, spy],
        **{"iterations": 3, "rollout": RolloutSettings(lanes=16, episodes=40, shards=2), **options},
    )
    return list(zip(spy.of("rollout"), (one.advantages for one in spy.of("advantages")), strict=True))


# The line world. The laws take the module under test first, so that a mutant can be put in its place.


def starts_of(rollout):
    """By group, all first observations of its episodes in the rollout."""
    first = (rollout.times == 0) & rollout.mask
    found = {}
    for t, n in first.nonzero().tolist():
        found.setdefault(int(rollout.groups[n]), []).append(int(rollout.observations[t, n]))
    return found


def walked(module, goal, size, groups, seed, steps, max_steps=7):
    """Lanes after a reset and some steps at random; all observations that they showed, and the steps' flags."""
    generator = torch.Generator().manual_seed(seed)
    lanes = module.LineWorld(goal=goal, group_size=size, max_steps=max_steps).build(size * groups, CPU)
    shown, ends = [lanes.reset(generator).tolist()], []
    for _ in range(steps):
        step = lanes.step(torch.randint(2, (size * groups,), generator=generator), generator)
        shown.append(step.observations.tolist())
        ends.append((step.terminated | step.truncated).tolist())
    return lanes, shown, ends


def law_lanes_of_a_group_start_together_and_again_there(module, goal, size, groups, seed):
    """arange // size; each start short of the goal; after each end, in the lane's own start."""
    lanes, shown, ends = walked(module, goal, size, groups, seed, 30)
    assert lanes.groups.tolist() == [n // size for n in range(size * groups)]
    assert lanes.groups.dtype == torch.int64
    first = shown[0]
    assert all(first[n] == first[n // size * size] for n in range(size * groups))
    assert all(0 <= state < goal for state in first)
    for row, over in zip(shown[1:], ends, strict=True):
        for n, ended in enumerate(over):
            assert not ended or row[n] == first[n]


def law_each_reset_draws_anew(module, goal, seed):
    """From the generator alone: the same one draws the same starts; 40 groups have all of two or more states."""
    lanes = module.LineWorld(goal=goal, group_size=1).build(40, CPU)
    one, two = (lanes.reset(torch.Generator().manual_seed(seed)).clone() for _ in range(2))
    assert torch.equal(one, two)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([lanes.reset(generator).clone() for _ in range(20)])
    assert drawn.unique().tolist() == list(range(goal))  # of 800 draws, one of 5 states is missing with odds (4/5)^800
    assert goal == 1 or (drawn[0] != drawn[1:]).any()


def law_saved_groups_go_on_as_if_never_left(module, goal, size, groups, seed):
    """Other lanes that are handed the state show the same from there on, later starts included."""
    lanes, _, _ = walked(module, goal, size, groups, seed, 5)
    other = module.LineWorld(goal=goal, group_size=size, max_steps=7).build(size * groups, CPU)
    other.load_state_dict(lanes.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        actions = torch.randint(2, (size * groups,), generator=generator)
        one, two = (each.step(actions, generator) for each in (lanes, other))
        assert torch.equal(one.observations, two.observations)
        assert torch.equal(one.truncated, two.truncated)


def law_tables_start_where_lanes_do(module, goal):
    """Uniform over the states short of the goal; without groups, in state 0."""
    start = module.LineWorld(goal=goal, group_size=2).build(2, CPU).mdp().start
    assert start.tolist() == pytest.approx([1 / goal] * goal + [0.0], abs=1e-15)
    assert module.LineWorld(goal=goal).build(2, CPU).mdp().start.tolist() == [1.0] + [0.0] * goal


GOALS, SIZES, COUNTS, SEEDS = st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31)
WORLD = "framework_line_world"
WORLD_LAWS = {
    law_lanes_of_a_group_start_together_and_again_there: (GOALS, SIZES, COUNTS, SEEDS),
    law_each_reset_draws_anew: (st.integers(1, 5), SEEDS),
    law_saved_groups_go_on_as_if_never_left: (GOALS, SIZES, COUNTS, SEEDS),
    law_tables_start_where_lanes_do: (GOALS,),
}


def test_only_a_world_with_groups_gives_them():
    assert LineWorld(group_size=2).gives == {"groups"}
    assert LineWorld().gives == frozenset()
    assert LineWorld().build(3, CPU).groups is None


def test_lanes_that_do_not_fill_their_groups_are_refused():
    with pytest.raises(ValueError, match="a shard's lanes must be a multiple of group_size: 6 lanes, groups of 4"):
        LineWorld(group_size=4).build(6, CPU)
    with pytest.raises(
        UsageError, match=r"environment 'line_world' \(plugin line_world\) cannot be built: ValueError: a"
    ):
        seen(rollout=RolloutSettings(lanes=12, shards=2))
    with pytest.raises(ValueError, match="'group_size' must be >= 0: -1"):
        LineWorld(group_size=-1)


def test_in_a_run_every_shard_has_groups_of_its_own():
    """Two shards of eight lanes: four groups of four, numbered through; all episodes of one start in one state."""
    drawn = []
    for rollout, _ in seen(LineWorld(goal=12, group_size=4)):
        assert rollout.groups.tolist() == [n // 4 for n in range(16)]
        starts = starts_of(rollout)
        assert set(starts) == {0, 1, 2, 3}
        assert sum(map(len, starts.values())) == 40  # more than 16: lanes began later episodes, too
        assert all(len(set(states)) == 1 for states in starts.values())
        drawn.append(tuple(states[0] for _, states in sorted(starts.items())))
    assert len(set(drawn)) == 3  # the seed is 0: three rollouts of 12⁴ possible starts
    assert any(len(set(starts)) > 1 for starts in drawn)


# What is made of groups


def by_group(rollout, numbers):
    """Each group's episodes as `(lane, number)`: the number that all the steps of an episode share."""
    found = {}
    for episode in range(int(rollout.episodes.max()) + 1):
        here = (rollout.episodes == episode) & rollout.mask
        (lane,) = here.any(0).nonzero()[:, 0].tolist()
        values = set(numbers[here].tolist())
        assert len(values) == 1
        found.setdefault(int(rollout.groups[lane]), []).append(values.pop())
    return found


def scores_by_group(rollout):
    """Every episode's summed rewards, in plain Python."""
    return by_group(rollout, TotalReturn(gamma=1.0)(rollout).returns)


# Returns are whole numbers of size at most 110: advantages are rounded to float32 by 4e-6.
ROUNDED = 1e-5


def test_rloo_advantages_in_a_run_are_as_by_hand():
    for rollout, advantages in seen(estimator=TotalReturn(gamma=1.0), baseline=LeaveOneOut()):
        found = by_group(rollout, advantages)
        for group, per_episode in scores_by_group(rollout).items():
            expected = [s - (math.fsum(per_episode) - s) / (len(per_episode) - 1) for s in per_episode]
            assert found[group] == pytest.approx(expected, abs=ROUNDED)


def test_grpo_advantages_in_a_run_are_as_by_hand():
    """(s − mean) / (deviation + ε), of each group: Shao et al. 2024, arXiv:2402.03300, §4.1.2."""
    grpo = {"estimator": TotalReturn(gamma=1.0), "baseline": GroupMean()}
    for rollout, advantages in seen(extensions=[Standardize(within="group", epsilon=1e-6)], **grpo):
        found = by_group(rollout, advantages)
        for group, per_episode in scores_by_group(rollout).items():
            mean, deviation = statistics.fmean(per_episode), statistics.stdev(per_episode)
            assert found[group] == pytest.approx([(s - mean) / (deviation + 1e-6) for s in per_episode], abs=ROUNDED)


def test_dr_grpo_is_the_group_mean_alone():
    for rollout, advantages in seen(estimator=TotalReturn(gamma=1.0), baseline=GroupMean()):
        found = by_group(rollout, advantages)
        for group, per_episode in scores_by_group(rollout).items():
            assert found[group] == pytest.approx([s - statistics.fmean(per_episode) for s in per_episode], abs=ROUNDED)


@pytest.mark.parametrize("part", [{"baseline": GroupMean()}, {"extensions": [Standardize(within="group")]}], ids=list)
def test_without_groups_it_is_refused(part):
    with pytest.raises(UsageError, match="needs groups, and environment 'line_world' gives none"):
        framework.train(iterations=1, **part)


def test_in_a_run_a_group_of_one_episode_is_refused_by_leave_one_out():
    with pytest.raises(PartError, match="needs at least two episodes in each group, and group 0 has 1: ask for more"):
        seen(LineWorld(group_size=1), baseline=LeaveOneOut(), rollout=RolloutSettings(lanes=4, episodes=4))


def test_without_a_goal_ahead_groups_follow_the_exact_values():
    """Under the uniform policy the notebook's world is worth [−9, −7, −3, 3] (no limit): a group's mean is that.

    1600 episodes a start; their returns deviate by less than 20 (lengths of a walk of 20 steps): 5 deviations of the
    mean are 2.5. The seed is fixed, so that the test cannot fail by chance once it holds.
    """
    lanes = LineWorld(group_size=400, max_steps=0).build(6400, CPU)
    generator = torch.Generator().manual_seed(0)
    first = lanes.reset(generator).clone()
    earned, alive = torch.zeros(6400), torch.ones(6400, dtype=torch.bool)
    while alive.any():
        step = lanes.step(torch.randint(2, (6400,), generator=generator), generator)
        earned += step.rewards * alive
        alive &= ~step.terminated
    exact = state_values(lanes.mdp(), torch.full((5, 2), 0.5, dtype=torch.float64), 1.0)
    assert exact[:4].tolist() == pytest.approx([-9, -7, -3, 3], abs=1e-9)
    for state in first.unique().tolist():
        assert abs(earned[first == state].mean() - exact[state]) < 2.5


# Standardising within groups


def a_core():
    """A run of the core alone, to estimate advantages of rollouts made by hand."""
    loaded = load()
    tree = {**DEFAULTS, "reports": [], "estimator": {"name": "total_return", "gamma": 1.0}}
    return loaded, configure(loaded, tree)


def estimated(rollout, *extensions, baseline=None):
    """The advantages `[T, N]` that leave the core's stage with these extensions around it."""
    loaded, config = a_core()
    if baseline is not None:
        config = evolve(config, baseline=Part("baseline", "tested", "tests", baseline))
    parts = tuple(Part("extension", f"tested_{k}", "tests", each) for k, each in enumerate(extensions))
    run = build(evolve(config, extensions=parts), loaded, Core())
    return run.hook.estimate_advantages(run=run, rollout=rollout).advantages


def test_small_differences_survive_float32_end_to_end():
    """Rewards 1.0 and 1.00001: in float32 1.0013580e-5 apart, their deviation is 7.0807e-6.

    ±5.00679e-6 / (7.0807e-6 + 1e-6) = ±0.6196; a mean that is rounded to float32 first would give ±0.005 or ±0.01 off.
    """
    lanes = [[Episode((reward,), True, False)] for reward in (1.0, 1.00001)]
    rollout = evolve(assemble(lanes), groups=torch.zeros(2, dtype=torch.int64))
    for baseline in (GroupMean(), LeaveOneOut(), None):
        # leave-one-out doubles advantages and their deviation: ±10.01358e-6 / (14.1614e-6 + 1e-6)
        scaled = estimated(rollout, Standardize(within="group", epsilon=1e-6), baseline=baseline)
        assert scaled.dtype == torch.float32
        expected = 0.6196 if not isinstance(baseline, LeaveOneOut) else 0.66047
        assert scaled.flatten().tolist() == pytest.approx([-expected, expected], abs=5e-5)


def through(module, rollout, numbers, **settings):
    """The advantages that come out of the extension alone."""
    generator = module.Standardize(within="group", **settings).build(None).estimate_advantages(rollout)
    next(generator)
    with pytest.raises(StopIteration) as returned:
        generator.send(Advantages(numbers, numbers, numbers))
    return returned.value.value.advantages


@st.composite
def grouped(draw):
    """A rollout of lanes with groups, in float64, two rows of padding; and the lanes."""
    lanes = draw(lanes_of_episodes(min_lanes=2, max_lanes=5))
    groups = draw(st.lists(st.integers(0, 2), min_size=len(lanes), max_size=len(lanes)))
    rollout = evolve(assemble(lanes, 2, torch.float64), groups=torch.tensor(groups))
    return lanes, groups, rollout


def law_formula(module, story, center, scale):
    """Each step less the mean of its group's episodes, over their deviation (n − 1) + ε; a single one is not scaled."""
    lanes, groups, rollout = story
    numbers = RewardsToGo(gamma=1.0)(rollout).returns
    steps = real_steps(lanes, numbers)
    owners = [group for lane, group in zip(lanes, groups, strict=True) for _ in lane]
    found = real_steps(lanes, through(module, rollout, numbers, center=center, scale=scale, epsilon=0.01))
    for number, row in enumerate(steps):
        per_episode = [math.fsum(s) / len(s) for s, owner in zip(steps, owners, strict=True) if owner == owners[number]]
        mean = statistics.fmean(per_episode) if center else 0.0
        divisor = statistics.stdev(per_episode) + 0.01 if scale and len(per_episode) > 1 else 1.0
        # ε of 0.01 divides what float64 rounded: 1e-15 / 0.01, and a factor for the sums
        assert found[number] == pytest.approx([(x - mean) / divisor for x in row], abs=1e-11)


def law_equal_scores_become_zero(module, story, score):
    """Exactly, whatever was earned by all: also where the sum of equal numbers divided is not the number again."""
    _, _, rollout = story
    assert not through(module, rollout, torch.where(rollout.mask, score, 0.0).double(), epsilon=1e-8).any()


def law_padding_stays_zero_and_is_inert(module, story):
    """Padding comes out as 0 whatever stood there, and moves no real step."""
    _, _, rollout = story
    numbers = RewardsToGo(gamma=1.0)(rollout).returns
    one, two = (through(module, rollout, torch.where(rollout.mask, numbers, x)) for x in (0.0, 5.0))
    assert torch.equal(one, two)
    assert not one[~rollout.mask].any()


def law_groups_permute_with_their_lanes(module, story, random):
    """In another order of lanes, the same numbers in that order (1e-6: rounding, divided by an ε of 1e-8)."""
    _, _, rollout = story
    order = list(range(rollout.mask.shape[1]))
    random.shuffle(order)
    moved = evolve(permute_lanes(rollout, order), groups=rollout.groups[order])
    one, two = (through(module, r, RewardsToGo(gamma=1.0)(r).returns) for r in (rollout, moved))
    assert torch.allclose(one[:, order], two, rtol=0, atol=1e-6)


def law_nothing_is_mutated(module, story):
    _, _, rollout = story
    numbers = rollout.rewards.clone()
    through(module, rollout, numbers)
    assert torch.equal(numbers, rollout.rewards)


STANDARD = "framework_standardize"
STANDARD_LAWS = {
    law_formula: (grouped(), st.booleans(), st.booleans()),
    law_equal_scores_become_zero: (grouped(), st.integers(-9, 9).map(lambda n: n * 2.0**-10)),
    law_padding_stays_zero_and_is_inert: (grouped(),),
    law_groups_permute_with_their_lanes: (grouped(), st.randoms(use_true_random=False)),
    law_nothing_is_mutated: (grouped(),),
}
LAWS = {law: (WORLD, drawn) for law, drawn in WORLD_LAWS.items()}
LAWS |= {law: (STANDARD, drawn) for law, drawn in STANDARD_LAWS.items()}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    home, strategies = LAWS[law]
    module = {WORLD: framework_line_world, STANDARD: framework_standardize}[home]
    given(st.tuples(*strategies))(lambda drawn: law(module, *drawn))()


def test_equal_rewards_that_do_not_sum_exactly_become_zero():
    """Three times 0.1 in float64 mean 0.10000000000000002: less that, over ε, nothing but 0 may be left."""
    rollout = assemble([[Episode((0.1,), True, False)]] * 3, dtype=torch.float64)
    rollout = evolve(rollout, groups=torch.zeros(3, dtype=torch.int64))
    assert float(torch.full((3,), 0.1, dtype=torch.float64).sum() / 3) != 0.1
    assert not through(framework_standardize, rollout, rollout.rewards).any()


def test_needs_follow_the_setting():
    assert Standardize(within="group").needs == {"groups"}
    assert Standardize().needs == Standardize(within="minibatch").needs == frozenset()


def test_of_a_world_without_groups_nothing_is_different():
    """The same steps with and without the setting's name; and one step object is handed out again and again."""
    lanes = LineWorld().build(2, CPU)
    generator = torch.Generator().manual_seed(0)
    lanes.reset(generator)
    one, two = (lanes.step(torch.ones(2, dtype=torch.int64), generator) for _ in range(2))
    assert isinstance(one, Step)
    assert one is two


AGAIN = "torch.where(continues, step.successors, self._starts, out=step.observations)"
TOGETHER = law_lanes_of_a_group_start_together_and_again_there
MUTANTS = {
    "begins again at 0": (TOGETHER, (AGAIN, "pass")),
    "numbers groups from the end": (
        TOGETHER,
        ("// settings.group_size", "// settings.group_size; self.groups = self.groups.flip(0)"),
    ),
    "draws for each lane": (
        TOGETHER,
        (
            "torch.take(starts, self.groups, out=self._starts)",
            "self._starts.random_(0, self.settings.goal, generator=generator)",
        ),
    ),
    "starts at the goal, too": (
        TOGETHER,
        ("torch.randint(self.settings.goal, (count,)", "torch.randint(self.settings.goal + 1, (count,)"),
    ),
    "never starts next to the goal": (
        law_each_reset_draws_anew,
        ("torch.randint(self.settings.goal, (count,)", "torch.randint(max(1, self.settings.goal - 1), (count,)"),
    ),
    "draws from elsewhere": (law_each_reset_draws_anew, ("(count,), generator=generator, ", "(count,), ")),
    "forgets the starts": (law_saved_groups_go_on_as_if_never_left, ('self._starts.copy_(state["starts"])', "pass")),
    "tells of one start": (law_tables_start_where_lanes_do, ("states < self.settings.goal", "states == 0")),
    "counts the goal among the starts": (
        law_tables_start_where_lanes_do,
        ("states < self.settings.goal", "states >= 0"),
    ),
    "divides by n": (law_formula, ("/ (counts - 1)", "/ counts")),
    "scales a single episode": (law_formula, ("torch.where(counts > 1, ", "torch.where(counts > 9, ")),
    "always centres": (law_formula, ("if self.settings.center:", "if True:")),
    "always scales": (law_formula, ("if self.settings.scale:", "if True:")),
    "mixes the groups": (law_formula, ("episode_groups(rollout.groups,", "episode_groups(None,")),
    "counts from zero": (
        law_equal_scores_become_zero,
        ("torch.bincount(groups, per_episode - lowest)", "torch.bincount(groups, per_episode - lowest + 0.1)"),
    ),
    "adds no epsilon": (law_equal_scores_become_zero, ("variances.sqrt() + self.settings.epsilon", "variances.sqrt()")),
    "moves padding": (
        law_padding_stays_zero_and_is_inert,
        ("torch.where(rollout.mask, advantages, 0.0)", "advantages"),
    ),
    "groups by place": (
        law_groups_permute_with_their_lanes,
        ("episode_groups(rollout.groups,", "episode_groups(rollout.groups.sort().values,"),
    ),
    "writes into what it was handed": (
        law_nothing_is_mutated,
        ("advantages = advantages - lowest[rollout.episodes]", "advantages -= lowest[rollout.episodes]"),
    ),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    home, strategies = LAWS[law]
    is_killed(law, *strategies, arguments=(mutate(home, change),))
