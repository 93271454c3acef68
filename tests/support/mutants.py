"""Mutants: a module's source with one place changed on purpose, or a part with a bug, to see a law fail.

The changed text must stand in the source exactly once, so that no mutant outlives the code that it mutates. That is a
`LookupError`, which no test takes for a law's failure.
"""

import importlib
import inspect
import sys
import types
import warnings

import pytest
import torch
from attrs import frozen
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, HypothesisWarning

from framework.errors import PartError
from framework.testing.checking import laws, subjects_of
from framework.testing.law import Broken
from framework.testing.variants import alternating
from framework.testing.verdicts import check_case, reason

EXAMPLES = max(3, settings.default.max_examples // 5)  # cases a law: few, in the profile `dev`
UNSHRUNK = settings(database=None, phases=[Phase.generate], max_examples=2000, derandomize=True)


def mutate(module_name, *changes, **replaced):
    """A copy of a module with `(old, new)` texts exchanged and names replaced."""
    original = importlib.import_module(module_name)
    source = inspect.getsource(original)
    for old, new in changes:
        if (count := source.count(old)) != 1:
            raise LookupError(f"{module_name}: {old!r} stands there {count} times")
        source = source.replace(old, new)
    module = types.ModuleType(f"{module_name}_mutant")
    module.__package__ = original.__package__
    module.__file__ = original.__file__
    sys.modules[module.__name__] = module
    exec(compile(source, f"<mutant of {module_name}>", "exec"), vars(module))
    vars(module).update(replaced)
    return module


def mutate_either(module_name, helper_name, change, **replaced):
    """A copy of the first module, with the change in it, or in the helper module from which it takes functions."""
    original = importlib.import_module(module_name)
    if change[0] in inspect.getsource(original):
        return mutate(module_name, change, **replaced)
    helper = mutate(helper_name, change, **replaced)
    names = vars(original).keys() & {name for name, value in vars(helper).items() if callable(value)}
    return mutate(module_name, **{name: getattr(helper, name) for name in names})


def entering(mutants):
    """A decorator `mutant(law, source)` of classes with a bug: their docstring → class, law, source."""

    def mutant(law, source):
        def enter(cls):
            made = frozen(cls)
            mutants[made.__doc__] = (made, law, source)
            return made

        return enter

    return mutant


def is_killed(law, *strategies, arguments=()):
    """Run a law under Hypothesis and expect it to find a counterexample; the first is returned.

    Some mutants remember, or draw from torch's own generator: a counterexample that does not repeat is one too.
    """
    found = []

    @UNSHRUNK
    @given(st.tuples(*strategies))
    def search(drawn):
        try:
            law(*arguments, *drawn)
        except (AssertionError, PartError) as error:  # or the core refuses what the mutant makes
            found.append(error)
            raise

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)  # a case that is not shrunk may be long to print
        torch.manual_seed(0)
        with pytest.raises((AssertionError, PartError, Flaky)):
            search()
    return found[0]


def broken(name, part, loaded):
    """What the law of this name says of a part with a bug, with the settings that it may have, in the first case found.

    As `framework check` asks, but not shrunk: that takes longer than all else.
    """
    (law,) = [law for law in laws(part.role) if law.name == name]
    subjects = [subject for subject in subjects_of(part, loaded) if reason(law, subject) is None]
    assert subjects, f"{name} does not concern it"
    cases = (lambda subject: ()) if law.cases is None else lambda subject: (law.cases(subject),)
    drawn = alternating(subjects).flatmap(lambda subject: st.tuples(st.just(subject), *cases(subject)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = is_killed(lambda case: check_case(law, *case), drawn)
    assert isinstance(error, Broken)
    return error
