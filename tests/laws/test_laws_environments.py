"""Laws of environments: built-in environments satisfy them."""

import pytest
import torch
from attrs import evolve
from correct_environments import (
    Deterministic,
    Dial,
    Drift,
    EnvironmentSettings,
    Forbidding,
    FromHome,
    LateRandomness,
    PureDrift,
    ReturnsToStart,
    Slippery,
    Stochastic,
    Strip,
)
from framework_classic import Acrobot, CartPole, MountainCar, Pendulum
from framework_corridor import Corridor
from framework_gymnasium import Gymnasium
from framework_line_world import LineWorld
from framework_tabular_worlds import Cliff, RandomMDP, ShortCorridor
from mutants import EXAMPLES

from framework.testing import check
from framework.testing.environments.frequencies import chi_square
from framework.testing.environments.randomness import fisher

SOUND = {
    "line_world": LineWorld(),
    "line_world in groups": LineWorld(group_size=2, max_steps=5),
    "line_world of one step": LineWorld(goal=1, max_steps=1),
    "line_world without limit": LineWorld(max_steps=0),
    "corridor": Corridor(),
    "short_corridor": ShortCorridor(),
    "cliff": Cliff(),
    "random_mdp": RandomMDP(),
    "random_mdp, larger": RandomMDP(states=9, actions=3, branching=4, seed=3),
    "cartpole": CartPole(),
    "pendulum": Pendulum(),
    "mountain_car": MountainCar(max_steps=20),
    "acrobot": Acrobot(max_steps=20),
    **{
        f"{id}, {autoreset}": Gymnasium(id=id, vectorization_mode="sync", autoreset=autoreset)
        for id in ("CartPole-v1", "FrozenLake-v1")
        for autoreset in ("next_step", "same_step", "disabled")
    },
    "CartPole-v1, vectorised": Gymnasium(id="CartPole-v1"),
    "CliffWalking-v1": Gymnasium(id="CliffWalking-v1", max_episode_steps=20),
}


ALIKE = {  # not in the quick profile: nearly the same code as others, or slow
    "line_world of one step", "line_world without limit", "random_mdp, larger", "CartPole-v1, same_step",
    "CartPole-v1, disabled", "FrozenLake-v1, next_step", "FrozenLake-v1, disabled", "CliffWalking-v1",
    "CartPole-v1, vectorised", "acrobot", "mountain_car", "short_corridor", "CartPole-v1, next_step", "pendulum",
    "cliff", "FrozenLake-v1, same_step",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in SOUND]
)
def test_built_in_environments_satisfy_every_law(name, loaded):
    report = check(SOUND[name], "environment", examples=min(EXAMPLES, 10), loaded=loaded)
    assert [(verdict.law.name, verdict.reason, verdict.error) for verdict in report.failed] == []
    assert len(report.of("passed")) >= 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "lanes",
    [
        Stochastic,
        Deterministic,
        Drift,
        PureDrift,
        Slippery,
        LateRandomness,
        Forbidding,
        FromHome,
        Strip,
        ReturnsToStart,
        Dial,
    ],
)
def test_the_environments_for_mutants_are_correct(lanes, loaded):
    report = check(EnvironmentSettings(lanes), "environment", examples=EXAMPLES, loaded=loaded)
    assert [(verdict.law.name, verdict.reason) for verdict in report.failed] == []


def verdict_of(law, lanes, loaded):
    return check(EnvironmentSettings(lanes), "environment", only=[law], examples=100, loaded=loaded).verdicts[0]


def test_an_environment_that_draws_is_stochastic(loaded):
    """Even if a rare event did not happen in the steps that were observed, or if random numbers are drawn later."""
    verdict = verdict_of("every_episode_is_like_the_first", Slippery, loaded)
    assert (verdict.outcome, verdict.reason) == ("not applicable", "it is stochastic")
    assert verdict_of("every_episode_is_like_the_first", LateRandomness, loaded).outcome == "passed"


@pytest.mark.parametrize("law", ["the_time_limit_is_kept", "steps_are_as_frequent_as_the_tables_say"])
def test_masked_actions_are_not_taken(law, loaded):
    assert verdict_of(law, Forbidding, loaded).outcome == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [ReturnsToStart, Dial])
def test_the_law_of_successors_reports_ends_without_information(lanes, loaded):
    verdict = verdict_of("successors_are_where_the_episode_ended", lanes, loaded)
    assert verdict.outcome == "not applicable"
    assert (
        "episodes ended in the start state, which is always the same: too few truncations for a verdict"
        in verdict.reason
    )


@pytest.mark.slow
def test_laws_of_ends_need_enough_episodes(loaded):
    endless = type("Endless", (Drift,), {"move": lambda self, actions, generator: self.x})
    endless.step = lambda self, *given: evolve(Drift.step(self, *given), truncated=torch.zeros(self.count, dtype=bool))
    verdict = verdict_of("successors_are_where_the_episode_ended", endless, loaded)
    assert verdict.outcome == "not applicable"
    assert verdict.reason == "only 0 episodes ended with the next one starting in the same row: too few for a verdict"
    verdict = verdict_of("later_episodes_are_as_long_as_the_first", endless, loaded)
    assert (verdict.outcome, verdict.reason) == (
        "not applicable",
        "there were only 32 first episodes and 0 later ones, of at most 250 steps",
    )


def test_chi_square_is_pearsons():
    """16 of 20 where 10 are expected: χ² = 7.2 with one degree of freedom, whose tail is erfc(√3.6) = 0.00729."""
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert chi_square(torch.tensor([16.0, 4.0]), half) == pytest.approx(0.007290358, rel=1e-6)
    assert chi_square(torch.tensor([1.0, 0.0]), half) == 1.0  # too few to say anything
    assert chi_square(torch.tensor([9.0, 1.0]), torch.tensor([1.0, 0.0])) == 0.0  # impossible


def test_fishers_test_on_the_lady_tasting_tea():
    """All four of four cups right: 1 in C(8, 4) = 70; three or more: 17 in 70 (Fisher 1935, chapter II)."""
    assert fisher(4, 0, 0, 4) == pytest.approx(1 / 70)
    assert fisher(3, 1, 1, 3) == pytest.approx(17 / 70)
    assert fisher(0, 4, 4, 0) == 1


def test_the_chi_square_test_has_the_stated_false_alarm_rate():
    """Of 2000 multinomial counts with small cells, p < 1 % comes in 1 % of cases, within six standard errors."""
    generator = torch.Generator().manual_seed(0)
    chances = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01], dtype=torch.float64)
    drawn = torch.multinomial(chances.expand(2000, 5), 200, replacement=True, generator=generator)
    found = [chi_square(torch.bincount(row, minlength=5).double(), chances) for row in drawn]
    assert sum(p < 0.01 for p in found) / 2000 < 0.01 + 6 * (0.01 * 0.99 / 2000) ** 0.5
