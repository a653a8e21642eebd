"""Pairs of changes that promise most, judged by what each of the two does alone."""

from __future__ import annotations

import numpy as np

__all__ = ["best_pairs"]


def best_pairs(
    errors: np.ndarray, unchanged: np.ndarray, together: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of changes after which least error would be left if their effects added up.

    With the error e of what is unchanged and e_i after change i,

    |e + (e_i - e) + (e_j - e)|² = |e_i|² + |e_j|² - |e|² + 2 (e_i - e)·(e_j - e)

    so that one product of matrices judges all pairs.

    Args:
        errors: [n, features], after each change alone; what is not finite is in no pair.
        unchanged: [features], before.
        together: [n, n] bool, which changes can be made both; the half above the diagonal counts.
        count: pairs, at most.

    Returns:
        The changes i < j of each pair, [pairs] int, the best pair first; none if the error before
        is not finite.
    """
    sound = np.flatnonzero(np.isfinite(errors).all(axis=1))
    if len(sound) == 0 or not np.isfinite(unchanged).all():
        return np.zeros(0, int), np.zeros(0, int)
    changes = errors[sound] - unchanged
    # Squares of large ones would be beyond float32.
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
