"""Properties that builds compute: by functions and calculators, once each, failures counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.calculators import emt
from ase.calculators.lj import LennardJones
from own_properties import nothing, only_of_four, span, stretched, text

from tfgen.datasets import building
from tfgen.datasets.building import build, partial_folder
from tfgen.datasets.recipe import Recipe, Relax, Sample
from tfgen.datasets.settings import BuildSettings
from tfgen.datasets.storage import Dataset
from tfgen.structures.status import Status
from tfgen.warnings import TfgenWarning

HERE = "own_properties"
EMT = Recipe("tiny", Sample(("Pt4", "Pt5"), 8), relax=Relax(rattle=0.0), text="by EMT")
ASE = Relax("ase.calculators.lj:LennardJones", {"sigma": 2.4, "rc": 20.0}, rattle=0.0, fmax=0.05)
LJ = Recipe("lj", Sample(("Pt4", "Pt5"), 4), relax=ASE, text="by Lennard-Jones")


def expected_stretch(calculator, dataset: Dataset) -> list[float]:
    values = []
    for atoms in dataset.structures:
        atoms = atoms.copy()
        atoms.calc = calculator
        before = atoms.get_potential_energy()
        atoms.positions *= 1.05
        values.append(atoms.get_potential_energy() - before)
    return values


def test_functions_have_the_recipe_s_potential(tmp_path):
    compute = {"span": span, "stretched": f"{HERE}:stretched"}
    dataset = build(EMT, tmp_path / "x.h5", compute=compute)
    spans = [s.get_all_distances().max() for s in dataset.structures]
    np.testing.assert_array_equal(dataset.properties["span"], spans)
    expected = expected_stretch(emt.EMT(), dataset)
    np.testing.assert_allclose(dataset.properties["stretched"], expected, atol=1e-9)
    assert dataset.units["span"] == "unknown"
    assert dataset.metadata["evaluated_by"] == {
        "energy_per_atom": "emt",
        "radius_of_gyration": "geometry",
        "asphericity": "geometry",
        "mean_coordination": "geometry",
        "span": f"{HERE}:span",
        "stretched": f"{HERE}:stretched",
    }
    # Nothing else has changed.
    plain = build(EMT, tmp_path / "plain.h5")
    np.testing.assert_array_equal(plain.split, dataset.split)
    for name, values in plain.properties.items():
        np.testing.assert_array_equal(dataset.properties[name], values)
    assert list(plain.metadata["evaluated_by"]) == list(plain.properties)


def test_functions_in_worker_processes(tmp_path):
    compute = {"stretched": f"{HERE}:stretched"}
    dataset = build(LJ, tmp_path / "x.h5", compute=compute, workers=2)
    expected = expected_stretch(LennardJones(sigma=2.4, rc=20.0), dataset)
    np.testing.assert_allclose(dataset.properties["stretched"], expected, atol=1e-9)
    assert dataset.metadata["evaluated_by"]["energy_per_atom"] == ASE.potential


def test_the_recipe_s_own(tmp_path):
    recipe = dataclasses.replace(EMT, compute={"span": f"{HERE}:span"})
    both = build(recipe, tmp_path / "x.h5", compute={"stretched": stretched})
    assert {"span", "stretched"} <= set(both.properties)


def test_dipoles_of_silicon_by_xtb(tmp_path):
    from tblite.ase import TBLite

    arguments = {"method": "GFN2-xTB", "verbosity": 0}
    relax = Relax("tblite.ase:TBLite", arguments, rattle=0.0, fmax=0.1, max_steps=100)
    recipe = Recipe("si", Sample(("Si4", "Si5"), 2), relax=relax, compute={"dipole": "calculator"})
    dataset = build(recipe, tmp_path / "x.h5")
    assert len(dataset) > 1
    for atoms, dipole in zip(dataset.structures, dataset.properties["dipole"], strict=True):
        atoms = atoms.copy()
        atoms.calc = TBLite(**arguments)
        atoms.get_potential_energy()
        assert dipole == pytest.approx(np.linalg.norm(atoms.get_dipole_moment()), abs=1e-4)
    assert dataset.units["dipole"] == "e Å"
    assert dataset.metadata["evaluated_by"]["dipole"] == "tblite.ase:TBLite"


def test_structures_without_the_property_are_dropped_and_counted(tmp_path):
    with pytest.warns(TfgenWarning, match="most often: g: RuntimeError: no SCF"):
        dataset = build(EMT, tmp_path / "x.h5", compute={"g": only_of_four})
    counts = dataset.metadata["counts"]
    plain = build(EMT, tmp_path / "plain.h5")
    sizes = [len(s) for s in plain.structures]
    assert counts["property failed"] == sizes.count(5) > 0
    assert counts["kept"] == len(dataset) == sizes.count(4)
    assert {len(s) for s in dataset.structures} == {4}


@pytest.mark.parametrize("recipe", [EMT, LJ])
def test_a_function_that_never_works_loses_nothing(tmp_path, monkeypatch, recipe):
    path = tmp_path / "x.h5"
    for function, said in ((nothing, "it returned nan"), (text, "it returned '3'")):
        with pytest.raises(ValueError, match=f"leaves no structures: .* property failed.*{said}"):
            build(recipe, path, compute={"g": f"{HERE}:{function.__name__}"})
    assert not path.exists()
    # With one that works, nothing is relaxed again.
    monkeypatch.setattr(building, "_start_runner", lambda *_: 1 / 0)
    assert len(build(recipe, path, compute={"g": f"{HERE}:span"})) > 0
    assert not partial_folder(path).exists()


def test_an_interruption_repeats_no_call(tmp_path):
    path, calls = tmp_path / "x.h5", []

    def counted(atoms):
        calls.append(len(atoms))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 1.0 * len(atoms)

    with pytest.raises(KeyboardInterrupt):
        build(EMT, path, compute={"size": counted})
    dataset = build(EMT, path, compute={"size": counted})
    assert len(calls) == len(dataset) + 1
    np.testing.assert_array_equal(dataset.properties["size"], [len(s) for s in dataset.structures])


def test_a_finished_build_with_other_properties_is_not_taken_for_this_one(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with monkeypatch.context() as patch:
        patch.setattr(building, "_remove", lambda _: None)  # killed in its last moment
        build(EMT, path, compute={"span": span})
    with pytest.raises(FileExistsError):
        build(EMT, path)
    assert "span" in build(EMT, path, compute={"span": span}).properties
    assert not partial_folder(path).exists()


@pytest.mark.parametrize(
    ("relax", "compute", "message"),
    [
        (Relax(), {"g": "no_such_module:g"}, "compute g: 'no_such_module:g' cannot be imported"),
        (Relax(), {"g": f"{HERE}:NO_FUNCTION"}, "is a str, not a function"),
        (Relax(), {"dipole": None}, "compute: dipole has no function, and emt does not compute it"),
        (ASE, {"dipole": None}, "dipole has no function, and .*LennardJones does not compute it"),
        (Relax(), {"fmax": span}, "compute fmax: tfgen computes fmax itself"),
        (Relax(), {"asphericity": span}, "compute asphericity: tfgen computes asphericity itself"),
        (ASE, {"g": lambda _: 1.0}, "compute g: .* cannot be sent to worker processes"),
        (Relax(), {"own": span}, "compute own: the recipe computes it already"),
    ],
)
def test_what_cannot_be_computed_is_said_before_any_work(tmp_path, relax, compute, message):
    recipe = dataclasses.replace(EMT, relax=relax, compute={"own": f"{HERE}:span"})
    with pytest.raises(ValueError, match=message):
        build(recipe, tmp_path / "x.h5", compute=compute)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_of_a_function_is_a_failure_of_its_structure(tmp_path):
    with pytest.warns(TfgenWarning, match="most often: the worker process ended with code 3"):
        dataset = build(
            LJ, tmp_path / "x.h5", compute={"g": f"{HERE}:leave"}, settings=BuildSettings(tries=1)
        )
    assert dataset.metadata["counts"][str(Status.PROPERTY_FAILED)] > 0
    assert {len(s) for s in dataset.structures} == {4}
