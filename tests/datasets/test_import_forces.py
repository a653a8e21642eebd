"""Forces come into a data set with the energies that they belong to, or not at all."""

from __future__ import annotations

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from imports import structures, write

from tfgen.datasets.importing import import_files
from tfgen.warnings import TfgenWarning


def computed(n: int = 4) -> list[Atoms]:
    images = structures(n)
    for atoms in images:
        atoms.calc = EMT()
        atoms.get_forces()
    return images


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.db"])
def test_those_of_a_calculator(tmp_path, name):
    images = computed()
    images[1].set_constraint(FixAtoms([0]))
    dataset = import_files([write(tmp_path, images, name)])
    by_energy = {round(float(e), 6): i for i, e in enumerate(dataset.properties["energy_per_atom"])}
    for atoms in images:
        place = by_energy[round(atoms.get_potential_energy() / len(atoms), 6)]
        expected = atoms.get_forces(apply_constraint=False)
        # Without those of constraints, as the calculator gave them.
        if name != "a.extxyz" or not atoms.constraints:
            np.testing.assert_allclose(dataset.forces[place], expected, atol=1e-7)
    assert dataset.summary()["forces"] == 4


def test_some_have_none_and_duplicates_keep_their_own(tmp_path):
    images = computed()
    images[2].calc.results.pop("forces")
    ase.io.write(tmp_path / "a.traj", [images[3], *images])
    dataset = import_files([tmp_path / "a.traj"])
    assert len(dataset) == 4
    assert dataset.summary()["forces"] == 3
    for atoms in dataset:
        if "forces" in atoms.calc.results:
            forces = atoms.get_forces()
            atoms.calc = EMT()
            np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-12)


def test_not_without_energies(tmp_path):
    images = computed()
    for atoms in images:
        atoms.calc.results.pop("energy")
        atoms.calc.results.pop("free_energy", None)
    ase.io.write(tmp_path / "a.traj", images)
    assert import_files([tmp_path / "a.traj"]).forces is None


@pytest.mark.parametrize(
    ("stated", "factor"),
    [
        ({"energy": "eV"}, 1.0),
        ({"energy": "Ha", "forces": "Ha/Bohr"}, units.Hartree / units.Bohr),
        ({"energy": "kcal/mol", "forces": "kcal/mol/Ang"}, units.kcal / units.mol),
        ({"energy": "Ha"}, None),
        ({"energy": "eV", "forces": "N"}, None),
        ({"energy": "eV", "lengths": "Bohr"}, None),
        ({"energy": "eV", "forces": "eV/Bohr", "lengths": "Bohr"}, 1 / units.Bohr),
    ],
)
@pytest.mark.filterwarnings("ignore:.*was converted from")
def test_units(tmp_path, stated, factor):
    forces = np.array([[0.0, 0.0, 1.5], [0.0, 0.0, -1.5]])
    path = tmp_path / "a.db"
    with ase.db.connect(path) as database:
        for x in (2.5, 2.8):
            atoms = Atoms("Pt2", [[0, 0, 0], [0, 0, x]])
            database.write(atoms, data={"energy": np.array([x]), "forces": forces})
        lengths = stated.get("lengths", "Ang")
        database.metadata = {"_property_unit_dict": stated, "_distance_unit": lengths}
    dataset = import_files([path])
    if factor is None:
        assert dataset.forces is None
    else:
        np.testing.assert_allclose(dataset.forces, 2 * [forces * factor])


def test_not_those_of_another_energy(tmp_path):
    images = computed()
    for i, atoms in enumerate(images):
        atoms.info["dft"] = float(i)
    dataset = import_files([write(tmp_path, images)], energy="dft")
    assert dataset.forces is None


def test_the_unit_of_the_user_is_of_the_energy(tmp_path):
    path = write(tmp_path, computed())
    with pytest.warns(TfgenWarning, match="converted from Ha to eV"):
        dataset = import_files([path], units={"energy": "Ha"})
    assert dataset.forces is None
    images = computed()
    for atoms in images:
        atoms.info["energy_per_atom"] = atoms.get_potential_energy() / len(atoms)
    path = write(tmp_path, images, "b.extxyz")
    assert import_files([path], units={"energy_per_atom": "Ha/atom"}).forces is None
    assert import_files([path]).forces is not None
