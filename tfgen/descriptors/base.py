"""The protocol of descriptors: differentiable maps from structures to features of the atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from tfgen.structures.batch import StructureBatch

__all__ = ["Descriptor", "check_structures", "find_mismatch"]


@runtime_checkable
class Descriptor(Protocol):
    """A differentiable map from a batch of structures to features of their atoms.

    Pooling, training and reconstruction need no more than this. The features must not change when
    the structure is translated or rotated, and when its atoms are reordered, they must be reordered
    alike. The configuration must determine all that is computed: from it a descriptor is made again
    when a model is loaded, and fingerprints with descriptors of the same class and configuration
    share what TensorFlow has compiled. `tfgen.testing.check_descriptor` checks all this.

    Two methods are optional. `cheap_part()` returns a descriptor of the first features that costs
    much less, or None; `broad()` returns a descriptor without narrow functions, for networks.

    Attributes:
        species: elements it knows, as chemical symbols.
        r_cut: the cutoff radius, Å, beyond which no atom has influence; the neighbour lists of
            periodic batches hold all neighbours within it.
        size: number of features per atom.
        periodic: whether it uses the neighbour lists of periodic structures. Where it is false or
            missing, periodic structures are refused.
    """

    species: list[str]
    r_cut: float

    @property
    def size(self) -> int:
        """Number of features per atom."""

    def __call__(self, batch: StructureBatch) -> tf.Tensor:
        """Returns [batch, atoms, size] in the dtype of `batch.positions`.

        The rows of padding may hold any finite values. The shape may be unknown when a graph is
        traced.
        """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, JSON-able."""


def check_structures(
    descriptor: Descriptor, structures: Sequence[Atoms], name: str = "structures"
) -> None:
    """Checks that a descriptor can be computed for given structures.

    Raises:
        ValueError: if one has elements that the descriptor does not know, or is periodic and the
            descriptor has no true attribute `periodic`; names the structure.
    """
    known = [atomic_numbers[symbol] for symbol in descriptor.species]
    present = np.unique(np.concatenate([s.numbers for s in structures]))
    periodic = np.array([s.pbc for s in structures]).any()
    if np.isin(present, known).all() and not (periodic and not _is_periodic(descriptor)):
        return
    for i, structure in enumerate(structures):
        if reason := find_mismatch(descriptor, structure):
            raise ValueError(f"{name}[{i}] {reason}")


def find_mismatch(descriptor: Descriptor, structure: Atoms) -> str:
    """Returns why a descriptor cannot be computed for a structure, or "" if it can be."""
    known = [atomic_numbers[symbol] for symbol in descriptor.species]
    unknown = np.setdiff1d(structure.numbers, known)
    if unknown.size:
        return (
            f"holds {', '.join(chemical_symbols[z] for z in unknown)}; the descriptor's species "
            f"are {', '.join(descriptor.species)}"
        )
    if structure.pbc.any() and not _is_periodic(descriptor):
        return "is periodic; the descriptor is for clusters only"
    return ""


def _is_periodic(descriptor: Descriptor) -> bool:
    return bool(getattr(descriptor, "periodic", False))
