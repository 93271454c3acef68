"""What code a run used: the source files and versions in plugins.json, and what differs when it is read back."""

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
ALWAYS = ("torch", "numpy")  # whose arithmetic is every run's
INSTALLED = tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def described(config: Config, loaded: Loaded) -> dict[str, Any]:
    """What plugins.json holds: versions, plugins, and the files of code that is no installed plugin's."""
    plugins = used(config, loaded)
    starts = [plugin.module for plugin in plugins if not plugin.distribution]
    starts += [_module_of(part) for part in config.parts if is_own(part, loaded)]
    named = [parent for part in config.parts for name in sources(part) for parent in _with_parents(name)]
    starts += [sys.modules[name] for name in named if name in sys.modules]
    apart = {DISTRIBUTION.partition("-")[0]}
    apart |= {plugin.module.__name__.partition(".")[0] for plugin in loaded.plugins if plugin.distribution}
    files, packages = _reached(starts, apart)
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    versions |= {DISTRIBUTION: __version__}
    versions |= {name: version for name in sorted(packages) if (version := _version(name)) is not None}
    mine = {plugin.module.__name__ for plugin in plugins}
    described = [plugin.describe() for plugin in plugins]
    for plugin, one in zip(plugins, described, strict=True):
        if not plugin.distribution:
            one["file"] = str(Path(plugin.module.__file__ or "").resolve())
    listed = [_file(name, path) for name, path in sorted(files.items()) if name not in mine]
    made = {"versions": versions, "libraries": libraries(), "plugins": described, "files": listed}
    return {**made, "optional": list(_optional(config, loaded))}


def _optional(config: Config, loaded: Loaded) -> Iterable[str]:
    """The settings in config.toml that it could be without: whoever takes one out makes it another run's."""
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
    """Whether a part's class was given from Python, and no loaded plugin offers it."""
    return part.plugin not in {plugin.name for plugin in loaded.plugins}


def not_repeatable(config: Config, loaded: Loaded) -> list[str]:
    """The parts that config.toml cannot name, as sentences that say why."""
    found = []
    for part in config.parts:
        if is_own(part, loaded):
            cls = type(part.settings)
            where = f"no plugin offers its class, {cls.__module__}.{cls.__qualname__}"
            if cls.__module__ == "__main__":
                where = f"its class, {cls.__qualname__}, belongs to the script or notebook that ran"
            elif "<locals>" in cls.__qualname__:
                where = f"its class, {cls.__qualname__}, was made inside a function"
            found.append(f"{part.role} '{part.name}': {where}")
        elif "__main__" in sources(part):
            found.append(f"{part.label}: its code belongs to the script or notebook that ran")
        else:
            found += [
                f"{part.label}: its code is in the module {name}, which nothing that config.toml names imports (an id "
                f"that it registers is written {name.partition('.')[0]}:ID)"
                for name in _unnamed(part, loaded)
            ]
    return found


def _unnamed(part: Part, loaded: Loaded) -> list[str]:
    """Modules of the user's own that a part runs, and that a process which reads the record would not import."""
    files = {path.resolve() for plugin in loaded.plugins for path in plugin.files}
    known = {name.partition(".")[0] for name in imports(part)}
    known |= {point.module.partition(".")[0] for point in importlib.metadata.entry_points(group="gymnasium.envs")}
    found = {name: find(name) for name in sources(part) if name.partition(".")[0] not in known}
    return [name for name, path in found.items() if path is not None and not is_installed(path) and path not in files]


def imports(part: Part) -> tuple[str, ...]:
    """Modules and files that building a part imports because its settings name them."""
    return _declared(part, "imports")


def sources(part: Part) -> tuple[str, ...]:
    """Modules whose code a part runs beside its own, such as that of an environment with a registered id."""
    return (*imports(part), *_declared(part, "sources"))


def _declared(part: Part, name: str) -> tuple[str, ...]:
    """What settings say of themselves; a setting that happens to have this name says nothing."""
    if name in attrs.fields_dict(type(part.settings)):
        return ()
    declared = getattr(part.settings, name, ())
    if not isinstance(declared, tuple | list | set | frozenset) or not all(isinstance(one, str) for one in declared):
        raise UsageError(f"{part.label}: {name} must be a tuple of modules and files, got {declared!r}")
    return tuple(declared)


def find(module: str) -> Path | None:
    """The file that importing a module would read; nothing is imported, parents neither."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        return _path(loaded)
    folders: Sequence[str] | None = [*sys.path, os.getcwd()]  # where modules that settings name are looked for, too
    names = module.split(".")
    for count in range(1, len(names) + 1):
        spec = PathFinder.find_spec(".".join(names[:count]), folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return None if spec is None or not spec.has_location or spec.origin is None else Path(spec.origin).resolve()


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python or an installed package."""
    found = [Path(folder).resolve() for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    return any(path.is_relative_to(folder) for folder in (*INSTALLED, *found))


def sha256(path: Path) -> str:
    """Of a file's content; "" where there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def differences(made: Mapping[str, Any], loaded: Loaded, parts: Iterable[Part], files: bool = True) -> list[str]:
    """What differs between the code that made a record and the code that is here, each in a few words.

    Args:
        made: what plugins.json says.
        loaded: the plugins that are here.
        parts: those that are used now; plugins of others may differ.
        files: whether files of code that is no plugin's count.
    """
    found: dict[str, None] = {}
    mine = {part.plugin for part in parts}
    now = {plugin.name: plugin for plugin in loaded.plugins}
    for then in _tables(made, "plugins"):
        plugin = now.get(str(then.get("name")))
        if plugin is None or plugin.name not in mine:
            continue
        if plugin.version != then.get("version", ""):
            found[f"{plugin.distribution or plugin.name} {plugin.version} here, {then.get('version')} then"] = None
        elif plugin.describe()["sha256"] != then.get("sha256"):
            found[f"the code of plugin '{plugin.name}' was edited"] = None
    versions = made.get("versions")
    for name, version in versions.items() if isinstance(versions, Mapping) else ():
        here = _version(name) if name not in ("python", DISTRIBUTION) and (files or name in ALWAYS) else None
        if here is not None and here != version:
            found[f"{name} {here} here, {version} then"] = None
    for then in _tables(made, "files") if files else ():
        path = find(str(then.get("module"))) or Path(str(then.get("file")))
        if path.is_file() and sha256(path) != then.get("sha256"):
            found[f"the code of module {then.get('module')} was edited ({path})"] = None
    return list(found)


def _tables(made: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The tables of a list in plugins.json; whoever wrote it, what is none is left out."""
    listed = made.get(key)
    return [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []


def _module_of(part: Part) -> ModuleType:
    return sys.modules[type(part.settings).__module__]


def _path(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _file(name: str, path: Path) -> dict[str, str]:
    return {"module": name, "file": str(path), "sha256": sha256(path)}


def _version(package: str) -> str | None:
    """Of an installed package that was imported under this name."""
    if package == "torch":
        return str(torch.__version__)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(package), "__version__", None)
        return version if isinstance(version, str) else None


def _reached(starts: Iterable[ModuleType], apart: set[str]) -> tuple[dict[str, Path], set[str]]:
    """From these modules on, through what own code imports: own files by module, and installed packages.

    Files of installed packages are not followed: of them the version is enough. `apart` are packages not to look at.
    """
    files: dict[str, Path] = {}
    packages: set[str] = set()
    waiting = list(starts)
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        package = module.__name__.partition(".")[0]
        if module.__name__ in seen or package in apart or package in sys.stdlib_module_names - {"__main__"}:
            continue
        seen.add(module.__name__)
        path = _path(module)
        if path is None or is_installed(path):
            packages.add(package)
            if module in starts:  # what it is made of, such as a simulator's bindings
                packages |= _packages_of(module) - apart
            continue
        files[module.__name__] = path
        if path.suffix == ".py":
            waiting += [sys.modules[name] for name in _imported(module, path) if name in sys.modules]
    return files, packages


def _packages_of(module: ModuleType) -> set[str]:
    """The packages that a module holds, and those that its classes' bases come from hold."""
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
    """The modules that a file's statements import, anywhere in it; parents and names that may be modules, too."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # edited since it was imported
        return set()
    package = module.__name__ if path.name == "__init__.py" else module.__name__.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {parent for name in found for parent in _with_parents(name)}


def _with_parents(module: str) -> list[str]:
    """`a.b.c` → `a`, `a.b`, `a.b.c`."""
    names = module.split(".")
    return [".".join(names[:count]) for count in range(1, len(names) + 1)]
