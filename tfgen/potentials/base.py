"""What a potential is: a differentiable map from structures to energies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import tensorflow as tf
from ase import Atoms

from tfgen._tensorflow import compiled_for
from tfgen.structures.batch import StructureBatch

__all__ = [
    "Potential",
    "compiled",
    "differentiated",
    "energy_and_forces",
    "energy_forces_and_stress",
]


@runtime_checkable
class Potential(Protocol):
    """Anything that maps a batch of structures to energies, differentiably.

    A potential that knows its forces in closed form may have a method `energy_and_forces(batch)`
    that returns them with the energies; without it they come from differentiation.

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
    """Evaluates energies [batch], eV, and forces [batch, atoms, 3] = -∂E/∂positions, eV/Å.

    Uses the potential's own `energy_and_forces` if it has one.
    """
    own = getattr(potential, "energy_and_forces", None)
    return differentiated(potential, batch) if own is None else own(batch)


def differentiated(potential: Potential, batch: StructureBatch) -> tuple[tf.Tensor, tf.Tensor]:
    """Evaluates energies [batch], eV, and forces [batch, atoms, 3], eV/Å, by differentiation."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(batch.positions)
        energy = potential.energies(batch)
    return energy, -tape.gradient(energy, batch.positions)


def energy_forces_and_stress(
    potential: Potential, batch: StructureBatch
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Evaluates energies, forces and stresses by one differentiation.

    Positions and cell vectors x are strained, x (1 + ε), and

    σ = 1/V ∂E/∂ε at ε = 0, symmetrised (positive where the cell wants to shrink, as in ASE).

    Returns:
        [batch], eV; [batch, atoms, 3], eV/Å; [batch, 3, 3], eV/Å³, not finite for structures
        whose cell has no volume.
    """
    strain = tf.zeros_like(batch.cell)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([batch.positions, strain])
        deformation = tf.eye(3, dtype=strain.dtype) + strain
        energy = potential.energies(
            batch._replace(
                positions=tf.matmul(batch.positions, deformation),
                cell=tf.matmul(batch.cell, deformation),
            )
        )
    gradient, virial = tape.gradient(energy, [batch.positions, strain])
    volume = tf.abs(tf.linalg.det(batch.cell))[:, None, None]
    return energy, -gradient, 0.5 * (virial + tf.linalg.matrix_transpose(virial)) / volume


def compiled(potential: Any, stress: bool = False) -> Callable[[StructureBatch], tuple]:
    """Returns `energy_and_forces` of a hashable potential as one graph, shared by equal ones.

    Args:
        potential: the potential.
        stress: `energy_forces_and_stress` instead.
    """
    evaluate = energy_forces_and_stress if stress else energy_and_forces
    function = functools.partial(evaluate, potential)
    return compiled_for(
        potential,
        evaluate.__name__,
        lambda: tf.function(function, reduce_retracing=True, autograph=False),
    )
