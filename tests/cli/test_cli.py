"""The command line as its users meet it: real processes, a real terminal, a real Ctrl-C."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
import tomllib

import pytest
from command_line import FRAMEWORK, in_terminal, said
from foreign import ESTIMATOR, publish

import framework
from framework.cli import main

# Without torch


def test_help_and_version_do_not_import_torch():
    for words, expected in ((["--help"], "usage: framework COMMAND"), (["--version"], framework.__version__)):
        code = f"import sys; from framework.cli import main; main({words!r}); assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_the_top_level_help_names_every_command(capsys):
    text = said(capsys, "--help").out
    for command in ("run", "show", "evaluate", "audit", "credit", "plugins", "new", "check", "completion"):
        assert re.search(rf"^  {command} ", text, re.M)
    assert said(capsys, code=2).out == text


def test_an_unknown_command_gets_the_nearest():
    assert main(["rnu"]) == 2


def test_an_unknown_command_is_reported(capsys):
    assert (
        said(capsys, "rnu", code=2).err == "error: no command 'rnu'. Did you mean 'run'? "
        "There is: audit, check, completion, credit, evaluate, new, plugins, run, show\n"
    )


# Help of each command


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "show"])
def test_help_shows_each_chosen_parts_settings_with_defaults(command, capsys):
    words = [command, "--help", "--environment.goal", "8", "--extensions", "standardize", "--baseline", "leave_one_out"]
    text = " ".join(said(capsys, *words).out.split())
    for flag, line in {
        "--environment.goal INT": "number of the last state, where an episode ends (default: 4)",
        "--estimator.gamma FLOAT": "discount per step, 0 to 1 (default: 0.99)",
        "--extensions.standardize.within {batch,minibatch,group}": "mean and deviation",
        "--policy.hidden [INT [INT ...]]": "widths of the hidden layers (default: 32)",
        "--rollout.lanes INT": "number of environments stepped together (default: 8)",
        "--baseline NAME": "value (default: leave_one_out)",
    }.items():
        assert flag in text.replace("│ ", "").replace(" │", "")
        assert line in text.replace("│ ", "").replace(" │", ""), line


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_every_flag_has_a_line_of_help(command, capsys):
    """A setting without a word of help shows only its default."""
    text = said(capsys, command, "--help", "--extensions", "standardize").out
    words = " ".join(line.strip("│ ") for line in text.splitlines() if "──" not in line)
    for flag in re.findall(r"--[a-z.-]+ [A-Z{\[]", words):
        after = words.split(flag, 1)[1]
        described = re.sub(r"^[^ ]*( \[[^\]]*\]+| \.\.\.\]+)*", "", after).strip()
        assert not described.startswith("(default"), flag


# Standard output that is not a terminal


def test_without_a_terminal_the_summary_is_json(here):
    done = subprocess.run([*FRAMEWORK, "run", "--iterations", "5"], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    assert summary["iterations"] == 5
    assert summary["record"] == "runs/line_world-reinforce-1"
    with (here / summary["record"] / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert (summary["steps"], summary["episodes"]) == (int(last["steps"]), int(last["episodes"]))
    assert summary["std_return"] > 0
    for state in range(4):
        assert abs(sum(row[state] for row in summary["action_probabilities"].values()) - 1) < 1e-6


@pytest.mark.slow
def test_quiet_prints_nothing(here, capsys):
    assert said(capsys, "run", "--iterations", "2", "--quiet") == ("", "")
    assert (here / "runs" / "line_world-reinforce-1" / "metrics.csv").is_file()
    output, code = in_terminal(["run", "--iterations", "2", "--quiet"], here)
    assert (output, code) == ("", 0)


def test_no_reports_no_record(here, capsys):
    summary = json.loads(said(capsys, "run", "--iterations", "2", "--reports").out)
    assert summary["record"] is None
    assert not (here / "runs").exists()


# On a terminal


@pytest.mark.slow
def test_on_a_terminal_there_are_a_bar_and_a_table(here):
    output, code = in_terminal(["run", "--iterations", "30", "--name", "seen"], here)
    assert code == 0
    assert re.search(r"iteration\s+30/30 .* return -?\d+\.\d\d  length \d+\.\d  [\d,]+ steps/s", output)
    assert re.search(r"state\s*┃ P\(LEFT\)\s*┃ P\(RIGHT\)", output)
    rows = re.findall(r"│ (\d)\s+│ (0\.\d{3})\s+│ (0\.\d{3})\s+│", output)
    assert [int(state) for state, _, _ in rows] == [0, 1, 2, 3]
    assert all(abs(float(left) + float(right) - 1) < 0.0011 for _, left, right in rows)
    assert re.search(r"mean return -?\d+\.\d\d ± \d+\.\d\d, mean length \d+\.\d \(last 100 episodes\)", output)
    assert "record: runs/seen" in output


# Ctrl-C


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_ctrl_c_and_a_scheduler_end_a_run_cleanly_and_keep_the_record(here, name):
    """Exit code 128 + the signal's number."""
    process = subprocess.Popen(
        [*FRAMEWORK, "run", "--iterations", "10000000", "--name", "long"],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = here / "runs" / "long" / "metrics.csv"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 20):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    number = getattr(signal, name)
    process.send_signal(number)
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert errors == ""
    summary = json.loads(output)
    assert summary["stopped"] == ["interrupted"]
    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["iterations"]
    assert int(rows[-1]["steps"]) == summary["steps"]
    assert framework.load(here / "runs" / "long") is not None
    assert (here / "runs" / "long" / "learning_curve.png").is_file()


def test_ctrl_c_before_the_first_step_is_no_traceback(capsys, monkeypatch):
    import framework.cli.show

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(framework.cli.show, "main", interrupted)
    assert said(capsys, "show", code=130).err == "interrupted\n"


@pytest.mark.slow
def test_a_closed_pipe_is_no_traceback(here):
    done = subprocess.run(
        f"'{sys.executable}' -m framework run --help | head -n 1", shell=True, cwd=here, capture_output=True, text=True
    )
    assert (done.stdout[:6], done.stderr) == ("usage:", "")


# show


@pytest.mark.slow
def test_show_prints_what_run_would_record(here, capsys):
    words = ["--estimator", "total_return", "--environment.goal", "6", "--seed", "3", "--iterations", "2"]
    shown = said(capsys, "show", *words).out
    said(capsys, "run", *words, "--name", "first")
    assert shown == (here / "runs" / "first" / "config.toml").read_text()
    assert tomllib.loads(shown)["environment"]["goal"] == 6


def test_flags_win_over_the_file_and_the_file_over_defaults(here, capsys):
    (here / "mine.toml").write_text(
        "seed = 3\n[estimator]\nname = 'total_return'\ngamma = 0.5\n[environment]\ngoal = 7\n"
    )
    shown = tomllib.loads(said(capsys, "show", "--config", "mine.toml", "--environment.goal", "8").out)
    assert (shown["seed"], shown["estimator"]["gamma"], shown["environment"]["goal"]) == (3, 0.5, 8)
    assert shown["iterations"] == 100
    shown = tomllib.loads(said(capsys, "show", "--config", "mine.toml", "--estimator", "rewards_to_go").out)
    assert shown["estimator"] == {
        "name": "rewards_to_go",
        "gamma": 0.99,
        "discounted_objective": False,
    }  # a different part starts afresh
    shown = tomllib.loads(said(capsys, "show", "--config", "mine.toml", "--estimator", "total_return").out)
    assert shown["estimator"]["gamma"] == 0.5


def test_a_recipe_lies_between_defaults_and_file(tmp_path, monkeypatch, capsys):
    source = (
        ESTIMATOR
        + """
    @hookimpl
    def recipes():
        return {"mine": {"seed": 5, "iterations": 9, "estimator": {"name": "halved", "factor": 0.25}}}
    """
    )
    publish(tmp_path, monkeypatch, "acme-rl", {"acme": "acme_recipe"}, acme_recipe=source)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("iterations = 7\n")
    shown = tomllib.loads(said(capsys, "show", "--recipe", "mine", "--config", "mine.toml", "--seed", "6").out)
    assert (shown["seed"], shown["iterations"]) == (6, 7)
    assert shown["estimator"] == {"name": "halved", "factor": 0.25}
    assert "no recipe 'mien'. Did you mean 'mine'?" in said(capsys, "show", "--recipe", "mien", code=2).err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--estimator", "gea"],
            "error: no estimator 'gea'. Did you mean 'gae'? There is: gae, lambda_returns, ",
        ),
        (["--estimator.gamma", "1.5"], "error: estimator.gamma must be <= 1.0: 1.5"),
        (["--environment.goal", "0"], "error: environment.goal must be >= 1: 0"),
        (["--seed", "-1"], "error: seed must be >= 0: -1"),
        (["--iterations", "0"], "error: iterations must be >= 1: 0"),
        (["--rollout.lanes", "0"], "error: rollout.lanes must be >= 1: 0"),
        (["--rollout.steps", "0"], "error: rollout.steps must be >= 1: 0"),
        (
            ["--rollout.steps", "9", "--rollout.episodes", "9"],
            "error: rollout.steps and rollout.episodes exclude each other: choose one way to collect",
        ),
        (["--rollout.shards", "3"], "error: rollout.lanes must be a multiple of shards: 8 lanes, 3 shards"),
        (["--rollout.fixed-steps", "9"], "error: estimator 'rewards_to_go' needs complete episodes, and rollout.fixed"),
        (["--optimizer.name", "Adm"], "error: optimizer: no optimizer 'Adm'. Did you mean 'Adam'?"),
        (["--extensions", "standardise"], "error: no extension 'standardise'. Did you mean 'standardize'?"),
        (["--config", "nowhere.toml"], "error: no configuration file nowhere.toml"),
        (["--plugins", "./nowhere.py"], "error: no plugin file nowhere.py"),
        (["--estimatr", "gae"], "--estimator NAME"),
        (["--estimator.gama", "0.5"], "--estimator.gamma FLOAT"),
        (["--estimator.gamma", "high"], "--estimator.gamma"),
        (["--device", "cdua"], "error: device 'cdua' cannot be used: "),
    ],
)
def test_wrong_words_exit_2_and_say_what_would_be_right(here, capsys, words, message):
    captured = said(capsys, "run", *words, code=2)
    assert message in captured.err
    assert captured.out == ""
    assert not (here / "runs").exists()


@pytest.mark.parametrize("text", ["plugins = 3", 'plugins = "line_world"', 'plugins = ["line_world", 4]'])
def test_a_files_plugins_are_a_list_of_names(here, capsys, text):
    (here / "mine.toml").write_text(text)
    message = said(capsys, "show", "--config", "mine.toml", code=2).err
    assert message.startswith("error: mine.toml: plugins must be a list of strings: ")


def test_a_record_is_a_start_for_runs_with_other_plugins_too(here, capsys):
    """It lists the plugins that it used; the other installed ones may be added by name."""
    said(capsys, "run", "--iterations", "1", "--name", "first", "--reports", "record")
    shown = tomllib.loads(said(capsys, "show", "--config", "runs/first/config.toml", "--extensions", "standardize").out)
    assert shown["plugins"] == ["line_world", "reinforce", "reports", "standardize"]


def test_a_record_keeps_to_its_plugins_where_another_offers_the_same_name(here, monkeypatch, capsys):
    said(capsys, "run", "--iterations", "1", "--name", "first", "--reports", "record")
    rival = ESTIMATOR.replace('"halved": Halved', '"rewards_to_go": Halved')
    publish(here / "site", monkeypatch, "rival-rl", {"rival": "rival_module"}, rival_module=rival)
    assert "offered by 2 plugins" in said(capsys, "show", code=2).err
    shown = tomllib.loads(said(capsys, "show", "--config", "runs/first/config.toml").out)
    assert shown["estimator"]["name"] == "reinforce:rewards_to_go"


def test_a_flags_mistake_is_not_called_the_files(here, capsys):
    (here / "good.toml").write_text("seed = 1\n")
    assert said(capsys, "show", "--config", "good.toml", "--loss", "reinforc", code=2).err.startswith("error: no loss")
    (here / "bad.toml").write_text("[loss]\nname = 'reinforc'\n")
    assert said(capsys, "show", "--config", "bad.toml", code=2).err.startswith("error: bad.toml: no loss 'reinforc'")


def test_a_malformed_file_is_named_with_its_line(here, capsys):
    (here / "mine.toml").write_text("[estimator]\ngamma = = 1\n")
    assert (
        said(capsys, "show", "--config", "mine.toml", code=2).err
        == "error: mine.toml is not TOML: Invalid value (at line 2, column 9)\n"
    )
    (here / "mine.toml").write_text("[estimator]\ngama = 1\n")
    expected = "error: mine.toml: no setting of estimator 'gama'. Did you mean 'gamma'? There is: "
    assert said(capsys, "show", "--config", "mine.toml", code=2).err.startswith(expected)


# Plugins


@pytest.mark.slow
def test_plugins_with_no_value_loads_all_and_lists_them_first(here, capsys):
    captured = said(capsys, "run", "--plugins", "--iterations", "1")
    assert re.search(r"reinforce\s+│ framework-rl [\d.]+\s+│ policy: categorical", captured.err)
    assert json.loads(captured.out)["iterations"] == 1
    output, _ = in_terminal(["run", "--iterations", "1", "--plugins"], here)
    assert output.index("provides") < output.index("P(LEFT)")


def test_naming_plugins_adds_them_to_the_installed_ones(here, capsys):
    """On the command line as in TOML and from Python; a module that is installed under another name is loaded once."""
    import textwrap

    (here / "mine.py").write_text(textwrap.dedent(ESTIMATOR))
    (here / "mine.toml").write_text('plugins = ["./mine.py"]\n')
    by_flag = said(capsys, "show", "--plugins", "./mine.py", "--estimator", "halved", "--extensions", "standardize")
    words = ["--trust", "--estimator", "halved", "--extensions", "standardize"]
    by_file = said(capsys, "show", "--config", "mine.toml", *words)
    assert by_flag == by_file
    assert tomllib.loads(by_flag.out)["plugins"] == [
        str(here / "mine.py"),
        "line_world",
        "reinforce",
        "reports",
        "standardize",
    ]
    from_python = framework.train(plugins="./mine.py", estimator="halved", iterations=1)
    assert from_python.config.estimator.label == "estimator 'halved' (plugin mine)"
    shown = tomllib.loads(said(capsys, "show", "--plugins", "framework_line_world,reinforce").out)
    assert shown["plugins"] == ["framework_line_world", "reinforce", "reports"]
    assert shown["environment"]["name"] == "line_world"


def test_the_part_of_a_plugin_that_was_named_wins_over_others_of_its_name(here, capsys):
    import textwrap

    (here / "mine.py").write_text(textwrap.dedent(ESTIMATOR.replace('"halved": Halved', '"rewards_to_go": Halved')))
    shown = tomllib.loads(said(capsys, "show", "--plugins", "./mine.py").out)
    assert shown["estimator"] == {"name": "mine:rewards_to_go", "factor": 0.5}
    assert framework.train(plugins=["./mine.py"], iterations=1).config.estimator.plugin == "mine"


def test_a_file_of_ones_own_is_a_plugin_and_the_record_remembers_it(here, capsys):
    import textwrap

    (here / "mine.py").write_text(textwrap.dedent(ESTIMATOR))
    words = ["--plugins", "./mine.py", "--estimator", "halved", "--estimator.factor", "0.25"]
    said(capsys, "run", *words, "--iterations", "2", "--name", "first")
    tree = tomllib.loads((here / "runs" / "first" / "config.toml").read_text())
    assert tree["estimator"] == {"name": "halved", "factor": 0.25}
    assert tree["plugins"] == [str(here / "mine.py"), "line_world", "reinforce", "reports"]
    said(capsys, "run", "--config", "runs/first/config.toml", "--name", "second")
    first, second = (here / "runs" / name / "policy.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_the_list_of_plugins_says_what_failed_and_why(tmp_path, monkeypatch, capsys):
    publish(tmp_path, monkeypatch, "broken-rl", {"broken": "broken_listed"}, broken_listed="import absent_module")
    listing = json.loads(said(capsys, "plugins").out)
    (failed,) = listing["failed"]
    assert (failed["name"], failed["distribution"]) == ("broken", "broken-rl")
    assert re.fullmatch(
        r"ModuleNotFoundError: No module named 'absent_module' \(.*broken_listed.py:1\): "
        "install it beside the framework",
        failed["reason"],
    )
    (reinforce,) = [plugin for plugin in listing["plugins"] if plugin["name"] == "reinforce"]
    assert reinforce["distribution"] == "framework-rl"
    assert reinforce["version"] == framework.__version__
    assert reinforce["provides"]["estimator"] == ["rewards_to_go", "total_return"]


@pytest.mark.slow
def test_on_a_terminal_the_list_is_a_table(here):
    output, code = in_terminal(["plugins"], here)
    assert code == 0
    assert re.search(r"line_world\s+│ framework-rl [\d.]+\s+│ environment: line_world", output)


# The core


@pytest.mark.slow
def test_the_core_imports_no_plugin():
    """By its source, and by what a bare import loads."""
    import ast
    from pathlib import Path

    root = Path(framework.__file__).parent
    plugins = {path.stem for path in (root.parent / "plugins").iterdir()}
    assert "framework_reinforce" in plugins
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.append(node.module or "")
            assert not {name.split(".")[0] for name in imported} & plugins, path
    code = "import sys, framework.api, framework.cli.run; print([m for m in sys.modules if m.startswith('framework_')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
