"""Hypothesis profiles: `dev` (quick, the default) and `ci` (HYPOTHESIS_PROFILE=ci)."""

import functools
import os
import sys
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, settings

import framework

settings.register_profile("dev", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=75, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


LONG = (  # modules that take a minute or more: a worker that comes to one last would work on alone
    "test_new", "test_notebook", "test_compiled", "test_compiled_limits", "test_third_party", "test_recipes",
    "test_mutants_estimators", "test_mutants_policies", "test_laws_policies", "test_laws_baselines",
    "test_collecting", "test_check", "test_docs",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The long modules first."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True, scope="session")
def key(tmp_path_factory):
    """The key that signs records lies in a temporary folder, and not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("LOCALAPPDATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def same_path():
    """The folder of a plugin file stays on `sys.path`, for a process; here, for a test."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def graphs(monkeypatch):
    """Recorded graphs are run as they are, and counted."""
    from torch import _inductor

    made = []

    def keep(graph, inputs, options):
        made.append(graph)
        return graph

    monkeypatch.setattr(_inductor, "compile", keep)
    return made


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def plugins_found_once():
    """Finding the installed plugins takes longer than most runs here, and is not what is tested."""
    with mock.patch.object(framework.api, "load_plugins", functools.cache(framework.api.load_plugins)):
        yield


@pytest.fixture(scope="module")
def loaded():
    """All that is installed, loaded."""
    return framework.setup.loading.load()


@pytest.fixture(params=["FLOATS", "NUMPY", "TORCH"])
def arithmetic(request, monkeypatch):
    """Of the classic worlds, whatever the number of lanes; also what another device would compute with, on the CPU."""
    from framework_classic import lanes

    monkeypatch.setattr(lanes, "arithmetic", lambda *_: getattr(lanes, request.param))


@pytest.fixture
def collected_in_python(monkeypatch):
    """Compiled rollouts have other random numbers; tests/compile/test_collecting.py is about them."""
    from framework.compile import rollouts

    monkeypatch.setattr(rollouts, "is_pure", lambda run: False)
