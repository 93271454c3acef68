"""One process per lane, as in Gymnasium's `AsyncVectorEnv`, with errors that name the lane and the reason."""

import faulthandler
import functools
import multiprocessing
import queue
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any

from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector import async_vector_env as gymnasiums

from framework.tools import ENDING, own_line

from .guard import CREATING, IDLE, RESET, STEP, Env, Guard, LaneError

TIMEOUT = 5.0  # seconds that a process may take to end, or to send its error


class RemoteError(Exception):
    """The traceback of a lane's process, as text: the cause of the error that is raised here."""

    def __str__(self) -> str:
        """As Python prints it."""
        return f"\n{self.args[0]}"


class Processes(AsyncVectorEnv):
    """Gymnasium's, except that every failure names its lane, and that closing never waits for a dead process."""

    def __init__(self, makers: Sequence[Callable[[], Env]], **options: Any) -> None:
        """Start the processes.

        Raises:
            LaneError: one of them cannot make its environment, or died.
        """
        self.status: MutableSequence[int] = multiprocessing.RawArray("q", 2 * len(makers))
        worker = functools.partial(_run_worker, self.status)
        try:
            with self._name_dead_lane():
                super().__init__(makers, worker=worker, **options)
        except BaseException:
            self.close()
            raise

    def step_wait(self, timeout: float | None = None) -> Any:
        """As Gymnasium's."""
        with self._name_dead_lane():
            return super().step_wait(timeout)

    def step_async(self, actions: Any) -> None:
        """As Gymnasium's."""
        with self._name_dead_lane():
            super().step_async(actions)

    def reset(self, **arguments: Any) -> Any:
        """As Gymnasium's."""
        with self._name_dead_lane():
            return super().reset(**arguments)

    def call(self, name: str, *arguments: Any, **by_name: Any) -> Any:
        """As Gymnasium's."""
        with self._name_dead_lane():
            return super().call(name, *arguments, **by_name)

    def finish_pending(self) -> None:
        """Wait for lanes that Ctrl-C interrupted in the middle of a step, and discard their answers.

        Raises:
            LaneError: a lane does not finish.
        """
        if self._state == gymnasiums.AsyncState.DEFAULT:
            return
        deadline = time.monotonic() + TIMEOUT
        for lane, pipe in enumerate(self.parent_pipes):
            while self.status[2 * lane + 1] != IDLE:
                if time.monotonic() > deadline:
                    raise LaneError(f"lane {lane} does not return")
                time.sleep(0.001)
            while pipe.poll(0.02):
                pipe.recv()
        self._state = gymnasiums.AsyncState.DEFAULT

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the processes: those that wait for work by a message, all others by a signal."""
        state = getattr(getattr(self, "_state", None), "value", "default")
        pipes = [pipe for pipe in getattr(self, "parent_pipes", ()) if pipe is not None and not pipe.closed]
        if state == "default" and not terminate:
            with suppress(OSError, EOFError):
                for pipe in pipes:
                    pipe.send(("close", None))
                wait([process.sentinel for process in self._started_processes()], TIMEOUT)
        for process in self._started_processes():
            if state != "default" or terminate:
                process.terminate()
            process.join(TIMEOUT)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in pipes:
            pipe.close()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raise the error of the first lane that failed."""
        failed = [lane for lane, succeeded in enumerate(successes) if not succeeded]
        reports: list[Any] = []
        with suppress(queue.Empty):
            reports.extend(self.error_queue.get(timeout=TIMEOUT) for _ in failed)
        if reports:
            _, _, error, trace = min(reports, key=lambda entry: int(entry[0]))
            raise error from RemoteError(trace)
        if failed:
            raise LaneError(f"lane {failed[0]} failed, and what it raised cannot be sent to this process")

    @contextmanager
    def _name_dead_lane(self) -> Iterator[None]:
        """Raise an error that names the lane whose process died."""
        try:
            yield
        except (EOFError, OSError) as error:
            raise LaneError(self._describe_exit(error)) from None

    def _describe_exit(self, error: Exception) -> str:
        """Which process ended, how, and what it was doing."""
        processes = self._started_processes()
        ended = wait([process.sentinel for process in processes], TIMEOUT)
        for lane, process in enumerate(processes):
            if process.sentinel not in ended:
                continue
            process.join()
            code = process.exitcode or 0
            how = f"ended with exit code {code}"
            if code < 0:
                how = f"was killed by {signal.Signals(-code).name}"
                how += " (is there enough memory?)" if -code == getattr(signal, "SIGKILL", 0) else ""
            clock, activity = self.status[2 * lane], self.status[2 * lane + 1]
            method = multiprocessing.get_start_method()
            if not activity and method != "fork":
                return (
                    f"the process of lane {lane} {how} before it made its environment; its own traceback may be above. "
                    f"Processes are started by {method} here, so each imports the program's main file again: "
                    'put what the program does under `if __name__ == "__main__":`'
                )
            return f"the process of lane {lane} {how} {describe_activity(activity, clock)}"
        return f"a lane's process cannot be started, or does not answer: {type(error).__name__}: {error}"

    def _started_processes(self) -> list[Any]:
        return [process for process in getattr(self, "processes", ()) if process.pid is not None]


def describe_activity(activity: int, clock: int) -> str:
    """What a lane is doing, from its two numbers in `status`."""
    return {
        CREATING: "while it made its environment",
        RESET: "in its reset",
        STEP: f"in step {clock} of its episode",
        IDLE: f"between two steps, after {clock} of its episode",
    }.get(activity, "before it made its environment")


def _run_worker(
    status: MutableSequence[int],
    index: int,
    make: Callable[[], Guard],
    pipe: Any,
    parent_pipe: Any,
    shared: Any,
    errors: Any,
    *rest: Any,
) -> None:
    """Runs in a lane's process: makes the environment, then Gymnasium's worker; on failure it sends the error."""
    for name in ("SIGINT", *ENDING):  # the run handles them, and closes its lanes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the run ends the process with it
    with suppress(Exception):
        faulthandler.enable()  # a crash in C prints the line of Python
    status[2 * index + 1] = CREATING
    try:
        env = make()
        env.status = status
        status[2 * index + 1] = IDLE
    except BaseException as error:
        lane_error = LaneError(
            f"lane {index}, which has a process of its own, cannot make its environment: "
            f"{type(error).__name__}: {error} (environment.vectorization_mode sync makes all lanes in one process)"
        )
        lane_error.place = own_line(error)
        errors.put((index, LaneError, lane_error, traceback.format_exc()))
        parent_pipe.close()
        with suppress(EOFError, OSError):
            pipe.recv()
            pipe.send((None, False))
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # the run is gone
        gymnasiums._async_worker(index, lambda: env, pipe, parent_pipe, shared, errors, *rest)
