"""Which room may import which: no circles, no plugin in the core, and plugins by the public door only."""

import ast
import functools
import re
from pathlib import Path

import framework
from framework import tools

ROOT = Path(framework.__file__).parent.parent
PLUGINS = ROOT / "plugins"


def module_of(path, top):
    parts = path.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules():
    """Every module of the framework and of its plugins: name → its file."""
    files = {
        module_of(path, ROOT): path for path in (ROOT / "framework").rglob("*.py") if "templates" not in path.parts
    }
    return files | {module_of(path, PLUGINS): path for path in PLUGINS.rglob("*.py")}


def imported(name, path, names):
    """What a module imports when it is imported itself: not within functions, and not for type checkers only."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()

    def look(body):
        for node in body:
            if isinstance(node, ast.If):
                if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                    look(node.body)
                look(node.orelse)
            elif isinstance(node, ast.Try):
                look([*node.body, *node.orelse, *node.finalbody])
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
                module = ".".join(filter(None, (base, node.module or "")))
                for alias in node.names:
                    inner = f"{module}.{alias.name}"
                    found.add(inner if inner in names else module)

    look(ast.parse(path.read_text("utf-8")).body)
    return found & names


@functools.cache
def graph():
    files = modules()
    return {name: imported(name, path, files.keys()) - {name} for name, path in files.items()}


def circle(imports):
    """The modules of a circle, or []."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        for other in sorted(imports[name]):
            if found := visit(other):
                return found
        path.pop()
        done.add(name)
        return []

    return next(filter(None, map(visit, sorted(imports))), [])


def test_nothing_imports_itself_in_a_circle():
    assert circle(graph()) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_core_imports_no_plugin():
    ours = {name for name in graph() if name.startswith("framework.")} | {"framework"}
    found = {(name, other) for name in ours for other in graph()[name] if other not in ours}
    assert found == set()


DOOR = {f"framework.{name}" for name in ("returns", "tools", "recording")} | {"framework"}


def test_built_in_plugins_come_in_by_the_public_door():
    plugins = {name for name in graph() if not name.startswith("framework.") and name != "framework"}
    used = {(name, other) for name in plugins for other in graph()[name] if other not in plugins | DOOR}
    assert used == set()


def test_the_page_of_tools_names_them_all():
    assert set(re.findall(r"`(\w+)`", tools.__doc__.partition("|---|---|")[2])) == set(tools.__all__)
    assert all(hasattr(tools, name) for name in tools.__all__)


# Rooms

ROOMS = {  # room → the rooms that it may import; all may import the modules that stand directly in framework/
    "guards": set(),
    "collecting": {"guards"},
    "tabular": {"collecting", "guards"},
    "learning": {"collecting", "guards"},
    "compile": {"collecting", "learning", "setup"},
    "setup": {"collecting", "guards", "learning", "tabular", "compile"},
    "reporting": {"guards", "learning", "records", "setup"},
    "records": {"guards", "reporting", "setup"},
    "exact": {"guards", "learning", "tabular"},
    "testing": {"collecting", "exact", "guards", "learning", "setup"},
    "audit": {"collecting", "exact", "guards", "learning", "tabular"},
    "cli": {"audit", "collecting", "exact", "guards", "records", "reporting", "setup", "testing"},
}
LEAVES = ("contracts", "errors", "hookspecs", "returns", "streams", "running_moments")
"""Modules of framework/ that import no room."""

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "```mermaid\n", "```\n"


def room_of(name):
    """The room of a module, None for one that stands directly in framework/; plugins have none."""
    parts = name.split(".")
    return parts[1] if parts[0] == "framework" and len(parts) > 1 and parts[1] in ROOMS else None


def used():
    """Pairs of rooms, of which the first imports the second."""
    pairs = {(room_of(name), room_of(other)) for name, others in graph().items() for other in others}
    return {(one, other) for one, other in pairs if one and other and one != other}


def drawing():
    """The imports between rooms, as Mermaid draws them."""
    arrows = [f"    {one} --> {other}" for one, other in sorted(used())]
    return "\n".join(["graph TD", *arrows, ""])


def test_rooms_import_what_they_may():
    assert {(one, other) for one, other in used() if other not in ROOMS[one]} == set()


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in (ROOT / "framework").glob("*/__init__.py")}
    assert folders == ROOMS.keys()


def test_what_plugin_authors_read_stands_on_nothing():
    assert {(name, other) for name in LEAVES for other in graph()[f"framework.{name}"] if room_of(other)} == set()


def test_the_loop_and_mathematics_know_nothing_of_compilers():
    reader = {"framework.training", "framework.stages", "framework.run", "framework.returns"}
    reader |= {name for name in graph() if room_of(name) in ("collecting", "learning", "exact")}
    assert {(name, other) for name in reader for other in graph()[name] if room_of(other) == "compile"} == set()


def test_the_page_draws_the_rooms_as_they_are():
    """`python tests/project/test_architecture.py` draws them anew."""
    assert PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0] == drawing()


PATH = ("hookspecs", "contracts", "returns", "run", "training", "stages")
"""With `collecting` and `learning`: what someone reads to understand training, in an evening."""


def lines(*paths):
    return sum(len(path.read_text("utf-8").splitlines()) for path in paths)


def test_training_is_read_in_an_evening():
    home = ROOT / "framework"
    rooms = [path for room in ("collecting", "learning") for path in (home / room).glob("*.py")]
    assert lines(*rooms, *(home / f"{name}.py" for name in PATH)) <= 2100
    assert lines(home / "training.py") <= 120


def test_no_file_of_the_framework_is_longer_than_300_lines():
    files = [path for path in (ROOT / "framework").rglob("*.py") if "templates" not in path.parts]
    assert [path.name for path in files if lines(path) > 300] == []


# The tests

APART = {"core", "laws", "plugins", "project", "support", "third_party"}  # folders that are no room of the framework


def test_tests_stand_in_folders_named_like_the_rooms():
    """And `laws` (framework.testing and its laws), `core` (the modules beside the rooms), `plugins`, `project`."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py"))}
    assert APART | folders == APART | ROOMS.keys() - {"testing"}


def test_no_file_of_tests_is_longer_than_600_lines():
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    assert [name for name, count in lines.items() if count > 600] == []


if __name__ == "__main__":
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{drawing()}{END}{rest.partition(END)[2]}", "utf-8")
