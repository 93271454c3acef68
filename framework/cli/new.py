"""`framework new`: writes an installable package with one part, as a start for a part of your own."""

import ast
import builtins
import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from attrs import frozen

from ..errors import UsageError, unknown
from ..hookspecs import ROLES
from ..setup.loading import load
from .help import parse
from .output import results

TEMPLATES = Path(__file__).parent / "templates"

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1.0"
description = "The {role} {name} for framework-rl"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["framework-rl"]

[project.optional-dependencies]
test = ["framework-rl[testing]"]

[project.entry-points."framework.plugins"]
{name} = "{name}"

[tool.ruff]
line-length = 120
"""

README = """\
# {distribution}

The {role} `{name}` for framework-rl, in one module, `{name}.py`.

```
pip install -e ".[test]"
pytest
{run}
```
"""

LAWS = '''\
"""The {role} `{name}` keeps the laws of its role: each law is a test."""

from framework.testing import conforms

import {name}

test_laws = conforms({name})
'''

EXTENSION = '''\
"""The extension `{name}` in a run."""

import framework

from {name} import {cls}


def test_run():
    """Two iterations."""
    assert framework.train(extensions=[{cls}()], iterations=2).run.iteration == 2
'''


@frozen
class Flags:
    """Write a package with one part, ready to be installed and changed: a module, its entry point and a test."""

    role: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="ROLE", help="its role: environment, policy, estimator, baseline, loss or extension"),
    ]
    name: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            metavar="NAME", help="name of the folder, the module and the part: lowercase letters, digits and _"
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    """Write it below the working directory, and print the next steps."""
    flags: Flags = parse(Flags, arguments, "framework new")
    role, name = flags.role, flags.name
    if role not in ROLES:
        raise UsageError(unknown("role", role, ROLES))
    _check_name(name)
    if offers := load().offers[role].get(name):
        raise UsageError(f"{role} '{name}' is offered by plugin '{next(iter(offers))}' already: choose another name")
    option = "--extensions" if role == "extension" else f"--{role}"
    module = (TEMPLATES / f"{role}.py").read_text("utf-8")
    values = {
        "role": role,
        "name": name,
        "cls": _class(name, module),
        "distribution": name.replace("_", "-"),
        "run": f"framework run {option} {name}",
    }
    files = {
        "pyproject.toml": PROJECT.format(**values),
        "README.md": README.format(**values),
        f"{name}.py": module.replace("my_part", name).replace("MyPart", values["cls"]),
        f"tests/test_{name}.py": (EXTENSION if role == "extension" else LAWS).format(**values),
    }
    for path, text in files.items():
        file = Path(name) / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        except OSError as error:
            raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    with results():
        print(*(Path(name) / path for path in files), sep="\n")
        print(f'\nnext:\n  pip install -e "{name}[test]"\n  {values["run"]}\n  pytest {name}')
    return 0


def _class(name: str, module: str) -> str:
    """`quick_fox` → `QuickFox`, or `MyQuickFox` where the module (or Python) uses that name already."""
    cls = name.title().replace("_", "")
    nodes = list(ast.walk(ast.parse(module)))
    taken = {*dir(builtins), *keyword.kwlist}
    taken |= {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    taken |= {node.id for node in nodes if isinstance(node, ast.Name)}
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    return f"My{cls}" if taken & {word.replace("MyPart", cls) for word in classes} else cls


def _check_name(name: str) -> None:
    """Refuse an invalid module name, and one that exists."""
    suggestion = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()
    suggestion = suggestion if suggestion.isidentifier() else f"my_{suggestion}"
    if name in ("self", "cls"):
        raise UsageError(f"'{name}' has a meaning in Python: choose another name, such as my_{name}")
    if name != suggestion or keyword.iskeyword(name) or not name.isascii():
        hint = f". Did you mean '{suggestion}'?" if name != suggestion and suggestion.isascii() else ""
        raise UsageError(f"'{name}' is not a valid module name: use lowercase letters, digits and _{hint}")
    if Path(name).exists():
        raise UsageError(f"{name} exists already, and is left as it is: choose another name, or remove it")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise UsageError(f"there is a module {name} already, which the new one would hide: choose another name")
