"""A full disk or a killed process takes no row that was written, and not the policy."""

import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
from failing_runs import at
from safetensors.torch import load_file

import framework
from framework import UsageError, read_metrics
from framework.cli import main
from framework.reporting.metrics_file import MetricsFile

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
    reason = f"policy.safetensors (No space left on device, so it was written to {elsewhere})"
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
