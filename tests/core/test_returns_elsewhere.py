"""Returns against numbers that other projects publish, and against the table of the contracts page."""

import pathlib

import framework_returns
import pytest
import torch
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from gymnasium.spaces import Discrete
from return_cases import ESTIMATORS, EXACT

from framework import Action, Evaluation, Rollout, Step
from framework.collecting.rollout import collect
from framework.collecting.shard import Shard
from framework.testing.strategies import BOTH, NO_END, TERMINATED, TRUNCATED

# Numbers that others published: each a fact, with its source.


def lanes_of(rewards, values, successors, ends=(), dtype=torch.float64, **columns):
    """A rollout from lists lane by lane; `ends` are (step, lane, flags)."""
    rewards, values, successors = (torch.tensor(lists, dtype=dtype).T for lists in (rewards, values, successors))
    flags = torch.zeros(2, *rewards.shape, dtype=torch.bool)
    for t, n, (terminated, truncated) in ends:
        flags[0, t, n], flags[1, t, n] = terminated, truncated
    successors = successors.masked_fill(flags[0], 0)
    zeros = torch.zeros(rewards.shape, dtype=torch.int64)
    defaults = {"log_probs": torch.zeros_like(rewards)}
    return Rollout(
        observations=zeros,
        actions=zeros,
        rewards=rewards,
        terminated=flags[0],
        truncated=flags[1],
        mask=torch.ones(rewards.shape, dtype=torch.bool),
        times=zeros,
        episodes=zeros,
        values=values,
        successor_values=successors,
        **defaults | columns,
    )


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (1.0, ([-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3.0, 2.0, 1.0, 0.0, -4.9])),
        (0.7, ([-0.676979, -5.248167, 2.4846, 0.6704, -0.49], [2.2899, 1.73, 1.0, 0.0, -4.9])),
        (0.4, ([0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1.0, 0.0, -4.9])),
    ],
)
def test_rlax_advantages(lam, expected):
    """rlax 4c5d25b, multistep_test.py, TruncatedGeneralizedAdvantageEstimationTest, whose tolerance is 1e-3.

    γ is 0.99 in its first lane, 0.9 in its second, where a discount of 0 ends an episode with the fourth step.
    """
    rewards = [[0.0, 0.0, 1.0, 0.0, -0.5], [0.0, 0.0, 0.0, 0.0, 1.0]]
    values = [[1.0, 4.0, -3.0, -2.0, -1.0, -1.0], [-3.0, -2.0, -1.0, 0.0, 5.0, -1.0]]
    for lane, gamma, ends in ((0, 0.99, ()), (1, 0.9, [(3, 0, TERMINATED)])):
        rollout = lanes_of([rewards[lane]], [values[lane][:-1]], [values[lane][1:]], ends)
        advantages = framework_returns.Gae(gamma=gamma, lam=lam)(rollout).returns - rollout.values
        assert advantages[:, 0].tolist() == pytest.approx(expected[lane], abs=1e-3)


def in_units(discounts, gamma):
    """Discounts that vary are a change of units from step to step: what is worth 1 at t is worth this at the start."""
    units = [1.0]
    for discount in discounts:
        units.append(units[-1] * discount / gamma)
    return torch.tensor(units, dtype=torch.float64)


RLAX = {  # multistep_test.py, setUp of LambdaReturnsTest and NStepBootstrappedReturnsTest
    "rewards": [[1.0, 0.0, -1.0, 0.0, 1.0], [0.5, 0.8, -0.7, 0.0, 2.1]],
    "discounts": [[0.5, 0.9, 1.0, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]],
    "successors": [[3.0, 1.0, 5.0, -5.0, 3.0], [-1.7, 1.2, 2.3, 2.2, 2.7]],
}
MONTE_CARLO = ([1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99])


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (
            framework_returns.LambdaReturns(gamma=0.5, lam=0.75),
            ([1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4], [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99]),
        ),
        (framework_returns.LambdaReturns(gamma=0.5, lam=1.0), MONTE_CARLO),
        (
            framework_returns.NStep(gamma=0.5, n=3),
            ([2.8, -3.15, 0.7, 1.7, 3.4], [1.2155, 0.714, 0.2576, 3.192, 3.99]),
        ),
        (framework_returns.NStep(gamma=0.5, n=5), MONTE_CARLO),
        (framework_returns.NStep(gamma=0.5, n=7), MONTE_CARLO),
    ],
    ids=["lambda_returns", "discounted_returns", "n=3", "n=5", "n=7"],
)
def test_rlax_returns(estimator, expected):
    """rlax 4c5d25b, multistep_test.py, whose tolerance is 1e-5; its discounts vary, so that units do here."""
    for lane in range(2):
        units = in_units(RLAX["discounts"][lane], 0.5)
        rewards = (torch.tensor(RLAX["rewards"][lane], dtype=torch.float64) * units[:-1]).tolist()
        successors = (torch.tensor(RLAX["successors"][lane], dtype=torch.float64) * units[1:]).tolist()
        returns = estimator(lanes_of([rewards], [rewards], [successors])).returns[:, 0] / units[:-1]
        assert returns.tolist() == pytest.approx(expected[lane], rel=1e-5)


def test_rlax_vtrace():
    """rlax 4c5d25b, vtrace_test.py, test_vtrace_td_error_and_advantage, whose tolerance is 1e-3.

    Discounts vary, so that units do here; the first lane's of 0 ends an episode with the first step.
    """
    behaviour = [[[8.9, 0.7], [5.0, 1.0], [0.6, 0.1], [-0.9, -0.1]], [[0.3, -5.0], [1.0, -8.0], [0.3, 1.7], [4.7, 3.3]]]
    target = [[[0.4, 0.5], [9.2, 8.8], [0.7, 4.4], [7.9, 1.4]], [[1.0, 0.9], [1.0, -1.0], [-4.3, 8.7], [0.8, 0.3]]]
    actions = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 1]])
    rewards = torch.tensor([[-1.3, -1.3, 2.3, 42.0], [1.3, 5.3, -3.3, -5.0]], dtype=torch.float64)
    values = torch.tensor([[2.1, 1.1, -3.1, 0.0, 8.4], [3.1, 0.1, -1.1, 7.4, -1.2]], dtype=torch.float64)
    errors = ([-1.6155143, -3.4973226, 1.8670533, 50.316002], [1.4662437, 3.6116405, -8.3327293e-5, -13.54])
    advantages = ([-1.6155143, -3.4973226, 1.8670534, 50.316002], [1.4662433, 3.6116405, -8.3369283e-5, -13.54])
    for lane, discounts in enumerate(([0.9, 0.89, 0.85, 0.99], [0.88, 1.0, 0.83, 0.95])):
        mu, pi = (
            torch.tensor(logits[lane], dtype=torch.float64).log_softmax(1).gather(1, actions[lane, :, None])
            for logits in (behaviour, target)
        )
        units = in_units(discounts, 0.9)
        rollout = lanes_of(
            [(rewards[lane] * units[:-1]).tolist()],
            [(values[lane, :-1] * units[:-1]).tolist()],
            [(values[lane, 1:] * units[1:]).tolist()],
            [(0, 0, TERMINATED)] if lane == 0 else (),
            log_probs=mu,
            target_log_probs=pi,
        )
        estimate = framework_returns.VTrace(gamma=0.9)(rollout)
        told_errors = (estimate.value_targets - rollout.values)[:, 0] / units[:-1]
        told_advantages = (estimate.weights * (estimate.returns - rollout.values))[:, 0] / units[:-1]
        # −8.33e-5 is a difference of numbers of size 1 in their float32: 1e-6 absolute
        assert told_errors.tolist() == pytest.approx(errors[lane], rel=1e-3, abs=1e-6)
        assert told_advantages.tolist() == pytest.approx(advantages[lane], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (
            TERMINATED,
            [454.8344, 376.1143, 291.298, 200, 464.5610, 383.1085, 295.387, 201, 474.2876, 390.1027, 299.476, 202],
        ),
        (
            TRUNCATED,
            [
                454.0109,
                375.2386,
                290.3669,
                199.01,
                462.9138,
                381.3571,
                293.5248,
                199.02,
                474.2876,
                390.1027,
                299.476,
                202,
            ],
        ),
    ],
    ids=["terminated", "truncated"],
)
def test_tianshou_returns(end, expected):
    """Tianshou f240205, test/base/test_returns.py, test_episodic_returns; four decimals. The last one terminates."""
    rewards = [101.0, 102, 103, 200, 104, 105, 106, 201, 107, 108, 109, 202]
    successors = [2.0, 3, 4, -1, 5, 6, 7, -2, 8, 9, 10, -3]
    rollout = lanes_of([rewards], [rewards], [successors], [(3, 0, end), (7, 0, end), (11, 0, TERMINATED)])
    returns = framework_returns.LambdaReturns(gamma=0.99, lam=0.95)(rollout).returns
    assert returns[:, 0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("rewards", "ends", "expected"),
    [
        (
            [0.0, 1, 2, 3, 4, 5, 6, 7],
            {0: TERMINATED, 3: TERMINATED, 5: TRUNCATED, 7: TERMINATED},
            [0, 1.23, 2.3, 3, 4.5, 5, 6.7, 7],
        ),
        ([7.0, 6, 1, 2, 3, 4, 5], {1: TERMINATED, 3: TERMINATED, 5: TERMINATED}, [7.6, 6, 1.2, 2, 3.4, 4, 5]),
        ([7.0, 6, 1, 2, 3, 4, 5], {1: TERMINATED, 3: TERMINATED, 6: TERMINATED}, [7.6, 6, 1.2, 2, 3.45, 4.5, 5]),
    ],
)
def test_tianshou_rewards_to_go(rewards, ends, expected):
    """Tianshou f240205, likewise: γ = 0.1, λ = 1 and no critic (of successors 0)."""
    rollout = lanes_of([rewards], [rewards], [[0.0] * len(rewards)], [(t, 0, end) for t, end in ends.items()])
    for estimator in (RewardsToGo(gamma=0.1), framework_returns.LambdaReturns(gamma=0.1, lam=1.0)):
        assert estimator(rollout).returns[:, 0].tolist() == pytest.approx(expected)


# The table of docs/reference/contracts.md, "Terminated and truncated": one row, one case.


class Script:
    """Lanes that count their steps, 0, 1, 2, …, and end as written; a new episode begins at 10, 20, …"""

    observation_space, action_space = Discrete(100), Discrete(1)

    def __init__(self, lanes):
        self.ends, self.clock = lanes, 0

    def reset(self, generator):
        self.states = torch.zeros(len(self.ends), dtype=torch.int64)
        return self.states

    def step(self, actions, generator):
        flags = torch.tensor([lane[self.clock] if self.clock < len(lane) else TERMINATED for lane in self.ends])
        self.clock += 1
        successors, ended = self.states + 1, flags.any(1)
        self.states = torch.where(ended, (self.states // 10 + 1) * 10, successors)
        return Step(self.states, successors, torch.ones(len(flags)), flags[:, 0], flags[:, 1])


class Critic(torch.nn.Module):
    """V(s) = 100 + s."""

    def act(self, inputs, generator):
        return Action(torch.zeros_like(inputs.observations), torch.zeros(len(inputs.observations)))

    def evaluate(self, inputs, actions, entropies):
        return Evaluation(torch.zeros(len(actions)))

    def values(self, inputs):
        return 100.0 + inputs.observations


def collected(lanes, **amount):
    shard = Shard(
        environment=Script(lanes),
        lanes=len(lanes),
        **{"steps": None, "episodes": None, "fixed_steps": None, **amount},
        seed=0,
        number=0,
        device=torch.device("cpu"),
        labels=("environment 'script' (plugin tests)", "policy 'critic' (plugin tests)"),
    )
    return collect([shard], Critic(), Critic(), 0, True)[0]


def two_steps(end):
    """Of two fixed steps the first ends so: its successor is state 1, of value 101."""
    return collected([[end, TERMINATED]], fixed_steps=2)


PADDED = [[NO_END, TERMINATED], [TERMINATED]]  # one lane of two steps, one of one
TABLE = {  # of each row: the rollout, the step, its successor's value, its return with γ = 1 without a critic
    "terminated": (lambda: two_steps(TERMINATED), (0, 0), 0.0, 1.0),
    "truncated": (lambda: two_steps(TRUNCATED), (0, 0), 101.0, 1.0),
    "terminated and truncated": (lambda: two_steps(BOTH), (0, 0), 0.0, 1.0),
    "neither, and the episode goes on in the next row": (lambda: two_steps(NO_END), (0, 0), 101.0, 2.0),
    "neither, in the last row of `rollout.fixed_steps`": (
        lambda: collected([[NO_END, NO_END]], fixed_steps=2),
        (1, 0),
        102.0,
        None,
    ),
    "padding": (lambda: collected(PADDED, episodes=2), (1, 1), 0.0, 0.0),
}


def test_the_table_has_these_rows():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "reference" / "contracts.md").read_text()
    table = text.split("## Terminated and truncated")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:] == list(TABLE)


@pytest.mark.parametrize("row", TABLE)
def test_terminated_and_truncated(row):
    make, (t, n), successor, to_go = TABLE[row]
    rollout = make()
    assert float(rollout.successor_values[t, n]) == successor
    if row == "padding":
        assert not rollout.mask[t, n]
        assert not rollout.terminated[t, n] | rollout.truncated[t, n]
    elif row.startswith("neither, and"):
        assert rollout.successor_values[t, n] == rollout.values[t + 1, n]
    if to_go is None:
        assert all("complete_episodes" in cls.needs for cls in (RewardsToGo, TotalReturn))
    else:
        assert float(RewardsToGo(gamma=1.0)(rollout).returns[t, n]) == to_go
    if row != "padding":  # what one that bootstraps makes of it: one reward of 1, and the next or the successor's value
        following = 1.0 if row.startswith("neither, and") else successor
        expected = 1.0 + 0.5 * following
        assert float(framework_returns.LambdaReturns(gamma=0.5, lam=1.0)(rollout).returns[t, n]) == expected
        assert float(framework_returns.TD0(gamma=0.5)(rollout).returns[t, n]) == 1.0 + 0.5 * successor


@pytest.mark.parametrize("name", [*ESTIMATORS, "rewards_to_go", "total_return"])
def test_one_step_of_one_lane(name):
    """T = 1, N = 1, of every estimator, unfinished at the edge where it may be."""
    monte_carlo = {"rewards_to_go": RewardsToGo(gamma=0.9), "total_return": TotalReturn(gamma=0.9)}
    whole = name in monte_carlo
    ends = [(0, 0, TERMINATED)] if whole else []
    rollout = lanes_of([[1.25]], [[0.5]], [[-0.75]], ends)
    estimate = monte_carlo[name](rollout) if whole else ESTIMATORS[name](framework_returns)(rollout)
    assert estimate.returns.shape == (1, 1)
    expected = rollout.rewards if whole else rollout.rewards + 0.9 * rollout.successor_values
    assert torch.allclose(estimate.returns, expected, atol=EXACT)
