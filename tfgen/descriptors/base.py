"""What a descriptor is: a differentiable map from structures to per-atom features."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import tensorflow as tf

from tfgen.structures import StructureBatch

__all__ = ["Descriptor"]


@runtime_checkable
class Descriptor(Protocol):
    """Anything that maps a batch of structures to per-atom features, differentiably.

    Pooling, training and reconstruction need no more than this. The map must not depend on where
    the structure is, how it is turned, or on the order of atoms (rows follow the atoms).

    Attributes:
        species: elements it knows, as chemical symbols.
        r_cut: how far an atom sees, Å; periodic batches get neighbour lists of this reach.
        size: number of features per atom.
    """

    species: list[str]
    r_cut: float

    @property
    def size(self) -> int:
        """Number of features per atom."""

    def __call__(self, batch: StructureBatch) -> tf.Tensor:
        """Returns [batch, atoms, size] in the dtype of `batch.positions`; any value at padding."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, JSON-able."""
