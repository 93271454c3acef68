"""One process a lane, as Gymnasium's `AsyncVectorEnv` has it; one that fails or dies says why."""

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

from .guard import MAKING, OUTSIDE, RESET, STEP, Env, Guard, LaneError

PATIENCE = 5.0  # seconds that a process has to end, or to send what it has to say


class RemoteError(Exception):
    """The traceback of a lane's process, as text: the cause of the error that is raised here."""

    def __str__(self) -> str:
        """As Python prints it."""
        return f"\n{self.args[0]}"


class Processes(AsyncVectorEnv):
    """Gymnasium's, except that every failure names its lane, and that closing never waits for a lane that is gone."""

    def __init__(self, makers: Sequence[Callable[[], Env]], **chosen: Any) -> None:
        """Start the processes.

        Raises:
            LaneError: one of them cannot make its environment, or died.
        """
        self.whereabouts: MutableSequence[int] = multiprocessing.RawArray("q", 2 * len(makers))
        work = functools.partial(_work, self.whereabouts)
        try:
            with self._answering():
                super().__init__(makers, worker=work, **chosen)
        except BaseException:
            self.close()
            raise

    def step_wait(self, timeout: float | None = None) -> Any:
        """As Gymnasium's."""
        with self._answering():
            return super().step_wait(timeout)

    def step_async(self, actions: Any) -> None:
        """As Gymnasium's."""
        with self._answering():
            super().step_async(actions)

    def reset(self, **arguments: Any) -> Any:
        """As Gymnasium's."""
        with self._answering():
            return super().reset(**arguments)

    def call(self, name: str, *arguments: Any, **by_name: Any) -> Any:
        """As Gymnasium's."""
        with self._answering():
            return super().call(name, *arguments, **by_name)

    def settle(self) -> None:
        """Let lanes finish that were interrupted, by Ctrl-C, in the middle of a step; what they answer is let go.

        Raises:
            LaneError: a lane does not finish.
        """
        if self._state == gymnasiums.AsyncState.DEFAULT:
            return
        deadline = time.monotonic() + PATIENCE
        for lane, pipe in enumerate(self.parent_pipes):
            while self.whereabouts[2 * lane + 1] != OUTSIDE:
                if time.monotonic() > deadline:
                    raise LaneError(f"lane {lane} does not return")
                time.sleep(0.001)
            while pipe.poll(0.02):
                pipe.recv()
        self._state = gymnasiums.AsyncState.DEFAULT

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the processes: those that wait for work are asked to, all others are ended."""
        state = getattr(getattr(self, "_state", None), "value", "default")
        asked = [pipe for pipe in getattr(self, "parent_pipes", ()) if pipe is not None and not pipe.closed]
        if state == "default" and not terminate:
            with suppress(OSError, EOFError):
                for pipe in asked:
                    pipe.send(("close", None))
                wait([process.sentinel for process in self._started()], PATIENCE)
        for process in self._started():
            if state != "default" or terminate:
                process.terminate()
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in asked:
            pipe.close()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raise what the first of the lanes that failed has to say."""
        failed = [lane for lane, fine in enumerate(successes) if not fine]
        said: list[Any] = []
        with suppress(queue.Empty):
            said.extend(self.error_queue.get(timeout=PATIENCE) for _ in failed)
        if said:
            _, _, error, trace = min(said, key=lambda entry: int(entry[0]))
            raise error from RemoteError(trace)
        if failed:
            raise LaneError(f"lane {failed[0]} failed, and what it raised cannot be sent to this process")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Name the lane that no longer answers."""
        try:
            yield
        except (EOFError, OSError) as error:
            raise LaneError(self._death(error)) from None

    def _death(self, error: Exception) -> str:
        """Which process ended, how, and in the middle of what."""
        processes = self._started()
        ended = wait([process.sentinel for process in processes], PATIENCE)
        for lane, process in enumerate(processes):
            if process.sentinel not in ended:
                continue
            process.join()
            code = process.exitcode or 0
            how = f"ended with exit code {code}"
            if code < 0:
                how = f"was killed by {signal.Signals(-code).name}"
                how += " (is there enough memory?)" if -code == getattr(signal, "SIGKILL", 0) else ""
            clock, doing = self.whereabouts[2 * lane], self.whereabouts[2 * lane + 1]
            method = multiprocessing.get_start_method()
            if not doing and method != "fork":
                return (
                    f"the process of lane {lane} {how} before it made its environment; its own traceback may be above. "
                    f"Processes are started by {method} here, so each imports the program's main file again: "
                    'put what the program does under `if __name__ == "__main__":`'
                )
            return f"the process of lane {lane} {how} {activity(doing, clock)}"
        return f"a lane's process cannot be started, or does not answer: {type(error).__name__}: {error}"

    def _started(self) -> list[Any]:
        return [process for process in getattr(self, "processes", ()) if process.pid is not None]


def activity(doing: int, clock: int) -> str:
    """What a lane does, by its two numbers."""
    return {
        MAKING: "while it made its environment",
        RESET: "in its reset",
        STEP: f"in step {clock} of its episode",
        OUTSIDE: f"between two steps, after {clock} of its episode",
    }.get(doing, "before it made its environment")


def _work(
    whereabouts: MutableSequence[int],
    index: int,
    make: Callable[[], Guard],
    pipe: Any,
    parent_pipe: Any,
    shared: Any,
    errors: Any,
    *rest: Any,
) -> None:
    """What a lane's process runs: Gymnasium's worker, once the environment is made; else it says why it is not."""
    for name in ("SIGINT", *ENDING):  # they are the run's, which closes its lanes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the run ends it
    with suppress(Exception):
        faulthandler.enable()  # a crash in C says in which line of Python
    whereabouts[2 * index + 1] = MAKING
    try:
        env = make()
        env.whereabouts = whereabouts
        whereabouts[2 * index + 1] = OUTSIDE
    except BaseException as error:
        named = LaneError(
            f"lane {index}, which has a process of its own, cannot make its environment: "
            f"{type(error).__name__}: {error} (environment.vectorization_mode sync makes all lanes in one process)"
        )
        named.place = own_line(error)
        errors.put((index, LaneError, named, traceback.format_exc()))
        parent_pipe.close()
        with suppress(EOFError, OSError):
            pipe.recv()
            pipe.send((None, False))
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # the run is gone
        gymnasiums._async_worker(index, lambda: env, pipe, parent_pipe, shared, errors, *rest)
