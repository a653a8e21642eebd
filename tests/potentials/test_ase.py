"""The way to ASE calculators: nothing is remembered, lost, printed or left uncounted."""

from __future__ import annotations

import os
import sys
import threading

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.optimize import BFGS

import tfgen
from tfgen.potentials._output import redirect_output
from tfgen.potentials.ase import AsePotential, adapt
from tfgen.potentials.import_paths import is_import_path, make_calculator
from tfgen.structures.status import Status

CLUSTER = Atoms("Pt4", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.2, 0], [1.2, 0.7, 2.1]])


def test_classes_functions_and_arguments():
    assert isinstance(make_calculator("ase.calculators.emt:EMT"), EMT)
    made = make_calculator("ase.calculators.lj:LennardJones", {"sigma": 2.5, "epsilon": 0.1})
    assert isinstance(made, LennardJones)
    assert (made.parameters.sigma, made.parameters.epsilon) == (2.5, 0.1)
    # A function, and a calculator that does not derive from ASE's base class.
    assert isinstance(make_calculator(f"{__name__}:make_stranger"), Stranger)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("a:b", True),
        ("a.b_c:D.from_file", True),
        ("a", False),
        ("a:", False),
        (":b", False),
        ("a:b:c", False),
        ("a b:c", False),
        ("a/b.py:c", False),
        ("1a:b", False),
        ("..a:b", False),
        ("a:b()", False),
        ("", False),
    ],
)
def test_import_paths(path, good):
    assert is_import_path(path) is good
    if not good:
        with pytest.raises(ValueError, match="is not of the form MODULE:NAME"):
            make_calculator(path)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("no_such_module:EMT", {}, "'no_such_module:EMT' cannot be made: No module named"),
        ("ase.calculators.emt:DFT", {}, "cannot be made: .* has no attribute 'DFT'"),
        ("ase.calculators.emt:EMT.DFT", {}, "has no attribute 'DFT'"),
        ("ase.calculators.emt:parameters", {}, "cannot be made: .*not callable"),
        ("math:sqrt", {"x": 1}, "cannot be made"),
        ("collections:Counter", {}, "is Counter, not an ASE calculator"),
        ("ase:Atoms", {}, "is Atoms, not an ASE calculator"),
        ("ase.calculators.checkpoint:CheckpointCalculator", {}, "missing 1 required"),
        ("builtins:int", {"base": 2}, "cannot be made"),
    ],
)
def test_what_is_no_calculator(path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_calculator(path, arguments)
    with pytest.raises(ValueError, match=message):
        AsePotential.from_path(path, arguments)


def test_errors_without_words_are_named():
    with pytest.raises(ValueError, match="cannot be made: StopIteration"):
        make_calculator(f"{__name__}:fail_without_words")


def test_only_calculators_are_adapted():
    emt, calculator = tfgen.EMT(), EMT()
    assert adapt(emt) is emt
    assert adapt(None) is None
    adapted = adapt(calculator)
    assert adapted.calculator is calculator
    assert adapt(adapted) is adapted
    # The same calculator is the same potential.
    assert (adapted == adapt(calculator), adapted == adapt(EMT())) == (True, False)
    assert len({adapted, adapt(calculator)}) == 1
    for wrong in (tfgen.EMT(), EMT, CLUSTER, None):
        with pytest.raises(ValueError, match=r"calculator is .*; an ASE calculator is needed"):
            AsePotential(wrong)


def test_names():
    assert AsePotential(LennardJones()).name == "ase.calculators.lj:LennardJones"
    potential = AsePotential.from_path("ase.calculators.lj:LennardJones", {"sigma": 2.0})
    assert (potential.name, potential.arguments) == (
        "ase.calculators.lj:LennardJones",
        {"sigma": 2},
    )
    assert repr(potential) == "AsePotential(ase.calculators.lj:LennardJones, calculations=0)"


def test_energies_and_forces_are_the_calculator_s():
    fixed = CLUSTER.copy()
    fixed.set_constraint(FixAtoms([0]))
    potential = AsePotential(EMT())
    found = potential.compute([CLUSTER, fixed])
    alone = CLUSTER.copy()
    alone.calc = EMT()
    assert found["energy"].tolist() == [alone.get_potential_energy()] * 2
    for forces in found["forces"]:  # constraints do not change them
        np.testing.assert_array_equal(forces, alone.get_forces())
    assert found["status"] == [Status.CONVERGED] * 2
    assert found["detail"] == ["", ""]
    assert potential.calculations == 2
    assert CLUSTER.calc is None
    assert potential.compute(CLUSTER)["energy"].shape == (1,)


def test_a_relaxation_is_the_one_of_ase():
    potential = AsePotential(EMT())
    found = potential.relax(CLUSTER, fmax=0.01)
    alone = CLUSTER.copy()
    alone.calc = EMT()
    with BFGS(alone, logfile=None) as optimizer:
        optimizer.run(fmax=0.01)
        assert found.steps == optimizer.get_number_of_steps()
    np.testing.assert_array_equal(found.structure.positions, alone.positions)
    assert found.energy == alone.get_potential_energy()
    assert found.fmax == np.linalg.norm(alone.get_forces(), axis=1).max() <= 0.01
    assert (found.status, found.detail, found.structure.calc) == (Status.CONVERGED, "", None)
    assert potential.calculations == found.calculations == found.steps + 2
    assert potential.relax(CLUSTER, fmax=0.01, max_steps=1).status == Status.NOT_CONVERGED


def test_nothing_is_remembered():
    # Their energy is the number of calculations since they were new or reset.
    for name in ("Hysteresis", "WithoutReset"):
        potential = AsePotential.from_path(f"{__name__}:{name}")
        assert potential.compute([CLUSTER] * 3)["energy"].tolist() == [1.0] * 3
    potential = AsePotential(Hysteresis())
    assert [potential.relax(CLUSTER).energy for _ in range(2)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("way", "detail"),
    [
        ("raise", "RuntimeError: no self-consistency after 100 steps"),
        ("energy", "energy or forces are not finite"),
        ("forces", "energy or forces are not finite"),
        ("shape", "ValueError: forces have the shape (1, 3)"),
        ("none", "TypeError: "),
    ],
)
def test_failures_are_statuses_of_their_structures(way, detail):
    other = Atoms("Au2", [[0, 0, 0], [0, 0, 2.5]])
    potential = AsePotential(Failing(way))
    with pytest.warns(tfgen.TfgenWarning, match="failed for 2 of 3 structures") as said:
        found = potential.compute([CLUSTER, other, CLUSTER])
    assert said[0].filename == __file__
    failed = Status.CALCULATOR_FAILED
    assert found["status"] == [failed, Status.CONVERGED, failed]
    assert [found["detail"][0].startswith(detail), found["detail"][1]] == [True, ""]
    assert np.isnan(found["energy"]).tolist() == [True, False, True]
    assert [np.isnan(f).all() for f in found["forces"]] == [True, False, True]
    assert found["forces"][0].shape == (4, 3)
    assert potential.calculations == 3
    if way not in ("shape", "none"):
        relaxed = potential.relax(CLUSTER)
        assert (relaxed.status, relaxed.detail) == (failed, detail)
        np.testing.assert_array_equal(relaxed.structure.positions, CLUSTER.positions)
        assert potential.calculations == 4


def test_an_interruption_passes(capfd):
    potential = AsePotential(Failing("interrupt"))
    for use in (potential.compute, potential.relax):
        with pytest.raises(KeyboardInterrupt):
            use(CLUSTER)
    print("back")
    assert capfd.readouterr().out == "back\n"


def test_what_calculators_print_is_kept_off_the_terminal(capfd, tmp_path):
    print("before")
    for log in (None, tmp_path / "log"):
        potential = AsePotential(Failing("talk"), log=log)
        assert potential.compute(CLUSTER)["status"] == [Status.CONVERGED]
        potential.relax(CLUSTER, max_steps=0)
    print("after")
    print("error", file=sys.stderr)
    assert capfd.readouterr() == ("before\nafter\n", "error\n")
    kept = (tmp_path / "log").read_text()
    for words in ("Python's own", "to standard error", "from below"):
        assert kept.count(words) == 2


def test_output_of_two_threads_comes_back_when_both_are_done(capfd):
    inside = threading.Barrier(2, timeout=30)

    def talk():
        with redirect_output():
            inside.wait()
            os.write(1, b"lost")
            inside.wait()

    threads = [threading.Thread(target=talk) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("kept")
    assert capfd.readouterr().out == "kept\n"


def test_calculations_of_several_threads_are_all_counted():
    potential = AsePotential(Hysteresis())
    threads = [threading.Thread(target=potential.compute, args=([CLUSTER] * 50,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert potential.calculations == 200


def fail_without_words():
    raise StopIteration


class Stranger:
    def get_potential_energy(self, atoms=None, force_consistent=False):
        return 0.0

    def get_forces(self, atoms=None):
        return None


def make_stranger():
    return Stranger()


class Hysteresis(Calculator):
    """Remembers what it did, as tblite does."""

    implemented_properties = ("energy", "forces")
    memory = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.memory += 1
        self.results = {"energy": float(self.memory), "forces": np.zeros([len(atoms), 3])}

    def reset(self):
        super().reset()
        self.memory = 0


class WithoutReset:
    """The same without a way to make it forget, and without ASE's base class."""

    memory = 0

    def get_potential_energy(self, atoms=None):
        return float(self.memory)

    def get_forces(self, atoms=None):
        self.memory += 1
        return np.zeros([len(atoms), 3])


class Failing(Calculator):
    """Fails for platinum in one of several ways."""

    implemented_properties = ("energy", "forces")

    def __init__(self, way):
        super().__init__()
        self.way = way

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 1.0, "forces": np.zeros([len(atoms), 3])}
        if atoms.numbers[0] != 78:
            return
        if self.way == "raise":
            raise RuntimeError("no self-consistency\nafter 100 steps")
        if self.way == "interrupt":
            raise KeyboardInterrupt
        if self.way in ("energy", "forces"):
            self.results[self.way] = self.results[self.way] * np.nan
        if self.way == "shape":
            self.results["forces"] = np.zeros([1, 3])
        if self.way == "none":
            self.results["energy"] = None
        if self.way == "talk":
            print("Python's own")
            print("to standard error", file=sys.stderr)
            os.write(1, b"from below\n")


def test_programs_that_read_input_files_take_any_argument():
    made = make_calculator("ase.calculators.qchem:QChem", {"scf_convergence": 8})
    assert made.parameters["scf_convergence"] == 8


class NeedsBox(EMT):
    """A calculator that refuses structures without a cell."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if atoms.cell.rank < 3:
            raise ValueError("no cell")
        low, high = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
        np.testing.assert_allclose(atoms.cell.lengths() - (high - low), 12.0, atol=4.0)
        super().calculate(atoms, properties, system_changes)


def test_a_box_that_only_the_calculator_sees():
    alone, boxed = AsePotential(EMT()), AsePotential(NeedsBox(), vacuum=6.0)
    with pytest.warns(tfgen.TfgenWarning, match="ValueError: no cell"):
        assert np.isnan(AsePotential(NeedsBox()).compute(CLUSTER)["energy"][0])
    found, expected = boxed.compute(CLUSTER), alone.compute(CLUSTER)
    np.testing.assert_allclose(found["energy"], expected["energy"], atol=1e-12)
    np.testing.assert_allclose(found["forces"][0], expected["forces"][0], atol=1e-12)
    found, expected = (p.relax(CLUSTER) for p in (boxed, alone))
    np.testing.assert_allclose(found.structure.positions, expected.structure.positions, atol=1e-9)
    assert found.energy == pytest.approx(expected.energy, abs=1e-12)
    assert found.structure.cell.rank == 0
    # Whoever has a cell keeps it.
    crystal = Atoms("Pt", cell=[[0, 2, 2], [2, 0, 2], [2, 2, 0]], pbc=True)
    energies = [p.compute(crystal)["energy"][0] for p in (alone, AsePotential(EMT(), vacuum=6.0))]
    assert energies[0] == energies[1]


class Forgetful(LennardJones):
    """Forces that are ten times too large right after a reset."""

    fresh = True

    def reset(self):
        super().reset()
        self.fresh = True

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["forces"] = self.results["forces"] * (10.0 if self.fresh else 1.0)
        self.fresh = False


def test_a_relaxation_ends_where_a_fresh_calculation_says_so():
    pair = Atoms("Ar2", [[0, 0, 0], [1.15, 0, 0]])
    assert AsePotential(LennardJones()).relax(pair, fmax=0.01).status == Status.CONVERGED
    found = AsePotential(Forgetful()).relax(pair, fmax=0.01)
    assert found.fmax == pytest.approx(0.032, abs=1e-4)
    assert found.status == Status.NOT_CONVERGED
    assert found.detail == "a fresh calculation at its end has a force of 0.032 eV/Å"
    # At most twice the limit is within what calculators reproduce.
    assert AsePotential(Forgetful()).relax(pair, fmax=0.017).status == Status.CONVERGED
