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
        The changes i < j of each pair, [pairs] int, the best pair first.
    """
    sound = np.isfinite(errors).all(axis=1)
    changes = np.where(sound[:, None], errors, unchanged) - unchanged
    along = changes @ unchanged
    squared = (changes**2).sum(axis=1)
    alone = squared + 2.0 * along  # of change i: |e_i|² - |e|²
    left = alone[:, None] + alone + 2.0 * (changes @ changes.T)
    possible = np.triu(together & sound[:, None] & sound, 1)
    i, j = np.nonzero(possible)
    values = left[i, j]
    if len(values) > count:
        kept = np.argpartition(values, count - 1)[:count]
        i, j, values = i[kept], j[kept], values[kept]
    order = np.lexsort((j, i, values))
    return i[order], j[order]
