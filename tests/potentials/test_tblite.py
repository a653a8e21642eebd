"""A real calculator that remembers and prints: GFN2-xTB by tblite."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from threadpoolctl import threadpool_limits

from tfgen.potentials.ase import AsePotential
from tfgen.structures.status import Status

pytest.importorskip("tblite")


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of OpenMP would wait for each other where processors are shared."""
    with threadpool_limits(1, user_api="openmp"):
        yield


PATH, ARGUMENTS = "tblite.ase:TBLite", {"method": "GFN2-xTB"}
SQUARE = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1]])


def clusters(count: int = 6) -> list[Atoms]:
    """Rattled pyramids of five silicon atoms."""
    rng = np.random.default_rng(0)
    return [
        Atoms("Si5", positions=1.7 * SQUARE + rng.normal(scale=0.25, size=[5, 3]))
        for _ in range(count)
    ]


def test_no_result_depends_on_the_structure_before(capfd):
    together = AsePotential.from_path(PATH, ARGUMENTS)
    found = together.compute(clusters())
    alone = [AsePotential.from_path(PATH, ARGUMENTS).compute(s) for s in clusters()]
    np.testing.assert_allclose(found["energy"], [a["energy"][0] for a in alone], atol=1e-6)
    for ours, theirs in zip(found["forces"], alone, strict=True):
        np.testing.assert_allclose(ours, theirs["forces"][0], atol=1e-4)
    assert together.calculations == 6
    # In the other order, too.
    again = together.compute(clusters()[::-1])
    np.testing.assert_allclose(again["energy"][::-1], found["energy"], atol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_forces_are_the_slope_of_the_energy():
    (atoms,) = clusters(1)
    potential, step = AsePotential.from_path(PATH, ARGUMENTS), 1e-3
    forces = potential.compute(atoms)["forces"][0]
    moved = [atoms.copy(), atoms.copy()]
    for sign, structure in zip((1, -1), moved, strict=True):
        structure.positions[0, 0] += sign * step
    up, down = potential.compute(moved)["energy"]
    assert forces[0, 0] == pytest.approx((down - up) / (2 * step), abs=1e-3)


def test_a_relaxation_and_its_log(tmp_path, capfd):
    potential = AsePotential.from_path(PATH, ARGUMENTS, log=tmp_path / "log")
    found = potential.relax(clusters(1)[0], fmax=0.05, max_steps=200)
    assert found.status == Status.CONVERGED
    assert potential.calculations == found.calculations == found.steps + 2
    again = potential.compute(found.structure)
    assert again["energy"][0] == pytest.approx(found.energy, abs=1e-5)
    assert np.linalg.norm(again["forces"][0], axis=1).max() <= 0.05 + 1e-3
    assert capfd.readouterr() == ("", "")
    assert "cycle" in (tmp_path / "log").read_text()


def test_an_argument_that_it_does_not_have():
    with pytest.raises(ValueError, match=r"'tblite.ase:TBLite' has no argument 'metod'; it has"):
        AsePotential.from_path(PATH, {"metod": "GFN2-xTB"})
