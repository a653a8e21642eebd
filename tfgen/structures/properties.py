"""Properties of structures that follow from their geometry, for many structures at once.

`GEOMETRIC` names them; generation can be conditioned on each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from tfgen.structures.neighbours.lists import neighbour_pairs

__all__ = [
    "COORDINATION_FACTOR",
    "ENERGIES",
    "ENERGY_PER_ATOM",
    "GEOMETRIC",
    "GEOMETRY",
    "UNITS",
    "applicable",
    "asphericity",
    "compute",
    "mean_coordination",
    "radius_of_gyration",
]

COORDINATION_FACTOR = 1.2
"""Nearest neighbours are within this times the sum of covalent radii."""

# Pairs of atoms held at once: more would fall out of the processor's caches.
_PAIRS = 200_000

# Up to this many atoms, all pairs of a cluster are faster than a neighbour list.
_PAIRWISE = 500

ENERGY_PER_ATOM = "energy_per_atom"
ENERGIES = (ENERGY_PER_ATOM, "energy")
"""What follows from the energy of a structure."""
GEOMETRY = "geometry"
"""What records say computed a property in `GEOMETRIC`."""


def radius_of_gyration(structures: Sequence[Atoms]) -> np.ndarray:
    """Computes the root mean square distance of the atoms from their centre: [n], Å.

    R_g² = (1/N) Σ_i |r_i - r̄|²   (not weighted by mass)

    Args:
        structures: clusters of any sizes; left unmodified.

    Raises:
        ValueError: if a structure is periodic, which has no centre, or has no atoms.
    """
    _refuse(structures, "radius_of_gyration")
    result = np.empty(len(structures))
    for members, positions in _by_size(structures):
        centred = positions - positions.mean(axis=1, keepdims=True)
        result[members] = np.sqrt((centred**2).sum(axis=2).mean(axis=1))
    return result


def asphericity(structures: Sequence[Atoms]) -> np.ndarray:
    """Computes how far the shape is from a sphere, relative to its size: [n], from 0 to 1.

    b / R_g² = (λ_3 - (λ_1 + λ_2) / 2) / (λ_1 + λ_2 + λ_3),

    λ_1 <= λ_2 <= λ_3 being the eigenvalues of the gyration tensor (1/N) Σ_i (r_i - r̄)(r_i - r̄)ᵀ.
    0 for a sphere and all shapes of cubic or icosahedral symmetry, 1/4 for a flat disc, 1 for a
    straight line; 0 for a single atom.

    Args:
        structures: clusters of any sizes; left unmodified.

    Raises:
        ValueError: if a structure is periodic, which has no centre, or has no atoms.

    References:
        Theodorou, D. N. & Suter, U. W. Macromolecules 18, 1206 (1985), eq. 9,
        https://doi.org/10.1021/ma00148a028
    """
    _refuse(structures, "asphericity")
    result = np.empty(len(structures))
    for members, positions in _by_size(structures):
        centred = positions - positions.mean(axis=1, keepdims=True)
        tensor = np.einsum("nai,naj->nij", centred, centred) / positions.shape[1]
        values = np.linalg.eigvalsh(tensor)
        total = values.sum(axis=1)
        aspherical = values[:, 2] - 0.5 * (values[:, 0] + values[:, 1])
        # Rounding can push a value out of its range.
        relative = aspherical / np.where(total > 0, total, 1.0)
        result[members] = np.clip(np.where(total > 0, relative, 0.0), 0.0, 1.0)
    return result


def mean_coordination(
    structures: Sequence[Atoms], factor: float = COORDINATION_FACTOR
) -> np.ndarray:
    """Computes the mean number of nearest neighbours of an atom: [n].

    Neighbours are the atoms (images included) within `factor` times the sum of both covalent radii.

    Args:
        structures: clusters or periodic structures of any sizes; left unmodified.
        factor: the largest distance of nearest neighbours, in sums of covalent radii.

    Raises:
        ValueError: if a structure has no atoms or the factor is not positive.

    References:
        Cordero, B. et al. Covalent radii revisited. Dalton Trans. 2832 (2008),
        https://doi.org/10.1039/b801115j
    """
    if not 0.0 < factor < np.inf:
        raise ValueError(f"factor is {factor!r}; a finite number above 0 is needed")
    _refuse(structures, "mean_coordination", periodic=True)
    result = np.empty(len(structures))
    # Of larger ones, all pairs would take memory that grows with the square of the atoms.
    clusters = [i for i, s in enumerate(structures) if not s.pbc.any() and len(s) <= _PAIRWISE]
    for members, positions in _by_size([structures[i] for i in clusters]):
        rows = np.array(clusters)[members]
        radii = covalent_radii[np.array([structures[r].numbers for r in rows])]
        reach = factor * (radii[:, :, None] + radii[:, None, :])
        centred = positions - positions.mean(axis=1, keepdims=True)
        squares = (centred**2).sum(axis=2)
        squared = (
            squares[:, :, None] + squares[:, None, :] - 2.0 * centred @ np.swapaxes(centred, 1, 2)
        )
        bonds = (squared <= reach**2).sum(axis=(1, 2)) - len(radii[0])  # none with itself
        result[rows] = bonds / len(radii[0])
    for row in set(range(len(structures))) - set(clusters):
        structure = structures[row]
        bonds = neighbour_pairs(structure, factor * covalent_radii[structure.numbers])
        result[row] = len(bonds.first) / len(structure)
    return result


GEOMETRIC: dict[str, tuple[str, Callable[[Sequence[Atoms]], np.ndarray]]] = {
    "radius_of_gyration": ("Å", radius_of_gyration),
    "asphericity": ("1", asphericity),
    "mean_coordination": ("1", mean_coordination),
}
"""name -> (unit, function of a list of structures that returns [n] values)."""

UNITS: dict[str, str] = {
    ENERGY_PER_ATOM: "eV/atom",
    "energy": "eV",
    **{name: unit for name, (unit, _) in GEOMETRIC.items()},
}
"""Units of the properties whose names tfgen knows."""


def applicable(structures: Sequence[Atoms]) -> list[str]:
    """Returns the names in `GEOMETRIC` that are defined for all `structures`."""
    if any(s.pbc.any() for s in structures):
        return ["mean_coordination"]
    return list(GEOMETRIC)


def compute(
    structures: Sequence[Atoms], names: Sequence[str], energies: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Computes properties of structures by name.

    Args:
        structures: any mix of sizes; left unmodified.
        names: of `ENERGIES` (they need `energies`) or of `GEOMETRIC`.
        energies: [n], eV, of the whole structures.

    Returns:
        name -> [n] float64, in the unit `UNITS` says.

    Raises:
        ValueError: on an unknown name, on energy_per_atom without energies, or if a property is not
            defined for a structure.
    """
    result = {}
    for name in names:
        if name in GEOMETRIC:
            result[name] = GEOMETRIC[name][1](structures)
        elif name in ENERGIES and energies is not None:
            if np.shape(energies) != (len(structures),):
                raise ValueError(
                    f"energies has shape {np.shape(energies)}; ({len(structures)},) is needed"
                )
            sizes = np.array([len(s) for s in structures], np.float64)
            result[name] = np.asarray(energies, np.float64).copy()
            if name == ENERGY_PER_ATOM:
                result[name] /= sizes
        elif name in ENERGIES:
            raise ValueError(f"{name} needs energies; none were given")
        else:
            known = ", ".join([*ENERGIES, *GEOMETRIC])
            raise ValueError(f"property {name!r} cannot be computed; known are {known}")
    return result


def _refuse(structures: Sequence[Atoms], name: str, periodic: bool = False) -> None:
    for i, structure in enumerate(structures):
        if len(structure) == 0:
            raise ValueError(f"structures[{i}] has no atoms; {name} is not defined")
        if not periodic and structure.pbc.any():
            raise ValueError(f"structures[{i}] is periodic; {name} is defined for clusters")


def _by_size(structures: Sequence[Atoms]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (members [m], positions [m, atoms, 3]) of equal size, few enough to hold at once."""
    sizes = np.array([len(s) for s in structures], int)
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        step = max(1, _PAIRS // int(size) ** 2)
        for start in range(0, len(same), step):
            members = same[start : start + step]
            yield members, np.array([structures[m].positions for m in members])
