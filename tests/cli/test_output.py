"""Standard output holds a command's result alone, and where it cannot be printed, a sentence says so."""

import ctypes
import json
import os
import subprocess
import sys
import textwrap
import tomllib

import pytest
from foreign import publish

from framework.cli import main, output

FRAMEWORK = f"'{sys.executable}' -m framework"

NOISY = """
    import ctypes, os, subprocess, sys
    from attrs import frozen
    from framework import Estimate, hookimpl

    def shout(where):
        print(f"print {where}")
        sys.__stdout__.write(f"stream {where}\\n")
        os.write(1, f"descriptor {where}\\n".encode())
        subprocess.run([sys.executable, "-S", "-c", f"print('process {where}')"], check=True)
        ctypes.CDLL(None).printf(f"library {where}\\n".encode())

    import atexit
    atexit.register(print, "print atexit")
    atexit.register(lambda: ctypes.CDLL(None).printf(b"library atexit\\n"))
    shout("import")
    import io
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)  # for the sake of Windows

    @frozen
    class Half:
        "Half."

        def build(self):
            shout("build")
            return self.called

        def called(self, rollout):
            shout("call")
            return Estimate(rollout.rewards / 2, rollout.rewards)

    @hookimpl
    def estimators():
        shout("hook")
        return {"half": Half}
"""


@pytest.mark.slow
def test_what_parts_print_goes_to_standard_error(tmp_path):
    """In Python, by a library in C, by a process: at import, in hooks, in `build`, in a run."""
    (tmp_path / "noisy.py").write_text(textwrap.dedent(NOISY))
    words = "--plugins line_world,reinforce,./noisy.py --estimator half --iterations 1 --reports"
    done = subprocess.run(
        f"{FRAMEWORK} run {words} | cat", shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["iterations"] == 1
    assert "print atexit\n" in done.stderr
    assert "library atexit\n" in done.stderr
    for place in ("import", "hook", "build", "call"):
        for way in ("print", "stream", "descriptor", "process", "library"):
            assert f"{way} {place}\n" in done.stderr


@pytest.mark.slow
def test_every_command_s_result_is_alone_on_standard_output(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = "print('noise')\n" + textwrap.dedent("    @frozen" + NOISY.partition("@frozen")[2]).replace(
        "shout", "print"
    )
    source = "from attrs import frozen\nfrom framework import Estimate, hookimpl\n" + source
    publish(tmp_path, monkeypatch, "noisy-rl", {"noisy": "noisy_module"}, noisy_module=source)
    (tmp_path / "mine.py").write_text(source.replace('"half"', '"mine"'))
    words = ["--estimator", "half", "--iterations", "1"]
    for command, reads in {
        ("run", *words, "--name", "first"): json.loads,
        ("show", *words): tomllib.loads,
        ("evaluate", "runs/first", "--episodes", "2"): json.loads,
        ("audit", "--estimator", "half", "--episodes", "16", "--batch", "4", "--environment.goal", "2"): json.loads,
        ("check", "mine.py", "--examples", "1"): json.loads,
        ("plugins",): json.loads,
        ("plugins", "--plugins", "./mine.py"): json.loads,
    }.items():
        sys.modules.pop("noisy_module", None)
        assert main(list(command)) in (0, 1), command
        captured = capsys.readouterr()
        assert reads(captured.out), command
        assert "noise" in captured.err or command[-1] == "./mine.py", command


def shell(command, folder):
    """Exit code and standard error of a real shell's command; `framework` is this one."""
    done = subprocess.run(
        ["bash", "-c", command.replace("framework", FRAMEWORK)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, done.stderr, done.stdout


FULL = "error: standard output cannot be written: No space left on device\n"
CLOSED = "error: standard output is closed\n"
SAVED = "the run is complete, and its record is runs/first\n"
RUN = "framework run --iterations 1 --name first"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        pytest.param(f"{RUN} > /dev/full", 1, FULL + SAVED, marks=pytest.mark.slow),
        (f"{RUN} >&-", 1, CLOSED + SAVED),
        pytest.param(f"{RUN} --quiet >&-", 0, "", marks=pytest.mark.slow),
        pytest.param(f"{RUN} 2>&- | grep -c iterations", 0, "", marks=pytest.mark.slow),
        pytest.param(f"{RUN} 2> /dev/full | grep -c iterations", 0, "", marks=pytest.mark.slow),
        pytest.param(f"{RUN} <&- >&- 2>&-", 1, "", marks=pytest.mark.slow),
        pytest.param(f"set -o pipefail; {RUN} | true", 0, "", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_result_cannot_be_printed_says_so_and_keeps_its_record(tmp_path, command, code, said):
    assert shell(command, tmp_path)[:2] == (code, said)
    assert (tmp_path / "runs" / "first" / "policy.safetensors").is_file()
    assert "iterations" not in (tmp_path / "runs" / "first" / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", ["--help", "--version", "run --help", "show", "plugins", "check --help"])
def test_help_and_listings_that_cannot_be_printed_say_so(tmp_path, words):
    assert shell(f"framework {words} > /dev/full", tmp_path)[:2] == (1, FULL)
    assert shell(f"set -o pipefail; framework {words} | true", tmp_path)[:2] == (0, "")
    code, said, _ = shell(f"framework {words} >&-", tmp_path)
    assert (code, said) == (1, CLOSED) or (code == 0 and "usage: framework" in said)  # tyro's help


@pytest.mark.slow
def test_a_reader_who_leaves_does_not_change_a_verdict(tmp_path):
    """A broken part exits 1 also where only the beginning is read."""
    (tmp_path / "bad.py").write_text(textwrap.dedent(NOISY).replace("rewards / 2", "rewards[0] / 2"))
    assert shell("set -o pipefail; framework check bad.py --examples 2 | head -n 1", tmp_path)[0] == 1


def test_standard_output_is_as_before_after_a_command(capfd):
    """Also where file descriptor 1 is a real one."""
    stream = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(stream.fileno(), 1)
    usual, sys.stdout = sys.stdout, open(1, "w", encoding="ascii", closefd=False)  # noqa: SIM115
    try:
        assert main(["--version"]) == 0
        assert sys.stdout.errors == "strict"
        print("after")
        sys.stdout.flush()
        ctypes.CDLL(None).puts(b"from C")
        output._flush_c()
    finally:
        sys.stdout = usual
        stream.close()
    captured = capfd.readouterr()
    assert captured.out.splitlines()[-2:] == ["after", "from C"]
    assert captured.err == ""
