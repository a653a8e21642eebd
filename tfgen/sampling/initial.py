"""Initial structures, many at once: random ones, motifs of nanoparticles, pieces of crystals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii

from tfgen.sampling.motifs import DISPLACEMENT, bulk_cuts, motifs
from tfgen.sampling.sites import separate, standardise

__all__ = ["KINDS", "SHAPES", "initial_structures", "random_structures"]

KINDS = ("packing", "motif", "bulk")
"""Kinds of initial structures: random ones, motifs of nanoparticles, pieces of crystals."""

SHAPES = ("compact", "oblate", "prolate", "planar")
"""Outlines of random structures: balls, lenses, cigars, and discs one atom high."""

# The range from which the ratio of axes, thickness over width, of each structure is sampled.
_RATIOS = {"compact": (1.0, 1.0), "oblate": (0.3, 0.8), "prolate": (1.5, 4.0)}
# Half the height of planar structures, in mean covalent radii. Exactly in a plane, no force would
# ever push an atom out of it.
_PLANAR_HALF_HEIGHT = 0.2


def initial_structures(
    numbers: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    kinds: Sequence[str] = ("packing",),
    shapes: Sequence[str] = ("compact", "oblate", "prolate"),
    min_distance: float = 0.8,
    packing: float = 0.5,
    displacement: float = DISPLACEMENT,
    first: int = 0,
) -> np.ndarray:
    """Makes initial structures of several kinds, which take turns.

    Args:
        numbers: [N], atomic numbers.
        count: number of structures.
        rng: the source of all randomness.
        kinds: of `KINDS`: "packing" (see `random_structures`), "motif" (see `motifs.motifs`),
            "bulk" (see `motifs.bulk_cuts`).
        shapes: outlines of the random structures, of `SHAPES`; they take turns as well.
        min_distance: smallest distance of two atoms, in sums of their covalent radii.
        packing: share of the volume that the atoms of a random structure fill.
        displacement: of the atoms of motifs and pieces of crystals, as in `motifs.motifs`.
        first: the place of the first one in a longer sequence of structures, which says whose turn
            it is: structure k is of kind k modulo the number of kinds.

    Returns:
        [count, N, 3] float64, Å, atoms in the order of `numbers`, centred on the origin, no atoms
        closer than `min_distance` times the sum of covalent radii.

    Raises:
        ValueError: on an unknown kind or shape, none, no atoms, or a number out of its range.
    """
    numbers = standardise(numbers, count, min_distance)
    for name, given, known in (("kinds", kinds, KINDS), ("shapes", shapes, SHAPES)):
        if len(given) == 0 or not set(given) <= set(known):
            raise ValueError(
                f"{name} is {list(given)!r}; one or more of {', '.join(known)} are needed"
            )
    if first < 0:
        raise ValueError(f"first is {first!r}; a whole number >= 0 is needed")
    ordered = {"min_distance": min_distance, "displacement": displacement}
    round_, turn = np.divmod(first + np.arange(count), len(kinds))
    positions = np.empty([count, len(numbers), 3])
    for place, kind in enumerate(kinds):
        rows = np.flatnonzero(turn == place)
        if len(rows) == 0:
            continue
        if kind == "motif":
            positions[rows] = motifs(numbers, len(rows), rng, **ordered)
        elif kind == "bulk":
            positions[rows] = bulk_cuts(numbers, len(rows), rng, **ordered)
        else:
            for number, shape in enumerate(shapes):
                same = rows[round_[rows] % len(shapes) == number]
                if len(same):
                    positions[same] = random_structures(
                        numbers,
                        len(same),
                        rng,
                        shape=shape,
                        min_distance=min_distance,
                        packing=packing,
                    )
    return positions


def random_structures(
    numbers: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    shape: str = "compact",
    min_distance: float = 0.8,
    packing: float = 0.5,
) -> np.ndarray:
    """Packs atoms at random into ellipsoids such that none overlap.

    Positions are sampled uniformly in an ellipsoid of which spheres of the covalent radii fill the
    share `packing`; pairs that are too close then push each other apart. The position of an atom
    does not depend on its element, so alloys are mixed at random.

    Args:
        numbers: [N], atomic numbers.
        count: number of structures.
        rng: the source of all randomness.
        shape: outline, one of `SHAPES`.
        min_distance: smallest distance of two atoms, in sums of their covalent radii.
        packing: share of the volume (of the area, for "planar") that the atoms fill.

    Returns:
        [count, N, 3] float64, Å, centred on the origin, with no distance below
        `min_distance` times the sum of covalent radii.

    Raises:
        ValueError: on an unknown shape, no atoms, or a number out of its range.
    """
    numbers = standardise(numbers, count, min_distance)
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}; one of {', '.join(SHAPES)} is needed")
    if not 0.0 < packing <= 1.0:
        raise ValueError(f"packing is {packing!r}; a number above 0 and up to 1 is needed")
    radii = covalent_radii[numbers]
    axes = _semi_axes(radii, count, rng, shape, packing)
    # Uniform in the unit ball: a random direction, and a radius whose cube is uniform.
    unit = rng.normal(size=[count, len(numbers), 3])
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    unit *= rng.random([count, len(numbers), 1]) ** (1 / 3)
    return separate(unit * axes[:, None, :], numbers, min_distance)


def _semi_axes(
    radii: np.ndarray, count: int, rng: np.random.Generator, shape: str, packing: float
) -> np.ndarray:
    """Samples the semi-axes of the ellipsoids: [count, 3], Å."""
    if shape == "planar":
        width = np.sqrt((radii**2).sum() / packing)
        height = _PLANAR_HALF_HEIGHT * radii.mean()
        return np.tile([width, width, height], [count, 1])
    ball = np.cbrt((radii**3).sum() / packing)
    ratio = rng.uniform(*_RATIOS[shape], size=count)
    # (w, w, ratio w) of the ball's volume.
    width = ball / np.cbrt(ratio)
    return np.stack([width, width, ratio * width], axis=1)
