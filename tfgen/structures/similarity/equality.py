"""Which structures are the same, up to translation, rotation, reflection and permutation.

Structures of one composition are compared by their interatomic distances, sorted within each pair
of element kinds. Equal structures have equal sorted distances, whatever their orientation,
handedness and order of atoms; the largest difference (max norm, Å) measures how unequal two
structures are. (Different structures with the same distances exist, but are exceptional.) All
functions are vectorised, so that thousands of structures are compared at once. Structures of more
than 500 atoms are compared by the distances of each atom's nearest neighbours instead, because all
distances take memory that grows with the square of the atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from scipy.spatial.distance import cdist
from tqdm import tqdm

from tfgen.structures.similarity.leaders import Table, find_leaders, lookup, same_composition
from tfgen.structures.similarity.sorted_distances import HELD, distance_vectors, sorted_distances
from tfgen.structures.similarity.superposition import align, displacements, require_finite, rmsd

__all__ = [
    "align",
    "deviations",
    "displacements",
    "duplicates",
    "match",
    "nearest",
    "rmsd",
    "sorted_distances",
]


def duplicates(
    structures: Sequence[Atoms],
    tolerance: float = 0.05,
    *,
    also: np.ndarray | None = None,
    progress: bool = False,
    held: int = HELD,
) -> np.ndarray:
    """Finds for each structure the first one kept that it equals: itself if it is kept.

    Structures are compared in order; each is kept unless it equals one that has been kept. Hence no
    two kept structures are equal, and every other one equals the kept one it points to. (Equality
    within a tolerance is not transitive: a structure may equal one that was not kept, and be kept.)

    Args:
        structures: any mix of sizes and compositions. Structures of different compositions are
            never equal, nor is a cluster to a periodic structure.
        tolerance: largest difference of any sorted distance, Å.
        also: [n, columns], further numbers that equal structures must not differ in by more than
            the tolerance, such as scaled properties; None: the geometry alone counts.
        progress: whether to show a progress bar.
        held: numbers (of 8 bytes) that are held at once, which bounds the memory; the result does
            not depend on it.

    Returns:
        [n] int; `np.flatnonzero(result == np.arange(n))` are the structures kept.

    Raises:
        ValueError: if the tolerance is negative or not finite, or a structure has no atoms or
            positions that are not finite.
    """
    _check_tolerance(tolerance)
    require_finite(structures, "structures")
    result = np.arange(len(structures))
    with tqdm(desc="comparing", total=len(structures), unit="", disable=not progress) as bar:
        for members in same_composition(structures):
            if len(members) == 1:  # nothing to compare, and the distances of a large one are many
                bar.update(1)
                continue
            vectors = lookup(distance_vectors, [structures[m] for m in members], held)
            if also is not None and also.shape[1]:
                vectors = _with_columns(vectors, also[members])
            table = Table(vectors, len(members), held=held)
            result[members] = members[find_leaders(table, tolerance, bar.update)]
    return result


def match(
    structures: Sequence[Atoms], references: Sequence[Atoms], tolerance: float = 0.05
) -> np.ndarray:
    """Finds for each structure the nearest reference if it is equal to it, otherwise -1.

    Args:
        structures: any mix of sizes and compositions.
        references: the structures to look for, likewise.
        tolerance: largest difference of any sorted distance, Å.

    Returns:
        [n] int, index into `references` or -1.

    Raises:
        ValueError: if the tolerance is negative or not finite, or a structure has no atoms or
            positions that are not finite.
    """
    _check_tolerance(tolerance)
    index, distance = nearest(structures, references)
    return np.where(distance <= tolerance, index, -1)


def deviations(structures: Sequence[Atoms], references: Sequence[Atoms]) -> np.ndarray:
    """Measures how far each structure is from the reference of the same place in the list.

    Args:
        structures: any mix of sizes and compositions.
        references: as many.

    Returns:
        [n], Å, the largest difference of any sorted distance; inf where compositions differ.

    Raises:
        ValueError: if there are not as many references, a structure has no atoms or positions
            that are not finite.
    """
    if len(structures) != len(references):
        raise ValueError(f"{len(references)} references for {len(structures)} structures")
    require_finite(structures, "structures")
    require_finite(references, "references")
    n = len(structures)
    result = np.full(n, np.inf)
    both = [*structures, *references]
    for members in same_composition(both):
        if len(members) == 1:
            continue
        vectors = distance_vectors([both[m] for m in members])
        place = {int(m): row for row, m in enumerate(members)}
        pairs = [m for m in place if m < n and m + n in place]
        ours, theirs = [place[m] for m in pairs], [place[m + n] for m in pairs]
        result[pairs] = np.abs(vectors[ours] - vectors[theirs]).max(axis=1, initial=0.0)
    return result


def nearest(
    structures: Sequence[Atoms], references: Sequence[Atoms]
) -> tuple[np.ndarray, np.ndarray]:
    """Finds for each structure the reference whose sorted distances differ least (max norm).

    Args:
        structures: any mix of sizes and compositions.
        references: likewise.

    Returns:
        index: [n] int, into `references`; -1 where none has the composition.
        distance: [n], Å, the largest difference of any sorted distance; inf where index is -1.

    Raises:
        ValueError: if a structure has no atoms or positions that are not finite.
    """
    require_finite(structures, "structures")
    require_finite(references, "references")
    index = np.full(len(structures), -1)
    distance = np.full(len(structures), np.inf)
    n = len(structures)
    both = [*structures, *references]
    for members in same_composition(both):
        ours, theirs = members < n, members >= n
        if not ours.any() or not theirs.any():
            continue
        vectors = distance_vectors([both[m] for m in members])
        step = max(1, HELD // int(theirs.sum()))
        for start in range(0, int(ours.sum()), step):
            rows = members[ours][start : start + step]
            far = _chebyshev(vectors[ours][start : start + step], vectors[theirs])
            best = far.argmin(axis=1)
            index[rows] = members[theirs][best] - n
            distance[rows] = far[np.arange(len(rows)), best]
    return index, distance


def _check_tolerance(tolerance: float) -> None:
    if not 0.0 <= tolerance < np.inf:
        raise ValueError(f"tolerance is {tolerance!r}; a finite distance >= 0 Å is needed")


def _with_columns(
    vectors: Callable[[np.ndarray], np.ndarray], also: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from rows to their vectors with further columns."""
    return lambda rows: np.concatenate([vectors(rows), also[rows]], axis=1)


def _chebyshev(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes max-norm distances [len(a), len(b)]: zero without columns (single atoms)."""
    return cdist(a, b, "chebyshev") if a.shape[1] else np.zeros([len(a), len(b)])
