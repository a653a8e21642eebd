"""Reads files row by row: a structure, and every value that comes with it."""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import io
import sqlite3
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from tfgen._settings import is_number
from tfgen.datasets.importing import lammps
from tfgen.datasets.importing.cif import read_cif
from tfgen.datasets.importing.comments import UNITS_KEY
from tfgen.datasets.importing.files import Source, open_text, read_only
from tfgen.datasets.importing.memory import allowed_memory, limited_memory
from tfgen.datasets.importing.notes import Notes
from tfgen.datasets.importing.values import FORCES, LENGTHS, LENGTHS_KEY, NOT_STATED, unit_key
from tfgen.datasets.importing.xyz import read_frames

__all__ = ["Row", "read"]

# Characters of what a reader says of a row that it cannot read: it may quote all of it.
_LONGEST_REASON = 300


class Row(NamedTuple):
    """One structure of a file.

    Attributes:
        structure: positions, numbers, cell and pbc, nothing else.
        values: every value it came with, by name.
        units: units that the file states, by name.
        share: of the file that has been read by now, 0 to 1.
        raw: the structure as ASE read it, in Å, with all values in `info`, and the results of a
            calculator if there are any.
    """

    structure: Atoms
    values: dict[str, Any]
    units: Mapping[str, str]
    share: float
    raw: Atoms


class _Found(NamedTuple):
    atoms: Atoms
    columns: dict[str, Any]
    units: Mapping[str, str]
    share: float


def read(source: Source, notes: Notes, *, page: int = 1000) -> Iterator[Row]:
    """Yields the rows of a file one by one.

    Args:
        source: the file and its format.
        notes: what has to be said about rows that are read all the same.
        page: rows of a database that ASE holds in memory at once.

    Raises:
        ValueError: if a row cannot be read, does not tell the elements, or has sites that are not
            fully occupied; names file and row, counted from 1.
    """
    rows = _rows(source, notes, page)
    size = source.content.stat().st_size
    count = 0
    while True:
        where = f"{str(source.path)!r}, row {count + 1}"
        try:
            with _constraints_that_cannot_be_read(notes, where), limited_memory(size):
                found = next(rows)
        except StopIteration:
            return
        except MemoryError as error:
            raise ValueError(
                f"{where}: cannot be read as {source.kind}: it asks for more memory than the "
                f"{allowed_memory(size) / 1e6:.0f} MB that are allowed for a file of {size} bytes"
            ) from error
        except PermissionError:
            raise
        except Exception as error:  # readers raise whatever their parsing trips over
            raise ValueError(
                f"{where}: cannot be read as {source.kind}: {_reason(error)}"
            ) from error
        atoms = found.atoms
        _require_elements(atoms, where)
        _require_full_occupancy(atoms, where)
        results = atoms.calc.results if atoms.calc is not None else {}
        own = {str(name): value for name, value in atoms.info.items()}
        values = {**results, **found.columns, **own}
        units = {**found.units, **values.pop(UNITS_KEY, {})}
        scale = _angstroms(units, where)
        bare = Atoms(
            atoms.numbers, positions=atoms.positions * scale, cell=atoms.cell * scale, pbc=atoms.pbc
        )
        yield Row(bare, values, units, found.share, _raw(found, bare))
        count += 1


def _raw(found: _Found, bare: Atoms) -> Atoms:
    """Returns the structure as it was read, with the values of its columns, in Å."""
    atoms = found.atoms
    atoms.info = {**found.columns, **atoms.info}
    if (atoms.positions != bare.positions).any() or (atoms.cell != bare.cell).any():
        atoms.set_cell(bare.cell)
        atoms.set_positions(bare.positions, apply_constraint=False)
        if atoms.calc is not None:  # its results are for these atoms
            atoms.calc.atoms = atoms.copy()
    return atoms


def _rows(source: Source, notes: Notes, page: int) -> Iterator[_Found]:
    if source.kind == "db":
        yield from _read_sqlite(source, page)
    elif source.kind == "json":
        yield from _read_json(source)
    elif source.kind == "csv":
        yield from _read_csv(source)
    elif source.kind == "cif":
        yield from _read_cif(source)
    elif source.kind == "lammps-data":
        yield from (_Found(atoms, {}, {}, 1.0) for atoms in lammps.read_data(source, notes))
    elif source.kind.startswith("lammps-dump"):
        yield from (_Found(atoms, {}, {}, 0.0) for atoms in lammps.read_dump(source))
    else:
        yield from _read_file(source)


def _read_file(source: Source) -> Iterator[_Found]:
    from ase.io import iread
    from ase.io.formats import ioformats, open_with_compression

    path, kind = source.content, source.kind
    if not ioformats[kind].acceptsfd:
        # A file name may hold an "@", which ASE would take for the start of an index.
        for atoms in iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True):
            yield _Found(atoms, {}, {}, 0.0)
        return
    size = path.stat().st_size
    with open_with_compression(str(path), "rb" if ioformats[kind].isbinary else "r") as file:
        # The bytes taken from the disk; compressed files do not tell.
        raw = getattr(getattr(file, "buffer", file), "raw", None)
        frames = (
            read_frames if kind == "extxyz" else functools.partial(iread, index=":", format=kind)
        )
        for atoms in frames(file):
            yield _Found(atoms, {}, {}, raw.tell() / size if raw is not None else 0.0)


def _read_cif(source: Source) -> Iterator[_Found]:
    from ase.io.formats import open_with_compression

    with open_with_compression(str(source.content), "rb") as file:
        for atoms in read_cif(file):
            yield _Found(atoms, {}, {}, 0.0)


def _read_sqlite(source: Source, page: int) -> Iterator[_Found]:
    from ase.db.sqlite import SQLite3Database

    class ReadOnly(SQLite3Database):
        def _connect(self) -> sqlite3.Connection:
            return sqlite3.connect(read_only(source.content), uri=True, timeout=20)

    with ReadOnly(str(source.content), use_lock_file=False) as database:
        yield from _read_database(database, page)


def _read_json(source: Source) -> Iterator[_Found]:
    import ase.db

    with ase.db.connect(source.content, type="json", use_lock_file=False) as database:
        page = max(1, database.count())  # ASE reads the whole file for each page
        yield from _read_database(database, page)


def _read_database(database: Any, page: int) -> Iterator[_Found]:
    count, units = database.count(), _units(database.metadata)
    for offset in range(0, count, page):
        rows = database.select(limit=page, offset=offset)
        for place, row in enumerate(rows, offset + 1):
            data = _data(row)
            columns = {**data, **row.key_value_pairs}
            # Columns of a database are in ASE's units; values in its data can be in any.
            stated = {**dict.fromkeys(data, NOT_STATED), **units}
            yield _Found(row.toatoms(), columns, stated, place / count)


def _data(row: Any) -> dict[str, Any]:
    """Returns numbers and forces in the free data of a row, where SchNetPack puts properties."""
    # ASE's JSON turns names that are whole numbers into numbers.
    data = {str(name): value for name, value in (row.data or {}).items()}
    for name in [name for name in data if f"_shape_{name}" in data and f"_dtype_{name}" in data]:
        # As SchNetPack wrote arrays before version 0.3.
        values = np.frombuffer(base64.b64decode(data[name]), data[f"_dtype_{name}"])
        data[name] = values.reshape(data[f"_shape_{name}"])
    one = {k: v for k, v in data.items() if np.size(v) == 1 and not k.startswith("_")}
    return {**one, FORCES: data[FORCES]} if FORCES in data else one


def _units(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Returns the units that a database states: its key descriptions, or as SchNetPack does.

    The unit of length, if there is one, stands under `LENGTHS_KEY`.
    """
    described = metadata.get("key_descriptions", {})
    # name -> (short description, long description, unit), says ASE; files may say anything.
    units = {
        name: texts[2]
        for name, texts in (described.items() if isinstance(described, dict) else ())
        if isinstance(texts, list | tuple) and len(texts) == 3
    }
    stated = metadata.get("_property_unit_dict", {})
    units |= stated if isinstance(stated, dict) else {}
    units[LENGTHS_KEY] = metadata.get("_distance_unit")
    return {name: unit for name, unit in units.items() if isinstance(unit, str) and unit}


def _read_csv(source: Source) -> Iterator[_Found]:
    """Reads tables with a column `cif`; the other columns are values."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    size = source.content.stat().st_size
    with open_text(source.content) as file:
        raw = getattr(getattr(file, "buffer", file), "raw", None)
        table = csv.DictReader(file)
        if "cif" not in (table.fieldnames or ()):
            raise ValueError(
                f"there is no column 'cif', but {', '.join(map(repr, table.fieldnames or ()))}"
            )
        for line in table:
            text = line.pop("cif")
            if not text or not text.strip():
                raise ValueError("the column 'cif' is empty")
            atoms = next(read_cif(io.BytesIO(text.encode())), None)
            if atoms is None:
                raise ValueError("the column 'cif' holds no structure")
            atoms.info = {k: v for k, v in atoms.info.items() if k == "occupancy"}
            columns = {name: _parsed(value) for name, value in line.items() if name}
            yield _Found(atoms, columns, {}, raw.tell() / size if raw is not None else 0.0)


def _parsed(text: str | None) -> float | str | None:
    """Returns a field of a table as a number if it is one, as None if it is empty."""
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        return text


@contextlib.contextmanager
def _constraints_that_cannot_be_read(notes: Notes, where: str) -> Iterator[None]:
    """Lets ASE read structures whose constraints it does not know; none are kept anyway."""
    import ase.constraints as module

    original = module.dict2constraint

    def tolerant(description: Any) -> Any:
        try:
            return original(description)
        except Exception:  # noqa: BLE001  (constraints raise whatever their arguments lead to)
            notes.add("a constraint that ASE cannot read was dropped", where)
            return FixAtoms(indices=[])

    module.dict2constraint = cast("Any", tolerant)
    try:
        yield
    finally:
        module.dict2constraint = original


def _reason(error: Exception) -> str:
    """Says in one line why a row could not be read."""
    places = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, KeyError) and "symbols2numbers" in places:
        symbol = str(error.args[0])[:_LONGEST_REASON]
        if symbol.isdigit():
            return f"atoms have types such as {symbol!r}, which do not tell the elements"
        return f"{symbol!r} is no element"
    if isinstance(error, AttributeError) and "_read_xyz_frame" in places:
        return "atoms have numbers as species, which do not tell the elements"
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__


def _require_elements(atoms: Atoms, where: str) -> None:
    if len(atoms) and not atoms.numbers.any() and atoms.has("type"):
        raise ValueError(f"{where}: atoms have types, which do not tell the elements")


def _require_full_occupancy(atoms: Atoms, where: str) -> None:
    """Refuses crystals with disorder, of which ASE keeps the element with the largest share."""
    if isinstance(sites := atoms.info.get("occupancy"), dict):
        for site in sites.values():
            if not isinstance(site, dict) or not all(map(is_number, site.values())):
                raise ValueError(f"{where}: the occupancy of a site is no number")
            if len(site) > 1 or min(site.values(), default=1) < 0.999:
                what = " and ".join(f"{share:g} {symbol}" for symbol, share in site.items())
                raise ValueError(f"{where}: a site is occupied by {what} (partial occupancy)")
    if atoms.has("occupancy"):
        shares = np.asarray(atoms.arrays["occupancy"])
        # Some programs write 0 everywhere instead of nothing.
        if shares.dtype.kind == "f" and ((shares > 0.0) & (shares < 0.999)).any():
            atom = int(np.flatnonzero((shares > 0.0) & (shares < 0.999))[0])
            raise ValueError(
                f"{where}: atom {atom + 1} is there to {shares[atom]:g} (partial occupancy)"
            )


def _angstroms(units: Mapping[str, str], where: str) -> float:
    """Returns the factor that turns the lengths of a file into Å."""
    unit = units.get(LENGTHS_KEY)
    if unit is None:
        return 1.0
    if (factor := LENGTHS.get(unit_key(unit))) is None:
        raise ValueError(f"{where}: lengths are in {unit!r}, which is no unit of length known here")
    return factor
