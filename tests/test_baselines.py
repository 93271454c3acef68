"""Every baseline against its definition in plain Python, its limits, and what it does to the expected gradient."""

import itertools
import math

import framework_baselines
import framework_reinforce.mean_baselines as mean_baselines
import pytest
import torch
from attrs import evolve, fields
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mutants import is_killed, mutate
from worlds import enumerate_episodes

from framework import PartError, Rollout, TabularMDP
from framework.exact import expected_return
from framework.testing.strategies import REWARDS, Episode, assemble, lanes_of_episodes, mdps, permute_lanes, real_steps

TOGO, TOTAL = RewardsToGo(gamma=1.0), TotalReturn(gamma=1.0)

# Rewards are quarters of at most 2, and an episode has at most 5 steps: every sum of them is exact in float32 as in
# float64, so that only divisions round, by less than 1e-14 of numbers of at most 10.
EXACT = 1e-12


@st.composite
def grouped(draw, min_episodes=1):
    """Lanes of one to three episodes, and each lane's group: numbers from 0 to 2, some perhaps left out."""
    lanes = draw(lanes_of_episodes(min_lanes=2, max_lanes=5))
    groups = draw(st.lists(st.integers(0, 2), min_size=len(lanes), max_size=len(lanes)))
    for group in set(groups):
        members = [lane for lane, its in zip(lanes, groups, strict=True) if its == group]
        while sum(map(len, members)) < min_episodes:
            members[0].append(Episode((draw(REWARDS),), True, False))
    return lanes, groups


def told(lanes, padding=0, groups=None, observed=(), dtype=torch.float32):
    """A rollout whose observations are set apart: 3 numbers a step, cycling through `observed`."""
    rollout = assemble(lanes, padding, dtype)
    # by episode and time, so that padding does not move what a step observes
    index = (rollout.episodes * 7 + rollout.times * 3)[..., None] + torch.arange(3)
    numbers = torch.tensor(observed or [0.0])
    return evolve(
        rollout, observations=numbers[index % len(numbers)], groups=None if groups is None else torch.tensor(groups)
    )


def values_of(rollout):
    """Something to stand for a critic."""
    return evolve(rollout, values=(rollout.rewards * 0.5 + rollout.times).masked_fill(~rollout.mask, 0))


def by_episode(lanes, groups):
    """The group of every episode, in order."""
    return [group for lane, group in zip(lanes, groups, strict=True) for _ in lane]


def scores_of(lanes, returns):
    return [math.fsum(steps) / len(steps) for steps in real_steps(lanes, returns)]


def agrees(lanes, table, expected):
    """Whether the real steps of `table` are `expected`: a list of numbers for each episode."""
    return all(
        math.isclose(x, y, rel_tol=0, abs_tol=EXACT)
        for steps, wanted in zip(real_steps(lanes, table), expected, strict=True)
        for x, y in zip(steps, wanted, strict=True)
    )


# The laws: each takes the module under test first, so that a mutant can be put in its place.


def law_constant(module, lanes, value):
    """The number itself, in every step."""
    rollout = assemble(lanes)
    table = module.Constant(value)(rollout, TOGO(rollout).returns)
    assert agrees(lanes, table, [[value] * len(episode.rewards) for lane in lanes for episode in lane])


def law_time_mean(module, lanes):
    """At each time index, the mean of the returns there."""
    rollout = assemble(lanes)
    returns = TOGO(rollout).returns
    steps = real_steps(lanes, returns)
    columns = [[row[t] for row in steps if t < len(row)] for t in range(5)]
    expected = [[math.fsum(columns[t]) / len(columns[t]) for t in range(len(row))] for row in steps]
    assert agrees(lanes, module.TimeMean()(rollout, returns), expected)


def law_group_mean(module, story):
    """The mean of the group's scores."""
    lanes, groups = story
    rollout = told(lanes, groups=groups)
    returns = TOGO(rollout).returns
    scores, owners = scores_of(lanes, returns), by_episode(lanes, groups)
    expected = []
    for number, steps in enumerate(real_steps(lanes, returns)):
        members = [score for score, owner in zip(scores, owners, strict=True) if owner == owners[number]]
        expected.append([math.fsum(members) / len(members)] * len(steps))
    assert agrees(lanes, module.GroupMean()(rollout, returns), expected)


def law_leave_one_out(module, story):
    """The mean of the other scores in the group."""
    lanes, groups = story
    rollout = told(lanes, groups=groups)
    returns = TOGO(rollout).returns
    scores, owners = scores_of(lanes, returns), by_episode(lanes, groups)
    expected = []
    for number, steps in enumerate(real_steps(lanes, returns)):
        others = [s for k, s in enumerate(scores) if k != number and owners[k] == owners[number]]
        expected.append([math.fsum(others) / len(others)] * len(steps))
    assert agrees(lanes, module.LeaveOneOut()(rollout, returns), expected)


def law_a_single_episode_in_a_group_is_refused(module, story):
    """And only that: a group without any episode is none."""
    lanes, groups = story
    rollout = told(lanes, groups=groups)
    owners = by_episode(lanes, groups)
    alone = sorted(group for group in set(owners) if owners.count(group) == 1)
    refusal = None
    try:
        module.LeaveOneOut()(rollout, rollout.rewards)
    except PartError as error:
        refusal = str(error)
    assert (refusal is None) == (not alone)
    assert refusal is None or f"group {alone[0]} has 1" in refusal


def law_moving_average(module, stories, decay):
    """(1 − d)·Σᵢ dᵏ⁻ⁱ·sᵢ / (1 − dᵏ) after k rollouts with mean scores sᵢ, and 0 before the first."""
    baseline = module.MovingAverage(decay).build()
    means = []
    for lanes in stories:
        rollout = assemble(lanes)
        returns = TOGO(rollout).returns
        k = len(means)
        weights = [(1 - decay) * decay ** (k - 1 - i) for i in range(k)]
        expected = math.fsum(w * s for w, s in zip(weights, means, strict=True)) / (1 - decay**k) if k else 0.0
        assert agrees(lanes, baseline(rollout, returns), [[expected] * len(s) for s in real_steps(lanes, returns)])
        scores = scores_of(lanes, returns)
        means.append(math.fsum(scores) / len(scores))
        baseline.update(rollout, returns)


def law_linear_features_minimise_the_ridge_regression(module, lanes, observed, ridge):
    """Σ(y − x·β)² + ridge·|β|² grows whichever way β is moved: its gradient, in plain Python, is 0.

    45 steps have features of at most 100 (o², clipped): X has singular values of up to 2000, with the ridge none below
    0.03. Orthogonal factors solve for a β of a system off by 1e-16 · 2000, whose slope is off by 2000 · |β| times that
    (|β| ≤ 10·√45/0.03, which needs all the directions at once): far less than 1e-6 but at the very edge.
    """
    rollout = told(lanes, observed=observed)
    returns = TOGO(rollout).returns
    baseline = module.LinearFeatures(ridge).build()
    baseline.update(rollout, returns)
    beta = baseline.coefficients.tolist()
    rows, targets = [], []
    for t, n in rollout.mask.nonzero().tolist():
        o = [max(-10.0, min(10.0, x)) for x in rollout.observations[t, n].tolist()]
        time = int(rollout.times[t, n]) / 100
        rows.append([*o, *(x * x for x in o), time, time**2, time**3, 1.0])
        targets.append(float(returns[t, n]))
    predicted = [math.fsum(b * x for b, x in zip(beta, row, strict=True)) for row in rows]
    for j, b in enumerate(beta):
        slope = math.fsum((p - y) * row[j] for p, y, row in zip(predicted, targets, rows, strict=True)) + ridge * b
        assert abs(slope) < 1e-6
    found = baseline(rollout, returns)[rollout.mask].tolist()
    assert all(math.isclose(x, y, abs_tol=1e-9) for x, y in zip(found, predicted, strict=True))


def law_value(module, lanes):
    """The critic's values as they are."""
    rollout = values_of(assemble(lanes))
    assert torch.equal(module.Value()(rollout, rollout.rewards), rollout.values)


def learnt(baseline, rollout, returns):
    """A baseline's table, of a stateful one after it has seen the rollout."""
    baseline = baseline.build() if hasattr(baseline, "build") else baseline
    if hasattr(baseline, "update"):
        baseline.update(rollout, returns)
    return baseline(rollout, returns)


def law_padding_is_inert(module, name, story, observed):
    """Two rows more of padding, and garbage in it, change no real step."""
    lanes, groups = story
    tables = []
    for padding, garbage in ((0, 0.0), (2, 0.0), (2, 50.0)):
        rollout = values_of(told(lanes, padding, groups, observed))
        returns = TOGO(rollout).returns.masked_fill(~rollout.mask, garbage)
        rollout = evolve(rollout, observations=rollout.observations.masked_fill(~rollout.mask[..., None], garbage))
        tables.append(real_steps(lanes, learnt(getattr(module, name)(), rollout, returns)))
    assert all(
        math.isclose(x, y, abs_tol=1e-9)
        for other in tables[1:]
        for one, two in zip(tables[0], other, strict=True)
        for x, y in zip(one, two, strict=True)
    )


def law_lanes_permute(module, name, story, observed, random):
    """Lanes in another order, with their groups, have their own numbers in that order.

    1e-7: of the ridge regression, whose sums are rounded in another order; the others keep 1e-12.
    """
    lanes, groups = story
    rollout = values_of(told(lanes, 0, groups, observed))
    order = list(range(len(lanes)))
    random.shuffle(order)
    moved = evolve(permute_lanes(rollout, order), groups=rollout.groups[order], values=rollout.values[:, order])
    one, two = (learnt(getattr(module, name)(), r, TOGO(r).returns) for r in (rollout, moved))
    assert torch.allclose(one[:, order][moved.mask].double(), two[moved.mask].double(), rtol=0, atol=1e-7)


def law_nothing_is_mutated_and_nothing_has_a_graph(module, name, story):
    """What was handed in stays; what comes out has the shape of the returns, is floating, finite and detached."""
    lanes, groups = story
    rollout = values_of(told(lanes, 1, groups, [1.0, 20.0]))
    returns = TOGO(rollout).returns
    before = {f.name: getattr(rollout, f.name) for f in fields(Rollout)}
    before = {key: column.clone() for key, column in before.items() if column is not None}
    kept = returns.clone()
    table = learnt(getattr(module, name)(), rollout, returns)
    assert torch.equal(returns, kept)
    assert all(torch.equal(getattr(rollout, key), column) for key, column in before.items())
    assert table.shape == returns.shape
    assert table.dtype.is_floating_point
    assert table.isfinite().all()
    assert not table.requires_grad


def law_state_makes_the_round_trip(module, name, first, second, third):
    """A new baseline that is handed the state says the same then and after a further update; the state stays."""
    rollouts = [told(lanes, observed=[1.0, -2.0, 0.5, 20.0]) for lanes in (first, second, third)]
    one, two = (getattr(module, name)().build() for _ in range(2))
    returns = [TOGO(rollout).returns for rollout in rollouts]
    two.load_state_dict(one.state_dict())  # before there is any
    assert not two(rollouts[0], returns[0]).any()
    one.update(rollouts[0], returns[0])
    saved = one.state_dict()
    kept = {key: tensor.clone() for key, tensor in saved.items()}
    two.load_state_dict(saved)
    for number in (1, 2):
        assert torch.equal(one(rollouts[number], returns[number]), two(rollouts[number], returns[number]))
        one.update(rollouts[number], returns[number])
        two.update(rollouts[number], returns[number])
    assert all(torch.equal(saved[key], kept[key]) for key in kept)


OBSERVED = st.lists(st.integers(-40, 40).map(lambda n: n / 2), min_size=1, max_size=40)
LANES = lanes_of_episodes()
LAWS = {
    law_constant: ("framework_baselines", (LANES, st.floats(-100, 100))),
    law_time_mean: ("framework_baselines", (LANES,)),
    law_group_mean: ("framework_baselines", (grouped(),)),
    law_leave_one_out: ("framework_reinforce.mean_baselines", (grouped(2),)),
    law_a_single_episode_in_a_group_is_refused: ("framework_reinforce.mean_baselines", (grouped(),)),
    law_moving_average: (
        "framework_baselines",
        (st.lists(LANES, min_size=2, max_size=4), st.sampled_from([0.0, 0.5, 0.9])),
    ),
    law_linear_features_minimise_the_ridge_regression: (
        "framework_baselines",
        (LANES, OBSERVED, st.sampled_from([1e-3, 1.0])),
    ),
    law_value: ("framework_baselines", (LANES,)),
}
NAMES = {
    "framework_baselines": ("Constant", "TimeMean", "GroupMean", "MovingAverage", "LinearFeatures", "Value"),
    "framework_reinforce.mean_baselines": ("NoBaseline", "BatchMean", "LeaveOneOut"),
}
EVERY = [(home, name) for home, names in NAMES.items() for name in names]
STATEFUL = ("MovingAverage", "LinearFeatures")
COMMON = {
    law_padding_is_inert: (grouped(2), OBSERVED),
    law_lanes_permute: (grouped(2), OBSERVED, st.randoms(use_true_random=False)),
    law_nothing_is_mutated_and_nothing_has_a_graph: (grouped(2),),
}
MODULES = {"framework_baselines": framework_baselines, "framework_reinforce.mean_baselines": mean_baselines}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    home, strategies = LAWS[law]
    given(st.tuples(*strategies))(lambda drawn: law(MODULES[home], *drawn))()


@pytest.mark.parametrize(("home", "name"), EVERY)
@pytest.mark.parametrize("law", COMMON, ids=lambda law: law.__name__)
def test_common_law(law, home, name):
    settings(max_examples=10)(given(st.tuples(*COMMON[law]))(lambda drawn: law(MODULES[home], name, *drawn)))()


@pytest.mark.parametrize("name", STATEFUL)
def test_state_makes_the_round_trip(name):
    given(st.tuples(LANES, LANES, LANES))(
        lambda drawn: law_state_makes_the_round_trip(framework_baselines, name, *drawn)
    )()


def test_every_baseline_is_tested():
    offered = {**framework_baselines.baselines()}
    assert {cls.__name__ for cls in offered.values()} == set(NAMES["framework_baselines"])


# Limits


@given(grouped(2))
def test_leave_one_out_advantage_is_that_of_the_group_mean_times_n_over_n_minus_one(story):
    """s − (Σ − s)/(n − 1) = n/(n − 1) · (s − Σ/n): per group of n episodes, for one score an episode."""
    lanes, groups = story
    rollout = told(lanes, groups=groups, dtype=torch.float64)
    returns = TOTAL(rollout).returns
    alone = returns - mean_baselines.LeaveOneOut()(rollout, returns)
    mean = returns - framework_baselines.GroupMean()(rollout, returns)
    owners = by_episode(lanes, groups)
    for number, (one, two) in enumerate(zip(real_steps(lanes, alone), real_steps(lanes, mean), strict=True)):
        n = owners.count(owners[number])
        assert one == pytest.approx([x * n / (n - 1) for x in two], abs=EXACT)


@given(LANES)
def test_of_one_group_group_mean_is_batch_mean_and_leave_one_out_is_that_without_groups(lanes):
    rollout = told(lanes, groups=[0] * len(lanes))
    returns = TOGO(rollout).returns
    one, two = (cls()(rollout, returns) for cls in (framework_baselines.GroupMean, mean_baselines.BatchMean))
    assert torch.allclose(one[rollout.mask], two[rollout.mask], rtol=0, atol=EXACT)
    if sum(map(len, lanes)) > 1:
        alone = mean_baselines.LeaveOneOut()
        assert torch.equal(alone(rollout, returns), alone(evolve(rollout, groups=None), returns))


@given(LANES)
def test_where_nothing_is_subtracted_returns_are_the_advantage(lanes):
    rollout = assemble(lanes)
    returns = TOGO(rollout).returns
    assert not mean_baselines.NoBaseline()(rollout, returns).any()
    for name in STATEFUL:  # in the first rollout
        assert not getattr(framework_baselines, name)().build()(rollout, returns).any()


@given(LANES)
def test_of_equal_lengths_time_mean_averages_to_the_batch_mean(lanes):
    """With one number an episode and as many steps in each, every time index has the mean of all scores."""
    lanes = [[Episode((*episode.rewards, 0, 0, 0, 0)[:5], True, False) for episode in lane] for lane in lanes]
    rollout = assemble(lanes)
    returns = TOTAL(rollout).returns
    one, two = (cls()(rollout, returns) for cls in (framework_baselines.TimeMean, mean_baselines.BatchMean))
    assert torch.allclose(one[rollout.mask], two[rollout.mask], rtol=0, atol=EXACT)


@given(OBSERVED, st.lists(st.integers(-4, 4), min_size=10, max_size=10))
def test_linear_features_recover_a_return_that_is_linear_in_them(observed, coefficients):
    """Two lanes of 30 steps, y = x·β: predicted, up to what the ridge of 1e-9 takes.

    That is ridge·σ/(σ² + ridge)·|β| in the direction of each singular value σ of X, largest at σ = √ridge: of 10
    directions, with |β| ≤ 4·√10, less than 10 · 13 · 1.6e-5 = 2.1e-3.
    """
    long = [[Episode((1.0,) * 30, True, False)]] * 2
    rollout = told(long, observed=observed, dtype=torch.float64)
    inputs = framework_baselines.features(rollout)
    returns = inputs @ torch.tensor(coefficients, dtype=torch.float64)
    baseline = framework_baselines.LinearFeatures(ridge=1e-9).build()
    baseline.update(rollout, returns)
    assert torch.allclose(baseline(rollout, returns), returns, rtol=0, atol=2.1e-3)


def test_linear_features_of_a_state_that_never_changes_stay_finite():
    """All features are then one direction; t³ of 10⁴ steps, 10⁶, drowns the ridge in XᵀX: still the mean return.

    Rounded by 1e-16 · 2·10⁶/√ridge < 1e-7.
    """
    rollout = assemble([[Episode((1.0, 3.0), True, False)]] * 2)
    rollout = evolve(rollout, observations=torch.full((2, 2, 1), 10.0), times=torch.full((2, 2), 10**4))
    baseline = framework_baselines.LinearFeatures().build()
    baseline.update(rollout, rollout.rewards)
    assert baseline(rollout, rollout.rewards).flatten().tolist() == pytest.approx([2.0] * 4, abs=1e-6)


def test_small_differences_survive_float32():
    """Scores 1.0 and 1 + 2⁻¹⁷, summed by the thousand: means are exact, and so are float32 returns less them."""
    low, high = 1.0, 1.0 + 2.0**-17
    lanes = [[Episode((low,), True, False)], [Episode((high,), True, False)]] * 1000
    rollout = evolve(assemble(lanes), groups=torch.zeros(2000, dtype=torch.int64))
    half = 2.0**-18
    for cls in (framework_baselines.GroupMean, framework_baselines.TimeMean, mean_baselines.BatchMean):
        advantages = (rollout.rewards - cls()(rollout, rollout.rewards)).float()
        assert advantages.unique().tolist() == [-half, half]
    remembered = framework_baselines.MovingAverage().build()
    remembered.update(rollout, rollout.rewards)
    advantages = rollout.rewards - remembered(rollout, rollout.rewards)
    assert advantages.abs().tolist()[0] == pytest.approx([half] * 2000, abs=1e-15)  # (1 − d)·s / (1 − d) rounds


# What they do to the expected gradient, of all episodes that there are


def expected_gradient(world, probabilities, baseline, count=2):
    """E[Σ over `count` episodes of ΣA·∇log π] / count with total_return, by enumerating all their combinations."""
    episodes = enumerate_episodes(world, probabilities)
    lanes = [[Episode(tuple(r for _, _, r in steps), over, not over)] for _, steps, over in episodes]
    total = torch.zeros_like(probabilities)
    for chosen in itertools.product(range(len(episodes)), repeat=count):
        rollout = assemble([lanes[k] for k in chosen], dtype=torch.float64)
        states = torch.zeros_like(rollout.observations)
        for lane, k in enumerate(chosen):
            states[: len(episodes[k][1]), lane] = torch.tensor([state for state, _, _ in episodes[k][1]])
        rollout = evolve(rollout, observations=states)
        returns = TOTAL(rollout).returns
        advantages = (returns - baseline(rollout, returns)).tolist()
        probability = math.prod(episodes[k][0] for k in chosen)
        for lane, k in enumerate(chosen):
            for t, (state, action, _) in enumerate(episodes[k][1]):  # ∇ log π(a|s) = 1[a] − π(·|s), in the row of s
                weight = probability / count * advantages[t][lane]
                total[state] -= weight * probabilities[state]
                total[state, action] += weight
    return total


SMALL = mdps(states=(2, 3), actions=(2, 2), limits=(1, 2))
ENUMERATED = settings(max_examples=8)


def exact_gradient(world, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(expected_return(world, logits.softmax(1), 1.0), logits)[0]


def law_neutral(cls, world, seed):
    """E[ΣA·∇log π] = ∇J, by brute force over pairs of episodes; ∇J by autograd through the Bellman equation."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(world.transitions.shape[:2], generator=generator, dtype=torch.float64)
    assume(len(enumerate_episodes(few(world), logits.softmax(1))) <= 16)  # 256 pairs
    found = expected_gradient(few(world), logits.softmax(1), cls())
    assert torch.allclose(found, exact_gradient(few(world), logits), rtol=0, atol=1e-10)


def few(world):
    """The same world with at most two successors a state and action, so that pairs of its episodes can be counted."""
    kept = world.transitions.topk(min(2, len(world.start)), dim=-1)
    thinned = torch.zeros_like(world.transitions).scatter(-1, kept.indices, kept.values)
    return evolve(world, transitions=thinned / thinned.sum(-1, keepdim=True))


@ENUMERATED
@given(SMALL, st.integers(0, 2**31))
def test_leave_one_out_leaves_the_expected_gradient_unchanged(world, seed):
    law_neutral(mean_baselines.LeaveOneOut, world, seed)


@ENUMERATED
@given(SMALL, st.integers(0, 2**31), st.sampled_from([-5.0, 0.5, 100.0]))
def test_a_constant_leaves_the_expected_gradient_unchanged(world, seed, value):
    law_neutral(lambda: framework_baselines.Constant(value), world, seed)


@ENUMERATED
@given(SMALL, st.integers(0, 2**31))
def test_what_earlier_rollouts_taught_leaves_the_expected_gradient_unchanged(world, seed):
    """Fitted on some other rollout and kept, a number or a function of the state and time is neutral."""
    earlier = assemble([[Episode((1.0, 2.0, -1.0), True, False)], [Episode((0.5, 2.0), True, False)]])
    earlier = evolve(earlier, observations=torch.tensor([[0, 1], [1, 0], [1, 0]]))
    for name in STATEFUL:
        baseline = getattr(framework_baselines, name)().build()
        baseline.update(earlier, TOGO(earlier).returns)
        law_neutral(lambda baseline=baseline: baseline, world, seed)


@ENUMERATED
@given(SMALL, st.integers(0, 2**31), st.integers(2, 3))
def test_the_batch_mean_shrinks_the_expected_gradient_by_one_over_the_episodes(world, seed, count):
    """E[ΣA·∇log π] = (1 − 1/E)·∇J exactly, with total_return; the same of time_mean in episodes of one step."""
    world = few(world) if count == 2 else evolve(few(world), time_limit=1)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(world.transitions.shape[:2], generator=generator, dtype=torch.float64)
    assume(len(enumerate_episodes(world, logits.softmax(1))) <= 16)
    shrunk = (1 - 1 / count) * exact_gradient(world, logits)
    means = [mean_baselines.BatchMean()]
    if world.time_limit == 1:
        means.append(framework_baselines.TimeMean())
    for mean in means:
        found = expected_gradient(world, logits.softmax(1), mean, count)
        assert torch.allclose(found, shrunk, rtol=0, atol=1e-10)


def test_claims_are_as_proved():
    offered = {**framework_baselines.baselines(), "none": mean_baselines.NoBaseline}
    offered |= {"leave_one_out": mean_baselines.LeaveOneOut, "batch_mean": mean_baselines.BatchMean}
    assert {name for name, cls in offered.items() if "neutral" in getattr(cls, "claims", ())} == {
        *("constant", "leave_one_out", "linear_features", "moving_average", "none", "value")
    }


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        ("Constant", {"value": math.nan}, "'value'"),
        ("Constant", {"value": math.inf}, "'value' must be < inf"),
        ("MovingAverage", {"decay": 1.0}, "'decay' must be < 1.0: 1.0"),
        ("MovingAverage", {"decay": -0.1}, "'decay' must be >= 0.0: -0.1"),
        ("LinearFeatures", {"ridge": 0.0}, "'ridge' must be > 0.0: 0.0"),
    ],
)
def test_settings_are_refused_when_they_are_made(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(framework_baselines, cls)(**settings)


# Mutants

BASELINES, MEANS = "framework_baselines", "framework_reinforce.mean_baselines"
MUTANTS = {
    "rounds the constant": (
        law_constant,
        BASELINES,
        ("torch.full_like(returns, self.value,", "torch.full_like(returns, round(self.value),"),
    ),
    "averages all times": (
        law_time_mean,
        BASELINES,
        ("return means[rollout.times]", "return means.mean().expand_as(returns)"),
    ),
    "divides by all episodes": (
        law_time_mean,
        BASELINES,
        ("torch.bincount(times, weights).clamp(min=1)", "(rollout.episodes.max() + 1)"),
    ),
    "mistakes the episode for the group": (
        law_group_mean,
        BASELINES,
        ("return means[groups][rollout.episodes]", "return scores[rollout.episodes]"),
    ),
    "ignores groups in the mean": (
        law_group_mean,
        BASELINES,
        ("episode_groups(rollout.groups,", "episode_groups(None,"),
    ),
    "ignores groups when leaving one out": (
        law_leave_one_out,
        MEANS,
        ("episode_groups(rollout.groups,", "episode_groups(None,"),
    ),
    "divides by all of the group": (law_leave_one_out, MEANS, ("(counts[groups] - 1)", "counts[groups]")),
    "counts the judged episode": (law_leave_one_out, MEANS, ("[groups] - scores)", "[groups])")),
    "refuses groups without episodes": (
        law_a_single_episode_in_a_group_is_refused,
        MEANS,
        ("(counts == 1)", "(counts <= 1)"),
    ),
    "judges a single episode": (law_a_single_episode_in_a_group_is_refused, MEANS, ("(counts == 1)", "(counts == -1)")),
    "starts from zero": (law_moving_average, BASELINES, ("self.sum / self.weight if", "self.sum if")),
    "forgets the past": (
        law_moving_average,
        BASELINES,
        ("self.sum = self.decay * self.sum", "self.sum = 0 * self.sum"),
    ),
    "averages steps": (
        law_moving_average,
        BASELINES,
        ("float(episode_means(returns, rollout.episodes, rollout.mask).mean())", "float(returns[rollout.mask].mean())"),
    ),
    "squares no observation": (
        law_linear_features_minimise_the_ridge_regression,
        BASELINES,
        ("observations**2", "observations"),
    ),
    "clips nothing": (law_linear_features_minimise_the_ridge_regression, BASELINES, (".clamp(-10, 10)", "")),
    "penalises nothing": (
        law_linear_features_minimise_the_ridge_regression,
        BASELINES,
        ("math.sqrt(self.ridge) *", "1e-6 *"),
    ),
    "counts single steps": (law_linear_features_minimise_the_ridge_regression, BASELINES, (" / 100", "")),
    "scales the critic": (law_value, BASELINES, ("return rollout.values", "return 0.9 * rollout.values")),
}
COMMON_MUTANTS = {
    "averages over padding": (
        law_padding_is_inert,
        BASELINES,
        "TimeMean",
        ("weights = rollout.mask.reshape(-1).double()", "weights = torch.ones_like(times).double()"),
    ),
    "fits padding": (
        law_padding_is_inert,
        BASELINES,
        "LinearFeatures",
        (
            "features(rollout)[rollout.mask], returns[rollout.mask].double()",
            "features(rollout).flatten(0, 1), returns.flatten().double()",
        ),
    ),
    "numbers groups by place": (
        law_lanes_permute,
        BASELINES,
        "GroupMean",
        ("episode_groups(rollout.groups,", "episode_groups(rollout.groups.sort().values,"),
    ),
    "favours the first lane": (
        law_lanes_permute,
        BASELINES,
        "Constant",
        ("torch.full_like(returns, self.value, dtype=torch.float64)", "returns[:, :1].expand_as(returns)"),
    ),
    "writes into the returns": (
        law_nothing_is_mutated_and_nothing_has_a_graph,
        MEANS,
        "BatchMean",
        ("return mean.expand_as(returns)", "return returns.copy_(mean.to(returns.dtype).expand_as(returns))"),
    ),
    "clips what it was handed": (
        law_nothing_is_mutated_and_nothing_has_a_graph,
        BASELINES,
        "LinearFeatures",
        (".double().clamp(-10, 10)", ".clamp_(-10, 10).double()"),
    ),
}
STATE_MUTANTS = {
    "forgets the weight": ("MovingAverage", ("[self.sum, self.weight]", "[self.sum, 1.0]")),
    "saves in float32": ("MovingAverage", ("self.weight], dtype=torch.float64)", "self.weight], dtype=torch.float32)")),
    "loads nothing": ("LinearFeatures", ('state.get("coefficients")', "None")),
}


def test_every_law_has_a_mutant():
    assert {law for law, *_ in MUTANTS.values()} == set(LAWS)
    assert {law for law, *_ in COMMON_MUTANTS.values()} == set(COMMON)
    assert {name for name, _ in STATE_MUTANTS.values()} == set(STATEFUL)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, home, change = MUTANTS[name]
    is_killed(law, *LAWS[law][1], arguments=(mutate(home, change),))


@pytest.mark.parametrize("name", COMMON_MUTANTS)
def test_common_law_kills_the_mutant_that(name):
    law, home, cls, change = COMMON_MUTANTS[name]
    is_killed(law, *COMMON[law], arguments=(mutate(home, change), cls))


@pytest.mark.parametrize("name", STATE_MUTANTS)
def test_the_round_trip_kills_the_mutant_that(name):
    cls, change = STATE_MUTANTS[name]
    is_killed(law_state_makes_the_round_trip, LANES, LANES, LANES, arguments=(mutate(BASELINES, change), cls))


def test_neutrality_kills_the_mutant_that_counts_the_judged_episode():
    mutant = mutate(MEANS, ("[groups] - scores)", "[groups])")).LeaveOneOut
    is_killed(law_neutral, SMALL, st.integers(0, 2**31), arguments=(mutant,))


def test_neutrality_is_not_trivial():
    """One state, two actions, rewards 0 and 4, even odds: ∇J = ∓1, and the enumeration finds it."""
    world = TabularMDP(
        transitions=torch.tensor([[[0.0, 1.0]] * 2] * 2, dtype=torch.float64),
        rewards=torch.tensor([[[0.0, 0.0], [0.0, 4.0]]] * 2, dtype=torch.float64),
        start=torch.tensor([1.0, 0.0], dtype=torch.float64),
        terminal=torch.tensor([False, True]),
        time_limit=1,
    )
    found = expected_gradient(world, torch.full((2, 2), 0.5, dtype=torch.float64), mean_baselines.LeaveOneOut())
    assert found.tolist() == [[-1.0, 1.0], [0.0, 0.0]]
