"""A plugin that is a file: it may import what lies beside it, and is read anew once one of these files has changed.

Python keeps one module of a name in a process. So a file that imports `helpers` must get the `helpers.py` beside it and
not one of another folder: where Python would find the other one, the plugin is refused.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ..errors import UsageError

SOURCES = "__framework_sources__"  # of a module: its files and those beside it that it imports, with their text


def import_file(path: Path) -> ModuleType:
    """The module of a plugin file, the one from before where neither it nor a file that it imports has changed.

    The file's folder stays on `sys.path`, behind all that is there, for imports within functions.

    Raises:
        UsageError: a module beside the file has the name of another one that Python finds first.
    """
    path, name, here = path.resolve(), f"framework_file_{path.stem}", str(path.resolve().parent)
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        importlib.invalidate_caches()  # files that were written a moment ago
        sources = _sources(path, {path})
        module = sys.modules.get(name)
        known = module.__dict__.get(SOURCES, {}) if module is not None and module.__file__ == str(path) else {}
        if module is not None and known == sources:
            return module
        _forget_changed(path, sources, known)
        return _executed(path, name, sources)
    except BaseException:
        if added:
            sys.path.remove(here)
        raise


def files_of(module: ModuleType) -> list[Path]:
    """A module's source files: of a plugin file those beside it that it imports, too, of a package all."""
    origin = Path(module.__file__ or "")
    if SOURCES in module.__dict__:
        return sorted(module.__dict__[SOURCES])
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _executed(path: Path, name: str, sources: dict[Path, bytes]) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    if sources[path].startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in sources[path]:
        raise UsageError(f"{path} is not UTF-8 (it looks like UTF-16, as Windows may write it): save it as UTF-8")
    module = importlib.util.module_from_spec(spec)
    setattr(module, SOURCES, sources)
    sys.modules[name] = module  # where attrs looks annotations up
    try:
        exec(compile(sources[path], str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        for top in _tops(path, sources) & sys.modules.keys():
            setattr(sys.modules[top], SOURCES, _sources(path, set(_files(path.parent, top))))
    return module


def _forget_changed(path: Path, sources: dict[Path, bytes], known: dict[Path, bytes]) -> None:
    """Let modules beside the plugin be imported anew if they, or what they import, have changed since they were."""
    for top in _tops(path, sources) & sys.modules.keys():
        files = _files(path.parent, top)
        before = sys.modules[top].__dict__.get(SOURCES, known)  # known: it was imported within a function
        if any(before.get(file, text) != text for file, text in _sources(path, set(files)).items()):
            for module in [module for module in sys.modules if module == top or module.startswith(f"{top}.")]:
                del sys.modules[module]
            for file in files:  # Python's own cache takes a change within a second for none
                Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)


def _tops(path: Path, sources: dict[Path, bytes]) -> set[str]:
    """The names by which the files beside the plugin, or their packages, are imported."""
    return {file.relative_to(path.parent).parts[0].removesuffix(".py") for file in sources if file != path}


def _sources(path: Path, waiting: set[Path]) -> dict[Path, bytes]:
    """These files and those of the folder that they import, one through the other, with their text."""
    found: dict[Path, bytes] = {}
    while waiting:
        file = waiting.pop()
        found[file] = file.read_bytes()
        for name in _imports(found[file]):
            waiting |= {beside for beside in _beside(path, name) if beside not in found}
    return found


def _imports(source: bytes) -> Iterator[str]:
    """The first names of all modules that a file imports, also within functions."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # running it raises the same, with the place
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _beside(path: Path, name: str) -> list[Path]:
    """The files of a module that lies beside the plugin; none where Python finds an installed one of this name."""
    files = _files(path.parent, name)
    if not files or name in sys.stdlib_module_names:
        return []
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # it was made without a file
        return []
    places = [] if spec is None else [Path(place).resolve() for place in spec.submodule_search_locations or ()]
    origin = None if spec is None or not spec.origin else Path(spec.origin).resolve()
    if origin in files or path.parent / name in places:
        return files
    if origin is None or {"site-packages", "dist-packages"} & set(origin.parts):
        return []
    raise UsageError(
        f"plugin file {path} imports '{name}', which lies beside it, but Python finds {origin} first: "
        "rename one of them"
    )


def _files(folder: Path, name: str) -> list[Path]:
    """The source files of a module or package of this name in the folder."""
    if (folder / name).is_dir() and not (folder / f"{name}.py").is_file():
        return sorted((folder / name).rglob("*.py"))
    return [file for file in [folder / f"{name}.py"] if file.is_file()]
