"""Groups of near copies: rattled ones together, minima apart, whatever order and orientation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from tfgen.potentials.emt import EMT
from tfgen.relaxation.relax import relax
from tfgen.sampling.initial import random_structures
from tfgen.structures.similarity.equality import duplicates
from tfgen.structures.similarity.near_copies import LISTED, near_copies


@functools.cache
def minima() -> list[Atoms]:
    numbers = np.full(13, 78)
    starts = random_structures(numbers, 60, np.random.default_rng(0))
    found = relax([Atoms(numbers, positions=x) for x in starts], EMT(), fmax=0.05).structures
    first = duplicates(found, 0.1)
    return [s for i, s in enumerate(found) if first[i] == i]


def rattled(structures, copies: int, deviation: float, *, turned=False, shuffled=False):
    """Copies one after the other, and the place of the structure that each is a copy of."""
    rng = np.random.default_rng(1)
    result = []
    for atoms in structures:
        for _ in range(copies):
            copy = atoms.copy()
            copy.positions += deviation * rng.normal(size=copy.positions.shape)
            if turned:
                copy.rotate(rng.uniform(0, 360), rng.normal(size=3))
                copy.positions *= [1, 1, -1]
            result.append(copy[rng.permutation(len(copy))] if shuffled else copy)
    return result, np.repeat(np.arange(len(structures)), copies)


def test_minima_are_groups_of_their_own():
    assert len(minima()) > 30
    assert len(np.unique(near_copies(minima()))) >= 0.9 * len(minima())


@pytest.mark.parametrize(
    ("deviation", "options"),
    [
        (0.03, {}),
        (0.1, {}),
        (0.2, {}),
        (0.2, {"turned": True}),
        (0.05, {"turned": True, "shuffled": True}),
    ],
)
def test_rattled_copies_are_one_group(deviation, options):
    structures, origin = rattled(minima(), 5, deviation, **options)
    group = near_copies(structures)
    for place in range(len(minima())):
        assert len(set(group[origin == place])) == 1
    # And not all of them are.
    assert len(set(group)) > 0.75 * len(minima())
    np.testing.assert_array_equal(group[group], group)
    assert (group <= np.arange(len(group))).all()


def test_groups_are_those_of_single_linkage_where_copies_are_near_enough():
    structures, _ = rattled(minima(), 3, 0.05)
    distances = np.array([pdist(s.positions) for s in structures])
    bond = 2 * covalent_radii[78]
    linked = fcluster(linkage(distances, "single", "chebyshev"), LISTED * bond, "distance")
    group = near_copies(structures, sorted_=0.0)
    same = group[:, None] == group[None, :]
    np.testing.assert_array_equal(same, linked[:, None] == linked[None, :])


def test_a_run_is_one_group_however_far_it_goes():
    first, last = minima()[0], minima()[1]
    path = [first.copy() for _ in range(60)]
    for share, atoms in zip(np.linspace(0, 1, 60), path, strict=True):
        atoms.positions += share * (last.positions - first.positions)
    assert set(near_copies(path)) == {0}
    assert len(set(near_copies([path[0], path[-1]]))) == 2


def test_compositions_and_kinds_of_periodicity_stay_apart():
    wire = molecule("H2O", vacuum=3.0, pbc=[True, False, False])
    water = molecule("H2O")
    heavy = molecule("SH2")
    structures = [water, heavy, wire, water.copy(), wire.copy(), heavy.copy()]
    assert near_copies(structures).tolist() == [0, 1, 2, 0, 2, 1]
    assert near_copies([]).tolist() == []


def test_crystals_whatever_their_images():
    rng = np.random.default_rng(2)
    crystals = [
        bulk("Cu", cubic=True) * (2, 2, 1),
        bulk("Cu", "bcc", a=2.87, cubic=True) * (2, 2, 2),
        bulk("Cu", "hcp", a=2.56) * (2, 2, 2),
    ]
    assert all(len(s) == 16 for s in crystals)
    structures, origin = rattled(crystals, 6, 0.1)
    for atoms in structures:
        atoms.positions += rng.normal(size=3)
        atoms.wrap()
    group = near_copies(structures)
    for place in range(3):
        assert len(set(group[origin == place])) == 1
    # Two stay apart; fcc and bcc may be linked by the strain between them.
    assert len(set(group)) >= 2


def test_large_structures():
    small = bulk("Cu", cubic=True) * (5, 5, 6)
    cluster = Atoms(small.numbers, positions=small.positions)
    other = cluster.copy()
    other.positions[:300, 2] += 40.0
    structures, _ = rattled([cluster, other], 2, 0.1)
    assert len(cluster) == 600
    assert near_copies(structures).tolist() == [0, 0, 2, 2]


def test_memory_is_bounded_and_decides_nothing():
    structures, _ = rattled(minima(), 3, 0.1)
    np.testing.assert_array_equal(near_copies(structures, held=500), near_copies(structures))
