"""What a descriptor is: a differentiable map from structures to per-atom features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from tfgen.structures.batch import StructureBatch

__all__ = ["Descriptor", "check_structures"]


@runtime_checkable
class Descriptor(Protocol):
    """Anything that maps a batch of structures to per-atom features, differentiably.

    Pooling, training and reconstruction need no more than this. The map must not depend on where
    the structure is, how it is turned, or on the order of atoms (rows follow the atoms), and it
    is made anew from its configuration: what else it holds is not saved with a model.
    `tfgen.testing.descriptors.check_descriptor` checks all that is expected of it.

    Attributes:
        species: elements it knows, as chemical symbols.
        r_cut: how far an atom sees, Å; periodic batches get neighbour lists of this reach.
        size: number of features per atom.
        periodic: whether it uses the neighbour lists of periodic structures; such are refused
            if it is false, or left out.
    """

    species: list[str]
    r_cut: float

    @property
    def size(self) -> int:
        """Number of features per atom."""

    def __call__(self, batch: StructureBatch) -> tf.Tensor:
        """Returns [batch, atoms, size] in the dtype of `batch.positions`.

        Where padded any finite value will do; the shape may be unknown when a graph is traced.
        """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, JSON-able."""


def check_structures(
    descriptor: Descriptor, structures: Sequence[Atoms], name: str = "structures"
) -> None:
    """Checks that structures are such as a descriptor is made for.

    Raises:
        ValueError: if one has elements that the descriptor does not know, or is periodic and the
            descriptor has no true attribute `periodic`; names the structure.
    """
    known = [atomic_numbers[symbol] for symbol in descriptor.species]
    present = np.unique(np.concatenate([s.numbers for s in structures]))
    unknown = np.setdiff1d(present, known)
    if unknown.size:
        i = next(i for i, s in enumerate(structures) if np.isin(s.numbers, unknown).any())
        held = np.intersect1d(structures[i].numbers, unknown)
        raise ValueError(
            f"{name}[{i}] holds {', '.join(chemical_symbols[z] for z in held)}; the descriptor's "
            f"species are {', '.join(descriptor.species)}"
        )
    if not getattr(descriptor, "periodic", False):
        periodic = np.array([s.pbc for s in structures]).any(axis=1)
        if periodic.any():
            raise ValueError(
                f"{name}[{periodic.argmax()}] is periodic; the descriptor was made with "
                "periodic=False"
            )
