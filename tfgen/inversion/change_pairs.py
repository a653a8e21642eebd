"""The most promising pairs of changes, ranked by the effect that each of the two has alone."""

from __future__ import annotations

import numpy as np

__all__ = ["best_pairs"]


def best_pairs(
    errors: np.ndarray, unchanged: np.ndarray, together: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the pairs of changes that would leave the least error if their effects added up.

    With the error e before any change and e_i after change i,

    |e + (e_i - e) + (e_j - e)|² = |e_i|² + |e_j|² - |e|² + 2 (e_i - e)·(e_j - e)

    so that one product of matrices gives the errors of all pairs.

    Args:
        errors: [n, features], after each change alone; a change whose error is not finite is in no
            pair.
        unchanged: [features], before any change.
        together: [n, n] bool, pairs of changes that can both be made; only the part above the
            diagonal counts.
        count: bound on the number of pairs.

    Returns:
        The changes i < j of each pair, two arrays [pairs] int, the best pair first; empty if
        `unchanged` is not finite.
    """
    sound = np.flatnonzero(np.isfinite(errors).all(axis=1))
    if len(sound) == 0 or not np.isfinite(unchanged).all():
        return np.zeros(0, int), np.zeros(0, int)
    changes = errors[sound] - unchanged
    # Squares of large errors would exceed the range of float32.
    unit = max(np.abs(changes).max(), np.abs(unchanged).max(), np.finfo(np.float32).tiny)
    changes /= unit
    alone = np.einsum("nf,nf->n", changes, changes) + 2.0 * changes @ (unchanged / unit)
    i, j = np.nonzero(np.triu(together[np.ix_(sound, sound)], 1))
    left = (alone[:, None] + alone + 2.0 * changes @ changes.T)[i, j]
    if len(left) > count:
        kept = np.argpartition(left, count - 1)[:count]
        i, j, left = i[kept], j[kept], left[kept]
    order = np.lexsort((j, i, left))
    return sound[i[order]], sound[j[order]]
