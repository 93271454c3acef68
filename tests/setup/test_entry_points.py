"""Entry points: what may be named there, and which installed plugins FRAMEWORK_PLUGINS allows."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from foreign import ESTIMATOR, publish

import framework
from framework import UsageError
from framework.cli import main
from framework.setup.loading import installed, load

CLASS = (
    textwrap.dedent(ESTIMATOR).partition("@hookimpl")[0]
    + """
class Plugin:
    factor = 0.5

    @hookimpl
    def estimators(self):
        return {"halved": Halved}

    @property
    def broken(self):
        raise RuntimeError("nobody asked for this")

plugin = Plugin()

class Names:
    @staticmethod
    @hookimpl
    def estimators():
        return {"halved": Halved}
"""
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **modules: publish(tmp_path, monkeypatch, *arguments, **modules)


# Objects


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plugin", "Names", "Names.inner"])
def test_an_entry_point_may_name_an_object(install, name):
    """An instance or a class with marked methods, as pluggy takes them; it stands for its module in the record."""
    install("acme-rl", {"acme": f"acme_object:{name}"}, acme_object=CLASS + "\nNames.inner = plugin\n")
    loaded = load()
    assert loaded.failures == ()
    assert loaded.pick("estimator", "halved")[0] == "acme"
    (plugin,) = [plugin for plugin in loaded.plugins if plugin.name == "acme"]
    reported = plugin.describe()
    assert (reported["module"], reported["distribution"]) == ("acme_object", "acme-rl")
    assert [file.name for file in plugin.files] == ["acme_object.py"]
    assert main(["run", "--estimator", "halved", "--iterations", "1", "--name", "first", "--quiet"]) == 0
    recorded = json.loads(Path("runs/first/plugins.json").read_text())["plugins"]
    assert reported in recorded


WRONG = {
    "acme_object:plugn": "AttributeError: module 'acme_object' has no attribute 'plugn'",
    "acme_object:Plugin": "is the class Plugin, and its 'estimators' takes self: name an instance of it",
    "acme_object:Halved": "implements no hook; is @hookimpl missing?",
    "acme_object:3": "",
}


@pytest.mark.parametrize("value", WRONG)
def test_an_object_that_is_no_plugin_is_set_aside_with_the_reason(install, value):
    install("acme-rl", {"acme": value}, acme_object=CLASS)
    (failure,) = load().failures
    assert failure.name == "acme"
    assert WRONG[value] in failure.reason


def test_one_object_by_two_names_is_refused(install):
    install("acme-rl", {"acme": "acme_object:plugin", "other": "acme_object:plugin"}, acme_object=CLASS)
    (failure,) = load().failures
    assert failure.reason == "plugins 'acme' and 'other' are the same object; select one"


# FRAMEWORK_PLUGINS

MINE = ESTIMATOR + "\n    open('imported.txt', 'w').close()\n"


@pytest.fixture
def acme(install, monkeypatch):
    """Two installed plugins of others; whether one of them was imported can be seen."""
    install("acme-rl", {"acme": "acme_module"}, acme_module=MINE)
    install("other-rl", {"other": "other_module"}, other_module=ESTIMATOR.replace("halved", "second"))
    return lambda value: monkeypatch.setenv("FRAMEWORK_PLUGINS", value)


def was_imported():
    return os.path.exists("imported.txt") or "acme_module" in sys.modules


def names(loaded):
    return [plugin.name for plugin in loaded.plugins]


def test_without_the_list_every_installed_plugin_is_loaded(acme, monkeypatch):
    monkeypatch.delenv("FRAMEWORK_PLUGINS", raising=False)
    assert {"acme", "other", "reinforce"} <= set(names(load()))
    assert load().not_allowed == ()


@pytest.mark.parametrize(
    ("value", "allowed"), [("", set()), ("other", {"other"}), (" acme , other,", {"acme", "other"})]
)
def test_of_other_distributions_only_what_the_list_names_is_imported(acme, value, allowed):
    """Those of the framework itself always are."""
    acme(value)
    loaded = load()
    assert {"acme", "other"} & set(names(loaded)) == allowed
    assert set(loaded.not_allowed) == {"acme", "other"} - allowed
    assert {"line_world", "reinforce", "reports"} <= set(names(loaded))
    assert was_imported() == ("acme" in allowed)
    assert "acme" not in installed() or "acme" in allowed


@pytest.mark.parametrize("asked", [["acme"], ["acme_module"]])
def test_a_plugin_that_is_not_allowed_cannot_be_asked_for_either(acme, asked):
    acme("other")
    with pytest.raises(UsageError) as caught:
        load(asked, rest=True)
    assert str(caught.value) == (
        f"plugin '{asked[0]}' cannot be loaded: installed, but not allowed by FRAMEWORK_PLUGINS: acme; "
        "add it to the list, as in FRAMEWORK_PLUGINS=other,acme"
    )
    assert not was_imported()


@pytest.mark.slow
def test_the_list_holds_for_commands_and_for_python(acme, capsys):
    acme("")
    message = "installed, but not allowed by FRAMEWORK_PLUGINS: acme, other; add it to the list, as in "
    assert main(["run", "--estimator", "halved"]) == 2
    assert message + "FRAMEWORK_PLUGINS=acme" in capsys.readouterr().err
    assert main(["check", "halved"]) == 2
    assert message + "FRAMEWORK_PLUGINS=acme" in capsys.readouterr().err
    with pytest.raises(UsageError, match=message):
        framework.train(recipe="halved")
    framework.train(iterations=1)
    assert main(["plugins"]) == 0
    assert json.loads(capsys.readouterr().out)["not_allowed"] == ["acme", "other"]
    assert not was_imported()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb", "COLUMNS": "80"}
    code = "import sys; from framework.cli import plugins; plugins.is_terminal = lambda: True; plugins.main([])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert " ".join(done.stdout.split()).endswith(message + "FRAMEWORK_PLUGINS=acme"), done.stderr


def test_a_name_that_the_framework_has_too_stops_nothing_where_it_is_not_allowed(install, monkeypatch):
    install("acme-rl", {"reinforce": "acme_module"}, acme_module=ESTIMATOR)
    with pytest.raises(UsageError, match="two distributions register a plugin named 'reinforce'"):
        load()
    monkeypatch.setenv("FRAMEWORK_PLUGINS", "")
    loaded = load()
    assert loaded.pick("estimator", "rewards_to_go")[0] == "reinforce"
    assert loaded.not_allowed == ("reinforce",)


def test_a_file_is_loaded_whatever_the_list_says(acme, tmp_path):
    """It governs what is installed: a file was named by whoever started the run."""
    acme("")
    (tmp_path / "mine.py").write_text(textwrap.dedent(ESTIMATOR))
    assert load(["mine.py"], rest=True).pick("estimator", "halved")[0] == "mine"
