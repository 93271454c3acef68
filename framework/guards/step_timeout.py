"""`--step-timeout SECONDS`: a reset or step that does not return ends the run, and lane and step are named.

In the main thread an alarm interrupts Python code, sleeping and waiting. Elsewhere, and where there are no alarms
(Windows), an exception is set in the thread that steps, which interrupts Python code only. What neither interrupts,
such as a call into C that does not return, is left standing: the failure is recorded from another thread, and the
process ends. A call into C that holds Python's lock lets no other thread work, and cannot be ended from within.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from ..capabilities import HasBusy, has
from ..errors import PartError, say
from ..places import own_line

GRACE = 5.0  # seconds, at most, until a call that was interrupted and goes on is left standing


class StepTimeout(BaseException):
    """Raised in the middle of an environment's code; no `Exception`, which such code may catch."""


def _abandon(error: PartError) -> None:
    say(f"error: {error}")
    os._exit(1)


class Limit:
    """How long an environment's reset or step may take.

    Args:
        seconds: so long.
        label: what errors call the environment.
        abandon: is called, in another thread, with the error of a call that nothing interrupts; it ends the process.
    """

    def __init__(self, seconds: float, label: str, abandon: Callable[[PartError], None] = _abandon) -> None:
        """Nothing is watched yet."""
        self.seconds, self.label, self.abandon = seconds, label, abandon
        self.grace = min(GRACE, seconds)
        self.since: float | None = None  # when the call began that is under way
        self.calls = 0  # steps since all lanes were last reset
        self._thread = 0  # which one steps
        self._environment: Any = None
        self._method = ""
        self._watcher: threading.Thread | None = None
        self._closed = threading.Event()

    def around(self, environment: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The environment's `reset` and `step`, with this limit."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="step timeout", daemon=True)
            self._watcher.start()
        return self._limited(environment, "reset"), self._limited(environment, "step")

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _limited(self, environment: Any, method: str) -> Callable[..., Any]:
        call = getattr(environment, method)

        def limited(*arguments: Any) -> Any:
            self._environment, self._method, self._thread = environment, method, threading.get_ident()
            self.calls = 0 if method == "reset" else self.calls + 1
            alarm = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
            if alarm:
                before = signal.signal(signal.SIGALRM, self._ring)
            try:
                self.since = time.monotonic()
                if alarm:
                    signal.setitimer(signal.ITIMER_REAL, self.seconds)
                return call(*arguments)
            except StepTimeout as error:
                raise self._error(own_line(error, or_else=False)) from error
            finally:
                self.since = None
                if alarm:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.signal(signal.SIGALRM, before)

        return limited

    def _ring(self, number: int, frame: Any) -> None:
        if self.since is not None:
            raise StepTimeout

    def _watch(self) -> None:
        """In a thread of its own: interrupt where no alarm does, and end what cannot be interrupted."""
        interrupted: float | None = None  # the call that was
        main = threading.main_thread().ident
        while not self._closed.wait(max(0.05, self.seconds / 4)):
            since = self.since
            if since is None or time.monotonic() - since < self.seconds:
                continue
            if interrupted != since and not (hasattr(signal, "setitimer") and self._thread == main):
                interrupted = since
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(StepTimeout))
            if time.monotonic() - since > self.seconds + self.grace and self.since == since:
                self.abandon(self._error("nothing interrupts it, so that the process ends here"))
                return

    def _error(self, where: str) -> PartError:
        busy = self._environment.busy() if has(self._environment, HasBusy) else ""
        busy = busy or f"all lanes, step {self.calls} since they were last reset"
        return PartError(
            f"{self.label}: {self._method} did not return within {self.seconds:g} s (step_timeout): {busy}"
            + (f" ({where})" if where else "")
        )
