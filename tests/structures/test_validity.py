from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from tfgen.structures.validity import connected, thresholds_from, valid

BOND = 2 * covalent_radii[78]  # Å, the sum of the radii of two Pt


def tetrahedron(edge: float, symbol: str = "Pt") -> Atoms:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)
    return Atoms(f"{symbol}4", positions=edge * corners)


def pair(distance: float) -> Atoms:
    return Atoms("Pt2", positions=[[0, 0, 0], [0, 0, distance]])


def moved(atoms: Atoms, index: int, position: list[float]) -> Atoms:
    atoms = atoms.copy()
    atoms.positions[index] = position
    return atoms


def loop_valid(atoms: Atoms, overlap_factor: float, bond_factor: float) -> bool:
    """The definition, atom by atom."""
    n = len(atoms)
    if n == 0 or not np.isfinite(atoms.positions).all():
        return False
    reached, frontier = {0}, [0]
    for i in range(n):
        for j in range(i):
            radii = covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]
            if np.linalg.norm(atoms.positions[i] - atoms.positions[j]) < overlap_factor * radii:
                return False
    while frontier:
        i = frontier.pop()
        for j in range(n):
            radii = covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]
            near = np.linalg.norm(atoms.positions[i] - atoms.positions[j]) <= bond_factor * radii
            if near and j not in reached:
                reached.add(j)
                frontier.append(j)
    return len(reached) == n


def test_valid_knows_good_from_bad():
    good = tetrahedron(2.7)
    cases = {
        "tetrahedron": (good, True),
        "icosahedron": (Icosahedron("Pt", 2), True),
        "stretched": (tetrahedron(2.72 * 1.31), False),
        "overlapping": (tetrahedron(2.72 * 0.69), False),
        "one atom away": (moved(good, 3, [9.0, 0, 0]), False),
        "two fragments": (pair(2.7) + Atoms("Pt2", [[9, 0, 0], [9, 0, 2.7]]), False),
        "coincident": (moved(good, 3, list(good.positions[0])), False),
        "NaN": (moved(good, 3, [np.nan, 0, 0]), False),
        "infinite": (moved(good, 3, [np.inf, 0, 0]), False),
        "beyond all measure": (moved(good, 3, [1e300, 0, 0]), False),
        "no atoms": (Atoms(), False),
        "one atom": (Atoms("Pt"), True),
        "water": (molecule("H2O"), True),
    }
    structures = [atoms for atoms, _ in cases.values()]
    assert dict(zip(cases, valid(structures), strict=True)) == {
        name: expected for name, (_, expected) in cases.items()
    }


def test_limits_belong_to_the_valid():
    assert list(valid([pair(BOND * 0.7000001), pair(BOND * 0.6999999)])) == [True, False]
    assert list(valid([pair(BOND * 1.2999999), pair(BOND * 1.3000001)])) == [True, False]
    assert list(valid([pair(2.0), pair(4.0)], 0.8, 1.5)) == [False, True]


def test_periodic_images_count():
    whole = bulk("Pt", cubic=True)
    crowded = whole.copy()
    crowded.set_cell(whole.cell * 0.6, scale_atoms=False)
    apart = Atoms("Pt", cell=[9, 9, 9], pbc=True)  # one atom, one piece, whatever its images do
    two = Atoms("Pt2", [[0, 0, 0], [0, 0, 5.0]], cell=[9, 9, 7.5], pbc=True)
    no_cell = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.7]], pbc=True)
    flat = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.7]], cell=[[3, 0, 0], [6, 0, 0], [0, 0, 9]], pbc=True)
    nan = Atoms("Pt", cell=[3, 3, np.nan], pbc=True)
    structures = [whole, crowded, apart, two, no_cell, flat, nan]
    assert list(valid(structures)) == [True, False, True, True, False, False, False]


def test_large_structures_go_by_neighbour_lists():
    slab = bulk("Pt", cubic=True) * (7, 7, 6)
    slab.pbc = False
    assert len(slab) > 1000
    broken = slab.copy()
    broken.positions[0] -= 4.0
    crowded = slab.copy()
    crowded.positions[0] = crowded.positions[1] + 0.5
    assert list(valid([slab, broken, crowded])) == [True, False, False]
    assert list(connected([slab, broken, crowded])) == [True, False, True]


@given(seed=st.integers(0, 10_000), factor=st.floats(0.9, 2.5))
def test_valid_equals_the_definition(seed, factor):
    rng = np.random.default_rng(seed)
    structures = [
        Atoms(rng.choice([6, 29, 78], n), positions=factor * n**0.4 * rng.normal(size=(n, 3)))
        for n in rng.integers(1, 7, 12)
    ]
    expected = [loop_valid(s, 0.4, 1.4) for s in structures]
    assert list(valid(structures, 0.4, 1.4)) == expected


@given(seed=st.integers(0, 10_000))
def test_validity_is_of_the_shape_alone(seed):
    rng = np.random.default_rng(seed)
    structures = [Atoms("Cu2Pt4", positions=2.2 * rng.normal(size=(6, 3))) for _ in range(10)]
    turned = []
    for atoms in structures:
        copy = atoms[rng.permutation(6)]
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        copy.positions = copy.positions @ rotation + rng.normal(size=3)
        turned.append(copy)
    assert list(valid(structures, 0.3, 1.4)) == list(valid(turned, 0.3, 1.4))
    assert list(connected(structures)) == list(connected(turned))


def test_connected_does_not_mind_overlaps():
    assert list(connected([tetrahedron(1.0), pair(9.0), Atoms(), pair(np.nan)])) == [
        True,
        False,
        False,
        False,
    ]
    assert connected([]).shape == (0,)
    assert valid([]).shape == (0,)


def test_thresholds_stay_where_the_structures_allow_it():
    assert thresholds_from([tetrahedron(2.7)] * 5) == (0.7, 1.3, 1.0)


def test_thresholds_widen_as_far_as_the_structures_demand():
    limits = thresholds_from([pair(BOND * 0.5), pair(BOND), pair(BOND * 2.0)])
    assert limits.overlap_factor == pytest.approx(0.5, abs=1.1e-3)
    assert limits.bond_factor == pytest.approx(2.0, abs=1.1e-3)
    assert limits.pass_rate == 1.0
    chain = Atoms("Pt3", positions=[[0, 0, 0], [0, 0, BOND], [0, 0, BOND * 2.5]])
    assert thresholds_from([chain]).bond_factor == pytest.approx(1.5, abs=1.1e-3)
    two = Atoms("Pt2", [[0, 0, 0], [0, 0, BOND * 3]], cell=[30, 30, 30], pbc=True)
    assert thresholds_from([two]).bond_factor == pytest.approx(3.0, abs=1.1e-3)


def test_thresholds_leave_out_the_odd_one_in_a_hundred():
    many = [pair(BOND)] * 998
    limits = thresholds_from([*many, pair(0.1), pair(99.0)])
    assert limits == (0.7, 1.3, 0.998)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 300))
def test_at_least_99_percent_pass(seed, n):
    rng = np.random.default_rng(seed)
    structures = [Atoms("Pt5", positions=3 * rng.normal(size=(5, 3))) for _ in range(n)]
    limits = thresholds_from(structures)
    passed = valid(structures, limits.overlap_factor, limits.bond_factor).mean()
    assert passed >= 0.99
    assert passed == limits.pass_rate


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: valid([pair(2.7)], -1.0), "overlap_factor is -1.0"),
        (lambda: valid([pair(2.7)], np.nan), "overlap_factor is nan"),
        (lambda: valid([pair(2.7)], 0.7, 0.5), "bond_factor is 0.5"),
        (lambda: connected([pair(2.7)], 0.0), "bond_factor is 0.0"),
        (lambda: thresholds_from([]), "structures is empty"),
        (lambda: thresholds_from([pair(2.7), pair(np.nan)]), r"structures\[1\]"),
        (lambda: thresholds_from([pair(2.7)], pass_rate=99), "pass_rate is 99"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
