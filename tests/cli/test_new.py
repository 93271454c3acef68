"""`framework new`: what it writes can be installed, works, keeps the laws and is clean; it overwrites nothing."""

import ast
import builtins
import importlib
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from framework.cli import main
from framework.cli.new import TEMPLATES
from framework.hookspecs import ROLES
from framework.setup.loading import load
from framework.testing import check


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("role", ROLES)
def test_a_package_of_each_role_is_written(role, here, capsys):
    """Four files, with the name everywhere; the entry point leads to a module that offers the part."""
    assert main(["new", role, "quick_fox"]) == 0
    printed = capsys.readouterr().out
    written = ["README.md", "pyproject.toml", "quick_fox.py", "tests/test_quick_fox.py"]
    assert files(here / "quick_fox") == written
    assert all(f"quick_fox/{name}\n" in printed for name in written)
    assert f"framework run {'--extensions' if role == 'extension' else f'--{role}'} quick_fox\n" in printed
    project = tomllib.loads(Path("quick_fox/pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == "quick-fox"
    assert project["entry-points"]["framework.plugins"] == {"quick_fox": "quick_fox"}
    assert "my_part" not in (source := Path("quick_fox/quick_fox.py").read_text("utf-8"))
    assert "MyPart" not in source
    loaded = load(["./quick_fox/quick_fox.py"])
    assert list(loaded.names(role)) == ["quick_fox"]


def imported(role):
    """The names that a template imports, as one would write them after `framework new`."""
    tree = ast.parse((TEMPLATES / f"{role}.py").read_text("utf-8"))
    names = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import) for alias in node.names
    }
    return sorted(re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_the_class_hides_nothing(role, here, capsys):
    """Whatever the part is named after: what the template imports, a built-in exception, None."""
    for name in [*imported(role), "none", "true", "key_error", "exception"]:
        if main(["new", role, name]) == 2:
            err = capsys.readouterr().err
            assert f"there is a module {name} already" in err or f"{role} '{name}' is offered by plugin" in err
            continue
        tree = ast.parse(Path(name, f"{name}.py").read_text("utf-8"))
        classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        meant = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not classes & {*meant, *dir(builtins)}
        assert load([f"./{name}/{name}.py"]).names(role)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("estimator", "estimate"),
        ("baseline", "tensor"),
        ("loss", "loss"),
        ("policy", "action"),
        ("environment", "step"),
    ],
)
def test_a_part_named_as_what_it_uses_keeps_the_laws(role, name, here, capsys):
    assert main(["new", role, name]) == 0
    assert main(["check", f"{name}/{name}.py", "--examples", "1"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["estimatr", "mine"], "error: no role 'estimatr'. Did you mean 'estimator'? There is: baseline, "),
        (
            ["loss", "Quick-Fox"],
            "'Quick-Fox' is not a valid module name: use lowercase letters, digits and _. Did you mean 'quick_fox'",
        ),
        (["loss", "quickFox"], "Did you mean 'quick_fox'?"),
        (["loss", "3d"], "Did you mean 'my_3d'?"),
        (["loss", "../elsewhere"], "Did you mean 'elsewhere'?"),
        (["loss", "class"], "'class' is not a valid module name: use lowercase letters, digits and _\n"),
        (["loss", "größe"], "'größe' is not a valid module name: use lowercase letters, digits and _\n"),
        (["loss", "json"], "there is a module json already, which the new one would hide: choose another name"),
        (["loss", "torch"], "there is a module torch already"),
    ],
)
def test_a_bad_name_is_refused_and_nothing_written(words, message, here, capsys):
    assert main(["new", *words]) == 2
    assert message in capsys.readouterr().err
    assert files(here) == []


def test_what_exists_is_left_as_it_is(here, capsys):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("precious")
    assert main(["new", "loss", "mine"]) == 2
    assert "mine exists already, and is left as it is" in capsys.readouterr().err
    assert files(here) == ["mine/notes.txt"]


def test_words_that_are_missing_are_a_usage_error(here, capsys):
    for words in ([], ["loss"], ["loss", "mine", "more"]):
        with pytest.raises(SystemExit) as end:
            main(["new", *words])
        assert end.value.code == 2
    assert "ROLE" in capsys.readouterr().err


@pytest.mark.parametrize("role", sorted(ROLES.keys() - {"extension"}))
def test_the_test_that_is_written_is_three_lines(role, here):
    assert main(["new", role, "quick_fox"]) == 0
    code = Path("quick_fox/tests/test_quick_fox.py").read_text("utf-8").splitlines()[1:]
    assert [line for line in code if line] == [
        "from framework.testing import conforms",
        "import quick_fox",
        "test_laws = conforms(quick_fox)",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("role", sorted(ROLES.keys() - {"extension"}))
def test_what_is_copied_keeps_the_laws(role):
    settings = importlib.import_module(f"framework.cli.templates.{role}").MyPart()
    report = check(settings, role, examples=5)
    assert [(verdict.law.name, verdict.reason) for verdict in report.failed] == []


@pytest.mark.parametrize(
    ("right", "wrong", "laws"),
    [
        ("Step(self.places, successors,", "Step(self.places, self.places,", ["steps_follow_the_tables"]),
        ("        self.clock = self.clock.masked_fill(ended, 0)\n", "", ["the_time_limit_is_kept"]),
    ],
    ids=["successors of the next episode", "a clock that goes on"],
)
def test_the_test_of_a_written_environment_has_force(right, wrong, laws, monkeypatch):
    """It has an `mdp()`, against which its own steps are held: the commonest bugs in it are found."""
    text = Path(importlib.import_module("framework.cli.templates.environment").__file__).read_text("utf-8")
    assert text.count(right) == 1
    module = ModuleType("broken_environment")
    monkeypatch.setitem(sys.modules, "broken_environment", module)
    exec(text.replace(right, wrong), module.__dict__)
    report = check(module.MyPart(), "environment", only=laws, examples=50)
    assert [verdict.law.name for verdict in report.failed] == laws


def command(*words, folder):
    done = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_all_are_installed_tested_chosen_and_clean(here):
    """In a new environment, with this one's packages behind it: pip, pytest, one run of all six, ruff and mypy."""
    names = [f"fresh_{role}" for role in ROLES]
    for role, name in zip(ROLES, names, strict=True):
        assert main(["new", role, name]) == 0
    command(sys.executable, "-m", "venv", "venv", folder=here)
    python = here / "venv" / "bin" / "python"
    purelib = command(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", folder=here).strip()
    behind = f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n"
    (Path(purelib) / "behind.pth").write_text(behind)
    folders = [f"./{name}" for name in names]
    command(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *folders, folder=here)

    tested = command(python, "-m", "pytest", "-v", "-p", "no:cacheprovider", *names, folder=here)
    assert "failed" not in tested
    for role, name in zip(ROLES, names, strict=True):
        assert f"/test_{name}.py::test_{'run' if role == 'extension' else 'laws'}" in tested
    flags = [
        word
        for role, name in zip(ROLES, names, strict=True)
        for word in ("--extensions" if role == "extension" else f"--{role}", name)
    ]
    away = here / "away"
    away.mkdir()
    ran = command(python, "-m", "framework", "run", *flags, "--iterations", "2", "--reports", folder=away)
    assert '"iterations": 2' in ran

    for name in names:
        for words in (["ruff", "check", "--no-cache"], ["ruff", "format", "--check", "--no-cache"]):
            command(python, "-m", *words, folder=here / name)
    modules = [f"{name}/{name}.py" for name in names]
    # what lies in site-packages is followed, and only what was written is checked
    command(python, "-m", "mypy", "--strict", "--follow-imports", "silent", *modules, folder=here)


@pytest.mark.parametrize("name", ["self", "cls"])
def test_a_name_that_python_gives_a_meaning_is_refused(name, here, capsys):
    """An extension `self` could be written, and then no flag of it could be made."""
    assert main(["new", "extension", name]) == 2
    assert (
        capsys.readouterr().err == f"error: '{name}' has a meaning in Python: choose another name, such as my_{name}\n"
    )
    assert not list(here.iterdir())
