"""Selects the structures that a search continues with, and those that a data set keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["choose_parents", "farthest_points"]

# The low parents are picked among this many times as many of the lowest.
_POOL = 3


def farthest_points(
    features: np.ndarray, count: int, first: int | Sequence[int] | np.ndarray = 0
) -> np.ndarray:
    """Picks points one after the other, each the farthest from all those picked before.

    This is greedy farthest-point sampling. Every point is within the distance of the next point
    that would be picked, which is at most twice the best that any `count` points could do.
    Distances are Euclidean; of equal ones the first is taken. Time is O(n count f), and memory O(n)
    in addition to the features.

    Args:
        features: [n, f].
        count: how many to pick; all if there are no more.
        first: the point, or points, to begin with.

    Returns:
        [min(count, n)] int, in the order of picking, each once, beginning with `first`.

    Raises:
        ValueError: if features is not a finite matrix, count is below 1, or `first` is empty, holds
            an index twice or one that is out of range, or more than `count`.

    References:
        T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985). DOI 10.1016/0304-3975(85)90224-5
    """
    features = _checked(features)
    n = len(features)
    begin = np.atleast_1d(np.asarray(first, int))
    if count < 1:
        raise ValueError(f"count is {count!r}; at least 1 is needed")
    if n == 0:
        return np.zeros(0, int)
    fits = begin.ndim == 1 and 1 <= len(begin) <= count
    if not (fits and begin.min() >= 0 and begin.max() < n and len(set(begin)) == len(begin)):
        raise ValueError(
            f"first is {first!r}; 1 to {count} different indices from 0 to {n - 1} are needed"
        )
    squares = np.einsum("nf,nf->n", features, features)
    distance = np.full(n, np.inf)
    picked = np.empty(min(count, n), int)
    for place in range(len(picked)):
        now = begin[place] if place < len(begin) else int(distance.argmax())
        picked[place] = now
        to_now = squares - 2.0 * (features @ features[now]) + squares[now]
        # Rounding makes distances to copies slightly negative; picked ones stay below all others.
        np.minimum(distance, np.maximum(to_now, 0.0), out=distance)
        distance[picked[: place + 1]] = -1.0
    return picked


def choose_parents(
    energy: np.ndarray,
    features: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    higher: float = 0.3,
) -> np.ndarray:
    """Picks the minima that a search continues from: low and distinct ones, and some higher ones.

    The low ones lead to lower minima. They are the farthest points among the three times as many
    that are lowest, because copies and near copies would be of no use. The others lead to new
    minima, and are sampled at random from all that are left.

    Args:
        energy: [n], eV, of structures of one composition.
        features: [n, f], which distinguish them, such as `similarity.sorted_distances`.
        count: how many; all if there are no more.
        rng: the source of all randomness.
        higher: share of those sampled from all that are left, 0 to 1.

    Returns:
        [min(count, n)] int, each once, ascending in energy; the lowest is always among them.

    Raises:
        ValueError: if energy and features do not fit together or are not finite, count is below 1,
            or the share not from 0 to 1.
    """
    energy, features = np.asarray(energy, np.float64), _checked(features)
    if energy.shape != (len(features),) or not np.isfinite(energy).all():
        raise ValueError(
            f"energy has shape {energy.shape}; [{len(features)}] finite numbers are needed"
        )
    if count < 1:
        raise ValueError(f"count is {count!r}; at least 1 is needed")
    if not 0.0 <= higher <= 1.0:
        raise ValueError(f"higher is {higher!r}; a number from 0 to 1 is needed")
    order = np.argsort(energy, kind="stable")
    count = min(count, len(order))
    if count == 0:
        return np.zeros(0, int)
    low = max(1, count - round(higher * count))
    pool = order[: _POOL * low]
    chosen = pool[farthest_points(features[pool], low)]
    rest = np.setdiff1d(order, chosen)
    sampled = rng.choice(rest, count - len(chosen), replace=False)
    chosen = np.concatenate([chosen, sampled])
    return chosen[np.argsort(energy[chosen], kind="stable")]


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(f"features has shape {features.shape}; finite numbers [n, f] are needed")
    return features
