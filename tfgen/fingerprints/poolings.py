"""Poolings: how the features of the atoms become numbers of the whole structure.

A new pooling is a function and an entry in `POOLINGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfgen.structures.neighbours.displacements import safe_sqrt

__all__ = ["POOLINGS", "Pooling"]

# The covariances of each feature with this many that follow it; saved fingerprints rely on it.
COVARIANCES = 6


def one_for_each(features: int, first: int) -> np.ndarray:
    """Returns the columns of a pooling that makes one number of each feature, in their order."""
    return np.arange(min(features, first))


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """A map of the features of a structure's atoms to numbers that forget the order of the atoms.

    Attributes:
        pool: maps features [batch, atoms, features] and a mask [batch, atoms, 1], true for the
            atoms that count (at least one in each structure), to [batch, width].
        differentiable: whether it is so everywhere, unlike the largest value, whose gradient jumps
            where another atom takes over.
        columns: maps the number of features, and how many of the first of them are meant, to the
            places of those columns that the first features alone determine, in the order in which
            the pooling of the first features alone would have them. Of all features these are all
            columns, so this defines the width, too.
    """

    pool: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    differentiable: bool = True
    columns: Callable[[int, int], np.ndarray] = one_for_each

    def width(self, features: int) -> int:
        """Returns how many numbers it makes of a number of features."""
        return len(self.columns(features, features))


def maximum(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Computes the largest value over the atoms."""
    lowest = tf.constant(features.dtype.min, features.dtype)
    return tf.reduce_max(tf.where(mask, features, lowest), axis=1)


def minimum(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Computes the smallest value over the atoms."""
    return -maximum(-features, mask)


def mean(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Computes the mean over the atoms."""
    count = tf.reduce_sum(tf.cast(mask, features.dtype), axis=1)
    return tf.reduce_sum(tf.where(mask, features, tf.zeros_like(features)), axis=1) / count


def central_moment(order: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the pooling by the mean of (feature - mean)^order."""

    def moment(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return mean((features - mean(features, mask)[:, None, :]) ** order, mask)

    return moment


def standard_deviation(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Computes the standard deviation (of the population) over the atoms; its slope at 0 is 0."""
    return safe_sqrt(central_moment(2)(features, mask))


def covariance(features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Computes covariances over the atoms of each feature with those that follow it.

    First those of each feature with the next, then of each with the one after the next, and so on.
    """
    apart = features - mean(features, mask)[:, None, :]
    lags = [mean(apart[..., :-lag] * apart[..., lag:], mask) for lag in range(1, COVARIANCES + 1)]
    return tf.concat(lags, axis=-1)


def columns_of_covariance(features: int, first: int) -> np.ndarray:
    """Returns where the covariances among the first features stand."""
    places, start = [np.zeros(0, int)], 0
    for lag in range(1, COVARIANCES + 1):
        places.append(start + np.arange(max(first - lag, 0)))
        start += max(features - lag, 0)
    return np.concatenate(places)


POOLINGS: dict[str, Pooling] = {
    "max": Pooling(pool=maximum, differentiable=False),
    "min": Pooling(pool=minimum, differentiable=False),
    "mean": Pooling(pool=mean),
    "std": Pooling(pool=standard_deviation),
    "moment3": Pooling(pool=central_moment(3)),
    "covariance": Pooling(pool=covariance, columns=columns_of_covariance),
}
"""The poolings that a `Fingerprint` knows by name."""
