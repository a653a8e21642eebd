"""Describes large structures by the nearest neighbours of each atom, in memory for each atom."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from tfgen.structures.neighbours.lists import images_within

__all__ = ["nearest_distances"]

# Neighbours farther away than this, Å, count as this far away.
_REACH = 8.0
# Neighbours of each element that an atom is described by.
_NEIGHBOURS = 12


def nearest_distances(structure: Atoms) -> np.ndarray:
    """Computes the distances of each atom's nearest neighbours, sorted over the atoms: [columns].

    In Å: the lengths of the periodic cell vectors and of their sums; then for each pair of elements
    the distances of the first neighbours of all atoms, sorted, those of the second ones, and so on.
    If all distances of two structures agree within a tolerance, these do, and so they do if atoms
    are listed in another order, or the structure is moved, turned or mirrored. What they do not
    tell is how parts that are far from each other are arranged; for clusters the distances from the
    centre are added, which do.

    Args:
        structure: a cluster or a periodic structure; left unmodified.
    """
    numbers, images = structure.numbers, images_within(structure, _REACH)
    elements = np.unique(numbers)
    trees = {e: cKDTree(images.points[numbers[images.atom] == e]) for e in elements}
    cell = np.where(structure.pbc[:, None], structure.cell.array, 0.0)
    first, second = np.triu_indices(3, 1)
    parts = [np.linalg.norm(np.concatenate([cell, cell[first] + cell[second]]), axis=1)]
    for one in elements:
        own = images.positions[numbers == one]
        for other in elements:
            ranks = np.arange(1, _NEIGHBOURS + 1) + (one == other)  # an atom is its own nearest
            found, _ = trees[other].query(own, k=ranks, distance_upper_bound=_REACH)
            parts.append(np.sort(np.minimum(found, _REACH), axis=0).T.ravel())
        if not structure.pbc.any():
            centred = own - images.positions.mean(axis=0)
            parts.append(np.sort(np.linalg.norm(centred, axis=1)))
    return np.concatenate(parts)
