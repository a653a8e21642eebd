"""Which atoms are near which, images included: the one search for neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

__all__ = [
    "Images",
    "NeighbourPairs",
    "cluster_lists",
    "images_within",
    "neighbour_lists",
    "neighbour_pairs",
]


class NeighbourPairs(NamedTuple):
    """Ordered pairs of an atom and a neighbour, which may be an image of any atom.

    Attributes:
        first: [pairs] int, the atom; ascending.
        second: [pairs] int, the atom that the neighbour is an image of; ascending for each `first`.
        shift: [pairs, 3] int, the lattice translation of the image, in units of the cell vectors:
            the neighbour is at `positions[second] + shift @ cell`.
        distance: [pairs], Å.
    """

    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray
    distance: np.ndarray


class Images(NamedTuple):
    """The atoms of a structure, brought into its cell, and all images near them.

    Attributes:
        positions: [atoms, 3], Å, of the atoms in the cell.
        home: [atoms, 3] int, the lattice translations that have been taken off.
        points: [images, 3], Å, the images within reach of the cell, the atoms themselves included.
        atom: [images] int, the atom that each is an image of; ascending.
        shift: [images, 3] int, its lattice translation relative to the atom in the cell, in units
            of the cell vectors.
    """

    positions: np.ndarray
    home: np.ndarray
    points: np.ndarray
    atom: np.ndarray
    shift: np.ndarray


def images_within(structure: Atoms, reach: float) -> Images:
    """Finds all images that can be within `reach` (Å) of an atom in the cell.

    Only the cell vectors of periodic directions count; a cluster has no images but itself.
    """
    cell = np.where(structure.pbc[:, None], structure.cell.array, 0.0)
    inverse = np.linalg.pinv(cell)
    scaled = structure.positions @ inverse
    home = np.where(structure.pbc, np.floor(scaled), 0.0).astype(int)
    scaled = scaled - home
    positions = structure.positions - home @ cell
    # Two points that are r apart differ in a scaled coordinate by at most r over the cell's height.
    margin = reach * np.linalg.norm(inverse, axis=0) + 1e-9
    most = np.where(structure.pbc, margin + 1.0, 0.0).astype(int)
    shifts = np.indices((2 * most + 1).tolist()).reshape(3, -1).T - most
    moved = scaled[:, None] + shifts
    low, high = scaled.min(axis=0) - margin, scaled.max(axis=0) + margin
    atom, place = np.nonzero(((moved >= low) & (moved <= high)).all(axis=2))
    points = positions[atom] + shifts[place] @ cell
    return Images(positions, home, points, atom, shifts[place])


def neighbour_pairs(structure: Atoms, reach: float | np.ndarray) -> NeighbourPairs:
    """Finds all pairs of atoms (images included) that are near each other.

    A k-d tree holds the images that can be within reach of the cell: time and memory grow in
    proportion to the number of atoms and pairs.

    Args:
        structure: a cluster or a periodic structure; left unmodified.
        reach: Å; the largest distance of a pair, or [atoms], where a pair is within the sum of
            the reaches of its two atoms.

    Returns:
        The pairs, each in both directions; an atom is no neighbour of itself, its images are.
    """
    each = np.broadcast_to(reach if np.ndim(reach) else 0.5 * np.asarray(reach), [len(structure)])
    farthest = 2.0 * float(each.max())
    images = images_within(structure, farthest)
    found = cKDTree(images.positions).sparse_distance_matrix(
        cKDTree(images.points), farthest * (1.0 + 1e-9), output_type="ndarray"
    )
    # By the first atom, then as the points are ordered: by the second atom, then by the image.
    order = np.argsort(found["i"] * len(images.points) + found["j"])
    i, place, distance = (found[name][order] for name in ("i", "j", "v"))
    j, shift = images.atom[place], images.shift[place]
    within = distance <= each[i] + each[j]
    within &= (i != j) | shift.any(axis=1)
    i, j, shift, distance = i[within], j[within], shift[within], distance[within]
    return NeighbourPairs(i, j, shift + images.home[i] - images.home[j], distance)


def neighbour_lists(
    structures: Sequence[Atoms], r_cut: float, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Makes padded lists of the neighbours of every atom.

    Args:
        structures: clusters or periodic structures of up to `width` atoms.
        r_cut: Å, the largest distance of a neighbour.
        width: padded number of atoms.

    Returns:
        index: [structures, width, neighbours] int32, the neighbour's place in the structure; -1
            pads. `neighbours` is a multiple of 8, as few distinct shapes cost few compilations.
        shift: [structures, width, neighbours, 3] int, the lattice translation of the image, in
            units of the cell vectors.
    """
    lists = [neighbour_pairs(s, r_cut) for s in structures]
    counts = [np.bincount(pairs.first, minlength=width) for pairs in lists]
    longest = _multiple_of_8(max(int(count.max(initial=1)) for count in counts))
    index = np.full([len(structures), width, longest], -1, np.int32)
    shift = np.zeros([len(structures), width, longest, 3], int)
    for row, (pairs, count) in enumerate(zip(lists, counts, strict=True)):
        # The pairs are sorted by their first atom: the place in its list is a running count.
        place = np.arange(len(pairs.first)) - np.repeat(np.cumsum(count) - count, count)
        index[row, pairs.first, place] = pairs.second
        shift[row, pairs.first, place] = pairs.shift
    return index, shift


def cluster_lists(
    positions: np.ndarray, real: np.ndarray, r_cut: float, longest_share: float
) -> np.ndarray | None:
    """Makes such lists for many clusters at once, by looking at all pairs of atoms.

    Args:
        positions: [clusters, atoms, 3], Å.
        real: [clusters, atoms] bool, false for padding.
        r_cut: Å, above the largest distance of a neighbour.
        longest_share: the largest length that is worth it, as a share of the number of atoms.

    Returns:
        [clusters, atoms, neighbours] int32 as in `neighbour_lists`; None if the lists are longer.
    """
    n_atoms = positions.shape[1]
    squared = np.zeros([len(positions), n_atoms, n_atoms])
    for x in np.moveaxis(positions, 2, 0):
        squared += (x[:, :, None] - x[:, None, :]) ** 2
    near = (squared < r_cut**2) & real[:, :, None] & real[:, None, :]
    near &= ~np.eye(n_atoms, dtype=bool)
    longest = _multiple_of_8(int(near.sum(axis=2).max()))
    if longest > longest_share * n_atoms:
        return None
    row, i, j = np.nonzero(near)
    place = (np.cumsum(near, axis=2) - 1)[row, i, j]
    index = np.full([len(positions), n_atoms, longest], -1, np.int32)
    index[row, i, place] = j
    return index


def _multiple_of_8(length: int) -> int:
    return -(-length // 8) * 8
