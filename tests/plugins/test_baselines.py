"""Every baseline against its definition in plain Python; each law kills mutants."""

import math

import framework_baselines
import framework_reinforce.mean_baselines as mean_baselines
import pytest
import torch
from attrs import evolve, fields
from baseline_cases import BASELINES, EXACT, LANES, MEANS, OBSERVED, STATEFUL, TOGO, by_episode, grouped, make_rollout
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import is_killed, mutate

from framework import PartError, Rollout
from framework.testing.strategies import assemble, permute_lanes, real_steps


def values_of(rollout):
    """Something to stand for a critic."""
    return evolve(rollout, values=(rollout.rewards * 0.5 + rollout.times).masked_fill(~rollout.mask, 0))


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


def assert_group_means(story, baseline, but_itself):
    """Each step's number is the mean over its group's episodes, its own included or not."""
    lanes, groups = story
    rollout = make_rollout(lanes, groups=groups)
    returns = TOGO(rollout).returns
    per_episode, owners = scores_of(lanes, returns), by_episode(lanes, groups)
    expected = []
    for number, steps in enumerate(real_steps(lanes, returns)):
        group = [k for k, owner in enumerate(owners) if owner == owners[number] and not (but_itself and k == number)]
        expected.append([math.fsum(per_episode[k] for k in group) / len(group)] * len(steps))
    assert agrees(lanes, baseline(rollout, returns), expected)


def law_group_mean(module, story):
    """The mean of the group's episodes."""
    assert_group_means(story, module.GroupMean(), but_itself=False)


def law_leave_one_out(module, story):
    """The mean of the other episodes in the group."""
    assert_group_means(story, module.LeaveOneOut(), but_itself=True)


def law_a_single_episode_in_a_group_is_refused(module, story):
    """And only that: a group without any episode is none."""
    lanes, groups = story
    rollout = make_rollout(lanes, groups=groups)
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
    """(1 − d)·Σᵢ dᵏ⁻ⁱ·sᵢ / (1 − dᵏ) after k rollouts with means sᵢ, and 0 before the first."""
    baseline = module.MovingAverage(decay).build()
    means = []
    for lanes in stories:
        rollout = assemble(lanes)
        returns = TOGO(rollout).returns
        k = len(means)
        weights = [(1 - decay) * decay ** (k - 1 - i) for i in range(k)]
        expected = math.fsum(w * s for w, s in zip(weights, means, strict=True)) / (1 - decay**k) if k else 0.0
        assert agrees(lanes, baseline(rollout, returns), [[expected] * len(s) for s in real_steps(lanes, returns)])
        per_episode = scores_of(lanes, returns)
        means.append(math.fsum(per_episode) / len(per_episode))
        baseline.update(rollout, returns)


def law_linear_features_minimise_the_ridge_regression(module, lanes, observed, ridge):
    """Σ(y − x·β)² + ridge·|β|² grows whichever way β is moved: its gradient, in plain Python, is 0.

    45 steps have features of at most 100 (o², clipped): X has singular values of up to 2000, with the ridge none below
    0.03. Orthogonal factors solve for a β of a system off by 1e-16 · 2000, whose gradient is off by 2000 · |β| of that
    (|β| ≤ 10·√45/0.03, which needs all the directions at once): far less than 1e-6 but at the very edge.
    """
    rollout = make_rollout(lanes, observed=observed)
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
        gradient = math.fsum((p - y) * row[j] for p, y, row in zip(predicted, targets, rows, strict=True)) + ridge * b
        assert abs(gradient) < 1e-6
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
        rollout = values_of(make_rollout(lanes, padding, groups, observed))
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
    rollout = values_of(make_rollout(lanes, 0, groups, observed))
    order = list(range(len(lanes)))
    random.shuffle(order)
    moved = evolve(permute_lanes(rollout, order), groups=rollout.groups[order], values=rollout.values[:, order])
    one, two = (learnt(getattr(module, name)(), r, TOGO(r).returns) for r in (rollout, moved))
    assert torch.allclose(one[:, order][moved.mask].double(), two[moved.mask].double(), rtol=0, atol=1e-7)


def law_nothing_is_mutated_and_nothing_has_a_graph(module, name, story):
    """What was handed in stays; what comes out has the shape of the returns, is floating, finite and detached."""
    lanes, groups = story
    rollout = values_of(make_rollout(lanes, 1, groups, [1.0, 20.0]))
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
    rollouts = [make_rollout(lanes, observed=[1.0, -2.0, 0.5, 20.0]) for lanes in (first, second, third)]
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
        ("return means[groups][rollout.episodes]", "return per_episode[rollout.episodes]"),
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
    "counts the episode itself": (law_leave_one_out, MEANS, ("[groups] - per_episode)", "[groups])")),
    "refuses groups without episodes": (
        law_a_single_episode_in_a_group_is_refused,
        MEANS,
        ("(counts == 1)", "(counts <= 1)"),
    ),
    "accepts one episode": (
        law_a_single_episode_in_a_group_is_refused,
        MEANS,
        ("(counts == 1)", "(counts == -1)"),
    ),
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
