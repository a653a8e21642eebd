"""Calculators in worker processes: crashes, hangs, and results that are kept."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

import tfgen
from tfgen.execution.dask import dask_executor
from tfgen.execution.results import ResultStore
from tfgen.execution.worker_potential import WorkerPotential
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.properties import calculator_functions, make_functions
from tfgen.structures.status import Status

CLUSTERS = [
    Atoms("Pt4", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.2, 0], [1.2, 0.7, 2.1 + 0.1 * k]])
    for k in range(3)
]
FAULTY = f"{__name__}:Faulty"


class Faulty(EMT):
    """Crashes, hangs or raises an error where the first bond is of a certain length."""

    implemented_properties = (*EMT.implemented_properties, "dipole")

    def __init__(self, log: str = "") -> None:
        super().__init__()
        self.made = log
        if log:
            with open(log, "a") as file:  # noqa: PTH123
                file.write("made\n")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        print("the calculator talks")
        length = atoms.get_distance(0, 1)
        if length > 9.0:
            print("charge is not conserved", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if length > 8.0:
            time.sleep(600.0)
        if length > 7.0:
            raise RuntimeError("no SCF")
        if length > 6.0:
            sys.exit("licence expired")
        if self.made:
            with open(self.made, "a") as file:  # noqa: PTH123
                file.write("computed\n")
        super().calculate(atoms, properties, system_changes)
        self.results["dipole"] = np.array([0.0, 3.0, 4.0])


def width(atoms: Atoms) -> float:
    return float(np.ptp(atoms.positions[:, 0]))


@pytest.fixture(scope="module")
def potential():
    with WorkerPotential(FAULTY, workers=2, time_limit=300.0, tries=1) as potential:
        yield potential


def test_values_are_the_calculator_s(potential):
    functions = [*make_functions({"w": width}), *calculator_functions(potential, ["dipole"])]
    found = potential.calculate(CLUSTERS, functions)
    alone = AsePotential(EMT()).compute(CLUSTERS)
    assert [one.energy for one in found] == alone["energy"].tolist()
    for one, forces in zip(found, alone["forces"], strict=True):
        np.testing.assert_array_equal(one.forces, forces)
        assert one.values == {"w": 2.6, "dipole": 5.0}
    relaxed = tfgen.relax(CLUSTERS, potential)
    expected = tfgen.relax(CLUSTERS, EMT())
    np.testing.assert_array_equal(relaxed.energy, expected.energy)
    np.testing.assert_array_equal(relaxed.calculations, expected.calculations)
    for one, other in zip(relaxed.structures, expected.structures, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
    assert potential.calculations >= 3 + relaxed.calculations.sum()


def test_crashes_hangs_and_errors_are_statuses(potential, capfd, monkeypatch):
    potential.calculate(CLUSTERS)  # both processes have imported what they need
    monkeypatch.setattr(potential, "_time_limit", 4.0)
    bad = [Atoms("Pt2", [[0, 0, 0], [x, 0, 0]]) for x in (7.5, 8.5, 9.5, 6.5)]
    advanced = []
    found = potential.calculate([CLUSTERS[0], *bad], advance=lambda: advanced.append(1))
    statuses = [Status.CONVERGED, Status.CALCULATOR_FAILED, Status.TIME_LIMIT, Status.CRASHED]
    assert [one.status for one in found] == [*statuses, Status.CALCULATOR_FAILED]
    assert [one.detail for one in found] == [
        "", "RuntimeError: no SCF", "stopped after 4 s", "the worker process was ended by SIGSEGV",
        "SystemExit: licence expired",
    ]  # fmt: skip
    assert len(advanced) == 5
    # The same of relaxations, and those after them go on, in processes that have to start.
    monkeypatch.setattr(potential, "_time_limit", 300.0)
    relaxed = potential.relax_all([bad[0], bad[2], CLUSTERS[0]])
    assert [r.status for r in relaxed] == [statuses[1], statuses[3], Status.CONVERGED]
    np.testing.assert_array_equal(relaxed[1].structure.positions, bad[2].positions)
    assert capfd.readouterr() == ("", "")


def test_results_are_kept_and_not_computed_again(tmp_path):
    log, path = tmp_path / "log", tmp_path / "results"
    functions = make_functions({"w": width})

    def run():
        with WorkerPotential(FAULTY, {"log": str(log)}, results=ResultStore(path)) as potential:
            found = potential.calculate(CLUSTERS, functions), potential.relax_all(CLUSTERS)
            return *found, potential.calculations

    first = run()
    lines = log.read_text().splitlines()
    # The process has made its calculator once.
    assert lines.count("made") == 1
    assert lines.count("computed") == first[2] > 6
    again = run()
    assert log.read_text().splitlines().count("computed") == first[2] == again[2]
    for one, other in zip(first[0], again[0], strict=True):
        np.testing.assert_array_equal(one.forces, other.forces)
        assert (one.energy, one.values, one.status) == (other.energy, other.values, other.status)
    for one, other in zip(first[1], again[1], strict=True):
        np.testing.assert_array_equal(one.structure.positions, other.structure.positions)
        assert (one.energy, one.steps, one.calculations) == (
            other.energy, other.steps, other.calculations,
        )  # fmt: skip


def test_functions_that_are_mended_or_changed_are_called_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module, path = tmp_path / "changing_properties.py", tmp_path / "results"
    values = []
    for text in ("1 / 0", "2.0", "2.0", "3.0"):
        module.write_text(f"def number(atoms):\n    return {text}\n")
        importlib.invalidate_caches()
        sys.modules.pop("changing_properties", None)
        functions = make_functions({"number": "changing_properties:number"})
        with WorkerPotential(FAULTY, results=ResultStore(path)) as potential:
            values.append(potential.calculate(CLUSTERS[:1], functions)[0].values["number"])
    assert values == pytest.approx([np.nan, 2.0, 2.0, 3.0], nan_ok=True)
    # The failure was not kept, and what does not change is kept once.
    assert len(ResultStore(path)) == 2


def in_main(atoms: Atoms) -> float:
    return 1.0


def test_relaxed_structures_carry_what_they_came_with(potential):
    atoms = CLUSTERS[0].copy()
    atoms.info["name"] = "one"
    atoms.set_array("weight", np.arange(4.0))
    for relaxer in (potential, AsePotential(EMT())):
        relaxed = relaxer.relax(atoms)
        assert relaxed.structure.info == {"name": "one"}
        np.testing.assert_array_equal(relaxed.structure.arrays["weight"], np.arange(4.0))


def test_a_calculator_in_a_box_is_made_once(tmp_path):
    log = tmp_path / "log"
    with WorkerPotential(FAULTY, {"log": str(log)}, vacuum=5.0) as potential:
        potential.calculate(CLUSTERS)
    assert log.read_text().splitlines().count("made") == 1


def test_functions_of_no_module_are_refused(potential, monkeypatch):
    monkeypatch.setattr(in_main, "__module__", "__main__")
    for function in (lambda _: 1.0, in_main):
        with pytest.raises(ValueError, match="compute w: .*cannot be sent to worker processes"):
            potential.calculate(CLUSTERS, make_functions({"w": function}))


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("no_such_module:EMT", {}, "cannot be made: No module"),
        ("os:abort", {"tries": 1}, "'os:abort' cannot be made: the worker process was ended"),
        (FAULTY, {"workers": 0}, "workers is 0; at least 1 is needed"),
        (FAULTY, {"time_limit": 0}, "time_limit is 0; a number of seconds above 0"),
    ],
)
def test_what_cannot_be_made(path, options, message):
    with pytest.raises(ValueError, match=message):
        WorkerPotential(path, **options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_on_a_dask_cluster():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    path = "ase.calculators.emt:EMT"
    expected = AsePotential(EMT()).compute(CLUSTERS)["energy"]
    with (
        distributed.LocalCluster(**options) as cluster,
        dask_executor(cluster.scheduler_address) as executor,
    ):
        with WorkerPotential(path, executor=executor, time_limit=60.0) as potential:
            found = potential.calculate(CLUSTERS, calculator_functions(potential, ["free_energy"]))
            assert potential.relax(CLUSTERS[0]).status == Status.CONVERGED
        with pytest.raises(ValueError, match="'no_such:EMT' cannot be made: No module"):
            WorkerPotential("no_such:EMT", executor=executor)
    assert [one.energy for one in found] == expected.tolist()
    assert [one.values["free_energy"] for one in found] == expected.tolist()


def test_a_calculator_that_ends_its_process_is_quoted(tmp_path):
    with WorkerPotential(FAULTY, tries=1, log=tmp_path / "log") as potential:
        found = potential.calculate([Atoms("Pt2", [[0, 0, 0], [9.5, 0, 0]])])[0]
    assert found.status == Status.CRASHED
    words = "the worker process was ended by SIGSEGV; printed last: charge is not conserved"
    assert found.detail == words


def sum_of_moments(atoms: Atoms) -> float:
    return float(atoms.get_initial_magnetic_moments().sum() + atoms.info.get("charge", 0))


def test_states_of_one_geometry_are_not_mixed_up(potential):
    """Spin and charge reach the calculator, and have results of their own."""
    singlet, triplet, ion = (CLUSTERS[0].copy() for _ in range(3))
    triplet.set_initial_magnetic_moments([0.5] * 4)
    ion.info = {"charge": 1, "record": {"of": "something else"}}
    functions = make_functions({"m": sum_of_moments})
    found = potential.calculate([singlet, triplet, ion], functions)
    assert [one.values["m"] for one in found] == [0.0, 2.0, 1.0]


def test_results_of_another_version_of_the_calculator_are_not_taken(tmp_path, monkeypatch):
    module = tmp_path / "mine.py"
    monkeypatch.syspath_prepend(tmp_path)
    code = (
        "from ase.calculators.lj import LennardJones\n"
        "def make(): return LennardJones(epsilon=EPSILON)\n"
    )
    energies = []
    for epsilon in ("1.0", "1.0", "2.0"):
        module.write_text(code.replace("EPSILON", epsilon))
        importlib.invalidate_caches()
        store = ResultStore(tmp_path / "results")
        with WorkerPotential("mine:make", results=store) as potential:
            energies.append(potential.calculate(CLUSTERS[:1])[0].energy)
    assert len(store) == 2
    assert energies[2] == pytest.approx(2.0 * energies[0])
    assert energies[1] == energies[0]


def test_a_log_that_cannot_be_opened_is_done_without(tmp_path):
    """As on another machine, where the folder of the log is not there."""
    log = tmp_path / "not" / "there"
    found = AsePotential(EMT(), log=log).calculate(CLUSTERS[:1])
    assert found[0].status == Status.CONVERGED
    assert not log.exists()
