"""Relaxation of whole batches to local minima of a potential."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import cast

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixAtoms
from tqdm import tqdm

from tfgen._tensorflow import threads
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.base import Potential
from tfgen.potentials.emt import EMT
from tfgen.potentials.evaluation import adapt_potential
from tfgen.potentials.outcomes import NOT_FINITE, warn_of_failures
from tfgen.relaxation.lbfgs import DRIFT, SKIN, Lbfgs, Motion, lbfgs
from tfgen.relaxation.settings import RelaxationSettings
from tfgen.structures.batch import Group, Neighbours, StructureBatch, groups
from tfgen.structures.checks import as_structures
from tfgen.structures.status import Status

__all__ = ["RelaxationResult", "relax"]


@dataclass(frozen=True, kw_only=True)
class RelaxationResult:
    """What `relax` returns, one entry per structure in the order given.

    Attributes:
        structures: copies with relaxed positions.
        energy: [structures], eV, at those positions.
        forces: for each structure [atoms, 3], eV/Å, 0 on atoms under `FixAtoms`; NaN where an ASE
            calculator raised an error.
        fmax: [structures], largest force on an atom, eV/Å.
        steps: [structures] int, steps taken, those included that were taken back.
        status: converged, not converged (after `max_steps` steps), or calculator failed (no finite
            energy and forces were found, or an ASE calculator raised an error).
        detail: for each structure, what was wrong with the energy and forces; "" if nothing was.
        calculations: [structures] int, geometries whose energy and forces were computed.
    """

    structures: list[Atoms]
    energy: np.ndarray
    forces: list[np.ndarray]
    fmax: np.ndarray
    steps: np.ndarray
    status: list[Status]
    detail: list[str]
    calculations: np.ndarray

    @property
    def converged(self) -> np.ndarray:
        """[structures] bool, whether `fmax` was reached within `max_steps`."""
        return np.array([status == Status.CONVERGED for status in self.status])


def relax(
    structures: Atoms | Sequence[Atoms],
    potential: Potential | AsePotential | BaseCalculator | None = None,
    *,
    fmax: float = 0.01,
    max_steps: int = 2000,
    settings: RelaxationSettings | None = None,
    progress: bool = False,
) -> RelaxationResult:
    """Relaxes structures at fixed cell until no force on an atom exceeds `fmax`.

    A potential of tfgen's kind moves batches of structures at once by L-BFGS, in as many threads
    as TensorFlow uses (`tf.config.threading`); those that have converged make room for the next.
    Neither the other structures nor the number of threads change how a structure moves. Steps that
    lead up in energy are taken back, and no atom moves further than 0.2 Å in one step. An ASE
    calculator moves one structure after the other by ASE's BFGS and is reset before each. Either
    way a saddle point with forces below `fmax` counts as converged: rattle the structure
    (`Atoms.rattle`) and relax it again to find out.

    Args:
        structures: any mix of sizes and elements; left unmodified. Atoms under `FixAtoms` stay.
        potential: a potential of tfgen's kind, an ASE calculator, or an
            `tfgen.potentials.ase.AsePotential`; `EMT()` if None. A structure for which an ASE
            calculator raises an error is not converged, and its energy is NaN.
        fmax: eV/Å.
        max_steps: bound on the steps of each structure.
        settings: how many structures a potential of tfgen's kind moves at once; the defaults if
            None.
        progress: show a progress bar.

    Returns:
        The minima found, with energies and whether they converged.

    Raises:
        ValueError: on bad structures, elements the potential does not know, constraints that it
            does not (tfgen's potentials know `FixAtoms`), fmax <= 0, max_steps < 0,
            or what is no potential.

    References:
        D. C. Liu, J. Nocedal, Math. Program. 45, 503 (1989). DOI 10.1007/BF01589116
    """
    structures = as_structures(structures)
    potential = adapt_potential("potential", potential) or EMT()
    if not (isinstance(fmax, Real) and np.isfinite(fmax) and fmax > 0):
        raise ValueError(f"fmax is {fmax!r}; a positive number of eV/Å is needed")
    if not isinstance(max_steps, Integral) or max_steps < 0:
        raise ValueError(f"max_steps is {max_steps!r}; a whole number >= 0 is needed")
    bar = tqdm(total=len(structures), desc="relaxing", unit="", disable=not progress)
    with bar:
        if isinstance(potential, AsePotential):
            return _relax_with_ase(structures, potential, fmax, max_steps, bar)
        settings = settings or RelaxationSettings()
        return _relax_in_batches(structures, potential, fmax, max_steps, settings, bar)


def _relax_with_ase(
    structures: list[Atoms], potential: AsePotential, fmax: float, max_steps: int, bar: tqdm
) -> RelaxationResult:
    found = potential.relax_all(structures, fmax=fmax, max_steps=max_steps, advance=bar.update)
    warn_of_failures([one.detail for one in found], stacklevel=4)
    return RelaxationResult(
        structures=[one.structure for one in found],
        energy=np.array([one.energy for one in found]),
        forces=[one.forces for one in found],
        fmax=np.array([one.fmax for one in found]),
        steps=np.array([one.steps for one in found]),
        status=[one.status for one in found],
        detail=[one.detail for one in found],
        calculations=np.array([one.calculations for one in found], int),
    )


def _relax_in_batches(
    structures: list[Atoms],
    potential: Potential,
    fmax: float,
    max_steps: int,
    settings: RelaxationSettings,
    bar: tqdm,
) -> RelaxationResult:
    potential.check(structures)
    free = [_free_atoms(i, s) for i, s in enumerate(structures)]
    optimizer = lbfgs(potential)
    runs = []
    for group in groups(structures):
        places = settings.batch_size(group.width)
        # Interleaved, so that each thread has its share of whatever comes in a row.
        shares = min(threads(), -(-len(group.members) // places))
        for k in range(shares):
            part = group._replace(members=group.members[k::shares])
            reach = potential.r_cut + SKIN
            runs.append(_Run(part, structures, free, optimizer, reach, settings, fmax, max_steps))
    stop, lock = threading.Event(), threading.Lock()

    def work(run: _Run) -> None:
        while not stop.is_set() and (done := run.advance()) is not None:
            with lock:
                bar.update(done)

    if len(runs) == 1:
        work(runs[0])
    else:
        with concurrent.futures.ThreadPoolExecutor(threads()) as executor:
            try:
                list(executor.map(work, runs))
            finally:
                stop.set()  # what goes wrong in one, or Ctrl-C, ends all
    energy, largest = np.empty(len(structures)), np.empty(len(structures))
    steps = np.empty(len(structures), int)
    relaxed = [s.copy() for s in structures]
    forces = [np.empty([len(s), 3]) for s in structures]
    for run in runs:
        members = run.group.members
        energy[members], largest[members], steps[members] = run.energy, run.largest, run.steps
        for i, positions, force in zip(members, run.positions, run.forces, strict=True):
            relaxed[i].positions = positions[: len(relaxed[i])]
            forces[i][:] = force[: len(relaxed[i])]
    finite = np.isfinite(largest) & np.isfinite(energy)
    status = [
        Status.CONVERGED if low else Status.NOT_CONVERGED if good else Status.CALCULATOR_FAILED
        for low, good in zip(finite & (largest <= fmax), finite, strict=True)
    ]
    return RelaxationResult(
        structures=relaxed,
        energy=energy,
        forces=forces,
        fmax=largest,
        steps=steps,
        status=status,
        detail=["" if good else NOT_FINITE for good in finite],
        calculations=steps + 1,
    )


class _Run:
    """Structures of one padded size on their way through the places of one batch.

    Attributes:
        group: the structures; its members in the order of the results.
        positions, forces, energy, largest, steps: results, filled as structures finish.
    """

    def __init__(
        self,
        group: Group,
        structures: list[Atoms],
        free: list[np.ndarray],
        optimizer: Lbfgs,
        reach: float,
        settings: RelaxationSettings,
        fmax: float,
        max_steps: int,
    ) -> None:
        count, width = len(group.members), group.width
        places = settings.batch_size(width)
        self.group = group
        self._optimizer, self._reach = optimizer, reach
        self._fmax, self._max_steps, self._empty = fmax, max_steps, settings.empty
        self._structures = [structures[i] for i in group.members]
        self.positions, self.forces = np.zeros([2, count, width, 3])
        self._numbers = np.zeros([count, width], np.int32)
        self._free = np.zeros([count, width], bool)
        for row, (i, s) in enumerate(zip(group.members, self._structures, strict=True)):
            self.positions[row, : len(s)] = s.positions
            self._numbers[row, : len(s)] = s.numbers
            self._free[row, : len(s)] = free[i]
        self._cell = np.array([s.cell.array for s in self._structures])
        self._pbc = np.array([s.pbc for s in self._structures])
        self.energy, self.largest = np.empty(count), np.empty(count)
        self.steps = np.zeros(count, int)
        self._next = 0  # of those waiting
        # Whom each place holds. Empty places hold the first structure, at rest.
        self._held = np.zeros(places, int)
        self._busy = np.zeros(places, bool)
        self._origin = self.positions[self._held].copy()
        self._motion = Motion.idle(width, places)
        self._index = np.full([places, width, 0], -1, np.int32)
        self._shift = np.zeros([places, width, 0, 3])

    def advance(self) -> int | None:
        """Fills empty places and moves structures until some have finished.

        Returns:
            How many; None if there were none left.
        """
        fresh = np.zeros(len(self._held), bool)
        fresh[np.flatnonzero(~self._busy)[: len(self.energy) - self._next]] = True
        self._held[fresh] = self._next + np.arange(fresh.sum())
        self._next += int(fresh.sum())
        self._busy |= fresh
        if not self._busy.any():
            return None
        self._origin[fresh] = self.positions[self._held[fresh]]
        neighbours = self._neighbours(fresh) if self.group.periodic else None
        # Periodic structures also stop where they need new neighbour lists.
        empty = self._empty if neighbours or self._next < len(self.energy) else 1.0
        enough = int(self._busy.sum()) - int(empty * len(self._held))
        batch = StructureBatch(
            positions=tf.constant(self._origin),
            numbers=tf.constant(self._numbers[self._held]),
            cell=tf.constant(self._cell[self._held]),
            pbc=tf.constant(self._pbc[self._held]),
            neighbours=neighbours,
        )
        self._motion = self._optimizer.run(
            batch,
            self._motion,
            tf.constant(fresh),
            tf.constant(self._free[self._held]),
            tf.constant(self._fmax, tf.float64),
            tf.constant(np.where(self._busy, self._max_steps, -1.0)),
            tf.constant(max(0, enough), tf.int32),
        )
        positions, energy, steps, largest = self._motion.read()
        finished = self._busy & ~((largest > self._fmax) & (steps < self._max_steps))
        who = self._held[finished]
        self.positions[who] = positions[finished]
        self.forces[who] = self._motion.read_forces()[finished]
        self.energy[who], self.largest[who] = energy[finished], largest[finished]
        self.steps[who] = steps[finished]
        self._busy &= ~finished
        return int(finished.sum())

    def _neighbours(self, fresh: np.ndarray) -> Neighbours:
        """Renews the lists of structures that are fresh or went far from where they were made."""
        positions = self._motion.read()[0]
        moved = np.linalg.norm(positions - self._origin, axis=2).max(axis=1)
        far = self._busy & ~fresh & (moved > DRIFT)
        self._origin[far] = positions[far]
        rows = np.flatnonzero(fresh | far)
        if len(rows):
            self._set_lists(rows)
        return Neighbours(tf.constant(self._index), tf.constant(self._shift))

    def _set_lists(self, rows: np.ndarray) -> None:
        structures = []
        for row in rows:
            structure = self._structures[self._held[row]].copy()
            structure.positions = self._origin[row, : len(structure)]
            structures.append(structure)
        new = StructureBatch.from_ase(structures, r_cut=self._reach, atoms=self.group.width)
        index, shift = (np.asarray(t) for t in cast(Neighbours, new.neighbours))
        length, longest = index.shape[2], self._index.shape[2]
        if length > longest:
            # With room to spare: every length is compiled separately.
            more = -(-5 * length // 32) * 8 - longest
            self._index = np.pad(self._index, [(0, 0), (0, 0), (0, more)], constant_values=-1)
            self._shift = np.pad(self._shift, [(0, 0), (0, 0), (0, more), (0, 0)])
        self._index[rows], self._shift[rows] = -1, 0.0
        self._index[rows, :, :length], self._shift[rows, :, :length] = index, shift


def _free_atoms(place: int, structure: Atoms) -> np.ndarray:
    free = np.ones(len(structure), bool)
    for constraint in structure.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ValueError(
                f"structures[{place}] has a {type(constraint).__name__} constraint; batched "
                "relaxation knows FixAtoms only (an ASE calculator as potential knows them all)"
            )
        if not np.isin(constraint.index, np.arange(-len(structure), len(structure))).all():
            raise ValueError(
                f"structures[{place}] has FixAtoms of {constraint.index}, but only "
                f"{len(structure)} atoms"
            )
        free[constraint.index] = False
    return free
