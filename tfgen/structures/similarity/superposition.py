"""Superposes clusters: translation, rotation, reflection, and which atom lies on which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

__all__ = ["align", "displacements", "require_finite", "rmsd"]

# Distances held at once: about 64 MB.
_HELD = 8_000_000


def rmsd(a: Atoms, b: Atoms, orientations: int = 200, seed: int = 0) -> float:
    """Computes the root mean square distance of matched atoms between two clusters.

    It is minimal over translation, rotation, reflection and permutation of like atoms, as far as
    this is found: from many initial orientations, the best assignment of like atoms (Hungarian
    algorithm) and the best orthogonal transformation (Kabsch) alternate until neither changes, and
    the best result counts. Among the orientations are those that superpose two atoms of `a` with
    every pair of like atoms of `b`, so that copies of a structure are always recognised.

    Args:
        a: a cluster.
        b: a cluster of the same composition.
        orientations: number of initial orientations that are refined: those with the smallest mean
            distance to the nearest like atom.
        seed: of the random orientations.

    Returns:
        The distance, Å.

    Raises:
        ValueError: if the compositions differ, a structure is periodic, has no atoms, or positions
            that are not finite.

    References:
        Kabsch, W. A solution for the best rotation to relate two sets of vectors. Acta Cryst. A 32,
        922 (1976), https://doi.org/10.1107/S0567739476001873
    """
    return _superpose(a, b, orientations, seed)[0]


def displacements(before: Sequence[Atoms], after: Sequence[Atoms]) -> np.ndarray:
    """Computes how far the atoms of each structure have moved relative to each other.

    This is the root mean square displacement, minimal over translation and rotation of the whole.
    Atoms correspond as they are listed, which makes it much cheaper than `rmsd`; the two differ
    where atoms have swapped places, or where the mirror image lies closer.

    Args:
        before: clusters of any sizes.
        after: the same clusters later.

    Returns:
        [n], Å.

    Raises:
        ValueError: if there are not as many, or the atoms of one are not those of the other, it
            is periodic, has no atoms, or positions that are not finite.

    References:
        As of `rmsd`.
    """
    require_finite(before, "before")
    require_finite(after, "after")
    if len(before) != len(after):
        raise ValueError(f"{len(after)} structures after for {len(before)} before")
    for i, (one, other) in enumerate(zip(before, after, strict=True)):
        if not np.array_equal(one.numbers, other.numbers):
            raise ValueError(f"after[{i}] does not have the atoms of before[{i}]")
        if one.pbc.any() or other.pbc.any():
            raise ValueError(f"before[{i}] or after[{i}] is periodic; clusters are needed")
    sizes = np.array([len(s) for s in before], int)
    result = np.empty(len(before))
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        x, y = (np.array([s[m].positions for m in members.tolist()]) for s in (before, after))
        x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
        left, values, right = np.linalg.svd(np.swapaxes(x, 1, 2) @ y)
        # A reflection would fit some better, but no motion turns a structure into its mirror image.
        values[:, 2] *= np.sign(np.linalg.det(left @ right))
        squared = (x**2).sum(axis=(1, 2)) + (y**2).sum(axis=(1, 2)) - 2.0 * values.sum(axis=1)
        result[members] = np.sqrt(np.maximum(squared, 0.0) / size)
    return result


def align(
    a: Atoms, b: Atoms, orientations: int = 200, seed: int = 0, screened: int | None = None
) -> Atoms:
    """Returns a copy of `a` that is rotated (or reflected) and shifted onto `b`, as in `rmsd`.

    Args:
        a: a cluster.
        b: a cluster of the same composition.
        orientations: as of `rmsd`.
        seed: as of `rmsd`.
        screened: the largest number of orientations from which those to refine are chosen; all of
            those of `rmsd` if None. With few, the result may be less than the best.

    Raises:
        ValueError: as `rmsd` does.
    """
    _, rotation = _superpose(a, b, orientations, seed, screened)
    copy = a.copy()
    copy.positions = (a.positions - a.positions.mean(axis=0)) @ rotation + b.positions.mean(axis=0)
    return copy


def _superpose(
    a: Atoms, b: Atoms, orientations: int, seed: int, screened: int | None = None
) -> tuple[float, np.ndarray]:
    """Superposes `a` with `b`; returns their distance, Å, and the orthogonal matrix [3, 3]."""
    require_finite([a], "a")
    require_finite([b], "b")
    if a.pbc.any() or b.pbc.any():
        raise ValueError("rmsd compares clusters; a periodic structure was given")
    if sorted(a.numbers) != sorted(b.numbers):
        raise ValueError(
            f"rmsd compares structures of one composition; got {a.get_chemical_formula()} and "
            f"{b.get_chemical_formula()}"
        )
    x, y = (s.positions[np.argsort(s.numbers, kind="stable")] for s in (a, b))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    numbers = np.sort(a.numbers)
    unlike = numbers[:, None] != numbers[None, :]
    rng = np.random.default_rng(seed)
    rotations = _initial_rotations(x, y, unlike, rng, orientations)
    if screened is not None and len(rotations) > screened:
        rotations = rng.permutation(rotations)[: max(1, screened)]
    best, best_rotation = np.inf, np.eye(3)
    for initial in _most_promising(rotations, x, y, unlike, orientations):
        rotation, previous, reached = initial, np.inf, initial
        while True:
            squared = cdist(x @ rotation, y, "sqeuclidean")
            squared[unlike] = 1e9
            _, partner = linear_sum_assignment(squared)
            # The best orthogonal matrix, improper ones included: no sign correction.
            left, _, right = np.linalg.svd(x.T @ y[partner])
            rotation = left @ right
            value = float(np.sqrt(((x @ rotation - y[partner]) ** 2).sum(axis=1).mean()))
            if value > previous - 1e-9:
                break
            previous, reached = value, rotation
        if previous < best:
            best, best_rotation = previous, reached
    return best, best_rotation


def _initial_rotations(
    x: np.ndarray, y: np.ndarray, unlike: np.ndarray, rng: np.random.Generator, count: int
) -> np.ndarray:
    """Makes orthogonal matrices R such that x @ R may resemble y: [rotations, 3, 3]."""
    quaternions = rng.normal(size=[max(1, count), 4])
    found = [Rotation.from_quat(quaternions).as_matrix()]
    # The two atoms that span the widest triangle with the centre, with all pairs of like atoms.
    area = np.linalg.norm(np.cross(x[:, None], x[None, :]), axis=-1)
    first, second = np.unravel_index(area.argmax(), area.shape)
    k, m = np.nonzero(~unlike[first][:, None] & ~unlike[second][None, :])
    spans = np.linalg.norm(np.cross(y[k], y[m]), axis=-1)
    if area.max() > 1e-6 and (spans > 1e-6).any():
        k, m = k[spans > 1e-6], m[spans > 1e-6]
        mine = _frames(x[[first]], x[[second]])
        found.append(np.swapaxes(mine, 1, 2) @ _frames(y[k], y[m]))
        mine[:, 2] *= -1.0
        found.append(np.swapaxes(mine, 1, 2) @ _frames(y[k], y[m]))
    return np.concatenate([*found, -found[0]])


def _frames(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Makes orthonormal rows, the first along u, the second in the plane of u and v: [n, 3, 3]."""
    first = u / np.linalg.norm(u, axis=1, keepdims=True)
    third = np.cross(first, v)
    third /= np.linalg.norm(third, axis=1, keepdims=True)
    return np.stack([first, np.cross(third, first), third], axis=1)


def _most_promising(
    rotations: np.ndarray, x: np.ndarray, y: np.ndarray, unlike: np.ndarray, count: int
) -> np.ndarray:
    cost = np.empty(len(rotations))
    step = max(1, _HELD // (4 * len(x) ** 2))
    for start in range(0, len(rotations), step):
        turned = x @ rotations[start : start + step]
        squared = ((turned[:, :, None] - y[None, None]) ** 2).sum(axis=-1)
        squared[:, unlike] = np.inf
        cost[start : start + step] = np.sqrt(squared.min(axis=2)).mean(axis=1)
    return rotations[np.argsort(cost, kind="stable")[: max(1, count)]]


def require_finite(structures: Sequence[Atoms], name: str) -> None:
    """Raises ValueError if a structure has no atoms, or positions that are not finite."""
    for i, structure in enumerate(structures):
        if len(structure) == 0:
            raise ValueError(f"{name}[{i}] has no atoms; there is nothing to compare")
        if not np.isfinite(structure.positions).all():
            raise ValueError(f"{name}[{i}] has positions that are not finite")
