"""Atoms kept apart, contacts counted as ASE counts them, adatoms on surfaces."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from scipy.spatial.distance import pdist, squareform

from tfgen.sampling.sites import (
    CONTACT,
    add_atom,
    contacts,
    places,
    rotations,
    separate,
    standardise,
)

PT = covalent_radii[78]


def test_what_is_apart_stays_as_it_is():
    numbers = np.array([78, 29, 79])
    positions = np.array([[[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]]] * 2) + 7.0
    given = positions.copy()
    result = separate(positions, numbers, 0.8)
    np.testing.assert_array_equal(positions, given)
    np.testing.assert_allclose(result, given - given.mean(axis=1, keepdims=True), atol=1e-12)


def test_a_pair_is_pushed_apart_along_its_axis():
    result = separate(np.array([[[0.0, 0, 0], [0, 0.5, 0], [9.0, 0, 0]]]), np.full(3, 78), 1.0)
    assert np.linalg.norm(result[0, 1] - result[0, 0]) == pytest.approx(2 * PT, rel=0.03)
    np.testing.assert_allclose(result[0, 0] + result[0, 1] - 2 * result[0, 2], [-18.0, 0.5, 0])
    # Even with all atoms in one place no distance is too short.
    heap = separate(np.random.default_rng(0).normal(size=[3, 30, 3]) * 1e-3, np.full(30, 78), 0.8)
    assert min(pdist(x).min() for x in heap) >= 1.6 * PT * (1 - 1e-12)


def test_contacts_are_those_of_ase():
    rng = np.random.default_rng(3)
    numbers = np.array([78, 29, 79, 6, 13, 78, 28])
    positions = rng.normal(size=[5, 7, 3]) * 2.0
    radii = np.broadcast_to(covalent_radii[numbers], [5, 7])
    present = rng.random([5, 7]) < 0.8
    found = contacts(positions, radii, present)
    for k in range(5):
        atoms = Atoms(numbers[present[k]], positions[k][present[k]])
        i = neighbor_list("i", atoms, CONTACT * covalent_radii[atoms.numbers])
        np.testing.assert_array_equal(found[k][present[k]], np.bincount(i, minlength=len(atoms)))
        assert (found[k][~present[k]] == 0).all()


def test_adatoms_touch_and_mostly_sit_in_hollows():
    side = 2 * PT
    triangle = side * np.array([[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0], [50, 50, 50]])
    positions = np.tile(triangle, [400, 1, 1])
    radii, present = np.full([400, 4], PT), np.ones([400, 4], bool)
    add_atom(positions, radii, present, np.full(400, 3), np.random.default_rng(0))
    assert present.all()
    np.testing.assert_array_equal(positions[:, :3], np.tile(triangle[:3], [400, 1, 1]))
    relative = np.linalg.norm(positions[:, 3:] - positions[:, :3], axis=2) / side
    assert relative.min() >= 0.88
    assert (relative.min(axis=1) <= 1 + 1e-9).all()
    touching = (relative <= CONTACT).sum(axis=1)
    assert (touching == 3).mean() > 0.5
    assert (touching == 1).any()


class TestPlaces:
    def octahedron(self) -> np.ndarray:
        return np.sqrt(2) * PT * np.concatenate([np.eye(3), -np.eye(3)])

    def test_touch_and_do_not_overlap(self):
        x = np.random.default_rng(1).normal(size=[9, 3]) * 4.0
        radii = covalent_radii[[78, 29, 79, 6, 13, 78, 28, 79, 29]]
        found = places(x, radii, PT, 10_000, np.random.default_rng(2))
        assert len(found) > 100
        relative = np.linalg.norm(found[:, None] - x, axis=2) / (radii + PT)
        assert np.isclose(relative, 1.0, atol=1e-9).any(axis=1).all()
        assert relative.min() > 0.8
        cubes = np.floor(found / 0.5)
        assert len(np.unique(cubes, axis=0)) == len(found)

    def test_hollows_come_first(self):
        """Eight of an octahedron's faces; bridges and tops if more places are wanted."""
        x, radii = self.octahedron(), np.full(6, PT)
        few, all_ = (places(x, radii, PT, n, np.random.default_rng(3)) for n in (40, 10_000))
        assert len(few) == 40 < len(all_)
        touched = [(np.linalg.norm(p[:, None] - x, axis=2) <= CONTACT * 2 * PT).sum(axis=1)
                   for p in (few, all_)]  # fmt: skip
        assert touched[0].min() >= 3
        assert touched[1].min() < 3
        assert len(np.unique(np.sign(few), axis=0)) == 8

    def test_beside_a_lone_atom(self):
        found = places(np.zeros([1, 3]), np.array([PT]), PT, 30, np.random.default_rng(4))
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 2 * PT)
        assert len(found) == 30


def test_rotations_are_proper_and_uniform():
    turn = rotations(4000, np.random.default_rng(0))
    np.testing.assert_allclose(
        turn @ turn.swapaxes(1, 2), np.eye(3)[None].repeat(4000, 0), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(turn), 1.0)
    np.testing.assert_allclose(turn.mean(axis=0), 0.0, atol=0.04)
    # Angles of uniform rotations: density (1 - cos a) / pi, whose mean is pi / 2 + 2 / pi.
    angle = np.arccos(np.clip((np.trace(turn, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angle.mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.03)
    assert squareform(pdist(turn[0])).max() == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1, 0.8), "numbers has shape"),
        (([[78]], 1, 0.8), "numbers has shape"),
        (([78, 0], 1, 0.8), r"numbers holds \[0\]"),
        (([78, 999], 1, 0.8), r"numbers holds \[999\]"),
        (([78], 0, 0.8), "count is 0"),
        (([78], 1, np.inf), "min_distance is inf"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        standardise(*arguments)
