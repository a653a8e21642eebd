"""Oracles: ASE's moments of inertia, loops over pairs, and shapes with known values."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tfgen.structures.properties import (
    GEOMETRIC,
    UNITS,
    applicable,
    asphericity,
    compute,
    mean_coordination,
    radius_of_gyration,
)


def clusters(seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    return [
        Atoms(f, rng.normal(size=(len(Atoms(f)), 3)) * 2.5)
        for f in ("Pt13", "Cu2Au3", "Pt2", "Cu3Au2", "Pt13")
    ]


@given(st.integers(0, 2**32 - 1))
def test_values_equal_independent_ones_in_the_order_given(seed):
    structures = clusters(seed)
    for atoms, r_g, shape, bonds in zip(
        structures,
        radius_of_gyration(structures),
        asphericity(structures),
        mean_coordination(structures),
        strict=True,
    ):
        equal_masses = atoms.copy()
        equal_masses.set_masses(np.ones(len(atoms)))
        inertia = equal_masses.get_moments_of_inertia() / len(atoms)
        gyration = np.sort(inertia.sum() / 2 - inertia)
        assert r_g == pytest.approx(np.sqrt(gyration.sum()))
        aspherical = gyration[2] - gyration[:2].mean()
        assert shape == pytest.approx(aspherical / gyration.sum(), abs=1e-9)
        count = 0
        for i, a in enumerate(atoms):
            for j, b in enumerate(atoms):
                reach = 1.2 * (covalent_radii[a.number] + covalent_radii[b.number])
                count += i != j and np.linalg.norm(a.position - b.position) <= reach
        assert bonds == pytest.approx(count / len(atoms))


@given(st.integers(0, 2**32 - 1))
def test_values_do_not_depend_on_place_orientation_hand_and_order(seed):
    rng = np.random.default_rng(seed)
    structures = clusters(seed)
    moved = [s[rng.permutation(len(s))] for s in structures]
    for s in moved:
        s.positions = -s.positions @ Rotation.from_quat(rng.normal(size=4)).as_matrix() + 7.0
    for _, function in GEOMETRIC.values():
        np.testing.assert_allclose(function(moved), function(structures), atol=1e-9)


def test_known_shapes():
    icosahedron = Icosahedron("Pt", 2)
    line = Atoms("Pt4", [[0, 0, 2.6 * i] for i in range(4)])
    square = Atoms("Pt4", [[0, 0, 0], [2.6, 0, 0], [2.6, 2.6, 0], [0, 2.6, 0]])
    shapes = [icosahedron, line, square, Atoms("Pt")]
    np.testing.assert_allclose(asphericity(shapes), [0, 1, 0.25, 0], atol=1e-12)
    # 12 neighbours of the centre, 6 of each of the other twelve; ends of the line have one.
    np.testing.assert_allclose(mean_coordination(shapes), [84 / 13, 1.5, 2, 0])
    assert radius_of_gyration([square])[0] == pytest.approx(2.6 / np.sqrt(2))


def test_coordination_of_a_crystal_counts_images():
    structures = [bulk("Pt"), Atoms("Pt2", [[0, 0, 0], [0, 0, 2.6]]), bulk("Al", cubic=True)]
    np.testing.assert_allclose(mean_coordination(structures), [12, 1, 12])
    assert applicable(structures) == ["mean_coordination"]
    assert applicable(structures[1:2]) == list(GEOMETRIC)


def test_compute_gives_what_is_asked_for():
    structures = clusters(0)
    energies = np.arange(5.0)
    found = compute(structures, ["energy_per_atom", "asphericity"], energies)
    assert list(found) == ["energy_per_atom", "asphericity"]
    np.testing.assert_allclose(found["energy_per_atom"], energies / [13, 5, 2, 5, 13])
    assert set(found) <= set(UNITS)
    assert compute([], list(GEOMETRIC)).keys() == GEOMETRIC.keys()


def test_bad_input():
    pair = Atoms("Pt2", [[0, 0, 0], [0, 0, 2]])
    with pytest.raises(ValueError, match="'colour' cannot be computed; known are energy_per_atom"):
        compute([pair], ["colour"])
    with pytest.raises(ValueError, match="needs energies"):
        compute([pair], ["energy_per_atom"])
    with pytest.raises(ValueError, match=r"energies has shape \(2,\)"):
        compute([pair], ["energy_per_atom"], np.zeros(2))
    for name in ("radius_of_gyration", "asphericity"):
        with pytest.raises(ValueError, match=rf"structures\[1\] is periodic; {name}"):
            compute([pair, bulk("Pt")], [name])
    for name in GEOMETRIC:
        with pytest.raises(ValueError, match=r"structures\[0\] has no atoms"):
            compute([Atoms()], [name])
    for factor in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="factor is"):
            mean_coordination([pair], factor)
