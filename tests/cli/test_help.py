"""`--help`: in 80 columns and fewer, with the names of all parts, a phrase for every option, in plain words."""

import contextlib
import functools
import io
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from framework.cli import COMMANDS, main
from framework.cli.help import wrap_help
from framework.config import PART_ROLES
from framework.setup.loading import load

LOADED = load()
ALL_PARTS = [
    [word for role, name in zip(PART_ROLES, names, strict=True) if name for word in (f"--{role}", name)]
    for names in itertools.zip_longest(
        *(sorted(LOADED.names(role), key=("gae", "value").__contains__, reverse=True) for role in PART_ROLES)
    )
]
EXTENSIONS = ["--extensions", ",".join(name for name in LOADED.names("extension") if name not in ("plot", "record"))]
HELPS = [
    ["--help"],
    *([command, "--help"] for command in COMMANDS),
    ["run", "--recipe", "ppo_continuous", *EXTENSIONS, "--help"],
    ["check", "gaussian", "--help"],
    ["audit", "--estimator", "gae,vtrace", "--loss", "ppo", "--help"],
    *(["run", *words, "--help"] for words in ALL_PARTS),
]
COINED = (
    r"\btold\b",
    r"\bthe notebook",
    r"plays? no part",
    r"\bmend",
    r"\bspoil",
    r"put to the law",
    r"of all randomness",
    r"asked of",
    r"exactly so many",
    r"so many steps",
)

METAVAR = r"^(?:, )?(?:--[\w.-]+|[A-Z]+(?:,[A-Z])?|FILE\S*|\{[^}]*\}(?:\|\w+)*|\[.*?\]+|\.\.\.\]+)\s*"


@functools.cache
def helped(*words, columns=80):
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setenv("COLUMNS", str(columns))
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    assert code == 0
    return out.getvalue()


def plain(text):
    """The words without boxes."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def fits(words, columns):
    lines = helped(*words, columns=columns).splitlines()
    assert max(map(len, lines)) <= columns
    boxes = [line for line in lines if line.startswith(("╭", "│", "╰"))]
    assert all(line.endswith(("╮", "│", "╯")) for line in boxes)
    assert len({len(line) for line in boxes}) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_no_line_of_help_is_wider_than_80_columns(words):
    fits(words, 80)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60])
@pytest.mark.parametrize("words", HELPS[: -len(ALL_PARTS)], ids=" ".join)
def test_nor_than_a_narrower_terminal(words, columns):
    fits(words, columns)


@pytest.mark.slow
@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_is_plain_and_every_option_has_a_phrase(words):
    text = plain(helped(*words))
    found = [word for pattern in COINED for word in re.findall(pattern, text, re.IGNORECASE)]
    assert not found
    options = re.split(r" (?=--[a-z][\w.-]*(?:, --| \[| \{| [A-Z]|$))", text)[1:]
    for option in options:
        name, _, rest = option.partition(" ")
        if ".options." not in name:  # a key of a table, which is described as a whole
            assert not re.sub(METAVAR, "", rest).startswith("(default"), name


@pytest.mark.parametrize("command", ["run", "show"])
def test_help_lists_the_names_of_parts_and_recipes(command):
    text = plain(helped(command, "--help"))
    for role in (*PART_ROLES, "recipe", "extension", "report"):
        option = {"extension": "extensions A,B", "report": "reports A,B"}.get(role, f"{role} NAME")
        said = text.partition(f"--{option} ")[2].partition("(default: ")[0]
        reports = {"plot", "progress", "record"}
        names = sorted(reports) if role == "report" else sorted({*LOADED.names(role)} - reports)
        assert ": " + ", ".join(names) in said


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["evaluate"], ["--estimator", "--baseline", "--loss", "--extensions", "--reports", "--iterations"]),
        (["audit"], ["--extensions", "--reports", "--iterations"]),
        (["credit"], ["--baseline", "--loss", "--extensions", "--reports", "--iterations"]),
    ],
)
def test_a_command_offers_no_option_that_it_does_not_use(words, absent):
    text = plain(helped(*words, "--help"))
    for option in absent:
        assert option not in text


def test_the_commands_help_shows_ppo_on_a_gymnasium_environment_and_its_examples_work():
    text = helped("--help")
    examples = re.findall(r"^  framework (run .*?)(?: --help)?$", text.replace("\\\n", ""), re.M)
    assert any("ppo" in example and "CartPole-v1" in example for example in examples)
    for example in (example for example in examples if "my_" not in example):
        assert main(["show", *example.split()[1:]]) == 0


def test_help_and_documents_give_compiling_the_same_time():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "run-and-record.md").read_text("utf-8")
    text = plain(helped("run", "--help"))
    assert "in 20 to 35 s at the start of the first run and about 5 s later" in text
    assert re.search(r"20 to 35 seconds at the start of the first run, and about 5 once", " ".join(page.split()))


def test_a_long_line_goes_on_under_its_second_column():
    assert wrap_help("  run   train a policy\n\nshort", 16) == "  run   train a\n        policy\n\nshort"
    assert wrap_help("one two three", 8) == "one two\nthree"
    assert wrap_help("│ a box is left as it is │", 8) == "│ a box is left as it is │"


# Completion

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    from framework.cli.completion import script

    path = tmp_path_factory.mktemp("completion") / "framework.bash"
    path.write_text(script(LOADED))
    return path


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_the_script_for_bash_is_valid_and_completes(script):
    subprocess.run([BASH, "-n", script], check=True)
    lines = {
        "framework eva": "evaluate",
        "framework run --policy gau": "gaussian",
        "framework run --policy.hid": "--policy.hidden",
        "framework run --recipe ppo_": "ppo_continuous",
        "framework run --extensions.early-stop.m": "--extensions.early-stop.mean-return",
        "framework run --optimizer.schedule l": "linear",
        "framework evaluate runs/first --gr": "--greedy",
        "framework evaluate runs/first --loss": "",
        "framework check gae --estimator.l": "--estimator.lam",
        "framework new est": "estimator",
    }
    asked = "".join(
        f'COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _framework; echo "${{COMPREPLY[*]}}"\n'
        for line in lines
    )
    done = subprocess.run([BASH, "-c", f"source {script}\n{asked}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(lines.values())
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "show", "evaluate", "audit", "credit", "plugins"])
def test_every_option_of_the_help_is_completed(script, command):
    words = [command, *(EXTENSIONS if command in ("run", "show") else []), "--help"]
    shown = set(re.findall(r"^│ (?:-h, )?(--[\w.-]+)(?:, (--[\w.-]+))?", helped(*words), re.M))
    completed = re.search(rf'^ +{command}\) candidates="(.*)" ;;$', script.read_text(), re.M)[1].split()
    assert {option for pair in shown for option in pair if option} <= {*completed}


def test_the_script_for_zsh_is_that_for_bash(capsys):
    assert main(["completion", "bash"]) == 0
    bash = capsys.readouterr().out
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == "autoload -U +X bashcompinit && bashcompinit\n" + bash


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["completion", "tcsh"])
    assert end.value.code == 2
    assert "bash" in capsys.readouterr().err
