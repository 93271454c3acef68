"""`hookspecs.py` is the one page that a plugin author reads: a plugin made of its examples alone keeps all laws."""

import inspect
import re
import textwrap
import typing

import pytest

from framework import hookspecs
from framework.cli import main
from framework.cli.check import main as check
from framework.hookspecs import CLAIMS, GIVES, NEEDS, ROLES, Claim, Declarations, Gift, Need, Providers
from framework.setup.plugin_hooks import names


def indented(text):
    """The paragraphs of a docstring that are code: its lines from the first import, decorator or class on."""
    lines = inspect.cleandoc(text).splitlines()
    begin = next(number for number, line in enumerate(lines) if re.match(r"\s*(import|@|class) ?", line))
    return textwrap.dedent("\n".join(lines[begin:])) + "\n"


@pytest.fixture
def mine(here):
    """A plugin file: the imports at the top of the page, and the example of each provider hook."""
    imports = re.search(r"\n\n((?:    (?:import|from) .*\n)+)", hookspecs.__doc__)[1]
    examples = [indented(inspect.getdoc(getattr(Providers, hook))) for hook in names(Providers)]
    (here / "mine.py").write_text("\n\n".join([textwrap.dedent(imports), *examples]), "utf-8")
    return "mine.py"


@pytest.mark.slow
def test_every_example_keeps_the_laws_of_its_role(mine, capsys):
    assert check([mine, "--quick"]) == 0, capsys.readouterr().out


def test_the_examples_learn_together(mine, capsys):
    words = ["run", "--plugins", mine, "--recipe", "guessing", "--estimator", "to_go", "--loss", "score_function"]
    words += ["--baseline", "constant", "--extensions", "good_enough", "--optimizer.lr", "0.1", "--seed", "1"]
    assert main(words) == 0
    assert "good enough" in capsys.readouterr().out


def test_there_is_an_example_of_each_role():
    assert set(ROLES.values()) | {"recipes"} == set(names(Providers))


@pytest.mark.parametrize(("words", "meanings"), [(Need, NEEDS), (Gift, GIVES), (Claim, CLAIMS)])
def test_each_word_that_settings_may_declare_is_typed_and_explained(words, meanings):
    assert list(typing.get_args(words)) == list(meanings)


def test_declarations_are_those_that_the_core_reads():
    from framework.setup import wiring

    source = inspect.getsource(wiring)
    assert all(f'"{name}"' in source for name in typing.get_type_hints(Declarations))
