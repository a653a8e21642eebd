"""Import and export: nothing is lost on the way round; bad rows are named."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from imports import structures, write

from tfgen.datasets.importing import COINCIDENT, import_files
from tfgen.datasets.importing.files import opened
from tfgen.datasets.importing.notes import Notes
from tfgen.datasets.importing.readers import read
from tfgen.structures.properties import radius_of_gyration
from tfgen.warnings import TfgenWarning


@pytest.mark.parametrize("name", ["set.extxyz", "set.xyz", "set.traj", "set.db", "set.json"])
def test_structures_energies_and_properties_come_in(tmp_path, name):
    images = structures()
    path = write(tmp_path, images, name)
    dataset = import_files([path], properties=["band_gap"], units={"band_gap": "eV"})
    assert len(dataset) == 6
    for ours, theirs in zip(dataset.structures, images, strict=True):
        np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-8)
        np.testing.assert_array_equal(ours.numbers, theirs.numbers)
    expected = [a.info["band_gap"] for a in images]
    np.testing.assert_allclose(dataset.properties["band_gap"], expected, rtol=1e-12)
    np.testing.assert_allclose(dataset.properties["energy_per_atom"], (10 + np.arange(6)) / 5)
    np.testing.assert_allclose(
        dataset.properties["radius_of_gyration"], radius_of_gyration(images), atol=1e-7
    )
    assert dataset.units["band_gap"] == "eV"
    assert dataset.units["energy_per_atom"] == "eV/atom"
    assert dataset.metadata["kind"] == "imported"
    assert dataset.metadata["files"][0]["name"] == name
    assert dataset.metadata["counts"] == {"read": 6, "duplicates": 0, "kept": 6}


@pytest.mark.parametrize("name", ["POSCAR", "one.cif"])
def test_files_of_one_crystal_each(tmp_path, name):
    paths = []
    for place, element in enumerate(("Cu", "Au", "Pt")):
        folder = tmp_path / str(place)
        folder.mkdir()
        paths.append(write(folder, bulk(element, cubic=True), name))
    dataset = import_files(paths)
    assert [s.get_chemical_formula() for s in dataset.structures] == ["Cu4", "Au4", "Pt4"]
    assert dataset.structures[0].pbc.all()
    assert list(dataset.properties) == ["mean_coordination"]
    np.testing.assert_allclose(dataset.properties["mean_coordination"], 12)


def test_energies_in_info_and_ready_made_energies_per_atom(tmp_path):
    images = structures(3, energy=False)
    for i, atoms in enumerate(images):
        atoms.info["energy_per_atom"] = 0.1 * i
    assert import_files([write(tmp_path, images)]).properties["energy_per_atom"].tolist() == [
        0.0,
        0.1,
        0.2,
    ]


def test_no_energies_are_fine_and_units_may_be_unknown(tmp_path):
    path = write(tmp_path, structures(energy=False))
    assert "energy_per_atom" not in import_files([path]).properties
    dataset = import_files([path], properties=["band_gap", "band_gap"])
    assert dataset.units["band_gap"] == "unknown"
    assert len(import_files([path, path])) == 6


def test_of_duplicates_the_lowest_stays(tmp_path):
    images = structures(3)
    copy = images[0].copy()
    copy.rotate(40, "x")
    copy.positions *= -1
    copy.calc = SinglePointCalculator(copy, energy=-5.0)
    dataset = import_files([write(tmp_path, [*images, copy])])
    assert dataset.metadata["counts"] == {"read": 4, "duplicates": 1, "kept": 3}
    np.testing.assert_allclose(dataset.properties["energy_per_atom"], [2.2, 2.4, -1.0])


def test_the_seed_decides_on_the_split(tmp_path):
    path = write(tmp_path, structures(40))
    splits = [import_files([path], seed=s).split for s in (0, 0, 1)]
    np.testing.assert_array_equal(splits[0], splits[1])
    assert (splits[0] != splits[2]).any()
    np.testing.assert_array_equal(np.bincount(splits[0]), [32, 4, 4])


def spoil(change):
    images = structures(4)
    change(images[2])
    return images


def move_together(atoms):
    atoms.positions[1] = atoms.positions[0] + [0, 0, 0.9 * COINCIDENT]


def not_a_number(atoms):
    atoms.positions[3, 1] = np.nan


def no_energy(atoms):
    atoms.calc = None


def image_too_close(atoms):
    atoms.set_cell([0.3, 20, 20])
    atoms.pbc = [True, False, False]


def together_across_the_boundary(atoms):
    atoms.set_cell([20, 20, 20])
    atoms.pbc = True
    atoms.positions[1] = atoms.positions[0] + [20, -0.3, 20]


def no_cell(atoms):
    atoms.pbc = True


@pytest.mark.parametrize(
    ("change", "properties", "message"),
    [
        (not_a_number, [], "positions that are not finite"),
        (lambda a: a.positions.__setitem__((0, 0), np.inf), [], "positions that are not finite"),
        (move_together, [], r"atoms only 0.45 Å apart; at least 0.5 Å"),
        (image_too_close, [], "atoms only 0.3 Å apart"),
        (together_across_the_boundary, [], "atoms only 0.3 Å apart; at least 0.5 Å"),
        (no_cell, [], "periodic along an axis that has no cell vector"),
        (lambda a: a.__delitem__([0, 1, 2, 3]), [], "a single atom, which has no geometry"),
        (lambda a: a.__delitem__([0, 1, 2, 3, 4]), [], "no atoms"),
        (lambda a: a.symbols.__setitem__(0, "X"), [], "dummy atoms"),
        (no_energy, [], "no energy; every structure needs one"),
        (no_energy, ["energy_per_atom"], "no energy; every structure needs one"),
        (lambda a: a.calc.results.update(energy=np.nan), [], "'energy_per_atom' is nan"),
        (lambda a: a.info.pop("band_gap"), ["band_gap"], "no property 'band_gap'"),
        (lambda a: a.info.update(band_gap="wide"), ["band_gap"], "is 'wide'; a number is needed"),
        (lambda a: a.info.update(band_gap=True), ["band_gap"], "a number is needed"),
        (lambda a: a.info.update(band_gap=[1.0, 2.0]), ["band_gap"], "a number is needed"),
        (lambda a: a.info.update(band_gap=-np.inf), ["band_gap"], "is -inf; it must be finite"),
    ],
)
def test_the_row_of_a_bad_structure_is_named(tmp_path, change, properties, message):
    path = write(tmp_path, spoil(change), "set.traj")
    with pytest.raises(ValueError, match=message) as caught:
        import_files([path], properties=properties)
    assert f"{str(path)!r}, row 3: " in str(caught.value)


def test_energies_of_some_do_not_matter_when_another_property_is_asked_for(tmp_path):
    path = write(tmp_path, spoil(no_energy))
    with pytest.warns(TfgenWarning, match="row 3: no energy, which 1 of 4 structures lack; no en"):
        dataset = import_files([path], properties=["band_gap"])
    assert "energy_per_atom" not in dataset.properties


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.extxyz", "", "is empty"),
        ("a.h5", "\x89HDF\r\n\x1a\n", "is in no format that ASE can read"),
        ("a.py", "import os", "is in no format that ASE can read"),
        ("a.extxyz", "1\n\nAu 0 0 0\n1\n", "row 2: cannot be read as extxyz|a single atom"),
        ("a.extxyz", "\n\n", "holds no structures"),
        ("a.extxyz", "2\n\nPt 0 0 0\n", "row 1: cannot be read as extxyz"),
        ("a.extxyz", "two\n\nPt 0 0 0\n", "row 1: cannot be read as extxyz"),
        ("a.extxyz", "1\n\nPt 0 0 zero\n", "row 1: cannot be read as extxyz"),
        ("a.db", "this is not a data base", "cannot be read"),
        ("a.traj", "this is not a trajectory", "cannot be read"),
        ("a.json", "{", "cannot be read"),
        ("POSCAR", "Pt\n1.0\n", "cannot be read"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        import_files([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_breaks_off_is_refused_with_the_row(tmp_path):
    path = write(tmp_path, structures(3))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(ValueError, match="row [13]: cannot be read as extxyz"):
        import_files([path])


def test_nothing_is_skipped_after_an_empty_line(tmp_path):
    path = write(tmp_path, structures(3))
    path.write_text(path.read_text() + "\n \n")
    assert len(import_files([path])) == 3
    # ASE would take the three structures and not say that there are three more.
    path.write_text(path.read_text() + write(tmp_path, structures(3), "b.extxyz").read_text())
    with pytest.raises(ValueError, match="row 4: .* an empty line, after which ASE reads no more"):
        import_files([path])


@pytest.mark.parametrize("mode", ["whole", "truncated", "damaged"])
def test_compressed_files(tmp_path, mode):
    path = tmp_path / "set.extxyz.gz"
    content = gzip.compress(write(tmp_path, structures(70), "set.extxyz").read_bytes())
    if mode == "whole":
        path.write_bytes(content)
        assert len(import_files([path])) == 70
        return
    half = len(content) // 2
    path.write_bytes(content[:half] + (b"" if mode == "truncated" else b"x" * half))
    with pytest.raises(ValueError, match=r"is truncated|row 1: cannot be read as extxyz"):
        import_files([path])


def test_rows_of_a_data_base_come_page_by_page_and_in_order(tmp_path):
    path = write(tmp_path, structures(7), "set.db")
    with opened(path, None, Notes()) as source:
        rows = list(read(source, Notes(), page=3))
    assert [row.values["energy"] for row in rows] == (10 + np.arange(7)).tolist()
    assert [row.share for row in rows] == [(i + 1) / 7 for i in range(7)]
    dataset = import_files([path])
    np.testing.assert_allclose(dataset.properties["energy_per_atom"], (10 + np.arange(7)) / 5)
    with ase.db.connect(path) as database:
        database.update(6, delete_keys=["band_gap"])
    with pytest.raises(ValueError, match="row 6: no property 'band_gap'"):
        import_files([path], properties=["band_gap"])


def test_units_come_from_a_data_base_unless_they_are_given(tmp_path):
    paths = [write(tmp_path, structures(2), name) for name in ("a.db", "b.db", "c.db", "d.db")]
    for path, described in zip(
        paths, (("gap", "", "eV"), ("gap", "", "meV"), ("gap", "", ""), "gap"), strict=True
    ):
        with ase.db.connect(path) as database:
            database.metadata = {"key_descriptions": {"band_gap": described}}

    def unit(*files, **units):
        return import_files(files, properties=["band_gap"], units=units).units["band_gap"]

    assert unit(paths[0]) == "eV"
    assert unit(paths[1], band_gap="hartree") == "hartree"
    assert [unit(path) for path in paths[2:]] == ["unknown", "unknown"]
    with pytest.raises(
        ValueError, match="b.db', row 1: property 'band_gap' is in meV, but in eV before"
    ):
        unit(*paths[:2])


def test_many_files_are_named_in_short(tmp_path):
    paths = [write(tmp_path, structures(6)[i : i + 1], f"{i}.xyz") for i in range(6)]
    metadata = import_files(paths).metadata
    assert metadata["description"] == "imported from 0.xyz, 1.xyz, 2.xyz and 3 more"
    assert [f["name"] for f in metadata["files"]] == [path.name for path in paths]


def test_progress_is_in_bytes_of_all_files(tmp_path, capsys):
    paths = [write(tmp_path, structures(5), name) for name in ("a.xyz", "b.traj", "c.db")]
    import_files(paths, progress=True)
    shown = capsys.readouterr().err
    assert "15 structures" in shown
    bars = {line.split(":")[0] for line in re.split("[\r\n]", shown) if "100%" in line}
    assert bars == {"reading", "comparing"}


def test_importing_does_not_wait_for_tensorflow():
    code = "import sys, tfgen.datasets.importing; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bad_arguments(tmp_path):
    path = write(tmp_path, structures(2))
    with pytest.raises(FileNotFoundError, match="none.xyz' does not exist"):
        import_files([tmp_path / "none.xyz"])
    with pytest.raises(FileNotFoundError, match="is a folder"):
        import_files([tmp_path])
    with pytest.raises(ValueError, match="files is empty"):
        import_files([])
    with pytest.raises(ValueError, match="seed is -1"):
        import_files([path], seed=-1)
    with pytest.raises(ValueError, match="duplicate_tolerance is -1"):
        import_files([path], duplicate_tolerance=-1)
    with pytest.raises(ValueError, match="fractions are"):
        import_files([path], fractions=(0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="unit is given for 'colour'"):
        import_files([path], units={"colour": "nm"})
