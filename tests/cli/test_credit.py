"""`framework credit`: the picture shows what the estimators say."""

import attrs
import pytest
import torch
from attrs import evolve, frozen
from framework_returns import TD0

from framework import Estimate
from framework.cli import credit, main, options
from framework.config import DEFAULTS, RolloutSettings
from framework.exact import state_values
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.stages import Core


def drawn(**tree):
    loaded = load()
    config = configure(loaded, {**DEFAULTS, "reports": [], **tree})
    run = build(attrs.evolve(config, rollout=RolloutSettings(lanes=1, episodes=1)), loaded, Core())
    run.needs -= {"values"}
    rollout = credit.episode(run)
    credits = {name: (estimate, values) for name, estimate, values in credit.estimates(run, rollout, loaded)}
    return run, rollout, credits, credit.draw(run, rollout, credits)


def test_every_estimator_has_a_row_of_its_returns_and_advantages():
    run, rollout, credits, figure = drawn()
    assert [label.split("\n")[0] for label in credits] == run.loaded.names("estimator")
    assert len(figure.axes) == 2 * len(credits)
    for row, (name, (estimate, values)) in enumerate(credits.items()):
        left, right = figure.axes[2 * row : 2 * row + 2]
        assert left.get_ylabel() == name
        heights = [[patch.get_height() for patch in axes.patches] for axes in (left, right)]
        returns = estimate.returns[:, 0]
        assert heights[0] == pytest.approx(returns.tolist())
        advantages = returns - values[rollout.observations[:, 0]]  # all weights are 1 here: the policy's own actions
        assert heights[1] == pytest.approx(advantages.tolist())


def test_the_critic_is_the_exact_value():
    """V of the untrained policy with the world's time limit and the estimator's γ; of the successor, too."""
    run, rollout, credits, _ = drawn()
    with torch.no_grad():
        probabilities = run.policy.table().exp().double()
    exact = state_values(run.environment.mdp(), probabilities, 0.99).float()
    estimate, values = credits["td0\nγ = 0.99"]
    assert torch.allclose(values, exact)
    following = torch.cat([exact[rollout.observations[1:]], torch.zeros(1, 1)])
    assert torch.allclose(estimate.returns, rollout.rewards + TD0().gamma * following)


def test_what_is_set_is_that_of_all_estimators_that_have_it():
    """And stands beside each row."""
    _, _, credits, _ = drawn(estimator={"name": "gae", "gamma": 0.5, "lam": 0.25})
    for name, sign in (("gae", "γ = 0.5, λ = 0.25"), ("lambda_returns", "γ = 0.5, λ = 0.25"), ("td0", "γ = 0.5")):
        assert f"{name}\n{sign}" in credits


@frozen
class Grouped:
    """An estimator that this world cannot serve."""

    needs = frozenset({"groups"})

    def __call__(self, rollout):
        raise NotImplementedError


def test_an_estimator_that_needs_what_is_not_there_is_left_out_and_named(monkeypatch, capsys):
    loaded = load()
    loaded.offers["estimator"]["grouped"] = {"mine": Grouped}
    monkeypatch.setattr(credit, "resolve", lambda *a, **k: evolve(options.resolve(*a, **k), loaded=loaded))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *a, **k: None)
    assert main(["credit"]) == 0
    assert capsys.readouterr().err == "left out: grouped needs groups\n"


@frozen
class Open:
    """An estimator of which a setting that others count by is left open."""

    n: int | None = None

    def __call__(self, rollout):
        return Estimate(rollout.rewards, rollout.rewards)


def test_a_row_says_the_numbers_that_there_are():
    loaded = load()
    loaded.offers["estimator"] = {"open": {"mine": Open}}
    run, rollout, *_ = drawn()
    assert [label for label, *_ in credit.estimates(run, rollout, loaded)] == ["open"]


@pytest.mark.slow
def test_the_estimator_may_need_values_that_nobody_else_gives(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["credit", "--estimator", "gae", "--estimator.lam", "0.5"]) == 0
    assert main(["credit", "--out", "seen.txt"]) == 2
    assert "seen.txt cannot be written: Format 'txt' is not supported" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["credit", "--environment.goal", "3", "--out", "seen.png"]) == 0
    assert capsys.readouterr().out == "seen.png\n"
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    assert main(["credit", "--out", "nowhere/seen.png"]) == 2
    assert "nowhere/seen.png cannot be written: No such file or directory" in capsys.readouterr().err
    assert main(["credit", "--environment.goal", "30"]) == 2
    assert "none of 1000 episodes ended after 5 to 16 steps" in capsys.readouterr().err
