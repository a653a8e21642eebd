"""LAMMPS files, whose atoms have types: elements are taken only where the file tells them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, cast

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from tfgen.datasets.importing.files import Source, open_text
from tfgen.datasets.importing.notes import Notes

__all__ = ["element_of_mass", "read_data", "read_dump"]


def read_dump(source: Source) -> Iterator[Atoms]:
    """Yields the snapshots of a dump.

    Raises:
        ValueError: if it has no column with the elements.
    """
    from ase.io import iread

    if source.kind == "lammps-dump-binary":
        raise ValueError("a binary dump has types, which do not tell the elements")
    with open_text(source.content) as file:
        for line in file:
            if line.startswith("ITEM: ATOMS"):
                _require_elements(line.split()[2:])
    for atoms in iread(
        str(source.content), index=":", format=source.kind, do_not_split_by_at_sign=True
    ):
        atoms.calc = None  # ASE makes up an energy of 0 where there are forces
        yield atoms


def _require_elements(columns: list[str]) -> None:
    if "element" not in columns:
        raise ValueError(
            "atoms have types, which do not tell the elements; a column 'element' is needed "
            "(dump_modify ... element Cu Au)"
        )


def read_data(source: Source, notes: Notes) -> Iterator[Atoms]:
    """Yields the structure of a data file, whose elements follow from labels or masses.

    Raises:
        ValueError: if neither tells them.
    """
    from ase.io.lammpsdata import read_lammps_data

    with open_text(source.content) as file:
        elements = _elements(file)
    with open_text(source.content) as file:
        atoms = cast("Atoms", read_lammps_data(file, Z_of_type=elements))
    told = ", ".join(f"{kind} {chemical_symbols[z]}" for kind, z in sorted(elements.items()))
    notes.add(
        f"the types were taken as elements by labels or masses ({told}), and all three directions "
        "as periodic, which a data file does not say",
        repr(str(source.path)),
    )
    yield atoms


def _elements(file: IO[str]) -> dict[int, int]:
    """Returns type -> atomic number from the sections "Masses" and "Atom Type Labels"."""
    masses: dict[int, float] = {}
    labels: dict[int, str] = {}
    section = ""
    for line in file:
        text, _, comment = (part.strip() for part in line.partition("#"))
        if re.match(r"[A-Z][A-Za-z]+(\s+[A-Z][A-Za-z]+)*$", text):
            section = " ".join(text.split())
        elif text and section == "Masses":
            number, mass = text.split()[:2]
            masses[int(number)] = float(mass)
            if comment.split()[:1] and comment.split()[0] in atomic_numbers:
                labels.setdefault(int(number), comment.split()[0])
        elif text and section == "Atom Type Labels":
            number, label = text.split()[:2]
            labels[int(number)] = label
    if not masses and not labels:
        raise ValueError("atoms have types, and without masses nothing tells the elements")
    if masses and set(masses.values()) == {1.0}:
        raise ValueError("atoms have types of mass 1, which does not tell the elements")
    elements = {}
    for kind in sorted(set(masses) | set(labels)):
        if labels.get(kind, "X") in chemical_symbols[1:]:
            elements[kind] = atomic_numbers[labels[kind]]
        elif kind in masses and (found := element_of_mass(masses[kind])) is not None:
            elements[kind] = found
        else:
            what = f"mass {masses[kind]:g}" if kind in masses else f"label {labels[kind]!r}"
            raise ValueError(f"type {kind} has {what}, which does not tell the element")
    return elements


def element_of_mass(mass: float) -> int | None:
    """Returns the atomic number that a mass (u) belongs to, None if none or several do."""
    away = np.abs(atomic_masses[1:] - mass)
    first, second = np.sort(away)[:2]
    clear = first <= 0.01 + 0.003 * mass and 3.0 * first < second
    return int(away.argmin()) + 1 if clear else None
