"""Random structures for one goal, and moves of structures."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from tfgen.inversion.descent import Goal
from tfgen.inversion.settings import ProposalMoves
from tfgen.sampling.initial import random_structures
from tfgen.sampling.moves import propose, relocations
from tfgen.sampling.sites import separate

__all__ = ["Sampler"]


class Sampler:
    """Samples structures of a goal's composition, [n, atoms, 3], Å.

    Args:
        goal: what is sought.
        rng: the source of all randomness.
        settings: of the moves.
    """

    def __init__(
        self,
        goal: Goal,
        rng: np.random.Generator,
        settings: ProposalMoves = ProposalMoves(),
    ) -> None:
        self._goal, self._rng, self._settings = goal, rng, settings

    def sample(self, count: int) -> np.ndarray:
        """Samples random structures; in cells, with atoms anywhere.

        Args:
            count: number of structures.

        Returns:
            [count, atoms, 3], Å, with fixed atoms in their places.
        """
        if self._goal.periodic:
            box = self._box()
            x = self._rng.random([count, *self._goal.shape]) @ box
            if len(self._goal.initial):  # a slab may lie anywhere along its open direction
                low = (self._goal.initial[0] @ np.linalg.inv(box)).min(axis=0)
                x += np.where(self._goal.pbc, 0.0, low) @ box
        else:
            x = np.asarray(random_structures(self._goal.numbers, count, self._rng))
            if self._goal.fixed.any():
                x += self._goal.initial[0].mean(axis=0)
        return self.restore_fixed(x)

    def flatten(self, x: np.ndarray) -> np.ndarray:
        """Scales clusters along each axis by a random factor, often to almost nothing.

        Args:
            x: [n, atoms, 3], Å, clusters without fixed atoms.

        Returns:
            [n, atoms, 3], Å: sheets, rods and anything between these and the original shape.
        """
        flat = x * self._rng.random([len(x), 1, 3]) ** 4
        return separate(flat, self._goal.numbers, 0.95)

    def move(self, x: np.ndarray) -> np.ndarray:
        """Changes each of the structures [n, atoms, 3], Å, by a random move; fixed atoms stay."""
        if self._goal.periodic or self._goal.fixed.any():
            return self.restore_fixed(self._move_in_place(x))
        several = len(np.unique(self._goal.numbers)) > 1
        return propose(
            x,
            self._goal.numbers,
            len(x),
            self._rng,
            moves=self._settings.weights.names(several),
            min_distance=self._settings.min_distance,
        )

    def relocate(self, x: np.ndarray) -> np.ndarray:
        """Puts each free atom of a cluster [atoms, 3], Å, into each of the places beside it.

        Returns:
            [n, atoms, 3], Å, each the cluster but for one atom.
        """
        free = np.flatnonzero(~self._goal.fixed)
        offered = max(1, min(self._settings.places, self._settings.max_relocations // len(free)))
        return relocations(x, self._goal.numbers, free, offered, self._rng)

    def restore_fixed(self, x: np.ndarray) -> np.ndarray:
        """Returns the structures [..., atoms, 3], Å, with the fixed atoms in their places."""
        if not self._goal.fixed.any():
            return x
        return np.where(self._goal.fixed[:, None], self._goal.initial[0], x)

    def _box(self) -> np.ndarray:
        """Returns a cell whose open directions span the initial or an average random structure."""
        goal = self._goal
        size = 2.0 * (covalent_radii[goal.numbers] ** 3).sum() ** (1 / 3)
        box = Atoms(cell=goal.cell, pbc=goal.pbc).cell.complete().array.copy()
        for axis in np.flatnonzero(~goal.pbc):
            extent = np.ptp(goal.initial[0], axis=0).max() if len(goal.initial) else size
            extent = max(extent, 1.0)  # a flat structure has none
            box[axis] *= extent / np.linalg.norm(box[axis])
        return box

    def _move_in_place(self, x: np.ndarray) -> np.ndarray:
        """Rattles structures, relocates or exchanges atoms, without turning or shifting the whole.

        Structures with fixed atoms and periodic ones must keep their orientation.
        """
        rng, (n, atoms) = self._rng, x.shape[:2]
        free = np.flatnonzero(~self._goal.fixed)
        rows = np.arange(n)
        rattled = x + rng.uniform(0.1, 0.5, [n, 1, 1]) * rng.normal(size=x.shape)
        one = rng.choice(free, size=n)
        host, other = rng.integers(atoms, size=n), rng.choice(free, size=n)
        outward = rng.normal(size=[n, 3])
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        radii = covalent_radii[self._goal.numbers]
        relocated = x.copy()
        relocated[rows, one] = x[rows, host] + outward * (radii[one] + radii[host])[:, None]
        exchanged = x.copy()
        exchanged[rows, one], exchanged[rows, other] = x[rows, other], x[rows, one]
        numbers = self._goal.numbers
        unlike = numbers[one] != numbers[other]
        kind = rng.integers(3, size=[n])
        kind[(kind == 2) & ~unlike] = 1
        return np.choose(kind[:, None, None], [rattled, relocated, exchanged])
