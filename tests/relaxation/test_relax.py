"""Relaxation against ASE's optimisers, SciPy's minimiser and what is known analytically."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT as AseEMT  # noqa: N811 - the name is theirs
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixedPlane
from ase.data import atomic_numbers
from ase.optimize import BFGS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from tfgen.potentials.ase import AsePotential
from tfgen.potentials.emt import EMT
from tfgen.relaxation import relax as relaxation
from tfgen.relaxation.lbfgs import lbfgs
from tfgen.relaxation.relax import relax
from tfgen.relaxation.settings import RelaxationSettings
from tfgen.sampling.initial import SHAPES, random_structures
from tfgen.structures.status import Status
from tfgen.warnings import TfgenWarning

# Sizes of few buckets: each is compiled once.
SIZES = [3, 4, 7, 8, 12, 13]


def cluster(symbols: list[str], seed: int) -> Atoms:
    """A dense random heap: in a sparse one parts may drift apart, and hardly feel each other."""
    rng = np.random.default_rng(seed)
    positions = np.zeros([1, 3])
    while len(positions) < len(symbols):
        new = rng.normal(size=3) * 1.3
        if np.linalg.norm(positions - new, axis=1).min() > 1.6:
            positions = np.vstack([positions, new])
    return Atoms(symbols, positions)


def mixed() -> list[Atoms]:
    """Sizes of two buckets, in no order, pure and alloyed."""
    sizes = [7, 3, 4, 6, 3, 8]
    pure = [cluster(["Pt"] * n, seed) for seed, n in enumerate(sizes)]
    return [*pure, cluster(["Au", "Cu", "Au"], 11), cluster(["Ni", "Al", "Pd", "Ag", "Pt"], 11)]


def forces_by_ase(atoms: Atoms) -> np.ndarray:
    atoms = atoms.copy()
    atoms.calc = AseEMT()
    return atoms.get_forces()


def assert_is_minimum(atoms: Atoms, energy: float, fmax: float) -> None:
    """ASE's energy, forces and what its BFGS makes of it are the same."""
    atoms = atoms.copy()
    atoms.calc = AseEMT()
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() == pytest.approx(fmax, abs=1e-8)
    with BFGS(atoms, logfile=None) as optimizer:
        assert optimizer.run(fmax=1e-3, steps=200)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-3)


@pytest.fixture(scope="module")
def result():
    return relax(mixed(), fmax=0.005)


class TestClusters:
    def test_reach_minima_of_ase(self, result):
        assert result.converged.all()
        assert (result.fmax <= 0.005).all()
        assert (result.steps > 0).all()
        assert result.energy.dtype == np.float64
        for atoms, energy, fmax in zip(result.structures, result.energy, result.fmax, strict=True):
            assert_is_minimum(atoms, energy, fmax)

    def test_keep_their_order_and_elements(self, result):
        for found, start in zip(result.structures, mixed(), strict=True):
            np.testing.assert_array_equal(found.numbers, start.numbers)
            assert found.calc is None

    def test_come_out_the_same_again_bit_by_bit(self, result):
        again = relax(mixed(), fmax=0.005)
        np.testing.assert_array_equal(again.energy, result.energy)
        np.testing.assert_array_equal(again.steps, result.steps)
        for one, two in zip(again.structures, result.structures, strict=True):
            np.testing.assert_array_equal(one.positions, two.positions)

    def test_do_not_depend_on_their_company(self, result):
        # Bit by bit: places of a batch share nothing, and moving up into one changes nothing.
        kind = [i for i, atoms in enumerate(mixed()) if len(atoms) > 4]
        crowd = [*[mixed()[i] for i in kind] * 20, mixed()[0]]
        together = relax(crowd, fmax=0.005)
        for k, atoms in enumerate(together.structures[:-1]):
            i = kind[k % len(kind)]
            np.testing.assert_array_equal(atoms.positions, result.structures[i].positions)
            assert together.energy[k] == result.energy[i]
            assert together.steps[k] == result.steps[i]

    def test_do_not_depend_on_the_number_of_threads(self, result, monkeypatch):
        crowd = mixed() * 20
        for threads in (1, 3):
            monkeypatch.setattr(relaxation, "threads", lambda threads=threads: threads)
            found = relax(crowd, fmax=0.005)
            np.testing.assert_array_equal(found.energy, np.tile(result.energy, 20))
            np.testing.assert_array_equal(found.steps, np.tile(result.steps, 20))

    def test_go_down_only(self):
        numbers = np.full(8, 78)
        start = [
            Atoms(numbers, positions=x)
            for x in random_structures(numbers, 30, np.random.default_rng(0))
        ]
        energy = np.array([relax(start, max_steps=n).energy for n in range(30)])
        assert (np.diff(energy, axis=0) <= 1e-8).all()
        assert (energy[-1] < energy[0] - 0.1).all()

    def test_atoms_take_no_long_steps(self):
        start = mixed()
        start[0].positions[1] = start[0].positions[0] + [0.2, 0.1, 0.0]  # much too close
        found = relax(start, max_steps=1)
        for one, two in zip(start, found.structures, strict=True):
            assert np.linalg.norm(one.positions - two.positions, axis=1).max() < 0.2 + 1e-9
        assert relax(start).converged.all()

    def test_of_sparse_heaps_find_together(self):
        rng = np.random.default_rng(8)
        far = [
            Atoms("Pt9", positions=x)
            for x in random_structures(np.full(9, 78), 20, rng, packing=0.1)
        ]
        found = relax(far)
        assert found.converged.all()
        assert found.steps.max() < 1000

    def test_are_left_unmodified(self):
        structures, untouched = mixed()[:2], mixed()[:2]
        structures[0].calc = calculator = AseEMT()
        structures[0].info["tag"] = 1
        found = relax(structures, max_steps=3)
        assert structures == untouched
        assert structures[0].calc is calculator
        assert found.structures[0].info["tag"] == 1
        assert np.abs(found.structures[0].positions - structures[0].positions).max() > 1e-3

    def test_that_are_already_relaxed_stay(self, result):
        again = relax(result.structures, fmax=0.0051)
        assert (again.steps == 0).all()
        for one, two in zip(again.structures, result.structures, strict=True):
            np.testing.assert_array_equal(one.positions, two.positions)


def test_dimers_of_all_metals_reach_the_bottom_of_their_curve():
    metals = ["Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"]
    found = relax([Atoms([m] * 2, [[0, 0, 0], [2.1, 0.4, 0]]) for m in metals], fmax=1e-4)
    assert found.converged.all()
    for metal, atoms, energy in zip(metals, found.structures, found.energy, strict=True):

        def curve(r, metal=metal):
            return Atoms(
                [metal] * 2, [[0, 0, 0], [r, 0, 0]], calculator=AseEMT()
            ).get_potential_energy()

        bottom = minimize_scalar(
            curve, bounds=(1.8, 3.0), method="bounded", options={"xatol": 1e-9}
        )
        assert energy == pytest.approx(bottom.fun, abs=1e-6)
        assert atoms.get_distance(0, 1) == pytest.approx(bottom.x, abs=1e-3)


class TestCrystals:
    def test_displaced_atoms_go_back_to_the_lattice(self):
        perfect = bulk("Pt", cubic=True)
        displaced = [perfect.copy(), perfect.copy()]
        for seed, atoms in enumerate(displaced):
            atoms.rattle(0.15, seed=seed)
        displaced[1].pbc = [True, True, False]  # a free film; it ends up elsewhere
        found = relax(displaced, fmax=0.002, settings=RelaxationSettings(largest=8))
        assert found.converged.all()
        assert found.energy[0] == pytest.approx(EMT().compute(perfect)["energy"][0], abs=1e-5)
        np.testing.assert_allclose(
            found.structures[0].get_all_distances(mic=True),
            perfect.get_all_distances(mic=True),
            atol=2e-3,
        )
        for atoms, start, energy, fmax in zip(
            found.structures, displaced, found.energy, found.fmax, strict=True
        ):
            np.testing.assert_array_equal(atoms.cell, start.cell)
            np.testing.assert_array_equal(atoms.pbc, start.pbc)
            assert_is_minimum(atoms, energy, fmax)


class TestConstraints:
    def test_fixed_atoms_stay(self):
        atoms = cluster(["Pt"] * 7, 3)
        atoms.set_constraint(FixAtoms([1, 4]))
        free = cluster(["Pt"] * 7, 4)
        found = relax([atoms, free], fmax=0.005)
        assert found.converged.all()
        relaxed = found.structures[0]
        np.testing.assert_array_equal(relaxed.positions[[1, 4]], atoms.positions[[1, 4]])
        np.testing.assert_array_equal(relaxed.constraints[0].index, [1, 4])
        others = [0, 2, 3, 5, 6]
        assert np.abs(relaxed.positions[others] - atoms.positions[others]).max() > 0.05
        # Forces that the fixed atoms feel do not count.
        assert_is_minimum(relaxed, found.energy[0], found.fmax[0])
        raw = relaxed.copy()
        raw.set_constraint()
        assert np.linalg.norm(forces_by_ase(raw)[[1, 4]], axis=1).max() > 0.01

    def test_all_atoms_fixed_is_converged_at_once(self):
        atoms = cluster(["Pt"] * 3, 0)
        atoms.set_constraint(FixAtoms(mask=[True] * 3))
        found = relax(atoms)
        assert found.converged == [True]
        assert found.steps == [0]
        assert found.fmax == [0.0]
        np.testing.assert_array_equal(found.structures[0].positions, atoms.positions)

    @pytest.mark.parametrize("constraint", [FixBondLength(0, 1), FixedPlane([0], [0, 0, 1])])
    def test_others_are_refused(self, constraint):
        atoms = cluster(["Pt"] * 3, 0)
        atoms.set_constraint([FixAtoms([2]), constraint])
        with pytest.raises(ValueError, match=rf"structures\[1\].*{type(constraint).__name__}"):
            relax([cluster(["Pt"] * 3, 1), atoms])


class TestSteps:
    def test_none_only_evaluates(self):
        structures = mixed()[:3]
        found = relax(structures, max_steps=0)
        assert (found.steps == 0).all()
        assert not found.converged.any()
        np.testing.assert_allclose(found.energy, EMT().compute(structures)["energy"], atol=1e-10)
        for one, two, fmax in zip(found.structures, structures, found.fmax, strict=True):
            np.testing.assert_array_equal(one.positions, two.positions)
            assert fmax == pytest.approx(np.linalg.norm(forces_by_ase(two), axis=1).max())
        for forces, structure in zip(found.forces, structures, strict=True):
            np.testing.assert_allclose(forces, forces_by_ase(structure), atol=1e-9)

    def test_too_few_are_flagged(self, result):
        structures = [*mixed()[:3], result.structures[1]]
        found = relax(structures, fmax=0.005, max_steps=4)
        np.testing.assert_array_equal(found.converged, [False, False, False, True])
        np.testing.assert_array_equal(found.steps, [4, 4, 4, 0])
        assert (found.fmax[:3] > 0.005).all()

    def test_are_bounded_for_those_who_wait(self):
        found = relax(mixed() * 30, fmax=0.005, max_steps=7)
        np.testing.assert_array_equal(found.steps, 7)
        first = relax(mixed(), fmax=0.005, max_steps=7)
        np.testing.assert_array_equal(found.energy, np.tile(first.energy, 30))


class TestStatus:
    def test_says_what_became_of_each(self, result):
        found = relax([result.structures[0], mixed()[3]], fmax=0.0051, max_steps=4)
        assert found.status == [Status.CONVERGED, Status.NOT_CONVERGED]
        assert found.detail == ["", ""]
        assert result.status == [Status.CONVERGED] * len(result.structures)

    def test_of_what_is_not_finite(self):
        found = relax([Atoms("H2"), Atoms("Li2", [[1, 0, 0], [0, 2, 0]])], Spring())
        assert found.status == [Status.CALCULATOR_FAILED, Status.CONVERGED]
        assert found.detail == ["energy or forces are not finite", ""]

    def test_of_what_an_ase_calculator_refuses(self):
        good, bad = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.2]]), Atoms("Ar3", np.eye(3) * 1.2)
        with pytest.warns(TfgenWarning, match="did not converge"):
            found = relax([good, bad], Moody())
        assert found.status == [Status.CONVERGED, Status.CALCULATOR_FAILED]
        assert found.detail == ["", "RuntimeError: did not converge"]
        found = relax(good, LennardJones(), fmax=1e-6, max_steps=2)
        assert found.status == [Status.NOT_CONVERGED]

    @pytest.mark.parametrize("name", ["energy", "forces"])
    @pytest.mark.parametrize("calls", [0, 2])
    def test_of_what_an_ase_calculator_gives_that_is_not_finite(self, name, calls):
        atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.2]])
        with pytest.warns(TfgenWarning, match="failed for 1 of 2 .* energy or forces are not fini"):
            found = relax([atoms, Atoms("Ar2", [[0, 0, 0], [0, 0, 1.3]])], Spoilt(name, calls))
        assert found.status == [Status.CALCULATOR_FAILED, Status.CONVERGED]
        assert found.detail == ["energy or forces are not finite", ""]
        assert found.converged.tolist() == [False, True]
        assert found.steps[0] == calls
        assert np.isfinite(found.structures[0].positions).all()


@given(
    st.lists(st.sampled_from(["Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"]), min_size=1, max_size=3),
    st.sampled_from(SIZES),
    st.sampled_from(SHAPES),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=15)
def test_minima_are_minima_of_ase(symbols, n_atoms, shape, seed):
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice([atomic_numbers[s] for s in symbols], n_atoms))
    initial = [Atoms(numbers, positions=x) for x in random_structures(numbers, 6, rng, shape=shape)]
    found = relax(initial, fmax=0.01)
    assert found.converged.all()
    for atoms, energy in zip(found.structures, found.energy, strict=True):
        atoms.calc = AseEMT()
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        with BFGS(atoms, logfile=None) as optimizer:
            assert optimizer.run(fmax=0.01, steps=50)
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-3)


class Spring:
    """Each atom on a spring to the origin; of "bad" structures, NaN."""

    r_cut = 1.0

    def energies(self, batch):
        x = tf.where(batch.mask[..., None], batch.positions, tf.zeros_like(batch.positions))
        bad = tf.where(batch.numbers[:, 0] == 1, tf.constant(np.nan, x.dtype), 1.0)
        return bad * tf.reduce_sum(x**2, axis=[1, 2])

    def check(self, structures):
        if any(2 in s.numbers for s in structures):
            raise ValueError("no helium")

    def compute(self, structures):
        raise NotImplementedError


class TestOtherPotentials:
    spring = Spring()

    def test_of_ones_own(self):
        found = relax([Atoms("Li2", [[1, 0, 0], [0, -2, 3]])], self.spring, fmax=1e-3)
        assert found.converged.all()
        np.testing.assert_allclose(found.structures[0].positions, 0.0, atol=5e-4)

    def test_compile_once_for_structures_of_any_size(self):
        potential = Spring()
        relax([Atoms(f"Li{n}") for n in (1, 3)], potential)
        for n in (4, 5, 6, 7, 9):
            relax([Atoms(f"Li{n}")] * 2, potential)
        # The first shape, and then shapes of free size.
        assert lbfgs(potential).run.experimental_get_tracing_count() <= 3

    def test_that_fail_are_flagged_and_harm_no_other(self):
        found = relax([Atoms("H2"), Atoms("Li2", [[1, 0, 0], [0, 2, 0]])], self.spring)
        np.testing.assert_array_equal(found.converged, [False, True])
        assert np.isnan(found.energy[0])
        assert found.energy[1] == pytest.approx(0.0, abs=1e-3)

    def test_check_before_work_begins(self):
        with pytest.raises(ValueError, match="no helium"):
            relax(Atoms("He"), self.spring)

    def test_of_ase(self):
        calculator = LennardJones(sigma=2.0, epsilon=0.5, rc=50.0)
        dimer = Atoms("Ar2", [[0, 0, 0], [2.5, 0, 0]])
        trimer = Atoms("Ar3", [[0, 0, 0], [2.4, 0, 0], [1.0, 2.1, 0]])
        before = [dimer.copy(), trimer.copy()]
        found = relax([dimer, trimer], calculator, fmax=1e-4)
        assert [dimer, trimer] == before
        assert dimer.calc is None
        assert found.converged.all()
        assert (found.steps > 0).all()
        for atoms in found.structures:
            distances = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
            np.testing.assert_allclose(distances, 2 ** (1 / 6) * 2.0, atol=1e-4)
            assert atoms.calc is None
        np.testing.assert_allclose(found.energy, [-0.5, -1.5], atol=1e-6)

    def test_of_ase_without_enough_steps(self):
        stretched = Atoms("Ar2", [[0, 0, 0], [1.5, 0, 0]])
        found = relax(stretched, LennardJones(), fmax=1e-4, max_steps=1)
        assert not found.converged[0]
        last = found.structures[0].copy()
        last.calc = LennardJones()
        np.testing.assert_allclose(found.forces[0], last.get_forces(), atol=1e-12)
        assert found.steps == [1]
        assert found.fmax[0] > 1e-4

    def test_of_ase_keeps_fixed_atoms(self):
        atoms = Atoms("Ar2", [[0, 0, 0], [1.3, 0, 0]], constraint=FixAtoms([0]))
        found = relax(atoms, LennardJones(), fmax=1e-4)
        np.testing.assert_array_equal(found.structures[0].positions[0], 0.0)
        assert found.structures[0].get_distance(0, 1) == pytest.approx(2 ** (1 / 6), abs=1e-3)

    def test_of_ase_keeps_other_constraints(self):
        bond = [FixBondLength(0, 1)]
        atoms = Atoms("Ar3", [[0, 0, 0], [1.3, 0, 0], [0.6, 1.2, 0]], constraint=bond)
        found = relax(atoms, LennardJones(), fmax=1e-4)
        assert found.converged[0]
        assert found.fmax[0] == pytest.approx(np.linalg.norm(found.forces[0], axis=1).max())
        assert found.structures[0].get_distance(0, 1) == pytest.approx(1.3, abs=1e-9)
        assert found.structures[0].get_distance(0, 2) == pytest.approx(2 ** (1 / 6), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structures": []}, "structures is empty"),
        ({"structures": [Atoms("Pt"), Atoms("Fe")]}, r"structures\[1\] holds Fe; EMT knows"),
        ({"structures": Atoms("Pt", [[np.inf, 0, 0]])}, "not finite"),
        ({"fmax": 0}, "fmax is 0; a positive number of eV/Å"),
        ({"fmax": -0.1}, "fmax is -0.1"),
        ({"fmax": np.nan}, "fmax is nan"),
        ({"fmax": np.inf}, "fmax is inf"),
        ({"fmax": "a"}, "fmax is 'a'"),
        ({"max_steps": -1}, "max_steps is -1; a whole number >= 0"),
        ({"max_steps": 1.5}, "max_steps is 1.5"),
        ({"potential": "emt"}, "potential is 'emt', neither a potential like tfgen"),
        ({"potential": LennardJones}, "potential is the class LennardJones; an object of it"),
        ({"structures": Atoms("Pt", constraint=FixAtoms([7]))}, r"FixAtoms of \[7\], but only 1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        relax(**{"structures": Atoms("Pt"), **arguments})


@pytest.mark.parametrize("potential", [None, LennardJones()])
def test_progress_goes_to_stderr(capfd, potential):
    relax([Atoms("Pt")] * 3, potential, progress=True)
    shown = capfd.readouterr()
    assert "relaxing" in shown.err
    assert "3/3" in shown.err
    assert shown.out == ""
    relax([Atoms("Pt")] * 3, potential)
    assert "relaxing" not in capfd.readouterr().err


class Moody(LennardJones):
    """A calculator that fails for structures of more than two atoms."""

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        if len(self.atoms) > 2:
            raise RuntimeError("did not converge")


class Spoilt(LennardJones):
    """A calculator one of whose results is NaN, once, after so many calls."""

    def __init__(self, name, calls):
        super().__init__()
        self.spoilt, self.calls = name, calls

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        if self.calls == 0:
            self.results[self.spoilt] = self.results[self.spoilt] * np.nan
        self.calls -= 1


def test_a_calculator_that_fails_is_counted():
    good, bad = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.2]]), Atoms("Ar3", np.eye(3) * 1.2)
    with pytest.warns(
        TfgenWarning, match="failed for 1 of 2 structures, last with: RuntimeError: "
    ):
        result = relax([bad, good], Moody())
    assert result.converged.tolist() == [False, True]
    assert np.isnan(result.energy[0])
    assert np.isfinite(result.energy[1])
    np.testing.assert_array_equal(result.structures[0].positions, bad.positions)


def test_energies_of_unfinished_crystals_are_those_of_their_positions():
    rng = np.random.default_rng(5)
    crystals = [Atoms("Pt4", rng.uniform(0, 5, [4, 3]), cell=[5, 5, 5], pbc=True) for _ in range(2)]
    result = relax(crystals, max_steps=40)
    assert not result.converged.any()
    exact = EMT().compute(result.structures)
    np.testing.assert_allclose(result.energy, exact["energy"], rtol=0, atol=1e-9)
    forces = [np.linalg.norm(f, axis=1).max() for f in exact["forces"]]
    np.testing.assert_allclose(result.fmax, forces, rtol=1e-9)


def test_an_adapted_calculator_is_used_as_it_is_and_counts():
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.2]])
    potential = AsePotential(LennardJones())
    found = relax([atoms, atoms], potential, fmax=1e-4)
    # Each step takes one evaluation, and so do the start and the check at the end.
    assert potential.calculations == found.calculations.sum() == found.steps.sum() + 4
    np.testing.assert_array_equal(
        found.energy, relax([atoms] * 2, LennardJones(), fmax=1e-4).energy
    )


@pytest.mark.parametrize(
    ("atoms", "structures"), [(16, 64), (32, 40), (48, 16), (200, 8), (2000, 8)]
)
def test_batches_are_smaller_where_structures_are_larger(atoms, structures):
    assert RelaxationSettings().batch_size(atoms) == structures


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pairs": 0}, "pairs is 0; a whole number >= 1"),
        ({"smallest": 7}, "smallest is 7; a multiple of 8"),
        ({"largest": 0}, "largest is 0; a multiple of 8"),
        ({"smallest": 16, "largest": 8}, "largest is 8; at least smallest, 16"),
        ({"empty": 1.5}, "empty is 1.5; a number from 0 to 1"),
    ],
)
def test_settings_refuse(wrong, message):
    with pytest.raises(ValueError, match=message):
        RelaxationSettings(**wrong)
