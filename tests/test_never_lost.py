"""What was learnt is never lost: whatever becomes of the terminal, the disk, a report, a part or the process."""

import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from attrs import frozen
from framework_line_world import LineWorld
from framework_reinforce import Categorical
from safetensors.torch import load_file

import framework
from framework import PartError, UsageError, hookimpl, read_metrics
from framework.cli import main
from framework.interrupts import ENDING
from framework.records.record import claim
from framework.reporting.metrics_file import MetricsFile

REPORT = '''
"""A report that raises."""

from attrs import frozen
from framework import hookimpl


class Panic(BaseException):
    """As a library in Rust raises it."""


@frozen
class Breaks:
    where: str = "run_started"
    error: str = "OSError(5, 'Input/output error')"

    def build(self, run):
        return Broken(self)


class Broken:
    def __init__(self, settings):
        self.settings = settings

    def trip(self, where):
        if where == self.settings.where:
            raise eval(self.settings.error)

    @hookimpl
    def run_started(self):
        self.trip("run_started")

    @hookimpl
    def measure(self):
        self.trip("measure")

    @hookimpl
    def iteration_finished(self, run):
        self.trip("iteration_finished")
        assert (run.directory / "metrics.csv").read_text().count("\\n") == run.iteration + 2  # the record came first

    @hookimpl
    def should_stop(self):
        self.trip("should_stop")

    @hookimpl
    def run_finished(self, run):
        assert (run.directory / "policy.safetensors").is_file()
        self.trip("run_finished")

    @hookimpl
    def run_failed(self, run):
        assert (run.directory / "error.txt").is_file()
        self.trip("run_failed")


@hookimpl
def extensions():
    return {"breaks": Breaks}
'''
PLUGINS = ["--plugins", "line_world,reinforce,reports,./broken.py"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Reports


@pytest.mark.slow
@pytest.mark.parametrize("error", ["OSError(5, 'Input/output error')", "Panic('boom')", "SystemExit(0)"])
@pytest.mark.parametrize("hook", ["run_started", "measure", "iteration_finished", "should_stop", "run_finished"])
def test_a_report_that_raises_is_switched_off_with_one_warning(here, capsys, hook, error):
    """It is named first in the list, and the record is told before it all the same."""
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
    assert (here / "runs" / "a" / "learning_curve.png").is_file()  # who comes after it is told, too


def test_a_report_that_raises_in_run_failed_hides_no_error(here, capsys):
    (here / "broken.py").write_text(REPORT + FAILING)
    words = ["--reports", "breaks,record", "--extensions.breaks.where", "run_failed", "--extensions", "fails"]
    with pytest.warns(RuntimeWarning, match="'breaks' .* is switched off, .*: run_failed raised OSError"):
        assert main(["run", *PLUGINS, "--iterations", "5", "--name", "a", *words]) == 1
    assert "error: extension 'fails' (plugin broken) raised ValueError: on purpose" in capsys.readouterr().err
    assert (here / "runs" / "a" / "last.safetensors").is_file()


FAILING = """

@frozen
class Fails:
    def build(self, run):
        return self

    @hookimpl
    def measure(self, run):
        if run.iteration == 3:
            raise ValueError("on purpose")


@hookimpl
def extensions():
    return {"breaks": Breaks, "fails": Fails}
"""


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
        warnings.showwarning = lambda *told, **more: sys.stderr.write("")  # as it is without pytest
        errors.warn("unread")
    errors.say("unread")


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


# Signals


def at(iteration, act):
    """An extension that does something after so many iterations."""

    @frozen
    class Acts:
        "Of this test."

        def build(self, run):
            return self

        @hookimpl
        def iteration_finished(self, run):
            if run.iteration == iteration:
                act(run)

    return Acts()


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
    usual = signal.signal(signal.SIGUSR1, lambda *told: seen.append(told))
    try:
        result = framework.train(extensions=[at(1, lambda run: os.kill(os.getpid(), signal.SIGUSR1))], iterations=3)
    finally:
        signal.signal(signal.SIGUSR1, usual)
    assert (len(seen), result.stop_reasons) == (1, ())


# Parts that fail


def failing(error=None, iteration=3):
    def fail(run):
        fail.state = {name: tensor.clone() for name, tensor in run.policy.state_dict().items()}
        raise error or ValueError("on purpose")

    return fail, at(iteration, fail)


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
    from framework.learning import last_good

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
def test_what_can_be_loaded_instead_is_said(here, capsys):
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
        claim(tmp_path / "run")
    assert (tmp_path / "run" / name).read_text() == "precious"


# Disks


def test_a_full_disk_ends_no_run_and_takes_only_what_does_not_fit(here, capsys):
    """The kernel refuses files of more than 1,500 bytes from the middle of the run on: metrics and the policy."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(run):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))

    try:
        with pytest.warns(RuntimeWarning) as caught:
            result = framework.train(extensions=[at(5, fill)], iterations=40, directory=here / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = sorted(str(one.message) for one in caught if re.search("written|off", str(one.message)))
    assert said[0].endswith("run/metrics.csv cannot be written: File too large")
    assert said[1].endswith("run/policy.safetensors cannot be written: File too large")
    assert said[2].startswith("extension 'plot' (plugin reports) is switched off")
    assert len(said) == 3
    assert result.run.iteration == 40
    assert set(result.run.unwritten) == {"metrics.csv", "policy.safetensors"}
    assert (here / "run" / "gradients.json").is_file()
    rows = len(read_metrics(here / "run")["steps"])
    assert 6 < rows < 40  # and the last one that is torn is left out
    assert not list((here / "run").glob("*.part"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root mounts a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


FILLS = '''
"""Fills the disk in one iteration, and frees it in another."""

from attrs import frozen
from framework import hookimpl


@frozen
class Fills:
    when: int = 19
    free: int = -1

    def build(self, run):
        return self

    @hookimpl
    def iteration_finished(self, run):
        filler = run.directory.parent / "filler"
        if run.iteration == self.when:
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(512))
                except OSError:
                    pass
        if run.iteration == self.free:
            filler.unlink()


@hookimpl
def extensions():
    return {"fills": Fills}
'''


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_disk_that_is_full_at_the_end_keeps_the_policy_elsewhere(small_disk, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(small_disk)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "fills.py").write_text(FILLS)
    words = ["run", "--plugins", f"line_world,reinforce,reports,{tmp_path / 'fills.py'}", "--extensions", "fills"]
    assert main([*words, "--iterations", "20", "--name", "a", "--reports", "record"]) == 1
    said = capsys.readouterr()
    (elsewhere,) = tmp_path.glob("framework-a-*")
    reason = f"policy.safetensors (No space left on device, so that it lies in {elsewhere})"
    expected = f"error: the record {small_disk / 'runs' / 'a'} is not complete: {reason}"
    assert expected in said.err
    assert '"iterations": 20' in said.out
    assert load_file(elsewhere / "policy.safetensors")
    assert len(read_metrics("runs/a")["steps"]) == 20


@pytest.mark.slow
def test_a_disk_that_was_full_for_a_while_loses_nothing(small_disk, monkeypatch, tmp_path):
    monkeypatch.chdir(small_disk)
    (tmp_path / "fills.py").write_text(FILLS)
    words = ["run", "--plugins", f"line_world,reinforce,reports,{tmp_path / 'fills.py'}", "--extensions", "fills"]
    words += ["--extensions.fills.when", "5", "--extensions.fills.free", "390", "--quiet", "--reports", "record"]
    with pytest.warns(RuntimeWarning, match="metrics.csv cannot be written: No space left on device"):
        assert main([*words, "--iterations", "400", "--name", "a"]) == 0
    assert read_metrics("runs/a")["iteration"].tolist() == list(range(400))
    assert (small_disk / "runs" / "a" / "policy.safetensors").is_file()


def test_a_disk_that_is_full_at_the_beginning_is_refused_before_training(small_disk, monkeypatch, capsys):
    monkeypatch.chdir(small_disk)
    (small_disk / "runs").mkdir()
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2**20))
    assert main(["run", "--iterations", "1", "--name", "a"]) == 1
    record = small_disk / "runs" / "a"
    said = f"error: extension 'record' (plugin reports) cannot write to {record}: No space left on device"
    assert said in capsys.readouterr().err


# metrics.csv

KILLED = """
import sys
from framework.reporting.metrics_file import MetricsFile
file = MetricsFile(__import__("pathlib").Path("metrics.csv"))
history = {"row": []}
for row in range(100000):
    late = f"late{row // 20}"
    history["row"].append(float(row))
    for name in (f"late{n}" for n in range(row // 20 + 1)):
        history.setdefault(name, [float("nan")] * row).append(1.5)
    file.add({name: column[-1] for name, column in history.items()}, history)
    print(row, flush=True)
"""


@pytest.mark.parametrize("rows", [5, 23, 61, *(pytest.param(r, marks=pytest.mark.slow) for r in range(40, 400, 12))])
def test_a_kill_while_columns_appear_loses_no_row(here, rows):
    """A real SIGKILL, at a moment of its own in each case; every row that was written is there."""
    process = subprocess.Popen([sys.executable, "-c", KILLED], cwd=here, stdout=subprocess.PIPE, text=True)
    written = 0
    for line in process.stdout:
        written = int(line) + 1
        if written >= rows:
            process.kill()
            break
    written = max([written, *(int(line) + 1 for line in process.stdout if line.endswith("\n"))])
    process.stdout.close()
    process.wait()
    read = read_metrics(here)["row"]
    assert read.tolist() == list(range(len(read)))
    assert len(read) >= written


def test_a_torn_last_row_is_dropped_when_read(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    for row in range(3):
        file.add({"a": 1.25, "b": np.nan}, {"a": [1.25] * (row + 1), "b": [np.nan] * (row + 1)})
    file.close()
    whole = (tmp_path / "metrics.csv").read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / "metrics.csv").write_bytes(whole[:length])
        read, rows = read_metrics(tmp_path), max(whole[:length].count(b"\n") - 1, 0)
        assert [len(column) for column in read.values()] in ([rows] * 2, [])
        assert (read.get("a", np.array([1.25])) == 1.25).all()
    assert len(read["a"]) == 3


@pytest.mark.parametrize(("text", "message"), [("a,b\n1\n", "rows of different"), ("a\nx\n", "could not convert")])
def test_what_is_no_table_of_numbers_is_refused(tmp_path, text, message):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UsageError, match=rf"metrics.csv is no table of numbers: {message}"):
        read_metrics(tmp_path)
    with pytest.raises(UsageError, match=r"cannot read .*metrics.csv: No such file"):
        read_metrics(tmp_path / "nowhere")


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    """The record's own, and nobody else's."""

    def leave(run):
        (run.directory / "best.safetensors.part").touch()
        (run.directory / "mine.part").touch()

    framework.train(extensions=[at(1, leave)], iterations=2, directory=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("*.part")] == ["mine.part"]


# What is no Exception


class Panic(BaseException):
    """As a library in Rust raises it."""

    __module__ = "pyo3_runtime"


NO_EXCEPTIONS = [Panic("boom"), SystemExit(0), GeneratorExit()]


def raising(error, method):
    """A line world that raises in one method; `closed` counts."""
    closed = []

    @frozen
    class Raising:
        "Of this test."

        def build(self, lanes, device):
            if method == "build":
                raise error
            made = LineWorld(goal=4).build(lanes, device)

            class World:
                observation_space, action_space = made.observation_space, made.action_space
                reset = made.reset

                def step(self, actions, generator):
                    if method == "step":
                        raise error
                    return made.step(actions, generator)

                def close(self):
                    closed.append(self)
                    if method == "close":
                        raise error

            return World()

    return Raising(), closed


@frozen
class Slow:
    "The categorical policy, acting step by step."

    def build(self, *spaces):
        policy = Categorical().build(*spaces)
        policy.__class__ = type("Stepped", (type(policy),), {"actor": lambda self: None})
        return policy


@pytest.mark.parametrize("where", ["needs", "call"])
def test_a_part_that_exits_is_no_success_for_any_command(here, capsys, where):
    (here / "leaves.py").write_text(LEAVES)
    plugins = ["--plugins", "line_world,reinforce,reports,./leaves.py", "--estimator", where]
    assert main(["run", *plugins, "--iterations", "1", "--name", "a"]) in (1, 2)
    expected = {"needs": "(plugin leaves): needs raised SystemExit: 0", "call": "(plugin leaves) raised Panic: boom"}
    assert expected[where] in capsys.readouterr().err


def test_a_check_survives_what_is_no_exception(here, capsys):
    (here / "leaves.py").write_text(LEAVES)
    assert main(["check", "./leaves.py", "--quick", "--examples", "5"]) == 1
    said = capsys.readouterr().out
    assert "raised Panic: boom" in said
    assert "SystemExit" in said


LEAVES = """
import sys

from attrs import frozen
from framework import hookimpl


class Panic(BaseException):
    "As a library in Rust raises it."


@frozen
class Needs:
    "Exits when it is asked what it needs."

    @property
    def needs(self):
        sys.exit(0)

    def __call__(self, rollout):
        pass


@frozen
class Calls:
    "Panics when it is called."

    def __call__(self, rollout):
        raise Panic("boom")


@hookimpl
def estimators():
    return {"needs": Needs, "call": Calls}
"""


@pytest.mark.parametrize("error", NO_EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_what_is_no_exception_is_named_like_one(error, tmp_path):
    label = r"environment 'Raising' .plugin test_never_lost."
    name = type(error).__name__
    with pytest.raises(UsageError, match=f"{label} cannot be built: {name}: "):
        framework.train(environment=raising(error, "build")[0], directory=tmp_path / "run")
    world, closed = raising(error, "step")
    with pytest.raises(PartError, match=f"{label} raised {name}: ") as caught:
        framework.train(environment=world, policy=Slow(), rollout=framework.RolloutSettings(lanes=3), iterations=1)
    assert "It was raised at step 0 of the rollout, which has 3 lanes." in caught.value.__notes__
    assert len(closed) == 1
    with pytest.raises(PartError, match=f"{label} raised {name}: "):
        framework.evaluate(framework.train(iterations=1, policy=Slow()), world, episodes=2)
    assert len(closed) == 2
    with pytest.raises(PartError, match=f"extension 'Acts' .* raised {name}: "):
        framework.train(extensions=[failing(type(error)(*error.args))[1]], directory=tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").is_file()


@pytest.mark.parametrize("error", [*NO_EXCEPTIONS, OSError("broken pipe")], ids=lambda error: type(error).__name__)
def test_what_a_close_raises_is_a_warning_and_the_others_are_closed(error):
    world, closed = raising(error, "close")
    label = r"environment 'Raising' .plugin test_never_lost."
    rollout = framework.RolloutSettings(lanes=4, shards=2)
    with pytest.warns(RuntimeWarning, match=rf"{label}: close\(\) raised {type(error).__name__}: ") as caught:
        result = framework.train(environment=world, rollout=rollout, iterations=1)
    assert (result.run.iteration, len(closed), len(caught)) == (1, 2, 2)


def test_a_part_that_exits_while_it_is_built_is_no_success(here, capsys):
    (here / "leaves.py").write_text(
        "import sys\nfrom attrs import frozen\nfrom framework import hookimpl\n\n@frozen\nclass Leaves:\n"
        "    def build(self):\n        sys.exit(0)\n\n@hookimpl\ndef losses():\n    return {'leaves': Leaves}\n"
    )
    assert main(["run", "--plugins", "line_world,reinforce,reports,./leaves.py", "--loss", "leaves"]) == 2
    assert "error: loss 'leaves' (plugin leaves) cannot be built: SystemExit: 0" in capsys.readouterr().err


@frozen
class Opened:
    """An extension that holds something open."""

    def build(self, run):
        return self

    @hookimpl
    def run_started(self):
        pass

    def close(self):
        CLOSED.append(self)


CLOSED = []


@frozen
class Unbuilt:
    """An extension that cannot be built."""

    def build(self, run):
        raise ValueError("no such server")


@frozen
class NoPolicy:
    """A policy that takes no action space."""

    def build(self, observations, actions):
        raise UsageError("policy 'NoPolicy' takes no such actions")


def test_what_was_built_is_closed_where_something_else_cannot_be(tmp_path):
    """Environments of all shards, that of evaluations, other extensions; whatever is refused, and wherever."""
    from framework_evaluation import Evaluate

    world, closed = raising(None, "nothing")
    CLOSED.clear()
    opened = Opened()
    parts = {"environment": world, "rollout": framework.RolloutSettings(lanes=4, shards=2)}
    with pytest.raises(UsageError, match="takes no such actions"):
        framework.train(**parts, policy=NoPolicy())
    assert len(closed) == 2
    with pytest.raises(UsageError, match="extension 'Unbuilt' .* cannot be built: ValueError: no such server"):
        framework.train(**parts, extensions=[opened, Evaluate(), Unbuilt()])
    assert (len(closed), len(CLOSED)) == (5, 1)
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="exists"):
        framework.train(**parts, extensions=[opened, Evaluate()], directory=tmp_path / "run")
    assert (len(closed), len(CLOSED)) == (8, 2)
    framework.train(**parts, extensions=[opened, Evaluate(every=1, episodes=2)], iterations=1)
    assert (len(closed), len(CLOSED)) == (11, 3)


def test_what_a_killed_run_left_half_written_is_removed_when_its_record_is_read(tmp_path):
    """If it is old enough that no live run can be writing it."""
    framework.train(iterations=1, directory=tmp_path / "run")
    old, new = (tmp_path / "run" / f"{name}.part" for name in ("metrics.csv", "policy.safetensors"))
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (1, 1))
    framework.load(tmp_path / "run")
    assert not old.exists()
    assert new.exists()
