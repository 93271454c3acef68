"""Ctrl-C between two pieces of work, never within one: counted is recorded, and a step is taken whole.

So are the signals by which a batch system or a closed terminal ends a process: `ENDING`.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ENDING = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # each ends a process that does not handle it


class Interrupts:
    """While `watching`, Ctrl-C raises `KeyboardInterrupt` as ever, but within `deferred` it waits for the end.

    Signals reach Python's main thread only; elsewhere, and where another handler is installed, nothing is changed.
    """

    def __init__(self) -> None:
        self._deferring = self._waiting = False
        self.signal = signal.SIGINT  # the last that came

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signal; put the former handler back at the end."""
        mine = threading.current_thread() is threading.main_thread()
        usual = {signal.SIGINT: signal.default_int_handler}
        usual |= {getattr(signal, name): signal.SIG_DFL for name in ENDING if hasattr(signal, name)}
        usual = {number: handler for number, handler in usual.items() if mine and signal.getsignal(number) is handler}
        for number in usual:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in usual.items():
                signal.signal(number, handler)

    def defer(self) -> None:
        """Let everything be finished from here on."""
        self._deferring = True

    def deferred(self) -> "Interrupts":
        """`with interrupts.deferred():` lets a piece of work be finished first."""
        return self

    def __enter__(self) -> None:
        """Defer."""
        self._deferring = True

    def __exit__(self, *error: object) -> None:
        """Let go, and raise what has waited."""
        self._deferring = False
        if self._waiting and error[0] is None:
            self._waiting = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: Any) -> None:
        self.signal = signal.Signals(number)
        if not self._deferring:
            self._deferring = True  # another signal must not interrupt what follows from this one
            raise KeyboardInterrupt
        self._waiting = True
