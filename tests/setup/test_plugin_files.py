"""A plugin that is a file: what lies beside it can be imported, and what was edited is read anew."""

import sys
from pathlib import Path

import pytest

from framework import UsageError
from framework.setup.loading import load

RECIPE = """
from framework import hookimpl
{line}

@hookimpl
def recipes():
    {within}
    return {{f"{name}_{{K}}": {{}}}}
"""


def recipe(name, line="", within="pass"):
    """A plugin file that offers a recipe whose name ends in K."""
    return RECIPE.format(name=name, line=line, within=within)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Writes files; what a test imports, and where Python looks for it, is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = dict(sys.modules)

    def write(**files):
        for name, text in files.items():
            file = tmp_path / (name.replace("__", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    yield write
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


def offered(*files):
    return load(files).names("recipe")


@pytest.mark.parametrize(
    ("line", "within"),
    [
        ("from beside import K", "pass"),
        ("K = __import__('beside').K; import beside", "pass"),
        ("", "from beside import K"),
    ],
)
def test_a_module_beside_the_file_can_be_imported(folder, line, within):
    """From another folder, and within a function, too."""
    folder(sub__beside="K = 5", sub__mine=recipe("a", line, within))
    assert offered("sub/mine.py") == ["a_5"]
    assert offered("sub/mine.py") == ["a_5"]


@pytest.mark.parametrize("has_init", [True, False])
def test_packages_beside_the_file_can_be_imported(folder, has_init):
    folder(sub__mine=recipe("a", "from whole.inner import K"), sub__whole__inner="from .deeper import K")
    folder(sub__whole__deeper="K = 3")
    if has_init:
        Path("sub/whole/__init__.py").touch()
    assert offered("sub/mine.py") == ["a_3"]
    Path("sub/whole/deeper.py").write_text("K = 4")
    assert offered("sub/mine.py") == ["a_4"]


def test_the_folder_does_not_hide_the_standard_library_or_what_is_installed(folder):
    folder(sub__random="1 / 0", sub__attrs="1 / 0", sub__mine=recipe("a", "import random, attrs\nK = attrs.__name__"))
    assert offered("sub/mine.py") == ["a_attrs"]
    assert sys.path.index(str(Path("sub").resolve())) == len(sys.path) - 1


def test_of_two_folders_each_file_gets_its_own_neighbours_or_is_refused(folder):
    """Python keeps one module of a name: the second file never gets the first one's without a word."""
    root = folder(
        one__helpers="K = 1",
        one__mine=recipe("a", within="from helpers import K"),
        two__helpers="K = 2",
        two__yours=recipe("b", "from helpers import K"),
    )
    first, second = root / "one" / "helpers.py", root / "two" / "helpers.py"
    message = f"plugin file {root}/two/yours.py imports 'helpers', which lies beside it, but Python finds {first} first"
    with pytest.raises(UsageError) as caught:
        load(["one/mine.py", "two/yours.py"])
    assert str(caught.value) == message + ": rename one of them"
    second.rename(second.with_name("other.py"))
    Path("two/yours.py").write_text(recipe("b", "from other import K"))
    assert offered("one/mine.py", "two/yours.py") == ["a_1", "b_2"]


def test_a_module_of_the_working_folder_is_not_taken_for_the_neighbour(folder, monkeypatch):
    """As with `python -m framework`, which looks there first."""
    root = folder(helpers="K = 1", two__helpers="K = 2", two__yours=recipe("b", "from helpers import K"))
    monkeypatch.syspath_prepend(str(root))
    with pytest.raises(UsageError, match="imports 'helpers', which lies beside it, but Python finds "):
        load(["two/yours.py"])


def test_a_file_and_its_neighbours_are_read_anew_once_one_has_changed(folder):
    """Also within the second in which Python's cache of compiled modules notices nothing."""
    root = folder(
        sub__inner="K = 5",
        sub__beside="from inner import K",
        sub__mine=recipe("a", "from beside import K"),
        sub__late=recipe("b", within="from beside import K"),
    )
    files = ["sub/mine.py", "sub/late.py"]
    assert offered(*files) == ["a_5", "b_5"]
    before = load(files).plugins[0].module
    assert before is load(files).plugins[0].module
    (root / "sub" / "inner.py").write_text("K = 7")
    assert offered(*files) == ["a_7", "b_7"]
    assert len({id(module) for name, module in sys.modules.items() if name == "beside"}) == 1
    (root / "sub" / "mine.py").write_text(recipe("c", "from beside import K"))
    assert offered(*files) == ["b_7", "c_7"]


def test_a_neighbour_that_others_imported_before_stays_the_same_module(folder, monkeypatch):
    root = folder(beside="K = 5", mine=recipe("a", "from beside import K"))
    monkeypatch.syspath_prepend(str(root))
    import beside

    assert offered("mine.py") == ["a_5"]
    assert sys.modules["beside"] is beside


def test_a_neighbour_that_was_wrong_can_be_mended(folder):
    root = folder(sub__beside="K = 5", sub__mine=recipe("a", "from beside import L as K"))
    with pytest.raises(UsageError, match="cannot import name 'L' from 'beside'"):
        load(["sub/mine.py"])
    assert str(root / "sub") not in sys.path
    (root / "sub" / "beside.py").write_text("L = 6")
    assert offered("sub/mine.py") == ["a_6"]


def test_an_import_relative_to_a_package_says_what_to_do(folder):
    folder(sub__beside="K = 5", sub__mine=recipe("a", "from .beside import K"))
    with pytest.raises(
        UsageError, match="a plugin file imports what lies beside it by its name, without a point before"
    ):
        load(["sub/mine.py"])


def test_the_hash_of_a_file_covers_its_neighbours(folder):
    root = folder(sub__beside="K = 5", sub__mine=recipe("a", "from beside import K"), sub__apart="")
    (plugin,) = load(["sub/mine.py"]).plugins
    assert [file.name for file in plugin.files] == ["beside.py", "mine.py"]
    before = plugin.describe()["sha256"]
    (root / "sub" / "apart.py").write_text("1 / 0")
    assert load(["sub/mine.py"]).plugins[0].describe()["sha256"] == before
    (root / "sub" / "beside.py").write_text("K = 6")
    assert load(["sub/mine.py"]).plugins[0].describe()["sha256"] != before
