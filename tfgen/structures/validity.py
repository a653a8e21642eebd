"""Whether structures are valid: finite, without overlapping atoms, in one connected piece.

Distances are judged relative to the sum of the two atoms' covalent radii (`ase.data`, after
Cordero et al.), so that one pair of factors serves every composition.

References:
    Cordero, B. et al. Covalent radii revisited. Dalton Trans. 2832 (2008),
    https://doi.org/10.1039/b801115j
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from tfgen.structures.factors import BOND_FACTOR, OVERLAP_FACTOR
from tfgen.structures.neighbours.lists import neighbour_pairs

__all__ = [
    "ValidityThresholds",
    "connected",
    "overlapping",
    "thresholds_from",
    "valid",
]

# Pairs of atoms held at once: about 100 MB of temporaries.
_PAIRS = 1_000_000
# From this many atoms on, a search for neighbours is faster than computing all distances.
_LARGE = 1000


class ValidityThresholds(NamedTuple):
    """Factors on sums of covalent radii, and the share of structures that satisfies them.

    Attributes:
        overlap_factor: atoms closer than this times the sum of their radii overlap.
        bond_factor: atoms within this times the sum of their radii are bonded.
        pass_rate: share of valid structures among those that they were determined from, 0 to 1.
    """

    overlap_factor: float
    bond_factor: float
    pass_rate: float

    def valid(self, structures: Sequence[Atoms]) -> np.ndarray:
        """Says which structures are valid by these factors, as the function `valid` does: [n]."""
        return valid(structures, self.overlap_factor, self.bond_factor)


class _Edges(NamedTuple):
    """The close pairs of several structures, as one graph without edges between structures.

    Attributes:
        members: [c] int, places of the structures in the list they came from.
        atoms: [c + 1] int, where each structure's atoms begin in the graph.
        i: [edges] int, first atom of the pair.
        j: [edges] int, second atom.
        relative: [edges], distance over sum of covalent radii.
        owner: [edges] int, the place in `members` of the pair's structure.
    """

    members: np.ndarray
    atoms: np.ndarray
    i: np.ndarray
    j: np.ndarray
    relative: np.ndarray
    owner: np.ndarray


def valid(
    structures: Sequence[Atoms],
    overlap_factor: float = OVERLAP_FACTOR,
    bond_factor: float = BOND_FACTOR,
) -> np.ndarray:
    """Says which structures are finite, free of overlaps and in one connected piece.

    Clusters of one size are judged together; periodic structures (images count) and those of 1000
    atoms or more one by one, by a search for neighbours.

    Args:
        structures: any mix of sizes and compositions; left unmodified.
        overlap_factor: every distance is at least this times the sum of covalent radii.
        bond_factor: bonds are the distances up to this times the sum of covalent radii.

    Returns:
        [n] bool. False for a structure without atoms, true for a single atom.

    Raises:
        ValueError: if a factor is not positive, or the bond factor not above the overlap factor.
    """
    _check(overlap_factor, bond_factor)
    result = np.zeros(len(structures), bool)
    for edges in _edges(structures, bond_factor):
        shortest = np.full(len(edges.members), np.inf)
        np.minimum.at(shortest, edges.owner, edges.relative)
        result[edges.members] = (shortest >= overlap_factor) & _in_one_piece(edges)
    return result


def connected(structures: Sequence[Atoms], bond_factor: float = BOND_FACTOR) -> np.ndarray:
    """Says which structures are one connected piece, by the rule of `valid`, overlapping or not.

    Args:
        structures: any mix of sizes and compositions; left unmodified.
        bond_factor: bonds are the distances up to this times the sum of covalent radii.

    Returns:
        [n] bool. False for a structure without atoms or with positions that are not finite.

    Raises:
        ValueError: if the factor is not positive.
    """
    _check(0.0, bond_factor)
    result = np.zeros(len(structures), bool)
    for edges in _edges(structures, bond_factor):
        result[edges.members] = _in_one_piece(edges)
    return result


def overlapping(structures: Sequence[Atoms], overlap_factor: float = OVERLAP_FACTOR) -> np.ndarray:
    """Says which structures have atoms on top of each other, periodic images among them.

    Args:
        structures: any mix of sizes and compositions; left unmodified.
        overlap_factor: atoms closer than this times the sum of their covalent radii overlap.

    Returns:
        [n] bool. False for a structure without atoms or with positions that are not finite.

    Raises:
        ValueError: if the factor is negative.
    """
    _check(overlap_factor, max(BOND_FACTOR, 2.0 * overlap_factor))
    result = np.zeros(len(structures), bool)
    for edges in _edges(structures, overlap_factor):
        result[edges.members[edges.owner[edges.relative < overlap_factor]]] = True
    return result


def thresholds_from(
    structures: Sequence[Atoms],
    *,
    overlap_factor: float = OVERLAP_FACTOR,
    bond_factor: float = BOND_FACTOR,
    pass_rate: float = 0.99,
) -> ValidityThresholds:
    """Finds factors by which at least the share `pass_rate` of given structures is valid.

    The defaults stay if the structures allow it. Otherwise each factor is relaxed until it alone
    rejects at most half of the share that may fail.

    Args:
        structures: structures that are taken to be valid, for example a training set.
        overlap_factor: largest overlap factor to return.
        bond_factor: smallest bond factor to return.
        pass_rate: share that must pass, 0 to 1.

    Raises:
        ValueError: without structures, if a structure has no atoms, positions that are not
            finite or a broken cell, or if a factor or `pass_rate` is out of range.
    """
    _check(overlap_factor, bond_factor)
    if not 0.0 <= pass_rate <= 1.0:
        raise ValueError(f"pass_rate is {pass_rate!r}; a share between 0 and 1 is needed")
    if len(structures) == 0:
        raise ValueError("structures is empty; validity thresholds need at least one structure")
    if not _usable(structures).all():
        bad = int(np.flatnonzero(~_usable(structures))[0])
        raise ValueError(
            f"structures[{bad}] has no atoms, positions that are not finite or a broken cell"
        )
    shortest = np.full(len(structures), np.inf)
    longest = np.zeros(len(structures))
    for edges in _edges(structures, None):
        near, far = np.full(len(edges.members), np.inf), np.zeros(len(edges.members))
        np.minimum.at(near, edges.owner, edges.relative)
        # The longest edge of the minimum spanning tree is the bond that holds the piece together.
        # SciPy drops edges of weight 0, which coincident atoms would have.
        tree = minimum_spanning_tree(_graph(edges, np.maximum(edges.relative, 1e-12))).tocoo()
        np.maximum.at(far, np.searchsorted(edges.atoms, tree.row, "right") - 1, tree.data)
        shortest[edges.members], longest[edges.members] = near, far
    spare = int((1.0 - pass_rate) / 2.0 * len(structures))
    # Rounded outwards, so that the numbers people read are the numbers used.
    overlap = min(overlap_factor, np.floor(np.sort(shortest)[spare] * 1e3) / 1e3)
    bond = max(bond_factor, np.ceil(np.sort(longest)[-1 - spare] * 1e3) / 1e3)
    passed = np.mean((shortest >= overlap) & (longest <= bond))
    return ValidityThresholds(float(overlap), float(bond), float(passed))


def _check(overlap_factor: float, bond_factor: float) -> None:
    if not 0.0 <= overlap_factor < np.inf:
        raise ValueError(f"overlap_factor is {overlap_factor!r}; a finite number >= 0 is needed")
    if not overlap_factor < bond_factor < np.inf:
        raise ValueError(
            f"bond_factor is {bond_factor!r}; a finite number above {overlap_factor:g} is needed"
        )


def _usable(structures: Sequence[Atoms]) -> np.ndarray:
    """Says which structures have atoms, and coordinates from which distances can be computed."""
    return np.array([len(s) > 0 and _measurable(s) for s in structures], bool)


def _measurable(structure: Atoms) -> bool:
    # Squares of larger numbers lose all precision or overflow.
    finite = (np.abs(structure.positions) < 1e9).all()
    if not structure.pbc.any():
        return bool(finite)
    cell = structure.cell
    whole = np.isfinite(cell.array).all() and not (structure.pbc & ~cell.array.any(axis=1)).any()
    return bool(finite and whole and cell.complete().volume > 1e-3)


def _graph(edges: _Edges, weights: np.ndarray) -> coo_matrix:
    size = int(edges.atoms[-1])
    return coo_matrix((weights, (edges.i, edges.j)), shape=(size, size)).tocsr()


def _in_one_piece(edges: _Edges) -> np.ndarray:
    _, label = connected_components(_graph(edges, np.ones(len(edges.i))), directed=False)
    starts = edges.atoms[:-1]
    return np.minimum.reduceat(label, starts) == np.maximum.reduceat(label, starts)


def _edges(structures: Sequence[Atoms], reach: float | None) -> Iterator[_Edges]:
    """Yields the pairs within `reach` (sums of radii), or enough to connect all if it is None."""
    usable = _usable(structures)
    sizes = np.array([len(s) for s in structures], int)
    listed = np.array([s.pbc.any() for s in structures], bool) | (sizes >= _LARGE)
    for size in np.unique(sizes[usable & ~listed]):
        same = np.flatnonzero(usable & ~listed & (sizes == size))
        chunk = max(1, _PAIRS // max(1, size * (size - 1) // 2))
        for start in range(0, len(same), chunk):
            yield _cluster_edges(structures, same[start : start + chunk], int(size), reach)
    for member in np.flatnonzero(usable & listed).tolist():
        yield _listed_edges(structures[member], member, reach)


def _cluster_edges(
    structures: Sequence[Atoms], members: np.ndarray, size: int, reach: float | None
) -> _Edges:
    positions = np.array([structures[m].positions for m in members.tolist()])
    radii = covalent_radii[np.array([structures[m].numbers for m in members.tolist()])]
    i, j = np.triu_indices(size, 1)
    distance = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
    relative = distance / (radii[:, i] + radii[:, j])
    near = np.ones(relative.shape, bool) if reach is None else relative <= reach
    owner, pair = np.nonzero(near)
    atoms = size * np.arange(len(members) + 1)
    return _Edges(
        members, atoms, atoms[owner] + i[pair], atoms[owner] + j[pair], relative[near], owner
    )


def _listed_edges(structure: Atoms, member: int, reach: float | None) -> _Edges:
    radii = covalent_radii[structure.numbers]
    factor = 2.0 if reach is None else reach
    while True:
        i, j, _, distance = neighbour_pairs(structure, factor * radii)
        edges = _Edges(
            np.array([member]),
            np.array([0, len(structure)]),
            i,
            j,
            distance / (radii[i] + radii[j]),
            np.zeros(len(i), int),
        )
        if reach is not None or _in_one_piece(edges)[0]:
            return edges
        factor *= 2.0
