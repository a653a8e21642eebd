"""Results are kept to the last bit, and what an interruption has cut is left out."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from tfgen.execution.results import ResultStore, fingerprint_of


def test_results_come_back(tmp_path):
    path, value = tmp_path / "results", {"a": [0.1 + 0.2, float("nan"), float("inf")]}
    first = ResultStore(path)
    assert (len(first), first.get("k"), path.exists()) == (0, None, False)
    first.add("k", value)
    first.add("l", 1)
    again = ResultStore(path)
    assert len(again) == 2
    np.testing.assert_array_equal(again.get("k")["a"], value["a"])
    again.remove()
    again.remove()
    assert not path.exists()


def test_a_line_that_was_cut(tmp_path):
    path = tmp_path / "results"
    store = ResultStore(path)
    store.add("k", [1.0])
    store.add("l", [2.0])
    path.write_bytes(path.read_bytes()[:-4])
    again = ResultStore(path)
    assert (again.get("k"), again.get("l")) == ([1.0], None)
    again.add("m", [3.0])
    last = ResultStore(path)
    assert [last.get(name) for name in "klm"] == [[1.0], None, [3.0]]


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "results"
    path.write_text("positions\n1 2 3\n")
    with pytest.raises(ValueError, match="is not a file of results that tfgen has kept"):
        ResultStore(path)


def test_every_bit_of_a_structure_counts():
    atoms = Atoms("Pt2", [[0, 0, 0], [2.5, 0, 0]])
    moved, other, boxed, fixed = (atoms.copy() for _ in range(4))
    moved.positions[0, 0] = np.nextafter(0.0, 1.0)
    other.numbers[0] = 79
    boxed.cell = [9, 9, 9]
    fixed.set_constraint(FixAtoms([0]))
    keys = [fingerprint_of(s, {"a": 1}) for s in (atoms, moved, other, boxed, fixed)]
    keys.append(fingerprint_of(atoms, {"a": 2}))
    assert len(set(keys)) == 6
    assert fingerprint_of(atoms.copy(), {"a": 1}) == keys[0]
