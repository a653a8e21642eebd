"""Displacements, distances and cutoff functions: differentiable, safe at r = 0, periodic or not.

Periodicity enters here and nowhere else.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tfgen.structures import StructureBatch

__all__ = ["Neighbourhood", "cosine_cutoff", "neighbourhood", "safe_sqrt"]


class Neighbourhood(NamedTuple):
    """What every atom sees around it.

    Attributes:
        vectors: [batch, atoms, neighbours, 3], from the atom to its neighbour, Å.
        distances: [batch, atoms, neighbours], Å; 1 where masked, so that no function of them
            fails there, in value or in gradient.
        mask: [batch, atoms, neighbours] bool, true for real neighbours within reach.
        places: [batch, atoms, neighbours] int32, where in the structure the neighbours are; None
            if every atom's neighbours are all atoms in order.
    """

    vectors: tf.Tensor
    distances: tf.Tensor
    mask: tf.Tensor
    places: tf.Tensor | None

    def of_neighbours(self, values: tf.Tensor) -> tf.Tensor:
        """Looks up per-atom `values` [batch, atoms] for the neighbours.

        Returns:
            Broadcasts to [batch, atoms, neighbours]; where masked, some atom's value.
        """
        if self.places is None:
            return values[:, None, :]
        return tf.gather(values, self.places, batch_dims=1)


def safe_sqrt(x: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Square root with value and gradient 0 where x <= 0 (or `mask` is false), never NaN."""
    positive = x > 0 if mask is None else (x > 0) & mask
    # Masked before the root as well as after: XLA evaluates both sides of a `where`, and the
    # infinite slope at 0 times a zero upstream gradient would be NaN.
    root = tf.sqrt(tf.where(positive, x, tf.ones_like(x)))
    return tf.where(positive, root, tf.zeros_like(x))


def neighbourhood(batch: StructureBatch, r_cut: float) -> Neighbourhood:
    """Gathers for each atom the neighbours (all their images) closer than `r_cut`.

    Args:
        batch: the structures; periodic ones bring neighbour lists that reach at least `r_cut`.
        r_cut: Å.

    Returns:
        The neighbourhood; for clusters `neighbours` is `atoms`, for periodic batches the length
        of the longest list.
    """
    positions = batch.positions
    if batch.neighbours is None:
        places = None
        vectors = positions[:, None, :, :] - positions[:, :, None, :]
        other = ~tf.eye(tf.shape(positions)[1], dtype=tf.bool)
        mask = other & batch.mask[:, :, None] & batch.mask[:, None, :]
    else:
        places = tf.maximum(batch.neighbours.index, 0)
        shift = tf.cast(batch.neighbours.shift, positions.dtype)
        vectors = tf.gather(positions, places, batch_dims=1) - positions[:, :, None, :]
        vectors += tf.einsum("bnks,bsx->bnkx", shift, batch.cell)
        mask = batch.neighbours.index >= 0
    squared = tf.reduce_sum(vectors**2, axis=-1)
    mask &= squared < r_cut**2
    distances = tf.where(mask, safe_sqrt(squared, mask), tf.ones_like(squared))
    return Neighbourhood(vectors=vectors, distances=distances, mask=mask, places=places)


def cosine_cutoff(distances: tf.Tensor, r_cut: float) -> tf.Tensor:
    """Cutoff function of Behler and Parrinello, for distances (Å) up to `r_cut`.

    f_c(r) = [cos(π r / r_cut) + 1] / 2

    References:
        J. Behler, J. Chem. Phys. 134, 074106 (2011), eq. 5. DOI 10.1063/1.3553717
    """
    return 0.5 * (tf.cos(distances * (math.pi / r_cut)) + 1.0)
