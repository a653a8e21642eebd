"""Padded batches of structures, and the only door between them and `ase.Atoms`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula
from ase.neighborlist import neighbor_list

__all__ = [
    "Neighbours",
    "StructureBatch",
    "as_structures",
    "atomic_numbers_of",
    "batches",
    "bucket",
    "formula_of",
    "numbers_from_formula",
]

# Shapes are padded to these atom counts, so that any mix of sizes costs few compilations.
BUCKETS = (2, 4, 8, 10, 13, 16, 20, 24, 32, 38, 48, 55, 64, 80, 100, 128, 147)

# Functions of pairs that a descriptor has, for estimates of memory.
FUNCTIONS = 200
# Formulas of more atoms are taken for slips of the keyboard.
MAX_ATOMS = 1000


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
    ) -> StructureBatch:
        """Packs ASE structures into one padded batch.

        Args:
            structures: the structures; left unmodified.
            r_cut: reach of the neighbour lists of periodic structures, Å.
            atoms: padded number of atoms; the largest structure's if None.
            dtype: of positions and cell.
        """
        dtype = tf.as_dtype(dtype).as_numpy_dtype
        width = max(len(s) for s in structures) if atoms is None else atoms
        positions = np.zeros([len(structures), width, 3], dtype)
        numbers = np.zeros([len(structures), width], np.int32)
        for i, structure in enumerate(structures):
            positions[i, : len(structure)] = structure.positions
            numbers[i, : len(structure)] = structure.numbers
        pbc = np.array([s.pbc for s in structures])
        return cls(
            positions=tf.constant(positions),
            numbers=tf.constant(numbers),
            cell=tf.constant(np.array([s.cell.array for s in structures], dtype)),
            pbc=tf.constant(pbc),
            neighbours=_neighbour_lists(structures, r_cut, width, dtype) if pbc.any() else None,
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
    lists = [neighbor_list("ijS", s, r_cut) for s in structures]
    counts = [np.bincount(i, minlength=width) for i, _, _ in lists]
    longest = max(int(c.max(initial=1)) for c in counts)
    longest = -(-longest // 8) * 8  # few distinct shapes, few compilations
    index = np.full([len(structures), width, longest], -1, np.int32)
    shift: np.ndarray = np.zeros([len(structures), width, longest, 3], dtype)
    for row, ((i, j, s), count) in enumerate(zip(lists, counts, strict=True)):
        # `neighbor_list` returns pairs sorted by i, so the place in i's list is a running count.
        place = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
        index[row, i, place] = j
        shift[row, i, place] = s
    return Neighbours(tf.constant(index), tf.constant(shift))


def as_structures(structures: Atoms | Sequence[Atoms], name: str = "structures") -> list[Atoms]:
    """Checks that `structures` is one `ase.Atoms` or a non-empty sequence of them.

    Raises:
        ValueError: on an empty list, an empty structure, positions that are not finite, or a
            periodic direction without a cell vector; names the structure.
    """
    listed = [structures] if isinstance(structures, Atoms) else list(structures)
    if not listed:
        raise ValueError(f"{name} is empty; at least one structure is needed")
    for i, structure in enumerate(listed):
        if not isinstance(structure, Atoms):
            raise ValueError(f"{name}[{i}] is a {type(structure).__name__}, not an ase.Atoms")
        if len(structure) == 0:
            raise ValueError(f"{name}[{i}] has no atoms")
        if not np.isfinite(structure.positions).all():
            raise ValueError(f"{name}[{i}] has positions that are not finite")
        if not np.isfinite(structure.cell.array).all():
            raise ValueError(f"{name}[{i}] has a cell that is not finite")
        if (structure.numbers <= 0).any():
            raise ValueError(f"{name}[{i}] holds dummy atoms (atomic number 0)")
        if (structure.pbc & ~structure.cell.any(axis=1)).any():
            raise ValueError(f"{name}[{i}] is periodic along an axis without a cell vector")
    return listed


def bucket(n_atoms: int) -> int:
    """Returns the padded size that structures of `n_atoms` atoms are computed at."""
    for size in BUCKETS:
        if n_atoms <= size:
            return size
    return -(-n_atoms // 64) * 64


def batches(
    structures: Sequence[Atoms], limit: int, r_cut: float | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Groups structures into chunks of one padded size, clusters and periodic ones apart.

    Args:
        structures: any mix of sizes.
        limit: most pairs of atoms (padded size squared times structures) in one chunk; with
            `r_cut` most numbers in a tensor of functions of pairs or of triples.
        r_cut: how far atoms see, Å, if triples are to be counted.

    Yields:
        (indices into `structures`, padded number of atoms).
    """
    keys = np.array([(bucket(len(s)), s.pbc.any()) for s in structures])
    for width, periodic in np.unique(keys, axis=0):
        members = np.flatnonzero((keys == (width, periodic)).all(axis=1))
        reach = int(width)
        if periodic and r_cut is not None:
            reach = max(reach, *(_neighbours(structures[int(i)], r_cut) for i in members))
        numbers = int(width) * reach
        if r_cut is not None:
            numbers *= reach + FUNCTIONS
        chunk = max(1, limit // numbers)
        for start in range(0, len(members), chunk):
            yield members[start : start + chunk], int(width)


def _neighbours(structure: Atoms, r_cut: float) -> int:
    """Estimates how many atoms there are within `r_cut` (Å) of one, from the density."""
    volume = structure.cell.complete().volume
    return int(len(structure) / volume * 4.2 * r_cut**3) + 1


def numbers_from_formula(formula: str, name: str = "formula") -> np.ndarray:
    """Returns the atomic numbers of a formula such as "Pt13" or "Cu6Au7", sorted by element.

    Raises:
        ValueError: if the formula makes no sense, has no atoms or more than `MAX_ATOMS`.
    """
    try:
        counts = Formula(formula, strict=True).count()
    except (KeyError, ValueError, IndexError, TypeError):
        counts = {}
    counts = {symbol: count for symbol, count in counts.items() if count}
    if not counts or not set(counts) <= set(chemical_symbols[1:]):
        raise ValueError(
            f"{name} {formula!r} makes no sense; write elements with counts, like Pt13 or Cu6Au7"
        )
    if sum(counts.values()) > MAX_ATOMS:
        raise ValueError(f"{name} {formula!r} has more than {MAX_ATOMS} atoms")
    numbers = [atomic_numbers[symbol] for symbol in counts]
    return np.sort(np.repeat(numbers, list(counts.values())))


def formula_of(numbers: np.ndarray) -> str:
    """Returns the chemical formula (metals first, as in ASE's "metal" mode) of atomic numbers."""
    return Atoms(numbers[numbers > 0]).get_chemical_formula("metal")


def atomic_numbers_of(species: Sequence[str | int], name: str = "species") -> list[int]:
    """Returns the sorted atomic numbers of elements given by symbol or number.

    Raises:
        ValueError: on an unknown element, an empty list or one that repeats itself.
    """
    if isinstance(species, str | bytes) or not isinstance(species, Sequence | np.ndarray):
        raise ValueError(f"{name} is {species!r}; a list of elements like ['Pt'] is needed")
    numbers = []
    for element in species:
        if isinstance(element, str) and element in chemical_symbols[1:]:
            numbers.append(chemical_symbols.index(element))
        elif isinstance(element, int | np.integer) and 0 < element < len(chemical_symbols):
            numbers.append(int(element))
        else:
            raise ValueError(f"{name} holds {element!r}, which is not a chemical element")
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{name} is {list(species)!r}; at least one element, none twice")
    return sorted(numbers)
