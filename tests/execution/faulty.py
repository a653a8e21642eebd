"""ASE calculators that fail in every way, for worker processes to import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT


class Faulty(EMT):
    """EMT, but a share of the structures, by their first coordinate, fails in each of the ways."""

    def __init__(self, ways=(), among=10, **kwargs):
        super().__init__(**kwargs)
        self.ways, self.among, self.way, self.last = list(ways), among, None, None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        same = self.last is not None and self.last.shape == atoms.positions.shape
        moved = not same or np.abs(atoms.positions - self.last).max() > 0.5
        self.last = atoms.positions.copy()
        if moved:  # the first structure decides for the whole relaxation
            place = int(abs(atoms.positions[0, 0]) * 1e6) % self.among
            self.way = self.ways[place] if place < len(self.ways) else ""
        if self.way == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.way == "exit":
            os._exit(3)
        elif self.way == "hang":
            time.sleep(3600)
        elif self.way == "raise":
            raise RuntimeError("no self-consistency\nafter 100 steps")
        elif self.way == "nan":
            self.results["energy"] = np.nan
            self.results["forces"] = np.full([len(atoms), 3], np.nan)


class Late(EMT):
    """Fails from the second relaxation on, as after rattling."""

    relaxations = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.relaxations and np.linalg.norm(self.results["forces"], axis=1).max() > 1.0:
            raise RuntimeError("rattled")
        if np.linalg.norm(self.results["forces"], axis=1).max() < 0.01:
            self.relaxations += 1


class Boxed(EMT):
    """Wants a box around the structure, not periodic."""

    def __init__(self, vacuum):
        super().__init__()
        self.vacuum, self.box = vacuum, None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if self.box is None or (self.box != atoms.cell.array).any():  # a new relaxation
            self.box = atoms.cell.array.copy()
            room = self.box.diagonal() - atoms.positions.max(axis=0)
            if abs(atoms.positions.min(axis=0) - self.vacuum).max() > 1e-9:
                raise ValueError("no box")
            if abs(room - self.vacuum).max() > 1e-9 or atoms.pbc.any():
                raise ValueError("a strange box")
        super().calculate(atoms, properties, system_changes)


class Talking(EMT):
    """Prints what it does."""

    def calculate(self, *arguments, **options):
        print("calculators talk")
        super().calculate(*arguments, **options)


class Unmakeable(Calculator):
    """Cannot be made."""

    def __init__(self):
        raise RuntimeError("no licence")


def crash():
    """A factory whose library crashes."""
    os.kill(os.getpid(), signal.SIGSEGV)


def double(x):
    return 2 * x


def process(_):
    return os.getpid()


def fail(x):
    raise KeyError(x)


def leave(code):
    os._exit(code)


def sleep(seconds):
    time.sleep(seconds)
    return "slept"


def leave_once(path):
    """Kills its process the first time, as somebody else might."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def start_program(path):
    """Starts a program that outlives a killed parent unless it is killed too."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    path.write_text(str(program.pid))
    time.sleep(3600)


def chatter(_):
    print("calculators talk")
    return sys.stdin.read()


class Unreadable:
    """Cannot be unpickled."""

    def __reduce__(self):
        return unreadable, ()


def unreadable():
    raise ImportError("cannot be read")


def gone(pid: int, within: float = 10.0) -> bool:
    """Says whether a process ends within some seconds, or has ended and waits to be noticed."""
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
