"""Import and export: nothing is lost on the way round."""

from __future__ import annotations

import errno

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from disks import files_limited_to
from hypothesis import given, settings
from hypothesis import strategies as st
from imports import structures, write

from tfgen.datasets.exporting import export, in_box, losses
from tfgen.datasets.importing import import_files
from tfgen.datasets.importing.files import opened
from tfgen.datasets.importing.notes import Notes
from tfgen.datasets.importing.readers import read
from tfgen.datasets.importing.values import property_value
from tfgen.datasets.storage import Dataset


def mixed() -> Dataset:
    rng = np.random.default_rng(4)
    crystal = bulk("Au", cubic=True)
    crystal.rattle(0.1, seed=2)
    slab = bulk("Pt", cubic=True)
    slab.set_cell([[4, 0, 0], [1, 4, 0], [0.3, 0, 20 / 3]])
    slab.pbc = [True, True, False]
    boxed = Atoms("CuPt2", 2 * np.eye(3) + 1 / 3, cell=[7, 8, 9])
    clusters = [Atoms("Cu2Pt", rng.random((3, 3)) + 3 * np.eye(3)) for _ in range(7)]
    images = [*clusters, crystal, slab, boxed]
    values = {"gap": rng.normal(size=10) * 1e-7, "energy_per_atom": rng.normal(size=10)}
    units = {"gap": "meV", "energy_per_atom": "eV/atom"}
    forces = [rng.normal(size=(len(s), 3)) for s in images]
    return Dataset(images, values, units, np.arange(10) % 3, {"name": "mixed"}, forces)


def assert_same(a: Dataset, b: Dataset) -> None:
    for ours, theirs in zip(a.structures, b.structures, strict=True):
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        np.testing.assert_array_equal(ours.numbers, theirs.numbers)
        np.testing.assert_array_equal(ours.cell.array, theirs.cell.array)
        np.testing.assert_array_equal(ours.pbc, theirs.pbc)
    for key, values in a.properties.items():
        np.testing.assert_array_equal(values, b.properties[key])
    if a.forces is not None:
        for ours, theirs in zip(a.forces, b.forces, strict=True):
            np.testing.assert_array_equal(ours, theirs)


EXACT = ["out.extxyz", "out.xyz", "out.extxyz.gz", "out.traj", "out.db", "out.json"]


@pytest.mark.parametrize("name", EXACT)
def test_export_and_import_lose_nothing(tmp_path, name):
    dataset = mixed()
    path = tmp_path / name
    assert export(dataset, path) == 10
    units = {} if path.suffix in (".db", ".json") else {"gap": "meV"}
    back = import_files([path], properties=["gap"], units=units, duplicate_tolerance=0.0)
    assert len(back) == 10
    assert_same(dataset, back)
    assert back.units["gap"] == "meV"


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["out.extxyz", "out.traj", "out.db"]))
def test_any_structure_and_number_survives_to_the_last_bit(tmp_path_factory, seed, name):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(4):
        n = int(rng.integers(1, 6))
        positions = rng.normal(size=(n, 3)) * 10.0 ** rng.integers(-3, 4)
        cell = rng.normal(size=(3, 3)) * rng.choice([0, 1, 30], size=(3, 1))
        pbc = (rng.random(3) < 0.5) & cell.any(axis=1)
        images.append(Atoms(rng.integers(1, 100, n), positions, cell=cell, pbc=pbc))
    values = rng.normal(size=(2, 4)) * 10.0 ** rng.integers(-300, 300, size=(2, 4))
    properties = dict(zip(("energy_per_atom", "gap"), values, strict=True))
    units = {"energy_per_atom": "eV/atom", "gap": "1"}
    dataset = Dataset(images, properties, units, np.zeros(4))
    path = tmp_path_factory.mktemp("exported") / name
    export(dataset, path)
    with opened(path, None, Notes()) as source:
        rows = list(read(source, Notes()))
    found = {
        k: np.array([property_value(r.values, r.units, k, len(r.structure), "") for r in rows])
        for k in properties
    }
    assert_same(dataset, Dataset([r.structure for r in rows], found, dataset.units, np.zeros(4)))


@pytest.mark.parametrize("name", ["out.extxyz", "out.traj", "out.db"])
def test_import_export_import_gives_the_same_data_set(tmp_path, name):
    once = import_files([write(tmp_path, structures(12))], properties=["band_gap"])
    export(once, tmp_path / name)
    again = import_files([tmp_path / name], properties=["band_gap"])
    assert_same(once, again)
    assert (once.units, list(once.properties)) == (again.units, list(again.properties))
    np.testing.assert_array_equal(once.split, again.split)


NAMES = [
    *("split", "dipole", "free_energy", "magmom", "charge", "stress", "forces", "energy", "pbc"),
    *(
        "Lattice",
        "Properties",
        "virial",
        "uid",
        "id",
        "age",
        "formula",
        "data",
        "occupancy",
        "info",
    ),
    *(
        "positions",
        "Pt",
        "CO",
        "T",
        "F",
        "Übergröße",
        "a b=c",
        'a"b',
        "1",
        "comment",
        "property_gap",
    ),
]


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.db", "a.json"])
def test_a_property_may_have_any_name(tmp_path, name):
    values = {key: np.array([0.25 + place]) for place, key in enumerate(NAMES)}
    dataset = Dataset(structures(1), values, dict.fromkeys(values, "1") | {"energy": "eV"}, [0])
    export(dataset, tmp_path / name)
    back = import_files([tmp_path / name], properties=NAMES)
    for key, value in values.items():
        assert back.properties[key].tolist() == value.tolist(), key


def test_two_properties_cannot_have_the_same_name_in_a_file(tmp_path):
    values = dict.fromkeys(("stress", "property_stress"), np.zeros(1))
    dataset = Dataset(structures(1), values, dict.fromkeys(values, "1"), [0])
    with pytest.raises(ValueError, match="'stress' has to be called 'property_stress', which th"):
        export(dataset, tmp_path / "a.extxyz")
    export(dataset, tmp_path / "a.traj")


class TestVacuum:
    def one(self):
        return Dataset(structures(1), {}, {}, [0])

    def test_clusters_get_a_box(self, tmp_path):
        export(self.one(), tmp_path / "POSCAR", vacuum=5.0)
        atoms = ase.io.read(tmp_path / "POSCAR")
        original = self.one().structures[0]
        spans = np.ptp(original.positions, axis=0)
        np.testing.assert_allclose(atoms.cell.lengths(), spans + 10.0)
        shift = atoms.positions - original.positions
        np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-9)
        np.testing.assert_allclose(atoms.positions.min(axis=0), 5.0)
        lost = losses(in_box(self.one(), 5.0), tmp_path / "POSCAR")
        assert lost[0] == "which directions are periodic"
        assert all("off by up to 9e-" in line or "e-1" in line for line in lost[1:])

    def test_cells_stay_as_they_are(self):
        slab = bulk("Pt", cubic=True)
        slab.set_cell([[4, 0, 0], [0, 4, 0], [0, 0, 0]])
        slab.pbc = [True, True, False]
        box = in_box(Dataset([slab, bulk("Au", cubic=True)], {}, {}, [0, 0]), 6.0)
        np.testing.assert_array_equal(box.structures[0].cell[:2], slab.cell[:2])
        assert box.structures[0].cell[2, 2] == pytest.approx(np.ptp(slab.positions[:, 2]) + 12.0)
        np.testing.assert_array_equal(box.structures[0].pbc, slab.pbc)
        assert box.structures[1] == bulk("Au", cubic=True)
        assert not slab.cell[2].any()

    def test_without_one_it_is_said(self, tmp_path):
        with pytest.raises(ValueError, match="vasp: .*; there are structures without a cell"):
            export(self.one(), tmp_path / "POSCAR")
        for vacuum in (0.0, -1.0, np.nan, np.inf):
            with pytest.raises(ValueError, match="vacuum is .*; a finite distance above 0 Å"):
                export(self.one(), tmp_path / "POSCAR", vacuum=vacuum)


@pytest.mark.filterwarnings("ignore::UserWarning:ase")
def test_what_a_format_has_no_room_for_is_told(tmp_path):
    slab = bulk("Pt", cubic=True)
    slab.rattle(0.1, seed=1)
    slab.set_cell([[4, 0, 0], [1, 4, 0], [0.3, 0, 20 / 3]])
    slab.pbc = [True, True, False]
    one = Dataset([slab], {"gap": np.array([0.5])}, {"gap": "meV"}, np.zeros(1))

    def told(what, name):
        export(what, tmp_path / name)
        return losses(what, tmp_path / name)

    assert told(one, "a.db") == []
    for name in ("a.traj", "a.extxyz"):
        assert told(one, name) == ["the unit of gap (meV)"]
    periodic = "which directions are periodic"
    assert told(one, "POSCAR")[:2] == ["property gap", periodic]
    assert told(one, "a.cif")[:2] == ["property gap", periodic]
    digits = told(one, "a.pdb")[2:]
    read = ase.io.read(tmp_path / "a.pdb")
    for what, change, line in (
        ("cell vectors", read.cell.array - slab.cell.array, digits[0]),
        ("positions", read.positions - slab.positions, digits[1]),
    ):
        assert line == f"digits of the {what} (off by up to {np.abs(change).max():.1g} Å)"
    assert "ASE does not read png" in told(one, "a.png")[1]
    mixed_up = Atoms("CuAuCu", 3 * np.eye(3), cell=[9, 9, 9], pbc=True)
    plain = Dataset([mixed_up], {}, {}, np.zeros(1))
    assert told(plain, "a.vasp") == []
    with pytest.raises(ValueError, match="cannot be written as vasp: Lattice vectors must be"):
        export(Dataset(structures(1), {}, {}, np.zeros(1)), tmp_path / "POSCAR", overwrite=True)


def test_exported_energies_are_where_ase_looks_for_them(tmp_path):
    dataset = mixed()
    for name in ("a.extxyz", "a.traj", "a.db"):
        export(dataset, tmp_path / name, split="validation")
        images = ase.io.read(tmp_path / name, index=":")
        assert len(images) == 3
        for row, atoms in zip((1, 4, 7), images, strict=True):
            energy = dataset.properties["energy_per_atom"][row] * len(atoms)
            assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-12)
    assert ase.io.read(tmp_path / "a.extxyz").info["split"] == "validation"


def test_export_to_a_format_of_single_structures(tmp_path):
    dataset = mixed()
    with pytest.raises(ValueError, match="vasp holds one structure, not 10"):
        export(dataset, tmp_path / "POSCAR")
    one = Dataset(dataset.structures[7:8], {}, {}, np.zeros(1))
    export(one, tmp_path / "POSCAR")
    np.testing.assert_allclose(
        ase.io.read(tmp_path / "POSCAR").positions, one.structures[0].positions, atol=1e-8
    )


def test_export_refuses(tmp_path):
    dataset = mixed()
    with pytest.raises(ValueError, match="ASE writes no such format"):
        export(dataset, tmp_path / "out.nonsense")
    with pytest.raises(ValueError, match="split is 'dev'"):
        export(dataset, tmp_path / "out.xyz", split="dev")
    with pytest.raises(ValueError, match="'test' has no structures"):
        export(dataset.select("train"), tmp_path / "out.xyz", split="test")
    many = Dataset(structures(1) * 501, {}, {}, np.zeros(501))
    with pytest.raises(ValueError, match="too slow at writing JSON for 501 structures"):
        export(many, tmp_path / "out.json")
    with pytest.raises(ValueError, match="traj cannot be compressed; try .extxyz.gz"):
        export(dataset, tmp_path / "out.traj.gz")
    (tmp_path / "there.xyz").write_text("precious")
    with pytest.raises(FileExistsError):
        export(dataset, tmp_path / "there.xyz")
    assert (tmp_path / "there.xyz").read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["there.xyz"]


def test_a_failing_writer_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.extxyz"
    path.write_text("precious")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfgen.datasets.exporting._write_extxyz", full)
    with pytest.raises(OSError, match="No space left"):
        export(mixed(), path, overwrite=True)
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["out.extxyz"]


@pytest.mark.parametrize("name", ["set.extxyz", "set.db", "set.cif"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, name):
    """SQLite has words of its own for it."""
    with files_limited_to(500), pytest.raises(OSError, match=f"'.*{name}'") as raised:
        export(mixed(), tmp_path / name, vacuum=5.0)
    assert raised.value.errno in (errno.EFBIG, errno.EIO)
    assert list(tmp_path.iterdir()) == []
