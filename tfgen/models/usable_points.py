"""Which single-point calculations can be learned from, and what has to be told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from tfgen.models.settings import NNPSettings
from tfgen.models.single_points import SinglePoints

__all__ = ["find_usable", "measure_spread"]


def find_usable(points: SinglePoints, settings: NNPSettings) -> tuple[np.ndarray, dict[str, int]]:
    """Finds the calculations with a plausible energy, neither too high nor too low.

    A copy is compared with its original. An original may be wrong itself: one without an energy,
    far below the others of its composition, or far above most of its copies, is left out, and its
    copies are compared with the median of the composition instead.

    Args:
        points: the calculations.
        settings: with the limits.

    Returns:
        The rows, and how many others there are: "failed", "too_high", "too_low".
    """
    structures, family, originals = points.structures, points.family, points.originals
    # Not `> max_force`, which NaN is not.
    finite = np.isfinite(points.energy) & [
        bool((np.linalg.norm(f, axis=-1) <= settings.max_force).all()) for f in points.forces
    ]
    per_atom = np.where(finite, points.energy, np.nan) / [len(s) for s in structures]
    median, floor = np.full((2, originals), np.nan)
    for members in _by_composition(structures[:originals]):
        known = per_atom[members][finite[members]]
        if len(known):
            median[members] = np.median(known)
            deviation = np.median(np.abs(known - np.median(known)))
            floor[members] = np.median(known) - max(
                settings.max_deficit_energy, settings.max_deviations * deviation
            )
    copies, copied = per_atom[originals:], family[originals:]
    reference, above = per_atom[:originals].copy(), np.zeros(originals, bool)
    for i in range(originals):
        known = copies[(copied == i) & np.isfinite(copies)]
        below = known < reference[i] - settings.max_deficit_energy
        above[i] = below.sum() > max(1, len(known) / 2)  # a single one may be wrong itself
        if not np.isfinite(reference[i]) or reference[i] < floor[i] or above[i]:
            reference[i] = median[i]
    # What is compared with NaN, as nothing is known, is neither too high nor too low. Copies of
    # structures high above the median, which are no minima, may fall.
    excess = per_atom - reference[family]
    falls = (excess < -settings.max_deficit_energy) & (per_atom < median[family])
    too_low = finite & ((per_atom < floor[family]) | falls)
    too_high = finite & (excess >= settings.max_excess_energy)
    too_high[:originals] |= above
    left_out = {"failed": ~finite, "too_high": too_high & ~too_low, "too_low": too_low}
    rows = np.flatnonzero(finite & ~too_high & ~too_low)
    return rows, {name: int(found.sum()) for name, found in left_out.items()}


def measure_spread(structures: Sequence[Atoms], energy: np.ndarray, rows: np.ndarray) -> float:
    """Measures how much the energies of structures differ.

    Args:
        structures: of the energies.
        energy: [structures], eV.
        rows: which structures count.

    Returns:
        The mean absolute deviation from the median of the same composition, eV/atom; if most
        compositions occur once only, from the median of all. 0 if no structure counts.
    """
    if not len(rows):
        return 0.0
    per_atom = energy[rows] / [len(structures[i]) for i in rows]
    groups = [g for g in _by_composition([structures[i] for i in rows]) if len(g) > 1]
    if 2 * sum(map(len, groups)) < len(rows):
        groups = [np.arange(len(rows))]
    deviations = [np.abs(per_atom[g] - np.median(per_atom[g])) for g in groups]
    return float(np.concatenate(deviations).mean())


def _by_composition(structures: Sequence[Atoms]) -> list[np.ndarray]:
    """Returns the places of the structures of each composition."""
    found: dict[bytes, list[int]] = {}
    for i, structure in enumerate(structures):
        found.setdefault(np.sort(structure.numbers).tobytes(), []).append(i)
    return [np.array(members) for members in found.values()]
