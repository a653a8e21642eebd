"""Small files of the kinds that people import."""

from __future__ import annotations

import csv
import gzip

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tfgen.datasets.importing import import_files


def structures(n: int = 6, *, energy: bool = True, gap: bool = True) -> list[Atoms]:
    rng = np.random.default_rng(0)
    result = []
    for i in range(n):
        atoms = Atoms("Cu2Pt3", rng.random((5, 3)) * 3 + 4 * np.eye(5, 3))
        if gap:
            atoms.info["band_gap"] = rng.random()
        atoms.info["comment"] = "not a number"
        if energy:
            atoms.calc = SinglePointCalculator(atoms, energy=10.0 + i)
        result.append(atoms)
    return result


def write(folder, images, name="set.extxyz"):
    path = folder / name
    if path.suffix in (".db", ".json"):
        with ase.db.connect(path, append=False) as database:
            for atoms in images:
                numbers = {k: v for k, v in atoms.info.items() if k != "comment"}
                database.write(atoms, key_value_pairs=numbers)
    else:
        ase.io.write(path, images)
    return path


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
