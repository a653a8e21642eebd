"""EMT against ase.calculators.emt.EMT."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT as AseEMT  # noqa: N811 - the name is theirs
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgen.potentials.base import Potential, differentiated, energy_and_forces
from tfgen.potentials.emt import EMT
from tfgen.structures.batch import StructureBatch

METALS = ["Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"]
ELEMENTS = [*METALS, "H", "C", "N", "O"]

seeds = st.integers(0, 2**32 - 1)
chosen_elements = st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=4, unique=True)


@pytest.fixture(scope="module")
def emt():
    return EMT()


def cluster(symbols: list[str], n: int, rng: np.random.Generator) -> Atoms:
    """Atoms in random places, at least 1.5 Å apart, some out of the others' reach."""
    positions = rng.normal(size=(1, 3))
    while len(positions) < n:
        new = rng.normal(size=3) * rng.choice([1.5, 3.0, 6.0])
        if np.linalg.norm(positions - new, axis=1).min() > 1.5:
            positions = np.vstack([positions, new])
    return Atoms(rng.choice(symbols, n), positions)


def crystal(symbols: list[str], n: int, pbc: list[bool], rng: np.random.Generator) -> Atoms:
    """A skewed cell, some of its atoms outside of it."""
    atoms = Atoms(rng.choice(symbols, n), cell=np.eye(3) * 3.8 + rng.uniform(-0.9, 0.9, (3, 3)))
    atoms.set_scaled_positions((rng.uniform(0, 0.3, size=(n, 3)) + np.arange(n)[:, None]) / n)
    atoms.positions += rng.integers(-1, 2, size=(n, 3)) @ atoms.cell.array
    atoms.pbc = pbc
    return atoms


def assert_equals_ase(emt, structures):
    found = emt.compute(structures)
    assert found["energy"].shape == (len(structures),)
    for energy, forces, structure in zip(found["energy"], found["forces"], structures, strict=True):
        atoms = structure.copy()
        atoms.calc = AseEMT()
        wanted = atoms.get_forces()
        np.testing.assert_allclose(energy, atoms.get_potential_energy(), rtol=1e-9, atol=1e-9)
        assert forces.shape == wanted.shape
        np.testing.assert_allclose(forces, wanted, atol=1e-9 * max(1.0, np.abs(wanted).max()))
        np.testing.assert_allclose(
            forces.sum(axis=0), 0.0, atol=1e-9 * max(1.0, np.abs(wanted).max())
        )
    for stress, structure in zip(found["stress"], structures, strict=True):
        if not structure.pbc.any() or structure.cell.rank < 3:
            assert stress is None
            continue
        atoms = structure.copy()
        atoms.calc = AseEMT()
        wanted = atoms.get_stress()
        assert stress.shape == (6,)
        np.testing.assert_allclose(stress, wanted, atol=1e-9 * max(1.0, np.abs(wanted).max()))


def test_is_a_potential(emt):
    assert isinstance(emt, Potential)
    assert sorted(emt.species) == sorted(ELEMENTS)


@given(chosen_elements, seeds)
@settings(max_examples=25)
def test_equals_ase_for_clusters_and_alloys(emt, symbols, seed):
    rng = np.random.default_rng(seed)
    assert_equals_ase(emt, [cluster(symbols, n, rng) for n in (1, 2, 5, 8)])


@given(chosen_elements, st.lists(st.booleans(), min_size=3, max_size=3).filter(any), seeds)
@settings(max_examples=15)
def test_equals_ase_for_crystals_and_alloys(emt, symbols, pbc, seed):
    rng = np.random.default_rng(seed)
    assert_equals_ase(emt, [crystal(symbols, n, pbc, rng) for n in (1, 2, 4)])


@given(
    chosen_elements,
    st.lists(st.booleans(), min_size=3, max_size=3).filter(any),
    st.integers(1, 6),
    st.floats(2.0, 9.0),
    seeds,
)
@settings(max_examples=25)
def test_equals_ase_in_cells_of_any_size(emt, symbols, pbc, n, width, seed):
    """Cells smaller than the cutoff, and such that atoms do not see each other."""
    rng = np.random.default_rng(seed)
    atoms = crystal(symbols, n, pbc, rng)
    # No image of an atom may come too close, where energies are astronomic.
    factor = max(1.0, 1.5 / atoms.get_all_distances(mic=True)[np.triu_indices(n, 1)].min(initial=9))
    atoms.set_cell(atoms.cell.array * max(factor, width / 3.8), scale_atoms=True)
    assert_equals_ase(emt, [atoms])


def test_equals_ase_where_some_axes_have_no_cell(emt):
    chain = Atoms("Pt2", [[0, 0, 0], [2.3, 0.5, 0]], cell=[4.6, 0, 0], pbc=[True, False, False])
    sheet = Atoms("CuAu", [[0, 0, 0], [2.4, 0.3, 0.2]], cell=[5, 4, 0], pbc=[True, True, False])
    # A cluster in a box has no stress here, whatever its box.
    boxed = Atoms("Pt2", [[0, 0, 0], [2.3, 0, 0]], cell=[9, 9, 9])
    assert_equals_ase(emt, [chain, sheet, boxed])


@pytest.mark.parametrize("symbol", ELEMENTS)
def test_equals_ase_for_every_element(emt, symbol):
    rng = np.random.default_rng(0)
    assert_equals_ase(
        emt,
        [
            Atoms(symbol),
            Atoms([symbol] * 2, [[0, 0, 0], [2.3, 0, 0]]),
            Atoms([symbol, "Pt", symbol], cluster(["H"], 3, rng).positions),
            crystal([symbol], 2, [True] * 3, rng),
        ],
    )


def test_equals_ase_for_bulk_and_slab(emt):
    assert_equals_ase(emt, [bulk("Pt"), bulk("Cu", cubic=True), fcc111("Au", (1, 1, 2), vacuum=6)])


def test_equals_ase_around_the_cutoff(emt):
    reach = [Atoms("Pt2", [[0, 0, 0], [emt.r_cut + d, 0, 0]]) for d in (-1e-6, 0.0, 1e-6, -0.5)]
    assert_equals_ase(emt, reach)


def test_energy_of_a_lone_atom(emt):
    found = emt.compute(Atoms("Pt"))
    assert found["energy"] == pytest.approx(5.85, abs=1e-12)  # E0 of platinum
    np.testing.assert_array_equal(found["forces"][0], np.zeros([1, 3]))


@given(chosen_elements, st.integers(1, 8), seeds)
@settings(max_examples=15)
def test_forces_in_closed_form_are_the_gradient(emt, symbols, n, seed):
    rng = np.random.default_rng(seed)
    structures = [cluster(symbols, n, rng) for _ in range(3)]
    batch = StructureBatch.from_ase(structures, r_cut=emt.r_cut, atoms=8)
    for closed, taped in zip(
        energy_and_forces(emt, batch), differentiated(emt, batch), strict=True
    ):
        np.testing.assert_allclose(closed, taped, rtol=1e-10, atol=1e-10)


def second_derivatives(emt, batch):
    x = batch.positions
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            energy = emt.energies(batch._replace(positions=x))
        gradient = inner.gradient(energy, x)
    return outer.batch_jacobian(gradient, x, experimental_use_pfor=False).numpy()


@pytest.mark.parametrize("pbc", [False, True])
def test_second_derivatives_are_those_of_ases_forces(emt, pbc):
    rng = np.random.default_rng(5)
    atoms = crystal(["Pt", "Cu"], 3, [pbc] * 3, rng)
    batch = StructureBatch.from_ase([atoms], r_cut=emt.r_cut + 0.1)
    hessian = second_derivatives(emt, batch)[0]
    assert np.isfinite(hessian).all()
    atoms.calc = AseEMT()
    step = 1e-5
    for i in range(3):
        for k in range(3):
            forces = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[i, k] += sign * step
                moved.calc = AseEMT()
                forces.append(moved.get_forces())
            wanted = (forces[1] - forces[0]) / (2 * step)
            scale = max(1.0, np.abs(wanted).max())
            np.testing.assert_allclose(hessian[:, :, i, k], wanted, atol=1e-6 * scale)


def test_second_derivatives_are_finite_where_geometry_is_degenerate(emt):
    structures = [
        Atoms("Pt3", [[0, 0, 0], [0, 0, 0], [2, 0, 0]]),
        Atoms("Cu"),
        Atoms("PtAu", [[0, 0, 0], [99, 0, 0]]),
    ]
    batch = StructureBatch.from_ase(structures, r_cut=emt.r_cut, atoms=4)
    assert np.isfinite(second_derivatives(emt, batch)).all()


def test_stress_is_the_derivative_by_strain(emt):
    atoms = crystal(["Pt", "Au"], 3, [True] * 3, np.random.default_rng(6))
    found = emt.compute(atoms)["stress"][0]
    for k, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energy = []
        for size in (1e-5, -1e-5):
            strain = np.zeros([3, 3])
            strain[i, j] += size / 2
            strain[j, i] += size / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            energy.append(emt.compute(strained)["energy"][0])
        wanted = (energy[0] - energy[1]) / 2e-5 / atoms.get_volume()
        np.testing.assert_allclose(found[k], wanted, rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_the_company(emt):
    rng = np.random.default_rng(1)
    structures = [
        cluster(["Pt", "Cu"], 7, rng),
        crystal(["Pt"], 3, [True, True, False], rng),
        cluster(["Au"], 1, rng),
        cluster(["O", "Ni"], 3, rng),
    ]
    together = emt.compute(structures)
    for i, structure in enumerate(structures):
        alone = emt.compute(structure)
        np.testing.assert_allclose(together["energy"][i], alone["energy"][0], rtol=1e-13)
        np.testing.assert_allclose(together["forces"][i], alone["forces"][0], atol=1e-12)


def test_leaves_its_input_alone(emt):
    atoms = crystal(["Pt"], 3, [True] * 3, np.random.default_rng(2))
    before = atoms.copy()
    emt.compute([atoms])
    assert atoms == before


def test_is_computed_in_chunks(emt):
    rng = np.random.default_rng(3)
    structures = [cluster(["Pt"], 4, rng) for _ in range(7)]
    wanted = emt.compute(structures)["energy"]
    found = emt.compute(structures, pairs_per_chunk=40)["energy"]
    np.testing.assert_allclose(found, wanted, rtol=1e-13)


@pytest.mark.parametrize("jit_compile", [None, True])
def test_is_finite_where_geometry_is_degenerate(emt, jit_compile):
    structures = [
        Atoms("Pt3", [[0, 0, 0], [0, 0, 0], [2, 0, 0]]),
        Atoms("Cu"),
        Atoms("PtAu", [[0, 0, 0], [99, 0, 0]]),
    ]
    batch = StructureBatch.from_ase(structures, r_cut=emt.r_cut, atoms=4)
    run = tf.function(lambda b: energy_and_forces(emt, b), jit_compile=jit_compile)
    energy, forces = run(batch)
    assert np.isfinite(energy).all()
    assert np.isfinite(forces).all()
    np.testing.assert_array_equal(forces[1:], 0.0)
    np.testing.assert_allclose(energy, emt.compute(structures)["energy"], rtol=1e-12)


def test_keeps_float32(emt):
    structures = [cluster(["Pt", "Cu"], 5, np.random.default_rng(4))]
    batch = StructureBatch.from_ase(structures, r_cut=emt.r_cut, dtype="float32")
    energy, forces = energy_and_forces(emt, batch)
    assert energy.dtype == forces.dtype == tf.float32
    np.testing.assert_allclose(energy, emt.compute(structures)["energy"], rtol=1e-4)


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ([], "structures is empty"),
        ([Atoms("Pt"), Atoms("FePtZn")], r"structures\[1\] holds Fe, Zn; EMT knows Al, Cu, Ag"),
        ([Atoms()], "has no atoms"),
        (Atoms("Pt", [[0, np.nan, 0]]), "not finite"),
        (Atoms("Pt", pbc=True), "without a cell vector"),
    ],
)
def test_refuses(emt, structures, message):
    with pytest.raises(ValueError, match=message):
        emt.compute(structures)


def test_all_are_equal_and_short_to_print():
    assert EMT() == EMT()
    assert repr(EMT()) == "EMT()"
