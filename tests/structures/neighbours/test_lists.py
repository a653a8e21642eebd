"""The search for neighbours against a loop over all atoms and images, and against ASE."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from ase import Atoms
from ase.build import bulk, fcc111
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgen.structures.neighbours.lists import cluster_lists, neighbour_lists, neighbour_pairs

seeds = st.integers(0, 2**32 - 1)
# From boxes wider than the reach to tiny cells, and to cells so flat and skewed that far images
# are near.
KINDS = st.sampled_from(["box", "skewed", "flat", "tiny"])


def crystal(kind: str, pbc: np.ndarray | list[bool], rng: np.random.Generator) -> Atoms:
    cell = np.diag(rng.uniform(3.0, 6.0, 3))
    if kind == "skewed":
        cell[1] += rng.integers(-4, 5) * cell[0] + rng.normal(size=3)
        cell[2] += rng.integers(-3, 4) * cell[0] + rng.integers(-3, 4) * cell[1]
    elif kind == "flat":
        cell[2, 2] = 0.7
        cell[0] += [0.0, 2.0, 3.0]
    elif kind == "tiny":
        cell *= 0.3
    cell = np.linalg.qr(rng.normal(size=[3, 3]))[0] @ cell[rng.permutation(3)]
    n = int(rng.integers(1, 4))
    positions = rng.normal(size=[n, 3]) * rng.choice([1.0, 4.0])
    return Atoms(rng.integers(1, 90, n), positions, cell=cell, pbc=pbc)


@given(KINDS, st.lists(st.booleans(), min_size=3, max_size=3), seeds)
@settings(max_examples=50)
def test_pairs_are_those_of_a_loop(kind, pbc, seed):
    rng = np.random.default_rng(seed)
    atoms, r_cut = crystal(kind, pbc, rng), rng.uniform(0.5, 2.5)
    found = neighbour_pairs(atoms, r_cut)
    vectors = atoms.positions[found.second] + found.shift @ atoms.cell.array
    vectors -= atoms.positions[found.first]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), found.distance, atol=1e-9)
    for i in range(len(atoms)):
        wanted = reference.neighbours(atoms, i, r_cut)
        here = found.first == i
        one = sorted(zip(atoms.numbers[found.second[here]], *vectors[here].T, strict=True))
        two = sorted((number, *vector) for number, vector in wanted)
        assert len(one) == len(two)
        order = [np.lexsort(np.round(np.reshape(x, [-1, 4]).T, 6)) for x in (one, two)]
        one, two = (np.reshape(x, [-1, 4])[o] for x, o in zip((one, two), order, strict=True))
        np.testing.assert_allclose(one, two, atol=1e-8)
    key = np.column_stack([found.first, found.second, found.shift])
    np.testing.assert_array_equal(key, key[np.lexsort(key.T[::-1])])  # in order, none twice


@given(KINDS, st.lists(st.booleans(), min_size=3, max_size=3), seeds)
def test_pairs_within_the_sum_of_their_reaches_are_those_of_ase(kind, pbc, seed):
    rng = np.random.default_rng(seed)
    atoms = crystal(kind, pbc, rng)
    reach = rng.uniform(0.2, 2.0, len(atoms))
    i, j, shift, distance = neighbor_list("ijSd", atoms, reach)
    order = np.lexsort([*shift.T[::-1], j, i])
    found = neighbour_pairs(atoms, reach)
    np.testing.assert_array_equal(found.first, i[order])
    np.testing.assert_array_equal(found.second, j[order])
    np.testing.assert_array_equal(found.shift, shift[order])
    np.testing.assert_allclose(found.distance, distance[order], atol=1e-9)


def test_a_pair_at_the_reach_is_a_pair_and_an_atom_is_not_its_own():
    pair = Atoms("Cu2", [[0, 0, 0], [3, 0, 0]])
    assert neighbour_pairs(pair, 3.0).first.tolist() == [0, 1]
    assert neighbour_pairs(pair, np.array([1.0, 2.0])).first.tolist() == [0, 1]
    assert len(neighbour_pairs(pair, 3.0 - 1e-12).first) == 0
    # Two atoms in one place are two atoms; a lone one sees its images.
    assert neighbour_pairs(Atoms("Cu2", np.zeros([2, 3])), 1.0).distance.tolist() == [0.0, 0.0]
    assert len(neighbour_pairs(Atoms("Cu"), 9.0).first) == 0
    assert len(neighbour_pairs(Atoms("Cu", cell=[2, 9, 9], pbc=True), 4.0).first) == 4


def test_cell_vectors_of_directions_that_are_not_periodic_do_not_count():
    slab = fcc111("Cu", (2, 2, 3), vacuum=5.0)
    slab.rattle(0.1, seed=0)
    other = slab.copy()
    other.cell[2] = 3.0 * slab.cell[0]  # not even independent of the others
    for one, two in zip(neighbour_pairs(slab, 4.0), neighbour_pairs(other, 4.0), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)


@pytest.mark.parametrize("size", [6, 12])
def test_memory_grows_with_the_number_of_atoms(size):
    tracemalloc = pytest.importorskip("tracemalloc")
    atoms = bulk("Cu", cubic=True) * (size, size, size)
    tracemalloc.start()
    pairs = neighbour_pairs(atoms, 3.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pairs.first) == 12 * len(atoms)
    assert peak < 10_000 * len(atoms)  # all pairs of 6,912 atoms would take 55,000 bytes an atom


def test_lists_hold_the_pairs():
    rng = np.random.default_rng(0)
    structures = [crystal("skewed", [True] * 3, rng), Atoms("Cu2", [[0, 0, 0], [0, 0, 2]])]
    index, shift = neighbour_lists(structures, 3.0, width=6)
    assert index.shape[2] % 8 == 0
    for structure, places, shifts in zip(structures, index, shift, strict=True):
        pairs = neighbour_pairs(structure, 3.0)
        first, column = np.nonzero(places >= 0)
        np.testing.assert_array_equal(first, pairs.first)
        np.testing.assert_array_equal(places[first, column], pairs.second)
        np.testing.assert_array_equal(shifts[first, column], pairs.shift)


def test_lists_of_clusters_are_the_same_lists():
    rng = np.random.default_rng(1)
    clusters = [Atoms(f"Cu{n}", rng.uniform(0, 9, size=[n, 3])) for n in (40, 33)]
    wanted, _ = neighbour_lists(clusters, 4.0, width=40)
    positions = np.zeros([2, 40, 3])
    for row, cluster in zip(positions, clusters, strict=True):
        row[: len(cluster)] = cluster.positions
    real = np.arange(40) < [[40], [33]]
    np.testing.assert_array_equal(cluster_lists(positions, real, 4.0, 1.0), wanted)
    assert cluster_lists(positions, real, 4.0, 0.1) is None
