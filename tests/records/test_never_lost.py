"""What a run has learnt is never lost: whatever becomes of the terminal or a part, by a signal or an error."""

import os
import pty
import select
import signal
import sys
import time

import pytest
import torch
from attrs import frozen
from failing_runs import FAILING, PLUGINS, REPORT, at, failing
from safetensors.torch import load_file

import framework
from framework import PartError, UsageError, hookimpl, read_metrics
from framework.cli import main
from framework.guards.interrupts import ENDING
from framework.records.record import create_run_directory

# Terminals


@pytest.mark.slow
@pytest.mark.parametrize("hung_up", [True, False], ids=["SIGHUP", "nohup"])
def test_a_terminal_that_is_closed_costs_nothing(here, hung_up):
    """A real one, in the middle of a run: with SIGHUP the run ends as by Ctrl-C, without it goes on to its end."""
    iterations = "10000000" if hung_up else "400"
    words = [sys.executable, "-m", "framework", "run", "--name", "a", "--iterations", iterations]
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        if not hung_up:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(sys.executable, words)
    record, deadline = here / "runs" / "a", time.monotonic() + 90
    while not (record / "metrics.csv").exists() or (record / "metrics.csv").read_bytes().count(b"\n") < 20:
        assert time.monotonic() < deadline
        if select.select([terminal], [], [], 0.02)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (129 if hung_up else 0)
    assert {"policy.safetensors", "learning_curve.png"} <= {path.name for path in record.iterdir()}
    assert not (record / "error.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDING)
def test_every_signal_by_which_a_batch_system_ends_a_job_ends_a_run_cleanly(tmp_path, name):
    """Sent twice, as a CPU limit does every second."""
    number = getattr(signal, name)
    usual = signal.getsignal(number)
    twice = at(3, lambda run: [os.kill(os.getpid(), number) for _ in range(2)])
    result = framework.train(extensions=[twice], iterations=99, directory=tmp_path / "run")
    assert (result.stop_reasons, result.run.interrupts.signal) == (("interrupted",), number)
    assert len(read_metrics(tmp_path / "run")["steps"]) == 4
    assert (tmp_path / "run" / "policy.safetensors").is_file()
    assert signal.getsignal(number) is usual


def test_a_handler_of_ones_own_stays(tmp_path):
    seen = []
    usual = signal.signal(signal.SIGUSR1, lambda *arguments: seen.append(arguments))
    try:
        result = framework.train(extensions=[at(1, lambda run: os.kill(os.getpid(), signal.SIGUSR1))], iterations=3)
    finally:
        signal.signal(signal.SIGUSR1, usual)
    assert (len(seen), result.stop_reasons) == (1, ())


def test_a_run_that_failed_leaves_the_policy_as_it_was(tmp_path):
    fail, extension = failing()
    directory = tmp_path / "run"
    with pytest.raises(PartError) as caught:
        framework.train(extensions=[extension], directory=directory, baseline=framework_baseline())
    kept = load_file(directory / "last.safetensors")
    assert kept.keys() == fail.state.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in fail.state.items())
    assert load_file(directory / "extensions.safetensors").keys() == {"baseline.state"}
    assert not (directory / "policy.safetensors").exists()
    assert caught.value.__notes__ == [f"record: {directory}, with error.txt and last.safetensors"]
    first, empty, *rest = (directory / "error.txt").read_text().splitlines()
    assert first == str(caught.value)
    assert (empty, rest[0]) == ("", "Traceback (most recent call last):")
    message = r"has no policy.safetensors: the run failed \(extension 'Acts' .* raised ValueError: on purpose .*\). "
    with pytest.raises(UsageError, match=message + r"Use --last \(in Python last=True\) for the parameters"):
        framework.load(directory)
    policy = framework.load(directory, last=True)
    assert all(torch.equal(policy.state_dict()[name], tensor) for name, tensor in fail.state.items())


def framework_baseline():
    from framework_baselines import MovingAverage

    return MovingAverage()


@pytest.mark.parametrize("lr", [1e30, float("inf")], ids=["log-probs", "parameters"])
def test_where_the_policy_is_not_finite_the_last_finite_one_is_left(tmp_path, lr):
    """A step so large that the parameters are finite, and what the policy says is not; and one that is larger."""
    states = []

    @frozen
    class Diverges:
        "Of this test."

        def build(self, run):
            return self

        @hookimpl
        def iteration_finished(self, run):
            run.last_good._due = 0.0  # a copy of every iteration, however short
            states.append({name: tensor.clone() for name, tensor in run.policy.state_dict().items()})
            if run.iteration == 4:
                run.optimizer.param_groups[0]["lr"] = lr

    with pytest.raises(PartError, match="not finite"):
        framework.train(extensions=[Diverges()], iterations=9, directory=tmp_path / "run")
    kept = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in states[4].items())


def test_copies_of_the_last_good_policy_take_no_more_than_a_hundredth(monkeypatch):
    """Where copying takes 10 ms, one is made in a second of iterations that take next to nothing."""
    from framework.guards import last_good

    now, made = [0.0], []
    monkeypatch.setattr(last_good.time, "perf_counter", lambda: now[0])
    kept, policy = last_good.LastGood(), torch.nn.Linear(1, 1)
    monkeypatch.setattr(last_good.LastGood, "_is_finite", lambda self, state: made.append(now[0]) or advance(now, 0.01))
    for _ in range(3000):
        kept.keep(policy, None)
        now[0] += 0.001
    assert len(made) == 3


def advance(now, seconds):
    now[0] += seconds
    return True


@pytest.mark.slow
def test_the_error_says_what_can_be_loaded_instead(here, capsys):
    """Of a run that failed, of one that was killed, of one that is whole."""
    (here / "broken.py").write_text(REPORT + FAILING)
    plugins = ["--plugins", "line_world,reinforce,reports,evaluation,./broken.py"]
    words = ["--extensions", "fails,evaluate", "--extensions.evaluate.every", "1", "--name", "a"]
    assert main(["run", *plugins, *words]) == 1
    capsys.readouterr()
    assert main(["evaluate", "runs/a"]) == 2
    said = capsys.readouterr().err
    assert "the run failed (extension 'fails' (plugin broken) raised ValueError: on purpose" in said
    assert said.endswith(
        "Use --last (in Python last=True) for the parameters before the failure, "
        "or --best (in Python best=True) for those of the best evaluation\n"
    )
    for flag in ("--last", "--best"):
        assert main(["evaluate", "runs/a", flag, "--episodes", "3"]) == 0
    assert main(["evaluate", "runs/a", "--best", "--last"]) == 2
    assert "'best' and 'last' cannot be given together: choose one policy" in capsys.readouterr().err
    (here / "runs" / "a" / "error.txt").unlink()
    assert main(["evaluate", "runs/a"]) == 2
    assert "the run did not finish (it was killed, or still runs). Use" in capsys.readouterr().err
    assert main(["run", "--iterations", "2", "--name", "b", "--reports", "record"]) == 0
    assert main(["evaluate", "runs/b", "--last", "--episodes", "3"]) == 0
    assert "runs/b/policy.safetensors" in capsys.readouterr().out


# Names


def test_a_run_that_failed_before_its_first_row_does_not_use_up_its_name(here, capsys):
    (here / "broken.py").write_text(REPORT)
    words = ["run", *PLUGINS, "--name", "sweep/a", "--iterations", "2"]
    broken = ["--extensions", "breaks", "--extensions.breaks.error", "ValueError('on purpose')"]
    record = here / "runs" / "sweep" / "a"
    for hook in ("run_started", "measure"):
        assert main([*words, *broken, "--extensions.breaks.where", hook]) == 1
        assert "ValueError: on purpose" in (record / "error.txt").read_text()  # and can still be read
    assert main(words) == 0
    assert not (record / "error.txt").exists()
    assert [path.name for path in record.parent.iterdir()] == ["a"]
    assert main(words) == 2
    assert "the run directory runs/sweep/a exists: choose another name" in capsys.readouterr().err


def test_a_run_that_failed_after_a_row_keeps_its_name(here, capsys):
    (here / "broken.py").write_text(REPORT + FAILING)
    words = ["run", *PLUGINS, "--name", "a"]
    assert main([*words, "--extensions", "fails"]) == 1
    before = {path.name: path.read_bytes() for path in (here / "runs" / "a").iterdir()}
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "holds a run that failed (extension 'fails' (plugin broken) raised ValueError: on purpose" in said
    assert "choose another name, or remove it" in said
    assert before == {path.name: path.read_bytes() for path in (here / "runs" / "a").iterdir()}


@pytest.mark.parametrize("name", ["notes.txt", "last.safetensors", "events"])
def test_what_somebody_else_put_into_a_failed_runs_folder_stays(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "error.txt").write_text("PartError: first\n")
    (tmp_path / "run" / name).write_text("precious")
    with pytest.raises(UsageError, match="holds a run that failed .PartError: first.: choose another name"):
        create_run_directory(tmp_path / "run")
    assert (tmp_path / "run" / name).read_text() == "precious"
