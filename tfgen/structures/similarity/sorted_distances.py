"""Sorted interatomic distances, by which `similarity` compares structures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from tfgen.structures.similarity.nearest_distances import nearest_distances

__all__ = ["HELD", "distance_vectors", "sorted_distances"]

HELD = 8_000_000
"""Numbers held at once, by default: about 64 MB."""

# Numbers in one temporary of a calculation: more would fall out of the processor's caches.
_CACHED = 200_000
# Up to this many atoms, structures are described by all distances.
PAIRWISE = 500


def sorted_distances(numbers: np.ndarray, positions: np.ndarray, *, held: int = HELD) -> np.ndarray:
    """Computes interatomic distances, sorted within each pair of element kinds.

    They do not change under translation, rotation, reflection or permutation of like atoms.

    Args:
        numbers: [N], atomic numbers, the same for all structures and in the same order.
        positions: [n, N, 3], Å.
        held: numbers that temporaries hold at most, besides the result, which does not depend on
            it.

    Returns:
        [n, N(N-1)/2], Å. Blocks for the pairs of kinds (a, b), a <= b, ascending; ascending within
        each block. Structures whose atoms are listed in another order have the same columns.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    numbers = np.asarray(numbers)
    positions = np.asarray(positions, np.float64)
    if numbers.ndim != 1 or positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3):
        raise ValueError(
            f"positions has shape {positions.shape}; [n, {numbers.size}, 3] is needed for numbers "
            f"of shape {numbers.shape}"
        )
    i, j = np.triu_indices(len(numbers), 1)
    block = _pair_kinds(numbers, i, j)
    order = np.argsort(block, kind="stable")
    i, j, block = i[order], j[order], block[order]
    result = np.empty([len(positions), len(i)])
    step = max(1, min(held, _CACHED) // max(1, 3 * len(i)))
    for start in range(0, len(positions), step):
        part = positions[start : start + step]
        result[start : start + step] = np.linalg.norm(part[:, i] - part[:, j], axis=-1)
    for kind in np.unique(block):
        columns = slice(*np.searchsorted(block, [kind, kind + 1]))
        result[:, columns].sort(axis=1)
    return result


def distance_vectors(same: Sequence[Atoms], held: int = HELD) -> np.ndarray:
    """Describes structures of one composition and periodicity by sorted distances.

    Args:
        same: at least one structure; all have the same composition and periodic directions.
        held: numbers that temporaries hold at most, besides the result, which does not depend on
            it.

    Returns:
        [n, columns], Å: the sorted distances of clusters; of periodic structures those of nearest
        images, and what describes the cell; of more than 500 atoms, `nearest_distances`.
    """
    if len(same[0]) > PAIRWISE:
        return np.array([nearest_distances(s) for s in same])
    order = [np.argsort(s.numbers, kind="stable") for s in same]
    positions = np.array([s.positions[o] for s, o in zip(same, order, strict=True)])
    numbers, periodic = same[0].numbers[order[0]], same[0].pbc
    if not periodic.any():
        return sorted_distances(numbers, positions, held=held)
    cells = np.where(periodic[:, None], [s.cell.array for s in same], 0.0)
    held = min(held, _CACHED)
    step = max(1, held // (14 * len(numbers) ** 2))
    return np.concatenate(
        [
            _periodic_vectors(numbers, positions[i : i + step], cells[i : i + step], periodic, held)
            for i in range(0, len(same), step)
        ]
    )


def _periodic_vectors(
    numbers: np.ndarray, positions: np.ndarray, cells: np.ndarray, periodic: np.ndarray, held: int
) -> np.ndarray:
    """Computes what stands for the sorted distances of periodic structures: [n, columns], Å.

    Lengths of the periodic cell vectors and of their sums, then for each pair of atoms its 2^p
    shortest image distances (p periodic axes), sorted within each pair of element kinds. Structures
    described by different cells count as different.
    """
    one, two = np.triu_indices(3, 1)
    shape = np.linalg.norm(np.concatenate([cells, cells[:, one] + cells[:, two]], axis=1), axis=2)
    i, j = np.triu_indices(len(numbers), 1)
    block = _pair_kinds(numbers, i, j)
    order = np.argsort(block, kind="stable")
    i, j, block = i[order], j[order], block[order]
    vector = positions[:, i] - positions[:, j]
    inverse = np.linalg.pinv(cells)
    vector -= np.round(vector @ inverse) @ cells
    images = 2 ** int(periodic.sum())
    most = periodic.astype(int)
    lengths = _shortest(vector, cells, most, images, held)
    # Scaled vectors are within 1/2: an image k cells on is at least |k| - 1/2 heights off. In
    # skewed cells such images may be nearer than some of those tried.
    farthest = lengths.max(axis=(1, 2), initial=0.0)
    within = farthest[:, None] * np.linalg.norm(inverse, axis=1) + 0.5
    for row in np.flatnonzero((within.astype(int) > most).any(axis=1)).tolist():
        more = np.maximum(most, within[row].astype(int))
        part = slice(row, row + 1)
        lengths[part] = _shortest(vector[part], cells[part], more, images, held)
    lengths = lengths.reshape(len(cells), -1)
    for kind in np.unique(block):
        columns = slice(*np.searchsorted(block, [kind, kind + 1]) * images)
        lengths[:, columns].sort(axis=1)
    return np.concatenate([shape, lengths], axis=1)


def _shortest(
    vector: np.ndarray, cells: np.ndarray, most: np.ndarray, count: int, held: int
) -> np.ndarray:
    """Finds the `count` shortest lengths, in any order, of vectors with lattice translations.

    Args:
        vector: [n, pairs, 3], Å.
        cells: [n, 3, 3], Å.
        most: [3] int, the largest multiple of each cell vector that is tried, to either side.
        count: at most the number of translations tried.
        held: numbers held at once, besides the result.

    Returns:
        [n, pairs, count], Å.
    """
    shifts = (np.indices((2 * most + 1).tolist()).reshape(3, -1).T - most) @ cells
    result = np.empty([*vector.shape[:2], count])
    step = max(1, held // (len(cells) * shifts.shape[1]))
    for start in range(0, vector.shape[1], step):
        part = vector[:, start : start + step]
        squared = np.zeros([*part.shape[:2], shifts.shape[1]])
        for axis in range(3):
            squared += (part[:, :, None, axis] + shifts[:, None, :, axis]) ** 2
        nearest_first = np.partition(squared, count - 1, axis=2)
        result[:, start : start + step] = np.sqrt(nearest_first[:, :, :count])
    return result


def _pair_kinds(numbers: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns an integer for each pair of atoms that stands for its pair of elements."""
    low, high = np.minimum(numbers[i], numbers[j]), np.maximum(numbers[i], numbers[j])
    return low.astype(np.int64) * 1000 + high
