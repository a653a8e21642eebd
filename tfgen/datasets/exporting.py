"""Exports data sets to the formats ASE writes, so that importing them again loses nothing."""

from __future__ import annotations

import dataclasses
import errno
import os
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen._files import new_file, require_absent
from tfgen.datasets.importing.values import PREFIX
from tfgen.datasets.storage import Dataset
from tfgen.structures.properties import UNITS

__all__ = ["export", "in_box", "losses"]

# ASE's names for the formats that keep structures and properties to the last bit.
_EXACT = ("extxyz", "traj", "db", "json")
# What an extxyz header has names of its own for; properties of that name get a prefix there, which
# an import reverses.
_RESERVED = ("Lattice", "Properties", "pbc", "stress", "uid", "virial")
# ASE writes the whole of a JSON data base again for each structure.
_MOST_JSON = 500


def export(
    dataset: Dataset,
    path: str | os.PathLike[str],
    *,
    split: str = "all",
    vacuum: float | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> int:
    """Writes structures in the format that the file name asks for.

    Properties and the name of the split go into `atoms.info` (the columns of an ASE database, or
    the data of its rows where ASE has a column of that name), energies also into a calculator's
    results, as do forces that are known. extxyz, traj and db keep structures, properties and forces
    to the last bit; others keep what the format has room for, see `losses`.

    Args:
        dataset: what to write.
        path: file to write; its suffix (or name, such as POSCAR) decides on the format.
        split: "train", "validation", "test" or "all".
        vacuum: empty space on both sides of each structure along the axes without a cell vector,
            Å, for formats that need a cell; None: structures are written as they are.
        overwrite: replace the file if it exists.
        progress: show a progress bar.

    Returns:
        The number of structures written.

    Raises:
        FileExistsError: if the file exists and `overwrite` is false.
        ValueError: on an unknown split or one without structures, a format that ASE does not
            write, or not with several structures or without a cell, or a vacuum that is not
            positive.
    """
    from ase.io import write
    from ase.io.formats import get_compression, ioformats

    part = dataset.select(split)
    if len(part) == 0:
        raise ValueError(f"the split {split!r} has no structures; there is nothing to export")
    path = require_absent(path, overwrite)
    kind = _kind(path)
    if not kind:
        raise ValueError(f"{str(path)!r}: ASE writes no such format; try .extxyz, .traj or .db")
    if ioformats[kind].single and len(part) > 1:
        raise ValueError(
            f"{str(path)!r}: the format {kind} holds one structure, not {len(part)}; "
            "try .extxyz, .traj or .db"
        )
    if kind == "json" and len(part) > _MOST_JSON:
        raise ValueError(
            f"{str(path)!r}: ASE is too slow at writing JSON for {len(part)} structures, "
            f"{_MOST_JSON} are the most; try .db"
        )
    if kind in ("traj", "db", "json") and get_compression(str(path))[1]:
        raise ValueError(f"{str(path)!r}: the format {kind} cannot be compressed; try .extxyz.gz")
    part = in_box(part, vacuum)
    bar = tqdm(_with_properties(part), "writing", len(part), disable=not progress, unit="")
    with new_file(path, overwrite) as temporary, bar as structures:
        try:
            if kind == "extxyz":
                _write_extxyz(temporary, structures)
            elif kind == "traj":
                _write_trajectory(temporary, structures)
            elif kind in ("db", "json"):
                _write_database(temporary, structures, kind, part.units)
            else:
                write(str(temporary), list(structures), format=kind)
        except OSError:
            raise
        except sqlite3.OperationalError as error:  # "database or disk is full", "disk I/O error"
            number = errno.ENOSPC if "full" in str(error) else errno.EIO
            raise OSError(number, os.strerror(number)) from error
        except Exception as error:  # writers raise whatever their format cannot hold
            reason = " ".join(str(error).split()) or type(error).__name__
            if any(s.cell.rank < 3 for s in part.structures):
                reason += "; there are structures without a cell, and no vacuum was asked for"
            raise ValueError(f"{str(path)!r}: cannot be written as {kind}: {reason}") from error
    return len(part)


def in_box(dataset: Dataset, vacuum: float | None) -> Dataset:
    """Puts structures into boxes, along the axes that have no cell vector.

    Args:
        dataset: the structures; left unmodified.
        vacuum: empty space on both sides, Å; None: none.

    Raises:
        ValueError: if the vacuum is not a positive, finite number.
    """
    if vacuum is None:
        return dataset
    if not 0.0 < vacuum < np.inf:
        raise ValueError(f"vacuum is {vacuum!r}; a finite distance above 0 Å is needed")
    structures = []
    for structure in dataset.structures:
        open_axes = [axis for axis in range(3) if not structure.cell[axis].any()]
        boxed = structure.copy()
        if open_axes:
            boxed.center(vacuum, axis=open_axes)
        structures.append(boxed)
    return dataclasses.replace(dataset, structures=structures)


def losses(dataset: Dataset, path: str | os.PathLike[str]) -> list[str]:
    """What a file that `export` wrote does not hold of a data set.

    Formats that are not known to keep everything are judged by reading the file again.

    Args:
        dataset: what was written, such as `in_box(dataset.select(split), vacuum)`.
        path: the file.

    Returns:
        What is lost or changed, one phrase each; empty if nothing is.
    """
    from ase.io import read

    kind = _kind(Path(path))
    if kind in _EXACT:
        strange = [n for n, unit in dataset.units.items() if unit not in (UNITS.get(n), "unknown")]
        return [
            f"the unit of {n} ({dataset.units[n]})" for n in strange if kind in ("extxyz", "traj")
        ]
    lost = [f"property {name}" for name in dataset.properties]
    lost += ["forces"] if dataset.forces is not None else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = read(str(path), index=":", format=kind, do_not_split_by_at_sign=True)
    except Exception:  # noqa: BLE001  (readers raise whatever their parsing trips over)
        return [*lost, f"the structures themselves, for ASE does not read {kind}"]
    if [len(a) for a in images] != [len(a) for a in dataset.structures]:
        return [*lost, "some atoms or structures"]
    pairs = list(zip(images, dataset.structures, strict=True))
    if any((a.numbers != b.numbers).any() for a, b in pairs):
        return [*lost, "elements or order of the atoms"]
    if any((a.pbc != b.pbc).any() for a, b in pairs):
        lost.append("which directions are periodic")
    for what, changes in (
        ("cell vectors", [np.abs(a.cell.array - b.cell.array).max() for a, b in pairs]),
        ("positions", [np.abs(a.positions - b.positions).max() for a, b in pairs]),
    ):
        if max(changes) > 0.0:
            lost.append(f"digits of the {what} (off by up to {max(changes):.1g} Å)")
    return lost


def _kind(path: Path) -> str:
    """Returns ASE's name for the format that a file name asks for, empty if ASE cannot write it."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        kind = str(filetype(str(path), read=False))
        return kind if kind in ioformats and ioformats[kind].can_write else ""
    except UnknownFileTypeError:
        return ""


def _with_properties(dataset: Dataset) -> Iterator[Atoms]:
    for atoms in dataset:
        # The energy of the whole structure goes where ASE's formats have a place for it.
        atoms.info.pop("energy", None)
        yield atoms


def _write_extxyz(path: Path, structures: Iterable[Atoms]) -> None:
    """Writes extxyz with all digits; ASE's own writer rounds positions to 8 decimals."""
    from ase.io.extxyz import key_val_dict_to_str
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "w") as file:
        for atoms in structures:
            info = {PREFIX * (k in _RESERVED) + k: value for k, value in atoms.info.items()}
            if len(info) < len(atoms.info):
                twice = next(k for k in _RESERVED if k in atoms.info and PREFIX + k in atoms.info)
                raise ValueError(f"{twice!r} has to be called {PREFIX + twice!r}, which there is")
            results = {} if atoms.calc is None else atoms.calc.results
            columns = [atoms.positions, results.get("forces", atoms.positions[:, :0])]
            header = {"Properties": "species:S:1:pos:R:3", **info}
            if "forces" in results:
                header["Properties"] += ":forces:R:3"
            if "energy" in results:
                header["energy"] = results["energy"]
            header["pbc"] = atoms.pbc
            if atoms.cell.any():
                header = {"Lattice": atoms.cell.array.T, **header}
            file.write(f"{len(atoms)}\n{key_val_dict_to_str(header)}\n")
            for symbol, row in zip(atoms.symbols, np.hstack(columns).tolist(), strict=True):
                file.write(f"{symbol} {' '.join(map(repr, row))}\n")


def _may_be_column(name: str) -> bool:
    """Says whether an ASE database may have a column of that name."""
    from ase.db.core import check
    from ase.db.row import AtomsRow
    from ase.db.sqlite import SQLite3Database

    if name in SQLite3Database.columnnames or hasattr(AtomsRow, name):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # about names that are formulas, too
            check({name: 1.0})
    except (ValueError, UserWarning):
        return False
    return True


def _write_trajectory(path: Path, structures: Iterable[Atoms]) -> None:
    from ase.io.trajectory import Trajectory

    with Trajectory(path, "w") as trajectory:
        for atoms in structures:
            trajectory.write(atoms)


def _write_database(
    path: Path, structures: Iterable[Atoms], kind: str, units: dict[str, str]
) -> None:
    import ase.db

    names = {"split", *filter(_may_be_column, units)}
    with ase.db.connect(path, type=kind, append=False, use_lock_file=False) as database:
        for atoms in structures:
            columns = {k: v for k, v in atoms.info.items() if k in names}
            data = {k: v for k, v in atoms.info.items() if k not in names}
            database.write(atoms, key_value_pairs=columns, data=data)
        known = {name: (name, "", unit) for name, unit in units.items() if unit != "unknown"}
        database.metadata = {"key_descriptions": known}
