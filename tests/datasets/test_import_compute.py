"""Properties that functions compute on imported structures, and splits by groups of near copies."""

from __future__ import annotations

import ase.db
import ase.io
import numpy as np
import own_properties
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tfgen.datasets.importing import import_files
from tfgen.execution.results import ResultStore
from tfgen.sampling.initial import random_structures
from tfgen.warnings import TfgenWarning


def structures(count: int = 12) -> list[Atoms]:
    """Different clusters, each with results and with values in its comment line."""
    rng = np.random.default_rng(0)
    numbers = np.repeat([29, 78], [4, 5])
    images = []
    for i, positions in enumerate(random_structures(numbers, count, rng)):
        atoms = Atoms(numbers, positions=positions)
        atoms.info.update(homo=-5.0 - i, lumo=-4.0 + 0.5 * i)
        dipole = rng.normal(size=3)
        atoms.calc = SinglePointCalculator(atoms, energy=10.0 + i, dipole=dipole)
        images.append(atoms)
    return images


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "set.extxyz"
    ase.io.write(path, structures())
    return path


def gap(atoms: Atoms) -> float:
    return atoms.info["lumo"] - atoms.info["homo"]


def doubled(atoms: Atoms) -> float:
    return 2.0 * atoms.get_potential_energy()


def without_first(atoms: Atoms) -> float:
    if atoms.info["homo"] == -5.0:
        raise RuntimeError("no\nSCF")
    return 1.0


def test_functions_have_what_the_file_gave(file):
    compute = {"gap": gap, "doubled": doubled, "span": "own_properties:span", "dipole": None}
    dataset = import_files([file], compute=compute)
    images = structures()
    expected = {
        "gap": [1.0 + 1.5 * i for i in range(12)],
        "doubled": [20.0 + 2 * i for i in range(12)],
        "span": [own_properties.span(s) for s in images],
        "dipole": [np.linalg.norm(s.calc.results["dipole"]) for s in images],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(dataset.properties[name], values, atol=1e-6)
    by = dataset.metadata["evaluated_by"]
    assert by["gap"] == f"{__name__}:gap"
    assert by["span"] == "own_properties:span"
    assert by["dipole"] == by["energy_per_atom"] == "file"
    assert by["asphericity"] == "geometry"
    assert set(by) == set(dataset.properties)
    assert dataset.units["dipole"] == "e Å"
    assert import_files([file], compute={"gap": gap}, units={"gap": "eV"}).units["gap"] == "eV"


def test_columns_of_a_database(tmp_path):
    path = tmp_path / "set.db"
    with ase.db.connect(path) as database:
        for atoms in structures():
            database.write(atoms, **atoms.info)
    dataset = import_files([path], compute={"gap": gap, "doubled": doubled})
    np.testing.assert_allclose(dataset.properties["gap"], 1.0 + 1.5 * np.arange(12))
    np.testing.assert_allclose(dataset.properties["doubled"], 20.0 + 2 * np.arange(12))


def test_what_fails_ends_the_import_or_is_skipped_and_counted(file):
    with pytest.raises(ValueError, match=r"set.extxyz', row 1: compute g: RuntimeError: no SCF$"):
        import_files([file], compute={"g": without_first})
    dataset = import_files([file], compute={"g": without_first}, missing="skip")
    counts = dataset.metadata["counts"]
    assert (counts["read"], counts["property failed"], counts["kept"]) == (12, 1, 11)
    np.testing.assert_allclose(dataset.properties["energy_per_atom"], np.arange(11, 22) / 9)
    with pytest.raises(ValueError, match="no structures are left: for all 12, compute g: .* nan"):
        import_files([file], compute={"g": own_properties.nothing}, missing="skip")


def test_what_was_computed_before_an_interruption_is_kept(file, tmp_path):
    calls = []

    def fussy(atoms: Atoms) -> float:
        calls.append(atoms)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return float(len(calls))

    path = tmp_path / "results"
    with pytest.raises(KeyboardInterrupt):
        import_files([file], compute={"x": fussy}, results=ResultStore(path))
    dataset = import_files([file], compute={"x": fussy}, results=ResultStore(path))
    assert len(calls) == 8 + 5
    assert sorted(dataset.properties["x"]) == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13]
    # Values of the file are given to the function, too: others are another task.
    changed = ase.io.read(file, ":")
    for atoms in changed:
        atoms.info["new"] = 1.0
    ase.io.write(tmp_path / "changed.extxyz", changed)
    import_files([tmp_path / "changed.extxyz"], compute={"x": fussy}, results=ResultStore(path))
    assert len(calls) == 13 + 12


def test_computed_properties_tell_equal_geometries_apart(tmp_path):
    path = tmp_path / "a.extxyz"
    images = structures(1) * 3
    images = [s.copy() for s in images]
    for i, atoms in enumerate(images):
        atoms.info["lumo"] = [1.0, 2.0, 1.0][i]
    ase.io.write(path, images)
    assert len(import_files([path])) == 1
    assert len(import_files([path], compute={"gap": gap})) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": {"g": "no_such_module:g"}}, "compute g: .* cannot be imported: No module"),
        ({"compute": {"g": "own_properties:NO_FUNCTION"}}, "is a str, not a function"),
        ({"compute": {"g": None}}, "compute g: there is no function, and the properties that calc"),
        (
            {"compute": {"gap": gap}, "properties": ["gap"]},
            "'gap' is both asked for .*and computed",
        ),
        ({"compute": {"energy": gap}}, "compute energy: tfgen computes energy itself"),
        ({"compute": {"magmom": None}}, "row 1: compute magmom: PropertyNotImplementedError"),
    ],
)
def test_what_cannot_be_computed(file, options, message):
    with pytest.raises(ValueError, match=message):
        import_files([file], **options)


def test_a_file_without_results_has_no_calculator(tmp_path):
    path = tmp_path / "a.extxyz"
    images = structures()
    for atoms in images:
        atoms.calc = None
    ase.io.write(path, images)

    def there(atoms):
        return float(atoms.calc is not None)

    assert not import_files([path], compute={"there": there}).properties["there"].any()
    with pytest.raises(ValueError, match="row 1: compute dipole: ValueError: there is no dipole"):
        import_files([path], compute={"dipole": None})


# ---- Splits


def copies(tmp_path, images, count, deviation):
    rng = np.random.default_rng(3)
    rows = []
    for place, atoms in enumerate(images):
        for _ in range(count):
            copy = Atoms(atoms.numbers, positions=atoms.positions)
            copy.positions += deviation * rng.normal(size=copy.positions.shape)
            copy.info["origin"] = place
            rows.append(copy)
    path = tmp_path / "copies.extxyz"
    ase.io.write(path, [rows[i] for i in rng.permutation(len(rows))])
    return path


def test_copies_are_in_one_split(tmp_path):
    path = copies(tmp_path, structures(20), 6, 0.1)
    dataset = import_files([path], properties=["origin"])
    origin = dataset.properties["origin"]
    for place in range(20):
        assert len(set(dataset.split[origin == place].tolist())) == 1
    assert np.bincount(dataset.split).tolist() == [96, 12, 12]
    assert dataset.metadata["groups"] == 20


def test_structures_that_are_no_copies_are_split_as_ever(file):
    dataset = import_files([file], seed=4)
    expected = np.repeat([0, 1, 2], [10, 1, 1])[np.random.default_rng(4).permutation(12)]
    np.testing.assert_array_equal(dataset.split, expected)
    assert dataset.metadata["groups"] == 12


def test_copies_of_one_structure_are_split_at_random_and_it_is_said(tmp_path):
    path = copies(tmp_path, structures(1), 30, 0.05)
    with pytest.warns(TfgenWarning, match="all 30 structures are near copies of one structure"):
        dataset = import_files([path], duplicates="keep")
    assert np.bincount(dataset.split).tolist() == [24, 3, 3]


def test_most_of_one_run_are_for_training(tmp_path):
    one = copies(tmp_path, structures(1), 45, 0.05)
    others = tmp_path / "others.extxyz"
    ase.io.write(others, [Atoms(s.numbers, positions=s.positions) for s in structures(6)[1:]])
    with pytest.warns(TfgenWarning, match="45 of 50 structures are near copies of each other"):
        dataset = import_files([one, others], duplicates="keep")
    assert np.bincount(dataset.split).tolist() == [46, 2, 2]
