"""Oracles: loops over pairs, ASE's distances, and copies that are equal by construction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.cluster import Decahedron, Icosahedron, Octahedron
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from tfgen.structures.similarity.equality import (
    align,
    displacements,
    duplicates,
    match,
    nearest,
    rmsd,
    sorted_distances,
)

seeds = st.integers(0, 2**32 - 1)
formulas = st.sampled_from(["Pt2", "Pt5", "Pt13", "Cu3Au4", "Pt2Cu2Au2", "PtCu", "Au"])


def random_cluster(formula: str, rng: np.random.Generator) -> Atoms:
    atoms = Atoms(formula)
    atoms.positions = rng.normal(size=(len(atoms), 3)) * 3.0
    return atoms[rng.permutation(len(atoms))]


def disguised(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """A copy that is moved, turned, perhaps mirrored, and lists its atoms in another order."""
    copy = atoms[rng.permutation(len(atoms))]
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix() * rng.choice([-1, 1])
    copy.positions = copy.positions @ turn + rng.normal(size=3) * 10
    return copy


def loop_of_distances(atoms: Atoms) -> np.ndarray:
    blocks: dict[tuple[int, int], list[float]] = {}
    for i, j in itertools.combinations(range(len(atoms)), 2):
        kind = tuple(sorted((atoms.numbers[i], atoms.numbers[j])))
        blocks.setdefault(kind, []).append(atoms.get_distance(i, j))
    return np.array([d for kind in sorted(blocks) for d in sorted(blocks[kind])])


@given(formulas, seeds)
def test_sorted_distances_equal_a_loop_over_pairs(formula, seed):
    rng = np.random.default_rng(seed)
    atoms = random_cluster(formula, rng)
    positions = np.array([atoms.positions, atoms.positions * 2.0])
    found = sorted_distances(atoms.numbers, positions)
    np.testing.assert_allclose(found[0], loop_of_distances(atoms), atol=1e-12)
    np.testing.assert_allclose(found[1], 2.0 * found[0], atol=1e-12)


def test_sorted_distances_leave_their_input_alone():
    positions = np.random.default_rng(0).normal(size=(2, 5, 3))
    before = positions.copy()
    sorted_distances(np.full(5, 78), positions)
    np.testing.assert_array_equal(positions, before)


@pytest.mark.parametrize(
    ("numbers", "shape"), [([78] * 4, (2, 5, 3)), ([78] * 4, (4, 3)), ([[78]], (1, 1, 3))]
)
def test_sorted_distances_refuse_shapes_that_do_not_fit(numbers, shape):
    with pytest.raises(ValueError, match="positions has shape"):
        sorted_distances(np.array(numbers), np.zeros(shape))


@given(formulas, seeds)
def test_disguised_copies_are_duplicates(formula, seed):
    rng = np.random.default_rng(seed)
    originals = [random_cluster(formula, rng) for _ in range(3)]
    copies = [disguised(a, rng) for a in originals]
    found = duplicates(originals + copies, tolerance=1e-6)
    if len(originals[0]) == 1:  # all single atoms are equal
        assert (found == 0).all()
        return
    np.testing.assert_array_equal(found, [0, 1, 2, 0, 1, 2])


@given(formulas.filter(lambda f: f != "Au"), seeds, st.floats(0.01, 0.5))
def test_one_distance_beyond_the_tolerance_makes_a_difference(formula, seed, tolerance):
    rng = np.random.default_rng(seed)
    atoms = random_cluster(formula, rng)
    other = disguised(atoms, rng)
    # Growing moves the longest distance most, by a known amount, and keeps the order.
    longest = atoms.get_all_distances().max()
    for factor, equal in ((0.99, True), (1.01, False)):
        grown = other.copy()
        grown.positions *= 1.0 + factor * tolerance / longest
        assert (duplicates([atoms, grown], tolerance)[1] == 0) == equal
        assert (match([grown], [atoms], tolerance)[0] == 0) == equal
        assert nearest([grown], [atoms])[1][0] == pytest.approx(factor * tolerance, rel=1e-6)


def test_swapped_elements_are_not_equal():
    square = [[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]]
    neighbours, opposite = Atoms("CuCuAuAu", square), Atoms("CuAuCuAu", square)
    np.testing.assert_array_equal(duplicates([neighbours, opposite]), [0, 1])


def test_duplicates_equal_a_loop_that_keeps_the_first():
    rng = np.random.default_rng(5)
    kinds = [random_cluster(f, rng) for f in ("Pt4", "Pt4", "Pt5", "Cu2Pt2", "Cu2Pt2")]
    structures = []
    for _ in range(400):
        atoms = disguised(kinds[rng.integers(len(kinds))], rng)
        # Chains: each step is within the tolerance, the ends are not.
        atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape)
        structures.append(atoms)
    vectors = [loop_of_distances(a) for a in structures]
    formulas_ = [a.get_chemical_formula() for a in structures]
    expected, kept = np.arange(400), []
    for i in range(400):
        for j in kept:
            same = formulas_[i] == formulas_[j]
            if same and np.abs(vectors[i] - vectors[j]).max() <= 0.05:
                expected[i] = j
                break
        else:
            kept.append(i)
    assert len(kept) > 20  # the case is not trivial
    np.testing.assert_array_equal(duplicates(structures, 0.05), expected)


def test_equal_structures_that_differ_in_further_numbers_are_kept():
    rng = np.random.default_rng(0)
    pair = [random_cluster("Cu3Au4", rng) for _ in range(2)]
    structures = [disguised(pair[i % 2], rng) for i in range(8)]
    also = np.array(
        [[0, 0], [0, 0], [0.01, 0], [0, 0.2], [0.2, 0], [0.2, 0.21], [0.2, 0.3], [0, 0]]
    )
    expected = []
    for i in range(8):
        equal = [
            j
            for j in range(i)
            if expected[j] == j and i % 2 == j % 2 and np.abs(also[i] - also[j]).max() <= 0.05
        ]
        expected.append(equal[0] if equal else i)
    assert duplicates(structures, also=also).tolist() == expected == [0, 1, 0, 3, 4, 5, 6, 1]
    assert duplicates(structures, also=np.zeros([8, 0])).tolist() == [0, 1] * 4


def test_what_is_kept_does_not_depend_on_memory():
    rng = np.random.default_rng(6)
    kinds = [random_cluster(f, rng) for f in ("Pt9", "Cu3Pt6", "Pt2")] * 40
    structures = [disguised(kinds[i], rng) for i in rng.permutation(120)]
    for atoms in structures:
        atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
    crystals = [bulk("Cu", cubic=True) for _ in range(20)]
    for seed, atoms in enumerate(crystals):
        atoms.rattle(0.02, seed=seed)
    whole = duplicates(structures + crystals)
    assert 20 < (whole == np.arange(140)).sum() < 120
    np.testing.assert_array_equal(duplicates(structures + crystals, held=100), whole)


def test_blocks_do_not_change_what_is_kept():
    from tfgen.structures.similarity.leaders import Table, find_leaders

    vectors = np.random.default_rng(1).random((500, 3))
    whole = find_leaders(Table(vectors.__getitem__, 500), 0.1, block=1000)
    np.testing.assert_array_equal(
        find_leaders(Table(vectors.__getitem__, 500), 0.1, block=7), whole
    )
    assert 10 < (whole == np.arange(500)).sum() < 490


def test_rows_that_few_columns_cannot_tell_apart_are_compared_in_all():
    from tfgen.structures.similarity.leaders import Table, find_leaders

    vectors = np.random.default_rng(3).random((600, 40))
    vectors[:, 30:] = 0.0
    # Twice a copy of row 0, the second with one distance that is of no use among all others.
    vectors[[211, 413]] = vectors[0]
    vectors[413, 35] = 0.2
    expected = np.arange(600)
    expected[211] = 0
    np.testing.assert_array_equal(find_leaders(Table(vectors.__getitem__, 600), 0.1), expected)
    expected[413] = 0
    np.testing.assert_array_equal(find_leaders(Table(vectors.__getitem__, 600), 0.21), expected)


def test_nearest_equals_a_loop():
    rng = np.random.default_rng(2)
    structures = [random_cluster(f, rng) for f in ("Pt4", "Pt3", "CuPt3", "Pt4")]
    references = [random_cluster(f, rng) for f in ("Pt4", "CuPt3", "Pt4", "Pt9")]
    index, distance = nearest(structures, references)
    for s, i, d in zip(structures, index, distance, strict=True):
        best, where = np.inf, -1
        for place, r in enumerate(references):
            if r.get_chemical_formula() == s.get_chemical_formula():
                far = np.abs(loop_of_distances(s) - loop_of_distances(r)).max()
                best, where = min((best, where), (far, place))
        assert (i, d) == (where, pytest.approx(best))
    np.testing.assert_array_equal(index[1], -1)
    np.testing.assert_array_equal(match(structures, references, 0.0), -1)


def test_empty_lists_are_fine():
    one = [Atoms("Pt2", [[0, 0, 0], [0, 0, 2]])]
    assert len(duplicates([])) == 0
    assert match(one, []).tolist() == [-1]
    assert nearest([], one)[0].shape == (0,)


def test_periodic_structures_are_compared_with_their_cells():
    rng = np.random.default_rng(0)
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=1)
    shifted = crystal.copy()
    shifted.positions += [0.7, 1.9, -3.0]
    shifted.wrap()
    turned = shifted[rng.permutation(4)]
    turned.set_cell(turned.cell @ Rotation.from_quat(rng.normal(size=4)).as_matrix(), True)
    strained = crystal.copy()
    strained.set_cell(strained.cell * [1.1, 1, 1], scale_atoms=False)
    cluster = crystal.copy()
    cluster.pbc = False
    found = duplicates([crystal, shifted, turned, strained, cluster], 1e-6)
    np.testing.assert_array_equal(found, [0, 0, 0, 3, 4])


@settings(max_examples=30)
@given(seeds)
def test_periodic_structures_are_compared_by_their_nearest_images(seed):
    from tfgen.structures.similarity.sorted_distances import distance_vectors

    rng = np.random.default_rng(seed)
    pbc = rng.random(3) < 0.7
    pbc[rng.integers(3)] = True
    same = []
    for _ in range(3):
        cell = np.diag(rng.uniform(4, 8, 3)) + 0.5 * rng.normal(size=(3, 3))
        # Skewed, so that the nearest images may be several cells away.
        cell[1] += rng.integers(-2, 3) * cell[0]
        cell[2] += rng.integers(-2, 3) * cell[0] + rng.integers(-2, 3) * cell[1]
        atoms = Atoms("CuAuCuAu", rng.normal(size=(4, 3)) * 9, cell=cell, pbc=pbc)
        same.append(atoms[rng.permutation(4)])
    for atoms, vector in zip(same, distance_vectors(same), strict=True):
        edges = [c if p else 0 * c for c, p in zip(atoms.cell.array, pbc, strict=True)]
        expected = [np.linalg.norm(e) for e in edges]
        expected += [np.linalg.norm(a + b) for a, b in itertools.combinations(edges, 2)]
        images: dict[tuple[int, int], list[float]] = {}
        for i, j in itertools.combinations(range(4), 2):
            apart = atoms.positions[i] - atoms.positions[j]
            apart -= np.round(np.linalg.lstsq(np.transpose(edges), apart, rcond=None)[0]) @ edges
            steps = itertools.product(*[range(-9, 10) if p else (0,) for p in pbc])
            lengths = np.sort(np.linalg.norm(apart + np.array(list(steps)) @ edges, axis=1))
            kind = tuple(sorted((atoms.numbers[i], atoms.numbers[j])))
            images.setdefault(kind, []).extend(lengths[: 2 ** pbc.sum()])
        expected += [d for kind in sorted(images) for d in sorted(images[kind])]
        np.testing.assert_allclose(vector, expected, atol=1e-9)


def test_periodic_structures_that_differ_in_direction_only_are_told_apart():
    cell = [3.0, 3.0, 6.0]
    along_a = Atoms("Pt2", [[0, 0, 0], [1.5, 0, 0]], cell=cell, pbc=True)
    along_c = Atoms("Pt2", [[0, 0, 0], [0, 0, 1.5]], cell=cell, pbc=True)
    np.testing.assert_array_equal(duplicates([along_a, along_c]), [0, 1])


@pytest.mark.parametrize("tolerance", [-0.1, np.nan, np.inf])
def test_bad_tolerances_are_refused(tolerance):
    for call in (lambda: duplicates([], tolerance), lambda: match([], [], tolerance)):
        with pytest.raises(ValueError, match="tolerance is"):
            call()


def test_positions_that_are_not_finite_are_refused():
    good, bad = Atoms("Pt2", [[0, 0, 0], [0, 0, 2]]), Atoms("Pt2", [[0, 0, 0], [0, 0, np.nan]])
    with pytest.raises(ValueError, match=r"structures\[1\] has positions that are not finite"):
        duplicates([good, bad])
    with pytest.raises(ValueError, match=r"references\[0\] has positions that are not finite"):
        nearest([good], [bad])
    with pytest.raises(ValueError, match=r"structures\[0\] has no atoms"):
        duplicates([Atoms()])


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Pt"),
        Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5]]),
        Atoms("CuPt3", [[0, 0, 0], [0, 0, 2], [0, 0, 4], [0, 0, 7]]),
        molecule("C6H6"),
        Icosahedron("Pt", 2),
        Octahedron("Pt", 3, 1),
        Decahedron("Pt", 2, 2, 0),
    ],
    ids=lambda a: a.get_chemical_formula(),
)
def test_rmsd_of_disguised_copies_is_zero(atoms):
    rng = np.random.default_rng(3)
    for _ in range(3):
        assert rmsd(atoms, disguised(atoms, rng)) < 1e-6


@given(seeds)
def test_rmsd_of_random_clusters_and_their_copies(seed):
    rng = np.random.default_rng(seed)
    a, b = random_cluster("Cu3Au4", rng), random_cluster("Cu3Au4", rng)
    assert rmsd(a, disguised(a, rng)) < 1e-6
    assert rmsd(a, b) == pytest.approx(rmsd(disguised(a, rng), b), abs=0.2)


def test_rmsd_of_small_noise_is_the_noise():
    rng = np.random.default_rng(0)
    atoms = Octahedron("Pt", 3, 1)
    noise = 0.01 * rng.normal(size=atoms.positions.shape)
    noisy = atoms.copy()
    noisy.positions += noise
    value = rmsd(atoms, disguised(noisy, rng))
    assert 0.0 < value <= np.sqrt((noise**2).sum(axis=1).mean())


def test_rmsd_is_minimal_over_all_permutations_of_a_tiny_cluster():
    rng = np.random.default_rng(8)
    a, b = random_cluster("CuPt3", rng), random_cluster("CuPt3", rng)
    x, y = (s.positions[np.argsort(s.numbers, kind="stable")] for s in (a, b))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    best = np.inf
    for order in itertools.permutations([1, 2, 3]):
        z = y[[0, *order]]
        left, _, right = np.linalg.svd(x.T @ z)
        best = min(best, np.sqrt(((x @ left @ right - z) ** 2).sum(axis=1).mean()))
    assert rmsd(a, b) == pytest.approx(best, rel=1e-9)


@settings(max_examples=15)
@given(seeds)
def test_aligned_structures_lie_on_their_reference(seed):
    rng = np.random.default_rng(seed)
    a, b = random_cluster("Cu3Au4", rng), random_cluster("Cu3Au4", rng)
    before = a.positions.copy()
    laid = align(a, b)
    np.testing.assert_array_equal(a.positions, before)
    # It is moved as a whole, and as far from its reference as rmsd says, atom by atom.
    assert cdist(laid.positions, laid.positions) == pytest.approx(cdist(before, before))
    squared = cdist(laid.positions, b.positions) ** 2 + 1e6 * (a.numbers[:, None] != b.numbers)
    rows, columns = linear_sum_assignment(squared)
    assert np.sqrt(squared[rows, columns].mean()) == pytest.approx(rmsd(a, b), abs=1e-6)
    copy = align(disguised(b, rng), b)
    assert cdist(copy.positions, b.positions).min(axis=1) == pytest.approx(np.zeros(7), abs=1e-5)


def test_displacements_are_those_of_scipy():
    rng = np.random.default_rng(4)
    before = [random_cluster(f, rng) for f in ("Pt6", "Cu3Au4", "Pt6")]
    after = [a.copy() for a in before]
    for atoms in after:
        turn = Rotation.from_quat(rng.normal(size=4))
        atoms.positions = turn.apply(atoms.positions + 0.2 * rng.normal(size=(len(atoms), 3))) + 5
    found = displacements(before, after)
    for value, one, other in zip(found, before, after, strict=True):
        x, y = (a.positions - a.positions.mean(axis=0) for a in (one, other))
        expected = Rotation.align_vectors(x, y)[1] / np.sqrt(len(one))
        assert value == pytest.approx(expected, abs=1e-7)
    np.testing.assert_allclose(displacements(before, before), 0.0, atol=1e-6)
    # Atoms that hardly move keep their places, and rmsd finds the same.
    assert rmsd(before[0], after[0]) <= found[0] + 1e-9
    mirror = before[1].copy()
    mirror.positions[:, 0] *= -1
    assert displacements([before[1]], [mirror])[0] > 0.3  # no motion makes a mirror image
    assert len(displacements([], [])) == 0


def test_displacements_refuse_what_has_other_atoms():
    pair = Atoms("PtAu", [[0, 0, 0], [0, 0, 2]])
    with pytest.raises(ValueError, match=r"after\[0\] does not have the atoms of before\[0\]"):
        displacements([pair], [pair[::-1]])
    with pytest.raises(ValueError, match="0 structures after for 1 before"):
        displacements([pair], [])
    with pytest.raises(ValueError, match="is periodic"):
        displacements([bulk("Pt")], [bulk("Pt")])


def test_rmsd_refuses_what_it_cannot_compare():
    pair = Atoms("Pt2", [[0, 0, 0], [0, 0, 2]])
    with pytest.raises(ValueError, match="one composition"):
        rmsd(pair, Atoms("Au2", pair.positions))
    with pytest.raises(ValueError, match="periodic"):
        rmsd(bulk("Pt"), bulk("Pt"))
    with pytest.raises(ValueError, match="a\\[0\\] has no atoms"):
        rmsd(Atoms(), pair)
