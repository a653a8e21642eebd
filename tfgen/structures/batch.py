"""Padded batches of structures, and the conversion from and to `ase.Atoms`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from ase import Atoms

from tfgen.structures.neighbours.lists import cluster_lists, neighbour_lists

__all__ = [
    "Group",
    "Neighbours",
    "StructureBatch",
    "bucket",
    "groups",
]

# Shapes are padded to these atom counts, so that any mix of sizes costs few compilations.
BUCKETS = (2, 4, 8, 10, 13, 16, 20, 24, 32, 38, 48, 55, 64, 80, 100, 128, 147)

# Clusters of at least this many atoms may get neighbour lists, if these hold no more than this
# share of the atoms.
SPARSE_FROM, SPARSE_SHARE = 32, 0.75

# The number of functions of pairs that a descriptor is taken to have, for estimates of memory.
FUNCTIONS = 200


class Neighbours(NamedTuple):
    """Fixed neighbour lists, for structures with periodic images.

    Attributes:
        index: [batch, atoms, neighbours] int32, the neighbour's place in the structure; -1 pads.
        shift: [batch, atoms, neighbours, 3], the lattice translation of the image, in units of
            the cell vectors.
    """

    index: tf.Tensor
    shift: tf.Tensor


class StructureBatch(NamedTuple):
    """Structures of up to `atoms` atoms each, padded with atoms of number 0.

    It is a tuple of tensors and so can be passed to `tf.function`, `tf.data` and `tf.nest`.

    Attributes:
        positions: [batch, atoms, 3], Å; zeros where padded.
        numbers: [batch, atoms] int32, atomic numbers; 0 marks padding.
        cell: [batch, 3, 3], Å, row vectors (ASE's convention).
        pbc: [batch, 3] bool.
        neighbours: lists of the neighbours (with images) of every atom; None for clusters, where
            every atom is every other's neighbour.
    """

    positions: tf.Tensor
    numbers: tf.Tensor
    cell: tf.Tensor
    pbc: tf.Tensor
    neighbours: Neighbours | None = None

    def __repr__(self) -> str:
        """Shapes instead of numbers, which may not be known yet inside a graph."""
        parts = [f"positions={self.positions.shape} {tf.as_dtype(self.positions.dtype).name}"]
        if self.neighbours is not None:
            parts.append(f"neighbours={self.neighbours.index.shape}")
        return f"<StructureBatch {', '.join(parts)}>"

    @property
    def mask(self) -> tf.Tensor:
        """[batch, atoms] bool, true for real atoms."""
        return self.numbers > 0

    @classmethod
    def of_clusters(cls, positions: tf.Tensor, numbers: tf.Tensor) -> StructureBatch:
        """Makes a batch of non-periodic structures from tensors, inside or outside a graph.

        Args:
            positions: [batch, atoms, 3], Å.
            numbers: [batch, atoms] int32; 0 pads.
        """
        batch = tf.shape(positions)[0]
        return cls(
            positions=positions,
            numbers=numbers,
            cell=tf.zeros([batch, 3, 3], positions.dtype),
            pbc=tf.zeros([batch, 3], tf.bool),
        )

    @classmethod
    def from_ase(
        cls,
        structures: Sequence[Atoms],
        *,
        r_cut: float,
        atoms: int | None = None,
        dtype: str | tf.DType = "float64",
        sparse: bool = False,
    ) -> StructureBatch:
        """Packs ASE structures into one padded batch.

        Args:
            structures: the structures; left unmodified.
            r_cut: reach of the neighbour lists of periodic structures, Å.
            atoms: padded number of atoms; the largest structure's if None.
            dtype: of positions and cell.
            sparse: whether clusters get neighbour lists, too, where these are much shorter than
                the number of atoms. They hold for these positions only.

        Raises:
            ValueError: on an empty list, or more atoms in a structure than `atoms`.
        """
        if not structures:
            raise ValueError("structures is empty; at least one structure is needed")
        dtype = tf.as_dtype(dtype).as_numpy_dtype
        counts = np.array([len(s) for s in structures])
        largest = int(counts.max())
        width = largest if atoms is None else atoms
        if width < largest:
            raise ValueError(f"atoms is {atoms}; the largest structure has {largest}")
        positions = np.zeros([len(structures), width, 3], dtype)
        numbers = np.zeros([len(structures), width], np.int32)
        real = np.arange(width) < counts[:, None]
        positions[real] = np.concatenate([s.positions for s in structures])
        numbers[real] = np.concatenate([s.numbers for s in structures])
        pbc = np.array([s.pbc for s in structures])
        neighbours = None
        if pbc.any():
            index, shift = neighbour_lists(structures, r_cut, width)
            neighbours = Neighbours(tf.constant(index), tf.constant(shift.astype(dtype)))
        elif sparse and width >= SPARSE_FROM:
            lists = cluster_lists(positions, numbers > 0, r_cut, SPARSE_SHARE)
            if lists is not None:
                shift = tf.zeros([*lists.shape, 3], dtype)
                neighbours = Neighbours(tf.constant(lists), shift)
        return cls(
            positions=tf.constant(positions),
            numbers=tf.constant(numbers),
            cell=tf.constant(np.array([s.cell.array for s in structures], dtype)),
            pbc=tf.constant(pbc),
            neighbours=neighbours,
        )

    def to_ase(self) -> list[Atoms]:
        """Unpacks the batch into `ase.Atoms`, without the padding."""
        positions, numbers = np.asarray(self.positions, np.float64), np.asarray(self.numbers)
        cell, pbc = np.asarray(self.cell, np.float64), np.asarray(self.pbc)
        return [
            Atoms(n[n > 0], positions=x[n > 0], cell=c, pbc=p)
            for x, n, c, p in zip(positions, numbers, cell, pbc, strict=True)
        ]


def bucket(n_atoms: int) -> int:
    """Returns the padded size that structures of `n_atoms` atoms are computed at."""
    for size in BUCKETS:
        if n_atoms <= size:
            return size
    return -(-n_atoms // 64) * 64


class Group(NamedTuple):
    """Structures that are computed at one padded size.

    Attributes:
        members: their places in the list of structures.
        width: padded number of atoms.
        periodic: whether the structures are periodic.
        numbers: the estimated size of the largest tensor, for one structure.
    """

    members: np.ndarray
    width: int
    periodic: bool
    numbers: int

    def chunks(self, limit: int) -> Iterator[np.ndarray]:
        """Yields the members in chunks whose largest tensors hold about `limit` numbers."""
        size = self.chunk_size(limit)
        for start in range(0, len(self.members), size):
            yield self.members[start : start + size]

    def chunk_size(self, limit: int) -> int:
        """Returns how many structures there are in such a chunk."""
        return max(1, limit // self.numbers)


def groups(structures: Sequence[Atoms], r_cut: float | None = None) -> list[Group]:
    """Groups structures by padded size, clusters and periodic ones apart.

    Args:
        structures: any mix of sizes.
        r_cut: the cutoff radius, Å, if functions of pairs and triples of atoms count in `numbers`;
            if None, pairs of atoms alone count.
    """
    lengths, place = np.unique([len(s) for s in structures], return_inverse=True)
    widths = np.array([bucket(n) for n in lengths])[place]
    pbc = np.array([s.pbc for s in structures]).any(axis=1)
    found = []
    kinds = 2 * widths + pbc
    for kind in np.unique(kinds).tolist():
        width, periodic = divmod(kind, 2)
        members = np.flatnonzero(kinds == kind)
        reach = width
        if periodic and r_cut is not None:
            reach = max(reach, *(_neighbours(structures[int(i)], r_cut) for i in members))
        numbers = width * reach * (1 if r_cut is None else reach + FUNCTIONS)
        found.append(Group(members, width, bool(periodic), numbers))
    return found


def _neighbours(structure: Atoms, r_cut: float) -> int:
    """Estimates how many atoms there are within `r_cut` (Å) of one, from the density."""
    cell = structure.cell.complete()
    inverse = np.linalg.inv(cell.array)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    # The volume of the part of the cell that holds atoms: slabs and wires have much vacuum.
    spans = np.ptp(structure.positions @ inverse, axis=0) * heights + 2.5
    volume = cell.volume * np.minimum(spans / heights, 1.0).prod()
    return int(len(structure) / volume * 4.2 * r_cut**3) + 1
