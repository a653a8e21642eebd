"""Imports structures and properties from the files people have: whatever ASE reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.spatial.distance import pdist
from tqdm import tqdm

from tfgen._files import require_file
from tfgen.datasets.storage import Dataset, assign_splits, provenance
from tfgen.properties import ENERGY_PER_ATOM, UNITS, applicable, compute
from tfgen.similarity import duplicates

__all__ = ["COINCIDENT", "import_files", "read_structures"]

COINCIDENT = 0.5
"""Atoms closer than this, Å, are a mistake: the shortest bond there is, in H2, has 0.74 Å."""

_DATABASES = ("db", "json")  # ASE's names for its SQLite and JSON data bases


class _Row(NamedTuple):
    """One structure of a file, and every value it came with."""

    where: str
    structure: Atoms
    values: dict[str, Any]


def import_files(
    files: Sequence[str | os.PathLike[str]],
    *,
    properties: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    tolerance: float = 0.05,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    progress: bool = False,
) -> Dataset:
    """Reads structures with their properties from files of any format that ASE reads.

    A property is looked for in `atoms.info`, in the columns of an ASE data base and in the results
    of the calculator, in this order; energy_per_atom may also follow from an energy. Energies are
    taken if all structures have one; the properties in `tfgen.properties.GEOMETRIC` are computed.
    Of equal structures the one of lowest energy stays (the first, without energies), before the
    structures are split.

    Args:
        files: extxyz, traj, ASE db, POSCAR, CIF, ...
        properties: names of numbers that every structure must have.
        units: property -> unit, for those tfgen does not know; "unknown" where left out.
        tolerance: structures whose sorted distances differ by no more are equal, Å.
        fractions: shares of the train, validation and test split.
        seed: of the split.
        progress: show a progress bar.

    Returns:
        The data set; `metadata["counts"]` says how many were read and dropped.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file cannot be read, a structure or a property is not usable (names file
            and row, counted from 1), or properties are there for some structures only.
    """
    units = dict(units or {})
    paths = [require_file(path, "structure file") for path in files]
    if not paths:
        raise ValueError("files is empty; at least one file is needed")
    if seed < 0:
        raise ValueError(f"seed is {seed!r}; a whole number >= 0 is needed")
    names = list(dict.fromkeys(properties))
    rows, sources = _collect(paths, names, progress)
    found = _properties(rows, names)
    stray = sorted(set(units) - set(found) - set(UNITS))
    if stray:
        raise ValueError(f"a unit is given for {stray[0]!r}, which is not among the properties")
    structures = [row.structure for row in rows]
    energy = found.get(ENERGY_PER_ATOM, np.zeros(len(rows)))
    order = np.argsort(energy, kind="stable")
    first = duplicates([structures[i] for i in order], tolerance)
    left = np.sort(order[first == np.arange(len(rows))])
    structures = [structures[i] for i in left]
    found = {name: values[left] for name, values in found.items()}
    found |= compute(structures, [n for n in applicable(structures) if n not in found])
    counts = {"read": len(rows), "duplicates": len(rows) - len(left), "kept": len(left)}
    return Dataset(
        structures=structures,
        properties=found,
        units={name: units.get(name, UNITS.get(name, "unknown")) for name in found},
        split=assign_splits(len(left), fractions, np.random.default_rng(seed)),
        metadata={
            "name": paths[0].stem,
            "description": "imported from " + ", ".join(path.name for path in paths),
            "kind": "imported",
            "files": sources,
            "seed": seed,
            "counts": counts,
            "thresholds": {"duplicate_tolerance": tolerance, "coincident": COINCIDENT},
            **provenance(),
        },
    )


def read_structures(path: str | os.PathLike[str]) -> list[Atoms]:
    """Reads the structures of one file of any format that ASE reads, without their properties.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: as `import_files`.
    """
    path = require_file(path, "structure file")
    rows, _ = _collect([path], (), progress=False)
    return [row.structure for row in rows]


def _collect(
    paths: Sequence[Path], names: Sequence[str], progress: bool
) -> tuple[list[_Row], list[dict[str, Any]]]:
    """Reads all files; returns their rows, and what identifies each file."""
    wanted = {*names, "energy", ENERGY_PER_ATOM}
    rows: list[_Row] = []
    sources = []
    with tqdm(desc="reading", unit="", disable=not progress) as bar:
        for path in paths:
            before = len(rows)
            for row in _read(path):
                _check(row)
                # What is not asked for need not be held, nor be a number.
                values = {name: v for name, v in row.values.items() if name in wanted}
                rows.append(row._replace(values=values))
                bar.update()
            if len(rows) == before:
                raise ValueError(f"{str(path)!r} holds no structures")
            count = len(rows) - before
            sources.append({"name": path.name, "structures": count, "sha256": _sha256(path)})
    return rows, sources


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> Iterator[_Row]:
    """Yields the structures of a file one by one."""
    from ase.io.formats import UnknownFileTypeError, filetype

    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty")
    try:
        kind = filetype(str(path))
    except UnknownFileTypeError as error:
        raise ValueError(f"{str(path)!r} is of no kind that ASE can read") from error
    except EOFError as error:  # a compressed file that ends too early
        raise ValueError(f"{str(path)!r} is truncated") from error
    rows = _read_database(path) if kind in _DATABASES else _read_file(path, kind)
    count = 0
    while True:
        where = f"{str(path)!r}, row {count + 1}"
        try:
            atoms, columns = next(rows)
        except StopIteration:
            return
        except PermissionError:
            raise
        except Exception as error:  # readers raise whatever their parsing trips over
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{where}: cannot be read as {kind}: {reason}") from error
        results = atoms.calc.results if atoms.calc is not None else {}
        bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        yield _Row(where, bare, {**results, **columns, **atoms.info})
        count += 1


def _read_file(path: Path, kind: str) -> Iterator[tuple[Atoms, dict[str, Any]]]:
    from ase.io import iread

    # A file name may hold an "@", which ASE would take for the start of an index.
    for atoms in iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True):
        yield atoms, {}


def _read_database(path: Path) -> Iterator[tuple[Atoms, dict[str, Any]]]:
    import ase.db

    with ase.db.connect(path, use_lock_file=False) as database:
        for row in database.select():
            yield row.toatoms(), dict(row.key_value_pairs)


def _check(row: _Row) -> None:
    where, structure = row.where, row.structure
    if len(structure) == 0:
        raise ValueError(f"{where}: no atoms")
    if (structure.numbers <= 0).any():
        raise ValueError(f"{where}: dummy atoms (X), which are no element")
    if not np.isfinite(structure.positions).all():
        raise ValueError(f"{where}: positions that are not finite")
    if not np.isfinite(structure.cell.array).all():
        raise ValueError(f"{where}: a cell that is not finite")
    if (structure.pbc & ~structure.cell.any(axis=1)).any():
        raise ValueError(f"{where}: periodic along an axis that has no cell vector")
    if structure.pbc.any():
        # An atom this close to its own image; and the list would hold millions.
        heights = 1.0 / np.linalg.norm(np.linalg.pinv(structure.cell.array), axis=0)
        if heights[structure.pbc].min() < COINCIDENT:
            raise ValueError(
                f"{where}: atoms only {heights[structure.pbc].min():.3g} Å apart (each from its "
                f"own image); at least {COINCIDENT} Å is needed"
            )
        lengths = neighbor_list("d", structure, COINCIDENT)
    elif len(structure) == 1:
        raise ValueError(f"{where}: a single atom, which has no geometry")
    else:
        lengths = pdist(structure.positions)
    if len(lengths) and lengths.min() < COINCIDENT:
        raise ValueError(
            f"{where}: atoms only {lengths.min():.3g} Å apart; at least {COINCIDENT} Å is needed"
        )


def _properties(rows: Sequence[_Row], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Collects the named properties, and energy_per_atom where there are energies."""
    found = {name: np.array([_value(row, name) for row in rows]) for name in names}
    having = [row for row in rows if "energy" in row.values or ENERGY_PER_ATOM in row.values]
    # Energies of some structures only are refused, unless other properties were asked for.
    if ENERGY_PER_ATOM not in found and having and (len(having) == len(rows) or not names):
        found[ENERGY_PER_ATOM] = np.array([_value(row, ENERGY_PER_ATOM) for row in rows])
    return found


def _value(row: _Row, name: str) -> float:
    value, divisor = row.values.get(name), 1
    if name == ENERGY_PER_ATOM and value is None:
        value, divisor = row.values.get("energy"), len(row.structure)
    if value is None:
        what = "energy" if name == ENERGY_PER_ATOM else f"property {name!r}"
        raise ValueError(f"{row.where}: no {what}; every structure needs one")
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise ValueError(f"{row.where}: property {name!r} is {value!r}; a number is needed")
    if not np.isfinite(value):
        raise ValueError(f"{row.where}: property {name!r} is {value}; it must be finite")
    return float(value) / divisor
