"""`framework audit`: what it audits, refuses, prints and draws."""

import csv
import json

import pytest
from command_line import said
from hypothesis import given
from hypothesis import strategies as st

from framework.cli.audit_combinations import SplitArguments
from framework.cli.audit_picture import draw

# The command


QUICK = ["--environment.goal", "2", "--environment.max-steps", "8", "--episodes", "64", "--batch", "4"]


def audit_summary(capsys, *words):
    return json.loads(said(capsys, "audit", *QUICK, *words).out)


@pytest.mark.slow
def test_all_combinations_are_audited_or_refused_with_the_reason(here, capsys):
    words = ["--estimator", "total_return,rewards_to_go,gae", "--baseline", "none,value"]
    summary = audit_summary(capsys, *words, "--estimator.gamma", "1")
    names = [(row["estimator"], row["baseline"], row["loss"]) for row in summary["combinations"]]
    kept = [(e, b, "reinforce") for e in ("total_return", "rewards_to_go") for b in ("none", "value")]
    assert names == [*kept, ("gae", "value", "reinforce")]  # who trains a critic is all one: the exact one is given
    (refused,) = summary["refused"]
    assert (refused["estimator"], refused["baseline"]) == ("gae", "none")
    assert "leave baseline out" in refused["reason"]
    assert {row["objective"] for row in summary["combinations"]} == {"undiscounted"}
    assert (summary["policy"], summary["critic"], summary["missing"]) == ("tabular", "exact", None)
    assert (summary["episodes"], summary["batch"]) == (64, 4)
    with open("audit.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["estimator"] for row in rows] == [row[0] for row in names] + ["gae"]
    assert float(rows[0]["variance"]) == summary["combinations"][0]["variance"]
    assert rows[-1]["refused"] == refused["reason"]
    assert (here / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_without_lists_the_run_s_parts_are_audited(here, capsys):
    (row,) = audit_summary(capsys, "--out", "other")["combinations"]
    assert (row["estimator"], row["baseline"], row["loss"]) == ("rewards_to_go", "none", "reinforce")
    assert (here / "other.csv").exists()
    assert (here / "other.png").exists()


def test_a_setting_is_that_of_all_parts_that_have_it(here, capsys):
    words = ["--estimator", "total_return,n_step", "--loss", "actor_critic,ppo", "--estimator.n=2"]
    rows = audit_summary(capsys, *words, "--estimator.gamma", "0.5", "--loss.clip", "0.1")["combinations"]
    assert len(rows) == 4
    assert {row["gamma"] for row in rows} == {0.5}


def test_a_setting_that_none_of_them_has_is_unknown(here, capsys):
    assert "--estimator.lam" in said(capsys, "audit", *QUICK, "--estimator.lam", "1", code=2).err


def test_implied_parts_are_taken_and_contradictions_refused(here, capsys):
    (row,) = audit_summary(capsys, "--estimator", "gae", "--loss", "actor_critic")["combinations"]
    assert row["baseline"] == "value"
    summary = audit_summary(capsys, "--estimator", "gae", "--loss", "actor_critic", "--baseline", "none,value")
    assert [row["baseline"] for row in summary["combinations"]] == ["value"]
    assert "implies baseline 'value'" in summary["refused"][0]["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--estimator", "total_return,rewards_to_gob"],
            "no estimator 'rewards_to_gob'. Did you mean 'rewards_to_go'?",
        ),
        (["--estimator", "gae", "--baseline", "none"], "no combination can be wired: "),
        (
            ["--estimator", "gae", "--critic", "policy", "--policy", "categorical"],
            "gives no values, which a part needs",
        ),
        (["--out", "nowhere/audit"], "nowhere/audit cannot be written: there is no folder nowhere"),
        (["--batch", "64"], "a variance needs at least two batches"),
        (["--episodes", "0"], "episodes must be >= 1: 0"),
        (["--critic", "none"], "critic"),
    ],
)
def test_wrong_arguments_are_reported(here, capsys, words, message):
    assert message in said(capsys, "audit", *QUICK, *words, code=2).err
    assert not list(here.iterdir())


def test_help_shows_what_an_audit_would_take(here, capsys):
    shown = said(capsys, "audit", "--estimator", "lambda_returns,total_return", "--loss", "ppo", "--help").out
    for words in (
        "usage: framework audit [RUN]",
        "--estimator.lam FLOAT",
        "--loss.clip",
        "(default: tabular)",
        "--batch",
    ):
        assert words in shown
    assert not list(here.iterdir())


def test_a_part_that_breaks_is_named(here, capsys):
    err = said(capsys, "audit", "--episodes", "8", "--batch", "1", "--baseline", "leave_one_out", code=1).err
    assert "'leave_one_out' needs at least two episodes" in err


def test_a_world_without_tables_is_sampled(here, capsys):
    words = [
        "audit",
        "--environment",
        "cartpole",
        "--episodes",
        "16",
        "--batch",
        "4",
        "--baseline",
        "none,leave_one_out",
    ]
    summary = json.loads(said(capsys, *words).out)
    assert summary["missing"] == "environment 'cartpole' (plugin classic) has no mdp()"
    assert summary["policy"] == "categorical"
    assert all(row["variance"] > 0 and row["bias"] is None for row in summary["combinations"])
    assert len(draw(summary).axes) == 2


def test_a_policy_with_memory_is_sampled(here, capsys):
    summary = audit_summary(capsys, "--policy", "recurrent")
    assert (
        summary["missing"]
        == "policy 'recurrent' (plugin policies) has memory, and exact gradients are of policies without"
    )
    assert summary["combinations"][0]["variance"] > 0


@pytest.mark.slow
def test_a_recorded_policy_is_audited_with_the_parts_of_its_run(here, capsys):
    said(capsys, "run", "--name", "first", "--iterations", "40", "--baseline", "leave_one_out", "--quiet")
    summary = json.loads(said(capsys, "audit", "runs/first", "--episodes", "400").out)
    (row,) = summary["combinations"]
    assert (summary["policy"], row["baseline"]) == ("runs/first", "leave_one_out")
    untrained = json.loads(said(capsys, "audit", "--policy", "categorical", "--episodes", "400").out)
    assert row["steps"] < untrained["combinations"][0]["steps"]


def test_a_person_reads_a_table(here, capsys, monkeypatch):
    monkeypatch.setattr("framework.cli.audit.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    words = ["--estimator", "rewards_to_go,gae", "--baseline", "none", "--environment.max-steps", "4", "--batch", "2"]
    printed = said(capsys, "audit", *QUICK, *words).out
    for line in (
        "The bias is the distance from ∇J, the exact gradient of the return discounted by γ = 0.99. ‖∇J‖ = ",
        "An asterisk (*) marks biased estimates: by more than 4 times that number, or by their exact ",
        "refused: gae × none × reinforce: ",
        "64 episodes in batches of 2 for the combination",
        "audit.csv, audit.png",
    ):
        assert line in " ".join(printed.split())
    assert "exact" in printed


@given(
    st.permutations(["--seed 3", "--estimator a,b", "--estimator.gamma=1", "--loss.x 1 2", "--policy.y -1", "--out=p"])
)
def test_arguments_are_split_by_role(order):
    arguments = SplitArguments.split(" ".join(order).split())
    assert arguments.names == {"estimator": ["a", "b"]}
    assert arguments.settings == {
        "estimator": [["--estimator.gamma=1"]],
        "baseline": [],
        "loss": [["--loss.x", "1", "2"]],
    }
    rest = " ".join(arguments.rest)
    assert all(words in rest for words in ("--seed 3", "--policy.y -1", "--out=p"))
    assert "estimator" not in rest


@pytest.mark.slow
def test_the_picture_has_a_bar_for_each_combination(here, capsys):
    words = ["--estimator", "total_return,td0", "--baseline", "value,none", "--loss", "actor_critic,ppo"]
    summary = audit_summary(capsys, *words)
    figure = draw(summary)
    rows = summary["combinations"]
    assert len(figure.axes) == 3
    for axes, name in zip(figure.axes, ("variance", "relative_bias", "batch_cosine"), strict=True):
        widths = [patch.get_width() for patch in axes.patches][: len(rows)]
        assert widths == [row[name] for row in rows]
    places = [patch.get_y() for patch in figure.axes[0].patches]
    assert len(set(places)) == len(rows)  # none hides another
