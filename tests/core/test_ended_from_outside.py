"""An extension ends a run from outside by an exception of a class of its own: it reaches the caller as it is."""

import subprocess
import sys

import pytest
import torch
from attrs import frozen

import framework
from framework import PartError
from framework.cli import main


class TrialPruned(Exception):  # noqa: N818
    """As tuners have one."""


class Abrupt(BaseException):
    """A class that is no Exception."""


def ending(error, hook="iteration_finished", **marks):
    def implementation(self, run):
        if run.iteration == 2 or hook == "run_started":
            raise error

    def wrapper(self, run):
        made = yield
        if run.iteration == 2:
            raise error
        return made

    method = framework.hookimpl(**marks)(wrapper if marks else implementation)
    members = {"__doc__": "Of this test.", "build": lambda self, run: self, hook: method}
    return frozen(type("Pruner", (), members))()


@pytest.mark.parametrize("hook", ["run_started", "measure", "iteration_finished", "should_stop", "compute_loss"])
@pytest.mark.parametrize("kind", [TrialPruned, Abrupt])
def test_the_exception_reaches_the_caller_as_it_is(hook, kind, tmp_path):
    error = kind("at step 2")
    marks = {"wrapper": True} if hook == "compute_loss" else {}
    with pytest.raises(kind) as caught:
        framework.train(extensions=[ending(error, hook, **marks)], iterations=5, directory=tmp_path / "run")
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert error.__notes__ == ["extension 'Pruner' (plugin test_ended_from_outside) raised this during a run."]
    record = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.toml", "error.txt"} <= record
    rows = framework.read_metrics(tmp_path / "run")
    assert len(next(iter(rows.values()), ())) == {"run_started": 0, "iteration_finished": 3, "should_stop": 3}.get(
        hook, 2
    )


ERRORS = [ValueError("wrong"), torch.OutOfMemoryError("full"), subprocess.TimeoutExpired("x", 1)]


@pytest.mark.parametrize("error", ERRORS)
def test_exceptions_of_python_and_torch_are_errors_of_the_extension(error):
    with pytest.raises(PartError, match="^extension 'Pruner' .* raised ") as caught:
        framework.train(extensions=[ending(error)], iterations=5)
    assert caught.value.__cause__ is error


def test_an_exception_of_its_own_class_in_another_part_is_that_part_s_error():
    @frozen
    class Baseline:
        "Of this test."

        def __call__(self, rollout, returns):
            raise TrialPruned

    with pytest.raises(PartError, match="baseline 'Baseline' .* raised TrialPruned"):
        framework.train(baseline=Baseline(), iterations=1)


PLUGIN = """
from attrs import frozen
from framework import hookimpl

class Pruned(Exception):
    pass

@frozen
class Prunes:
    def build(self, run):
        return self

    @hookimpl
    def iteration_finished(self, run):
        raise Pruned("now")

@hookimpl
def extensions():
    return {"prunes": Prunes}
"""


def test_on_the_command_line_it_is_an_error_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prunes.py").write_text(PLUGIN)
    assert main(["run", "--plugins", "./prunes.py", "--extensions", "prunes", "--iterations", "2", "--reports"]) == 1
    assert "error: extension 'prunes' (plugin prunes) raised Pruned: now (" in capsys.readouterr().err
    sys.modules.pop("framework_file_prunes")
