"""Imports structures and properties from the files people have: whatever ASE reads."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from scipy.spatial.distance import pdist
from tqdm import tqdm

from tfgen._files import require_file
from tfgen.datasets.storage import Dataset, assign_splits, provenance
from tfgen.structures.neighbour_lists import neighbour_pairs
from tfgen.structures.properties import ENERGY_PER_ATOM, UNITS, applicable, compute
from tfgen.structures.similarity import duplicates

__all__ = ["COINCIDENT", "import_files", "read_structures"]

COINCIDENT = 0.5
"""Atoms closer than this, Å, are a mistake: the shortest bond there is, in H2, has 0.74 Å."""

_DATABASES = ("db", "json")  # ASE's names for its SQLite and JSON data bases
# Rows that ASE takes out of an SQLite data base at once, which it holds in memory.
_PAGE = 1000


class _Row(NamedTuple):
    """One structure of a file, every value it came with, and the share of the file read by now."""

    structure: Atoms
    values: dict[str, Any]
    share: float


class _Source(NamedTuple):
    """What the files hold: bare structures, named numbers, the units found, and the files."""

    structures: list[Atoms]
    properties: dict[str, np.ndarray]
    units: dict[str, str]
    files: list[dict[str, Any]]


class _MissingError(ValueError):
    """A structure comes without a value."""


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
    taken if all structures have one; the properties in `tfgen.structures.properties.GEOMETRIC`
    are computed. Of equal structures the one of lowest energy stays (the first, without energies),
    before the structures are split.

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
    if not 0.0 <= tolerance < np.inf:
        raise ValueError(f"tolerance is {tolerance!r}; a finite distance >= 0 Å is needed")
    assign_splits(1, fractions, np.random.default_rng(seed))  # refuses what cannot be shares
    structures, found, known, sources = _collect(paths, dict.fromkeys(properties), progress)
    stray = sorted(set(units) - set(found) - set(UNITS))
    if stray:
        raise ValueError(f"a unit is given for {stray[0]!r}, which is not among the properties")
    units = {**UNITS, **known, **units}
    count = len(structures)
    # Of equal structures the first stays: those of low energy come first.
    order = np.argsort(found.get(ENERGY_PER_ATOM, np.zeros(count)), kind="stable")
    first = duplicates([structures[i] for i in order], tolerance, progress=progress)
    left = np.sort(order[first == np.arange(count)])
    structures = [structures[i] for i in left]
    found = {name: values[left] for name, values in found.items()}
    found |= compute(structures, [n for n in applicable(structures) if n not in found])
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    counts = {"read": count, "duplicates": count - len(left), "kept": len(left)}
    return Dataset(
        structures=structures,
        properties=found,
        units={name: units.get(name, "unknown") for name in found},
        split=assign_splits(len(left), fractions, np.random.default_rng(seed)),
        metadata={
            "name": paths[0].stem,
            "description": "imported from " + ", ".join(path.name for path in paths[:3]) + more,
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
    return _collect([path], (), progress=False).structures


def _collect(paths: Sequence[Path], names: Iterable[str], progress: bool) -> _Source:
    """Reads all files row by row, and keeps of each no more than the data set will hold."""
    structures: list[Atoms] = []
    columns = {name: array("d") for name in names}
    energies = _Energies(optional=bool(columns))
    units: dict[str, str] = {}
    files = []
    total = sum(path.stat().st_size for path in paths)
    bar = tqdm(desc="reading", total=total, unit="B", unit_scale=True, disable=not progress)
    with bar:
        done = 0
        for path in paths:
            size, before = path.stat().st_size, len(structures)
            kind = _kind(path)
            for place, row in enumerate(_read(path, kind), 1):
                where = f"{str(path)!r}, row {place}"
                _check(row.structure, where)
                for name, column in columns.items():
                    column.append(_value(row, name, where))
                energies.append(row, where)
                structures.append(row.structure)
                bar.set_postfix_str(f"{len(structures)} structures", refresh=False)
                bar.update(int(done + row.share * size) - bar.n)
            if len(structures) == before:
                raise ValueError(f"{str(path)!r} holds no structures")
            done += size
            bar.update(done - bar.n)
            for name, unit in _units(path, kind).items():
                if name in columns and units.setdefault(name, unit) != unit:
                    raise ValueError(
                        f"{str(path)!r}: property {name!r} is in {unit}, but in {units[name]} in "
                        "a file before"
                    )
            count = len(structures) - before
            files.append({"name": path.name, "structures": count, "sha256": _sha256(path)})
    properties = {name: np.array(column) for name, column in columns.items()}
    if ENERGY_PER_ATOM not in properties and (found := energies.found()) is not None:
        properties[ENERGY_PER_ATOM] = found
    return _Source(structures, properties, units, files)


class _Energies:
    """Energies that nobody has asked for: taken if all structures have one.

    Energies of some structures only are refused, unless other properties were asked for.
    """

    def __init__(self, optional: bool) -> None:
        self._optional = optional
        self._values = array("d")
        self._lacking: ValueError | None = None
        self._faulty: ValueError | None = None

    def append(self, row: _Row, where: str) -> None:
        try:
            self._values.append(_value(row, ENERGY_PER_ATOM, where))
        except _MissingError as error:
            self._lacking = self._lacking or error
        except ValueError as error:
            self._faulty = self._faulty or error
        if not self._optional and self._lacking and (self._values or self._faulty):
            raise self._lacking

    def found(self) -> np.ndarray | None:
        """The energies per atom [n], eV; None if there are none, or not for all structures."""
        if self._lacking:
            return None
        if self._faulty:
            raise self._faulty
        return np.array(self._values)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _kind(path: Path) -> str:
    """Returns ASE's name for the format of a file."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty")
    try:
        kind = str(filetype(str(path)))
        # Where ASE does not recognise the content, it may return the suffix, whatever that is.
        readable = kind in ioformats and ioformats[kind].can_read
    except UnknownFileTypeError:
        readable = False
    except EOFError as error:  # a compressed file that ends too early
        raise ValueError(f"{str(path)!r} is truncated") from error
    if not readable:
        raise ValueError(f"{str(path)!r} is of no kind that ASE can read")
    return kind


def _read(path: Path, kind: str) -> Iterator[_Row]:
    """Yields the structures of a file one by one."""
    rows = _read_database(path, kind) if kind in _DATABASES else _read_file(path, kind)
    count = 0
    while True:
        try:
            atoms, columns, share = next(rows)
        except StopIteration:
            return
        except PermissionError:
            raise
        except Exception as error:  # readers raise whatever their parsing trips over
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{str(path)!r}, row {count + 1}: cannot be read as {kind}: {reason}"
            ) from error
        results = atoms.calc.results if atoms.calc is not None else {}
        bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        yield _Row(bare, {**results, **columns, **atoms.info}, share)
        count += 1


def _read_file(path: Path, kind: str) -> Iterator[tuple[Atoms, dict[str, Any], float]]:
    from ase.io import iread
    from ase.io.formats import ioformats, open_with_compression

    if not ioformats[kind].acceptsfd:
        # A file name may hold an "@", which ASE would take for the start of an index.
        for atoms in iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True):
            yield atoms, {}, 0.0
        return
    size = path.stat().st_size
    mode = "rb" if ioformats[kind].isbinary else "r"
    with open_with_compression(str(path), mode) as file:
        # The bytes taken from the disk; compressed files do not tell.
        raw = getattr(getattr(file, "buffer", file), "raw", None)
        for atoms in iread(file, index=":", format=kind):
            yield atoms, {}, raw.tell() / size if raw is not None else 0.0
        if kind == "extxyz" and any(line.strip() for line in file):
            raise ValueError("an empty line, after which ASE reads no more, but there is more")


def _read_database(path: Path, kind: str) -> Iterator[tuple[Atoms, dict[str, Any], float]]:
    import ase.db

    with ase.db.connect(path, type=kind, use_lock_file=False) as database:
        count = database.count()
        page = _PAGE if kind == "db" else count  # JSON is read as a whole for each page
        for offset in range(0, count, page):
            rows = database.select(limit=page, offset=offset)
            for place, row in enumerate(rows, offset + 1):
                yield row.toatoms(), dict(row.key_value_pairs), place / count


def _units(path: Path, kind: str) -> dict[str, str]:
    """Units of properties that the file itself tells: the key descriptions of a data base."""
    if kind not in _DATABASES:
        return {}
    import ase.db

    with ase.db.connect(path, type=kind, use_lock_file=False) as database:
        described = database.metadata.get("key_descriptions", {})
    # name -> (short description, long description, unit), says ASE; files may say anything.
    if not isinstance(described, dict):
        return {}
    return {
        name: texts[2]
        for name, texts in described.items()
        if isinstance(texts, list | tuple) and len(texts) == 3 and isinstance(texts[2], str)
        if texts[2]
    }


def _check(structure: Atoms, where: str) -> None:
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
    shortest = np.inf
    if structure.pbc.any():
        # An atom this close to its own image; and there would be millions of images.
        heights = 1.0 / np.linalg.norm(np.linalg.pinv(structure.cell.array), axis=0)
        if heights[structure.pbc].min() < COINCIDENT:
            raise ValueError(
                f"{where}: atoms only {heights[structure.pbc].min():.3g} Å apart (each from its "
                f"own image); at least {COINCIDENT} Å is needed"
            )
        shortest = neighbour_pairs(structure, COINCIDENT).distance.min(initial=np.inf)
    elif len(structure) == 1:
        raise ValueError(f"{where}: a single atom, which has no geometry")
    else:
        shortest = pdist(structure.positions).min()
    if shortest < COINCIDENT:
        raise ValueError(
            f"{where}: atoms only {shortest:.3g} Å apart; at least {COINCIDENT} Å is needed"
        )


def _value(row: _Row, name: str, where: str) -> float:
    value, divisor = row.values.get(name), 1
    if name == ENERGY_PER_ATOM and value is None:
        value, divisor = row.values.get("energy"), len(row.structure)
    if value is None:
        what = "energy" if name == ENERGY_PER_ATOM else f"property {name!r}"
        raise _MissingError(f"{where}: no {what}; every structure needs one")
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise ValueError(f"{where}: property {name!r} is {value!r}; a number is needed")
    if not np.isfinite(value):
        raise ValueError(f"{where}: property {name!r} is {value}; it must be finite")
    return float(value) / divisor
