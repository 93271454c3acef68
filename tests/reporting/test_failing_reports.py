"""A report that raises is switched off with one warning, and hides no error."""

import sys
import warnings

import pytest
from attrs import frozen
from failing_runs import FAILING, PLUGINS, REPORT
from framework_reinforce import Categorical

import framework
from framework import PartError, read_metrics
from framework.cli import main

# Reports


@pytest.mark.slow
@pytest.mark.parametrize("error", ["OSError(5, 'Input/output error')", "Panic('boom')", "SystemExit(0)"])
@pytest.mark.parametrize("hook", ["run_started", "measure", "iteration_finished", "should_stop", "run_finished"])
def test_a_report_that_raises_is_switched_off_with_one_warning(here, capsys, hook, error):
    """It is named first in the list, and the record is called before it anyway."""
    (here / "broken.py").write_text(REPORT)
    words = ["--extensions.breaks.where", hook, "--extensions.breaks.error", error]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        code = main(["run", *PLUGINS, "--reports", "breaks,record,plot", "--iterations", "3", "--name", "a", *words])
    assert code == 0, capsys.readouterr().err
    (said,) = [str(one.message) for one in caught]
    kind = error.partition("(")[0]
    label = "extension 'breaks' (plugin broken) is switched off, and the run goes on"
    assert said.startswith(f"{label}: {hook} raised {kind}: ")
    assert len(read_metrics(here / "runs" / "a")["steps"]) == 3
    assert (here / "runs" / "a" / "learning_curve.png").is_file()  # later reports are called, too


def test_a_report_that_raises_in_run_failed_hides_no_error(here, capsys):
    (here / "broken.py").write_text(REPORT + FAILING)
    words = ["--reports", "breaks,record", "--extensions.breaks.where", "run_failed", "--extensions", "fails"]
    with pytest.warns(RuntimeWarning, match="'breaks' .* is switched off, .*: run_failed raised OSError"):
        assert main(["run", *PLUGINS, "--iterations", "5", "--name", "a", *words]) == 1
    assert "error: extension 'fails' (plugin broken) raised ValueError: on purpose" in capsys.readouterr().err
    assert (here / "runs" / "a" / "last.safetensors").is_file()


@frozen
class Stateless:
    "A policy that cannot say its state at the end."

    def build(self, *spaces):
        policy = Categorical().build(*spaces)

        def state_dict(self, *arguments, **keywords):
            if sys._getframe(1).f_code.co_name == "run_finished":
                raise ValueError("no state")
            return super(type(policy), self).state_dict(*arguments, **keywords)

        policy.__class__ = type("Stateless", (type(policy),), {"state_dict": state_dict})
        return policy


def test_the_record_is_the_one_report_that_is_not_switched_off(tmp_path):
    """A run whose policy cannot be recorded has failed, and the policy is to blame."""
    with pytest.raises(PartError, match="policy 'Stateless' .* raised ValueError: no state"):
        framework.train(policy=Stateless(), iterations=2, directory=tmp_path / "run")
    assert {"error.txt", "last.safetensors", "metrics.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_warning_that_nobody_can_read_fails_no_run(here, monkeypatch):
    """Standard error is closed."""
    from framework import errors

    monkeypatch.setattr(sys, "stderr", open(here / "closed", "w"))  # noqa: SIM115
    sys.stderr.close()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *arguments, **more: sys.stderr.write("")  # as it is without pytest
        errors.warn("unread")
    errors.say("unread")
