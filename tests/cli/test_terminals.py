"""Terminals of every encoding and width: help, tables, bars and errors are readable; names are printed as they are."""

import io
import os
import re
import subprocess
import sys
import textwrap

import pytest
from foreign import ESTIMATOR, publish

from framework.cli import main
from framework.reporting.progress_bar import Bar

ENCODINGS = ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cp1252", "cp437", "latin-1", "utf-8"))]

NAMES = ["a[/b]", "[bold]x", "sweep/[1, 2]", ":cat:", "a b"]


class Terminal(io.TextIOWrapper):
    """Standard output or error of a terminal with an encoding, as Python makes it there."""

    def __init__(self, encoding, errors="strict"):
        super().__init__(io.BytesIO(), encoding=encoding, errors=errors, line_buffering=True)

    def isatty(self):
        return True

    @property
    def text(self):
        self.flush()
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.buffer.getvalue().decode(self.encoding))


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """Runs a command on a terminal of an encoding; exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(encoding, *words, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        out, err = Terminal(encoding), Terminal(encoding, "backslashreplace")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        try:
            code = main(list(words))
        except SystemExit as end:
            code = end.code
        return code, out.text, err.text

    return run


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_help_of_every_command_is_printed(terminal, encoding):
    for command in ("run", "show", "evaluate", "audit", "credit", "check", "plugins", "new"):
        code, out, err = terminal(encoding, command, "--help")
        assert (code, err) == (0, "")
        assert f"usage: framework {command}" in out


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_bars_and_errors_are_printed(terminal, encoding, tmp_path):
    """π, γ, ∇ and frames where the encoding has them, else other characters."""
    code, out, err = terminal(
        encoding, "run", "--recipe", "ppo", "--iterations", "2", "--name", "first", "--trace-gradients"
    )
    assert code == 0
    assert "record: runs/first" in out
    assert "2/2" in err
    assert ("→" in out) == (encoding == "utf-8")
    assert ("│" in out) == (encoding == "utf-8")
    for words in (
        ["evaluate", "runs/first", "--episodes", "2"],
        ["audit", "--episodes", "16", "--batch", "4", "--environment.goal", "2", "--estimator", "gae,rewards_to_go"],
        ["check", "td0", "--examples", "1"],
        ["credit"],
        ["plugins"],
    ):
        code, out, err = terminal(encoding, *words)
        assert code == 0, (words, err)
        assert len(out.splitlines()) >= 1
    code, out, err = terminal(encoding, "run", "--estimator", "γ")
    assert code == 2
    assert "error: no estimator '" in err


@pytest.mark.slow
def test_json_and_toml_are_utf_8_and_unchanged_whatever_the_code_page(tmp_path):
    """A configuration that `show` writes to a file can be read again."""
    (tmp_path / "größe.py").write_text(textwrap.dedent(ESTIMATOR), "utf-8")
    words = ["show", "--plugins", "line_world,reinforce,größe.py", "--estimator", "halved"]
    command = [sys.executable, "-m", "framework", *words]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert "größe.py" in done.stdout.decode("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp437"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda environment: ",".join(environment.values()),
)
def test_real_processes_of_other_encodings(tmp_path, environment):
    (tmp_path / "warns.py").write_text(
        "import warnings\nwarnings.warn('∇J')\nprint('π')\n" + textwrap.dedent(ESTIMATOR), "utf-8"
    )
    for words, code in (
        (["run", "--iterations", "1", "--plugins", "line_world,reinforce,./warns.py", "--estimator", "halved"], 0),
        (["audit", "--help"], 0),
        (["run", "--environment", "π"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "framework", *words],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr


# Names


@pytest.mark.parametrize("name", ["exp[lr=0.1]", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES)])
def test_a_run_s_name_is_printed_as_it_is(terminal, name):
    code, out, err = terminal("utf-8", "run", "--iterations", "1", "--name", name)
    assert code == 0
    assert f"record: runs/{name}\n" in out
    code, out, err = terminal("utf-8", "evaluate", f"runs/{name}", "--episodes", "2", columns=30)
    assert code == 0, err
    assert f"runs/{name}/policy.safetensors in " in out
    code, out, err = terminal(
        "utf-8", "audit", f"runs/{name}", "--episodes", "8", "--batch", "4", "--out", name.replace("/", "-")
    )
    assert code == 0, err


BRACKETS = """
from attrs import field, frozen
from framework import Estimate, UsageError, hookimpl

@frozen
class Odd:
    "Odd [/bold], 100 %, [red]."
    width: float = field(default=0.5)  # in [0, 1], [/x] and 50 % of {it}

    def __call__(self, rollout):
        raise ValueError("[/b] is no [number]: {0} %s")

@frozen
class Stops:
    def build(self, run):
        return self

    @hookimpl
    def should_stop(self):
        return "reached [/goal] :cat:"

@hookimpl
def estimators():
    return {"odd": Odd}

@hookimpl
def extensions():
    return {"stops": Stops}
"""


@pytest.mark.slow
def test_brackets_in_a_part_s_help_messages_and_reasons_are_printed_as_they_are(terminal, tmp_path):
    (tmp_path / "odd.py").write_text(BRACKETS)
    (tmp_path / "b[ad].py").write_text("raise ValueError('[/b]')")
    plugins = ["--plugins", "line_world,reinforce,reports,./odd.py"]
    code, out, err = terminal("utf-8", "run", *plugins, "--estimator", "odd", "--help", columns=120)
    assert (code, err) == (0, "")
    assert "in [0, 1], [/x] and 50 % of {it}" in out
    code, out, err = terminal("utf-8", "run", *plugins, "--estimator", "odd", "--iterations", "1")
    assert code == 1
    assert "raised ValueError: [/b] is no [number]: {0} %s" in err
    code, out, err = terminal("utf-8", "run", *plugins, "--extensions", "stops")
    assert code == 0
    assert "stopped: reached [/goal] :cat:" in out
    code, out, err = terminal("utf-8", "check", "odd.py", "--examples", "1")
    assert code == 1
    assert "raised ValueError: [/b] is no [number]: {0} %s" in out
    code, out, err = terminal("utf-8", "plugins", "--plugins", "b[ad].py")
    assert code == 2
    assert "plugin 'b[ad].py' failed to load: ValueError: [/b]" in err


def test_a_failed_plugin_s_reason_with_brackets_is_listed(terminal, tmp_path, monkeypatch):
    publish(tmp_path, monkeypatch, "bad-rl", {"bad": "bad_module"}, bad_module="raise ValueError('[/b] [1]')")
    out = terminal("utf-8", "plugins")[1]
    assert "failed: plugin 'bad' (bad-rl): ValueError: [/b] [1]" in " ".join(out.split())


def test_a_bar_s_text_is_printed_as_it_is(monkeypatch):
    err = Terminal("utf-8")
    monkeypatch.setattr(sys, "stderr", err)
    bar = Bar("[episode/]", 2, "{task.fields[name]}")
    bar.show(2, name="law [/b]")
    bar.stop()
    assert "[episode/]" in err.text
    assert "law [/b]" in err.text


# Widths


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 60, 40])
def test_tables_fit_a_narrow_terminal(terminal, columns):
    assert terminal("utf-8", "run", "--iterations", "1", "--name", "first", columns=columns)[0] == 0
    for words in (
        ["plugins"],
        ["evaluate", "runs/first", "--episodes", "2"],
        ["check", "td0", "--examples", "1"],
        ["audit", "--episodes", "16", "--batch", "4", "--environment.goal", "2", "--estimator", "gae,rewards_to_go"],
    ):
        code, out, err = terminal("utf-8", *words, columns=columns)
        assert code == 0, err
        rows = [line for line in out.splitlines() if re.match(r"[ ]*[┏┡│┃└├╇━]|passed|not applicable|  ", line)]
        assert rows, out
        assert max(len(line.rstrip()) for line in rows) <= columns, out
