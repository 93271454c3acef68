"""Which room may import which: no circles, no plugin in the core, and plugins by the public door only."""

import ast
import functools
from pathlib import Path

import framework

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
