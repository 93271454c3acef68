"""`framework check` and the kit from Python: names, exit codes, JSON, tables, pytest, snippets that repeat failures."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from check_cases import LEAK, ODD, Raises, listing

from framework import UsageError
from framework.cli import main
from framework.cli.check import DESCRIPTION
from framework.config import DEFAULTS
from framework.setup.layers import merge
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.testing import Broken, check, conforms, judge, law, laws
from framework.testing.checking import subjects_of
from framework.testing.law import LAWS
from framework.testing.page import laws_page
from framework.testing.selection import select_parts

ROOT = Path(__file__).parents[2]
LOSSY = '''"""Rewards to go, which do not end where time ran out."""
from attrs import field, frozen, validators
from framework import Estimate, hookimpl
from framework.returns import rewards_to_go

@frozen
class Lossy:
    needs = frozenset({"complete_episodes"})
    gamma: float = field(default=0.9, validator=[validators.ge(0), validators.le(1)])

    def __call__(self, rollout):
        returns = rewards_to_go(rollout.rewards, rollout.terminated, self.gamma)
        return Estimate(returns, returns)

@hookimpl
def estimators():
    return {"lossy": Lossy}
'''


@pytest.fixture
def lossy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lossy.py").write_text(LOSSY, "utf-8")
    return "lossy.py"


@pytest.mark.slow
def test_a_right_part_exits_0(capsys):
    code, (report,) = listing(capsys, "td0", "--quick", "--examples", "3")
    assert code == 0
    assert report["passed"]
    assert report["plugin"] == "returns"
    assert {entry["law"] for entry in report["laws"]} == {law.name for law in laws("estimator")}
    assert report["examples"] == sum(entry["examples"] for entry in report["laws"])
    assert all("reason" in entry for entry in report["laws"] if entry["outcome"] == "not applicable")


@pytest.mark.slow
def test_a_snippet_repeats_the_failure(capsys, lossy, tmp_path):
    """Run as it is, by another interpreter, it ends with what the law says."""
    code, (report,) = listing(capsys, lossy, "--quick")
    assert code == 1
    assert not report["passed"]
    broken = [entry for entry in report["laws"] if entry["outcome"] == "failed"]
    assert LEAK in [entry["law"] for entry in broken]
    for entry in broken:
        assert entry["expected"] != entry["got"]
        assert entry["settings"]["gamma"] > 0
        assert {"lane", "step", "reward", "end", "expected", "got"} <= entry["case"][0].keys()
    (entry,) = [entry for entry in broken if entry["law"] == LEAK]
    (tmp_path / "again.py").write_text(entry["snippet"], "utf-8")
    again = subprocess.run([sys.executable, "again.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert again.returncode == 1
    assert again.stderr.strip().splitlines()[-1].endswith(entry["reason"])


@pytest.mark.slow
def test_the_same_seed_finds_the_same(capsys, lossy):
    first, second = (listing(capsys, lossy, "--examples", "15", "--seed", "3")[1] for _ in range(2))
    assert first[0]["laws"] == second[0]["laws"]


@pytest.mark.slow
def test_a_person_sees_tables(capsys, lossy, monkeypatch):
    monkeypatch.setattr("framework.cli.check.is_terminal", lambda: True)
    monkeypatch.setattr("framework.testing.checking.QUICK_SECONDS", (math.inf, math.inf))  # however slow it is here
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["check", lossy, "--quick"]) == 1
    printed = capsys.readouterr().out
    assert f"{LEAK}: returns at step" in printed
    assert "# to reproduce it:\nimport torch\n" in printed
    assert "not applicable" in printed
    assert f"estimator 'lossy' (plugin lossy): {len(laws('estimator'))} laws, " in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gea"], "no part, plugin or module 'gea'. Did you mean 'gae'?"),
        (["estimator:gea"], "no estimator 'gea'. Did you mean 'gae'?"),
        (["gae", "--role", "estimtor"], "no role 'estimtor'. Did you mean 'estimator'?"),
        (["framework_returns", "--role", "loss"], "'framework_returns' offers no loss"),
        (["missing.py"], "no plugin file missing.py"),
        (["progress"], "there are no laws of extensions to check"),
        (["gae", "--examples", "0"], "examples must be >= 1: 0"),
        ([], "check what?\n  FILE.py       all parts that a file offers\n  NAME "),
        (["--quick", "--role", "estimator"], "check what?"),
        (["--estimator.gamma", "0.5"], "check what?"),
        (["gae", "--estimator.gamma", "2"], "estimator.gamma must be <= 1.0: 2.0"),
        (
            ["framework_returns", "--estimator.gamma=1"],
            "settings of which estimator? Name one of gae, lambda_returns, ",
        ),
    ],
)
def test_a_wrong_word_exits_2(words, message, capsys):
    assert main(["check", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["gae", "--estimatr.gamma", "1"], ["gae", "--estimator.gama", "1"], ["gae", "--quik"]]
)
def test_a_wrong_flag_exits_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["check", *words])
    assert end.value.code == 2
    assert "Unrecognized" in (captured := capsys.readouterr()).out + captured.err


def test_a_file_with_nearly_this_name_is_meant(lossy, capsys):
    assert main(["check", "losy.py"]) == 2
    assert "no plugin file losy.py. Did you mean 'lossy.py'?" in capsys.readouterr().err


def test_a_file_that_is_no_python_exits_2(capsys, tmp_path, monkeypatch):
    """It says where."""
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("import torch\ndef (:\n", "utf-8")
    assert main(["check", "broken.py"]) == 2
    assert (
        "plugin 'broken.py' failed to load: SyntaxError: invalid syntax (broken.py, line 2)" in capsys.readouterr().err
    )


def told_nothing(monkeypatch):
    """Of what `check` would be asked."""
    asked = []

    def check(part, **rest):
        asked.append((part, rest))
        return types.SimpleNamespace(failed=(), undecided=(), unchecked=None)

    monkeypatch.setattr("framework.testing.checking.check", check)
    monkeypatch.setattr("framework.cli.check_table.listing", lambda report, snippet: {})
    return asked


@pytest.mark.parametrize(
    "words",
    [
        "td0 --examples 1 --estimator.gamma 0.5",
        "--examples 1 td0 --estimator.gamma 0.5",
        "--estimator.gamma 0.5 td0 --examples 1",
        "--estimator.gamma=0.5 --examples 1 td0",
        "td0 --estimator.gamma 0.5 --examples 1",
    ],
)
def test_words_come_in_any_order(words, monkeypatch):
    """And settings are those of the part that is checked."""
    asked = told_nothing(monkeypatch)
    assert main(["check", *words.split()]) == 0
    ((part, rest),) = asked
    assert (part.role, part.name, part.settings.gamma, rest["examples"]) == ("estimator", "td0", 0.5, 1)


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["gae", "--help"], ["--help", "gae", "--quick"]])
def test_help_says_what_exit_codes_and_examples(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main(["check", *words])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    for text in ("FILE.py", "PLUGIN:NAME or ROLE:NAME", "exit codes: 0", "JSON", "examples:", "environment, policy,"):
        assert text in printed
    assert ("--estimator.lam" in printed) == ("gae" in words)
    assert max(map(len, printed.splitlines()[1:])) <= 80


def test_the_examples_of_the_help_are_right(monkeypatch):
    """Those that name what there is find it."""
    examples = re.findall("^  framework check (.*?)(?: >.*)?$", DESCRIPTION, re.M)
    asked = told_nothing(monkeypatch)
    for words in (example.split() for example in examples if "my_" not in example):
        assert main(["check", *words]) == 0
    assert [part.name for part, _ in asked] == ["gae", "gymnasium", "ppo"]
    assert asked[1][0].settings.id == "Acrobot-v1"


def test_names_find_parts():
    assert [part.label for part in select_parts("returns:gae")[1]] == ["estimator 'gae' (plugin returns)"]
    assert [part.name for part in select_parts("baseline:value")[1]] == ["value"]
    assert {part.name for part in select_parts("framework_returns")[1]} == {
        "gae",
        "lambda_returns",
        "n_step",
        "td0",
        "vtrace",
    }
    assert {part.role for part in select_parts("reinforce", "estimator")[1]} == {"estimator"}


def test_one_name_of_two_roles_asks_which():
    ways = "policy:actor_critic or loss:actor_critic"
    with pytest.raises(UsageError, match=f"'actor_critic' is the name of 2 parts; say which: {ways}"):
        select_parts("actor_critic")
    assert [part.role for part in select_parts("actor_critic", "loss")[1]] == ["loss"]


def test_a_file_offers_parts_of_several_roles(tmp_path):
    (tmp_path / "both.py").write_text(LOSSY + '\n@hookimpl\ndef baselines():\n    return {"lossy": Lossy}\n', "utf-8")
    assert [part.role for part in select_parts(str(tmp_path / "both.py"))[1]] == ["estimator", "baseline"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 120])
def test_the_table_can_be_read(width, capsys, lossy, monkeypatch):
    """Each law's name on one line, its reason beside or below it."""
    monkeypatch.setattr("framework.cli.check.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    main(["check", lossy, "--examples", "3"])
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width
    for name in (one.name for one in laws("estimator")):
        assert any(re.search(rf" {name}(:| |$)", line) for line in lines), name
    (at,) = [number for number, line in enumerate(lines) if f" {LEAK}" in line]
    assert "returns at step" in f"{lines[at]}{lines[at + 1]}"
    reasons = "".join(lines).count("it does not claim 'linear'")
    assert reasons == 2


@pytest.mark.slow
def test_what_a_part_prints_is_not_in_the_report(capsys, tmp_path, monkeypatch):
    """It goes to standard error, also what a file prints when it is imported."""
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(ODD.format(does=""), "utf-8")
    main(["check", "odd.py", "--examples", "2"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)
    assert {"imported", "asked"} == set(printed.err.split())


@pytest.mark.slow
def test_nothing_is_printed_and_nothing_global_moves(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.random.get_rng_state()
    check(Raises(), "estimator", examples=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_law_has_a_name_of_its_own_and_a_docstring():
    with pytest.raises(ValueError, match="two laws are named lanes_permute"):
        law("estimator")(LAWS["lanes_permute"].check)
    with pytest.raises(ValueError, match="has no docstring"):
        law("estimator")(lambda subject: None)


def test_a_law_without_cases_is_checked_for_each_variant():
    loaded, (part,) = select_parts("td0")
    found = judge(_entered(), subjects_of(part, loaded))
    assert found.outcome == "failed"
    assert found.subject.settings.gamma == 1.0


def _gamma_is_not_one(subject):
    """γ is below 1."""
    if subject.settings.gamma == 1:
        raise Broken("it is 1", expected="< 1", got=1.0)


def _entered():
    law("estimator")(_gamma_is_not_one)
    return LAWS.pop("_gamma_is_not_one")


FUTURE = '''"""Postponed annotations, one of which only type checkers can read; a validator in the framework's words."""
from __future__ import annotations
from typing import TYPE_CHECKING
from attrs import field, frozen
from framework import Estimate, UsageError, hookimpl
from framework.returns import rewards_to_go
if TYPE_CHECKING:
    from collections.abc import Sequence

def inside(instance, attribute, value):
    if not 0 < value < 1:
        raise UsageError(f"{attribute.name} must be inside (0, 1)")

@frozen
class Future:
    needs = frozenset({"complete_episodes"})
    discount: float = field(default=0.9, validator=inside)
    which: Sequence[int] = (1, 2)

    def __call__(self, rollout):
        returns = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, self.discount)
        return Estimate(returns, returns)

@hookimpl
def estimators():
    return {"future": Future}
'''


def test_annotations_that_only_type_checkers_read_do_not_matter(capsys, tmp_path, monkeypatch):
    """Nor a validator that raises what the framework raises: the part is right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "future.py").write_text(FUTURE, "utf-8")
    code, (report,) = listing(capsys, "future.py", "--examples", "5")
    assert code == 0, [entry for entry in report["laws"] if entry["outcome"] == "failed"]


def test_a_run_says_which_annotation_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "future.py").write_text(FUTURE, "utf-8")
    loaded = load(["future.py"], rest=True)
    with pytest.raises(UsageError, match="names 'Sequence'.*import it outside `if TYPE_CHECKING:`"):
        configure(loaded, merge(DEFAULTS, {"estimator": {"name": "future"}}))


# pytest


@pytest.mark.slow
def test_a_third_partys_test_file_is_three_lines(tmp_path):
    """Its own tests, run by pytest as the third party does."""
    home = ROOT / "tests" / "third_party"
    for name in ("acme_rl.py", "test_acme_rl.py"):
        shutil.copy(home / name, tmp_path / name)
    code = [line for line in (home / "test_acme_rl.py").read_text().splitlines() if line]
    assert len(code) == 3
    ran = _pytest(tmp_path, "test_acme_rl.py", "-v")
    assert ran.returncode == 0, ran.stdout
    assert "test_acme_rl.py::test_laws[estimator:hyperbolic-lanes_permute] PASSED" in ran.stdout
    assert "SKIPPED (not applicable: it has no setting 'gamma')" in ran.stdout.replace("\n", "")


@pytest.mark.slow
def test_a_failure_in_pytest_is_short(lossy, tmp_path):
    """What is wrong, the steps, the snippet; none of the kit's own frames."""
    (tmp_path / "test_lossy.py").write_text(
        'from framework.testing import conforms\n\ntest_laws = conforms("lossy.py", examples=15)\n'
    )
    ran = _pytest(tmp_path, "test_lossy.py", "-k", LEAK)
    assert ran.returncode == 1
    assert f"{LEAK}: returns at step" in ran.stdout
    assert "# to reproduce it:" in ran.stdout
    assert "verdicts.py" not in ran.stdout


def test_a_law_that_is_broken_on_purpose_is_skipped_with_the_reason():
    (mark,) = conforms("td0", examples=1, but={"lanes_permute": "lanes are ranked"}).pytestmark
    (case,) = [case for case in mark.args[1] if case.id.endswith("-lanes_permute")]
    assert case.marks[0].kwargs["reason"] == "on purpose: lanes are ranked"
    with pytest.raises(UsageError, match="no law 'lanes_permut'. Did you mean 'lanes_permute'"):
        conforms("td0", but={"lanes_permut": "misspelt"})


def test_conforms_names_each_law():
    (mark,) = conforms("td0", examples=1).pytestmark
    assert [case.id for case in mark.args[1]] == [f"estimator:td0-{law.name}" for law in laws("estimator")]


def _pytest(folder, *words):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=_environment(), check=False, timeout=300
    )


def _environment():
    return {**os.environ, "COLUMNS": "300", "PYTEST_ADDOPTS": ""}


# The page


def test_the_page_of_laws_is_that_of_the_registry():
    page = (ROOT / "docs" / "reference" / "laws.md").read_text("utf-8")
    assert page == laws_page(), "run: python -m framework.testing.page docs/reference/laws.md"
