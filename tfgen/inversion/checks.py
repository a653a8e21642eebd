"""Checks of what `reconstruct` is given: one line for each wrong value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from tfgen.descriptors.base import find_mismatch
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.checks import as_structures, find_fault
from tfgen.structures.formulas import MAX_SOUGHT, numbers_from_formula

__all__ = [
    "InitialStructures",
    "check_cell",
    "check_formulas",
    "check_scale",
    "check_targets",
]

# Targets and scales beyond this (or its inverse) are out of range of float32, and slips.
LARGEST = 1e30


def check_targets(targets: Any, fingerprint: Fingerprint) -> np.ndarray:
    """Returns the targets as float64 [n, features]."""
    targets = _as_real("targets", targets)
    if targets.ndim != 2 or targets.shape[1] != fingerprint.size or not len(targets):
        raise ValueError(
            f"targets has shape {targets.shape}; [n, {fingerprint.size}] is needed, n >= 1"
        )
    if not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets).all(axis=1))[0])
        raise ValueError(f"targets[{row}] holds values that are not finite")
    if not (np.abs(targets) < LARGEST).all():
        row = int(np.abs(targets).max(axis=1).argmax())
        raise ValueError(f"targets[{row}] holds values beyond {LARGEST:g}")
    return targets


def check_scale(scale: Any, fingerprint: Fingerprint) -> np.ndarray:
    """Returns the scale as float64 [features]."""
    scale = _as_real("scale", scale)
    in_range = (scale > 1.0 / LARGEST) & (scale < LARGEST)
    if scale.shape != (fingerprint.size,) or not in_range.all():
        raise ValueError(f"scale must be {fingerprint.size} finite positive numbers")
    return scale


def check_cell(fingerprint: Fingerprint, cell: Any, pbc: Any) -> Atoms:
    """Returns a structure with the cell; the cell of a lone atom without pbc for clusters."""
    if cell is None:
        return Atoms("H")
    try:
        frame = Atoms(fingerprint.species[:1], positions=[[0, 0, 0]], cell=cell, pbc=pbc)
    except (ValueError, TypeError) as error:
        raise ValueError(f"cell is {cell!r}, pbc is {pbc!r}: {error}") from None
    if reason := find_fault(frame) or find_mismatch(fingerprint.descriptor, frame):
        raise ValueError(f"cell: a structure in it {reason}")
    return frame


def check_formulas(
    formula: Any, count: int, fingerprint: Fingerprint, periodic: bool
) -> list[np.ndarray]:
    """Returns the sorted atomic numbers [atoms] of each target."""
    several = isinstance(formula, Iterable) and not isinstance(formula, str)
    formulas = list(formula) if several else [formula] * count
    if not all(isinstance(f, str) for f in formulas):
        raise ValueError(
            f"formula is {formula!r}; one like 'Pt13', or a list of one for each target, is needed"
        )
    if len(formulas) != count:
        raise ValueError(f"{len(formulas)} formulas were given for {count} targets")
    return [_numbers(f, fingerprint, periodic) for f in formulas]


class InitialStructures:
    """Structures to begin with, by composition, with their atoms sorted by element.

    Args:
        given: the structures, in any order of atoms.
        fixed: places of atoms in the first that stay there.
        frame: a structure with the cell that periodic ones must have.
        numbers: the sorted atomic numbers of each target.
    """

    def __init__(
        self,
        given: Sequence[Atoms] | Atoms,
        fixed: Sequence[int],
        frame: Atoms,
        numbers: Sequence[np.ndarray],
    ) -> None:
        wanted = {z.tobytes() for z in numbers}
        self._orders: dict[bytes, np.ndarray] = {}
        self._positions: dict[bytes, list[np.ndarray]] = {}
        # An empty list is allowed here, which `as_structures` refuses.
        none = isinstance(given, Sequence) and len(given) == 0
        structures = [] if none else as_structures(given, "initial_structures")
        for i, atoms in enumerate(structures):
            order = np.argsort(atoms.numbers, kind="stable")
            key = np.asarray(atoms.numbers[order], numbers[0].dtype).tobytes()
            if key not in wanted:
                shown = sorted({Atoms(z).get_chemical_formula("metal") for z in numbers})
                raise ValueError(
                    f"initial_structures[{i}] is {atoms.get_chemical_formula('metal')}; wanted is "
                    f"{', '.join(shown)}"
                )
            if atoms.pbc.any() and not (
                (atoms.pbc == frame.pbc).all() and np.allclose(atoms.cell, frame.cell)
            ):
                raise ValueError(
                    f"initial_structures[{i}] is periodic in another cell than the one given"
                )
            # Results come in the order of the first.
            self._orders.setdefault(key, order)
            self._positions.setdefault(key, []).append(atoms.positions[order])
        self._fixed = np.asarray(fixed)
        if self._fixed.ndim != 1 or (len(self._fixed) and self._fixed.dtype.kind not in "iu"):
            raise ValueError(f"fixed is {fixed!r}; a list of places, whole numbers, is needed")
        if len(self._fixed):
            self._check_fixed(structures, len(wanted))

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the structures of a composition [atoms]: [n, atoms, 3], Å."""
        return np.array(self._positions.get(numbers.tobytes(), [])).reshape(-1, len(numbers), 3)

    def fixed(self, numbers: np.ndarray) -> np.ndarray:
        """Returns which atoms of a composition [atoms] are fixed: [atoms] bool."""
        if not len(self._fixed):
            return np.zeros(len(numbers), bool)
        return np.isin(self._orders[numbers.tobytes()], self._fixed)

    def reorder(self, atoms: Atoms) -> Atoms:
        """Returns a result with its atoms in the order of the first initial structure, if any."""
        order = self._orders.get(np.sort(atoms.numbers).astype(atoms.numbers.dtype).tobytes())
        return atoms if order is None else atoms[np.argsort(order)]

    def _check_fixed(self, structures: list[Atoms], compositions: int) -> None:
        if not structures:
            raise ValueError("fixed needs initial_structures: the first says where the atoms stay")
        if compositions > 1:
            raise ValueError("fixed needs targets of one composition")
        atoms = len(structures[0])
        if self._fixed.min() < 0 or self._fixed.max() >= atoms:
            raise ValueError(
                f"fixed is {self._fixed.tolist()}; places from 0 to {atoms - 1} are allowed"
            )
        if len(np.unique(self._fixed)) == atoms:
            raise ValueError("fixed holds all atoms; nothing is left to find")


def _as_real(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biufO":
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be an array of real numbers, not {type(values).__name__}")


def _numbers(formula: str, fingerprint: Fingerprint, periodic: bool) -> np.ndarray:
    numbers = numbers_from_formula(formula, most=MAX_SOUGHT)
    if len(numbers) < 2 and not periodic:
        raise ValueError(f"formula {formula!r} has a single atom; at least two are needed")
    unknown = sorted(set(Atoms(numbers).symbols) - set(fingerprint.species))
    if unknown:
        raise ValueError(
            f"formula {formula!r} holds {', '.join(unknown)}; the fingerprint's species are "
            f"{', '.join(fingerprint.species)}"
        )
    return numbers
