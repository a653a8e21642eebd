"""The structures on which descriptors and fingerprints are checked, and how results compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from tfgen.sampling.initial import random_structures
from tfgen.structures.batch import StructureBatch

__all__ = ["EXACT", "SINGLE", "SLOPE", "Subject", "degenerate", "require"]

# Errors are measured in units of each feature's largest value over the structures.
EXACT = 1e-8  # for what is equal in exact arithmetic, computed in float64
SINGLE = 1e-3  # for float32 against float64
SLOPE = 1e-6  # for gradients against finite differences, in units of the largest component
# The unit is at least this share of that of the largest feature (in float32, SINGLE): the errors of
# smaller features are those of rounding.
FLOOR = 1e-6


def require(condition: Any, message: str) -> None:
    """Raises AssertionError with the message if the condition does not hold."""
    # No `assert`: under `python -O` it would check nothing.
    if not condition:
        raise AssertionError(message)


class Subject:
    """A descriptor or fingerprint that is checked, and the structures it is checked on."""

    def __init__(self, call: Any, descriptor: Any, given: list[Atoms], seed: int) -> None:
        self.call, self.descriptor = call, descriptor
        self.pooled = call is not descriptor
        self.r_cut = float(descriptor.r_cut)
        self.rng = np.random.default_rng(seed)
        self.species = [chemical_symbols.index(symbol) for symbol in descriptor.species]
        # Atoms out of reach of each other would show nothing.
        radii = covalent_radii[self.species]
        self.shrink = min(1.0, 0.6 * self.r_cut / (2.0 * float(radii.max())))
        self.clusters = [s for s in given if not s.pbc.any()] or [
            self.cluster(n) for n in (5, 1, 3, 8, 2)
        ]
        self.crystals: list[Atoms] = []
        if getattr(descriptor, "periodic", False):
            self.crystals = [s for s in given if s.pbc.any()] or [
                self.crystal(3, [True, True, True]),
                self.crystal(2, [True, False, True]),
            ]
        self.structures = self.clusters + self.crystals
        # With most pairs of atoms further apart than the cutoff.
        self.spread = [self.scattered(7) for _ in range(3)]
        sample = np.concatenate(self.rows(self.structures + self.spread))
        size = np.abs(sample).max(axis=0, initial=0.0)
        require(np.isfinite(size).all(), "features of random structures are not finite")
        self.scale = np.maximum(size, max(FLOOR * size.max(), np.finfo(float).tiny))
        self.coarse = np.maximum(self.scale, SINGLE * self.scale.max())

    def numbers(self, n: int) -> np.ndarray:
        """Samples n atomic numbers, each element at least once if n allows it."""
        return self.rng.permutation(np.resize(self.rng.permutation(self.species), n))

    def cluster(self, n: int) -> Atoms:
        numbers = self.numbers(n)
        return Atoms(numbers, positions=random_structures(numbers, 1, self.rng)[0] * self.shrink)

    def crystal(self, n: int, pbc: list[bool]) -> Atoms:
        """Makes a skewed cell that is smaller than the cutoff: atoms are their own neighbours."""
        atoms = self.cluster(n)
        atoms.cell = 0.8 * self.r_cut * (np.eye(3) + self.rng.uniform(-0.15, 0.15, size=(3, 3)))
        atoms.pbc = pbc
        return atoms

    def scattered(self, n: int) -> Atoms:
        positions = np.zeros([1, 3])
        while len(positions) < n:
            new = self.rng.uniform(0.0, 1.6, size=3) * self.r_cut
            if np.linalg.norm(positions - new, axis=1).min() > 0.2 * self.r_cut:
                positions = np.vstack([positions, new])
        return Atoms(self.numbers(n), positions)

    def batch(
        self, structures: Sequence[Atoms], dtype: str = "float64", atoms: int | None = None
    ) -> StructureBatch:
        return StructureBatch.from_ase(structures, r_cut=self.r_cut, atoms=atoms, dtype=dtype)

    def rows(self, structures: Sequence[Atoms], **options: Any) -> list[np.ndarray]:
        """Computes features: [atoms, size] for each structure, [1, size] of a fingerprint."""
        return self.unpack(self.call(self.batch(structures, **options)), structures)

    def unpack(self, features: Any, structures: Sequence[Atoms]) -> list[np.ndarray]:
        array = np.asarray(features, np.float64)
        wanted = (len(structures), *(() if self.pooled else array.shape[1:2]), self.call.size)
        require(array.shape == wanted, f"the result has shape {array.shape}, not {wanted}")
        if self.pooled:
            return list(array[:, None, :])
        return [a[: len(s)] for a, s in zip(array, structures, strict=True)]

    def equal(
        self,
        found: Sequence[np.ndarray],
        wanted: Sequence[np.ndarray],
        structures: Sequence[Atoms],
        change: str,
        tolerance: float = EXACT,
    ) -> None:
        """Requires that features are the same; `change` says in the message what was done."""
        unit = self.scale if tolerance < SINGLE else self.coarse
        for one, two, structure in zip(found, wanted, structures, strict=True):
            error = np.abs(one - two) / unit
            if not (error <= tolerance).all():
                atom, feature = np.unravel_index(np.argmax(error), error.shape)
                of_atom = "" if self.pooled else f" of atom {atom}"
                raise AssertionError(
                    f"{change}, feature {feature}{of_atom} of {structure.get_chemical_formula()} "
                    f"is {one[atom, feature]:.9g}, not {two[atom, feature]:.9g}; the error, in "
                    f"units of the feature's largest value, is {error.max():.1e}, and "
                    f"{tolerance:.0e} is allowed"
                )

    def value_and_gradient(self, batch: StructureBatch, weights: tf.Tensor) -> tuple:
        """Computes features, and the gradient of their weighted sum by the positions."""
        with tf.GradientTape() as tape:
            tape.watch(batch.positions)
            features = self.call(batch)
            seen = features
            if not self.pooled:
                # Rows of padding may be anything, but must not spoil the gradient.
                seen = tf.where(batch.mask[..., None], features, tf.zeros_like(features))
            value = tf.reduce_sum(seen * tf.cast(weights, features.dtype))
        gradient = tape.gradient(value, batch.positions)
        require(gradient is not None, "no gradient reaches the positions")
        return features, gradient


def degenerate(subject: Subject) -> list[Atoms]:
    d = 2.0 * float(covalent_radii[subject.species].mean()) * subject.shrink
    x, y, z = np.eye(3) * d
    o = np.zeros(3)
    shapes = {
        "a lone atom": [x],
        "two atoms in one place": [x, x],
        "two atoms in one place and a third": [o, o, x],
        "three atoms in one place": [y, y, y],
        "atoms on a line": [o, x, -x, 2 * x],
        "atoms on a diagonal": [o, (x + y + z) / 2, -(x + y + z) / 2],
        "a square": [o, x, y, x + y],
        "an atom on the cutoff": [o, subject.r_cut * np.array([1.0, 0.0, 0.0])],
        "an atom beyond the cutoff": [o, 3.0 * subject.r_cut * np.array([1.0, 0.0, 0.0])],
    }
    return [
        Atoms(np.resize(subject.species, len(p)), p, info={"shape": s}) for s, p in shapes.items()
    ]
