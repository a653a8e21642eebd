"""Exports data sets to the formats ASE writes, so that importing them again loses nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tfgen._files import new_file, require_absent
from tfgen.datasets.storage import SPLITS, Dataset
from tfgen.properties import ENERGY_PER_ATOM

__all__ = ["export"]


def export(
    dataset: Dataset, path: str | os.PathLike[str], *, split: str = "all", overwrite: bool = False
) -> int:
    """Writes structures in the format that the file name asks for.

    Properties and the name of the split go into `atoms.info` (the columns of an ASE data base),
    energies also into a calculator's results. extxyz, traj and db keep everything exactly; others
    keep what the format has room for.

    Args:
        dataset: what to write.
        path: file to write; its suffix (or name, such as POSCAR) decides on the format.
        split: "train", "validation", "test" or "all".
        overwrite: replace the file if it exists.

    Returns:
        The number of structures written.

    Raises:
        FileExistsError: if the file exists and `overwrite` is false.
        ValueError: on an unknown split or one without structures, or a format that ASE does not
            write, or not with several structures.
    """
    from ase.io import write
    from ase.io.formats import (
        UnknownFileTypeError,
        filetype,
        ioformats,
    )

    part = dataset.select(split)
    if len(part) == 0:
        raise ValueError(f"the split {split!r} has no structures; there is nothing to export")
    path = require_absent(path, overwrite)
    try:
        kind = filetype(str(path), read=False)
        form = ioformats[kind]
    except (UnknownFileTypeError, KeyError):
        form = None
    if form is None or not form.can_write:
        raise ValueError(f"{str(path)!r}: ASE writes no such format; try .extxyz, .traj or .db")
    if form.single and len(part) > 1:
        raise ValueError(
            f"{str(path)!r}: the format {kind} holds one structure, not {len(part)}; "
            "try .extxyz, .traj or .db"
        )
    structures = _with_properties(part)
    with new_file(path, overwrite) as temporary:
        try:
            if kind == "extxyz":
                _write_extxyz(temporary, structures)
            elif kind in ("db", "json"):
                _write_database(temporary, structures, kind)
            else:
                write(str(temporary), structures, format=kind)
        except OSError:
            raise
        except Exception as error:  # writers raise whatever their format cannot hold
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{str(path)!r}: cannot be written as {kind}: {reason}") from error
    return len(part)


def _with_properties(dataset: Dataset) -> list[Atoms]:
    structures = []
    for row, structure in enumerate(dataset.structures):
        atoms = structure.copy()
        atoms.info = {name: float(values[row]) for name, values in dataset.properties.items()}
        atoms.info["split"] = SPLITS[dataset.split[row]]
        # ASE wants the energy of the whole structure, in the place where calculators put it.
        energy = atoms.info.pop("energy", None)
        if energy is None and ENERGY_PER_ATOM in atoms.info:
            energy = atoms.info[ENERGY_PER_ATOM] * len(atoms)
        if energy is not None:
            atoms.calc = SinglePointCalculator(atoms, energy=energy)
        structures.append(atoms)
    return structures


def _write_extxyz(path: Path, structures: Sequence[Atoms]) -> None:
    """Writes extxyz with all digits; ASE's own writer rounds positions to 8 decimals."""
    from ase.io.extxyz import key_val_dict_to_str

    with path.open("w", encoding="utf-8") as file:
        for atoms in structures:
            header = {"Properties": "species:S:1:pos:R:3", **atoms.info}
            if atoms.calc is not None:
                header["energy"] = atoms.calc.results["energy"]
            header["pbc"] = atoms.pbc
            if atoms.cell.any():
                header = {"Lattice": atoms.cell.array.T, **header}
            file.write(f"{len(atoms)}\n{key_val_dict_to_str(header)}\n")
            for symbol, position in zip(atoms.symbols, atoms.positions.tolist(), strict=True):
                file.write(f"{symbol:2} " + " ".join(f"{x!r:>22}" for x in position) + "\n")


def _write_database(path: Path, structures: Sequence[Atoms], kind: str) -> None:
    import ase.db

    with ase.db.connect(path, type=kind, append=False, use_lock_file=False) as database:
        for atoms in structures:
            database.write(atoms, key_value_pairs=atoms.info)
