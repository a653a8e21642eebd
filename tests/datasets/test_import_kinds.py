"""Kinds of files that people have: each is read right, or refused with the reason."""

from __future__ import annotations

import base64
import csv
import gzip
import json
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

from tfgen.datasets.importing import import_files, read_structures
from tfgen.datasets.importing.lammps import element_of_mass
from tfgen.warnings import TfgenWarning

TETRAHEDRON = "Pt 0 0 0\nPt {x} 0 0\nPt 1.3 2.25 0\nPt 1.3 0.75 {z}\n"


def frame(comment: str, x: float = 2.6, z: float = 2.1) -> str:
    return f"4\n{comment}\n{TETRAHEDRON.format(x=x, z=z)}"


def two(first: str = "", second: str = "") -> str:
    start = 'Properties=species:S:1:pos:R:3 pbc="F F F"'
    return frame(f"{start} {first}") + frame(f"{start} {second}", 2.9, 2.4)


def file(folder, text: str, name: str = "a.extxyz"):
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def refused(path, message: str, **options) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        import_files([path], **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


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


CIF = """data_x
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


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


class TestEnergies:
    def test_other_names_are_listed_and_can_be_named(self, tmp_path):
        path = file(tmp_path, two("REF_energy=-20.0 n=4", "REF_energy=-20.4 n=4"))
        dataset = import_files([path])
        assert "energy_per_atom" not in dataset.properties
        assert dataset.metadata["other_energies"] == ["REF_energy"]
        refused(path, "row 1: no energy; every structure needs one; there is 'REF_energy'",
                properties=["energy_per_atom"])  # fmt: skip
        named = import_files([path], energy="REF_energy")
        np.testing.assert_allclose(named.properties["energy_per_atom"], [-5.0, -5.1])
        assert "other_energies" not in named.metadata

    @pytest.mark.parametrize(
        "name",
        ["energy_dft", "Energy", "U0", "E", "Etot", "TOTEN", "dft-energy", "final_energy_ev"],
    )
    def test_what_looks_like_an_energy(self, tmp_path, name):
        path = file(tmp_path, two(f"{name}=-20.0 gap=1 e_mail=x", f"{name}=-20.4 gap=1"))
        assert import_files([path]).metadata["other_energies"] == [name]

    def test_a_named_energy_comes_before_the_usual_one(self, tmp_path):
        path = file(tmp_path, two("energy=-1 dft=-20 energy_per_atom=7", "energy=-1 dft=-20.4"))
        dataset = import_files([path], energy="dft")
        np.testing.assert_allclose(dataset.properties["energy_per_atom"], [-5.0, -5.1])
        assert import_files([path], energy="dft", properties=["energy_per_atom"]).units == (
            dataset.units
        )

    @pytest.mark.parametrize(
        ("energy", "message"),
        [
            ("dft", "row 1: no energy 'dft'; every structure needs one; there is 'energy', 'gap'"),
            ("name", "row 1: property 'name' is 'x'; a number is needed"),
            ("flag", "row 1: property 'flag' is True; a number is needed"),
            ("list", "row 1: property 'list' is .*; a number is needed"),
            ("gap", "row 2: property 'gap' is nan; it must be finite"),
        ],
    )
    def test_names_that_are_no_energy(self, tmp_path, energy, message):
        first = 'energy=-1 gap=1 name=x flag=T list="1 2"'
        path = file(tmp_path, two(first, "energy=-1 gap=nan"))
        refused(path, message, energy=energy)

    @pytest.mark.parametrize(
        ("comment", "energy"),
        [
            ("Coordinates from ORCA-job water E -76.0267607374", -76.0267607374 * units.Hartree),
            (" energy: -5.070544323569 gnorm: 0.000402 xtb: 6.4.1 (23d549d)",
             -5.070544323569 * units.Hartree),
            (" energy: -5.0705 xtb: 6.7.1 (edcfbbe)", -5.0705 * units.Hartree),
            ("Energy = -20.5 eV", None),
            ("energy = -20.5 eV", -20.5),
            ("energy: -20.5 eV, gap: 0.3 eV", -20.5),
            ("Pt4 energy=-1.5 Ha", -1.5 * units.Hartree),
            ("energy: -5.1 eV/atom", -20.4),
            ("energy=-20.5", -20.5),
            ('{"energy": -20.5, "gap": 0.1}', -20.5),
        ],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore:.* the energy was converted")
    def test_comment_lines(self, tmp_path, comment, energy):
        path = file(tmp_path, frame(comment), "a.xyz")
        dataset = import_files([path])
        if energy is None:
            assert dataset.metadata["other_energies"] == ["Energy"]
            dataset, energy = import_files([path], energy="Energy"), -20.5
        assert dataset.properties["energy_per_atom"] == pytest.approx([energy / 4], rel=1e-12)

    @pytest.mark.parametrize(
        ("comment", "name", "energy"),
        [
            ("Total Energy: -20.5 eV | HOMO-LUMO gap: 0.12 eV", "Total Energy", -20.5),
            ("Energy (Ha): -2.5", "Energy", -2.5 * units.Hartree),
            ("-20.5", "comment", -20.5),
            ("Pt4 -2.5 Ha", "comment", -2.5 * units.Hartree),
            ("Pt4; E = -5.125 eV/atom; multiplicity = 3", "E", -20.5),
            ("id=7 E_per_atom=-5.125", "E_per_atom", -20.5),
        ],
    )
    @pytest.mark.filterwarnings("ignore:.* the energy was converted", "ignore:.* as an energy per")
    def test_comment_lines_with_energies_of_other_names(self, tmp_path, comment, name, energy):
        path = file(tmp_path, frame(comment), "a.xyz")
        assert import_files([path]).metadata["other_energies"] == [name]
        found = import_files([path], energy=name).properties["energy_per_atom"]
        assert found == pytest.approx([energy / 4], rel=1e-12)

    def test_energies_per_atom_by_name(self, tmp_path):
        path = table(tmp_path, crystals())
        message = "'energy_per_atom' was taken as an energy per atom, as it is called"
        with pytest.warns(TfgenWarning, match=message):
            dataset = import_files([path], energy="energy_per_atom")
        assert dataset.properties["energy_per_atom"].tolist() == [-9.0, -8.0, -7.0]

    def test_units_that_the_user_states(self, tmp_path):
        path = file(tmp_path, two("energy=-2 dft=-3", "energy=-4 dft=-5"))
        with pytest.warns(TfgenWarning, match="the energy was converted from Hartree to eV"):
            dataset = import_files([path], units={"energy": "Hartree"})
        expected = np.array([-2, -4]) * units.Hartree / 4
        np.testing.assert_allclose(dataset.properties["energy_per_atom"], expected)
        assert dataset.units["energy_per_atom"] == "eV/atom"
        with pytest.warns(TfgenWarning, match=r"converted from kcal/mol to eV"):
            dataset = import_files([path], energy="dft", units={"dft": "kcal/mol"})
        expected = np.array([-3, -5]) * units.kcal / units.mol / 4
        np.testing.assert_allclose(dataset.properties["energy_per_atom"], expected)
        refused(path, "row 1: 'energy' is in 'cal', which is no unit of energy known here",
                units={"energy": "cal"})  # fmt: skip

    def test_conversions_are_said(self, tmp_path):
        path = file(tmp_path, frame("Coordinates from ORCA-job x E -76.0"), "a.xyz")
        with pytest.warns(TfgenWarning, match="row 1: the energy was converted from Hartree to eV"):
            import_files([path])

    def test_other_numbers_of_comment_lines(self, tmp_path):
        path = file(
            tmp_path, frame("id: 7; HOMO-LUMO gap: 0.31 eV; dipole = 1.5D-1 Debye"), "a.xyz"
        )
        dataset = import_files([path], properties=["HOMO-LUMO gap", "dipole"])
        assert dataset.properties["HOMO-LUMO gap"].tolist() == [0.31]
        assert dataset.properties["dipole"].tolist() == [0.15]
        assert dataset.units["HOMO-LUMO gap"] == "eV"
        assert dataset.units["dipole"] == "Debye"

    @pytest.mark.parametrize("comment", ["", "Pt4", "time: 12:30", "a = b", "energy: none", "= 3"])
    def test_comment_lines_without_energies(self, tmp_path, comment):
        dataset = import_files([file(tmp_path, frame(comment), "a.xyz")])
        assert "energy_per_atom" not in dataset.properties


def table(folder, rows, name="a.csv", bom=False):
    path = folder / name
    with (gzip.open if name.endswith(".gz") else open)(
        path, "wt", newline="", encoding="utf-8-sig" if bom else "utf-8"
    ) as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def crystals(n=3):
    sites = "C1 C 0 0 0 1\nC2 C 0.25 0.25 {z} 1\n"
    return [
        {"id": f"C-{i}", "cif": CIF + sites.format(z=0.25 + 0.01 * i), "energy_per_atom": -9.0 + i,
         "gap": 0.5 * i, "formula": "C2"}
        for i in range(n)
    ]  # fmt: skip


class TestTables:
    @pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.CSV"])
    def test_crystals(self, tmp_path, name):
        path = table(tmp_path, crystals(), name)
        dataset = import_files([path], properties=["gap"])
        assert [len(s) for s in dataset.structures] == [2, 2, 2]
        assert dataset.structures[0].pbc.all()
        np.testing.assert_allclose(dataset.structures[1].positions[1, 2], 0.26 * 5.64)
        assert dataset.properties["energy_per_atom"].tolist() == [-9.0, -8.0, -7.0]
        assert dataset.properties["gap"].tolist() == [0.0, 0.5, 1.0]

    def test_byte_order_mark_and_format(self, tmp_path):
        with pytest.warns(TfgenWarning, match="byte-order mark"):
            assert len(import_files([table(tmp_path, crystals(), bom=True)])) == 3
        path = table(tmp_path, crystals(), "a.txt")
        assert len(import_files([path], format="csv")) == 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"cif": ""}, "row 2: cannot be read as csv: the column 'cif' is empty"),
            ({"cif": "data_x\n"}, "row 2: cannot be read as csv"),
            ({"cif": CIF + "C1 C 0 0 0 0.5\n"}, "row 2: a site is occupied by 0.5 C"),
            ({"gap": ""}, "row 2: no property 'gap'"),
            ({"gap": "wide"}, "row 2: property 'gap' is 'wide'; a number is needed"),
        ],
    )
    def test_bad_rows_are_named(self, tmp_path, change, message):
        rows = crystals()
        rows[1] |= change
        refused(table(tmp_path, rows), message, properties=["gap"])

    def test_without_structures(self, tmp_path):
        path = file(tmp_path, "id,gap\n1,2\n", "a.csv")
        refused(path, "there is no column 'cif', but 'id', 'gap'")


class TestMissing:
    def test_properties(self, tmp_path):
        path = file(tmp_path, two("energy=-20.0 gap=1", "energy=-20.1"))
        refused(path, "row 2: no property 'gap'", properties=["gap"])
        dataset = import_files([path], properties=["gap"], missing="skip")
        assert dataset.metadata["counts"] == {
            "read": 2, "without a property": 1, "duplicates": 0, "kept": 1
        }  # fmt: skip
        assert dataset.properties["gap"].tolist() == [1.0]
        assert dataset.properties["energy_per_atom"].tolist() == [-5.0]

    def test_energies(self, tmp_path):
        path = file(tmp_path, two("gap=1", "energy=-20.0 gap=nan"))
        refused(path, "row 1: no energy")
        dataset = import_files([path], missing="skip")
        assert dataset.metadata["counts"]["without a property"] == 1
        assert dataset.properties["energy_per_atom"].tolist() == [-5.0]
        assert dataset.structures[0].positions[1, 0] == 2.9
        gaps = import_files([path], missing="skip", properties=["gap"])
        assert gaps.properties["gap"].tolist() == [1.0]
        assert "energy_per_atom" not in gaps.properties

    def test_single_atoms(self, tmp_path):
        path = file(tmp_path, "1\nenergy=-1\nPt 0 0 0\n" + two("energy=-20.0", "energy=-20.4"))
        refused(path, "row 1: a single atom")
        dataset = import_files([path], missing="skip")
        assert dataset.metadata["counts"] == {
            "read": 3, "single atoms": 1, "duplicates": 0, "kept": 2
        }  # fmt: skip

    def test_nothing_left(self, tmp_path):
        path = file(tmp_path, two())
        message = "no structures are left: 2 without a property"
        refused(path, message, properties=["gap"], missing="skip")
        single = file(tmp_path, "1\n\nPt 0 0 0\n", "b.extxyz")
        refused(single, "no structures are left: 1 single atoms", missing="skip")

    def test_what_is_no_number_is_never_skipped(self, tmp_path):
        path = file(tmp_path, two("gap=1", "gap=wide"))
        refused(path, "row 2: property 'gap' is 'wide'", properties=["gap"], missing="skip")


class TestDuplicates:
    def water(self, folder, count=5, step=0.1):
        water = Atoms("OH2", [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
        images = []
        for i in range(count):
            atoms = water.copy()
            atoms.info = {"field": step * i, "dip": 1.8 + 2 * step * i, "spin": i % 2}
            atoms.calc = SinglePointCalculator(atoms, energy=-14.0 - 0.3 * step * i)
            images.append(atoms)
        ase.io.write(folder / "field.extxyz", images)
        return folder / "field.extxyz"

    def test_what_is_dropped_is_listed(self, tmp_path):
        path = self.water(tmp_path, 8)
        dataset = import_files([path])
        assert dataset.metadata["counts"] == {"read": 8, "duplicates": 7, "kept": 1}
        dropped = dataset.metadata["duplicates"]
        assert dropped["count"] == 7
        assert dropped["examples"][1] == {
            "row": f"{str(path)!r}, row 2", "equals": f"{str(path)!r}, row 8"
        }  # fmt: skip
        assert len(dropped["examples"]) == 5
        assert dropped["largest_energy_difference"] == pytest.approx(0.3 * 0.7 / 3)
        json.dumps(dataset.metadata)

    @pytest.mark.parametrize(("asked", "kept"), [("dip", 5), ("spin", 2), ("energy_per_atom", 5)])
    def test_rows_that_differ_in_what_was_asked_for_stay(self, tmp_path, asked, kept):
        dataset = import_files([self.water(tmp_path)], properties=[asked])
        assert len(dataset) == kept
        # The lower energies come last.
        dips = import_files([self.water(tmp_path)], properties=["spin", "dip"]).properties
        assert dips["dip"].tolist() == pytest.approx([1.8, 2.0, 2.2, 2.4, 2.6])

    def test_a_fine_scan_stays_and_noise_does_not(self, tmp_path):
        assert len(import_files([self.water(tmp_path, 300, 0.01)], properties=["dip"])) == 300
        path = self.water(tmp_path)
        images = ase.io.read(path, ":")
        again = [atoms.copy() for atoms in images]
        for atoms in again:
            atoms.rotate(30, "x")
            atoms.info["dip"] += 1e-5
        for atoms, energy in zip(images, np.arange(5), strict=True):
            atoms.calc = None
            atoms.info["energy_per_atom"] = again[int(energy)].info["energy_per_atom"] = energy
        ase.io.write(path, [*images, *again])
        assert len(import_files([path], properties=["dip"])) == 5

    def test_an_outlier_does_not_make_the_others_equal(self, tmp_path):
        path = self.water(tmp_path, 20)
        images = ase.io.read(path, ":")
        images[7].info["dip"] = 1e9
        ase.io.write(path, images)
        with pytest.warns(TfgenWarning, match=r"row 8: 'dip' is 1e\+09, far outside the rest \(1."):
            assert len(import_files([path], properties=["dip"])) == 20

    def test_mirror_images_that_differ(self, tmp_path):
        twisted = Atoms("CHFClBr", [[0, 0, 0], [1.1, 0, 0], [0, 1.4, 0], [0, 0, 1.8], [-1, -1, -1]])
        mirrored = twisted.copy()
        mirrored.positions[:, 0] *= -1
        twisted.info["rotation"], mirrored.info["rotation"] = 12.0, -12.0
        ase.io.write(tmp_path / "a.extxyz", [twisted, mirrored])
        assert len(import_files([tmp_path / "a.extxyz"])) == 1
        assert len(import_files([tmp_path / "a.extxyz"], properties=["rotation"])) == 2

    def test_all_can_be_kept(self, tmp_path):
        dataset = import_files([self.water(tmp_path)], duplicates="keep")
        assert dataset.metadata["counts"] == {"read": 5, "duplicates": 0, "kept": 5}
        assert "duplicates" not in dataset.metadata

    def test_tolerance_of_zero(self, tmp_path):
        path = self.water(tmp_path)
        assert len(import_files([path, path], duplicate_tolerance=0.0, properties=["dip"])) == 5


class TestOutliers:
    def images(self, folder, energies):
        images = []
        for i, energy in enumerate(energies):
            atoms = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.3 + 0.06 * i]])
            atoms.calc = SinglePointCalculator(atoms, energy=2 * energy)
            images.append(atoms)
        ase.io.write(folder / "a.extxyz", images)
        return folder / "a.extxyz"

    @pytest.mark.parametrize("wrong", [0.0, -500.0, 9999.0])
    def test_values_far_outside_are_named(self, tmp_path, wrong):
        path = self.images(tmp_path, [-5.0, -5.1, wrong, -4.9, -5.05, -4.95])
        message = rf"row 3: 'energy_per_atom' is {wrong:g}, far outside the rest \(-5.1 to -4.9\)"
        with pytest.warns(TfgenWarning, match=message):
            assert len(import_files([path])) == 6

    @pytest.mark.parametrize(
        "energies",
        [
            [-5.0, -60.0],
            [-5.0, -5.0, -60.0],
            [0.0] * 6 + [3.0],
            [1.0] * 9,
            list(np.random.default_rng(0).normal(size=200)),
            [-5.0] * 5 + [-3.0] * 5,
        ],
    )
    def test_others_are_not(self, tmp_path, energies):
        assert len(import_files([self.images(tmp_path, energies)])) == len(energies)

    def test_many_are_counted(self, tmp_path):
        rng = np.random.default_rng(0)
        path = self.images(tmp_path, [*rng.normal(size=50), *range(9000, 9009)])
        with pytest.warns(TfgenWarning) as caught:
            import_files([path])
        assert len(caught) == 5
        assert str(caught[0].message).endswith("as are 4 more")


class TestFormat:
    def test_a_name_says_what_guessing_cannot(self, tmp_path):
        path = tmp_path / "structure.txt"
        ase.io.write(path, bulk("Cu", cubic=True), format="vasp")
        refused(path, "is in no format that ASE can read")
        dataset = import_files([path], format="vasp")
        assert dataset.structures[0].get_chemical_formula() == "Cu4"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("extxzy", "format 'extxzy' is unknown; near are extxyz"),
            ("", "format '' is unknown; there are extxyz, cif, vasp and others"),
            ("postgresql", "format 'postgresql' is unknown"),
            ("png", "format 'png' is unknown"),
        ],
    )
    def test_unknown_ones(self, tmp_path, name, message):
        with pytest.raises(ValueError, match=message):
            import_files([file(tmp_path, two())], format=name)

    def test_the_wrong_one(self, tmp_path):
        refused(file(tmp_path, two()), "row 1: cannot be read as cif", format="cif")


def test_bad_choices(tmp_path):
    path = file(tmp_path, two())
    with pytest.raises(ValueError, match="missing is 'ignore'; 'error' or 'skip' is needed"):
        import_files([path], missing="ignore")
    with pytest.raises(ValueError, match="duplicates is 'all'; 'drop' or 'keep' is needed"):
        import_files([path], duplicates="all")
