"""Padded batches of structures, and the only door between them and `ase.Atoms`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list

__all__ = [
    "Group",
    "Neighbours",
    "StructureBatch",
    "as_structures",
    "bucket",
    "groups",
]

# Shapes are padded to these atom counts, so that any mix of sizes costs few compilations.
BUCKETS = (2, 4, 8, 10, 13, 16, 20, 24, 32, 38, 48, 55, 64, 80, 100, 128, 147)

# Clusters of so many atoms may get neighbour lists, if these are no longer than a share of them.
SPARSE_FROM, SPARSE_SHARE = 32, 0.75

# Neighbours are looked for among all images if there are no more pairs of atoms and images.
MOST_IMAGES = 3_000_000

# Functions of pairs that a descriptor has, for estimates of memory.
FUNCTIONS = 200
# Cells below this volume, Å³ (with vectors of length 1 where there are none), are slips: their
# atoms would have images without number.
LEAST_VOLUME = 0.1
ELEMENTS = np.arange(1, len(chemical_symbols))


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

    A plain tuple of tensors, so that it passes through `tf.function`, `tf.data` and `tf.nest`.

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
            sparse: give clusters neighbour lists, too, where these are much shorter than the
                number of atoms; for what is evaluated at these positions only.

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
            neighbours = _neighbour_lists(structures, r_cut, width, dtype)
        elif sparse and width >= SPARSE_FROM:
            neighbours = _short_lists(positions, numbers, r_cut, dtype)
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


def _neighbour_lists(
    structures: Sequence[Atoms], r_cut: float, width: int, dtype: type
) -> Neighbours:
    lists = [_neighbours_of(s, r_cut) for s in structures]
    counts = [np.bincount(i, minlength=width) for i, _, _ in lists]
    longest = max(int(c.max(initial=1)) for c in counts)
    longest = -(-longest // 8) * 8  # few distinct shapes, few compilations
    index = np.full([len(structures), width, longest], -1, np.int32)
    shift: np.ndarray = np.zeros([len(structures), width, longest, 3], dtype)
    for row, ((i, j, s), count) in enumerate(zip(lists, counts, strict=True)):
        # The pairs are sorted by i, so the place in i's list is a running count.
        place = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
        index[row, i, place] = j
        shift[row, i, place] = s
    return Neighbours(tf.constant(index), tf.constant(shift))


def _neighbours_of(structure: Atoms, r_cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs closer than `r_cut` (Å), as ASE's neighbor_list("ijS", ...), sorted by i.

    Trying all images is thirty times faster than ASE's bins in cells of up to a hundred atoms.
    """
    cell = structure.cell.complete().array
    inverse = np.linalg.inv(cell)
    # Once all atoms are in the same cell, no more images than these can be within reach.
    reach = np.where(structure.pbc, r_cut * np.linalg.norm(inverse, axis=0) + 1, 0).astype(int)
    n_atoms = len(structure)
    if n_atoms**2 * np.prod(2.0 * reach + 1) > MOST_IMAGES:
        return neighbor_list("ijS", structure, r_cut)
    home = np.where(structure.pbc, np.floor(structure.positions @ inverse), 0).astype(int)
    shifts = np.indices((2 * reach + 1).tolist()).reshape(3, -1).T - reach
    at_home = structure.positions - home @ cell
    images = at_home[:, None] + shifts @ cell
    squared = np.zeros([n_atoms, n_atoms, len(shifts)])
    for axis in range(3):
        squared += (images[:, :, axis] - at_home[:, None, None, axis]) ** 2
    itself = np.flatnonzero(~shifts.any(axis=1))[0]
    squared[np.arange(n_atoms), np.arange(n_atoms), itself] = np.inf
    i, j, shift = np.nonzero(squared < r_cut**2)
    return i, j, shifts[shift] + home[i] - home[j]


def _short_lists(
    positions: np.ndarray, numbers: np.ndarray, r_cut: float, dtype: type
) -> Neighbours | None:
    """Lists for clusters, [batch, atoms, 3]; None if hardly anyone is out of reach."""
    n_atoms = positions.shape[1]
    squared = np.zeros([len(positions), n_atoms, n_atoms])
    for x in np.moveaxis(positions, 2, 0):
        squared += (x[:, :, None] - x[:, None, :]) ** 2
    near = (squared < r_cut**2) & (numbers[:, :, None] > 0) & (numbers[:, None, :] > 0)
    near &= ~np.eye(n_atoms, dtype=bool)
    longest = -(-int(near.sum(axis=2).max()) // 8) * 8
    if longest > SPARSE_SHARE * n_atoms:
        return None
    row, i, j = np.nonzero(near)
    place = (np.cumsum(near, axis=2) - 1)[row, i, j]
    index = np.full([len(positions), n_atoms, longest], -1, np.int32)
    index[row, i, place] = j
    return Neighbours(tf.constant(index), tf.zeros([*index.shape, 3], dtype))


def as_structures(structures: Atoms | Sequence[Atoms], name: str = "structures") -> list[Atoms]:
    """Checks that `structures` is one `ase.Atoms` or a non-empty sequence of them.

    Raises:
        ValueError: on an empty list, what is no structure, an empty structure, positions that are
            not finite or of the wrong shape, unknown atomic numbers, or a periodic direction
            without a cell vector of its own; names the structure.
    """
    if isinstance(structures, str | bytes | dict) or not isinstance(structures, Iterable):
        raise ValueError(
            f"{name} is a {type(structures).__name__}; an ase.Atoms or a list of them is needed"
        )
    listed = [structures] if isinstance(structures, Atoms) else list(structures)
    if not listed:
        raise ValueError(f"{name} is empty; at least one structure is needed")
    for i, structure in enumerate(listed):
        if not isinstance(structure, Atoms):
            raise ValueError(f"{name}[{i}] is a {type(structure).__name__}, not an ase.Atoms")
    if not _sound(listed):
        for i, structure in enumerate(listed):
            if not _sound([structure]):
                raise ValueError(f"{name}[{i}] {_fault(structure)}")
    return listed


def _sound(structures: list[Atoms]) -> bool:
    """Says whether `_fault` finds none; for all structures at once, as there may be very many."""
    numbers = [s.numbers for s in structures]
    counts = [len(n) for n in numbers]
    of_each = [s.positions for s in structures]
    if min(counts) == 0 or any(x.ndim != 2 for x in of_each) or [len(x) for x in of_each] != counts:
        return False
    if {x.shape[1] for x in of_each} != {3}:
        return False
    positions = np.concatenate(of_each)
    cells = np.array([s.cell.array for s in structures])
    if positions.dtype.kind not in "fiu":
        return False
    if not (np.isfinite(positions).all() and np.isfinite(cells).all()):
        return False
    if not np.isin(np.unique(np.concatenate(numbers)), ELEMENTS).all():
        return False
    pbc = np.array([s.pbc for s in structures])
    if (pbc & ~cells.any(axis=2)).any():
        return False
    periodic = np.flatnonzero(pbc.any(axis=1))
    return all(structures[i].cell.complete().volume >= LEAST_VOLUME for i in periodic)


def _fault(structure: Atoms) -> str:
    """What is wrong with a structure; follows its name in a message."""
    positions, numbers = structure.positions, structure.numbers
    if len(numbers) == 0:
        return "has no atoms"
    if positions.shape != (len(numbers), 3) or positions.dtype.kind not in "fiu":
        return (
            f"has positions of shape {positions.shape} and type {positions.dtype}; "
            f"[{len(numbers)}, 3] real numbers are needed"
        )
    if not np.isfinite(positions).all():
        return "has positions that are not finite"
    if not np.isfinite(structure.cell.array).all():
        return "has a cell that is not finite"
    if (numbers == 0).any():
        return "holds dummy atoms (atomic number 0)"
    wrong = numbers[~np.isin(numbers, ELEMENTS)]
    if wrong.size:
        return f"holds atomic number {wrong[0]}; 1 to {ELEMENTS[-1]} are elements"
    if (structure.pbc & ~structure.cell.any(axis=1)).any():
        return "is periodic along an axis without a cell vector"
    return (
        f"is periodic in a cell of volume {structure.cell.complete().volume:.3g} Å³; its vectors "
        f"must be linearly independent, and the volume at least {LEAST_VOLUME} Å³"
    )


def bucket(n_atoms: int) -> int:
    """Returns the padded size that structures of `n_atoms` atoms are computed at."""
    for size in BUCKETS:
        if n_atoms <= size:
            return size
    return -(-n_atoms // 64) * 64


class Group(NamedTuple):
    """Structures that are computed at one padded size.

    Attributes:
        members: their places in the list they come from.
        width: padded number of atoms.
        periodic: whether they are.
        numbers: estimated size, for each structure, of the largest tensor.
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
        """How many structures there are in such a chunk."""
        return max(1, limit // self.numbers)


def groups(structures: Sequence[Atoms], r_cut: float | None = None) -> list[Group]:
    """Groups structures by padded size, clusters and periodic ones apart.

    Args:
        structures: any mix of sizes.
        r_cut: how far atoms see, Å, if functions of pairs and of triples are to be counted in
            `numbers`; pairs of atoms alone if None.
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
    # Of the part of the cell that holds atoms: slabs and wires come with much vacuum.
    spans = np.ptp(structure.positions @ inverse, axis=0) * heights + 2.5
    volume = cell.volume * np.minimum(spans / heights, 1.0).prod()
    return int(len(structure) / volume * 4.2 * r_cut**3) + 1
