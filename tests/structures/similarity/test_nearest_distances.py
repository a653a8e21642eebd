"""Large structures: copies are equal, others are not, and memory grows with their atoms alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from tfgen.structures.similarity.equality import duplicates
from tfgen.structures.similarity.nearest_distances import nearest_distances


def crystal(repeat: int = 6, seed: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (repeat, repeat, repeat)
    atoms.symbols[::3] = "Au"
    atoms.rattle(0.1, seed=seed)
    return atoms


def cluster(seed: int = 0) -> Atoms:
    atoms = crystal(6, seed)
    atoms.pbc = False
    atoms.cell[:] = 0
    atoms.symbols[5::3] = "Pt"
    return atoms


def disguised(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    copy = atoms[rng.permutation(len(atoms))]
    turn = Rotation.random(rng=rng).as_matrix() * rng.choice([-1, 1])
    copy.positions = copy.positions @ turn + rng.normal(size=3) * 5
    copy.cell = copy.cell.array @ turn
    if copy.pbc.any():
        copy.positions += rng.integers(-2, 3, size=(len(copy), 3)) @ copy.cell.array
    return copy


@pytest.mark.parametrize("make", [crystal, cluster])
def test_copies_have_the_same(make):
    rng = np.random.default_rng(1)
    atoms = make()
    expected = nearest_distances(atoms)
    for _ in range(3):
        copy = disguised(atoms, rng)
        np.testing.assert_allclose(nearest_distances(copy), expected, atol=1e-8)


def test_they_equal_those_of_ase():
    atoms = crystal(3)
    i, j, d = neighbor_list("ijd", atoms, 8.0)
    found = nearest_distances(atoms)
    np.testing.assert_allclose(found[:3], atoms.cell.lengths())
    place = 6
    for one in (29, 79):
        for other in (29, 79):
            rows = [np.sort(d[(i == a) & (atoms.numbers[j] == other)])[:12]
                    for a in np.flatnonzero(atoms.numbers == one)]  # fmt: skip
            expected = np.sort(rows, axis=0).T.ravel()
            np.testing.assert_allclose(found[place : place + len(expected)], expected)
            place += len(expected)
    assert place == len(found)


def test_few_neighbours_within_reach():
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 9]], cell=[50, 50, 50], pbc=[True, True, False])
    assert (nearest_distances(atoms)[6:] == 8.0).all()


def test_noise_moves_them_by_no_more_than_it_moves_distances():
    atoms = crystal()
    other = atoms.copy()
    other.rattle(0.004, seed=3)
    moved = np.abs(other.positions - atoms.positions)
    assert (
        np.abs(nearest_distances(atoms) - nearest_distances(other)).max()
        <= 2 * np.linalg.norm(moved, axis=1).max()
    )


@pytest.mark.parametrize("make", [crystal, cluster])
def test_duplicates_of_large_structures(make):
    rng = np.random.default_rng(2)
    first, second = make(seed=0), make(seed=1)
    assert len(first) > 500
    swapped = first.copy()
    one, two = np.flatnonzero(first.numbers == 29)[7], np.flatnonzero(first.numbers == 79)[90]
    swapped.numbers[[one, two]] = swapped.numbers[[two, one]]
    images = [first, second, disguised(first, rng), disguised(second, rng), swapped]
    if make is crystal:
        stretched = first.copy()
        stretched.set_cell(first.cell.array * [[1.004], [1], [1]], scale_atoms=True)
        images.append(stretched)
    expected = [0, 1, 0, 1, *range(4, len(images))]
    assert duplicates(images).tolist() == expected


def test_memory_grows_with_the_atoms():
    peaks = []
    for repeat in (6, 10):
        images = [crystal(repeat, seed) for seed in range(2)]
        tracemalloc.start()
        assert duplicates(images).tolist() == [0, 1]
        peaks.append(tracemalloc.get_traced_memory()[1] / len(images[0]))
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 60_000  # bytes for each atom; all distances of 4,000 atoms are 64 MB
