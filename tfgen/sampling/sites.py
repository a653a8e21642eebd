"""Places of atoms in whole batches: separating atoms, counting contacts, adding atoms."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

__all__ = [
    "CONTACT",
    "OVERLAP",
    "add_atom",
    "contacts",
    "places",
    "rotations",
    "separate",
    "standardise",
]

CONTACT = 1.25
"""Atoms touch up to this times the sum of their covalent radii: within the first shell."""

OVERLAP = 0.82
"""A place nearer to an atom than this, in sums of covalent radii, is not free."""

# Sweeps in which overlapping atoms push each other apart; then a structure that still has overlaps
# is scaled up.
_SWEEPS = 200
# The share of an overlap that one sweep removes: below 1, as an atom has several neighbours.
_DAMPING = 0.7
# Random places tried for an added atom: enough to find a hollow between three atoms.
_TRIALS = 40
# Pairs held at once by `separate`: few enough for a processor's cache.
_CACHED = 100_000
# Random places tried to find all free ones, and the edge, Å, of the cubes of which each keeps one.
_TRIED, _EDGE = 3000, 0.5
# The contacts that a place in a hollow of the surface has at least.
_HOLLOW = 3
# Numbers held at once by `add_atom`: about 100 MB of temporaries.
_CHUNK = 4_000_000


def standardise(numbers: np.ndarray, count: int, min_distance: float) -> np.ndarray:
    """Checks the arguments that all functions here share; returns the atomic numbers as [N] int.

    Raises:
        ValueError: if there are no atoms, `count` is below 1 or `min_distance` no positive number.
    """
    numbers = np.asarray(numbers, int)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise ValueError(f"numbers has shape {numbers.shape}; [N] with N >= 1 is needed")
    if numbers.min() < 1 or numbers.max() >= len(covalent_radii):
        raise ValueError(
            f"numbers holds {[n for n in numbers.tolist() if not 0 < n < len(covalent_radii)]}; "
            f"atomic numbers from 1 to {len(covalent_radii) - 1} are needed"
        )
    if count < 1:
        raise ValueError(f"count is {count!r}; at least 1 is needed")
    if not 0.0 < min_distance < np.inf:
        raise ValueError(f"min_distance is {min_distance!r}; a number above 0 is needed")
    return numbers


def separate(positions: np.ndarray, numbers: np.ndarray, min_distance: float) -> np.ndarray:
    """Pushes atoms apart until none overlap, and centres the structures.

    Pairs that are too close push each other apart, in sweeps over all pairs; a structure that has
    overlaps after the last sweep is scaled up as a whole.

    Args:
        positions: [n, N, 3], Å; left unmodified.
        numbers: [N], atomic numbers.
        min_distance: smallest distance of two atoms, in sums of their covalent radii.

    Returns:
        [n, N, 3], Å, centred on the origin.
    """
    positions = np.array(positions, np.float64)
    positions -= positions.mean(axis=1, keepdims=True)
    n_atoms = len(numbers)
    i, j = np.triu_indices(n_atoms, 1)
    if len(i) == 0:
        return positions
    radii = covalent_radii[numbers]
    least = min_distance * (radii[:, None] + radii[None, :])
    step = max(1, _CACHED // n_atoms**2)
    for start in range(0, len(positions), step):
        _push_apart(positions[start : start + step], least)
    positions -= positions.mean(axis=1, keepdims=True)
    distance = np.linalg.norm(positions[:, i] - positions[:, j], axis=2)
    shortest = (distance / least[i, j]).min(axis=1)
    # Guarantees the distances; the factor is 1 except where the sweeps did not separate all atoms.
    factor = np.where(shortest < 1.0, (1.0 + 1e-12) / np.maximum(shortest, 1e-6), 1.0)
    return positions * factor[:, None, None]


def _push_apart(positions: np.ndarray, least: np.ndarray) -> None:
    """Moves atoms of [n, N, 3] in place, in sweeps, until all distances are at least [N, N]."""
    atoms = np.arange(len(least))
    moving = np.arange(len(positions))
    for _ in range(_SWEEPS):
        x = positions[moving]
        # Products of matrices are much cheaper than all the vectors between atoms.
        squares = np.einsum("nai,nai->na", x, x)
        squared = squares[:, :, None] + squares[:, None, :] - 2.0 * (x @ x.swapaxes(1, 2))
        squared[:, atoms, atoms] = np.inf
        distance = np.sqrt(np.maximum(squared, 1e-18))
        # A little further than contact: in steps to contact itself it would never be reached.
        push = np.where(distance < least, 0.5 * _DAMPING * (1.02 * least / distance - 1.0), 0.0)
        total = push.sum(axis=2)
        close = total.any(axis=1)
        if not close.any():
            return
        moving, x, push, total = moving[close], x[close], push[close], total[close]
        positions[moving] = x + total[:, :, None] * x - push @ x


def contacts(positions: np.ndarray, radii: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Counts the atoms that each atom touches.

    Args:
        positions: [n, N, 3], Å.
        radii: [n, N], covalent radii, Å.
        present: [n, N] bool, the atoms that are there.

    Returns:
        [n, N] int; 0 for atoms that are not there.
    """
    squared = ((positions[:, :, None] - positions[:, None, :]) ** 2).sum(axis=3)
    touching = squared <= (CONTACT * (radii[:, :, None] + radii[:, None, :])) ** 2
    touching &= present[:, :, None] & present[:, None, :]
    return touching.sum(axis=2) - present


def add_atom(
    positions: np.ndarray,
    radii: np.ndarray,
    present: np.ndarray,
    place: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Puts one atom of each structure onto its surface, in place.

    Many places at contact with random atoms are tried. Of those without overlap, the one with the
    most contacts is taken; in a random part of the structures contacts count less than chance, so
    that some atoms end up on top of one atom or on a bridge of two.

    Args:
        positions: [n, N, 3], Å; the atom at `place` gets its new position.
        radii: [n, N], covalent radii, Å.
        present: [n, N] bool, the atoms that are there, at least one other; that at `place` is set.
        place: [n] int, the atom to put.
        rng: the source of all randomness.
    """
    step = max(1, _CHUNK // (_TRIALS * positions.shape[1] * 3))
    whole = (positions, radii, present, place)
    for start in range(0, len(positions), step):
        positions, radii, present, place = (x[start : start + step] for x in whole)
        n = len(present)
        rows = np.arange(n)
        present[rows, place] = False
        # Hosts: random atoms among those that are there.
        weight = np.cumsum(present, axis=1)
        rank = (rng.random([n, _TRIALS]) * weight[:, -1:]).astype(int)
        host = (rank[:, :, None] >= weight[:, None, :]).sum(axis=2)
        outward = rng.normal(size=[n, _TRIALS, 3])
        outward /= np.linalg.norm(outward, axis=2, keepdims=True)
        own = radii[rows, place]
        touch = radii + own[:, None]
        trial = positions[rows[:, None], host] + outward * touch[rows[:, None], host, None]
        squared = ((trial[:, :, None] - positions[:, None, :]) ** 2).sum(axis=3)
        relative = np.sqrt(squared) / touch[:, None, :]
        relative[np.broadcast_to(~present[:, None, :], relative.shape)] = np.inf
        # A penalty and no exclusion: if every place overlaps, the one with the least overlap wins.
        overlap = np.maximum(0.9 - relative, 0.0).max(axis=2)
        touching = (relative <= CONTACT).sum(axis=2)
        chance = rng.choice([0.5, 8.0], size=[n, 1], p=[0.7, 0.3])
        score = touching + chance * rng.random([n, _TRIALS]) - 100.0 * overlap
        best = score.argmax(axis=1)
        positions[rows, place] = trial[rows, best]
        present[rows, place] = True


def places(
    positions: np.ndarray, radii: np.ndarray, radius: float, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Finds where one more atom could be: at contact with an atom, without overlap.

    Hollows between three and more atoms come first, then bridges and the rest. Of places in the
    same cube of half an ångström one is kept.

    Args:
        positions: [N, 3], Å.
        radii: [N], covalent radii, Å.
        radius: covalent radius of the new atom, Å.
        wanted: the largest number of places.
        rng: the source of all randomness.

    Returns:
        [places, 3], Å; all of them in hollows if there are that many hollows.
    """
    host = rng.integers(len(positions), size=_TRIED)
    touch = radii + radius
    trial = positions[host] + _unit(rng.normal(size=[_TRIED, 3])) * touch[host, None]
    relative = np.linalg.norm(trial[:, None] - positions, axis=2) / touch
    free = (relative > OVERLAP).all(axis=1)
    trial, hollow = trial[free], (relative[free] <= CONTACT).sum(axis=1) >= _HOLLOW
    trial = trial[np.argsort(~hollow, kind="stable")]
    _, first = np.unique(np.floor(trial / _EDGE), axis=0, return_index=True)
    first = np.sort(first)
    hollows = np.searchsorted(first, hollow.sum())
    if hollows > wanted:  # at random: in their order, the widest hollows would come first
        first = rng.permutation(first[:hollows])
    return trial[first[:wanted]]


def rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """Samples rotation matrices, uniformly distributed: [count, 3, 3]."""
    w, x, y, z = np.moveaxis(_unit(rng.normal(size=[count, 4])), 1, 0)
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1),
        ],
        axis=1,
    )


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
