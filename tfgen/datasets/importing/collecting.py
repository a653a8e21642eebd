"""Reads all files row by row, and keeps of each row no more than the data set will hold."""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen.datasets.importing.checks import SingleAtomError, check
from tfgen.datasets.importing.files import opened
from tfgen.datasets.importing.notes import Notes
from tfgen.datasets.importing.readers import Row, read
from tfgen.datasets.importing.values import (
    NOT_STATED,
    MissingError,
    energy_per_atom,
    energy_unit,
    known_forces,
    looks_like_energy,
    property_value,
    unit_key,
)
from tfgen.structures.properties import ENERGY_PER_ATOM

__all__ = ["Collected", "Rows", "collect", "part"]


@dataclass
class Rows:
    """Where structures come from: `rows[i]` names file and row of the structure at place i."""

    paths: Sequence[Path]
    file: array[int] = field(default_factory=lambda: array("l"))
    place: array[int] = field(default_factory=lambda: array("l"))

    def __getitem__(self, i: int) -> str:
        return f"{str(self.paths[self.file[i]])!r}, row {self.place[i]}"


@dataclass
class Collected:
    """What the files hold.

    Attributes:
        structures: n structures; nothing but positions, numbers, cells and pbc.
        rows: where they come from.
        properties: name -> [n].
        units: property -> unit, as far as the files state it.
        files: what the metadata says of each file.
        skipped: reason -> number of rows that are not among the structures.
        other: names that look like energies, if there are none under the usual name.
        forces: for each structure [atoms, 3], eV/Å, None where they are not known.
        raw: the structures as they were read, if they were to be kept.
    """

    structures: list[Atoms]
    rows: Rows
    properties: dict[str, np.ndarray]
    units: dict[str, str]
    files: list[dict[str, Any]]
    skipped: dict[str, int]
    other: list[str]
    forces: list[np.ndarray | None]
    raw: list[Atoms] = field(default_factory=list)


def collect(
    paths: Sequence[Path],
    names: Sequence[str],
    notes: Notes,
    *,
    energy: str | None = None,
    given: Mapping[str, str] | None = None,
    kind: str | None = None,
    skip: bool = False,
    keep_raw: bool = False,
    progress: bool = False,
) -> Collected:
    """Reads structures and the properties asked for.

    Args:
        paths: the files.
        names: properties that every structure must have.
        notes: what has to be said.
        energy: name of the total energy; None: the usual one, where all structures have it.
        given: units that the user states, which come before those of the files.
        kind: format of all files; None: guessed for each.
        skip: whether to skip structures that lack a property or are single atoms.
        keep_raw: whether to keep the structures as they were read.
        progress: show a progress bar.

    Raises:
        ValueError: as `import_files`.
    """
    structures: list[Atoms] = []
    forces: list[np.ndarray | None] = []
    raw: list[Atoms] = []
    rows = Rows(paths)
    columns = {name: array("d") for name in names if name != ENERGY_PER_ATOM}
    required = energy is not None or ENERGY_PER_ATOM in names
    energies = _Energies(energy, required, bool(columns) or skip, notes)
    units: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    files: list[dict[str, Any]] = []
    for file, place, row in _every_row(paths, kind, files, notes, progress):
        where = f"{str(paths[file])!r}, row {place}"
        row = row._replace(units={**row.units, **(given or {})})
        try:
            check(row.structure, where)
            size = len(row.structure)
            found = [property_value(row.values, row.units, n, size, where) for n in columns]
            energies.append(row, where)
        except (SingleAtomError, MissingError) as error:
            if not skip:
                raise
            single = isinstance(error, SingleAtomError)
            skipped["single atoms" if single else "without a property"] += 1
            continue
        for (name, column), value in zip(columns.items(), found, strict=True):
            column.append(value)
            _remember_unit(units, name, row.units.get(name), where)
        structures.append(row.structure)
        # Those of another energy than the usual one are not known.
        forces.append(None if energy else known_forces(row.values, row.units, size))
        raw += [row.raw] if keep_raw else []
        rows.file.append(file)
        rows.place.append(place)
    properties = {name: np.array(column) for name, column in columns.items()}
    values, there = energies.found()
    if there.any() and not there.all() and not columns:
        skipped["without a property"] += int((~there).sum())
        places = np.flatnonzero(there)
        structures, forces = [structures[i] for i in places], [forces[i] for i in places]
        raw = [raw[i] for i in places] if keep_raw else []
        rows = _part(rows, there)
        values, there = values[there], there[there]
    if not structures:
        told = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise ValueError(f"{str(paths[0])!r}: no structures are left: {told}")
    if there.all():
        properties[ENERGY_PER_ATOM] = values
    elif there.any():
        count = int((~there).sum())
        notes.add(
            f"no energy, which {count} of {len(there)} structures lack; no energies were taken",
            rows[int(np.flatnonzero(~there)[0])],
        )
    ordered = {name: properties[name] for name in (*names, *properties)}
    other = [] if there.any() else energies.other()
    return Collected(structures, rows, ordered, units, files, dict(skipped), other, forces, raw)


def part(source: Collected, there: np.ndarray) -> Collected:
    """Returns the structures of a mask [n] with all that belongs to them."""
    places = np.flatnonzero(there)
    return dataclasses.replace(
        source,
        structures=[source.structures[i] for i in places],
        rows=_part(source.rows, there),
        properties={name: values[there] for name, values in source.properties.items()},
        forces=[source.forces[i] for i in places],
        raw=[source.raw[i] for i in places] if source.raw else [],
    )


def _part(rows: Rows, there: np.ndarray) -> Rows:
    places = np.flatnonzero(there)
    kept = (array("l", [numbers[i] for i in places]) for numbers in (rows.file, rows.place))
    return Rows(rows.paths, *kept)


def _remember_unit(units: dict[str, str], name: str, unit: str | None, where: str) -> None:
    # Energies have been converted to eV.
    if not unit or name == "energy":
        return
    if units.setdefault(name, unit) != unit:
        raise ValueError(f"{where}: property {name!r} is in {unit}, but in {units[name]} before")


def _every_row(
    paths: Sequence[Path],
    kind: str | None,
    files: list[dict[str, Any]],
    notes: Notes,
    progress: bool,
) -> Iterator[tuple[int, int, Row]]:
    """Yields the place of the file, the number of the row from 1 on, and the row."""
    total = sum(path.stat().st_size for path in paths)
    bar = tqdm(desc="reading", total=total, unit="B", unit_scale=True, disable=not progress)
    count = done = 0
    with bar:
        for file, path in enumerate(paths):
            size, before = path.stat().st_size, count
            with opened(path, kind, notes) as source:
                for place, row in enumerate(read(source, notes), 1):
                    yield file, place, row
                    count += 1
                    bar.set_postfix_str(f"{count} structures", refresh=False)
                    bar.update(int(done + row.share * size) - bar.n)
            if count == before:
                raise ValueError(f"{str(path)!r} holds no structures")
            done += size
            bar.update(done - bar.n)
            digest = _sha256(path)
            files.append({"name": path.name, "structures": count - before, "sha256": digest})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Energies:
    """Energies per atom of all structures, and what looks like one where there is none.

    Args:
        name: of the total energy; None: the usual one.
        required: whether every structure must have one.
        optional: whether some structures may have none; otherwise all or none must have one.
        notes: where it is said that energies were converted.
    """

    def __init__(self, name: str | None, required: bool, optional: bool, notes: Notes) -> None:
        self._name = name
        self._required = required
        self._optional = optional
        self._notes = notes
        self._values = array("d")
        self._any = False
        self._lacking: MissingError | None = None
        self._faulty: ValueError | None = None
        self._like: Counter[str] = Counter()

    def append(self, row: Row, where: str) -> None:
        """Takes the energy of the next structure.

        Raises:
            ValueError: if it has none but must have one, or none that is a number.
        """
        value = np.nan
        try:
            value = energy_per_atom(row.values, row.units, self._name, len(row.structure), where)
        except MissingError as error:
            if self._required:
                raise
            self._lacking = self._lacking or error
            self._like.update(looks_like_energy(row.values))
        except ValueError as error:
            if self._required:
                raise
            self._faulty = self._faulty or error
        else:
            self._any = True
            name = "energy" if self._name is None else self._name
            unit = energy_unit(row.units, name)
            if row.units.get(name) == NOT_STATED:
                self._notes.add(f"the unit of the energy is not stated, {unit} was assumed", where)
            elif unit_key(unit) == "ev/atom" and not row.units.get(name):
                self._notes.add(f"{name!r} was taken as an energy per atom, as it is called", where)
            elif unit_key(unit) != "ev":
                self._notes.add(f"the energy was converted from {unit} to eV", where)
        if not self._optional and self._lacking and (self._any or self._faulty):
            raise self._lacking
        self._values.append(value)

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the energies per atom [n], eV, and which structures have one [n]."""
        if self._faulty and not self._lacking:
            raise self._faulty
        values = np.array(self._values)
        return values, ~np.isnan(values)

    def other(self) -> list[str]:
        """Names that look like energies, the most frequent first."""
        return [name for name, _ in self._like.most_common()]
