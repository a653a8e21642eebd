"""Evaluates a map of batches over any number of structures: fast, and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen._tensorflow import threads
from tfgen.structures.batch import Group, StructureBatch, groups

__all__ = ["Evaluator"]

# Size of the largest tensors of a chunk: bounds its memory at some hundred MB, unless a single
# structure needs more (0.4 GB for 147 atoms that all see each other, with the paper's functions).
NUMBERS_PER_CHUNK = 8_000_000
# XLA runs twice as fast as the graph as it is, but takes seconds to compile for each padded size:
# it pays from about so many numbers on, and is fastest in pieces that stay in a core's cache. As a
# call takes a tenth of a millisecond, it goes through several pieces.
NUMBERS_TO_COMPILE = 500_000_000
NUMBERS_IN_CACHE = 1_000_000
PIECES = 8


class Evaluator:
    """Evaluates a map of batches over structures of any sizes, in float64.

    Args:
        function: maps a batch to a tensor whose first axis is that of the batch.
        r_cut: how far an atom sees, Å.
    """

    def __init__(self, function: Callable[[StructureBatch], tf.Tensor], r_cut: float) -> None:
        self._function = function
        self._r_cut = r_cut
        self._graphs: dict[int, Callable[[StructureBatch], tf.Tensor]] = {}
        self._compiled = tf.function(self._by_pieces, jit_compile=True, autograph=False)

    def __reduce__(self) -> tuple:
        # Graphs are not copied with descriptors; they are traced anew.
        return Evaluator, (self._function, self._r_cut)

    def __call__(self, structures: Sequence[Atoms]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (indices into `structures`, values [structures, ...]), chunk by chunk."""
        for group in groups(structures, self._r_cut):
            work = len(group.members) * group.numbers
            if group.periodic or work < NUMBERS_TO_COMPILE:
                for members in group.chunks(NUMBERS_PER_CHUNK):
                    batch = self._pack(structures, members, group.width)
                    yield members, self._graph(batch).numpy()
            else:
                yield from self._in_cache(structures, group)

    def _in_cache(
        self, structures: Sequence[Atoms], group: Group
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = PIECES * group.chunk_size(NUMBERS_IN_CACHE)

        def run(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # One shape only is compiled: repeats of the last structure fill up the last chunk.
            full = np.pad(members, (0, size - len(members)), mode="edge")
            batch = self._pack(structures, full, group.width)
            function = self._compiled if batch.neighbours is None else self._graph
            return members, function(batch).numpy()[: len(members)]

        # TensorFlow's own threads gain little on such small pieces.
        with ThreadPoolExecutor(threads()) as pool:
            chunks = [group.members[i : i + size] for i in range(0, len(group.members), size)]
            yield from pool.map(run, chunks)

    def _graph(self, batch: StructureBatch) -> tf.Tensor:
        """One graph for each padded size, as maps may do other sums where the size is known.

        The numbers must not depend, not even in the last digits, on what was computed before.
        """
        width = batch.positions.shape[1]
        if width not in self._graphs:
            self._graphs[width] = tf.function(
                self._function, reduce_retracing=True, autograph=False
            )
        return self._graphs[width](batch)

    def _by_pieces(self, batch: StructureBatch) -> tf.Tensor:
        """The function of a batch of clusters, piece by piece."""
        split = [tf.reshape(x, [PIECES, x.shape[0] // PIECES, *x.shape[1:]]) for x in batch[:-1]]
        values = tf.map_fn(
            lambda piece: self._function(StructureBatch(*piece)),
            split,
            fn_output_signature=batch.positions.dtype,
        )
        return tf.reshape(values, [-1, *values.shape[2:]])

    def _pack(self, structures: Sequence[Atoms], members: np.ndarray, width: int) -> StructureBatch:
        chunk = [structures[i] for i in members]
        return StructureBatch.from_ase(chunk, r_cut=self._r_cut, atoms=width, sparse=True)
