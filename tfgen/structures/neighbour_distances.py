"""What tells clusters apart whose distances, all in one list, are the same."""

from __future__ import annotations

import numpy as np

__all__ = ["sorted_neighbour_distances"]

# Distances held at once: 64 MB.
_CHUNK = 8_000_000


def sorted_neighbour_distances(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Distances of each atom's first neighbours, sorted over the atoms, of the second ones, ...

    Of each element around each element apart. Invariant under translation, rotation and reflection,
    and under permutation of like atoms. Candidates of a search share most of their fingerprint, and
    with it the list of all distances, however different they are: with 38 atoms lists agree within
    0.15 Å of structures an ångström apart (root mean square). These lists do not.

    Args:
        numbers: [N], atomic numbers.
        positions: [n, N, 3], Å.

    Returns:
        [n, N²], Å; atoms are their own first neighbours.
    """
    n, atoms = positions.shape[:2]
    result = np.empty([n, atoms**2])
    blocks = [np.flatnonzero(numbers == z) for z in np.unique(numbers)]
    step = max(1, _CHUNK // max(atoms**2 * 3, 1))
    for start in range(0, n, step):
        x = positions[start : start + step]
        distances = np.linalg.norm(x[:, :, None] - x[:, None], axis=3)
        ranked = [
            np.sort(np.sort(distances[:, a][:, :, b], axis=2), axis=1).reshape(len(x), -1)
            for a in blocks
            for b in blocks
        ]
        result[start : start + step] = np.concatenate(ranked, axis=1)
    return result
