"""Hypothesis profiles: `dev` (quick, the default) and `ci` (HYPOTHESIS_PROFILE=ci)."""

import os
import sys

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=75, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


LONG = (  # modules that take a minute or more: a worker that comes to one last would work on alone
    "test_new", "test_notebook", "test_compiled", "test_third_party", "test_recipes", "test_laws_estimators",
    "test_laws_policies", "test_laws_baselines", "test_collecting", "test_check", "test_docs",
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
