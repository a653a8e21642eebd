"""Kinds of files that people have: each is read right, or refused with the reason."""

from __future__ import annotations

import base64
import gzip
import sqlite3
import stat

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from imports import CIF, file, refused, two

from tfgen.datasets.importing import import_files, read_structures
from tfgen.datasets.importing.lammps import element_of_mass
from tfgen.warnings import TfgenWarning


class TestElements:
    @pytest.mark.parametrize(
        ("species", "message"),
        [
            ("D", "row 1: cannot be read as extxyz: 'D' is no element"),
            ("Qq", "'Qq' is no element"),
            ("1", "atoms have types such as '1', which do not tell the elements"),
        ],
    )
    def test_unknown_ones_are_named(self, tmp_path, species, message):
        refused(file(tmp_path, two().replace("Pt 1.3", f"{species} 1.3")), message)

    @pytest.mark.parametrize("column", ["type:I:1", "species:I:1"])
    def test_columns_of_types(self, tmp_path, column):
        text = two().replace("species:S:1", column).replace("Pt ", "1 ")
        refused(file(tmp_path, text), "which do not tell the elements")

    def test_columns_of_atomic_numbers_are_elements(self, tmp_path):
        text = two().replace("species:S:1", "Z:I:1").replace("Pt ", "78 ")
        assert import_files([file(tmp_path, text)]).structures[0].get_chemical_formula() == "Pt4"

    def test_numbers_beyond_the_table(self, tmp_path):
        text = two().replace("species:S:1", "Z:I:1").replace("Pt ", "119 ")
        refused(file(tmp_path, text), "row 1: atomic number 119, which is no element")


DUMP = """ITEM: TIMESTEP
{step}
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp ff
0 20
0 20
0 20
ITEM: ATOMS id {columns}
2 {two} 7.{step} 5 5 0.1 0 0
1 {one} 5 5 5 0.1 0 0
3 {one} 5 7.6 5 0.1 0 0
"""


class TestLammps:
    def dump(self, folder, columns, one, two):
        text = "".join(DUMP.format(step=s, columns=columns, one=one, two=two) for s in (3, 6))
        return file(folder, text, "run.lammpstrj")

    @pytest.mark.parametrize("columns", ["type x y z fx fy fz", "mass x y z fx fy fz"])
    def test_types_and_masses_in_dumps_are_refused(self, tmp_path, columns):
        message = "which do not tell the elements; a column 'element' is needed"
        refused(self.dump(tmp_path, columns, 1, 2), message)

    def test_dumps_with_elements(self, tmp_path):
        path = self.dump(tmp_path, "element x y z fx fy fz", "Cu", "Au")
        dataset = import_files([path])
        first, second = dataset.structures
        assert first.get_chemical_symbols() == ["Cu", "Au", "Cu"]
        assert (first.positions[1, 0], second.positions[1, 0]) == (7.3, 7.6)
        assert first.pbc.tolist() == [True, True, False]
        # ASE makes up an energy of 0 where a dump has forces.
        assert "energy_per_atom" not in dataset.properties

    def data(self, folder, types, atoms="1 1 5 5 5\n2 2 7.6 5 5\n3 1 5 7.6 5"):
        text = (
            "LAMMPS description\n\n3 atoms\n2 atom types\n\n0 20 xlo xhi\n0 21 ylo yhi\n"
            f"0 22 zlo zhi\n{types}\nAtoms # atomic\n\n{atoms}\n"
        )
        return file(folder, text, "run.data")

    @pytest.mark.parametrize(
        "types",
        [
            "\nMasses\n\n1 63.546\n2 196.97\n",
            "\nMasses\n\n1 64.9 # Cu\n2 197 # Au\n",
            "\nAtom Type Labels\n\n1 Cu\n2 Au\n",
        ],
    )
    def test_data_files_by_masses_or_labels(self, tmp_path, types):
        path = self.data(tmp_path, types)
        with pytest.warns(TfgenWarning, match=r"run.data': the types .* \(1 Cu, 2 Au\), and all"):
            dataset = import_files([path])
        (atoms,) = dataset.structures
        assert atoms.get_chemical_symbols() == ["Cu", "Au", "Cu"]
        np.testing.assert_array_equal(atoms.positions[1], [7.6, 5, 5])
        np.testing.assert_array_equal(atoms.cell.lengths(), [20, 21, 22])
        assert atoms.pbc.all()

    @pytest.mark.parametrize(
        ("types", "message"),
        [
            ("", "atoms have types, and without masses nothing tells the elements"),
            ("\nMasses\n\n1 1\n2 1.0\n", "atoms have types of mass 1, which does not tell"),
            ("\nMasses\n\n1 63.546\n2 15.035\n", "type 2 has mass 15.035, which does not tell"),
            ("\nMasses\n\n1 63.546\n2 40\n", "type 2 has mass 40, which does not tell"),
            ("\nAtom Type Labels\n\n1 Cu\n2 CH3\n", "type 2 has label 'CH3', which does not tell"),
        ],
    )
    def test_data_files_that_do_not_tell(self, tmp_path, types, message):
        refused(self.data(tmp_path, types), message)

    @pytest.mark.parametrize(
        ("mass", "number"),
        [(1.008, 1), (12.0, 6), (28.0855, 14), (28.0, 14), (58.69, 28), (58.93, 27), (195.1, 78),
         (0.5, None), (40.0, None), (100.0, None), (-1.0, None), (1000.0, None)],
    )  # fmt: skip
    def test_elements_of_masses(self, mass, number):
        assert element_of_mass(mass) == number


def test_byte_order_marks_are_skipped(tmp_path):
    text = two("energy=-20.0", "energy=-20.4")
    for name, content in (
        ("utf8.extxyz", text.encode("utf-8-sig")),
        ("utf16.extxyz", text.encode("utf-16")),
        ("packed.extxyz.gz", gzip.compress(text.encode("utf-8-sig"))),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.warns(TfgenWarning, match=f"{name}': the byte-order mark was skipped"):
            dataset = import_files([path])
        np.testing.assert_allclose(dataset.properties["energy_per_atom"], [-5.0, -5.1])
        assert path.read_bytes() == content
    crystal = tmp_path / "POSCAR"
    ase.io.write(crystal, bulk("Cu", cubic=True))
    crystal.write_bytes(b"\xef\xbb\xbf" + crystal.read_bytes())
    with pytest.warns(TfgenWarning, match="byte-order mark"):
        assert read_structures(crystal)[0].get_chemical_formula() == "Cu4"
    broken = tmp_path / "broken.extxyz"
    broken.write_bytes(text.encode("utf-16")[:-1])
    refused(broken, "is truncated or damaged")


class TestLargeCif:
    def crystal(self):
        atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True) * (3, 3, 3)
        atoms.rattle(0.1, seed=0)
        atoms.wrap()
        return atoms

    def test_is_read_as_ase_reads_it(self, tmp_path):
        ase.io.write(tmp_path / "a.cif", self.crystal())
        expected = ase.io.read(tmp_path / "a.cif")
        assert len(expected) == 216
        (atoms,) = import_files([tmp_path / "a.cif"]).structures
        np.testing.assert_array_equal(atoms.numbers, expected.numbers)
        np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-10)
        np.testing.assert_array_equal(atoms.cell.array, expected.cell.array)
        assert atoms.pbc.all()

    def test_partial_occupancy_is_seen(self, tmp_path):
        path = tmp_path / "a.cif"
        ase.io.write(path, self.crystal())
        lines = path.read_text().splitlines()
        lines[-3] = lines[-3].replace("1.0000", "0.5000")
        refused(file(tmp_path, "\n".join(lines) + "\n", "b.cif"), r"occupied by 0.5 .l \(partial")

    def test_symmetry_is_applied(self, tmp_path):
        text = (
            CIF.replace("5.64", "30").replace("P 1", "P -1").replace("'x, y, z'", "x,y,z\n-x,-y,-z")
        )
        axes = np.meshgrid([0.1, 0.2, 0.3, 0.4], np.arange(0.05, 1, 0.1), np.arange(0.1, 0.6, 0.1))
        places = np.stack(axes, axis=-1).reshape(-1, 3)
        sites = "".join(f"C1 C {x:.3f} {y:.3f} {z:.3f} 1\n" for x, y, z in places)
        (atoms,) = import_files([file(tmp_path, text + sites, "a.cif")]).structures
        assert len(atoms) == 2 * len(places) == 400


class TestOccupancy:
    @pytest.mark.parametrize(
        ("sites", "message"),
        [
            ("Fe1 Fe 0 0 0 0.51\nNi1 Ni 0 0 0 0.49\n", "occupied by 0.51 Fe and 0.49 Ni"),
            ("Fe1 Fe 0 0 0 0.5\n", r"occupied by 0.5 Fe \(partial occupancy\)"),
        ],
    )
    def test_shared_and_half_empty_sites_are_refused(self, tmp_path, sites, message):
        refused(file(tmp_path, CIF + sites + "Al1 Al 0.5 0.5 0.5 1\n", "a.cif"), message)

    def test_full_sites_are_read(self, tmp_path):
        path = file(tmp_path, CIF + "Fe1 Fe 0 0 0 1\nAl1 Al 0.5 0.5 0.5 1.0\n", "a.cif")
        assert import_files([path]).structures[0].get_chemical_formula() == "AlFe"

    @pytest.mark.parametrize(("share", "good"), [("1.00", True), ("0.00", True), ("0.40", False)])
    def test_pdb(self, tmp_path, share, good):
        ase.io.write(tmp_path / "a.pdb", Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]]))
        text = (tmp_path / "a.pdb").read_text().replace("  1.00  0.00", f"  {share}  0.00")
        path = file(tmp_path, text, "b.pdb")
        if good:
            assert len(import_files([path])) == 1
        else:
            refused(path, r"atom 1 is there to 0.4 \(partial occupancy\)")


class TestDatabases:
    @pytest.mark.parametrize("name", ["note.db", "note.sqlite", "note.extxyz"])
    @pytest.mark.parametrize("table", ["note", "systems"])
    def test_files_of_others_stay_as_they_are(self, tmp_path, name, table):
        path = tmp_path / name
        with sqlite3.connect(path) as connection:
            connection.execute(f"CREATE TABLE {table} (id integer primary key, text text)")
        connection.close()
        before = path.read_bytes()
        for options in ({}, {"format": "db"}):
            refused(path, f"an SQLite file, but not an ASE database; its tables are {table}",
                    **options)  # fmt: skip
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_databases_are_not_written_into(self, tmp_path, journal):
        folder = tmp_path / "folder"
        folder.mkdir()
        path = folder / "a.db"
        with ase.db.connect(path) as database:
            for shift in (0.0, 0.3):
                atoms = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5 + shift]])
                database.write(atoms, gap=shift)
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA journal_mode={journal}")
        connection.close()
        before = path.read_bytes()
        path.chmod(stat.S_IREAD)
        dataset = import_files([path], properties=["gap"])
        assert dataset.properties["gap"].tolist() == [0.0, 0.3]
        assert path.read_bytes() == before
        assert list(folder.iterdir()) == [path]

    def test_databases_are_opened_for_reading_only(self, tmp_path, monkeypatch):
        path = tmp_path / "a.db"
        with ase.db.connect(path) as database:
            database.write(Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5]]))
        addresses = []
        original = sqlite3.connect

        def connect(address, **options):
            addresses.append((str(address), options.get("uri")))
            return original(address, **options)

        monkeypatch.setattr(sqlite3, "connect", connect)
        import_files([path])
        assert len(addresses) >= 2
        assert all("?mode=ro" in address and uri for address, uri in addresses)

    def test_rows_that_are_still_in_the_journal_are_read(self, tmp_path):
        path = tmp_path / "a.db"
        with ase.db.connect(path) as database:
            database.write(Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5]]))
        writer = sqlite3.connect(path)
        writer.execute("PRAGMA journal_mode=wal")
        writer.execute("UPDATE systems SET energy = -4.0")
        writer.commit()
        assert import_files([path]).properties["energy_per_atom"].tolist() == [-2.0]
        writer.close()

    def test_not_a_database(self, tmp_path):
        refused(file(tmp_path, "hello", "a.db"), "cannot be read as db: it is not an SQLite file")
        refused(file(tmp_path, "hello", "a.txt"), "is not an SQLite file", format="db")
        (tmp_path / "b.db").write_bytes(b"SQLite format 3\0" + b"x" * 100)
        refused(tmp_path / "b.db", "cannot be read as db: ")

    def write(self, folder, metadata, **data):
        path = folder / "a.db"
        with ase.db.connect(path) as database:
            for place in range(3):
                atoms = Atoms("OH2", [[0, 0, 0], [1.8 + 0.2 * place, 0, 0], [0, 1.8, 0]])
                values = {k: np.array([v * (place + 1)]) for k, v in data.items()}
                database.write(atoms, data={**values, "forces": np.zeros((3, 3))})
            database.metadata = metadata
        return path

    def test_schnetpack(self, tmp_path):
        metadata = {
            "_property_unit_dict": {"energy_U0": "Hartree", "gap": "kcal/mol", "forces": "Ha/Bohr"},
            "_distance_unit": "Bohr",
        }
        path = self.write(tmp_path, metadata, energy_U0=-76.0, gap=5.0)
        with pytest.warns(TfgenWarning, match=r"\(and 2 more\): .* converted from Hartree to eV"):
            dataset = import_files([path], energy="energy_U0", properties=["gap"])
        expected = -76.0 * units.Hartree * np.array([1, 2, 3]) / 3
        np.testing.assert_allclose(dataset.properties["energy_per_atom"], expected)
        assert dataset.properties["gap"].tolist() == [5.0, 10.0, 15.0]
        assert dataset.units["gap"] == "kcal/mol"
        assert dataset.structures[2].positions[1, 0] == pytest.approx(2.2 * units.Bohr)

    def test_schnetpack_without_units(self, tmp_path):
        path = self.write(tmp_path, {}, energy=-6.0)
        with pytest.warns(TfgenWarning, match="the unit of the energy is not stated, eV was"):
            dataset = import_files([path])
        np.testing.assert_allclose(dataset.properties["energy_per_atom"], [-2, -4, -6])

    def test_schnetpack_as_it_was(self, tmp_path):
        path = tmp_path / "a.db"
        coded = base64.b64encode(np.array([-6.0], np.float32)).decode()
        data = {"energy": coded, "_shape_energy": [1], "_dtype_energy": "<f4"}
        with ase.db.connect(path) as database:
            database.write(Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5]]), data=data)
        with pytest.warns(TfgenWarning, match="eV was assumed"):
            assert import_files([path]).properties["energy_per_atom"].tolist() == [-3.0]

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({"_distance_unit": "foot"}, "row 1: lengths are in 'foot', which is no unit"),
            ({"_property_unit_dict": {"energy": "calories"}}, "'energy' is in 'calories', which"),
        ],
    )
    def test_units_that_nobody_knows(self, tmp_path, metadata, message):
        metadata = {"_property_unit_dict": {"energy": "eV"}, **metadata}
        refused(self.write(tmp_path, metadata, energy=-6.0), message)


class TestConstraints:
    @pytest.mark.parametrize("name", ["a.db", "a.traj"])
    def test_those_that_cannot_be_read_are_dropped(self, tmp_path, name):
        class FixNothingAtAll(FixAtoms):
            def todict(self):
                return {"name": "FixNothingAtAll", "kwargs": {"indices": [0]}}

        images = [Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5 + x]]) for x in (0, 0.3)]
        images[0].set_constraint(FixAtoms([0]))
        images[1].set_constraint(FixNothingAtAll([0]))
        for atoms in images:
            atoms.calc = SinglePointCalculator(atoms, energy=-4.0)
        ase.io.write(tmp_path / name, images)
        with pytest.warns(TfgenWarning, match="row 2: a constraint that ASE cannot read was dropp"):
            dataset = import_files([tmp_path / name])
        assert dataset.properties["energy_per_atom"].tolist() == [-2.0, -2.0]
