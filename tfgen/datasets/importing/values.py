"""Finds properties and energies among the values of a row, whatever their names and units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import units as ase_units

from tfgen.structures.properties import ENERGY_PER_ATOM

__all__ = [
    "ENERGIES",
    "FORCES",
    "LENGTHS",
    "LENGTHS_KEY",
    "LONE_NUMBER",
    "NOT_STATED",
    "PREFIX",
    "MissingError",
    "energy_per_atom",
    "energy_unit",
    "known_forces",
    "looks_like_energy",
    "property_value",
    "unit_key",
]

ENERGIES: dict[str, float] = {
    "ev": 1.0,
    "mev": 1e-3,
    "ha": ase_units.Hartree,
    "hartree": ase_units.Hartree,
    "hartrees": ase_units.Hartree,
    "eh": ase_units.Hartree,
    "a.u.": ase_units.Hartree,
    "au": ase_units.Hartree,
    "ry": ase_units.Rydberg,
    "rydberg": ase_units.Rydberg,
    "kcal/mol": ase_units.kcal / ase_units.mol,
    "kj/mol": ase_units.kJ / ase_units.mol,
}
"""Unit of energy in small letters -> eV."""

LENGTHS: dict[str, float] = {
    "ang": 1.0,
    "angstrom": 1.0,
    "å": 1.0,
    "a": 1.0,
    "bohr": ase_units.Bohr,
    "a0": ase_units.Bohr,
    "au": ase_units.Bohr,
    "a.u.": ase_units.Bohr,
    "nm": 10.0,
}
"""Unit of length in small letters -> Å."""

NOT_STATED = ""
"""Unit of a value that could be in any, and of which the file does not say which."""

PREFIX = "property_"
"""Stands before the name of a property where a format gives the name a meaning of its own."""

LENGTHS_KEY = "tfgen:lengths"
"""Where the unit of all lengths stands among the units of a file."""

FORCES = "forces"
"""Name of the forces, ASE's."""

LONE_NUMBER = "comment"
"""Name of a number in a comment line that has no name."""

_LOOKS_LIKE_ENERGY = re.compile(
    r"^comment$|energy|energies|^e$|^e_|_e$|^e0$|^u0?$|^etot|e_?tot$|toten|^enthalpy|^scf",
    re.IGNORECASE,
)


_PER_ATOM = re.compile(r"per_?-? ?atom|/ ?(n_?)?atoms?", re.IGNORECASE)


class MissingError(ValueError):
    """A structure comes without a value."""


def unit_key(unit: str) -> str:
    """Returns a unit as the tables here spell it."""
    return unit.strip().lower().replace(" ", "")


def looks_like_energy(values: Mapping[str, Any]) -> list[str]:
    """Names of numbers that could be energies, in their order."""
    return [
        name
        for name, value in values.items()
        if _LOOKS_LIKE_ENERGY.search(name) and _number(value) is not None
    ]


def property_value(
    values: Mapping[str, Any], units: Mapping[str, str], name: str, atoms: int, where: str
) -> float:
    """Returns the value of a property; energies in eV.

    Args:
        values: all values of the row.
        units: those that the file states.
        name: of the property.
        atoms: number of atoms, for `energy_per_atom`.
        where: file and row, for messages.

    Raises:
        MissingError: if there is no such value, or it is not finite.
        ValueError: if it is something else than a number.
    """
    if name == ENERGY_PER_ATOM:
        return energy_per_atom(values, units, None, atoms, where)
    # An export puts a property there whose name has a meaning of its own in the format.
    prefixed = values.get(name) is None and values.get(PREFIX + name) is not None
    value = _required(values, PREFIX + name if prefixed else name, name, where)
    if name == "energy":
        value *= _electronvolts(energy_unit(units, name), atoms, where, name)
    return value


def energy_per_atom(
    values: Mapping[str, Any],
    units: Mapping[str, str],
    name: str | None,
    atoms: int,
    where: str,
) -> float:
    """Returns the energy per atom, eV/atom.

    Args:
        values: all values of the row.
        units: those that the file states.
        name: of the total energy; None: `energy_per_atom` or, where that is missing, `energy`.
        atoms: number of atoms.
        where: file and row, for messages.

    Raises:
        MissingError: if there is no such value, or it is not finite.
        ValueError: if it is something else than a number, or in a unit that is not known here.
    """
    if name is None and values.get(ENERGY_PER_ATOM) is not None:
        value = _required(values, ENERGY_PER_ATOM, ENERGY_PER_ATOM, where)
        unit = units.get(ENERGY_PER_ATOM, "eV/atom")
        factor = ENERGIES.get(unit_key(unit).removesuffix("/atom"))
        if factor is None:
            raise ValueError(f"{where}: {ENERGY_PER_ATOM!r} is in {unit!r}; eV/atom is needed")
        return value * factor
    key = "energy" if name is None else name
    what = "energy" if name is None else f"energy {name!r}"
    if values.get(key) is None:
        like = looks_like_energy(values)
        have = like if name is None else [k for k, v in values.items() if _number(v) is not None]
        hint = f"; there is {', '.join(map(repr, have[:8]))}" if have else ""
        raise MissingError(f"{where}: no {what}; every structure needs one{hint}")
    value = _required(values, key, ENERGY_PER_ATOM if name is None else name, where)
    return value * _electronvolts(energy_unit(units, key), atoms, where, key) / atoms


def energy_unit(units: Mapping[str, str], name: str) -> str:
    """Returns the unit of an energy: the one stated, else eV, or eV/atom where the name says so."""
    return units.get(name) or ("eV/atom" if _PER_ATOM.search(name) else "eV")


def known_forces(
    values: Mapping[str, Any], units: Mapping[str, str], atoms: int
) -> np.ndarray | None:
    """Returns the forces [atoms, 3], eV/Å; None if there are none, or in what unit is not known.

    They are in the unit that the file states for them. If it states none, they are in eV/Å,
    provided that no energy and no length is in another unit.

    Args:
        values: all values of the row.
        units: those that the file states.
        atoms: number of atoms.
    """
    try:
        forces = np.array(values.get(FORCES), float)
    except (TypeError, ValueError):
        return None
    stated = units.get(FORCES)
    energies = {unit_key(units.get(name) or "eV") for name in ("energy", ENERGY_PER_ATOM)}
    angstroms = LENGTHS.get(unit_key(units.get(LENGTHS_KEY) or "Å")) == 1.0
    if not stated and energies <= {"ev", "ev/atom"} and angstroms:
        stated = "eV/Å"
    energy, _, length = unit_key(stated or "").rpartition("/")
    known = energy in ENERGIES and length in LENGTHS
    if not known or forces.shape != (atoms, 3) or not np.isfinite(forces).all():
        return None
    return forces * (ENERGIES[energy] / LENGTHS[length])


def _electronvolts(unit: str, atoms: int, where: str, name: str) -> float:
    """Returns the factor that turns a value in a unit into an energy of the structure, eV."""
    text = unit_key(unit)
    base = text.removesuffix("/atom")
    if base not in ENERGIES:
        raise ValueError(f"{where}: {name!r} is in {unit!r}, which is no unit of energy known here")
    return ENERGIES[base] * (atoms if base != text else 1)


def _number(value: Any) -> float | None:
    """Returns a value as a number, None if it is something else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        return None
    return float(value)


def _required(values: Mapping[str, Any], key: str, name: str, where: str) -> float:
    if values.get(key) is None:
        raise MissingError(f"{where}: no property {name!r}; every structure needs one")
    value = _number(values[key])
    if value is None:
        raise ValueError(f"{where}: property {name!r} is {values[key]!r}; a number is needed")
    if not np.isfinite(value):
        raise MissingError(f"{where}: property {name!r} is {value}; it must be finite")
    return value
