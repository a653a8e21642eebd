"""Energies, properties, duplicates and outliers among what files hold."""

from __future__ import annotations

import json

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from imports import CIF, crystals, file, frame, refused, table, two

from tfgen.datasets.importing import import_files
from tfgen.warnings import TfgenWarning


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
            ('energy=-20.5 note="energy = -1.0 Ha"', -20.5),
            ("note='energy: -1.0 Ha' energy=-20.5", -20.5),
            ("energy=-20.5 config_type=bulk step=3", -20.5),
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


@pytest.mark.filterwarnings("ignore:.*near copies of:tfgen.warnings.TfgenWarning")
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

    def test_of_equal_rows_the_lowest_stays_for_each_value(self, tmp_path):
        path = self.water(tmp_path, 4)
        images = ase.io.read(path, ":")
        for atoms, energy, spin in zip(images, (-1.0, -3.0, -2.0, -2.5), (0, 1, 0, 1), strict=True):
            atoms.calc = SinglePointCalculator(atoms, energy=3 * energy)
            atoms.info["spin"] = spin
        ase.io.write(path, images)
        dataset = import_files([path], properties=["spin"])
        assert dataset.properties["energy_per_atom"].tolist() == [-3.0, -2.0]
        assert dataset.properties["spin"].tolist() == [1, 0]
        assert [e["row"][-5:] + e["equals"][-6:] for e in dataset.metadata["duplicates"]["examples"]
                ] == ["row 1 row 3", "row 4 row 2"]  # fmt: skip

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

    def test_the_tolerance_of_properties_is_a_share_of_their_spread(self, tmp_path):
        # 1.8 to 3.2 in steps of 0.2; their median distance from the median is 0.4.
        path = self.water(tmp_path, 8)
        step = 0.2 / (1.4826 * 0.4)
        for share, kept in ((0.0, 8), (0.99 * step, 8), (1.01 * step, 4), (100 * step, 1)):
            dataset = import_files([path], properties=["dip"], property_tolerance=share)
            assert len(dataset) == kept
            assert dataset.metadata["thresholds"]["property_tolerance"] == share
        with pytest.raises(ValueError, match="property_tolerance is nan; a finite number >= 0"):
            import_files([path], property_tolerance=np.nan)

    def test_tolerance_of_zero(self, tmp_path):
        path = self.water(tmp_path)
        assert len(import_files([path, path], duplicate_tolerance=0.0, properties=["dip"])) == 5


@pytest.mark.filterwarnings("ignore:.*near copies of:tfgen.warnings.TfgenWarning")
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
        assert sum("far outside" in str(warning.message) for warning in caught) == 5
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
