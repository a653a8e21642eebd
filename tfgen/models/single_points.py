"""What an NNP is learned from: calculations that a data set has, and new ones on rattled copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from tfgen.models.settings import NNPSettings

__all__ = [
    "Calculate",
    "Calculated",
    "FewUsableError",
    "OtherPotentialError",
    "SinglePoints",
    "gather",
    "rattle",
]

Calculated: TypeAlias = tuple[np.ndarray, Sequence[np.ndarray]]
"""Energies [n], eV (NaN where there is none), and forces, a list of [atoms, 3], eV/Å."""

Calculate: TypeAlias = Callable[[Sequence[Atoms]], Calculated]
"""Maps structures to their energies and forces."""


class FewUsableError(ValueError):
    """Too few calculations are usable for an NNP."""


class OtherPotentialError(ValueError):
    """The potential gives other energies or forces than those that a data set has."""


@dataclass(frozen=True)
class SinglePoints:
    """Calculations that an NNP is learned from.

    Attributes:
        structures: n structures: first the originals, structures of the data set, then copies.
        energy: [n], eV; NaN where the calculation failed.
        forces: for each [atoms, 3], eV/Å.
        family: [n] int, the original that each belongs to: its own place, or that of what was
            copied.
        originals: how many the first are.
        calculated: number of new calculations.
        stored: number of calculations that the data set had.
        minima: share of the structures, copies apart, that are minima by the forces on them.
    """

    structures: list[Atoms]
    energy: np.ndarray
    forces: list[np.ndarray]
    family: np.ndarray
    originals: int
    calculated: int
    stored: int
    minima: float


def rattle(
    structures: Sequence[Atoms],
    copies: int,
    rng: np.random.Generator,
    amplitudes: tuple[float, float] = NNPSettings.amplitudes,
) -> list[Atoms]:
    """Returns copies of structures with all atoms displaced at random.

    Args:
        structures: what is copied.
        copies: of each structure.
        rng: source of randomness.
        amplitudes: range of the standard deviation of a coordinate's displacement, in covalent
            radii; each copy has a value of its own, uniform in the range.
    """
    result = []
    for structure in structures:
        for _ in range(copies):
            copy = structure.copy()
            deviation = rng.uniform(*amplitudes) * covalent_radii[copy.numbers]
            copy.positions += deviation[:, None] * rng.standard_normal(copy.positions.shape)
            result.append(copy)
    return result


def gather(
    structures: Sequence[Atoms],
    calculate: Calculate | None,
    known: Calculated | None,
    settings: NNPSettings,
    rng: np.random.Generator,
) -> SinglePoints:
    """Takes what a data set has, and calculates no more than is missing.

    Around minima, the NNP learns from rattled copies. Structures with forces above
    `settings.minimum_fmax`, such as snapshots of relaxations, take the place of copies, of which
    each minimum has at least one.

    Args:
        structures: clusters; if they are more than enough, a random sample of them is used.
        calculate: for what is missing; None: nothing is but what is known.
        known: energies and forces of the structures, NaN where they are not known; None: none
            are. A few of those with both are calculated again.
        settings: how many calculations there are to be, at least and at most.
        rng: of the sample and the displacements.

    Raises:
        FewUsableError: if there is no `calculate`, and what is known is too little.
        OtherPotentialError: if one of the few that were calculated again differs from what is
            known, or the energies of more than half of all that were calculated.
    """
    order = rng.permutation(len(structures))
    stored, checked = _Known.of(structures, known), 0
    if calculate is not None and stored.there.any():
        places = order[stored.there[order]][: settings.checked]
        checked = len(places)
        _require_same(structures, stored, places, calculate, settings)
    fmax = np.array([_largest(force) for force in stored.forces])
    passing = stored.there & (fmax > settings.minimum_fmax)
    if calculate is None:
        _require_enough(stored.there, passing)
        order = order[stored.there[order]]
    resting, others, copies = _share(order, passing, settings)
    copied = resting if len(resting) else others
    originals = np.concatenate([resting, others])
    chosen = [structures[i] for i in originals]
    missing = np.flatnonzero(~stored.there[originals])
    copies = 0 if calculate is None else copies
    rattled = rattle(chosen[: len(copied)], copies, rng, settings.amplitudes)
    family = np.concatenate([np.arange(len(chosen)), np.repeat(np.arange(len(copied)), copies)])
    energy = np.concatenate([stored.energy[originals], np.full(len(rattled), np.nan)])
    forces = [*(stored.forces[i] for i in originals), *(np.empty(0) for _ in rattled)]
    new = np.concatenate([missing, np.arange(len(chosen), len(family))])
    everything = [*chosen, *rattled]
    if calculate is not None and len(new):
        energy[new], found = calculate([everything[i] for i in new])
        for i, force in zip(new, found, strict=True):
            forces[i] = force
        off = np.abs(energy - np.append(stored.energy[originals], [np.nan] * len(rattled)))
        off = (off / [len(structure) for structure in everything])[missing]
        off = off[np.isfinite(off)]
        if len(off) and np.median(off) > settings.max_energy_difference:
            raise OtherPotentialError(
                f"its energies differ from those of the data set by {np.median(off):.3g} eV/atom "
                "on average (median)"
            )
    fmax[originals] = [_largest(force) for force in forces[: len(chosen)]]
    judged = stored.there.copy()
    judged[originals] = True
    judged &= np.isfinite(fmax)
    return SinglePoints(
        structures=everything,
        energy=energy,
        forces=forces,
        family=family,
        originals=len(chosen),
        calculated=checked + len(new),
        stored=len(chosen) - len(missing),
        minima=float(np.mean(fmax[judged] <= settings.minimum_fmax)) if judged.any() else 0.0,
    )


class _Known(NamedTuple):
    """What is known of structures: [n] energies, forces, and [n] bool, whether both are."""

    energy: np.ndarray
    forces: list[np.ndarray]
    there: np.ndarray

    @classmethod
    def of(cls, structures: Sequence[Atoms], known: Calculated | None) -> _Known:
        if known is None:
            nothing = [np.full(s.positions.shape, np.nan) for s in structures]
            return cls(np.full(len(nothing), np.nan), nothing, np.zeros(len(nothing), bool))
        energy, forces = np.asarray(known[0], float), list(known[1])
        finite = [bool(np.isfinite(force).all()) for force in forces]
        return cls(energy, forces, np.isfinite(energy) & finite)


def _largest(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces, axis=1).max(initial=0.0))


def _require_same(
    structures: Sequence[Atoms],
    stored: _Known,
    places: np.ndarray,
    calculate: Calculate,
    settings: NNPSettings,
) -> None:
    """Raises OtherPotentialError unless a few calculations give what is known."""
    energy, forces = calculate([structures[i] for i in places])
    succeeded = 0
    for i, new_energy, new_forces in zip(places, energy, forces, strict=True):
        if not (np.isfinite(new_energy) and np.isfinite(new_forces).all()):
            continue
        succeeded += 1
        off = abs(new_energy - stored.energy[i]) / len(structures[i])
        if off > settings.max_energy_difference:
            raise OtherPotentialError(
                f"its energy of a structure differs from that of the data set by {off:.3g} eV/atom"
            )
        off = _largest(new_forces - stored.forces[i])
        if off > settings.max_force_difference:
            raise OtherPotentialError(
                f"a force differs from that of the data set by {off:.3g} eV/Å"
            )
    if not succeeded:
        raise OtherPotentialError(
            f"the {len(places)} calculations that were to check the data set's energies and forces "
            "all failed"
        )


def _require_enough(there: np.ndarray, passing: np.ndarray) -> None:
    if passing.sum() < max(1, (there & ~passing).sum()):
        raise FewUsableError(
            f"there is no potential, and of the {int(there.sum())} structures with known forces "
            f"{int(passing.sum())} are no minima; at least half of them have to be"
        )


def _share(
    order: np.ndarray, passing: np.ndarray, settings: NNPSettings
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the minima, the structures in place of copies, and the copies of each minimum.

    If there are no minima, the others are copied as often as it takes.
    """
    resting, others = order[~passing[order]], order[passing[order]]
    resting = resting[: max(1, settings.max_calculations // (1 + settings.copies))]
    others = others[: max(0, settings.max_calculations - 2 * len(resting))]
    wanted = max(settings.min_calculations, len(resting) * (1 + settings.copies))
    missing = wanted - len(resting) - len(others)
    copies = -(-missing // len(resting if len(resting) else others))
    return resting, others, max(copies, 1 if len(resting) else 0)
