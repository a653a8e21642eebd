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

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from tqdm import tqdm

from tfgen.structures.nearest_distances import nearest_distances
from tfgen.structures.superposition import align, displacements, require_finite, rmsd

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

# Numbers held at once: about 64 MB.
HELD = 8_000_000
# Numbers in one temporary of a calculation: more would fall out of the processor's caches.
_CACHED = 200_000
# Up to this many atoms, structures are compared by all distances.
_PAIRWISE = 500
# Columns of the screen: enough to tell nearly all structures apart, few enough for a k-d tree.
_SCREEN = 16


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
        for members in _groups(structures):
            if len(members) == 1:  # nothing to compare, and the distances of a large one are many
                bar.update(1)
                continue
            vectors = _lookup([structures[m] for m in members], held)
            if also is not None and also.shape[1]:
                vectors = _with_columns(vectors, also[members])
            kept = _first_kept(vectors, len(members), tolerance, bar.update, held=held)
            result[members] = members[kept]
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
    for members in _groups(both):
        if len(members) == 1:
            continue
        vectors = _vectors([both[m] for m in members])
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
    for members in _groups(both):
        ours, theirs = members < n, members >= n
        if not ours.any() or not theirs.any():
            continue
        vectors = _vectors([both[m] for m in members])
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


def _pair_kinds(numbers: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns an integer for each pair of atoms that stands for its pair of elements."""
    low, high = np.minimum(numbers[i], numbers[j]), np.maximum(numbers[i], numbers[j])
    return low.astype(np.int64) * 1000 + high


def _groups(structures: Sequence[Atoms]) -> Iterator[np.ndarray]:
    """Yields the members [m] of each composition and periodicity."""
    keys: dict[tuple[bytes, bytes], list[int]] = {}
    for place, structure in enumerate(structures):
        key = np.sort(structure.numbers).tobytes(), structure.pbc.tobytes()
        keys.setdefault(key, []).append(place)
    yield from map(np.array, keys.values())


def _lookup(same: Sequence[Atoms], held: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from rows to their `_vectors`, computed once if that is not too much."""
    if len(same) * _vectors(same[:1], held).shape[1] <= held:
        return _vectors(same, held).__getitem__
    return lambda rows: _vectors([same[row] for row in rows], held)


def _with_columns(
    vectors: Callable[[np.ndarray], np.ndarray], also: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from rows to their vectors with further columns."""
    return lambda rows: np.concatenate([vectors(rows), also[rows]], axis=1)


def _vectors(same: Sequence[Atoms], held: int = HELD) -> np.ndarray:
    """Describes structures of one composition and periodicity by distances: [n, columns], Å."""
    if len(same[0]) > _PAIRWISE:
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


def _chebyshev(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes max-norm distances [len(a), len(b)]: zero without columns (single atoms)."""
    return cdist(a, b, "chebyshev") if a.shape[1] else np.zeros([len(a), len(b)])


def _first_kept(
    vectors: Callable[[np.ndarray], np.ndarray],
    n: int,
    tolerance: float,
    advance: Callable[[int], object] = lambda _: None,
    *,
    held: int = HELD,
    block: int = 1024,
) -> np.ndarray:
    """Finds for each row the first row kept within `tolerance` (max norm), itself if it is kept.

    Blocks of rows are compared with the rows kept so far, then among themselves. Rows within the
    tolerance of each other are so in every column, so a k-d tree on a few columns finds all
    candidates. `vectors` maps places [rows] to rows [rows, columns]; `advance` is called with the
    number of rows that are finished.
    """
    sample = vectors(np.unique(np.linspace(0, n - 1, min(n, 256)).astype(int)))
    columns = sample.shape[1]
    if columns == 0:
        advance(n)
        return np.zeros(n, int)
    picked = _select_columns(sample)
    step = max(1, held // columns)
    screen = np.concatenate(
        [vectors(np.arange(i, min(i + step, n)))[:, picked] for i in range(0, n, step)]
    )
    reach = tolerance * (1 + 1e-9) + 1e-12  # the screen must not be stricter than the comparison
    result = np.arange(n)
    kept = np.zeros(0, int)
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n))
        if len(kept):
            found = cKDTree(screen[kept], leafsize=64).query_ball_point(
                screen[rows], reach, p=np.inf
            )
            row = np.repeat(rows, [len(f) for f in found])
            known = kept[np.concatenate([np.asarray(f, int) for f in found])]
            equal = _within(vectors, row, known, tolerance, step)
            # Several kept rows may be equal to one row: the first counts.
            np.minimum.at(result, row[equal], known[equal])
            rows = rows[result[rows] == rows]
        pairs = cKDTree(screen[rows], leafsize=64).query_pairs(
            reach, p=np.inf, output_type="ndarray"
        )
        pairs = rows[np.sort(pairs, axis=1)]
        pairs = pairs[_within(vectors, pairs[:, 0], pairs[:, 1], tolerance, step)]
        for early, late in pairs[np.lexsort([pairs[:, 0], pairs[:, 1]])]:
            # Ascending in `late`: whether `early` is kept is decided by now.
            if result[late] == late and result[early] == early:
                result[late] = early
        kept = np.concatenate([kept, rows[result[rows] == rows]])
        advance(min(block, n - start))
    return result


def _select_columns(sample: np.ndarray) -> np.ndarray:
    """Selects up to `_SCREEN` columns in which rows differ most and that are least correlated.

    Pivoted Gram-Schmidt: each is the column of largest variance after those before it have been
    projected out.
    """
    left = sample - sample.mean(axis=0)
    picked = []
    for _ in range(min(_SCREEN, sample.shape[1])):
        variance = (left**2).sum(axis=0)
        picked.append(int(variance.argmax()))
        direction = left[:, picked[-1]] / np.sqrt(variance.max() or 1.0)
        left -= np.outer(direction, direction @ left)
    return np.unique(picked)


def _within(
    vectors: Callable[[np.ndarray], np.ndarray],
    a: np.ndarray,
    b: np.ndarray,
    tolerance: float,
    step: int,
) -> np.ndarray:
    """Says which rows `a` are within the tolerance of rows `b`: [pairs] bool."""
    result = np.empty(len(a), bool)
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        rows, place = np.unique([a[part], b[part]], return_inverse=True)
        one, two = place.reshape(2, -1)  # NumPy 1 returns it flat
        known = vectors(rows)
        result[part] = np.abs(known[one] - known[two]).max(axis=1) <= tolerance
    return result
