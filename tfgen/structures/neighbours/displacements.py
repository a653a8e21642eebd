"""Displacements, distances and cutoff functions: differentiable, safe at r = 0, periodic or not.

Descriptors and potentials of TensorFlow get periodic images here, by the lists that a batch brings
along (`neighbour_lists` makes them).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from tfgen.structures.batch import StructureBatch

__all__ = ["Neighbourhood", "check_batch", "cosine_cutoff", "neighbourhood", "safe_sqrt"]


class Neighbourhood(NamedTuple):
    """The neighbours of every atom.

    Attributes:
        vectors: [batch, atoms, neighbours, 3], from the atom to its neighbour, Å.
        distances: [batch, atoms, neighbours], Å; 1 where masked, so that no function of them
            fails there, in value or in gradient.
        mask: [batch, atoms, neighbours] bool, true for real neighbours within the cutoff.
        places: [batch, atoms, neighbours] int32, which atoms of the structure the neighbours are
            images of; None if the neighbours of every atom are all atoms in order.
    """

    vectors: tf.Tensor
    distances: tf.Tensor
    mask: tf.Tensor
    places: tf.Tensor | None

    def of_neighbours(self, values: tf.Tensor) -> tf.Tensor:
        """Looks up per-atom `values` [batch, atoms] for the neighbours.

        Returns:
            A tensor that broadcasts to [batch, atoms, neighbours]; where masked, the value of some
            atom.
        """
        if self.places is None:
            return values[:, None, :]
        return tf.gather(values, self.places, batch_dims=1)


def safe_sqrt(x: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Computes a square root whose value and gradient are 0 where x <= 0 or `mask` is false."""
    positive = x > 0 if mask is None else (x > 0) & mask
    # Masked before the root as well as after: XLA evaluates both sides of a `where`, and the
    # infinite slope at 0 times a zero upstream gradient would be NaN.
    root = tf.sqrt(tf.where(positive, x, tf.ones_like(x)))
    return tf.where(positive, root, tf.zeros_like(x))


def check_batch(batch: StructureBatch) -> None:
    """Checks that the tensors of a batch fit together, as far as their shapes are known.

    In a graph it costs nothing, as it runs while the graph is traced.

    Raises:
        ValueError: on anything but a `StructureBatch`, a wrong rank, sizes that differ between
            tensors, or a wrong dtype; names the tensor, its shape or dtype, and what is needed.
    """
    if not isinstance(batch, StructureBatch):
        raise ValueError(f"batch is a {type(batch).__name__}; a StructureBatch is needed")
    dtype = tf.as_dtype(batch.positions.dtype)
    if dtype not in (tf.float32, tf.float64):
        raise ValueError(f"positions are {dtype.name}; float32 or float64 is needed")
    parts: list[tuple[str, Any, tuple[str | int, ...], tf.DType | None]] = [
        ("positions", batch.positions, ("batch", "atoms", 3), dtype),
        ("numbers", batch.numbers, ("batch", "atoms"), tf.int32),
        ("cell", batch.cell, ("batch", 3, 3), dtype),
        ("pbc", batch.pbc, ("batch", 3), tf.bool),
    ]
    if batch.neighbours is not None:
        index, shift = batch.neighbours
        parts += [
            ("neighbours.index", index, ("batch", "atoms", "neighbours"), tf.int32),
            ("neighbours.shift", shift, ("batch", "atoms", "neighbours", 3), None),
        ]
    sizes: dict[str | int, int] = {3: 3}
    for name, tensor, axes, wanted in parts:
        shape, found = tf.TensorShape(tensor.shape), tf.as_dtype(tensor.dtype)
        if wanted is not None and found != wanted:
            raise ValueError(f"{name} is {found.name}; {wanted.name} is needed")
        if shape.rank is None:
            continue
        fits = shape.rank == len(axes)
        if fits:
            for size, axis in zip(shape, axes, strict=True):
                fits &= size is None or size == sizes.setdefault(axis, size)
        if not fits:
            needed = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
            raise ValueError(f"{name} has shape {shape}; [{needed}] is needed")


def neighbourhood(batch: StructureBatch, r_cut: float) -> Neighbourhood:
    """Gathers for each atom the neighbours (all their images) closer than `r_cut`.

    Args:
        batch: the structures; periodic ones bring neighbour lists that reach at least `r_cut`.
        r_cut: Å.

    Returns:
        The neighbourhood; for clusters `neighbours` is `atoms`, for periodic batches the length
        of the longest list.

    Raises:
        ValueError: if the tensors of the batch do not fit together.
    """
    check_batch(batch)
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
    """Computes the cutoff function of Behler and Parrinello, for distances (Å) up to `r_cut`.

    f_c(r) = [cos(π r / r_cut) + 1] / 2 = cos²(π r / 2 r_cut)

    The cosine is summed as its series up to x²⁰, which is exact to the last bit for x <= π/2:
    XLA calls a function for each cosine, which is ten times slower.

    References:
        J. Behler, J. Chem. Phys. 134, 074106 (2011), eq. 5. DOI 10.1063/1.3553717
    """
    squared = (distances * (0.5 * math.pi / r_cut)) ** 2
    cosine = tf.zeros_like(distances)
    for k in range(10, -1, -1):
        cosine = cosine * squared + (-1) ** k / math.factorial(2 * k)
    return cosine**2
