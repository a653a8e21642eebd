"""Worker processes: whatever a task does to its process, the caller continues."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faulty
import numpy as np
import pytest

from tfgen.execution.processes import ProcessDiedError, Processes, TimeLimitError


@pytest.fixture
def processes():
    with contextlib.closing(Processes()) as made:
        yield made


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
    assert faulty.gone(int(note.read_text()))
    assert processes.call(faulty.double, 2) == 4


def test_a_task_that_kills_its_process_is_tried_again(processes, tmp_path):
    assert processes.call(faulty.leave_once, tmp_path / "been") == "survived"
    with pytest.raises(ProcessDiedError, match="ended with code 7"):
        processes.call(faulty.leave, 7, tries=1)
    with pytest.raises(ValueError, match="tries is 0; a whole number of at least 1"):
        processes.call(faulty.double, 7, tries=0)
    assert processes.call(faulty.double, 2) == 4


def test_a_process_that_died_while_idle_is_replaced(processes):
    pid = processes.call(faulty.process, None)
    os.kill(pid, signal.SIGKILL)
    assert faulty.gone(pid)
    assert processes.call(faulty.process, None) != pid


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
    assert faulty.gone(worker)
