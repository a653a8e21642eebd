"""Ordered initial structures: known motifs of nanoparticles, and pieces of crystals."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import bulk as unit_cell
from ase.cluster import Decahedron, Icosahedron, Octahedron, wulff_construction
from ase.data import covalent_radii
from scipy.spatial.distance import pdist

from tfgen.sampling.moves import grow
from tfgen.sampling.sites import rotations, separate, standardise

__all__ = ["DISPLACEMENT", "bulk_cuts", "motifs"]

DISPLACEMENT = 0.25
"""The largest standard deviation of the displacements that make ordered structures differ, Å."""

# Motifs are used whose number of atoms differs by up to this share of it, or by this number; the
# next smaller and the next larger motif of each family are used in any case.
_SIMILAR_SIZE = (0.25, 3)
# The range of the semi-axes of the ellipsoids that are cut out of crystals, relative to each other.
_AXES = (0.7, 1.4)

_CRYSTALS = ("fcc", "hcp", "bcc")
# Wulff shapes: structure, an element that has it, surfaces and their energies, up to a factor.
_WULFF = (
    ("fcc", "Cu", ((1, 1, 1), (1, 0, 0), (1, 1, 0)), (1.0, 1.15, 1.1)),
    ("fcc", "Cu", ((1, 1, 1), (1, 0, 0)), (1.0, 0.9)),
    ("hcp", "Mg", ((0, 0, 0, 1), (1, 0, -1, 0), (1, 0, -1, 1)), (1.0, 1.2, 1.1)),
    ("bcc", "Fe", ((1, 1, 0), (1, 0, 0)), (1.0, 1.2)),
)


def motifs(
    numbers: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    min_distance: float = 0.8,
    displacement: float = DISPLACEMENT,
) -> np.ndarray:
    """Makes clusters from ASE's motifs of similar sizes, with vacancies and adatoms.

    The families are equally likely: icosahedra, decahedra (with and without re-entrant corners),
    octahedra with their truncations, Wulff shapes of fcc, of hcp, and of bcc. Within a family,
    motifs are likelier the closer their size. Surface atoms are removed or added (`moves.grow`); in
    alloys the elements are then arranged at random, as core and shells, on two sides, or in layers.
    Finally all atoms are displaced a little.

    Args:
        numbers: [N], atomic numbers.
        count: number of clusters.
        rng: the source of all randomness.
        min_distance: smallest distance of two atoms, in sums of their covalent radii.
        displacement: Å; each structure's atoms are displaced by normal deviates of a standard
            deviation that is sampled uniformly between 0 and this.

    Returns:
        [count, N, 3] float64, Å, centred on the origin, no atoms closer than `min_distance` times
        the sum of covalent radii.

    Raises:
        ValueError: on no atoms, or a number out of its range.
    """
    numbers = standardise(numbers, count, min_distance)
    families = _families(len(numbers))
    family = rng.integers(len(families), size=count)
    # Until the elements are arranged, the commonest one, at its own distances, stands for all.
    common = int(np.bincount(numbers).argmax())
    result = np.empty([count, len(numbers), 3])
    for place, members in enumerate(families):
        rows = np.flatnonzero(family == place)
        away = np.array([abs(len(m) - len(numbers)) for m in members])
        likely = np.exp(-away / (0.05 * len(numbers) + 1.0))
        chosen = rng.choice(len(members), len(rows), p=likely / likely.sum())
        for member in np.unique(chosen):
            same = rows[chosen == member]
            template = members[member] * 2.0 * covalent_radii[common]
            result[same] = grow(
                template[None],
                np.full(len(template), common),
                np.full(len(numbers), common),
                len(same),
                rng,
                min_distance=min_distance,
            )
    result *= covalent_radii[numbers].mean() / covalent_radii[common]
    return _vary(result, numbers, rng, min_distance, displacement)


def bulk_cuts(
    numbers: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    min_distance: float = 0.8,
    displacement: float = DISPLACEMENT,
) -> np.ndarray:
    """Cuts clusters out of crystals: ellipsoids, not far from balls, around random centres.

    The crystals are fcc, hcp and bcc, equally likely. Alloys, displacements, arguments, result and
    errors are those of `motifs`.
    """
    numbers = standardise(numbers, count, min_distance)
    n_atoms = len(numbers)
    result = np.empty([count, n_atoms, 3])
    crystal = rng.integers(len(_CRYSTALS), size=count)
    for place, name in enumerate(_CRYSTALS):
        rows = np.flatnonzero(crystal == place)
        lattice, cell = _lattice(name, n_atoms)
        centre = rng.random([len(rows), 3]) @ cell
        stretch = rotations(len(rows), rng) / rng.uniform(*_AXES, size=[len(rows), 1, 3])
        metric = stretch @ stretch.swapaxes(1, 2)
        # (x - c) M (x - c), without the term that is the same for all points x.
        squared = (
            metric.reshape(-1, 9) @ (lattice[:, :, None] * lattice[:, None, :]).reshape(-1, 9).T
        )
        squared -= 2.0 * np.einsum("nij,nj->ni", metric, centre) @ lattice.T
        result[rows] = lattice[np.argpartition(squared, n_atoms - 1, axis=1)[:, :n_atoms]]
    result *= 2.0 * covalent_radii[numbers].mean()
    return _vary(result, numbers, rng, min_distance, displacement)


def _vary(
    positions: np.ndarray,
    numbers: np.ndarray,
    rng: np.random.Generator,
    min_distance: float,
    displacement: float,
) -> np.ndarray:
    """Arranges the elements, displaces all atoms and pushes them apart: [n, N, 3], Å."""
    if not 0.0 <= displacement < np.inf:
        raise ValueError(f"displacement is {displacement!r}; a finite number >= 0 Å is needed")
    positions = positions - positions.mean(axis=1, keepdims=True)
    if (numbers != numbers[0]).any():
        positions = _arrange_elements(positions, numbers, rng)
    amount = rng.uniform(0.0, displacement, size=[len(positions), 1, 1])
    return separate(positions + amount * rng.normal(size=positions.shape), numbers, min_distance)


def _arrange_elements(
    positions: np.ndarray, numbers: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Orders the sites [n, N, 3] such that the elements `numbers` make a pattern on them."""
    n, n_atoms = positions.shape[:2]
    axis = rotations(n, rng)[:, 0]
    height = np.einsum("nai,ni->na", positions, axis)
    spacing = 2.0 * covalent_radii[numbers].mean() * np.sqrt(2.0 / 3.0)  # of close-packed layers
    patterns = np.stack(
        [
            rng.random([n, n_atoms]),
            np.linalg.norm(positions, axis=2),
            height,
            np.cos(np.pi * height / spacing + 2.0 * np.pi * rng.random([n, 1])),
        ]
    )
    score = patterns[rng.integers(len(patterns), size=n), np.arange(n)]
    # Which element comes first, in the core or on top, is random too.
    kinds, kind = np.unique(numbers, return_inverse=True)
    priority = np.argsort(rng.random([n, len(kinds)]), axis=1)[:, kind]
    result = np.empty_like(positions)
    atom, site = (np.argsort(a, axis=1, kind="stable")[:, :, None] for a in (priority, score))
    np.put_along_axis(result, atom, np.take_along_axis(positions, site, axis=1), axis=1)
    return result


@functools.lru_cache(maxsize=64)  # ASE takes a second and more to make them
def _families(n_atoms: int) -> list[list[np.ndarray]]:
    """Makes motifs of about `n_atoms` atoms: of each family some [M, 3], neighbours 1 apart."""
    limit = 2 * n_atoms + 20
    count = itertools.count
    families = [
        list(_until_larger(limit, (Icosahedron("Cu", shells) for shells in count(2)))),
        [
            atoms
            # Atoms along the axis (a decahedron without re-entrant corners needs two), length of
            # the facets along it, depth of the corners.
            for q, r in itertools.product(range(1, 6), range(3))
            for atoms in _until_larger(
                limit, (Decahedron("Cu", p, q, r) for p in count(1 + (r == 0)))
            )
        ],
        [
            atoms
            for cut in range(5)
            for atoms in _until_larger(
                limit, (Octahedron("Cu", n, cut) for n in count(2 * cut + 1))
            )
        ],
    ]
    wulff: dict[str, list[Atoms]] = {}
    for structure, symbol, surfaces, energies in _WULFF:
        # The next size above a single atom is at most 13.
        size = max(n_atoms, 13)
        shape = wulff_construction(symbol, list(surfaces), list(energies), size, structure)
        wulff.setdefault(structure, []).append(shape)
    return [_select_similar(n_atoms, family) for family in (*families, *wulff.values())]


def _until_larger(limit: int, shapes: Iterator[Atoms]) -> Iterator[Atoms]:
    """Yields larger and larger clusters of two or more atoms, the last one above the limit."""
    for atoms in shapes:
        if len(atoms) > 1:
            yield atoms
        if len(atoms) > limit:
            return


def _select_similar(n_atoms: int, family: list[Atoms]) -> list[np.ndarray]:
    """Selects motifs of similar size, scaled so that nearest neighbours are 1 apart: [M, 3]."""
    away = np.array([len(atoms) - n_atoms for atoms in family])
    near = np.abs(away) <= max(_SIMILAR_SIZE[0] * n_atoms, _SIMILAR_SIZE[1])
    for side in (away <= 0, away >= 0):
        if side.any():
            near |= side & (np.abs(away) == np.abs(away[side]).min())
    return [family[k].positions / pdist(family[k].positions).min() for k in np.flatnonzero(near)]


@functools.lru_cache(maxsize=64)
def _lattice(crystal: str, n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes the sites of a crystal [M, 3] around the origin, neighbours 1 apart, and its cell."""
    covera = {"covera": np.sqrt(8.0 / 3.0)} if crystal == "hcp" else {}
    spacing = {"fcc": np.sqrt(2.0), "hcp": 1.0, "bcc": 2.0 / np.sqrt(3.0)}[crystal]
    cell = unit_cell("X", crystal, spacing, **covera)
    # The longest semi-axis of an ellipsoid of that many atoms, and a cell for its centre.
    ball = np.cbrt(3.0 / (4.0 * np.pi) * n_atoms * cell.cell.volume / len(cell))
    reach = ball * _AXES[1] / _AXES[0] + np.linalg.norm(cell.cell.array, axis=1).sum()
    heights = cell.cell.volume / np.linalg.norm(
        np.cross(np.roll(cell.cell.array, -1, axis=0), np.roll(cell.cell.array, -2, axis=0)), axis=1
    )
    steps = [np.arange(-n, n + 1) for n in np.ceil(reach / heights).astype(int)]
    shifts = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    points = (shifts @ cell.cell.array + cell.positions).reshape(-1, 3)
    return points[np.linalg.norm(points, axis=1) <= reach], cell.cell.array
