"""Losses of many structures against one target fingerprint, and descents along their gradient.

What is compiled is compiled once for each fingerprint and number of atoms. Structures are computed
in pieces that fit into a core's cache, in as many threads as the executor has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen._tensorflow import compiled_for
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.fingerprints.loss import fingerprint_loss
from tfgen.inversion.graph_search import GraphSearch, Lattice, Moments, Problem
from tfgen.inversion.settings import Descent, SearchSettings
from tfgen.structures.batch import StructureBatch

__all__ = ["Goal", "Objective"]

# Sizes of pieces that fit into a core's cache: triples (or pairs) of atoms of all structures, and
# structures.
TRIPLES_IN_CACHE, PAIRS_IN_CACHE, MAX_IN_PIECE = 16_000, 6_000, 8
# Pieces whose losses one call computes; calling costs more than the losses of one piece.
PIECES_PER_CALL = 15


class Goal(NamedTuple):
    """What a search is to find.

    Attributes:
        numbers: [atoms], sorted atomic numbers.
        target: [features], the fingerprint.
        scale: [features], the unit of each feature's error.
        tolerance: loss up to which the goal is reached.
        initial: [n, atoms, 3], Å, structures to begin with; may be empty.
        fixed: [atoms] bool, atoms that stay where the first initial structure has them.
        cell: [3, 3], Å, row vectors.
        pbc: [3] bool.
        seed: of everything that is sampled.
    """

    numbers: np.ndarray
    target: np.ndarray
    scale: np.ndarray
    tolerance: float
    initial: np.ndarray
    fixed: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    seed: tuple[int, ...]

    @property
    def periodic(self) -> bool:
        """Whether the structure is periodic in any direction."""
        return bool(self.pbc.any())

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the positions: (atoms, 3)."""
        return len(self.numbers), 3

    def atoms(self, positions: np.ndarray) -> Atoms:
        """Returns the structure with these positions [atoms, 3], Å."""
        return Atoms(self.numbers, positions=positions, cell=self.cell, pbc=self.pbc)


class Objective:
    """Computes losses of structures against one goal, and descends along their gradient.

    Args:
        fingerprint: the goal's fingerprint, or a part of it.
        goal: what is sought.
        columns: places of the fingerprint's features in the goal's target.
        executor: threads that compute.
        settings: of the search; `jit_compile`, `list_steps` and `list_skin` matter here.
        expired: tells whether the time is up; then only the first piece of a descent is followed.

    Attributes:
        features: number of features that it sees.
        steps: gradients computed so far.
    """

    def __init__(
        self,
        fingerprint: Fingerprint,
        goal: Goal,
        columns: slice | np.ndarray,
        executor: Executor,
        settings: SearchSettings,
        expired: Callable[[], bool] = lambda: False,
    ) -> None:
        self._expired = expired
        self.steps, self.features = 0, fingerprint.size
        self._goal, self._executor, self._settings = goal, executor, settings
        self._triples = fingerprint.triples
        self._reach = fingerprint.descriptor.r_cut + settings.list_skin
        self._compiled = compiled_for(
            fingerprint,
            ("descents", settings.jit_compile),
            lambda: _Compiled(fingerprint, settings.jit_compile),
        )
        self._problem = Problem(
            tf.constant(goal.numbers[None], tf.int32),
            tf.constant(goal.target[columns][None], tf.float32),
            tf.constant(goal.scale[columns], tf.float32),
        )
        self._free = tf.constant(~goal.fixed[:, None], tf.float32)

    def losses(self, positions: np.ndarray) -> np.ndarray:
        """Returns losses [n] of structures [n, atoms, 3], Å; infinite where one is not finite."""
        # The function for many pieces is worth its compilation for more than one piece only.
        if self._goal.periodic or len(positions) <= self._piece_size():
            return self._descend(positions, 0, 0.0)[1]
        return self.errors(positions, fingerprint_loss)

    def errors(
        self, positions: np.ndarray, measure: Callable[[np.ndarray], np.ndarray] = lambda e: e
    ) -> np.ndarray:
        """Returns errors of clusters, or what a function makes of them.

        Args:
            positions: [n, atoms, 3], Å.
            measure: a function of errors [rows, features], in units of the scale, that is applied
                to some structures at a time: the errors of thousands are never held at once. The
                errors of a structure whose positions are not finite are NaN.

        Returns:
            [n, features], or the results of `measure` joined along the first axis.
        """
        piece = self._piece_size()

        def compute(positions: np.ndarray) -> tuple:
            pieces = positions.reshape(-1, piece, *positions.shape[1:])
            found = self._compiled.errors(tf.constant(pieces, tf.float32), self._problem).numpy()
            found = found.reshape(-1, found.shape[-1])
            # An atom at NaN has no neighbours, so that the errors alone would not show it.
            finite = np.isfinite(positions).all(axis=(1, 2))[:, None]
            return (measure(np.where(finite, found, np.nan)),)

        return self._map_pieces(compute, positions, PIECES_PER_CALL * piece)[0]

    def descend(self, positions: np.ndarray, descent: Descent) -> tuple[np.ndarray, np.ndarray]:
        """Follows the gradient by Adam.

        Args:
            positions: [n, atoms, 3], Å.
            descent: number and length of the steps.

        Returns:
            Positions [n, atoms, 3] and losses [n], infinite where a structure is not finite.
        """
        return self._descend(positions, descent.steps, descent.step_length)

    def _descend(
        self, positions: np.ndarray, steps: int, step_length: float
    ) -> tuple[np.ndarray, np.ndarray]:
        self.steps += steps * len(positions)
        follow = self._follow_periodic if self._goal.periodic else self._follow
        run = functools.partial(follow, steps, step_length)
        found, losses = self._map_pieces(run, positions, self._piece_size(), self._give_up)
        return found, losses

    def _give_up(self, start: int, positions: np.ndarray) -> tuple | None:
        """Returns structures as they are where there is no time left for them."""
        if start == 0 or not self._expired():
            return None
        return positions, np.full(len(positions), np.inf, np.float32)

    def _follow(
        self, steps: int, step_length: float, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        x = tf.constant(positions, tf.float32)
        schedule = tf.constant([0.0, steps, steps, step_length])
        x, _, loss = self._compiled.follow(x, self._problem, Moments.zeros(x), schedule, self._free)
        return x.numpy().astype(np.float64), loss.numpy()

    def _follow_periodic(
        self, steps: int, step_length: float, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        x = tf.constant(positions, tf.float32)
        moments = Moments.zeros(x)
        each = self._settings.list_steps
        # The last part has no steps: it sees the neighbours of where the descent ends.
        for start in [*range(0, steps, each), steps]:
            stop = min(start + each, steps)
            schedule = tf.constant([start, stop, steps, step_length], tf.float32)
            x, moments, loss = self._compiled.follow_periodic(
                x, self._problem, moments, schedule, self._free, self._lattice(x.numpy())
            )
        return x.numpy().astype(np.float64), loss.numpy()

    def _lattice(self, positions: np.ndarray) -> Lattice:
        finite = np.nan_to_num(positions, posinf=0.0, neginf=0.0)
        structures = [self._goal.atoms(x) for x in finite]
        batch = StructureBatch.from_ase(structures, r_cut=self._reach, dtype="float32")
        return Lattice(batch.cell, batch.pbc, batch.neighbours)

    def _piece_size(self) -> int:
        atoms = len(self._goal.numbers)
        work = atoms**3 // 2 if self._triples else atoms**2
        limit = TRIPLES_IN_CACHE if self._triples else PAIRS_IN_CACHE
        return int(np.clip(limit // max(work, 1), 1, MAX_IN_PIECE))

    def _map_pieces(
        self,
        run: Callable,
        positions: np.ndarray,
        size: int,
        give_up: Callable[[int, np.ndarray], tuple | None] = lambda *_: None,
    ) -> tuple:
        def run_piece(start: int) -> tuple:
            part = positions[start : start + size]
            if (given_up := give_up(start, part)) is not None:
                return given_up
            # One shape only is compiled: repeats of the last structure fill up the last piece.
            full = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0)), mode="edge")
            return tuple(result[: len(part)] for result in run(full))

        if len(positions) == 0:
            return positions, np.zeros(0)
        parts = list(self._executor.map(run_piece, range(0, len(positions), size)))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


class _Compiled:
    """The compiled functions of a fingerprint, shared by all fingerprints equal to it.

    Attributes:
        follow: `GraphSearch.follow`, of clusters.
        follow_periodic: the same, of periodic structures. The lengths of their neighbour lists
            change all the time, and XLA would compile each again.
        errors: errors [pieces, n, features] of clusters [pieces, n, atoms, 3].
    """

    def __init__(self, fingerprint: Fingerprint, jit_compile: bool) -> None:
        graph = GraphSearch(fingerprint)

        def errors(pieces: tf.Tensor, problem: Problem) -> tf.Tensor:
            return tf.map_fn(lambda positions: graph.errors(positions, problem), pieces)

        self.follow = tf.function(graph.follow, jit_compile=jit_compile, autograph=False)
        self.errors = tf.function(errors, jit_compile=jit_compile, autograph=False)
        self.follow_periodic = tf.function(graph.follow, reduce_retracing=True, autograph=False)
