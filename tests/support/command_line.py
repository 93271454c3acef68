"""Commands as their users call them: in this process, or on a terminal."""

import os
import pty
import re
import select
import subprocess
import sys

from framework.cli import main

FRAMEWORK = [sys.executable, "-m", "framework"]


def said(capsys, *words, code=0):
    """What a command prints on standard output and error; `words` must make it exit with `code`."""
    try:
        exited = main(list(words))
    except SystemExit as end:  # tyro's own
        exited = end.code or 0
    captured = capsys.readouterr()
    assert exited == code, captured.err + captured.out
    return captured


def in_terminal(words, folder):
    """Run in a pseudo-terminal 100 columns wide; what appeared on it, and the exit code."""
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(FRAMEWORK + words, cwd=folder, stdout=slave, stderr=slave, stdin=slave, env=environment)
    os.close(slave)
    output = b""
    while True:
        ready, _, _ = select.select([master], [], [], 0.1)
        if ready:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                chunk = b""
            output += chunk
            if not chunk:
                break
        elif process.poll() is not None:
            break
    os.close(master)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode()), process.wait()
