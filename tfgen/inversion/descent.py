"""Losses of many structures against one target fingerprint, and descents along their gradient.

Compiled once for each fingerprint and number of atoms; in pieces that stay in a core's cache, in
as many threads as are given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.graph_search import Inverter, Lattice, Moments, Problem
from tfgen.structures.batch import StructureBatch

__all__ = ["Goal", "Loss"]

# Sizes of pieces that stay in a core's cache: triples (pairs) of atoms of all its structures, and
# structures.
TRIPLES_IN_CACHE, PAIRS_IN_CACHE, MOST_IN_PIECE = 16_000, 6_000, 8
# Pieces whose losses are computed by one call, which costs more than the losses of one piece.
PIECES_A_LOOK = 15
# Whether XLA compiles the descents of clusters, which takes seconds for each number of atoms.
COMPILE = True
# Steps between two looks for neighbours across cell borders, and what they may move meanwhile, Å.
STEPS_BETWEEN_LISTS, SKIN = 10, 1.0


class Goal(NamedTuple):
    """What is sought.

    Attributes:
        numbers: [atoms], sorted atomic numbers.
        target: [features], the fingerprint.
        scale: [features], the unit of each feature's error.
        tolerance: loss under which the goal is reached.
        starts: [starts, atoms, 3], Å, structures to begin with; may be empty.
        fixed: [atoms] bool, atoms that stay where the first start has them.
        cell: [3, 3], Å, row vectors.
        pbc: [3] bool.
        seed: of all random draws.
    """

    numbers: np.ndarray
    target: np.ndarray
    scale: np.ndarray
    tolerance: float
    starts: np.ndarray
    fixed: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    seed: tuple[int, ...]

    @property
    def periodic(self) -> bool:
        """Whether it is periodic in any direction."""
        return bool(self.pbc.any())

    @property
    def shape(self) -> tuple[int, int]:
        """Of the positions: atoms, 3."""
        return len(self.numbers), 3


class Loss:
    """Losses of many structures against one goal, and descents along their gradient.

    Args:
        fingerprint: of the structures, or a part of it.
        goal: what is sought.
        columns: the places of its features in the goal's target.
        pool: threads that compute.

    Attributes:
        features: how many of the goal's it sees.
        steps: gradients computed so far.
    """

    def __init__(
        self, fingerprint: Fingerprint, goal: Goal, columns: slice | np.ndarray, pool: Executor
    ) -> None:
        self.steps, self.features = 0, fingerprint.size
        self._goal, self._pool, self._descents = goal, pool, _descents(fingerprint)
        self._problem = Problem(
            tf.constant(goal.numbers[None], tf.int32),
            tf.constant(goal.target[columns][None], tf.float32),
            tf.constant(goal.scale[columns], tf.float32),
        )
        self._free = tf.constant(~goal.fixed[:, None], tf.float32)

    def of(self, positions: np.ndarray) -> np.ndarray:
        """Losses [n] of structures [n, atoms, 3], Å; infinite where one is not whole."""
        # A handful is not worth the compilation of a look.
        if self._goal.periodic or len(positions) <= self._piece():
            return self.descend(positions, 0, 0.0)[1]
        return self.errors(positions, _mean)

    def errors(
        self, positions: np.ndarray, measure: Callable[[np.ndarray], np.ndarray] = lambda e: e
    ) -> np.ndarray:
        """What is made of the errors [n, features], in units of the scale, of clusters.

        Args:
            positions: [n, atoms, 3], Å.
            measure: of some rows at a time, so that those of many structures are never held at
                once. The errors of a structure that is not whole are not finite.
        """
        piece = self._piece()

        def look(positions: np.ndarray) -> tuple:
            pieces = positions.reshape(-1, piece, *positions.shape[1:])
            found = self._descents.errors(self._problem, pieces)
            found = found.reshape(-1, found.shape[-1])
            # An atom that is nowhere (NaN) is nobody's neighbour: its errors alone would not show.
            whole = np.isfinite(positions).all(axis=(1, 2))[:, None]
            return (measure(np.where(whole, found, np.nan)),)

        return self._in_pieces(look, positions, PIECES_A_LOOK * piece)[0]

    def descend(self, positions: np.ndarray, steps: int, rate: float) -> tuple:
        """Follows the gradient by Adam.

        Args:
            positions: [n, atoms, 3], Å.
            steps: their number.
            rate: first step length, Å; falls to 0 as a parabola.

        Returns:
            Positions [n, atoms, 3] and losses [n], infinite where a structure is not whole.
        """
        self.steps += steps * len(positions)
        run = functools.partial(
            self._descents.descend, self._goal, self._problem, self._free, steps, rate
        )
        return self._in_pieces(run, positions, self._piece())

    def _piece(self) -> int:
        atoms = len(self._goal.numbers)
        work = atoms**3 // 2 if self._descents.triples else atoms**2
        limit = TRIPLES_IN_CACHE if self._descents.triples else PAIRS_IN_CACHE
        return int(np.clip(limit // max(work, 1), 1, MOST_IN_PIECE))

    def _in_pieces(self, run: Callable, positions: np.ndarray, size: int) -> tuple:
        def one(start: int) -> tuple:
            part = positions[start : start + size]
            # One shape only is compiled: repeats of the last structure fill up the last piece.
            full = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0)), mode="edge")
            return tuple(result[: len(part)] for result in run(full))

        if len(positions) == 0:
            return positions, np.zeros(0)
        parts = list(self._pool.map(one, range(0, len(positions), size)))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _mean(errors: np.ndarray) -> np.ndarray:
    loss = np.abs(errors).mean(axis=1)
    return np.where(np.isfinite(loss), loss, np.inf)


class _Descents:
    """The compiled functions of a fingerprint."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        self._inverter = Inverter(fingerprint)
        self._reach = fingerprint.descriptor.r_cut + SKIN
        self.triples = fingerprint.triples
        follow = self._inverter.follow
        self._follow = tf.function(follow, jit_compile=COMPILE, autograph=False)
        self._errors = tf.function(self._piecewise, jit_compile=COMPILE, autograph=False)
        # Lengths of neighbour lists change all the time: XLA would compile without end.
        self._follow_periodic = tf.function(follow, reduce_retracing=True, autograph=False)

    def descend(
        self,
        goal: Goal,
        problem: Problem,
        free: tf.Tensor,
        steps: int,
        rate: float,
        positions: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        x = tf.constant(positions, tf.float32)
        moments = Moments.at_start(x)
        if not goal.periodic:
            schedule = tf.constant([0.0, steps, steps, rate])
            x, _, loss = self._follow(x, problem, moments, schedule, free)
            return x.numpy().astype(np.float64), loss.numpy()
        # The last part has no steps: it sees the neighbours of where the descent ends.
        for start in [*range(0, steps, STEPS_BETWEEN_LISTS), steps]:
            stop = min(start + STEPS_BETWEEN_LISTS, steps)
            schedule = tf.constant([start, stop, steps, rate], tf.float32)
            lattice = self._lattice(goal, x.numpy())
            x, moments, loss = self._follow_periodic(x, problem, moments, schedule, free, lattice)
        return x.numpy().astype(np.float64), loss.numpy()

    def errors(self, problem: Problem, pieces: np.ndarray) -> np.ndarray:
        """Errors [pieces, n, features] of clusters [pieces, n, atoms, 3]."""
        return self._errors(tf.constant(pieces, tf.float32), problem).numpy()

    def _piecewise(self, pieces: tf.Tensor, problem: Problem) -> tf.Tensor:
        def of_piece(positions: tf.Tensor) -> tf.Tensor:
            return self._inverter.errors(positions, problem)

        return tf.map_fn(of_piece, pieces)

    def _lattice(self, goal: Goal, positions: np.ndarray) -> Lattice:
        finite = np.nan_to_num(positions, posinf=0.0, neginf=0.0)
        structures = [
            Atoms(goal.numbers, positions=x, cell=goal.cell, pbc=goal.pbc) for x in finite
        ]
        batch = StructureBatch.from_ase(structures, r_cut=self._reach, dtype="float32")
        return Lattice(batch.cell, batch.pbc, batch.neighbours)


@functools.lru_cache(maxsize=8)
def _descents(fingerprint: Fingerprint) -> _Descents:
    """Compiled once per fingerprint (and by TensorFlow, per shape)."""
    return _Descents(fingerprint)
