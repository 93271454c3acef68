"""A record is complete, says which code made it, and what is read back with other code is warned of."""

import importlib
import json
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import gymnasium
import pytest
import tomli_w
from attrs import frozen
from foreign import GYM_WORLD
from framework_gymnasium import Gymnasium
from framework_line_world import LineWorld
from framework_reinforce import RewardsToGo

import framework
from framework import UsageError
from framework.cli import main
from framework.records.provenance import _reachable, find, is_installed, sha256

WORLD = (
    """
import gymnasium
import numpy as np
from gymnasium import spaces

from far_helper import LIMIT
from far_package.inner import reward

"""
    + GYM_WORLD
)
FILES = {
    "far_world.py": WORLD,
    "far_helper.py": "import json\n\nLIMIT = 3\n",
    "far_package/__init__.py": "",
    "far_package/inner.py": "from . import other\n\n\ndef reward(action):\n    return float(action) * other.SCALE\n",
    "far_package/other.py": "SCALE = 1.0\n",
    "far_unused.py": "",
}
MODULES = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in FILES]
SHORT = ["--iterations", "1", "--rollout.lanes", "2", "--rollout.episodes", "2", "--reports", "record", "--quiet"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_files(tmp_path)
    yield tmp_path
    forget()


def write_files(folder):
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def forget():
    """As a new process would begin."""
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two records, and the code that one of them was made with."""
    folder = tmp_path_factory.mktemp("recorded")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        words = ["--environment", "gymnasium", "--environment.id", "far_world:World"]
        assert main(["run", *words, *SHORT, "--name", "own"]) == 0
        assert main(["run", *SHORT, "--name", "plain"]) == 0
    forget()
    return folder


@pytest.fixture
def own(recorded, here):
    return Path(shutil.copytree(recorded / "runs" / "own", here / "runs" / "own"))


@pytest.fixture
def plain(recorded, here):
    return Path(shutil.copytree(recorded / "runs" / "plain", here / "runs" / "plain"))


def made(record):
    return json.loads((record / "plugins.json").read_text())


def rewrite(record, change):
    written = made(record)
    change(written)
    (record / "plugins.json").write_text(json.dumps(written))


def readers(record):
    """The commands that read a record, each as a function."""
    config = str(record / "config.toml")
    return {
        "evaluate": lambda: main(["evaluate", str(record), "--episodes", "2", "--trust"]),
        "audit": lambda: main(["audit", str(record), "--episodes", "32", "--trust"]),
        "run": lambda: main(["run", "--config", config, "--trust", *SHORT[-3:], "--name", "again"]),
    }


# Which code made it


def test_the_files_of_an_own_environment_and_of_what_it_imports_are_recorded(own, recorded):
    """All that its statements reach, in its package and beside it; nothing of Python's or of installed packages."""
    listed = made(own)["files"]
    reached = ["far_helper", "far_package", "far_package.inner", "far_package.other", "far_world"]
    assert [one["module"] for one in listed] == reached
    for one in listed:
        assert Path(one["file"]).is_relative_to(recorded)
        assert one["sha256"] == sha256(Path(one["file"]))
    assert made(own)["versions"]["gymnasium"] == gymnasium.__version__


def test_a_wrapper_s_file_is_recorded(here):
    (here / "far_unused.py").write_text("import gymnasium\n\n\nclass Same(gymnasium.Wrapper):\n    pass\n")
    words = ["--environment", "gymnasium", "--environment.wrappers", "far_unused:Same"]
    assert main(["run", *words, *SHORT, "--name", "wrapped"]) == 0
    assert [one["module"] for one in made(here / "runs" / "wrapped")["files"]] == ["far_unused"]


def test_the_versions_of_a_registered_environment_s_packages_are_recorded(here):
    mujoco = pytest.importorskip("mujoco")
    words = ["--recipe", "ppo_continuous", "--environment", "gymnasium", "--environment.id", "InvertedPendulum-v5"]
    assert main(["run", *words, "--iterations", "1", *SHORT[-3:], "--rollout.fixed-steps", "8", "--name", "m"]) == 0
    versions = made(here / "runs" / "m")["versions"]
    assert (versions["mujoco"], versions["gymnasium"]) == (mujoco.__version__, gymnasium.__version__)
    assert made(here / "runs" / "m")["files"] == []


def test_the_version_of_what_an_installed_environment_is_made_of_is_recorded(here, monkeypatch):
    """Its class's base imports a simulator, as Gymnasium's MuJoCo environments do."""
    site = here / "site-packages"
    texts = {
        "far_simulator.py": "__version__ = '7.1'\n",
        "far_base.py": "import far_simulator\n" + WORLD.replace("LIMIT", "3").replace("from far_", "# from far_"),
        "far_installed.py": "import gymnasium\nfrom far_base import World\n\n\nclass Installed(World):\n    pass\n\n\n"
        "gymnasium.register('FarInstalled-v0', entry_point='far_installed:Installed')\n",
    }
    site.mkdir()
    for name, text in texts.items():
        (site / name).write_text(text.replace("reward(action)", "1.0"))
    monkeypatch.syspath_prepend(str(site))
    words = ["--environment", "gymnasium", "--environment.id", "far_installed:FarInstalled-v0"]
    try:
        assert main(["run", *words, *SHORT, "--name", "i"]) == 0
    finally:
        for name in texts:
            sys.modules.pop(name.removesuffix(".py"), None)
    written = made(here / "runs" / "i")
    assert (written["versions"]["far_simulator"], written["files"]) == ("7.1", [])


def test_an_own_extension_module_is_recorded_too(here):
    """Compiled code has a hash, and nothing to follow."""
    import importlib.machinery
    import types

    path = here / f"far_compiled{importlib.machinery.EXTENSION_SUFFIXES[-1]}"
    path.write_bytes(b"compiled")
    module = types.ModuleType("far_compiled")
    module.__file__ = str(path)
    files, _ = _reachable([module], set())
    assert files == {"far_compiled": path}


def test_a_plugin_file_s_path_and_neighbours_are_recorded(here):
    (here / "mine.py").write_text(
        "from attrs import frozen\nfrom framework import hookimpl\nfrom framework_reinforce import RewardsToGo\n"
        "import far_helper\n\n@frozen\nclass Mine(RewardsToGo):\n    'Mine.'\n\n"
        "@hookimpl\ndef estimators():\n    return {'mine': Mine}\n"
    )
    assert main(["run", "--plugins", "./mine.py", "--estimator", "mine", *SHORT, "--name", "m"]) == 0
    written = made(here / "runs" / "m")
    (mine,) = [plugin for plugin in written["plugins"] if plugin["name"] == "mine"]
    assert mine["file"] == str(here / "mine.py")
    assert [one["module"] for one in written["files"]] == ["far_helper"]


def test_a_module_is_found_without_being_imported(own, here):
    assert find("far_package.inner") == here / "far_package" / "inner.py"
    assert find("far_package.nothing") is None
    assert find("nowhere_at_all.inner") is None
    assert "far_package" not in sys.modules
    assert is_installed(find("json"))
    assert is_installed(find("attrs"))


# Other code


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["evaluate", "audit", "run"])
@pytest.mark.parametrize("file", ["far_world.py", "far_package/other.py"])
def test_an_edited_environment_is_warned_of(own, here, reader, file):
    (here / file).write_text(FILES[file] + "\n# edited\n")
    name = file.removesuffix(".py").replace("/", ".")
    message = rf"runs/own was made by other code: the code of module {name} was edited \({here / file}\)$"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        assert readers(own)[reader]() == 0
    assert len(caught) == 1


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["evaluate", "audit", "run"])
def test_all_that_differs_is_one_warning(plain, reader):
    def change(written):
        written["versions"] |= {"torch": "1.0", "numpy": "0.9", "python": "2.7"}
        for plugin in written["plugins"]:
            plugin["sha256"] = "0" * 64

    rewrite(plain, change)
    with pytest.warns(RuntimeWarning, match="runs/plain was made by other code: ") as caught:
        assert readers(plain)[reader]() == 0
    (warning,) = caught
    said = str(warning.message)
    assert "the code of plugin 'line_world' was edited" in said
    assert "the code of plugin 'reinforce' was edited" in said
    assert "1.0 then" in said
    assert "0.9 then" in said
    assert "2.7" not in said  # Python's own version changes no arithmetic
    assert "reports" not in said  # they only watch


def test_another_version_of_a_distribution_is_reported_once(plain):
    def change(written):
        for plugin in written["plugins"]:
            plugin["version"] = "0.0.1"

    rewrite(plain, change)
    here = f"framework-rl {framework.__version__} here, 0.0.1 then"
    with pytest.warns(RuntimeWarning, match=f"made by other code: {here}$"):
        readers(plain)["evaluate"]()


def test_python_warns_of_the_policy_s_code_alone(own, here):
    (here / "far_world.py").write_text(WORLD + "\n# edited\n")
    framework.load(own)  # no environment is built

    def change(written):
        for plugin in written["plugins"]:
            plugin["sha256"] = "0" * 64

    rewrite(own, change)
    with pytest.warns(RuntimeWarning, match="own was made by other code: the code of plugin 'reinforce' was edited$"):
        framework.load(own)


@pytest.mark.slow
def test_the_same_code_is_no_warning(own, plain):
    for record in (own, plain):
        for read in list(readers(record).values())[:2]:
            assert read() == 0
        framework.load(record)


@pytest.mark.parametrize(
    "text",
    ["[]", "3", "{", '{"plugins": 3}', '{"plugins": [3]}', '{"files": {}}', '{"versions": []}', "[" * 9999],
    ids=lambda text: text[:20],
)
def test_a_broken_plugins_file_is_named(plain, capsys, text):
    (plain / "plugins.json").write_text(text)
    assert main(["evaluate", "runs/plain"]) == 2
    assert capsys.readouterr().err.startswith("error: runs/plain/plugins.json cannot be read: ")


# Completeness


def lack(record, *names):
    path = record / "config.toml"
    tree = tomllib.loads(path.read_text())
    for name in names:
        *outer, last = name.split(".")
        section = tree
        for key in outer:
            section = section[key]
        del section[last]
    path.write_text(tomli_w.dumps(tree))


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        *(("evaluate", name) for name in ("environment", "environment.goal", "policy.hidden", "policy.name", "seed")),
        *(("audit", "environment.goal"), ("run", "environment.goal"), ("run", "policy.name")),
    ],
)
def test_a_record_that_lacks_a_setting_is_refused(plain, capsys, reader, name):
    lack(plain, name)
    assert readers(plain)[reader]() == 2
    err = capsys.readouterr().err
    assert f"{name}." in err or f"it has no {name}" in err
    assert "runs/plain/config.toml is not complete, as a record must be: it has no " in err
    if name.startswith("policy") or name == "seed":
        with pytest.raises(UsageError, match=f"not complete, as a record must be: it has no {name}"):
            framework.load(plain)


@pytest.mark.parametrize(
    "name",
    ["iterations", "loss", "rollout.lanes", "update.epochs", "optimizer", "extensions", "reports"],
)
def test_to_repeat_a_run_all_of_it_must_be_there(plain, capsys, name):
    lack(plain, name)
    assert readers(plain)["run"]() == 2
    assert f"it has no {name}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["update.max_grad_norm", "optimizer.options.eps", "environment.max_steps"])
def test_nor_may_one_be_missing_that_has_no_number_by_default(here, capsys, name):
    """What is None by default need not be in config.toml, so plugins.json names those that were there."""
    words = ["--update.max-grad-norm", "0.5", "--optimizer.options", "eps", "1e-6", "--environment.max-steps", "9"]
    assert main(["run", *words, "--iterations", "1", "--reports", "record", "--name", "plain"]) == 0
    record = here / "runs" / "plain"
    assert readers(record)["run"]() == 0
    lack(record, name)
    assert readers(record)["run"]() == 2
    assert f"is not complete, as a record must be: it has no {name}. " in capsys.readouterr().err
    assert readers(record)["evaluate"]() == (2 if name.startswith("environment") else 0)


def test_a_way_to_collect_that_is_missing_is_not_the_default_one(plain, capsys):
    lack(plain, "rollout.episodes")
    assert readers(plain)["run"]() == 2
    assert "it has no rollout.steps" in capsys.readouterr().err


def test_all_that_is_missing_is_named(plain, capsys):
    lack(plain, "environment.goal", "environment.max_steps")
    assert readers(plain)["evaluate"]() == 2
    assert "it has no environment.goal, environment.max_steps. The file was changed" in capsys.readouterr().err


def test_a_record_of_an_older_version_may_lack_what_is_new(plain):
    """The part's code is another than the record's: the setting may not have been there."""
    lack(plain, "environment.goal")

    def change(written):
        for plugin in written["plugins"]:
            plugin["version"] = "0.0.1"

    rewrite(plain, change)
    with pytest.warns(RuntimeWarning) as caught:
        assert readers(plain)["evaluate"]() == 0
    first, second = (str(warning.message) for warning in caught)
    assert first.endswith("config.toml is of an older version without environment.goal = 4: the default is used")
    assert "was made by other code" in second


def test_a_file_of_one_s_own_may_be_partial(here, capsys):
    Path("mine.toml").write_text("seed = 3\n\n[environment]\ngoal = 6\n")
    assert main(["show", "--config", "mine.toml"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["environment"]["goal"] == 6


def test_what_another_part_replaces_need_not_be_there(plain, capsys):
    lack(plain, "environment.goal")
    assert main(["evaluate", "runs/plain", "--environment", "cliff", "--episodes", "2"]) == 2
    assert "was trained on observations Discrete(5)" in capsys.readouterr().err


# Runs that cannot be repeated


@frozen
class Mine(RewardsToGo):
    """No plugin offers it."""


def test_a_class_that_no_plugin_offers_is_warned_of_at_once(tmp_path):
    message = (
        r"^the record of this run cannot repeat it: estimator 'Mine': no plugin offers its class, "
        r"test_provenance.Mine. Offer it by a plugin, in a file of its own"
    )
    with pytest.warns(RuntimeWarning, match=message):
        framework.train(estimator=Mine(), iterations=1, directory=tmp_path / "run")
    written = json.loads((tmp_path / "run" / "plugins.json").read_text())
    assert [one["module"] for one in written["files"]][-1] == "test_provenance"  # its code is recorded all the same


def test_so_is_one_that_was_made_inside_a_function(tmp_path):
    @frozen
    class Local(RewardsToGo):
        "Of this test."

    message = "estimator 'Local': its class, test_so_is_one.*Local, was made inside a function"
    with pytest.warns(RuntimeWarning, match=message):
        framework.train(estimator=Local(), iterations=1, directory=tmp_path / "run")


@pytest.mark.slow
def test_what_the_warning_says_to_do_is_right(here, capsys):
    """A class of a module that offers it as a plugin, which is named: the record repeats the run."""
    (here / "far_unused.py").write_text(
        "from attrs import frozen\nfrom framework import hookimpl\nfrom framework_reinforce import RewardsToGo\n\n"
        "@frozen\nclass Offered(RewardsToGo):\n    'Of a plugin.'\n\n"
        "@hookimpl\ndef estimators():\n    return {'offered': Offered}\n"
    )
    sys.path.insert(0, str(here))
    from far_unused import Offered

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        framework.train(estimator=Offered(gamma=0.5), plugins="far_unused", iterations=1, directory="runs/own")
    assert main(["run", "--config", "runs/own", "--name", "again", "--quiet"]) == 0
    one, other = (here / "runs" / name / "policy.safetensors" for name in ("own", "again"))
    assert one.read_bytes() == other.read_bytes()


def test_without_a_record_there_is_nothing_to_warn_of():
    framework.train(estimator=Mine(), iterations=1)


def test_a_plugin_s_class_is_repeated(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        framework.train(environment=LineWorld(goal=3), estimator=RewardsToGo(), iterations=1, directory=tmp_path / "a")
        framework.train(environment=Gymnasium(), iterations=1, directory=tmp_path / "b")


SCRIPT = """
import framework, gymnasium
from attrs import frozen
from framework_gymnasium import Gymnasium
from framework_reinforce import RewardsToGo
from gymnasium.envs.classic_control import CartPoleEnv

@frozen
class Scripted(RewardsToGo):
    "Of a script."

class Pole(CartPoleEnv):
    pass

gymnasium.register("Pole-v0", entry_point=Pole, max_episode_steps=20)
framework.train(environment=Gymnasium(id="Pole-v0"), estimator=Scripted(), iterations=1, directory="run")
"""


@pytest.mark.slow
def test_a_script_s_own_classes_and_environments_are_warned_of(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "environment 'gymnasium' (plugin gymnasium): its code belongs to the script or notebook that ran" in said
    assert "estimator 'Scripted': its class, Scripted, belongs to the script or notebook that ran" in said
    assert said.count("cannot repeat it") == 1
    (script,) = json.loads((tmp_path / "run" / "plugins.json").read_text())["files"]
    assert script == {
        "module": "__main__",
        "file": str(tmp_path / "script.py"),
        "sha256": sha256(tmp_path / "script.py"),
    }


def test_an_id_that_only_an_import_registers_is_warned_of(tmp_path, monkeypatch):
    """A process that reads the record would not know the id; `module:ID` says where it comes from."""
    (tmp_path / "registering.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\nclass Mine(CartPoleEnv): pass\n"
        'gymnasium.register("Registered-v0", entry_point=Mine, max_episode_steps=9)\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("registering")
    short = {"recipe": "ppo", "iterations": 1, "rollout": {"lanes": 1, "fixed_steps": 8}}
    message = r"its code is in the module registering, .* is written registering:ID"
    try:
        with pytest.warns(RuntimeWarning, match=message):
            framework.train(environment=Gymnasium("Registered-v0"), directory="one", **short)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            framework.train(environment=Gymnasium("registering:Registered-v0"), directory="two", **short)
            framework.train(environment=Gymnasium("CartPole-v1"), directory="three", **short)
    finally:
        gymnasium.registry.pop("Registered-v0")
        sys.modules.pop("registering")
