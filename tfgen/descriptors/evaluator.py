"""Evaluates a function of batches for any number of structures, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen._tensorflow import threads
from tfgen.structures.batch import Group, StructureBatch, groups

__all__ = ["Evaluator", "Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many numbers are computed at once; no value depends on it.

    XLA is twice as fast as TensorFlow's graphs, but takes seconds to compile for each padded size,
    and is fastest on pieces that fit into a core's cache. As a call costs a tenth of a millisecond,
    each goes through several pieces.

    Attributes:
        numbers_per_chunk: in the largest tensor of a chunk, which bounds its memory at some hundred
            MB, unless a single structure needs more (0.4 GB for 147 atoms that are all within
            reach of each other, with the functions of "fung2022").
        numbers_to_compile: in the largest tensor of all structures of one padded size, from which
            on they are compiled by XLA.
        numbers_in_cache: in the largest tensor of a piece.
        pieces: how many pieces a call goes through.
    """

    numbers_per_chunk: int = 8_000_000
    numbers_to_compile: int = 500_000_000
    numbers_in_cache: int = 1_000_000
    pieces: int = 8


class Evaluator:
    """Evaluates a function of batches for structures of any sizes, in float64.

    Args:
        function: maps a batch to a tensor whose first axis is that of the batch.
        r_cut: the cutoff radius of neighbour lists, Å.
        limits: of memory, and of the work that is worth a compilation.
    """

    def __init__(
        self,
        function: Callable[[StructureBatch], tf.Tensor],
        r_cut: float,
        limits: Limits | None = None,
    ) -> None:
        self._function = function
        self._r_cut = r_cut
        self._limits = limits or Limits()
        self._graphs: dict[int, Callable[[StructureBatch], tf.Tensor]] = {}
        self._compiled = tf.function(self._by_pieces, jit_compile=True, autograph=False)

    def __call__(self, structures: Sequence[Atoms]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (indices into `structures`, values [structures, ...]), chunk by chunk."""
        for group in groups(structures, self._r_cut):
            work = len(group.members) * group.numbers
            if group.periodic or work < self._limits.numbers_to_compile:
                for members in group.chunks(self._limits.numbers_per_chunk):
                    batch = self._pack(structures, members, group.width)
                    yield members, self._graph(batch).numpy()
            else:
                yield from self._in_cache(structures, group)

    def _in_cache(
        self, structures: Sequence[Atoms], group: Group
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = self._limits.pieces * group.chunk_size(self._limits.numbers_in_cache)

        def run(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # Only one shape is compiled: copies of its last structure fill the last chunk.
            full = np.pad(members, (0, size - len(members)), mode="edge")
            batch = self._pack(structures, full, group.width)
            function = self._compiled if batch.neighbours is None else self._graph
            return members, function(batch).numpy()[: len(members)]

        # TensorFlow's own threads gain little on such small pieces.
        with ThreadPoolExecutor(threads()) as pool:
            chunks = [group.members[i : i + size] for i in range(0, len(group.members), size)]
            yield from pool.map(run, chunks)

    def _graph(self, batch: StructureBatch) -> tf.Tensor:
        """Runs the graph of this padded size: the function may sum in another order for another.

        So no number depends, not even in the last digits, on what was computed before.
        """
        width = batch.positions.shape[1]
        if width not in self._graphs:
            self._graphs[width] = tf.function(
                self._function, reduce_retracing=True, autograph=False
            )
        return self._graphs[width](batch)

    def _by_pieces(self, batch: StructureBatch) -> tf.Tensor:
        """Applies the function to a batch of clusters, piece by piece."""
        pieces = self._limits.pieces
        split = [tf.reshape(x, [pieces, x.shape[0] // pieces, *x.shape[1:]]) for x in batch[:-1]]
        values = tf.map_fn(
            lambda piece: self._function(StructureBatch(*piece)),
            split,
            fn_output_signature=batch.positions.dtype,
        )
        return tf.reshape(values, [-1, *values.shape[2:]])

    def _pack(self, structures: Sequence[Atoms], members: np.ndarray, width: int) -> StructureBatch:
        chunk = [structures[i] for i in members]
        return StructureBatch.from_ase(chunk, r_cut=self._r_cut, atoms=width, sparse=True)
