"""Worker processes: whatever a task does to its process, the caller continues."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import faulty
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgen.execution.processes import (
    ProcessDiedError,
    Processes,
    TimeLimitError,
    Workers,
    completed,
    dask_executor,
)


@pytest.fixture
def processes():
    with contextlib.closing(Processes()) as made:
        yield made


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process ends, or has ended and only waits to be noticed, within some seconds."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_results_and_errors_come_back_and_the_process_stays(processes):
    assert processes.call(faulty.double, np.arange(3)).tolist() == [0, 2, 4]
    first = processes.call(faulty.process, None)
    assert first != os.getpid()
    with pytest.raises(RuntimeError, match="KeyError: 'x'") as caught:
        processes.call(faulty.fail, "x")
    assert "raise KeyError(x)" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="ImportError: cannot be read"):
        processes.call(faulty.double, faulty.Unreadable())
    assert processes.call(faulty.process, None) == first


def test_nothing_but_results_comes_from_a_process(processes, capfd):
    # Standard input is empty: no program that a calculator starts can wait for it.
    assert processes.call(faulty.chatter, None) == ""
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "calculators talk" in shown.err or shown.err == ""  # buffered until the process ends


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux' /proc")
def test_a_process_that_takes_too_long_is_killed_with_all_it_started(processes, tmp_path):
    began = time.monotonic()
    note = tmp_path / "pid"
    # The start of the process does not count.
    with pytest.raises(TimeLimitError, match="stopped after 0.5 s"):
        processes.call(faulty.start_program, note, 0.5)
    assert time.monotonic() - began < 30
    assert gone(int(note.read_text()))
    assert processes.call(faulty.double, 2) == 4


def test_a_task_that_kills_its_process_is_tried_again(processes, tmp_path, monkeypatch):
    assert processes.call(faulty.leave_once, tmp_path / "been") == "survived"
    monkeypatch.setattr("tfgen.execution.processes.TRIES", 1)
    with pytest.raises(ProcessDiedError, match="ended with code 7"):
        processes.call(faulty.leave, 7)
    assert processes.call(faulty.double, 2) == 4


def test_a_process_that_died_while_idle_is_replaced(processes):
    pid = processes.call(faulty.process, None)
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    assert processes.call(faulty.process, None) != pid


def test_closing_ends_what_is_under_way():
    with contextlib.closing(Workers(2)) as workers:
        idle = workers.processes[1].call(faulty.process, None)
        calls = workers.completed(
            lambda seconds, processes: processes.call(faulty.sleep, seconds), [3600, 3600], int
        )
        threading.Timer(1.0, workers.close).start()
        with pytest.raises(ProcessDiedError):
            next(calls)
    assert gone(idle)
    with pytest.raises(ProcessDiedError, match="closed"):
        workers.processes[0].call(faulty.double, 1)


PARENT = """
import sys, threading, time
sys.path[:] = eval(sys.argv[1])
import faulty
from tfgen.execution.processes import Processes
processes = Processes()
print(processes.call(faulty.process, None), flush=True)
processes.call(faulty.sleep, 3600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux' /proc")
def test_processes_end_with_the_one_who_started_them():
    command = [sys.executable, "-c", PARENT, repr(sys.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
    assert gone(worker)


def test_completed_yields_each_argument_with_its_result():
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        pairs = dict(completed(threads, faulty.double, range(10)))
        assert pairs == {i: 2 * i for i in range(10)}
        with pytest.raises(KeyError):
            list(completed(threads, faulty.fail, range(3)))


@given(st.lists(st.integers(0, 4), max_size=20), st.integers(1, 3), st.booleans())
def test_workers_do_everything_once_and_prefer_what_they_know(kinds, count, twice):
    """Kinds that were begun by a worker stay with it as long as there is enough for all."""
    begun = []

    def work(argument, processes):
        begun.append((argument, places[id(processes)]))
        return argument

    with contextlib.closing(Workers(count)) as workers:
        places = {id(p): k for k, p in enumerate(workers.processes)}
        arguments = list(enumerate(kinds))
        for _ in range(1 + twice):
            begun.clear()
            results = list(workers.completed(work, arguments, lambda a: a[1]))
            assert sorted(results) == [(a, a) for a in arguments]
            assert sorted(a for a, _ in begun) == arguments
            if count == 1:
                # One kind after the other, in the order of the first of each.
                assert [a[1] for a, _ in begun] == sorted(kinds, key=kinds.index)


def test_kinds_stay_with_the_worker_that_knows_them():
    began = threading.Barrier(2, timeout=30)

    def work(argument, processes):
        began.wait()  # both are at work at any moment
        return processes

    with contextlib.closing(Workers(2)) as workers:
        kinds = ["a", "a", "a", "b", "b", "b", "c", "d"]
        arguments = list(enumerate(kinds))
        for order in (arguments, arguments[::-1]):
            by_kind: dict[str, set[int]] = {}
            for argument, processes in workers.completed(work, order, lambda a: a[1]):
                by_kind.setdefault(argument[1], set()).add(id(processes))
            assert [len(found) for found in by_kind.values()] == [1] * 4


def test_a_scheduler_that_is_not_there():
    pytest.importorskip("distributed")
    began = time.monotonic()
    with (
        pytest.raises(ConnectionError, match="no Dask scheduler answers at 'tcp://127.0.0.1:9'"),
        dask_executor("tcp://127.0.0.1:9", timeout=1.0),
    ):
        pass
    assert time.monotonic() - began < 20
    with (
        pytest.raises(ConnectionError, match="no Dask scheduler answers at 'ham://eggs'"),
        dask_executor("ham://eggs", timeout=1.0),
    ):
        pass


def test_something_else_than_a_scheduler():
    pytest.importorskip("distributed")

    class Web(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9)

    with socketserver.TCPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        address = "tcp://{}:{}".format(*server.server_address)
        with (
            pytest.raises(ConnectionError, match=f"no Dask scheduler answers at '{address}': "),
            dask_executor(address, timeout=1.0),
        ):
            pass
        server.shutdown()


def test_dask_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ImportError, match=r"pip install 'tfgen\[dask\]'"),
        dask_executor("tcp://127.0.0.1:9"),
    ):
        pass
