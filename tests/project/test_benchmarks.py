"""The benchmark of PPO on CartPole: what its watch and its table say, and that every script can be asked for help."""

import importlib
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEERS = sorted((BENCHMARKS / "peers").glob("ppo_*.py"))
TABLES = ("cartpole", "line world", "shares of PPO", "shares of the default run", "start-up")
SCRIPTS = [*sorted(BENCHMARKS.glob("*.py")), *PEERS]


def imported(monkeypatch, name, folder=BENCHMARKS):
    """A module of the benchmarks, as their scripts import each other: from their own folder."""
    monkeypatch.syspath_prepend(folder)
    for own in ("common", "job", "cartpole_ppo"):
        monkeypatch.delitem(sys.modules, own, raising=False)
    module = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)  # and is gone after the test
    return module


@pytest.fixture
def watch(monkeypatch):
    def make(*arguments):
        monkeypatch.setattr(sys, "argv", ["one", *arguments])
        return imported(monkeypatch, "job", BENCHMARKS / "peers").Watch()

    return make


@pytest.mark.parametrize("script", PEERS, ids=lambda path: path.stem)
def test_each_peer_says_what_it_takes_without_what_it_imports(script):
    """A peer's arguments are read before its library is imported: none of them is installed here."""
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert "--seed" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_is_described_in_its_first_line(script):
    """What it is, one line, and that it is Python."""
    compiled = compile(script.read_text(encoding="utf-8"), script, "exec")
    assert compiled.co_consts[0].splitlines()[0]


def test_each_side_has_its_script(monkeypatch):
    """A side is ours, or one of peers/; each of peers/ is a side."""
    sides = imported(monkeypatch, "cartpole_ppo").SIDES
    assert {f"ppo_{side.script}" for side in sides.values() if side.script} == {path.stem for path in PEERS}
    assert all(side.equal in sides and side.warm_up < side.iterations for side in sides.values())


def test_solved_is_the_first_time_that_100_episodes_in_a_row_have_a_mean_of_475(watch):
    """Fewer than 100 do not count, 47,499 in all is too little, 47,500 is enough; what follows comes too late."""
    one = watch("--solve")
    for number in range(99):
        one.episode(number, 500.0 if number >= 25 else 400.0)
        assert not one.over
    one.episode(99, 499.0)  # 74 · 500 + 25 · 400 + 499 = 47,499
    assert not one.over
    one.episode(100, 401.0)  # the first 400 leaves
    assert one.over
    assert one.solved_steps == 100
    one.episode(101, 500.0)
    assert one.solved_steps == 100


def test_a_peer_ends_after_its_iterations(watch):
    """Solved or not; only asked to solve it, a solved one ends before."""
    one = watch("--iterations", "3")
    for number in range(100):
        one.episode(number, 500.0)
    assert [one.iteration() for _ in range(3)] == [False, False, True]


def test_the_learning_rate_falls_linearly_to_its_last_part(watch):
    """Iteration i of n has lr · (1 − i / n): the first the whole, the last 1 / n of it; as ours has."""
    from framework.config import OptimizerSettings
    from framework.learning.learning_rate import learning_rate

    one = watch()
    ours = OptimizerSettings("Adam", 2.5e-3, schedule="linear")
    for number in range(195):
        assert math.isclose(one.rate(), learning_rate(ours, number, 195), rel_tol=1e-12)
        one.iteration()


def test_ratios_are_taken_within_a_round(monkeypatch):
    """Where the machine is half as fast in a round for both, the ratio is the same in every round."""
    table = imported(monkeypatch, "cartpole_ppo").Table(["framework", "sb3"])
    table.speeds |= {"framework": [400.0, 200.0], "sb3": [100.0, 50.0]}
    table.peaks |= {"framework": [1.0, 1.0], "sb3": [2.0, 2.0]}
    table.firsts |= {"framework": [3.0, 3.0], "sb3": [4.0, 4.0]}
    row = table.row("framework")
    assert row["steps/s against sb3"] == {"median": 4.0, "min": 4.0, "max": 4.0}
    assert row["steps/s"] == {"median": 300.0, "min": 200.0, "max": 400.0}


def test_a_seed_that_never_solves_it_counts_as_later_than_all(monkeypatch):
    """The median of two solved seeds and one that was not is the later of the two; the worst has no number."""
    table = imported(monkeypatch, "cartpole_ppo").Table(["sb3"])
    table.solved["sb3"] = [(10.0, 100.0), (math.inf, math.inf), (20.0, 200.0)]
    row = table.row("sb3")
    assert row["command to solved, s"] == {"median": 20.0, "min": 10.0, "max": None}
    assert row["solved seeds"] == "2 of 3"


def test_a_side_that_cannot_be_measured_is_left_out_with_the_reason(monkeypatch, capsys):
    """The others go on."""
    module = imported(monkeypatch, "cartpole_ppo")

    def broken(*_):
        raise RuntimeError("ERROR: no such package")

    monkeypatch.setattr(module, "environment", broken)
    table = module.Table(["sb3", "framework"])
    table.measure("sb3", 0, False)
    assert table.names == ["framework"]
    assert table.skipped == {"sb3": "is not installed: ERROR: no such package"}
    assert "sb3: left out: is not installed" in capsys.readouterr().out
    assert "sb3" not in table.result(1, 1)["rows"]


@pytest.mark.parametrize(
    ("table", "page"),
    [("cartpole", "README.md"), *[(table, "docs/performance.md") for table in TABLES]],
)
def test_pages_quote_what_was_measured(monkeypatch, table, page):
    """Tables in the pages are those that are made from the result files."""
    tables = imported(monkeypatch, "tables").TABLES
    assert tuple(tables) == TABLES
    made = tables[table]()
    assert made in (BENCHMARKS.parent / page).read_text(encoding="utf-8")
