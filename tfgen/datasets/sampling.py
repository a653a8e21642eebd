"""Random packings: start structures for relaxation, many at once."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

__all__ = ["SHAPES", "pack"]

SHAPES = ("compact", "oblate", "prolate", "planar")
"""Outlines of packings: balls, lenses, cigars, and flat discs one atom high."""

# Range of the axis ratio, of which one is drawn for each structure: thickness over width.
_RATIOS = {"compact": (1.0, 1.0), "oblate": (0.3, 0.8), "prolate": (1.5, 4.0)}
# Half the height of planar packings, in mean covalent radii: enough to leave the plane's saddle.
_PLANAR_HALF_HEIGHT = 0.2
# Sweeps of the push that separates atoms; what still overlaps then is scaled apart.
_SWEEPS = 200
# Share of an overlap that one sweep removes; below 1, as an atom has several neighbours.
_DAMPING = 0.7


def pack(
    numbers: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    shape: str = "compact",
    min_distance: float = 0.8,
    packing: float = 0.5,
) -> np.ndarray:
    """Packs atoms at random into ellipsoids such that none overlap.

    Atoms are drawn uniformly in an ellipsoid whose volume makes spheres of the covalent radii fill
    the share `packing` of it; pairs that are too close then push each other apart. Where an atom
    goes does not depend on its element, so alloys come out mixed at random.

    Args:
        numbers: [N], atomic numbers.
        count: number of packings.
        rng: the source of all randomness.
        shape: outline, one of `SHAPES`.
        min_distance: least distance of two atoms, in sums of their covalent radii.
        packing: share of the volume (of the area, for "planar") that the atoms fill.

    Returns:
        positions: [count, N, 3] float64, Å, centred on the origin, with no distance below
        `min_distance` times the sum of covalent radii.

    Raises:
        ValueError: on an unknown shape, no atoms, or a number out of its range.
    """
    numbers = np.asarray(numbers, int)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise ValueError(f"numbers has shape {numbers.shape}; [N] with N >= 1 is needed")
    if count < 1:
        raise ValueError(f"count is {count!r}; at least 1 is needed")
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}; one of {', '.join(SHAPES)} is needed")
    if not 0.0 < min_distance < np.inf:
        raise ValueError(f"min_distance is {min_distance!r}; a number above 0 is needed")
    if not 0.0 < packing <= 1.0:
        raise ValueError(f"packing is {packing!r}; a number above 0 and up to 1 is needed")
    radii = covalent_radii[numbers]
    axes = _semi_axes(radii, count, rng, shape, packing)
    # Uniform in the unit ball: a random direction, and a radius whose cube is uniform.
    unit = rng.normal(size=[count, len(numbers), 3])
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    unit *= rng.random([count, len(numbers), 1]) ** (1 / 3)
    return _separate(unit * axes[:, None, :], min_distance * (radii[:, None] + radii[None, :]))


def _semi_axes(
    radii: np.ndarray, count: int, rng: np.random.Generator, shape: str, packing: float
) -> np.ndarray:
    """Half axes of the ellipsoids: [count, 3], Å."""
    if shape == "planar":
        width = np.sqrt((radii**2).sum() / packing)
        height = _PLANAR_HALF_HEIGHT * radii.mean()
        return np.tile([width, width, height], [count, 1])
    ball = np.cbrt((radii**3).sum() / packing)
    ratio = rng.uniform(*_RATIOS[shape], size=count)
    # (w, w, ratio w) of the ball's volume.
    width = ball / np.cbrt(ratio)
    return np.stack([width, width, ratio * width], axis=1)


def _separate(positions: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Pushes atoms apart until every distance is at least `least` [N, N]: [n, N, 3], Å."""
    n_atoms = positions.shape[1]
    i, j = np.triu_indices(n_atoms, 1)
    if len(i) == 0:
        return positions - positions.mean(axis=1, keepdims=True)
    wanted = np.where(np.eye(n_atoms, dtype=bool), 0.0, least)
    moving = np.arange(len(positions))
    for _ in range(_SWEEPS):
        x = positions[moving]
        vector = x[:, :, None] - x[:, None, :]
        distance = np.sqrt((vector**2).sum(axis=3))
        overlap = np.maximum(wanted - distance, 0.0)
        close = overlap.any(axis=(1, 2))
        if not close.any():
            break
        moving, vector = moving[close], vector[close]
        push = 0.5 * _DAMPING * overlap[close] / np.maximum(distance[close], 1e-9)
        # A little further than touching, or the last bits would take for ever.
        positions[moving] += 1.02 * np.einsum("nij,nijk->nik", push, vector)
    positions = positions - positions.mean(axis=1, keepdims=True)
    distance = np.linalg.norm(positions[:, i] - positions[:, j], axis=2)
    shortest = (distance / least[i, j]).min(axis=1)
    # The guarantee; the factor is 1 but for the few that the sweeps did not separate.
    factor = np.where(shortest < 1.0, (1.0 + 1e-12) / np.maximum(shortest, 1e-6), 1.0)
    return positions * factor[:, None, None]
