"""Code that only a file names is imported with the user's consent; the user's own records need none."""

import io
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import tomli_w
from foreign import GYM_WORLD, publish
from framework_gymnasium import Gymnasium

import framework
from framework import UsageError
from framework.cli import main
from framework.records.signing import key_path, sign
from framework.setup.tree import settings_tree

WORLD = (
    """
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

Path(__file__).with_suffix(".imported").write_text("yes")


reward, LIMIT = float, 3
"""
    + GYM_WORLD
    + """

class Wrapper(gymnasium.Wrapper):
    pass
"""
)
PLUGIN = """
from pathlib import Path

from attrs import frozen
from framework import hookimpl
from framework_reinforce import RewardsToGo

Path(__file__).with_suffix(".imported").write_text("yes")


@frozen
class Mine(RewardsToGo):
    "As the built-in one."


@hookimpl
def estimators():
    return {"mine": Mine}
"""
SETTINGS = ["--environment", "gymnasium", "--environment.id"]
SHORT = ["--iterations", "1", "--rollout.lanes", "2", "--rollout.episodes", "2", "--reports", "record", "--quiet"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a world and a plugin that leave a mark when they are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "strange_world.py").write_text(WORLD)
    (tmp_path / "strange.py").write_text(PLUGIN)
    yield tmp_path
    forget()


def forget():
    for name in ("strange_world", "framework_file_strange", "framework_file_strange_policy", "strange"):
        sys.modules.pop(name, None)


def imported(folder):
    """Whether anything was imported since the last question."""
    forget()
    marks = list(folder.rglob("*.imported"))
    for mark in marks:
        mark.unlink()
    return bool(marks)


def make_foreign(record):
    """The record as another user's would be: without a signature."""
    (record / "signature.json").unlink()


def change(path, **sections):
    tree = tomllib.loads(path.read_text())
    for key, value in sections.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
    path.write_text(tomli_w.dumps(tree))


def said(capsys, *words, code=0):
    assert main(list(words)) == code
    return capsys.readouterr()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A record of the user's own, whose environment is a module in the current folder."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "strange_world.py").write_text(WORLD)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert main(["run", *SETTINGS, "strange_world:World", *SHORT, "--name", "own"]) == 0
    assert imported(folder)
    return folder / "runs" / "own"


@pytest.fixture
def own(recorded, here):
    """The same as if it had been recorded here."""
    record = Path(shutil.copytree(recorded, here / "runs" / "own"))
    made = json.loads((record / "plugins.json").read_text())
    for one in made["files"]:
        one["file"] = str(here / Path(one["file"]).name)
    (record / "plugins.json").write_text(json.dumps(made))
    contents = [(record / name).read_bytes() for name in ("config.toml", "plugins.json")]
    (record / "signature.json").write_text(sign(*contents))
    return record


# One's own records


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "runs/own", "--episodes", "2"],
        ["audit", "runs/own", "--episodes", "32"],
        ["run", "--config", "runs/own/config.toml", "--name", "again", "--quiet"],
    ],
    ids=lambda words: words[0],
)
def test_what_one_recorded_oneself_needs_no_consent(own, here, capsys, words):
    said(capsys, *words)
    assert imported(here)


def test_the_key_is_this_user_s_alone(own):
    assert key_path().is_file()
    assert len(key_path().read_bytes()) == 32
    if os.name == "posix":
        assert key_path().stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("changed", ["config.toml", "plugins.json", "signature.json", "the key"])
def test_any_change_voids_the_signature(own, here, capsys, monkeypatch, changed):
    if changed == "the key":
        monkeypatch.setenv("XDG_DATA_HOME", str(here / "other"))
    elif changed == "signature.json":
        (own / changed).write_text('{"hmac-sha256": "%s"}' % ("0" * 64))
    else:
        (own / changed).write_text((own / changed).read_text() + "\n")
    err = said(capsys, "evaluate", "runs/own", code=2).err
    assert (
        "runs/own/config.toml names code that no installed plugin has:\n  module strange_world, for environment" in err
    )
    assert "config.toml or plugins.json was changed since the run, or another user or machine recorded it" in err
    assert "If you trust whoever wrote it: framework evaluate runs/own --trust" in err
    assert not imported(here)
    said(capsys, "evaluate", "runs/own", "--episodes", "2", "--trust")
    assert imported(here)


@pytest.mark.slow
def test_a_signature_that_is_none_is_no_fault(own, here, capsys):
    for text in ("", "[]", "3", '{"hmac-sha256": 3}', '{"hmac-sha256": "é"}', "[" * 5000):
        (own / "signature.json").write_text(text)
        assert "framework evaluate runs/own --trust" in said(capsys, "evaluate", "runs/own", code=2).err
    assert not imported(here)


@pytest.mark.slow
@pytest.mark.parametrize("text", [WORLD, WORLD + "\nMORE = 1\n"], ids=["same", "other"])
@pytest.mark.parametrize("linked", [False, True], ids=["file", "link"])
def test_a_module_of_the_same_name_in_another_folder_is_other_code(own, here, capsys, monkeypatch, text, linked):
    """Modules are looked for in the current folder, which may be another person's: what the same text imports
    there, or Python's cache of it, is not the user's own."""
    (moved := here / "moved").mkdir()
    if linked:  # the name of a folder makes nothing an installed package
        (moved / "site-packages").mkdir()
        (moved / "site-packages" / "strange_world.py").write_text(text)
        (moved / "strange_world.py").symlink_to("site-packages/strange_world.py")
    else:
        (moved / "strange_world.py").write_text(text)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(here))])
    monkeypatch.chdir(moved)
    err = said(capsys, "evaluate", str(own), code=2).err
    assert "It is not trusted: the run that you recorded imported this from another folder" in err
    assert not imported(here)
    said(capsys, "evaluate", str(own), "--episodes", "2", "--trust")
    assert imported(here)


def test_one_s_own_file_may_be_edited_where_it_lies(here, capsys):
    """That is a warning and no question."""
    said(capsys, "run", *SETTINGS, "strange_world:World", *SHORT, "--name", "here")
    assert imported(here)
    (here / "strange_world.py").write_text(WORLD + "\nMORE = 1\n")
    with pytest.warns(RuntimeWarning, match="the code of module strange_world was edited"):
        said(capsys, "evaluate", "runs/here", "--episodes", "2")
    assert imported(here)


def test_the_first_import_of_a_process_looks_in_the_current_folder_too(own, here, capsys, monkeypatch):
    """No path leads there before the module is imported: that of another person must not be taken for none at all."""
    (moved := here / "moved").mkdir()
    (moved / "strange_world.py").write_text(WORLD + "\nMORE = 1\n")
    monkeypatch.chdir(moved)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(here), str(moved))])
    assert "It is not trusted" in said(capsys, "evaluate", str(own), code=2).err
    assert not imported(here)


def test_an_installed_plugin_may_be_named_by_its_module(here, capsys):
    Path("mine.toml").write_text('plugins = ["framework_line_world", "reinforce"]\n')
    said(capsys, "run", "--config", "mine.toml", *SHORT)


def test_names_in_a_file_cannot_hide_what_is_listed(here, capsys):
    """A terminal obeys escape sequences, and shows a name after U+202E from right to left."""
    names = ["strange.py", "\x1b[2A\x1b[2Kharmless", "a\n  module harmless", "\u202egnp.py", "\x9b2J"]
    Path("theirs.toml").write_text(tomli_w.dumps({"plugins": names}))
    err = said(capsys, "run", "--config", "theirs.toml", code=2).err
    assert "  file strange.py, a plugin\n  module \\u001b[2A\\u001b[2Kharmless, a plugin\n" in err
    assert "  module a\\u000a  module harmless, a plugin\n  file \\u202egnp.py, a plugin\n" in err
    assert all(one.isprintable() or one == "\n" for one in err)
    Path("theirs.toml").write_text('"\\u001b[2Jkey" = 1\n')
    assert "no section or key '\\u001b[2Jkey'" in said(capsys, "show", "--config", "theirs.toml", code=2).err


def test_where_no_key_can_be_made_the_record_says_so_once_and_takes_consent(here, capsys, monkeypatch):
    (here / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(here / "file"))
    with pytest.warns(RuntimeWarning, match="this record cannot be signed .*: to read it back will take --trust"):
        said(capsys, "run", *SETTINGS, "strange_world:World", *SHORT, "--name", "unsigned")
    said(capsys, "run", *SHORT, "--name", "plain")  # names no code: nothing to say
    assert imported(here)
    err = said(capsys, "evaluate", "runs/unsigned", code=2).err
    assert "you did not record this run here: it has no signature of yours" in err
    said(capsys, "evaluate", "runs/plain", "--episodes", "2")
    assert not imported(here)


def test_processes_that_begin_at_once_agree_on_one_key(tmp_path):
    code = "from framework.records.signing import make_key; print(make_key().hex())"
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) for _ in "1234"]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1
    assert [path.name for path in (tmp_path / "framework-rl").iterdir()] == ["key"]


# What an untrusted file may name


GYMNASIUM = settings_tree(Gymnasium())
STRANGE = [
    {"environment": {"name": "gymnasium", "id": "strange_world:World"}},
    {"environment": {"name": "gymnasium", "id": "CartPole-v1", "wrappers": ["strange_world:Wrapper"]}},
    {"environment": {"name": "gymnasium", "id": "CartPole-v1", "wrappers": ["strange_world:Wrapper()"]}},
    {"environment": {"name": "gymnasium", "id": "strange_world:CartPole-v1"}},
    {"environment": {"name": "gymnasium", "id": "os:system", "kwargs": {"command": "touch os.imported"}}},
    {"plugins": ["./strange.py"], "estimator": {"name": "mine"}},
    {"plugins": ["strange"], "estimator": {"name": "mine"}},
    {"plugins": ["strange"]},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "tree"),
    [("run", tree) for tree in STRANGE]
    + [(command, tree) for command in ("credit", "audit") for tree in (STRANGE[0], STRANGE[5])],
    ids=lambda value: value if isinstance(value, str) else str(next(iter(value.values())))[:40],
)
def test_no_command_imports_what_a_file_names(here, capsys, command, tree):
    Path("strange.toml").write_text(tomli_w.dumps(tree))
    names = "strange.py" if "./strange.py" in str(tree) else "os" if "os:system" in str(tree) else "strange"
    err = said(capsys, command, "--config", "strange.toml", code=2).err
    assert err.startswith("error: strange.toml names code that no installed plugin has:\n")
    assert names in err
    assert "It is not trusted: anyone may have written this file" in err
    assert err.endswith(f"If you trust whoever wrote it: framework {command} --config strange.toml --trust\n")
    assert not imported(here)
    shows = [["show", "--config", "strange.toml"]] if command == "run" else []
    for words in (*shows, [command, "--config", "strange.toml", "--help"]):
        try:
            code = main(words)
        except SystemExit as exit:
            code = exit.code
        assert code == 0
        captured = capsys.readouterr()
        assert "strange.toml names code" in captured.err or "--help" in words
        assert captured.out
        assert not imported(here)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "audit"])
@pytest.mark.parametrize("tree", [STRANGE[0], STRANGE[1], STRANGE[4]], ids=lambda tree: str(tree["environment"])[:40])
def test_nor_does_a_command_that_reads_a_record(here, capsys, command, tree):
    framework.train(iterations=1, directory="runs/theirs")
    config = here / "runs/theirs/config.toml"
    config.write_text(tomli_w.dumps({**tomllib.loads(config.read_text()), "environment": tree["environment"]}))
    err = said(capsys, command, "runs/theirs", code=2).err
    assert "runs/theirs/config.toml is not complete" in err  # to change it by hand takes care, too
    change(here / "runs/theirs/config.toml", environment={**GYMNASIUM, **tree["environment"]})
    err = said(capsys, command, "runs/theirs", code=2).err
    assert "runs/theirs/config.toml names code that no installed plugin has:\n  module " in err
    assert f"wrote it: framework {command} runs/theirs --trust" in err
    assert not imported(here)


@pytest.mark.slow
def test_a_record_of_a_stranger_says_what_it_would_import(own, here, capsys):
    make_foreign(own)
    err = said(capsys, "evaluate", "runs/own", code=2).err
    assert "  module strange_world, for environment 'gymnasium' (plugin gymnasium)\n" in err
    for words in (["evaluate", "runs/own", "--help"], ["audit", "runs/own", "--help"]):
        with pytest.raises(SystemExit) as exit:
            main(words)
        assert exit.value.code == 0
        assert "--episodes" in capsys.readouterr().out
    assert not imported(here)


def test_show_prints_the_file_as_it_stands_where_it_may_not_import(here, capsys):
    tree = {"plugins": ["./strange.py"], "seed": 3, "estimator": {"name": "mine", "gamma": 0.5}}
    Path("mine.toml").write_text(tomli_w.dumps(tree))
    captured = said(capsys, "show", "--config", "mine.toml")
    assert tomllib.loads(captured.out) == tree
    assert "note: mine.toml names code that no installed plugin has:\n  file ./strange.py, a plugin\n" in captured.err
    assert not imported(here)
    resolved = tomllib.loads(said(capsys, "show", "--config", "mine.toml", "--trust").out)
    assert resolved["estimator"] == {"name": "mine", "gamma": 0.5, "discounted_objective": False}


def test_show_resolves_what_it_need_not_import(here, capsys):
    Path("mine.toml").write_text(tomli_w.dumps(STRANGE[4]))
    captured = said(capsys, "show", "--config", "mine.toml")
    assert tomllib.loads(captured.out)["environment"]["id"] == "os:system"
    assert "note: mine.toml names code that no installed plugin has:\n  module os, for environment" in captured.err
    assert "Running it needs --trust." in captured.err


def test_python_takes_trust_and_asks_nobody(here, capsys):
    plugins = "line_world,reinforce,./strange_policy.py"
    words = ["run", "--plugins", plugins, "--policy", "odd", *SHORT, "--name", "odd"]
    text = PLUGIN.replace("RewardsToGo", "Categorical").replace("estimators", "policies").replace('"mine"', '"odd"')
    Path("strange_policy.py").write_text(text)
    said(capsys, *words)
    record = here / "runs" / "odd"
    assert imported(here)
    framework.load(record)
    assert imported(here)
    make_foreign(record)
    message = r"(?s)odd/config.toml names code .*strange_policy.py, a plugin.*wrote it: framework.load\(…, trust=True\)"
    with pytest.raises(UsageError, match=message):
        framework.load(record)
    assert not imported(here)
    assert framework.load(record, trust=True) is not None
    assert imported(here)


def test_python_builds_a_stranger_s_environment_for_its_spaces_only_if_trusted(own, here):
    make_foreign(own)
    assert framework.load(own) is not None  # the spaces are in the record
    assert not imported(here)
    (own / "spaces.json").unlink()
    with pytest.raises(UsageError, match=r"(?s)module strange_world, .*framework.load\(…, trust=True\)"):
        framework.load(own)
    assert not imported(here)
    framework.load(own, trust=True)
    assert imported(here)


# What the user names is trusted


def test_what_the_command_line_names_too_is_trusted(own, here, capsys):
    make_foreign(own)
    said(capsys, "evaluate", "runs/own", "--episodes", "2", "--environment.id", "strange_world:World")
    assert imported(here)
    Path("mine.toml").write_text(tomli_w.dumps(STRANGE[5]))
    said(capsys, "run", "--config", "mine.toml", "--plugins", "line_world,reinforce,./strange.py", *SHORT)
    assert imported(here)


def test_what_the_command_line_replaces_is_not_imported(own, here, capsys):
    make_foreign(own)
    words = ["run", "--config", "runs/own/config.toml", "--name", "pole", "--quiet"]
    said(capsys, *words, "--environment.id", "CartPole-v1")
    assert not imported(here)


OTHER = """
from attrs import frozen
from framework import hookimpl
from framework_line_world import LineWorld
from framework_policies import ActorCritic


@frozen
class Says(LineWorld):
    "Imports by name, and says so."

    world: str = ""

    @property
    def imports(self):
        return (self.world,) if self.world else ()

    def build(self, num_envs, device):
        if self.world:
            __import__(self.world)
        return super().build(num_envs, device)


@frozen
class Policy(ActorCritic):
    "Imports by name, and says so."

    module: str = ""

    @property
    def imports(self):
        return (self.module,) if self.module else ()

    def build(self, *arguments):
        if self.module:
            __import__(self.module)
        return super().build(*arguments)


@frozen
class Wrong(LineWorld):
    "Says it in no tuple."

    imports = "strange_world"


@frozen
class Setting(LineWorld):
    "Has settings of these names."

    imports: int = 3
    sources: str = "no module"


@hookimpl
def environments():
    return {"says": Says, "wrong": Wrong, "setting": Setting}


@hookimpl
def policies():
    return {"naming": Policy}
"""


def test_python_asks_for_what_an_installed_policy_imports_too(here, capsys, monkeypatch):
    publish(here / "site", monkeypatch, "acme-rl", {"acme": "acme_worlds"}, acme_worlds=OTHER)
    sys.path.insert(0, str(here))
    said(capsys, "run", "--policy", "naming", "--policy.module", "strange_world", *SHORT, "--name", "own")
    assert imported(here)
    framework.load("runs/own")
    assert imported(here)
    make_foreign(here / "runs" / "own")
    with pytest.raises(UsageError, match=r"(?s)module strange_world, for policy 'naming' .*framework.load\(…, trust="):
        framework.load("runs/own")
    assert not imported(here)
    framework.load("runs/own", trust=True)
    assert imported(here)


def test_other_parts_say_what_they_import_too(here, capsys, monkeypatch):
    publish(here / "site", monkeypatch, "acme-rl", {"acme": "acme_worlds"}, acme_worlds=OTHER)
    Path("theirs.toml").write_text('[environment]\nname = "says"\nworld = "strange_world"\n')
    err = said(capsys, "run", "--config", "theirs.toml", *SHORT, code=2).err
    assert "  module strange_world, for environment 'says' (plugin acme)\n" in err
    assert not imported(here)
    sys.path.insert(0, str(here))
    said(capsys, "run", "--config", "theirs.toml", "--trust", *SHORT)
    assert imported(here)
    said(capsys, "run", "--environment", "says", "--environment.world", "strange_world", *SHORT, "--name", "own")
    assert imported(here)
    said(capsys, "evaluate", "runs/own", "--episodes", "2")
    assert imported(here)
    said(capsys, "run", "--environment", "setting", *SHORT)
    err = said(capsys, "run", "--environment", "wrong", *SHORT, code=2).err
    assert "environment 'wrong' (plugin acme): imports must be a tuple of modules and files, got 'strange_world'" in err


# A question on a terminal


@pytest.fixture
def terminal(monkeypatch):
    """Standard input and error are a terminal, on which this is typed; what is printed is given back."""
    shown = io.StringIO()
    shown.isatty = lambda: True

    def typed(text):
        keys = io.StringIO(text)
        keys.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", keys)
        monkeypatch.setattr(sys, "stderr", shown)
        return shown

    return typed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "answer", "code"),
    [
        *(("evaluate", answer, 0) for answer in ("y\n", "yes\n", "Y\n")),
        *(("evaluate", answer, 2) for answer in ("\n", "n\n", "", "no\n")),
        *(("audit", "y\n", 0), ("audit", "\n", 2)),
    ],
)
def test_on_a_terminal_it_is_asked_once_and_no_is_the_default(own, here, capsys, terminal, command, answer, code):
    make_foreign(own)
    shown = terminal(answer)
    assert main([command, "runs/own", "--episodes", "32"]) == code
    assert shown.getvalue().count("Import it? [y/N]") == 1
    assert "module strange_world, for environment 'gymnasium' (plugin gymnasium)" in shown.getvalue()
    assert ("error: nothing was imported or run" in shown.getvalue()) == (code == 2)
    assert imported(here) == (code == 0)


def test_the_question_lists_plugins_and_modules_together(here, capsys, terminal):
    Path("mine.toml").write_text(tomli_w.dumps({**STRANGE[0], **STRANGE[5]}))
    shown = terminal("n\n")
    assert main(["run", "--config", "mine.toml"]) == 2
    assert "  file ./strange.py, a plugin\n  module strange_world, for environment" in shown.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_a_real_terminal_is_asked(own, here):
    make_foreign(own)
    child, descriptor = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "framework", "evaluate", "runs/own", "--episodes", "2"])
    seen, answered, end = b"", False, time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([descriptor], [], [], 1)[0]:
            continue
        try:
            seen += (chunk := os.read(descriptor, 4096))
        except OSError:
            break
        if not chunk:
            break
        if b"[y/N]" in seen and not answered:
            answered = os.write(descriptor, b"y\n") > 0
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen.decode()
    assert answered
    assert imported(here)
