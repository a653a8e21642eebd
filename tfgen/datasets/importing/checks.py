"""Refuses structures that cannot be right, and names values far outside the rest."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from scipy.spatial.distance import pdist

from tfgen.structures.neighbours.lists import neighbour_pairs

__all__ = ["COINCIDENT", "SingleAtomError", "check", "outliers", "spread_of"]

COINCIDENT = 0.5
"""Atoms closer than this, Å, are a mistake: the shortest bond there is, in H2, has 0.74 Å."""

# Positions and cell vectors beyond, Å, are a mistake: it is a tenth of a millimetre.
_FARTHEST = 1e6
# Up to this many atoms of a cluster, all distances are faster than a neighbour list.
_SMALL = 100
# Values are outliers from this many times their spread off the median on.
_FAR = 30.0


class SingleAtomError(ValueError):
    """A structure is a single atom, which has no geometry."""


def check(structure: Atoms, where: str) -> None:
    """Checks that a structure can be one.

    Args:
        structure: what was read.
        where: file and row, for the message.

    Raises:
        SingleAtomError: if it is a single atom that is not periodic.
        ValueError: if it has no atoms, atoms that are no element, numbers that are not finite, no
            cell vector along a periodic axis, lengths that no structure has, or atoms closer than
            `COINCIDENT`.
    """
    if len(structure) == 0:
        raise ValueError(f"{where}: no atoms")
    if (structure.numbers <= 0).any():
        raise ValueError(f"{where}: dummy atoms (X), which are no element")
    if (structure.numbers >= len(chemical_symbols)).any():
        raise ValueError(f"{where}: atomic number {structure.numbers.max()}, which is no element")
    if not np.isfinite(structure.positions).all():
        raise ValueError(f"{where}: positions that are not finite")
    if not np.isfinite(structure.cell.array).all():
        raise ValueError(f"{where}: a cell that is not finite")
    if (
        farthest := max(abs(structure.positions).max(), abs(structure.cell.array).max())
    ) > _FARTHEST:
        raise ValueError(
            f"{where}: positions or a cell of {farthest:.3g} Å; at most {_FARTHEST:g} Å are allowed"
        )
    if (structure.pbc & ~structure.cell.any(axis=1)).any():
        raise ValueError(f"{where}: periodic along an axis that has no cell vector")
    if not structure.pbc.any() and len(structure) == 1:
        raise SingleAtomError(f"{where}: a single atom, which has no geometry")
    if structure.pbc.any():
        # An atom this close to its own image; and there would be millions of images.
        heights = 1.0 / np.linalg.norm(np.linalg.pinv(structure.cell.array), axis=0)
        if (height := heights[structure.pbc].min()) < COINCIDENT:
            raise ValueError(
                f"{where}: atoms only {height:.3g} Å apart (each from its own image); "
                f"at least {COINCIDENT} Å is needed"
            )
    if (shortest := _shortest(structure)) < COINCIDENT:
        raise ValueError(
            f"{where}: atoms only {shortest:.3g} Å apart; at least {COINCIDENT} Å is needed"
        )


def _shortest(structure: Atoms) -> float:
    """Returns the shortest distance of two atoms, Å; inf if all are far enough from each other."""
    if not structure.pbc.any() and len(structure) <= _SMALL:
        return float(pdist(structure.positions).min())
    return float(neighbour_pairs(structure, COINCIDENT).distance.min(initial=np.inf))


def spread_of(values: np.ndarray) -> float:
    """Returns how far values are apart, as a standard deviation that outliers cannot move.

    It is 1.4826 times the median distance from the median, which is the standard deviation of a
    normal distribution; where more than half of the values are the same, the standard deviation.

    Args:
        values: [n].
    """
    return float(1.4826 * np.median(np.abs(values - np.median(values))) or values.std())


def outliers(values: np.ndarray) -> np.ndarray:
    """Returns the places of values far outside the rest: [m] int.

    Args:
        values: [n].
    """
    if len(values) < 4:  # too few to say which are the rest
        return np.zeros(0, int)
    return np.flatnonzero(np.abs(values - np.median(values)) > _FAR * spread_of(values))
