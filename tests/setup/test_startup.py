"""What stands between a command and its first update: imports, in processes of their own, and the plugins."""

import importlib.metadata
import platform
import subprocess
import sys

import pytest
import torch
from mutants import mutate

from framework.cli import main
from framework.cli import run as command
from framework.setup import loading as plugins

SPY = '''
"""Notes which modules are there when the first update is done."""

import sys

{added}
from attrs import frozen

from framework import hookimpl


@frozen
class Spy:
    def build(self, run):
        return Watching()


class Watching:
    @hookimpl(wrapper=True)
    def apply_gradients(self):
        result = yield
        with open("modules.txt", "w") as file:
            file.write("\\n".join(sys.modules))
        return result


@hookimpl
def extensions():
    return {{"spy": Spy}}
'''

COMMANDS = (
    (),
    ("--recipe", "ppo", "--environment", "cartpole"),
    ("--recipe", "ppo", "--environment", "gymnasium", "--environment.id", "CartPole-v1"),
)

UNWANTED = {  # torch's compiler and what it brings; what draws, films and prints; what only tests or others want
    *("torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "scipy", "pandas"),
    *("matplotlib", "PIL", "imageio", "pygame", "mujoco", "rich", "pygments", "IPython", "jax", "tensorboard"),
    *("hypothesis", "pytest", "mypy"),
}


def at_first_update(folder, words, added=""):
    """The modules that a run has imported when its first update is done; with `added`, a plugin imports more."""
    (folder / "spy.py").write_text(SPY.format(added=added))
    (folder / "spy.toml").write_text('plugins = ["./spy.py"]\n[extensions]\nnames = ["standardize", "spy"]\n')
    flags = [*words, "--config", "spy.toml", "--trust", "--iterations", "1", "--rollout.lanes", "4", "--quiet"]
    subprocess.run([sys.executable, "-m", "framework", "run", *flags], cwd=folder, check=True, capture_output=True)
    return set((folder / "modules.txt").read_text().splitlines())


def law_only_what_is_needed(modules):
    """No module of the unwanted packages is there."""
    assert not {name for name in UNWANTED if any(module == name or module.startswith(f"{name}.") for module in modules)}


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_run_imports_nothing_before_its_first_update_that_it_does_not_need(words, tmp_path):
    modules = at_first_update(tmp_path, words)
    assert {"torch", "gymnasium", "tyro"} <= modules
    law_only_what_is_needed(modules)


@pytest.mark.slow
@pytest.mark.parametrize("added", ["import scipy", "import matplotlib.figure", "from rich import console"])
def test_an_import_that_is_not_needed_is_found(added, tmp_path):
    modules = at_first_update(tmp_path, (), added)
    with pytest.raises(AssertionError):
        law_only_what_is_needed(modules)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "gc.disable()"])
def test_a_command_is_imported_without_a_search_for_garbage_and_the_collector_is_left_as_it_was(before):
    code = f"""
import gc
{before}
was = gc.isenabled()
from framework import cli
count = lambda: sum(generation["collections"] for generation in gc.get_stats())
earlier = count()
module = cli._imported("framework.cli.run")
assert count() == earlier
assert gc.get_freeze_count() > 50_000  # torch alone is more
assert gc.isenabled() == was
frozen = gc.get_freeze_count()
assert cli._imported("framework.cli.run") is module
assert gc.get_freeze_count() == frozen  # what a second command in the same process made can still be collected
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Counted(importlib.metadata.Distribution):
    """A distribution of two plugins that counts how often its metadata are read."""

    def __init__(self):
        self.read = 0

    def read_text(self, filename):
        self.read += filename == "METADATA"
        files = {
            "METADATA": "Metadata-Version: 2.1\nName: counted\nVersion: 3.4\n",
            "entry_points.txt": "[framework.plugins]\na = framework_line_world\nb = framework_returns\n",
        }
        return files.get(filename)

    def locate_file(self, path):
        return path


def law_metadata_are_read_once(module, monkeypatch):
    """However many plugins a distribution has, and however often it is asked for its name."""
    counted = Counted()
    monkeypatch.setattr(module, "entry_points", lambda group: counted.entry_points.select(group=group))
    described = {(plugin.name, plugin.distribution, plugin.version) for plugin in module.load().plugins}
    assert described == {("a", "counted", "3.4"), ("b", "counted", "3.4")}
    assert counted.read == 1


def test_a_distribution_s_metadata_are_read_once(monkeypatch):
    law_metadata_are_read_once(plugins, monkeypatch)


def test_the_law_of_metadata_kills_a_mutant(monkeypatch):
    mutant = mutate("framework.setup.loading", ("@functools.lru_cache(maxsize=256)\n", ""))
    with pytest.raises(AssertionError):
        law_metadata_are_read_once(mutant, monkeypatch)


def test_the_summary_is_made_with_the_run_s_threads(tmp_path, monkeypatch, capsys):
    """More threads than the work is worth wait for each other: 0.1 s for a table of five rows."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(
        command, "action_probabilities", lambda result: seen.append(torch.get_num_threads()) or ([], {})
    )
    torch.set_num_threads(2)
    assert main(["run", "--iterations", "1", "--reports", "--threads", "1"]) == 0
    assert seen == [1]
    assert torch.get_num_threads() == 2


FREED = """
import ctypes, resource, sys, torch
from framework.cli.run import M_MMAP_THRESHOLD, keep_memory
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**17)  # glibc moves this by itself unless it is set
if sys.argv[1] == "keep":
    keep_memory()
rows = torch.ones(2**20)
for _ in range(3):
    [rows + 1 for _ in range(10)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    [rows + 1 for _ in range(10)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_freed_memory_is_kept_for_the_next_update():
    """Five times ten results of 4 MiB: each comes in 1,024 pages anew, or not at all."""
    pages = [
        int(subprocess.run([sys.executable, "-c", FREED, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "as it is")
    ]
    assert pages[0] < 200 < pages[1]
