"""Random structures for one goal, and moves of structures."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from tfgen.inversion.descent import Goal
from tfgen.sampling.initial import random_structures
from tfgen.sampling.moves import propose, relocations
from tfgen.sampling.sites import separate

__all__ = ["Draws"]

# Moves and their weights: relocations find most, the rest what they cannot.
MOVES = ("relocate", "relocate", "relocate", "splice", "twist", "rattle")
# Places offered to every single atom of a candidate, and most structures that come of it.
PLACES, RELOCATIONS = 75, 3000


class Draws:
    """Draws structures of a goal's composition, [n, atoms, 3], Å.

    Args:
        goal: what is sought.
        rng: the source of all randomness.
    """

    def __init__(self, goal: Goal, rng: np.random.Generator) -> None:
        self._goal, self._rng = goal, rng

    def drawn(self, count: int) -> np.ndarray:
        """So many packings; in cells, atoms anywhere. Fixed atoms are where they belong."""
        if self._goal.periodic:
            box = self._box()
            x = self._rng.random([count, *self._goal.shape]) @ box
            if len(self._goal.starts):  # a slab may lie anywhere along its open direction
                low = (self._goal.starts[0] @ np.linalg.inv(box)).min(axis=0)
                x += np.where(self._goal.pbc, 0.0, low) @ box
        else:
            x = np.asarray(random_structures(self._goal.numbers, count, self._rng))
            if self._goal.fixed.any():
                x += self._goal.starts[0].mean(axis=0)
        return self.held(x)

    def pressed(self, x: np.ndarray) -> np.ndarray:
        """Clusters x, no atom fixed, along each axis by any factor, often to next to nothing."""
        flat = x * self._rng.random([len(x), 1, 3]) ** 4
        return separate(flat, self._goal.numbers, 0.95)

    def moved(self, x: np.ndarray) -> np.ndarray:
        """Each of x by a move drawn at random; fixed atoms stay."""
        if self._goal.periodic or self._goal.fixed.any():
            return self.held(self._moved_in_place(x))
        moves = list(MOVES)
        if len(np.unique(self._goal.numbers)) > 1:
            moves += ["exchange"] * 4
        return propose(x, self._goal.numbers, len(x), self._rng, moves=moves, min_distance=0.75)

    def relocated(self, x: np.ndarray) -> np.ndarray:
        """Each free atom of a cluster x [atoms, 3], Å, at each of the places beside it."""
        free = np.flatnonzero(~self._goal.fixed)
        offered = max(1, min(PLACES, RELOCATIONS // len(free)))
        return relocations(x, self._goal.numbers, free, offered, self._rng)

    def held(self, x: np.ndarray) -> np.ndarray:
        """Structures x with fixed atoms where they belong."""
        if not self._goal.fixed.any():
            return x
        return np.where(self._goal.fixed[:, None], self._goal.starts[0], x)

    def _box(self) -> np.ndarray:
        """Cell vectors; along open directions the extent of the starts, or of a packing."""
        goal = self._goal
        size = 2.0 * (covalent_radii[goal.numbers] ** 3).sum() ** (1 / 3)
        box = Atoms(cell=goal.cell, pbc=goal.pbc).cell.complete().array.copy()
        for axis in np.flatnonzero(~goal.pbc):
            extent = np.ptp(goal.starts[0], axis=0).max() if len(goal.starts) else size
            extent = max(extent, 1.0)  # of a flat start
            box[axis] *= extent / np.linalg.norm(box[axis])
        return box

    def _moved_in_place(self, x: np.ndarray) -> np.ndarray:
        """Rattles, relocates or exchanges atoms; the frame stays, as what is fixed or periodic."""
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
