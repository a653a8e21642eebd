"""From initial structures to minima: relax, take snapshots, and leave saddle points.

Nothing here needs TensorFlow until a batched potential is used, so that processes for ASE
calculators start at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import Atoms

from tfgen.datasets.recipe import Relax
from tfgen.datasets.settings import BuildSettings
from tfgen.potentials.ase import shared_potential
from tfgen.structures.similarity.equality import duplicates
from tfgen.structures.status import Status

if TYPE_CHECKING:
    from tfgen.potentials.base import Potential

__all__ = [
    "Found",
    "Relaxed",
    "Relaxer",
    "find_minima",
    "make_batched_potential",
    "make_relaxer",
]


class Relaxed(NamedTuple):
    """Structures after some steps of a relaxation.

    Attributes:
        structures: n structures.
        forces: for each [atoms, 3], eV/Å.
        energy: [n], eV.
        fmax: [n], largest force on an atom, eV/Å.
        status: [n] text, values of `Status`.
        detail: [n] text, what a calculator said that failed; "" otherwise.
    """

    structures: list[Atoms]
    forces: list[np.ndarray]
    energy: np.ndarray
    fmax: np.ndarray
    status: np.ndarray
    detail: np.ndarray

    def take(self, rows: np.ndarray) -> Relaxed:
        """Returns those in `rows`, a list of places."""
        structures, forces = [self.structures[i] for i in rows], [self.forces[i] for i in rows]
        return Relaxed(structures, forces, *(a[rows] for a in self[2:]))


class Found(NamedTuple):
    """What came of initial structures.

    Attributes:
        minima: one for each initial structure, as far as its status says so.
        snapshots: structures on the way to them.
        owner: [snapshots] int, from which initial structure each snapshot comes.
    """

    minima: Relaxed
    snapshots: Relaxed
    owner: np.ndarray


Relaxer = Callable[[list[Atoms], int], Relaxed]
"""Takes structures a number of steps towards their minima."""


def make_relaxer(relax: Relax, log: Path | None = None) -> Relaxer:
    """Returns what relaxes structures as a recipe wants it.

    Args:
        relax: of the recipe.
        log: a file to which what an ASE calculator prints is appended.

    Raises:
        ValueError: if the recipe's calculator cannot be made.
    """
    return _make_batched_relaxer(relax) if relax.batched else _make_ase_relaxer(relax, log)


def find_minima(
    relaxer: Relaxer,
    relax: Relax,
    structures: list[Atoms],
    rng: np.random.Generator,
    settings: BuildSettings,
) -> Found:
    """Relaxes structures, then rattles and relaxes them again until they come back.

    Args:
        relaxer: of `relax`.
        relax: of the recipe.
        structures: initial structures.
        rng: for the rattling.
        settings: how often structures are rattled.
    """
    found = _descend(relaxer, relax, structures)
    state = found.minima
    converged = np.flatnonzero(state.status == Status.CONVERGED)
    # Those that found the same minimum would only find it again.
    leader = np.arange(len(structures))
    same = duplicates([state.structures[i] for i in converged], settings.rattled_once_tolerance)
    leader[converged] = converged[same]
    moving = converged[leader[converged] == converged]
    returns = np.zeros(len(structures), int)
    for _ in range(settings.rattlings if relax.rattle else 0):
        if len(moving) == 0:
            break
        rattled = [_rattle(state.structures[i], relax.rattle, rng) for i in moving]
        result = relaxer(rattled, relax.max_steps)
        # A minimum is not given up for a rattled structure that does not converge.
        again = result.status == Status.CONVERGED
        back = np.abs(result.energy - state.energy[moving]) < settings.return_tolerance
        returns[moving] = np.where(back, returns[moving] + 1, 0)
        for row in np.flatnonzero(again):
            state.structures[moving[row]] = result.structures[row]
            state.forces[moving[row]] = result.forces[row]
        state.energy[moving[again]] = result.energy[again]
        state.fmax[moving[again]] = result.fmax[again]
        moving = moving[again & (returns[moving] < settings.returns)]
    # A leader has the status of those that follow it.
    return found._replace(minima=state.take(leader))


def _rattle(structure: Atoms, deviation: float, rng: np.random.Generator) -> Atoms:
    displacements = deviation * rng.normal(size=structure.positions.shape)
    return Atoms(structure.numbers, positions=structure.positions + displacements)


def _descend(relaxer: Relaxer, relax: Relax, structures: list[Atoms]) -> Found:
    """Relaxes structures and keeps snapshots on the way."""
    owners, shots, taken = [], [], 0
    for step in relax.snapshots:
        state = relaxer(structures, step - taken)
        structures, taken = state.structures, step
        owners.append(np.flatnonzero(state.status == Status.NOT_CONVERGED))
        shots.append(state.take(owners[-1]))
    state = relaxer(structures, relax.max_steps - taken)
    if not shots:
        none = np.zeros(0, int)
        return Found(state, state.take(none), none)
    seen = [atoms for shot in shots for atoms in shot.structures]
    forces = [force for shot in shots for force in shot.forces]
    rest = (np.concatenate(parts) for parts in zip(*(shot[2:] for shot in shots), strict=True))
    return Found(state, Relaxed(seen, forces, *rest), np.concatenate(owners))


def make_batched_potential(settings: Relax) -> Potential:
    """Returns the one of tfgen's own potentials that a recipe names."""
    from tfgen._tensorflow import load_quietly

    load_quietly()
    from tfgen.potentials.emt import EMT

    return {"emt": EMT}[settings.potential]()


def _make_batched_relaxer(settings: Relax) -> Relaxer:
    potential = make_batched_potential(settings)

    from tfgen.relaxation.relax import relax

    def relaxer(structures: list[Atoms], steps: int) -> Relaxed:
        result = relax(structures, potential, fmax=settings.fmax, max_steps=steps)
        return Relaxed(
            structures=list(result.structures),
            forces=list(result.forces),
            energy=np.array(result.energy),
            fmax=np.array(result.fmax),
            status=np.array(result.status),
            detail=np.array(result.detail),
        )

    return relaxer


def _make_ase_relaxer(settings: Relax, log: Path | None) -> Relaxer:
    # Made once in each process, and reset before each structure.
    potential = shared_potential(
        settings.potential, settings.arguments, vacuum=settings.vacuum, log=log
    )

    def relaxer(structures: list[Atoms], steps: int) -> Relaxed:
        found = [potential.relax(s, fmax=settings.fmax, max_steps=steps) for s in structures]
        return Relaxed(
            structures=[Atoms(f.structure.numbers, positions=f.structure.positions) for f in found],
            forces=[f.forces for f in found],
            energy=np.array([f.energy for f in found]),
            fmax=np.array([f.fmax for f in found]),
            status=np.array([f.status for f in found]),
            detail=np.array([f.detail for f in found]),
        )

    return relaxer
