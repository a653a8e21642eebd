"""Leaders: rows of a table of which every other row is within a tolerance of one (max norm)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from tfgen.structures.similarity.sorted_distances import HELD

__all__ = ["Table", "find_leaders", "lookup", "same_composition"]

# Columns of the screen: enough to tell nearly all rows apart, few enough for a k-d tree.
_SCREEN = 16


class Table:
    """Rows that are computed when needed, screened by a few of their columns.

    Rows within a tolerance of each other are so in every column, so a k-d tree on a few columns
    finds all candidates.

    Args:
        vectors: maps places [m] to rows [m, columns].
        n: number of rows, at least one.
        held: numbers (of 8 bytes) that are held at once.
    """

    def __init__(
        self, vectors: Callable[[np.ndarray], np.ndarray], n: int, *, held: int = HELD
    ) -> None:
        self._vectors = vectors
        sample = vectors(np.unique(np.linspace(0, n - 1, min(n, 256)).astype(int)))
        self._step = max(1, held // max(1, sample.shape[1]))
        picked = _select_columns(sample)
        parts = (np.arange(i, min(i + self._step, n)) for i in range(0, n, self._step))
        self._screen = np.concatenate([vectors(part)[:, picked] for part in parts])

    def __len__(self) -> int:
        return len(self._screen)

    def candidates(
        self, rows: np.ndarray, others: np.ndarray, tolerance: float
    ) -> list[np.ndarray]:
        """Returns for each of `rows` those of `others` that may be within the tolerance."""
        if self._screen.shape[1] == 0:
            return [others] * len(rows)
        # The screen must not be stricter than the comparison.
        reach = tolerance * (1 + 1e-9) + 1e-12
        tree = cKDTree(self._screen[others], leafsize=64)
        found = tree.query_ball_point(self._screen[rows], reach, p=np.inf)
        return [others[np.asarray(places, int)] for places in found]

    def pairs(
        self, rows: np.ndarray, others: np.ndarray, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns all pairs of one of `rows` and one of `others` within the tolerance: [m], [m]."""
        found = self.candidates(rows, others, tolerance)
        row = np.repeat(rows, [len(f) for f in found])
        other = np.concatenate([np.zeros(0, int), *found])
        near = self.within(row, other, tolerance)
        return row[near], other[near]

    def within(self, a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
        """Says which rows `a` are within the tolerance of rows `b`: [pairs] bool."""
        result = np.empty(len(a), bool)
        for start in range(0, len(a), self._step):
            part = slice(start, start + self._step)
            rows, place = np.unique([a[part], b[part]], return_inverse=True)
            one, two = place.reshape(2, -1)  # NumPy 1 returns it flat
            known = self._vectors(rows)
            far = np.abs(known[one] - known[two]).max(axis=1, initial=0.0)
            result[part] = far <= tolerance
        return result


def find_leaders(
    table: Table,
    tolerance: float,
    advance: Callable[[int], object] = lambda _: None,
    *,
    block: int = 1024,
) -> np.ndarray:
    """Finds for each row the first leader within the tolerance, itself if it is one.

    Rows are compared in order; each is a leader unless it is within the tolerance of one before.

    Args:
        table: n rows.
        tolerance: largest difference in any column.
        advance: called with the number of rows that are finished.
        block: rows compared at once, on which the result does not depend.

    Returns:
        [n] int.
    """
    n = len(table)
    result = np.arange(n)
    leaders = np.zeros(0, int)
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n))
        if len(leaders):
            equal, leader = table.pairs(rows, leaders, tolerance)
            # Several leaders may be near one row: the first counts.
            np.minimum.at(result, equal, leader)
            rows = rows[result[rows] == rows]
        near = table.candidates(rows, rows, tolerance) if len(rows) else []
        for row, others in zip(rows.tolist(), near, strict=True):
            if result[row] != row:
                continue
            later = others[(others > row) & (result[others] == others)]
            if len(later):
                result[later[table.within(np.full(len(later), row), later, tolerance)]] = row
        leaders = np.concatenate([leaders, rows[result[rows] == rows]])
        advance(min(block, n - start))
    return result


def same_composition(structures: Sequence[Atoms]) -> Iterator[np.ndarray]:
    """Yields the members [m] of each composition and periodicity."""
    keys: dict[tuple[bytes, bytes], list[int]] = {}
    for place, structure in enumerate(structures):
        key = np.sort(structure.numbers).tobytes(), structure.pbc.tobytes()
        keys.setdefault(key, []).append(place)
    yield from map(np.array, keys.values())


def lookup(
    describe: Callable[[Sequence[Atoms], int], np.ndarray], structures: Sequence[Atoms], held: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from places to rows, which are computed once if they are few enough.

    Args:
        describe: maps structures to rows, and holds not many more numbers than its second argument.
        structures: of one composition and periodicity.
        held: numbers that are held at most.
    """
    if len(structures) * describe(structures[:1], held).shape[1] <= held:
        return describe(structures, held).__getitem__
    return lambda rows: describe([structures[row] for row in rows], held)


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
    return np.unique(np.array(picked, int))
