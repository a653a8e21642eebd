"""Calls in processes that may crash or hang without harm to the one who calls."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

__all__ = ["ProcessDiedError", "Processes", "TimeLimitError", "serve"]

A = TypeVar("A")
B = TypeVar("B")

# How often it is checked whether a silent process is still there, s.
_PULSE = 0.2

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from tfgen.execution.processes import serve; serve(int(sys.argv[1]))"
)


class ProcessDiedError(ChildProcessError):
    """The process that worked on a task ended, each time it was tried."""


class TimeLimitError(TimeoutError):
    """A task took too long; its process was killed."""


class Processes:
    """Worker processes, started when needed, that stay for the next task.

    Each leads a process group of its own, which is killed as a whole: calculators start programs.
    They end when this process does, whatever it dies of.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._closed = False

    def call(
        self,
        function: Callable[[A], B],
        argument: A,
        time_limit: float | None = None,
        *,
        tries: int = 3,
    ) -> B:
        """Returns `function(argument)`, computed in a process; several threads may call at once.

        Args:
            function: importable by its name.
            argument: anything that can be pickled.
            time_limit: s, after which the process is killed; None: never.
            tries: how many processes get the task, one after the other, as long as they die with
                it: a process that dies may have been killed by somebody else.

        Raises:
            ValueError: if `tries` is less than 1.
            ProcessDiedError: if the process died, and so did all others that got the same task.
            TimeLimitError: if it took too long.
            RuntimeError: if the function raised an error; says which.
        """
        if tries < 1:
            raise ValueError(f"tries is {tries!r}; a whole number of at least 1 is needed")
        for last in (*[False] * (tries - 1), True):
            process = self._take()
            try:
                done, value = process.call(function, argument, time_limit)
            except ProcessDiedError:
                if last or self._closed:
                    raise
                continue
            finally:
                self._put_back(process)
            if done:
                return value
            raise RuntimeError(value[0]) from _Remote(value[1])
        raise AssertionError

    def close(self) -> None:
        """Kills all processes, and with them what they are working on."""
        with self._lock:
            self._closed = True
            for process in self._all:
                process.end()
            # The thread that calls a busy one sees it die, and cleans up itself.
            for process in self._idle:
                process.clean_up()
            self._idle.clear()

    def _take(self) -> _Process:
        with self._lock:
            if self._closed:
                raise ProcessDiedError("the worker processes were closed")
            while self._idle:
                process = self._idle.pop()
                if process.alive():
                    return process
                process.fail()
                self._all.discard(process)
            process = _Process()
            self._all.add(process)
            return process

    def _put_back(self, process: _Process) -> None:
        with self._lock:
            if process in self._all and process.alive():
                self._idle.append(process)
            else:
                self._all.discard(process)


class _Process:
    """One worker process and the pipe to it."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        # One task runs on one core, so that results do not depend on the number of cores.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  (ourselves)
                [sys.executable, "-c", _CODE, str(theirs.fileno()), json.dumps(sys.path)],
                # Its standard input closes when this process ends: then it ends too.
                stdin=subprocess.PIPE,
                stdout=2,  # calculators talk; standard output is the command's own
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment,
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, function: Callable[[A], B], argument: A, time_limit: float | None) -> Any:
        """Returns (True, the result) or (False, (the error in one line, its traceback))."""
        try:
            self._connection.send((function, argument, time_limit))
            self._receive(None)  # it has begun: the time to start and to import is not the task's
            return self._receive(time_limit)
        except TimeLimitError:
            raise
        except (EOFError, OSError) as error:
            self.fail()
            raise ProcessDiedError(f"the worker process {_ended(self._process)}") from error
        except BaseException:
            self.fail()
            raise

    def _receive(self, time_limit: float | None) -> Any:
        end = None if time_limit is None else time.monotonic() + time_limit
        while not self._connection.poll(_PULSE):
            # A program that it started may hold the pipe open when it is long dead.
            if not self.alive() and not self._connection.poll():
                raise EOFError
            if end is not None and time.monotonic() > end:
                self.fail()
                raise TimeLimitError(f"stopped after {time_limit:g} s")
        return self._connection.recv()

    def fail(self) -> None:
        """Kills the process and gives back what it holds."""
        self.end()
        self.clean_up()

    def end(self) -> None:
        """Kills the process and all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def clean_up(self) -> None:
        """Gives back what a killed process holds."""
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._connection.close()


def _ended(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code is None or code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class _Remote(Exception):  # noqa: N818  (shown as the cause of another)
    """The traceback of another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def serve(descriptor: int) -> None:
    """Answers calls in a worker process until the process that started it has ended."""
    lifeline = os.dup(0)
    # Programs that calculators start must not hold or read it.
    with open(os.devnull) as null:  # noqa: PTH123
        os.dup2(null.fileno(), 0)

    def watch() -> None:
        while os.read(lifeline, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    with Connection(descriptor) as connection, contextlib.suppress(EOFError):
        while True:
            begun = False
            try:
                function, argument, time_limit = connection.recv()
                connection.send(begun := True)
                if time_limit is not None:
                    # If that one is gone, and `watch` cannot run for a calculator that hangs.
                    faulthandler.dump_traceback_later(time_limit + 60.0, exit=True)
                answer = True, function(argument)
            except EOFError:
                raise
            except Exception as error:  # noqa: BLE001  (told to the caller)
                line = " ".join(f"{type(error).__name__}: {error}".split())
                answer = False, (line, traceback.format_exc())
            if not begun:
                connection.send(True)
            faulthandler.cancel_dump_traceback_later()
            connection.send(answer)
