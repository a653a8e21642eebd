"""Groups of near copies: structures that only displacements as of atoms that vibrate tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfgen.structures.similarity.leaders import Table, find_leaders, lookup, same_composition
from tfgen.structures.similarity.neighbour_distances import sorted_neighbour_distances
from tfgen.structures.similarity.sorted_distances import HELD, PAIRWISE, distance_vectors

__all__ = ["near_copies"]

LISTED = 0.6
"""Largest difference of distances between atoms as they are listed, in bond lengths."""
SORTED = 0.15
"""Largest difference of sorted distances, in bond lengths."""

# Atoms whose distances from all others are compared: some more than tell all positions.
_LANDMARKS = 16
# Rows compared at once.
_BLOCK = 1024


def near_copies(
    structures: Sequence[Atoms],
    *,
    listed: float = LISTED,
    sorted_: float = SORTED,
    held: int = HELD,
) -> np.ndarray:
    """Finds groups of structures that are near copies of each other, or linked by such.

    Two structures of one composition and periodicity are near copies if

    - they list the same elements in the same order, and no distance of an atom from one of the
      first sixteen differs by more than `listed` bond lengths (twice the mean covalent radius of
      the atoms). Files list the atoms of rattled copies, and of snapshots of one run, in one order,
      and those of independent structures in orders that have nothing to do with each other. Or if
    - no sorted neighbour distance (of clusters; of periodic structures no sorted distance) differs
      by more than `sorted_` bond lengths, whatever the order of the atoms.

    Of 716 minima of Pt13, 98 % are groups of their own; of 1,011 of Cu6Au7, 89 %. Copies of each,
    rattled with a standard deviation of 0.2 Å a coordinate, fall into one group for each minimum;
    with the atoms in another order, up to 0.07 Å.

    Args:
        structures: any mix of compositions.
        listed: see above; 0: nothing but copies.
        sorted_: likewise.
        held: numbers (of 8 bytes) that are held at once.

    Returns:
        [n] int, the place of the first structure of its group.
    """
    result = np.arange(len(structures))
    for members in same_composition(structures):
        if len(members) == 1:
            continue
        same = [structures[m] for m in members]
        bond = 2.0 * float(covalent_radii[same[0].numbers].mean())
        group = np.arange(len(members))
        orders: dict[bytes, list[int]] = {}
        for place, structure in enumerate(same):
            orders.setdefault(structure.numbers.tobytes(), []).append(place)
        for own in map(np.array, orders.values()):
            group = _join(group, own, _listed_distances, same, listed * bond, held)
        group = _join(group, np.arange(len(same)), _sorted_distances, same, sorted_ * bond, held)
        _, first, rows = np.unique(group, return_index=True, return_inverse=True)
        result[members] = members[first[np.ravel(rows)]]
    return result


def _join(
    group: np.ndarray,
    own: np.ndarray,
    describe: Callable[[Sequence[Atoms], int], np.ndarray],
    same: Sequence[Atoms],
    tolerance: float,
    held: int,
) -> np.ndarray:
    """Joins the groups of structures that are near the same leader.

    Args:
        group: [n], of all structures.
        own: [m], places of those to compare.
        describe: what they are compared by.
        same: all structures.
        tolerance: Å.
        held: numbers that are held at once.
    """
    if len(own) == 1:
        return group
    table = Table(lookup(describe, [same[i] for i in own], held), len(own), held=held)
    first = find_leaders(table, tolerance)
    leads = first == np.arange(len(own))
    leaders, others = np.flatnonzero(leads), np.flatnonzero(~leads)
    for start in range(0, len(others), _BLOCK):
        rows = others[start : start + _BLOCK]
        row, leader = table.pairs(rows, leaders, tolerance)
        # Joined at once: all pairs together would be many.
        links = (np.ones(len(row)), (group[own[row]], group[own[leader]]))
        graph = coo_array(links, shape=(len(group), len(group)))
        group = connected_components(graph, directed=False)[1][group]
    return group


def _listed_distances(same: Sequence[Atoms], _: int) -> np.ndarray:
    """Computes distances of all atoms from the first ones, in the order of the lists: [n, c], Å.

    Of periodic structures those of near images, and the lengths of the cell vectors and of their
    sums.
    """
    positions = np.array([s.positions for s in same])
    i, j = np.triu_indices(positions.shape[1], 1)
    i, j = i[i < _LANDMARKS], j[i < _LANDMARKS]
    vectors = positions[:, i] - positions[:, j]
    periodic = same[0].pbc
    if not periodic.any():
        return np.linalg.norm(vectors, axis=2)
    cells = np.where(periodic[:, None], [s.cell.array for s in same], 0.0)
    vectors -= np.round(vectors @ np.linalg.pinv(cells)) @ cells
    one, two = np.triu_indices(3, 1)
    edges = np.concatenate([cells, cells[:, one] + cells[:, two]], axis=1)
    return np.linalg.norm(np.concatenate([edges, vectors], axis=1), axis=2)


def _sorted_distances(same: Sequence[Atoms], held: int) -> np.ndarray:
    """Computes distances whose order does not depend on that of the atoms: [n, c], Å."""
    if same[0].pbc.any() or len(same[0]) > PAIRWISE:
        return distance_vectors(same, held)
    order = [np.argsort(s.numbers, kind="stable") for s in same]
    positions = np.array([s.positions[o] for s, o in zip(same, order, strict=True)])
    return sorted_neighbour_distances(same[0].numbers[order[0]], positions, held=held)
