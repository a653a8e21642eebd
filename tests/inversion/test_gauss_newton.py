"""Gauss-Newton steps to a target, against SciPy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import small
from ase import Atoms
from scipy.optimize import least_squares

from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.gauss_newton import _jacobian, refine
from tfgen.inversion.settings import GaussNewtonSettings
from tfgen.structures.similarity.equality import deviations

UNITS = np.linspace(0.5, 2.0, 12)


def alloy() -> tuple[Fingerprint, Atoms]:
    """More features than coordinates, and a cluster without symmetry."""
    acsf = ACSF(
        ["Cu", "Au"],
        6.0,
        g2_params=[[1.0, r_s] for r_s in (2.0, 2.6, 3.2, 3.8)],
        g5_params=[[0.05, 1, 1], [0.05, 2, -1]],
    )
    rng = np.random.default_rng(4)
    corners = 2.6 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    atoms = Atoms("AuCuAu2Cu", positions=corners + 0.2 * rng.normal(size=[5, 3]))
    return Fingerprint(acsf, ("mean", "std", "max", "min"), per_species=True), atoms


def moved(atoms: Atoms, amount: float, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += amount * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    return atoms


def squares(fingerprint: Fingerprint, atoms: Atoms, target: np.ndarray, scale: np.ndarray) -> float:
    return float((((fingerprint.create([atoms])[0] - target) / scale) ** 2).sum())


class TestRefine:
    def test_finds_the_structure_nearby(self):
        fingerprint, atoms = alloy()
        target = fingerprint.create([atoms])[0]
        start = moved(atoms, 0.03)
        before = start.positions.copy()
        found = refine(fingerprint, start, target, np.ones(len(target))).atoms
        np.testing.assert_array_equal(start.positions, before)
        np.testing.assert_array_equal(found.numbers, atoms.numbers)
        assert deviations([start], [atoms])[0] > 0.03
        assert deviations([found], [atoms])[0] < 1e-5
        assert np.abs(fingerprint.create([found])[0] - target).max() < 1e-5

    @pytest.mark.parametrize("noise", [0.0, 0.01])
    def test_fits_as_well_as_scipy(self, noise):
        """Also what no structure has: there the least squares are above zero."""
        fingerprint, atoms = small.fingerprint(), small.structures()[3]
        target = fingerprint.create([atoms])[0]
        target += noise * np.random.default_rng(1).normal(size=12)
        start = moved(atoms, 0.03)

        def errors(x: np.ndarray) -> np.ndarray:
            trial = Atoms(atoms.numbers, positions=x.reshape(-1, 3))
            return (fingerprint.create([trial])[0] - target) / UNITS

        wanted = 2.0 * least_squares(errors, start.positions.ravel(), xtol=1e-12, ftol=1e-12).cost
        found = refine(fingerprint, start, target, UNITS).atoms
        assert squares(fingerprint, found, target, UNITS) <= 1.02 * wanted + 1e-11
        assert squares(fingerprint, found, target, UNITS) < 0.1 * squares(
            fingerprint, start, target, UNITS
        )

    @pytest.mark.parametrize("pooling", [("max", "min"), ("mean", "std"), ("max",)], ids=str)
    @pytest.mark.parametrize("amount", [0.01, 0.3])
    def test_is_never_worse(self, pooling, amount):
        """From near and from afar, also with features that are not differentiable everywhere."""
        fingerprint = Fingerprint(small.fingerprint().descriptor, pooling)
        scale = np.ones(fingerprint.size)
        for seed in range(3):
            atoms = small.structures()[seed]
            target = fingerprint.create([atoms])[0]
            start = moved(atoms, amount, seed)
            before, after = (
                squares(fingerprint, a, target, scale)
                for a in (start, refine(fingerprint, start, target, scale).atoms)
            )
            assert after <= before
            assert np.isfinite(after)
            if amount == 0.01:
                assert after < 0.5 * before

    def test_leaves_fixed_atoms_where_they_are(self):
        fingerprint, atoms = alloy()
        target = fingerprint.create([atoms])[0]
        start = atoms.copy()
        start.positions[[1, 4]] += 0.05
        fixed = np.array([True, False, True, True, False])
        found = refine(fingerprint, start, target, np.ones(len(target)), fixed).atoms
        np.testing.assert_array_equal(found.positions[fixed], atoms.positions[fixed])
        np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-5)

    def test_where_nothing_is_to_be_done(self):
        """Of an exact structure, and of a lone atom, which no displacement changes."""
        fingerprint, atoms = alloy()
        target = fingerprint.create([atoms])[0]
        found = refine(fingerprint, atoms, target, np.ones(len(target))).atoms
        np.testing.assert_array_equal(found.positions, atoms.positions)
        crystals = Fingerprint(ACSF(["Pt"], 4.0, periodic=True), ("mean",))
        lone = Atoms("Pt", cell=[3, 3, 3], pbc=True)
        found = refine(crystals, lone, crystals.create([lone])[0] + 0.1, np.ones(1)).atoms
        np.testing.assert_array_equal(found.positions, lone.positions)

    def test_counts_a_derivative_for_each_free_coordinate(self):
        """Five atoms, all of them free or three; each iteration computes one Jacobian."""
        fingerprint, atoms = alloy()
        target = fingerprint.create([atoms])[0]
        start, units = moved(atoms, 0.03), np.ones(len(target))
        fixed = np.array([True, False, True, False, False])
        for iterations in (0, 1, 3):
            settings = GaussNewtonSettings(max_iterations=iterations)
            assert refine(fingerprint, start, target, units, None, settings).derivatives == (
                15 * iterations
            )
            assert refine(fingerprint, start, target, units, fixed, settings).derivatives == (
                9 * iterations
            )

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_of_what_is_not_finite_gives_what_it_got(self, value):
        fingerprint, atoms = alloy()
        target = np.full(fingerprint.size, value)
        found = refine(fingerprint, atoms, target, np.ones(len(target))).atoms
        np.testing.assert_array_equal(found.positions, atoms.positions)


@pytest.mark.parametrize("periodic", [False, True])
def test_derivatives_equal_finite_differences(periodic):
    acsf = ACSF(["Pt"], 4.0, g2_params=[[1.0, 2.5]], g5_params=[[0.1, 2, 1]], periodic=periodic)
    fingerprint = Fingerprint(acsf, ("mean", "std", "moment3"))
    atoms = small.structures()[0].copy()
    if periodic:
        atoms.set_cell([6.0, 5.5, 6.5])
        atoms.pbc = [True, True, False]
    free = np.array([True, False, True, True, False])

    def values(x: np.ndarray) -> np.ndarray:
        trial = atoms.copy()
        trial.positions[free] = x.reshape(-1, 3)
        return fingerprint.create([trial])[0]

    x = atoms.positions[free].ravel()
    h = 1e-5
    wanted = np.array([
        (values(x + h * e) - values(x - h * e)) / (2 * h) for e in np.eye(len(x))
    ]).T  # fmt: skip
    found = _jacobian(fingerprint, atoms, free)
    assert found.shape == (fingerprint.size, 9)
    np.testing.assert_allclose(found, wanted, atol=1e-6)  # the cutoff is not smooth enough for more
    assert np.abs(found).max() > 0.01
