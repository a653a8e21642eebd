"""Whether what a user gives is a list of structures that can be computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

__all__ = ["as_structures", "find_fault"]

# Cells below this volume, Å³ (with vectors of length 1 where there are none), are mistakes: each
# atom would have a huge number of images within reach.
LEAST_VOLUME = 0.1
ELEMENTS = np.arange(1, len(chemical_symbols))


def as_structures(structures: Atoms | Sequence[Atoms], name: str = "structures") -> list[Atoms]:
    """Checks that `structures` is one `ase.Atoms` or a non-empty sequence of them.

    Raises:
        ValueError: on an empty list, what is no structure, an empty structure, positions that are
            not finite or of the wrong shape, unknown atomic numbers, or a periodic direction
            without a cell vector of its own; names the structure.
    """
    if isinstance(structures, str | bytes | dict) or not isinstance(structures, Iterable):
        raise ValueError(
            f"{name} is a {type(structures).__name__}; an ase.Atoms or a list of them is needed"
        )
    listed = [structures] if isinstance(structures, Atoms) else list(structures)
    if not listed:
        raise ValueError(f"{name} is empty; at least one structure is needed")
    for i, structure in enumerate(listed):
        if not isinstance(structure, Atoms):
            raise ValueError(f"{name}[{i}] is a {type(structure).__name__}, not an ase.Atoms")
    if not _sound(listed):
        for i, structure in enumerate(listed):
            if not _sound([structure]):
                raise ValueError(f"{name}[{i}] {_fault(structure)}")
    return listed


def find_fault(structure: Atoms) -> str:
    """Returns what `as_structures` finds wrong with a structure, "is ..." or "has ...", or ""."""
    return "" if _sound([structure]) else _fault(structure)


def _sound(structures: list[Atoms]) -> bool:
    """Says whether `_fault` finds none; for all structures at once, as there may be very many."""
    numbers = [s.numbers for s in structures]
    counts = [len(n) for n in numbers]
    of_each = [s.positions for s in structures]
    if min(counts) == 0 or any(x.ndim != 2 for x in of_each) or [len(x) for x in of_each] != counts:
        return False
    if {x.shape[1] for x in of_each} != {3}:
        return False
    positions = np.concatenate(of_each)
    cells = np.array([s.cell.array for s in structures])
    if positions.dtype.kind not in "fiu":
        return False
    if not (np.isfinite(positions).all() and np.isfinite(cells).all()):
        return False
    if not np.isin(np.unique(np.concatenate(numbers)), ELEMENTS).all():
        return False
    pbc = np.array([s.pbc for s in structures])
    if (pbc & ~cells.any(axis=2)).any():
        return False
    periodic = np.flatnonzero(pbc.any(axis=1))
    return all(structures[i].cell.complete().volume >= LEAST_VOLUME for i in periodic)


def _fault(structure: Atoms) -> str:
    """What is wrong with a structure; follows its name in a message."""
    positions, numbers = structure.positions, structure.numbers
    if len(numbers) == 0:
        return "has no atoms"
    if positions.shape != (len(numbers), 3) or positions.dtype.kind not in "fiu":
        return (
            f"has positions of shape {positions.shape} and type {positions.dtype}; "
            f"[{len(numbers)}, 3] real numbers are needed"
        )
    if not np.isfinite(positions).all():
        return "has positions that are not finite"
    if not np.isfinite(structure.cell.array).all():
        return "has a cell that is not finite"
    if (numbers == 0).any():
        return "holds dummy atoms (atomic number 0)"
    wrong = numbers[~np.isin(numbers, ELEMENTS)]
    if wrong.size:
        return f"holds atomic number {wrong[0]}; 1 to {ELEMENTS[-1]} are elements"
    if (structure.pbc & ~structure.cell.any(axis=1)).any():
        return "is periodic along an axis without a cell vector"
    return (
        f"is periodic in a cell of volume {structure.cell.complete().volume:.3g} Å³; its vectors "
        f"must be linearly independent, and the volume at least {LEAST_VOLUME} Å³"
    )
