"""What a potential is: a differentiable map from structures to energies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import tensorflow as tf
from ase import Atoms

from tfgen.structures import StructureBatch

__all__ = ["Potential", "compiled", "energy_and_forces"]


@runtime_checkable
class Potential(Protocol):
    """Anything that maps a batch of structures to energies, differentiably.

    Attributes:
        r_cut: how far an atom feels, Å; periodic batches get neighbour lists of this reach.
    """

    r_cut: float

    def energies(self, batch: StructureBatch) -> tf.Tensor:
        """Returns [batch], eV, in the dtype of `batch.positions`."""

    def check(self, structures: Sequence[Atoms]) -> None:
        """Raises ValueError if the potential does not know an element."""

    def compute(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Returns "energy" [structures], eV, and "forces", a list of [atoms, 3], eV/Å."""


def energy_and_forces(potential: Potential, batch: StructureBatch) -> tuple[tf.Tensor, tf.Tensor]:
    """Evaluates energies [batch], eV, and forces [batch, atoms, 3] = -∂E/∂positions, eV/Å."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(batch.positions)
        energy = potential.energies(batch)
    return energy, -tape.gradient(energy, batch.positions)


@functools.lru_cache(maxsize=8)
def compiled(potential: Any) -> Callable[[StructureBatch], tuple[tf.Tensor, tf.Tensor]]:
    """Returns `energy_and_forces` of a hashable potential as one graph, shared by equal ones."""
    function = functools.partial(energy_and_forces, potential)
    return tf.function(function, reduce_retracing=True, autograph=False)
