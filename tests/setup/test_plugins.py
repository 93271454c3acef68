"""Discovery: installed plugins, modules and files; what is wrong with one is said, and stays with it."""

import sys

import pytest
from foreign import ESTIMATOR, publish

from framework import UsageError
from framework.setup.loading import installed, load


@pytest.fixture
def install(tmp_path, monkeypatch):
    return lambda *arguments, **modules: publish(tmp_path, monkeypatch, *arguments, **modules)


def failure(loaded, name):
    (found,) = [failure for failure in loaded.failures if failure.name == name]
    return found


def test_the_built_ins_come_through_the_entry_points():
    assert {"line_world", "reinforce", "reports", "standardize"} <= installed().keys()
    loaded = load()
    assert [plugin.distribution for plugin in loaded.plugins if plugin.name == "reinforce"] == ["framework-rl"]


def test_plugins_are_loaded_in_the_order_of_their_names(install):
    install("zeta", {"aaa": "aaa_module"}, aaa_module=ESTIMATOR)
    names = list(installed())
    assert names == sorted(names)
    assert names[0] == "aaa"
    assert [plugin.name for plugin in load().plugins] == names


def test_an_installed_plugin_offers_its_parts(install):
    install("acme-rl", {"acme": "acme_module"}, "2.5", acme_module=ESTIMATOR)
    loaded = load()
    (plugin,) = [plugin for plugin in loaded.plugins if plugin.name == "acme"]
    assert (plugin.distribution, plugin.version) == ("acme-rl", "2.5")
    assert loaded.pick("estimator", "halved")[0] == "acme"
    assert len(plugin.describe()["sha256"]) == 64


def test_two_distributions_of_one_plugin_name_are_refused(install):
    install("acme-rl", {"acme": "acme_one"}, acme_one=ESTIMATOR)
    install("other-rl", {"acme": "acme_two"}, acme_two=ESTIMATOR)
    message = "two distributions register a plugin named 'acme': acme-rl and other-rl; uninstall one"
    with pytest.raises(UsageError, match=message):
        load()


def test_a_part_that_two_plugins_offer_is_an_error_only_when_it_is_chosen(install):
    install("acme-rl", {"acme": "acme_one"}, acme_one=ESTIMATOR)
    install("other-rl", {"other": "acme_two"}, acme_two=ESTIMATOR)
    loaded = load()
    assert loaded.pick("estimator", "rewards_to_go")[0] == "reinforce"
    message = "estimator 'halved' is offered by 2 plugins; say which: acme:halved or other:halved"
    with pytest.raises(UsageError, match=message):
        loaded.pick("estimator", "halved")
    assert loaded.pick("estimator", "other:halved")[0] == "other"
    assert loaded.short_name("estimator", "halved", "other") == "other:halved"
    assert loaded.short_name("estimator", "rewards_to_go", "reinforce") == "rewards_to_go"


BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "imports what is not there": ("import absent_module", "ModuleNotFoundError: No module named 'absent_module'"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "panics": (
        "class PanicException(BaseException): pass\nraise PanicException('unwrap() on a None value')",
        "PanicException: unwrap() on a None value (",
    ),
    "panics in its hook": (
        "class PanicException(BaseException): pass\nfrom framework import hookimpl\n"
        "@hookimpl\ndef estimators(): raise PanicException('unwrap() on a None value')",
        "PanicException: unwrap() on a None value (",
    ),
    "raises what has no message": (
        "class Odd(Exception):\n  def __str__(self): return 1 / 0\nraise Odd",
        "Odd: (its message raised ZeroDivisionError) (",
    ),
    "exits in its hook": (
        "from framework import hookimpl\n@hookimpl\ndef estimators(): raise SystemExit(0)",
        "SystemExit: 0",
    ),
    "is no Python": ("def", "SyntaxError"),
    "has no hook": ("def estimators(): return {}", "implements no hook; is @hookimpl missing?"),
    "misspells a hook": (
        "from framework import hookimpl\n@hookimpl\ndef estimatorz(): return {}",
        "unknown hook 'estimatorz'. Did you mean 'estimators'?",
    ),
    "implements a run hook": (
        "from framework import hookimpl\n@hookimpl\ndef run_started(run): pass",
        "'run_started' is a run hook: implement it on an extension, and offer that by `extensions()`",
    ),
    "takes an argument that there is not": (
        "from framework import hookimpl\n@hookimpl\ndef estimators(run): return {}",
        "Argument(s) {'run'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "returns no dict": (
        "from framework import hookimpl\n@hookimpl\ndef estimators(): return ['gae']",
        "hook 'estimators' must return a dict from name to settings class, got ['gae']",
    ),
    "offers no attrs class": (
        "from framework import hookimpl\nclass Gae: pass\n@hookimpl\ndef estimators(): return {'gae': Gae}",
        "estimator 'gae' must be an attrs class (its fields are its options), got",
    ),
    "offers an unspeakable name": (
        "from framework import hookimpl\n@hookimpl\ndef estimators(): return {'a b': int}",
        "hook 'estimators': a name is letters, digits and underscores, got 'a b'",
    ),
    "offers a recipe that is no tree": (
        "from framework import hookimpl\n@hookimpl\ndef recipes(): return {'mine': 3}",
        "recipe 'mine' must be a configuration (a dict), got 3",
    ),
    "has a setting without default": (
        "from attrs import frozen\nfrom framework import hookimpl\n@frozen\nclass Gae:\n  lam: float\n"
        "@hookimpl\ndef estimators(): return {'gae': Gae}",
        "estimator 'gae': setting 'lam' needs a default",
    ),
    "has a setting called name": (
        "from attrs import frozen\nfrom framework import hookimpl\n@frozen\nclass Gae:\n  name: str = ''\n"
        "@hookimpl\ndef estimators(): return {'gae': Gae}",
        "estimator 'gae': files choose the part by 'name': call this setting otherwise",
    ),
    "offers an extension called names": (
        "from attrs import frozen\nfrom framework import hookimpl\n@frozen\nclass Names: pass\n"
        "@hookimpl\ndef extensions(): return {'names': Names}",
        "extension 'names': files list the chosen extensions under this name: choose another",
    ),
    "raises our own error": ("from framework import UsageError\nraise UsageError('no such maze')", "no such maze"),
    "raises in its hook": (
        "from framework import hookimpl\n@hookimpl\ndef estimators(): raise KeyError('x')",
        "KeyError: 'x'",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_set_aside_with_its_reason_unless_it_is_asked_for(install, how):
    source, reason = BROKEN[how]
    install("broken-rl", {"broken": "broken_module"}, broken_module=source)
    loaded = load()
    assert reason in failure(loaded, "broken").reason
    assert failure(loaded, "broken").distribution == "broken-rl"
    assert "rewards_to_go" in loaded.names("estimator")
    assert "broken" not in [plugin.name for plugin in loaded.plugins]
    with pytest.raises(UsageError) as caught:
        load(["broken"])
    assert reason in str(caught.value)


def test_ctrl_c_while_a_plugin_is_imported_is_an_interrupt(install):
    install("slow-rl", {"slow": "slow_module"}, slow_module="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load()


ESTIMATORS = "gae, lambda_returns, n_step, rewards_to_go, td0, total_return, vtrace"


def test_a_name_that_a_failed_plugin_may_offer_is_said_to_be_so(install):
    install("broken-rl", {"broken": "broken_module"}, broken_module="1 / 0")
    with pytest.raises(UsageError) as caught:
        load().pick("estimator", "gea")
    first, second = str(caught.value).splitlines()
    assert first == f"no estimator 'gea'. Did you mean 'gae'? There is: {ESTIMATORS}"
    assert second.startswith("plugin 'broken' failed to load and may offer it: ZeroDivisionError: division by zero (")
    assert second.endswith("broken_module.py:1)")


def test_an_unknown_part_gets_the_nearest_name_and_all_that_there_are():
    with pytest.raises(UsageError) as caught:
        load().pick("estimator", "reward_to_go")
    assert str(caught.value) == f"no estimator 'reward_to_go'. Did you mean 'rewards_to_go'? There is: {ESTIMATORS}"


def test_an_unknown_plugin_gets_the_nearest_name():
    with pytest.raises(UsageError, match="no plugin 'reinforc'. Did you mean 'reinforce'[?] There is: "):
        load(["reinforc"])
    with pytest.raises(UsageError, match="no plugin file nowhere.py"):
        load(["nowhere.py"])


def test_a_selection_is_all_that_is_loaded(install):
    install("broken-rl", {"broken": "broken_module"}, broken_module="1 / 0")
    loaded = load(["line_world", "reinforce"])
    assert [plugin.name for plugin in loaded.plugins] == ["line_world", "reinforce"]
    assert loaded.names("extension") == []
    assert not loaded.failures


def test_a_module_and_a_file_are_plugins_too(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "by_path.py").write_text(ESTIMATOR.replace("    ", "", 1).replace("\n    ", "\n"))
    monkeypatch.syspath_prepend(str(folder))
    for source, name in (("by_path", "by_path"), (str(folder / "by_path.py"), "by_path")):
        loaded = load(["reinforce", source])
        assert loaded.pick("estimator", "halved")[0] == name
    assert "by_path" in sys.modules  # the module's path was imported as such
    with pytest.raises(UsageError, match="two plugins are named 'by_path'; select one"):
        load(["by_path", str(folder / "by_path.py")])


def test_a_module_that_lacks_a_dependency_is_not_called_missing(tmp_path, monkeypatch):
    package = tmp_path / "lacking"
    package.mkdir()
    (package / "__init__.py").write_text("import absent_dependency")
    (package / "sub.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="plugin 'lacking.sub' failed to load: .*No module named 'absent_dependency'"):
        load(["lacking.sub"])
    with pytest.raises(UsageError, match="no plugin 'lacking_too.sub'"):
        load(["lacking_too.sub"])


def test_one_module_by_two_names_is_refused():
    with pytest.raises(UsageError, match="'line_world' and 'framework_line_world' are the same module; select one"):
        load(["line_world", "framework_line_world"])


def test_a_file_is_read_anew_once_it_has_changed(tmp_path):
    """As in a notebook: the same file is the same module, an edited one another."""
    path = tmp_path / "edited.py"
    text = "from framework import hookimpl\n@hookimpl\ndef recipes():\n    return {'NAME': {}}\n"
    path.write_text(text.replace("NAME", "first"))
    one, again = (load([str(path)]) for _ in range(2))
    assert one.names("recipe") == ["first"]
    assert one.plugins[0].module is again.plugins[0].module
    path.write_text(text.replace("NAME", "the_second"))
    assert load([str(path)]).names("recipe") == ["the_second"]


def test_a_file_that_raises_is_named_with_its_cause(tmp_path):
    (tmp_path / "bad.py").write_text("import nothing_of_that_name\n")
    expected = (
        r"bad.py' failed to load: ModuleNotFoundError: No module named 'nothing_of_that_name' \(.*bad.py:1\): "
        "install it beside the framework$"
    )
    with pytest.raises(UsageError, match=expected):
        load([str(tmp_path / "bad.py")])


def test_a_plugin_for_older_cores_may_mark_newer_hooks_optional(install):
    source = ESTIMATOR + ("\n    @hookimpl(optionalhook=True)\n    def replay_buffers():\n        return {}\n")
    install("acme-rl", {"acme": "acme_module"}, acme_module=source)
    assert load(["acme"]).pick("estimator", "halved")[0] == "acme"
