"""What an exported SavedModel says where its inputs make no sense: NaN, never something plausible.

A graph has no exceptions, and a batch may hold good and bad rows: each row stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
from ase.data import atomic_numbers

__all__ = ["Guard", "require_same_rows", "without_answers"]


class Guard:
    """Says which rows of the inputs of a SavedModel make sense.

    Args:
        species: chemical symbols, in the order of the conditions.
    """

    def __init__(self, species: Sequence[str]) -> None:
        self._numbers = [atomic_numbers[symbol] for symbol in species]

    def structures(self, positions: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        """Whether structures have atoms, all of known elements and at finite positions.

        Args:
            positions: [n, atoms, 3], Å.
            numbers: [n, atoms]; 0 pads.

        Returns:
            [n] bool.
        """
        there, known = numbers != 0, self._is(numbers)
        finite = tf.reduce_all(tf.math.is_finite(positions), axis=-1)
        return tf.reduce_all(~there | (known & finite), axis=1) & tf.reduce_any(there, axis=1)

    def conditions(self, condition: tf.Tensor) -> tf.Tensor:
        """Whether conditions are finite, and end in whole numbers of atoms, at least one in all.

        Args:
            condition: [n, conditions].

        Returns:
            [n] bool.
        """
        counts = condition[:, -len(self._numbers) :]
        whole = tf.reduce_all((counts == tf.round(counts)) & (counts >= 0.0), axis=1)
        finite = tf.reduce_all(tf.math.is_finite(condition), axis=1)
        return finite & whole & (tf.reduce_sum(counts, axis=1) >= 1.0)

    def requests(self, condition: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        """Whether conditions and atoms to be placed fit together.

        Args:
            condition: [n, conditions].
            numbers: [n, atoms]; sorted, without padding.

        Returns:
            [n] bool.
        """
        counts = condition[:, -len(self._numbers) :]
        found = tf.reduce_sum(tf.cast(self._each(numbers), counts.dtype), axis=1)
        ordered = tf.reduce_all(numbers[:, 1:] >= numbers[:, :-1], axis=1)
        known = tf.reduce_all(self._is(numbers), axis=1)
        fit = tf.reduce_all(found == counts, axis=1)
        return self.conditions(condition) & known & ordered & fit

    def _each(self, numbers: tf.Tensor) -> tf.Tensor:
        """Compares each atom with each element, [n, atoms, elements] bool."""
        return numbers[..., None] == tf.constant(self._numbers, numbers.dtype)

    def _is(self, numbers: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(self._each(numbers), axis=-1)


def require_same_rows(*inputs: tf.Tensor, axes: int = 1) -> None:
    """Lets a graph end with an error if inputs differ in their first axes; rows may broadcast."""
    first = tf.shape(inputs[0])[:axes]
    for other in inputs[1:]:
        message = "all inputs need the same number of rows (and of atoms)"
        tf.debugging.assert_equal(tf.shape(other)[:axes], first, message=message)


def without_answers(outputs: Mapping[str, tf.Tensor], good: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns outputs with NaN in the rows that are not good.

    Args:
        outputs: each [n, ...].
        good: [n] bool.
    """
    result = {}
    for name, values in outputs.items():
        rows = tf.reshape(good, tf.concat([[-1], tf.ones([tf.rank(values) - 1], tf.int32)], 0))
        nan = tf.constant(float("nan"), values.dtype)
        result[name] = tf.ensure_shape(tf.where(rows, values, nan), values.shape)
    return result
