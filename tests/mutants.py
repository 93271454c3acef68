"""Mutants: a module's source with one place changed on purpose, to see a law fail.

The changed text must stand in the source exactly once, so that no mutant outlives the code that it mutates.
"""

import importlib
import inspect
import sys
import types

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st


def mutate(module_name, *changes, **replaced):
    """A copy of a module with `(old, new)` texts exchanged and names replaced."""
    original = importlib.import_module(module_name)
    source = inspect.getsource(original)
    for old, new in changes:
        assert source.count(old) == 1, f"{module_name}: {old!r} stands there {source.count(old)} times"
        source = source.replace(old, new)
    module = types.ModuleType(f"{module_name}_mutant")
    module.__package__ = original.__package__
    module.__file__ = original.__file__
    sys.modules[module.__name__] = module
    exec(compile(source, f"<mutant of {module_name}>", "exec"), vars(module))
    vars(module).update(replaced)
    return module


def is_killed(law, *strategies, arguments=()):
    """Run a law under Hypothesis and expect it to find a counterexample."""

    @settings(database=None, phases=[Phase.generate], max_examples=300, derandomize=True)
    @given(st.tuples(*strategies))
    def search(drawn):
        law(*arguments, *drawn)

    with pytest.raises(AssertionError):
        search()
