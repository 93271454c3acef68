"""The code that a run used: source files and versions for plugins.json, and the differences when it is read back."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import numpy as np
import torch

from ..config import PART_ROLES, SCALARS, SECTIONS, Config
from ..errors import UsageError
from ..guards.process_state import libraries
from ..parts import Loaded, Part
from ..setup.tree import used
from ..version import __version__

DISTRIBUTION = "framework-rl"
ALWAYS = ("torch", "numpy")  # every run computes with them
INSTALLED = tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def describe_code(config: Config, loaded: Loaded) -> dict[str, Any]:
    """The content of plugins.json: versions, plugins, and the files of code that belongs to no installed plugin."""
    plugins = used(config, loaded)
    roots = [plugin.module for plugin in plugins if not plugin.distribution]
    roots += [_module_of(part) for part in config.parts if is_own(part, loaded)]
    declared = [parent for part in config.parts for name in sources(part) for parent in _with_parents(name)]
    roots += [sys.modules[name] for name in declared if name in sys.modules]
    excluded = {DISTRIBUTION.partition("-")[0]}
    excluded |= {plugin.module.__name__.partition(".")[0] for plugin in loaded.plugins if plugin.distribution}
    files, packages = _reachable(roots, excluded)
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    versions |= {DISTRIBUTION: __version__}
    versions |= {name: version for name in sorted(packages) if (version := _version(name)) is not None}
    plugin_modules = {plugin.module.__name__ for plugin in plugins}
    descriptions = [plugin.describe() for plugin in plugins]
    for plugin, description in zip(plugins, descriptions, strict=True):
        if not plugin.distribution:
            description["file"] = str(Path(plugin.module.__file__ or "").resolve())
    own_files = [_file(name, path) for name, path in sorted(files.items()) if name not in plugin_modules]
    content = {"versions": versions, "libraries": libraries(), "plugins": descriptions, "files": own_files}
    return {**content, "optional": list(_optional(config, loaded))}


def _optional(config: Config, loaded: Loaded) -> Iterable[str]:
    """The settings in config.toml that are optional there: without one, the file describes another run."""
    settings: dict[str, Any] = {role: getattr(config, role).settings for role in PART_ROLES}
    settings |= {key: getattr(config, key) for key in SECTIONS}
    for part in (*config.extensions, *config.reports):
        settings[f"extensions.{loaded.short_name(part.role, part.name, part.plugin)}"] = part.settings
    defaults = attrs.fields_dict(Config)
    yield from (key for key in SCALARS if defaults[key].default is None and getattr(config, key) is not None)
    for where, section in settings.items():
        for attribute in attrs.fields(type(section)):
            value = getattr(section, attribute.name)
            if attribute.default is None and value is not None:
                yield f"{where}.{attribute.name}"
            if isinstance(value, Mapping):
                yield from (f"{where}.{attribute.name}.{key}" for key in value)


def is_own(part: Part, loaded: Loaded) -> bool:
    """Whether a part's class was passed from Python, and no loaded plugin offers it."""
    return part.plugin not in {plugin.name for plugin in loaded.plugins}


def not_repeatable(config: Config, loaded: Loaded) -> list[str]:
    """Why config.toml cannot name some parts, a sentence for each."""
    reasons = []
    for part in config.parts:
        if is_own(part, loaded):
            cls = type(part.settings)
            reason = f"no plugin offers its class, {cls.__module__}.{cls.__qualname__}"
            if cls.__module__ == "__main__":
                reason = f"its class, {cls.__qualname__}, belongs to the script or notebook that ran"
            elif "<locals>" in cls.__qualname__:
                reason = f"its class, {cls.__qualname__}, was made inside a function"
            reasons.append(f"{part.role} '{part.name}': {reason}")
        elif "__main__" in sources(part):
            reasons.append(f"{part.label}: its code belongs to the script or notebook that ran")
        else:
            reasons += [
                f"{part.label}: its code is in the module {name}, which nothing that config.toml names imports (an id "
                f"that it registers is written {name.partition('.')[0]}:ID)"
                for name in _unnamed(part, loaded)
            ]
    return reasons


def _unnamed(part: Part, loaded: Loaded) -> list[str]:
    """The user's modules whose code a part runs, and that a process which reads the record would not import."""
    files = {path.resolve() for plugin in loaded.plugins for path in plugin.files}
    known = {name.partition(".")[0] for name in imports(part)}
    known |= {point.module.partition(".")[0] for point in importlib.metadata.entry_points(group="gymnasium.envs")}
    paths = {name: find(name) for name in sources(part) if name.partition(".")[0] not in known}
    return [name for name, path in paths.items() if path is not None and not is_installed(path) and path not in files]


def imports(part: Part) -> tuple[str, ...]:
    """Modules and files that building a part imports because its settings name them."""
    return _declared(part, "imports")


def sources(part: Part) -> tuple[str, ...]:
    """Modules whose code a part runs besides its own, such as that of an environment with a registered id."""
    return (*imports(part), *_declared(part, "sources"))


def _declared(part: Part, name: str) -> tuple[str, ...]:
    """What a settings class declares; a field that happens to have this name does not count."""
    if name in attrs.fields_dict(type(part.settings)):
        return ()
    declared = getattr(part.settings, name, ())
    if not isinstance(declared, tuple | list | set | frozenset) or not all(
        isinstance(entry, str) for entry in declared
    ):
        raise UsageError(f"{part.label}: {name} must be a tuple of modules and files, got {declared!r}")
    return tuple(declared)


def find(module: str) -> Path | None:
    """The file that importing a module would read; nothing is imported, not even its parents."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        return _path(loaded)
    folders: Sequence[str] | None = [*sys.path, os.getcwd()]  # also searched for modules that settings name
    names = module.split(".")
    for count in range(1, len(names) + 1):
        spec = PathFinder.find_spec(".".join(names[:count]), folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return None if spec is None or not spec.has_location or spec.origin is None else Path(spec.origin).resolve()


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python or an installed package."""
    site_packages = [
        Path(folder).resolve() for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")
    ]
    return any(path.is_relative_to(folder) for folder in (*INSTALLED, *site_packages))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content; "" if there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def differences(recorded: Mapping[str, Any], loaded: Loaded, parts: Iterable[Part], files: bool = True) -> list[str]:
    """The differences between the code that made a record and the installed code, each in a few words.

    Args:
        recorded: the content of plugins.json.
        loaded: the installed plugins.
        parts: those in use; plugins of other parts may differ.
        files: whether to compare files of code that belongs to no plugin.
    """
    changes: dict[str, None] = {}
    used_plugins = {part.plugin for part in parts}
    installed = {plugin.name: plugin for plugin in loaded.plugins}
    for entry in _tables(recorded, "plugins"):
        plugin = installed.get(str(entry.get("name")))
        if plugin is None or plugin.name not in used_plugins:
            continue
        if plugin.version != entry.get("version", ""):
            changes[f"{plugin.distribution or plugin.name} {plugin.version} here, {entry.get('version')} then"] = None
        elif plugin.describe()["sha256"] != entry.get("sha256"):
            changes[f"the code of plugin '{plugin.name}' was edited"] = None
    versions = recorded.get("versions")
    for name, version in versions.items() if isinstance(versions, Mapping) else ():
        here = _version(name) if name not in ("python", DISTRIBUTION) and (files or name in ALWAYS) else None
        if here is not None and here != version:
            changes[f"{name} {here} here, {version} then"] = None
    for entry in _tables(recorded, "files") if files else ():
        path = find(str(entry.get("module"))) or Path(str(entry.get("file")))
        if path.is_file() and sha256(path) != entry.get("sha256"):
            changes[f"the code of module {entry.get('module')} was edited ({path})"] = None
    return list(changes)


def _tables(recorded: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The tables of a list in plugins.json; other entries are left out."""
    entries = recorded.get(key)
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _module_of(part: Part) -> ModuleType:
    return sys.modules[type(part.settings).__module__]


def _path(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _file(name: str, path: Path) -> dict[str, str]:
    return {"module": name, "file": str(path), "sha256": sha256(path)}


def _version(package: str) -> str | None:
    """The version of an installed package that was imported under this name."""
    if package == "torch":
        return str(torch.__version__)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(package), "__version__", None)
        return version if isinstance(version, str) else None


def _reachable(roots: Iterable[ModuleType], excluded: set[str]) -> tuple[dict[str, Path], set[str]]:
    """What these modules import, directly or indirectly: the user's own files by module, and installed packages.

    Imports of installed packages are not followed: their version is enough. `excluded` packages are skipped.
    """
    files: dict[str, Path] = {}
    packages: set[str] = set()
    pending = list(roots)
    seen: set[str] = set()
    while pending:
        module = pending.pop()
        package = module.__name__.partition(".")[0]
        if module.__name__ in seen or package in excluded or package in sys.stdlib_module_names - {"__main__"}:
            continue
        seen.add(module.__name__)
        path = _path(module)
        if path is None or is_installed(path):
            packages.add(package)
            if module in roots:  # its dependencies, such as a simulator's bindings
                packages |= _packages_of(module) - excluded
            continue
        files[module.__name__] = path
        if path.suffix == ".py":
            pending += [sys.modules[name] for name in _imported(module, path) if name in sys.modules]
    return files, packages


def _packages_of(module: ModuleType) -> set[str]:
    """The packages that a module refers to, and those that the modules of its classes' bases refer to."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    modules = {base.__module__ for cls in classes if cls.__module__ == module.__name__ for base in cls.__mro__}
    names = {
        value.__name__.partition(".")[0]
        for name in {module.__name__, *modules} & sys.modules.keys()
        for value in vars(sys.modules[name]).values()
        if isinstance(value, ModuleType)
    }
    return (names | {name.partition(".")[0] for name in modules}) - sys.stdlib_module_names


def _imported(module: ModuleType, path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it, with their parents, and names that may be modules."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # edited since it was imported
        return set()
    package = module.__name__ if path.name == "__init__.py" else module.__name__.rpartition(".")[0]
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            modules |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {parent for name in modules for parent in _with_parents(name)}


def _with_parents(module: str) -> list[str]:
    """`a.b.c` → `a`, `a.b`, `a.b.c`."""
    names = module.split(".")
    return [".".join(names[:count]) for count in range(1, len(names) + 1)]
