"""Results of calculations on disk, as they come, so that an interrupted command repeats none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from ase import Atoms

__all__ = ["ResultStore", "array_digest", "fingerprint_of"]

T = TypeVar("T")


def array_digest(array: np.ndarray) -> str:
    """Returns a text that is the same only for the same array, to the last bit."""
    plain = np.ascontiguousarray(array)
    shape = f"{plain.dtype.str}{plain.shape}".encode()
    return hashlib.sha256(shape + plain.tobytes()).hexdigest()


def fingerprint_of(structure: Atoms, task: Mapping[str, Any]) -> str:
    """Returns a text that is the same only for the same task on the same structure.

    Args:
        structure: elements, positions, cell, periodicity, initial charges and magnetic moments, and
            constraints count, to the last bit.
        task: JSON-able; all else that the result depends on.
    """
    text = json.dumps(
        [task, [str(c.todict()) for c in structure.constraints]], sort_keys=True, default=repr
    )
    digest = hashlib.sha256(text.encode())
    for array, kind in (
        (structure.numbers, "<i4"),
        (structure.positions, "<f8"),
        (structure.cell.array, "<f8"),
        (structure.pbc, "?"),
        (structure.get_initial_charges(), "<f8"),
        (structure.get_initial_magnetic_moments(), "<f8"),
    ):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    return digest.hexdigest()


class ResultStore:
    """A file of results, one JSON object a line, to which each result is added when it comes.

    A line that an interruption has cut is ignored. Numbers are kept to the last bit.

    Args:
        path: the file; it is made with the first result. None keeps results in memory only.

    Raises:
        ValueError: if the file is not one of results.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._results: dict[str, Any] = {}
        self._rest = ""
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: str) -> Any:
        """Returns a result as JSON holds it; None if it is not there."""
        return self._results.get(key)

    def add(self, key: str, result: Any) -> None:
        """Adds a JSON-able result, and writes it at once."""
        line = json.dumps([key, result])
        with self._lock:
            self._results[key] = json.loads(line)[1]
            if self.path is not None:
                with self.path.open("a", encoding="ascii") as file:
                    # The end of a line that an interruption has cut.
                    file.write(f"{self._rest}{line}\n")
                self._rest = ""

    def keep(self, key: str, compute: Callable[[], T]) -> T:
        """Returns the result of a key; `compute` is called for it if it is not there."""
        found = self.get(key)
        if found is None:
            self.add(key, compute())
            found = self.get(key)
        return cast(T, found)

    def remove(self) -> None:
        """Removes the file: what it was kept for is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        lines = path.read_bytes().split(b"\n")
        self._rest = "\n" if lines[-1] else ""
        for line in lines[:-1]:
            with contextlib.suppress(ValueError, TypeError):
                key, result = json.loads(line)
                self._results[str(key)] = result
        if not self._results and len(lines) > 1:
            raise ValueError(f"{str(path)!r} is not a file of results that tfgen has kept")
