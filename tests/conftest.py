"""Hypothesis profiles: `dev` (quick, the default) and `ci` (HYPOTHESIS_PROFILE=ci)."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=100, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
