"""Makes a data set of files: read, check, drop what is there twice, split."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from tfgen._files import require_file
from tfgen.datasets.importing.checks import COINCIDENT, check, outliers, spread_of
from tfgen.datasets.importing.collecting import Collected, Rows, collect
from tfgen.datasets.importing.computing import FILE, compute_properties, find_functions
from tfgen.datasets.importing.files import opened
from tfgen.datasets.importing.notes import Notes
from tfgen.datasets.importing.readers import read
from tfgen.datasets.storage import Dataset, assign_splits, provenance
from tfgen.execution.results import ResultStore
from tfgen.structures.properties import ENERGIES, ENERGY_PER_ATOM, GEOMETRY, UNITS, applicable
from tfgen.structures.properties import compute as compute_geometric
from tfgen.structures.similarity.equality import duplicates as first_equal
from tfgen.structures.similarity.near_copies import LISTED, SORTED, near_copies

__all__ = ["import_files", "read_structures"]

# Rows that are named of what was dropped, or lies far outside the rest.
_EXAMPLES = 5
# Of fewer structures, nobody expects a split that means something.
_FEW = 10


def import_files(
    files: Sequence[str | os.PathLike[str]],
    *,
    properties: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    energy: str | None = None,
    compute: Mapping[str, Callable[[Atoms], Any] | str | None] | None = None,
    format: str | None = None,  # noqa: A002  (ASE's name for it)
    missing: Literal["error", "skip"] = "error",
    duplicates: Literal["drop", "keep"] = "drop",
    duplicate_tolerance: float = 0.05,
    property_tolerance: float = 1e-3,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    results: ResultStore | None = None,
    progress: bool = False,
) -> Dataset:
    """Reads structures with their properties from files of any format that ASE reads.

    A property is looked for in `atoms.info`, in the columns and the data of an ASE database and in
    the results of the calculator, in this order; energy_per_atom may also follow from an energy.
    Energies are taken if all structures have one, and with them the forces of those that have any.
    The properties in `tfgen.structures.properties.GEOMETRIC` are computed. Structures are equal if
    their geometries are and no property that was asked for differs. Of equal ones the one of lowest
    energy stays (the first, without energies), before the structures are split. Near copies of one
    structure are in one split, as `tfgen.structures.similarity.near_copies` finds them.

    Args:
        files: extxyz, traj, ASE db, POSCAR, CIF, LAMMPS data, tables with a column `cif`, ...
        properties: names of numbers that every structure must have.
        units: property -> unit; "unknown" where neither it nor the file states one. Energies in
            other units are converted to eV.
        energy: name of the total energy, in eV unless `units` or the file state another unit; None:
            "energy".
        compute: property -> a function `f(atoms) -> float`, or its import path MODULE:FUNCTION.
            `atoms` is what ASE read, with all values of the row in `atoms.info`; `atoms.calc` has
            the results that the file gave, and is None if it gave none. None instead of a
            function: the property of that ASE name is among these results.
        format: ASE's name for the format of all files, or "csv"; None: guessed for each file.
        missing: "error" if every structure must have all properties, computed ones too, and at
            least two atoms; "skip" to leave out those that do not.
        duplicates: "drop" all but one of equal structures, or "keep" them.
        duplicate_tolerance: geometries whose sorted distances differ by no more are equal, Å.
        property_tolerance: structures of equal geometry are equal if no property that was asked for
            differs by more than this share of its spread (a standard deviation that outliers
            cannot move) over all structures.
        fractions: shares of the train, validation and test split.
        seed: of the split.
        results: keeps computed properties as they come, and has those of an interrupted import.
        progress: show a progress bar.

    Returns:
        The data set; `metadata["counts"]` says how many structures were read and left out,
        `metadata["groups"]` into how many groups of near copies those kept fall (absent if they are
        too few to split by), `metadata["duplicates"]` which are the first that were dropped, and
        `metadata["other_energies"]` which names look like energies if none was found.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file cannot be read, a structure or a property is not usable (names file
            and row, counted from 1), properties are there for some structures only, or a property
            is both computed and asked for from the files, or cannot be computed.

    Warns:
        TfgenWarning: about whatever was done to the input (units converted, elements taken from
            masses, constraints dropped), about values far outside the rest, and about sets that are
            near copies of one structure.
    """
    units = dict(units or {})
    paths = [require_file(path, "structure file") for path in files]
    thresholds = _describe_thresholds(duplicate_tolerance, property_tolerance)
    _require(paths, missing, duplicates, thresholds, seed)
    assign_splits(1, fractions, np.random.default_rng(seed))  # refuses what cannot be shares
    notes = Notes()
    asked = list(dict.fromkeys(properties))
    functions = find_functions(compute or {}, asked)
    source = collect(
        paths,
        asked,
        notes,
        energy=energy,
        given=units,
        kind=format,
        skip=missing == "skip",
        keep_raw=bool(functions),
        progress=progress,
    )
    if functions:
        source = compute_properties(
            source, functions, skip=missing == "skip", results=results, progress=progress
        )
    sources = {**dict.fromkeys(source.properties, FILE), **{f.name: f.source for f in functions}}
    asked += [function.name for function in functions]
    found = source.properties
    units = _find_units(units, source, energy)
    for name, values in found.items():
        _name_outliers(name, values, source.rows, notes)
    count = len(source.structures)
    left, dropped = np.arange(count), None
    if duplicates == "drop":
        left, dropped = _without_duplicates(
            source, asked, duplicate_tolerance, property_tolerance, progress
        )
    structures = [source.structures[i] for i in left]
    found = {name: values[left] for name, values in found.items()}
    geometric = [name for name in applicable(structures) if name not in found]
    found |= compute_geometric(structures, geometric)
    split, groups = _split(structures, fractions, seed, notes, repr(str(paths[0])))
    notes.warn()
    counts = {"read": count + sum(source.skipped.values()), **source.skipped}
    return Dataset(
        structures=structures,
        properties=found,
        units={name: units.get(name, "unknown") for name in found},
        split=split,
        metadata={
            **_describe(paths),
            "files": source.files,
            "seed": seed,
            "counts": {**counts, "duplicates": count - len(left), "kept": len(left)},
            "evaluated_by": {**sources, **dict.fromkeys(geometric, GEOMETRY)},
            **({"groups": groups} if groups else {}),
            **({"duplicates": dropped} if dropped else {}),
            **({"other_energies": source.other} if source.other else {}),
            "thresholds": thresholds,
            **provenance(),
        },
        forces=_find_forces(source, left),
    )


def _find_forces(source: Collected, places: np.ndarray) -> list[np.ndarray] | None:
    """Returns the forces on structures, NaN where they are not known; None without energies."""
    if ENERGY_PER_ATOM not in source.properties:
        return None
    found = [(source.forces[i], source.structures[i].positions.shape) for i in places]
    return [np.full(shape, np.nan) if force is None else force for force, shape in found]


def _describe_thresholds(duplicate: float, of_property: float) -> dict[str, float]:
    """Returns what the metadata says of the cutoffs that were used."""
    return {
        "duplicate_tolerance": duplicate,
        "property_tolerance": of_property,
        "coincident": COINCIDENT,
        "near_copies_listed": LISTED,
        "near_copies_sorted": SORTED,
    }


def _describe(paths: Sequence[Path]) -> dict[str, str]:
    """Returns what the metadata says of where the data set comes from."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return {
        "name": paths[0].stem,
        "description": "imported from " + ", ".join(path.name for path in paths[:3]) + more,
        "kind": "imported",
    }


def _find_units(given: Mapping[str, str], source: Collected, energy: str | None) -> dict[str, str]:
    """Returns the units of properties, as far as they are known.

    Args:
        given: by the user.
        source: with the properties, and the units that the files state.
        energy: name of the total energy, which may have a unit, too.

    Raises:
        ValueError: if the user gives the unit of something else.
    """
    stray = sorted(set(given) - set(source.properties) - set(UNITS) - {energy})
    if stray:
        raise ValueError(f"a unit is given for {stray[0]!r}, which is not among the properties")
    converted = {name: UNITS[name] for name in ENERGIES}
    return {**UNITS, **source.units, **given, **converted}


def read_structures(path: str | os.PathLike[str]) -> list[Atoms]:
    """Reads the structures of one file of any format that ASE reads, without their properties.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: as `import_files`.

    Warns:
        TfgenWarning: as `import_files`.
    """
    path = require_file(path, "structure file")
    notes = Notes()
    structures = []
    with opened(path, None, notes) as source:
        for place, row in enumerate(read(source, notes), 1):
            check(row.structure, f"{str(path)!r}, row {place}")
            structures.append(row.structure)
    if not structures:
        raise ValueError(f"{str(path)!r} holds no structures")
    notes.warn()
    return structures


def _require(
    paths: list[Path], missing: str, duplicates: str, thresholds: dict[str, float], seed: int
) -> None:
    if not paths:
        raise ValueError("files is empty; at least one file is needed")
    if missing not in ("error", "skip"):
        raise ValueError(f"missing is {missing!r}; 'error' or 'skip' is needed")
    if duplicates not in ("drop", "keep"):
        raise ValueError(f"duplicates is {duplicates!r}; 'drop' or 'keep' is needed")
    for name, value in thresholds.items():
        if not 0.0 <= value < np.inf:
            raise ValueError(f"{name} is {value!r}; a finite number >= 0 is needed")
    if seed < 0:
        raise ValueError(f"seed is {seed!r}; a whole number >= 0 is needed")


def _split(
    structures: Sequence[Atoms],
    fractions: tuple[float, float, float],
    seed: int,
    notes: Notes,
    where: str,
) -> tuple[np.ndarray, int]:
    """Splits structures by their groups of near copies, as far as that leaves any to test with.

    Returns:
        The split; and the number of groups, 0 if there are too few to split by.
    """
    rng, count = np.random.default_rng(seed), len(structures)
    group = near_copies(structures)
    sizes = np.unique(group, return_counts=True)[1]
    needed = int((np.array(fractions) > 0).sum())
    if len(sizes) < min(needed, count):
        if count >= _FEW:
            notes.add(
                f"all {count} structures are near copies of {_few(len(sizes))}; they were split at "
                "random, and errors on the test split say nothing of other structures",
                where,
            )
        return assign_splits(count, fractions, rng), 0
    if count >= _FEW and sizes.max() > fractions[0] * count:
        notes.add(
            f"{sizes.max()} of {count} structures are near copies of each other, one after the "
            "other, and all in the training split",
            where,
        )
    return assign_splits(count, fractions, rng, group), len(sizes)


def _few(count: int) -> str:
    return "one structure" if count == 1 else f"{count} structures"


def _without_duplicates(
    source: Collected,
    asked: Sequence[str],
    tolerance: float,
    property_tolerance: float,
    progress: bool,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the places of the structures that stay, and what the metadata says of the others."""
    count = len(source.structures)
    # Of equal structures the first stays: those of low energy come first.
    energies = source.properties.get(ENERGY_PER_ATOM)
    order = np.argsort(np.zeros(count) if energies is None else energies, kind="stable")
    # Columns that differ by more than the tolerance of the geometry where a property differs by
    # more than its own.
    columns = [source.properties[name] for name in asked]
    scales = [property_tolerance * spread_of(values) for values in columns]
    also = np.zeros([count, len(columns)])
    for column, (values, scale) in enumerate(zip(columns, scales, strict=True)):
        if tolerance > 0 and scale > 0:
            also[:, column] = values * (tolerance / scale)
        else:  # no difference is allowed: any is larger than the tolerance of the geometry
            also[:, column] = np.unique(values, return_inverse=True)[1] * (2.0 * tolerance or 1.0)
    first = first_equal(
        [source.structures[i] for i in order], tolerance, also=also[order], progress=progress
    )
    equal_to = np.empty(count, int)
    equal_to[order] = order[first]
    left = np.flatnonzero(equal_to == np.arange(count))
    gone = np.flatnonzero(equal_to != np.arange(count))
    if not len(gone):
        return left, {}
    examples = [
        {"row": source.rows[i], "equals": source.rows[equal_to[i]]} for i in gone[:_EXAMPLES]
    ]
    dropped: dict[str, Any] = {"count": len(gone), "examples": examples}
    if energies is not None:
        apart = np.abs(energies[gone] - energies[equal_to[gone]]).max()
        dropped["largest_energy_difference"] = float(apart)
    return left, dropped


def _name_outliers(name: str, values: np.ndarray, rows: Rows, notes: Notes) -> None:
    far = outliers(values)
    rest = np.delete(values, far)
    for place in far[:_EXAMPLES]:
        more = f", as are {len(far) - _EXAMPLES} more" if len(far) > _EXAMPLES else ""
        notes.add(
            f"{name!r} is {values[place]:g}, far outside the rest "
            f"({rest.min():g} to {rest.max():g}){more}",
            rows[place],
        )
