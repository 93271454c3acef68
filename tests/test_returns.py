"""The bootstrapping estimators against a forward-view float64 oracle, law by law; each law kills a mutant of the code.

Stories' numbers are quarters of up to 2 in size, their paths at most five steps long: sums stay below 64 and, in
float64, within 1e-12 of any other order of summation; in float32 within 64 · 20 · 2⁻²⁴ < 1e-4.
"""

import math
import pathlib

import attrs
import framework_returns
import pytest
import torch
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from gymnasium.spaces import Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import is_killed, mutate

from framework import Action, Evaluation, Rollout, Step
from framework.collecting.rollout import collect
from framework.collecting.shard import Shard
from framework.returns import FEW_LANES
from framework.testing.strategies import BOTH, NO_END, TERMINATED, TRUNCATED, rollouts, tables_of

GAMMAS = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])
LAMBDAS = st.sampled_from([0.0, 0.3, 0.95, 1.0])
CLIPS = st.sampled_from([0.25, 1.0, 1.5, 10.0])
STEPS = st.integers(1, 10)
EXACT = 1e-12


# The oracle: forward views, each from its definition, of one step of one lane; Python floats throughout.


class Path:
    """The rewards, values and ratios from a step on, to the first end or to the rollout's edge."""

    def __init__(self, rollout, t, n, gamma):
        rows = [t]
        while (
            not (rollout.terminated[rows[-1], n] or rollout.truncated[rows[-1], n]) and rows[-1] < len(rollout.mask) - 1
        ):
            rows.append(rows[-1] + 1)
        column = lambda table: [float(table[row, n]) for row in rows]  # noqa: E731
        self.rewards, self.values = column(rollout.rewards), column(rollout.values)
        self.successors, self.gamma, self.length = column(rollout.successor_values), gamma, len(rows)
        target = rollout.log_probs if rollout.target_log_probs is None else rollout.target_log_probs
        self.ratios = [math.exp(a - b) for a, b in zip(column(target), column(rollout.log_probs), strict=True)]

    def n_step(self, n):
        """G = r₁ + γr₂ + … + γⁿ⁻¹rₙ + γⁿV(sₙ), Sutton & Barto 2018, eq. 7.1, of at most the steps that there are."""
        n = min(n, self.length)
        rewards = sum(self.gamma**k * self.rewards[k] for k in range(n))
        return rewards + self.gamma**n * self.successors[n - 1]

    def monte_carlo(self):
        return self.n_step(self.length)

    def lambda_return(self, lam):
        """(1 − λ) Σ λⁿ⁻¹ G⁽ⁿ⁾ and the rest of the weight on the last, Sutton & Barto 2018, eq. 12.3 and 12.9."""
        mixed = sum((1 - lam) * lam ** (n - 1) * self.n_step(n) for n in range(1, self.length))
        return mixed + lam ** (self.length - 1) * self.monte_carlo()

    def errors(self):
        """δ of each step."""
        pairs = zip(self.rewards, self.successors, self.values, strict=True)
        return [reward + self.gamma * successor - value for reward, successor, value in pairs]

    def gae(self, lam):
        """Σ (γλ)ˡ δₜ₊ₗ, Schulman et al. 2016, arXiv:1506.02438, eq. 16."""
        return sum((self.gamma * lam) ** k * error for k, error in enumerate(self.errors()))

    def vtrace_target(self, rho_clip, c_clip):
        """V + Σ γᵏ (Π cᵢ) ρₖδₖ, Espeholt et al. 2018, arXiv:1802.01561, eq. 1."""
        target = self.values[0]
        for k, error in enumerate(self.errors()):
            traces = math.prod(min(c_clip, ratio) for ratio in self.ratios[:k])
            target += self.gamma**k * traces * min(rho_clip, self.ratios[k]) * error
        return target


def told(rollout, gamma, quantity):
    """`quantity` of the path from each real step, as a table, 0 elsewhere."""
    table = torch.zeros(rollout.mask.shape, dtype=torch.float64)
    for t, n in rollout.mask.nonzero().tolist():
        table[t, n] = quantity(Path(rollout, t, n, gamma))
    return table


def close(estimate, expected, rollout, tolerance=EXACT):
    """At real steps equal, elsewhere finite."""
    assert estimate.isfinite().all()
    assert estimate.shape == rollout.mask.shape
    assert torch.allclose(estimate.double()[rollout.mask], expected.double()[rollout.mask], rtol=0, atol=tolerance)


# The laws: each takes the module under test first, so that a mutant can be put in its place.


def law_td0(part, rollout, gamma):
    estimate = part.TD0(gamma=gamma)(rollout)
    close(estimate.returns, told(rollout, gamma, lambda path: path.n_step(1)), rollout)
    close(estimate.value_targets, estimate.returns, rollout, 0)


def law_n_step(part, rollout, gamma, n):
    estimate = part.NStep(gamma=gamma, n=n)(rollout)
    close(estimate.returns, told(rollout, gamma, lambda path: path.n_step(n)), rollout)
    close(estimate.value_targets, estimate.returns, rollout, 0)


def law_lambda_returns(part, rollout, gamma, lam):
    for cls in (part.LambdaReturns, part.Gae):
        estimate = cls(gamma=gamma, lam=lam)(rollout)
        close(estimate.returns, told(rollout, gamma, lambda path: path.lambda_return(lam)), rollout)
        close(estimate.value_targets, estimate.returns, rollout, 0)


def law_vtrace(part, rollout, gamma, rho_clip, c_clip):
    """Targets of eq. 1; returns r + γv of the next step, or of the successor where the trace is cut; weights ρ."""
    estimate = part.VTrace(gamma=gamma, rho_clip=rho_clip, c_clip=c_clip)(rollout)
    targets = told(rollout, gamma, lambda path: path.vtrace_target(rho_clip, c_clip))
    tolerance = EXACT * max(1, min(c_clip, math.e**2)) ** 8  # log-ratios are at most 2, paths at most 5 steps long
    close(estimate.value_targets, targets, rollout, tolerance)
    returns = torch.zeros_like(targets)
    for t, n in rollout.mask.nonzero().tolist():
        path = Path(rollout, t, n, gamma)
        following = float(targets[t + 1, n]) if path.length > 1 else path.successors[0]
        returns[t, n] = path.rewards[0] + gamma * following
    close(estimate.returns, returns, rollout, tolerance)
    close(estimate.weights, told(rollout, gamma, lambda path: min(rho_clip, path.ratios[0])), rollout)


def law_complete_episodes_are_rewards_to_go(part, rollout, gamma):
    """Where every episode terminates, λ = 1 asks no critic: the rewards to go."""
    rollout = attrs.evolve(rollout, terminated=rollout.terminated | rollout.truncated)
    successors = rollout.successor_values.masked_fill(rollout.terminated, 0)
    rollout = attrs.evolve(rollout, successor_values=successors)
    one, other = part.LambdaReturns(gamma=gamma, lam=1.0)(rollout), RewardsToGo(gamma=gamma)(rollout)
    close(one.returns, other.returns, rollout)


def law_on_policy_vtrace_is_monte_carlo(part, rollout, gamma, rho_clip, c_clip):
    """π = μ and nothing clipped: the λ = 1 returns as targets, and weights of 1; said with and without log-probs."""
    expected = told(rollout, gamma, Path.monte_carlo)
    for target in (None, rollout.log_probs):
        on_policy = attrs.evolve(rollout, target_log_probs=target)
        estimate = part.VTrace(gamma=gamma, rho_clip=max(1.0, rho_clip), c_clip=max(1.0, c_clip))(on_policy)
        close(estimate.value_targets, expected, rollout)
        close(estimate.returns, expected, rollout)
        close(estimate.weights, torch.ones_like(expected), rollout, 0)


def law_gae_is_a_sum_of_errors(part, rollout, gamma, lam):
    estimate = part.Gae(gamma=gamma, lam=lam)(rollout)
    close(estimate.returns - rollout.values, told(rollout, gamma, lambda path: path.gae(lam)), rollout)


def law_ends_cut_time(part, rollout, settings_of, cut):
    """Rows up to one where every lane's trace is cut can be told alone; so can, with TD(0), those up to any row."""
    cut = min(cut, len(rollout.mask) - 1)
    head = attrs.evolve(rollout, **{name: table[: cut + 1] for name, table in tables_of(rollout).items()})
    for whole, alone in pairs(part.TD0()(rollout), part.TD0()(head)):
        close(alone, whole[: cut + 1], head, 0)
    ended = rollout.terminated.clone()
    ended[cut] |= rollout.mask[cut] & ~rollout.truncated[cut]
    rollout = attrs.evolve(
        rollout, terminated=ended, successor_values=rollout.successor_values.masked_fill(ended & ~rollout.truncated, 0)
    )
    head = attrs.evolve(rollout, **{name: table[: cut + 1] for name, table in tables_of(rollout).items()})
    for whole, alone in pairs(settings_of(part)(rollout), settings_of(part)(head)):
        close(alone, whole[: cut + 1], head)


def law_nothing_carries_a_gradient(part, rollout, settings_of):
    asked = {
        name: table.clone().requires_grad_() for name, table in tables_of(rollout).items() if table.is_floating_point()
    }
    for table in pairs(settings_of(part)(attrs.evolve(rollout, **asked))):
        assert not table[0].requires_grad


def pairs(*estimates):
    """Of estimates, the tables that stand at the same place."""
    for name in ("returns", "value_targets", "weights"):
        if getattr(estimates[0], name) is not None:
            yield tuple(getattr(estimate, name) for estimate in estimates)


def law_vtrace_gradient_is_the_same_for_every_baseline(part, logits, behaviour, arm_rewards, baseline):
    """Two arms, one step, μ > 0 and no clipping: E_μ[ρ(r − b)∇log π] = E_π[r∇log π], enumerated."""
    logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    mu = torch.tensor(behaviour, dtype=torch.float64).log_softmax(0)
    one = torch.ones(1, 2, dtype=torch.bool)
    rollout = Rollout(
        observations=one,
        actions=torch.tensor([[0, 1]]),
        log_probs=mu[None],
        target_log_probs=logits.detach().log_softmax(0)[None],
        rewards=torch.tensor([arm_rewards], dtype=torch.float64),
        terminated=one,
        truncated=~one,
        mask=one,
        times=torch.zeros(1, 2, dtype=torch.int64),
        episodes=torch.tensor([[0, 1]]),
        values=torch.full((1, 2), baseline, dtype=torch.float64),
        successor_values=torch.zeros(1, 2, dtype=torch.float64),
    )
    estimate = part.VTrace(rho_clip=1e9, c_clip=1e9)(rollout)
    advantages = (estimate.weights * (estimate.returns - rollout.values))[0]
    expected = torch.autograd.grad(logits.softmax(0) @ rollout.rewards[0], logits)[0]
    found = torch.autograd.grad((mu.exp() * advantages * logits.log_softmax(0)).sum(), logits)[0]
    assert torch.allclose(found, expected, atol=1e-9)


ROLLOUTS, WHOLE = rollouts(whole=False, values=True), rollouts(whole=True, values=True)
ESTIMATORS = {
    "td0": lambda part: part.TD0(gamma=0.9),
    "n_step": lambda part: part.NStep(gamma=0.9, n=3),
    "lambda_returns": lambda part: part.LambdaReturns(gamma=0.9, lam=0.7),
    "gae": lambda part: part.Gae(gamma=0.9, lam=0.7),
    "vtrace": lambda part: part.VTrace(gamma=0.9),
}
ANY = st.sampled_from(list(ESTIMATORS.values()))
SEEDS = st.integers(0, 2**31)
TWO = st.lists(st.integers(-8, 8).map(lambda n: n / 4), min_size=2, max_size=2)
LAWS = {
    law_td0: (ROLLOUTS, GAMMAS),
    law_n_step: (ROLLOUTS, GAMMAS, STEPS),
    law_lambda_returns: (ROLLOUTS, GAMMAS, LAMBDAS),
    law_vtrace: (ROLLOUTS, GAMMAS, CLIPS, CLIPS),
    law_complete_episodes_are_rewards_to_go: (WHOLE, GAMMAS),
    law_on_policy_vtrace_is_monte_carlo: (ROLLOUTS, GAMMAS, CLIPS, CLIPS),
    law_gae_is_a_sum_of_errors: (ROLLOUTS, GAMMAS, LAMBDAS),
    law_ends_cut_time: (ROLLOUTS, ANY, st.integers(0, 7)),
    law_nothing_carries_a_gradient: (ROLLOUTS, ANY),
    law_vtrace_gradient_is_the_same_for_every_baseline: (TWO, TWO, TWO, st.sampled_from([-5.0, 0.0, 0.5, 100.0])),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    @given(st.tuples(*LAWS[law]))
    def check(drawn):
        law(framework_returns, *drawn)

    check()


MANY = rollouts(whole=False, values=True, min_lanes=FEW_LANES + 1, max_lanes=FEW_LANES + 1)


@pytest.mark.parametrize("law", [law_n_step, law_lambda_returns, law_vtrace], ids=lambda law: law.__name__)
def test_law_of_many_lanes(law):
    """More than FEW_LANES lanes go another way through the recursion."""

    @settings(max_examples=4)
    @given(st.tuples(MANY, *LAWS[law][1:]))
    def check(drawn):
        law(framework_returns, *drawn)

    check()


def recursions(*changes):
    """The plugin upon a mutant of `framework.returns`."""
    mutant = mutate("framework.returns", *changes)
    names = ("going_on", "lambda_returns", "n_step_returns", "vtrace_targets")
    return mutate("framework_returns", **{name: getattr(mutant, name) for name in names})


def plugin(*changes, **replaced):
    return mutate("framework_returns", *changes, **replaced)


GOING = "(terminated | truncated).logical_not_()"
TD0_LINE = "torch.add(rollout.rewards, _successors(rollout), alpha=self.gamma).detach_()"
LAMBDA_CALL = "lambda_returns(rollout.rewards, _successors(rollout), _going(rollout), self.gamma, self.lam)"
N_CALL = "n_step_returns(rollout.rewards, _successors(rollout), _going(rollout), self.gamma, self.n)"
MUTANTS = {
    "TD(0) forgets the discount": (law_td0, lambda: plugin((TD0_LINE, TD0_LINE.replace("self.gamma", "1.0")))),
    "TD(0) takes the step's own value": (
        law_td0,
        lambda: plugin((TD0_LINE, TD0_LINE.replace("_successors(rollout)", "rollout.values"))),
    ),
    "n steps go past an end": (law_n_step, lambda: recursions((GOING, "torch.ones_like(mask)"))),
    "n steps go past a truncation": (law_n_step, lambda: recursions((GOING, "terminated.logical_not()"))),
    "n steps are one span more": (law_n_step, lambda: recursions(("range(times)", "range(times + 1)"))),
    "spans do not grow": (law_n_step, lambda: recursions(("            span *= 2", "            span *= 1"))),
    "longer spans forget the discount": (
        law_n_step,
        lambda: recursions(("factors.roll(-span, 0).mul_(factors)", "factors.roll(-span, 0)")),
    ),
    "n steps do not reach the edge": (
        law_n_step,
        lambda: recursions(("(0, 0, 0, span))", "(0, 0, 0, span), value=1.0)"), ("going[-1] = False", "pass")),
    ),
    "n steps are one more": (law_n_step, lambda: plugin((N_CALL, N_CALL.replace("self.n)", "self.n + 1)")))),
    "λ and 1 − λ change places": (
        law_lambda_returns,
        lambda: plugin((LAMBDA_CALL, LAMBDA_CALL.replace("self.lam", "1 - self.lam"))),
    ),
    "λ-returns do not bootstrap where cut": (
        law_lambda_returns,
        lambda: recursions(("torch.rsub(trace, 1, alpha=lam)", "trace * (1 - lam)")),
    ),
    "V-trace clips ρ at c̄": (law_vtrace, lambda: plugin(("max=self.rho_clip", "max=self.c_clip"))),
    "V-trace clips c at ρ̄": (law_vtrace, lambda: plugin(("ratios.clamp_(max=self.c_clip)", "weights"))),
    "V-trace has the ratio upside down": (
        law_vtrace,
        lambda: plugin(
            ("torch.sub(target.detach(), rollout.log_probs.detach())", "torch.sub(rollout.log_probs, target)")
        ),
    ),
    "V-trace's returns take V where v belongs": (
        law_vtrace,
        lambda: plugin(("going[:-1], targets[1:]", "going[:-1], rollout.values[1:]")),
    ),
    "V-trace does not cut its traces": (
        law_vtrace,
        lambda: recursions(("torch.mul(traces.detach(), going)", "traces.clone()")),
    ),
    "the successor of a terminated step counts": (
        law_complete_episodes_are_rewards_to_go,
        lambda: plugin(
            ("    return rollout.successor_values\n", "    return rollout.successor_values + rollout.terminated\n")
        ),
    ),
    "on-policy V-trace has no log-probs": (
        law_on_policy_vtrace_is_monte_carlo,
        lambda: plugin(
            (
                "rollout.log_probs if rollout.target_log_probs is None",
                "rollout.values if rollout.target_log_probs is None",
            )
        ),
    ),
    "GAE is discounted by γ alone": (
        law_gae_is_a_sum_of_errors,
        lambda: recursions(("trace.mul_(gamma * lam)", "trace.mul_(gamma)")),
    ),
    "time leaks": (
        law_ends_cut_time,
        lambda: plugin(
            ("    return rollout.successor_values\n", "    return rollout.successor_values.flip(0).cumsum(0).flip(0)\n")
        ),
    ),
    "keeps TD(0)'s graph": (
        law_nothing_carries_a_gradient,
        lambda: plugin((TD0_LINE, TD0_LINE.removesuffix(".detach_()"))),
    ),
    "keeps V-trace's graph": (
        law_nothing_carries_a_gradient,
        lambda: plugin((".add_(rollout.rewards.detach())", ".add(rollout.rewards)")),
    ),
    "V-trace leaves the ratio out of the weights": (
        law_vtrace_gradient_is_the_same_for_every_baseline,
        lambda: plugin((", targets, weights)", ", targets, torch.ones_like(weights))")),
    ),
}


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, make = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(make(),))


@pytest.mark.slow
def test_stories_tell_every_edge():
    """What the laws are checked on: each kind of end, each edge, reset rows, padding, one step, one lane."""
    seen = set()

    @settings(max_examples=300, derandomize=True, database=None)
    @given(st.one_of(ROLLOUTS, WHOLE))
    def look(rollout):
        ends = rollout.terminated | rollout.truncated
        after_an_end = torch.cat([ends[:1] & False, ends[:-1]])
        seen.update(
            name
            for name, found in {
                "terminated": (rollout.terminated & ~rollout.truncated).any(),
                "truncated": (rollout.truncated & ~rollout.terminated).any(),
                "both": (rollout.truncated & rollout.terminated).any(),
                "unfinished at the edge": (rollout.mask[-1] & ~ends[-1]).any(),
                "reset row before a step": (after_an_end & ~rollout.mask)[:-1].logical_and(rollout.mask[1:]).any(),
                "padding": not rollout.mask[-1].all(),
                "one step": len(rollout.mask) == 1,
                "one lane": rollout.mask.shape[1] == 1,
            }.items()
            if found
        )

    look()
    assert len(seen) == 8, seen


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
    text = (pathlib.Path(__file__).parent.parent / "docs" / "reference" / "contracts.md").read_text()
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
