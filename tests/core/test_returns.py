"""The bootstrapping estimators against a forward-view float64 oracle, law by law; each law kills a mutant of the code.

Stories' numbers are quarters of up to 2 in size, their paths at most five steps long: sums stay below 64 and, in
float64, within 1e-12 of any other order of summation; in float32 within 64 · 20 · 2⁻²⁴ < 1e-4.
"""

import math

import attrs
import framework_returns
import pytest
import torch
from framework_reinforce.monte_carlo import RewardsToGo
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import is_killed, mutate
from return_cases import ESTIMATORS, EXACT

from framework import Rollout
from framework.returns import FEW_LANES
from framework.testing.strategies import rollouts, tables_of

GAMMAS = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])
LAMBDAS = st.sampled_from([0.0, 0.3, 0.95, 1.0])
CLIPS = st.sampled_from([0.25, 1.0, 1.5, 10.0])
STEPS = st.integers(1, 10)


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


def by_oracle(rollout, gamma, quantity):
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
    close(estimate.returns, by_oracle(rollout, gamma, lambda path: path.n_step(1)), rollout)
    close(estimate.value_targets, estimate.returns, rollout, 0)


def law_n_step(part, rollout, gamma, n):
    estimate = part.NStep(gamma=gamma, n=n)(rollout)
    close(estimate.returns, by_oracle(rollout, gamma, lambda path: path.n_step(n)), rollout)
    close(estimate.value_targets, estimate.returns, rollout, 0)


def law_lambda_returns(part, rollout, gamma, lam):
    for cls in (part.LambdaReturns, part.Gae):
        estimate = cls(gamma=gamma, lam=lam)(rollout)
        close(estimate.returns, by_oracle(rollout, gamma, lambda path: path.lambda_return(lam)), rollout)
        close(estimate.value_targets, estimate.returns, rollout, 0)


def law_vtrace(part, rollout, gamma, rho_clip, c_clip):
    """Targets of eq. 1; returns r + γv of the next step, or of the successor where the trace is cut; weights ρ."""
    estimate = part.VTrace(gamma=gamma, rho_clip=rho_clip, c_clip=c_clip)(rollout)
    targets = by_oracle(rollout, gamma, lambda path: path.vtrace_target(rho_clip, c_clip))
    tolerance = EXACT * max(1, min(c_clip, math.e**2)) ** 8  # log-ratios are at most 2, paths at most 5 steps long
    close(estimate.value_targets, targets, rollout, tolerance)
    returns = torch.zeros_like(targets)
    for t, n in rollout.mask.nonzero().tolist():
        path = Path(rollout, t, n, gamma)
        following = float(targets[t + 1, n]) if path.length > 1 else path.successors[0]
        returns[t, n] = path.rewards[0] + gamma * following
    close(estimate.returns, returns, rollout, tolerance)
    close(estimate.weights, by_oracle(rollout, gamma, lambda path: min(rho_clip, path.ratios[0])), rollout)


def law_complete_episodes_are_rewards_to_go(part, rollout, gamma):
    """Where every episode terminates, λ = 1 asks no critic: the rewards to go."""
    rollout = attrs.evolve(rollout, terminated=rollout.terminated | rollout.truncated)
    successors = rollout.successor_values.masked_fill(rollout.terminated, 0)
    rollout = attrs.evolve(rollout, successor_values=successors)
    one, other = part.LambdaReturns(gamma=gamma, lam=1.0)(rollout), RewardsToGo(gamma=gamma)(rollout)
    close(one.returns, other.returns, rollout)


def law_on_policy_vtrace_is_monte_carlo(part, rollout, gamma, rho_clip, c_clip):
    """π = μ and nothing clipped: the λ = 1 returns as targets, and weights of 1; said with and without log-probs."""
    expected = by_oracle(rollout, gamma, Path.monte_carlo)
    for target in (None, rollout.log_probs):
        on_policy = attrs.evolve(rollout, target_log_probs=target)
        estimate = part.VTrace(gamma=gamma, rho_clip=max(1.0, rho_clip), c_clip=max(1.0, c_clip))(on_policy)
        close(estimate.value_targets, expected, rollout)
        close(estimate.returns, expected, rollout)
        close(estimate.weights, torch.ones_like(expected), rollout, 0)


def law_gae_is_a_sum_of_errors(part, rollout, gamma, lam):
    estimate = part.Gae(gamma=gamma, lam=lam)(rollout)
    close(estimate.returns - rollout.values, by_oracle(rollout, gamma, lambda path: path.gae(lam)), rollout)


def law_ends_cut_time(part, rollout, settings_of, cut):
    """Rows up to one where every lane's trace is cut can be computed alone; so can, with TD(0), those up to any row."""
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
    names = ("continues", "lambda_returns", "n_step_returns", "vtrace_targets")
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
        lambda: recursions(("(0, 0, 0, span))", "(0, 0, 0, span), value=1.0)"), ("continues[-1] = False", "pass")),
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
        lambda: plugin(("continues[:-1], targets[1:]", "continues[:-1], rollout.values[1:]")),
    ),
    "V-trace does not cut its traces": (
        law_vtrace,
        lambda: recursions(("torch.mul(traces.detach(), continues)", "traces.clone()")),
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
