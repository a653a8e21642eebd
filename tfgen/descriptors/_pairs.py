"""Sums over pairs of neighbours and over pairs of atoms that count each pair once."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

__all__ = ["AngularPowers", "Pairs", "contract", "size", "times"]

# Up to this many things, values are looked up for pairs by products with matrices of zeros and
# ones. XLA would fuse a gather with the computation of what it reads, and repeat that for each
# pair. It does not fuse a matrix product, whose gradient is such a product again. For more things
# the matrices become too large.
LOOKED_UP = 64


def size(x: tf.Tensor, axis: int) -> int | tf.Tensor:
    """Returns the length of an axis, as a number where it is known."""
    return tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


class Pairs:
    """All pairs j < k out of `n` things, in the same order whether `n` is known or not.

    Args:
        n: how many things there are.
    """

    def __init__(self, n: int | tf.Tensor) -> None:
        if isinstance(n, int):
            self._k, self._j = np.tril_indices(n, -1)
        else:
            # Pair m of the lower triangle, row by row: k (k - 1) / 2 <= m < k (k + 1) / 2.
            m = tf.range(n * (n - 1) // 2)
            k = tf.cast((1.0 + tf.sqrt(1.0 + 8.0 * tf.cast(m, tf.float64))) / 2.0, tf.int32)
            self._j, self._k = m - k * (k - 1) // 2, k
        self._eye = np.eye(n) if isinstance(n, int) and n <= LOOKED_UP else None

    def first(self, x: tf.Tensor) -> tf.Tensor:
        """Looks up the values of j for each pair: [..., n] -> [..., pairs], finite numbers."""
        if self._eye is None:
            return tf.gather(x, self._j, axis=-1)
        return times(x, self._eye[:, self._j])

    def second(self, x: tf.Tensor) -> tf.Tensor:
        """Looks up the values of k for each pair: [..., n] -> [..., pairs], finite numbers."""
        if self._eye is None:
            return tf.gather(x, self._k, axis=-1)
        return times(x, self._eye[:, self._k])

    def both(self, x: tf.Tensor) -> tf.Tensor:
        """Adds the values of j and k for each pair: [..., n] -> [..., pairs], finite numbers."""
        if self._eye is None:
            return self.first(x) + self.second(x)
        return times(x, self._eye[:, self._j] + self._eye[:, self._k])


def times(x: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    """Multiplies [..., n] by [n, m], as one product of two matrices."""
    lead = [size(x, axis) for axis in range(x.shape.rank - 1)]
    flat = tf.reshape(x, [-1, matrix.shape[0]])
    return tf.reshape(tf.matmul(flat, tf.constant(matrix, x.dtype)), [*lead, matrix.shape[1]])


class AngularPowers:
    """The powers P = [(1 + λ cos θ) / 2]^ζ, by repeated squaring; each is computed once.

    Args:
        cosines: cos θ.
    """

    def __init__(self, cosines: tf.Tensor) -> None:
        self._cosines = cosines
        self._cache: dict[tuple[float, float], tf.Tensor] = {}

    def __call__(self, zeta: float, lambda_: float) -> tf.Tensor:
        key = (zeta, lambda_)
        if key not in self._cache:
            self._cache[key] = self._power(zeta, lambda_)
        return self._cache[key]

    def _power(self, zeta: float, lambda_: float) -> tf.Tensor:
        if zeta == 1:
            # Rounding can push |cos θ| past 1; a fractional power of that would be NaN.
            half = 0.5 * (1.0 + lambda_ * self._cosines)
            return tf.maximum(half, tf.zeros([], half.dtype))
        if zeta == int(zeta):
            value = self(int(zeta) // 2, lambda_) ** 2
            return value * self(1, lambda_) if int(zeta) % 2 else value
        value = self(1, lambda_)
        tiny = tf.constant(np.finfo(value.dtype.as_numpy_dtype).tiny, value.dtype)
        return tf.where(value > 0, tf.maximum(value, tiny) ** zeta, tf.zeros_like(value))


def contract(
    angular: AngularPowers, squares: tf.Tensor, weights: tf.Tensor, params: np.ndarray
) -> tf.Tensor:
    """Sums P exp(-η squares) weights over pairs of neighbours.

    Args:
        angular: the powers P [batch, atoms, pairs].
        squares: [batch, atoms, pairs], Å².
        weights: [batch, atoms, pairs of elements, pairs].
        params: [[η, ζ, λ], ...].

    Returns:
        [batch, atoms, functions, pairs of elements].
    """
    etas_of: dict[tuple[float, float], list[int]] = {}
    for i, (_, zeta, lambda_) in enumerate(params):
        etas_of.setdefault((zeta, lambda_), []).append(i)
    # Powers that go with the same η share one matrix product.
    products: dict[tuple[float, ...], list[tuple[float, float]]] = {}
    for key, members in etas_of.items():
        products.setdefault(tuple(params[members, 0]), []).append(key)
    elements, pairs = weights.shape[2], size(weights, 3)
    batch, atoms = size(weights, 0), size(weights, 1)
    results, order = [], []
    for etas, keys in products.items():
        powers = tf.stack([angular(*key) for key in keys], axis=2)
        eta = tf.constant(etas, squares.dtype)[:, None]
        screened = tf.exp(-eta * squares[:, :, None])[:, :, :, None] * weights[:, :, None]
        screened = tf.reshape(screened, [batch, atoms, len(etas) * elements, pairs])
        summed = tf.matmul(powers, screened, transpose_b=True)
        results.append(tf.reshape(summed, [batch, atoms, len(keys) * len(etas), elements]))
        order += [i for key in keys for i in etas_of[key]]
    result = tf.concat(results, axis=2)
    if order == sorted(order):
        return result
    return tf.gather(result, np.argsort(order), axis=2)
