"""Relaxation of whole batches to local minima of a potential."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from tqdm import tqdm

from tfgen._warnings import TfgenWarning
from tfgen.potentials.base import Potential, energy_and_forces
from tfgen.potentials.emt import EMT
from tfgen.structures import StructureBatch, as_structures, bucket

__all__ = ["RelaxationResult", "relax"]

# Steps between two looks from Python, at which finished structures leave and others move up.
STEPS_PER_ROUND = 50
# Pairs of atoms computed at once: bounds memory, and is large enough to keep two cores busy.
PAIRS_PER_BATCH = 100_000
# Neighbour lists of periodic structures reach this much further, Å, and are renewed every round.
SKIN = 1.0

# FIRE's parameters, as in ASE: time steps, the longest move of a structure (Å), mixing.
DT_START, DT_MAX, MAX_STEP = 0.1, 1.0, 0.2
ALPHA_START, ALPHA_SHRINK, DT_GROW, DT_SHRINK, N_MIN = 0.1, 0.99, 1.1, 0.5, 5


@dataclass(frozen=True)
class RelaxationResult:
    """What `relax` returns, one entry per structure in the order given.

    Attributes:
        structures: copies with relaxed positions.
        energy: [structures], eV, at those positions.
        fmax: [structures], largest force on an atom, eV/Å.
        steps: [structures] int, steps taken.
        converged: [structures] bool, fmax reached within max_steps.
    """

    structures: list[Atoms]
    energy: np.ndarray
    fmax: np.ndarray
    steps: np.ndarray
    converged: np.ndarray


def relax(
    structures: Atoms | Sequence[Atoms],
    potential: Potential | BaseCalculator | None = None,
    *,
    fmax: float = 0.01,
    max_steps: int = 2000,
    progress: bool = False,
) -> RelaxationResult:
    """Relaxes structures at fixed cell until no force on an atom exceeds `fmax`.

    A potential of tfgen's kind moves all structures at once by FIRE; whoever has converged makes
    room for the next. An ASE calculator moves one after the other by ASE's BFGS.

    Args:
        structures: any mix of sizes and elements; left unmodified. Atoms under `FixAtoms` stay.
        potential: `EMT()` if None. A structure for which an ASE calculator raises an error is not
            converged, its energy NaN.
        fmax: eV/Å.
        max_steps: bound on the steps of each structure.
        progress: show a progress bar.

    Returns:
        The minima found, with energies and whether they converged.

    Raises:
        ValueError: on bad structures, elements the potential does not know, constraints that it
            does not (tfgen's potentials know `FixAtoms`), fmax <= 0, max_steps < 0.

    References:
        E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006). DOI 10.1103/PhysRevLett.97.170201
    """
    structures = as_structures(structures)
    if not (np.isfinite(fmax) and fmax > 0):
        raise ValueError(f"fmax is {fmax!r}; a positive number of eV/Å is needed")
    if max_steps < 0:
        raise ValueError(f"max_steps is {max_steps!r}; it must be >= 0")
    bar = tqdm(total=len(structures), desc="relaxing", unit="", disable=not progress)
    with bar:
        if isinstance(potential, BaseCalculator):
            return _relax_with_ase(structures, potential, fmax, max_steps, bar)
        return _relax_in_batches(structures, potential or _default(), fmax, max_steps, bar)


@functools.cache
def _default() -> EMT:
    return EMT()


def _relax_with_ase(
    structures: list[Atoms], calculator: BaseCalculator, fmax: float, max_steps: int, bar: tqdm
) -> RelaxationResult:
    count = len(structures)
    energy, largest, steps = np.empty(count), np.empty(count), np.zeros(count, int)
    relaxed = []
    failure: Exception | None = None
    for i, structure in enumerate(structures):
        atoms = structure.copy()
        atoms.calc = calculator
        try:
            with BFGS(atoms, logfile=None) as optimizer:
                optimizer.run(fmax=fmax, steps=max_steps)
                steps[i] = optimizer.get_number_of_steps()
            energy[i] = atoms.get_potential_energy()
            largest[i] = np.linalg.norm(atoms.get_forces(), axis=1).max()
        except Exception as error:  # noqa: BLE001  (calculators raise what they like)
            failure, atoms = error, structure.copy()
            energy[i], largest[i] = np.nan, np.inf
        atoms.calc = None
        relaxed.append(atoms)
        bar.update()
    if failure is not None:
        failed = int(np.isnan(energy).sum())
        warnings.warn(
            f"the calculator failed for {failed} of {count} structures, last with: {failure}",
            TfgenWarning,
            stacklevel=3,
        )
    return RelaxationResult(relaxed, energy, largest, steps, largest <= fmax)


def _relax_in_batches(
    structures: list[Atoms], potential: Potential, fmax: float, max_steps: int, bar: tqdm
) -> RelaxationResult:
    potential.check(structures)
    free = [_free_atoms(i, s) for i, s in enumerate(structures)]
    relaxed = [s.copy() for s in structures]
    count = len(structures)
    energy, largest = np.full(count, np.nan), np.full(count, np.inf)
    steps = np.zeros(count, int)
    optimizer: _Fire = _fire(cast(Hashable, potential))
    kinds = np.array([(bucket(len(s)), s.pbc.any()) for s in structures])
    for width, periodic in np.unique(kinds, axis=0):
        members = np.flatnonzero((kinds == (width, periodic)).all(axis=1))
        motion = _at_rest(len(members), int(width))
        capacity = PAIRS_PER_BATCH // int(width) ** 2
        capacities = [max(1, capacity // share) for share in (64, 8, 1)]
        waiting = np.arange(len(members))
        while len(waiting):
            # Three batch sizes only, each compiled once: a full one, smaller ones for the last.
            room = next(c for c in capacities if c >= min(len(waiting), capacities[-1]))
            now = waiting[:room]
            at = members[now]
            # Repeats of the first structure fill the batch up, with no steps to take.
            rows = np.concatenate([np.arange(len(now)), np.zeros(room - len(now), int)])
            packed = StructureBatch.from_ase(
                [relaxed[i] for i in at], r_cut=potential.r_cut + SKIN, atoms=int(width)
            )
            loose = np.zeros([len(now), int(width)], bool)
            for row, i in enumerate(at):
                loose[row, : len(free[i])] = free[i]
            budget = np.minimum(max_steps - steps[at], STEPS_PER_ROUND)[rows]
            budget[len(now) :] = 0
            result = optimizer.run(
                tf.nest.map_structure(
                    lambda a, rows=rows: None if a is None else tf.gather(a, rows), packed
                ),
                _Motion(*(a[now][rows] for a in motion)),
                tf.constant(loose[rows]),
                tf.constant(fmax, tf.float64),
                tf.constant(budget, tf.int32),
            )
            positions, moved, e, f, taken = result
            for store, value in zip(motion, moved, strict=True):
                store[now] = value[: len(now)]
            for i, x in zip(at, positions.numpy(), strict=False):
                relaxed[i].positions = x[: len(relaxed[i])]
            energy[at] = e[: len(now)]
            largest[at] = f = f[: len(now)].numpy()
            steps[at] += taken[: len(now)]
            done = (f <= fmax) | (steps[at] >= max_steps) | ~np.isfinite(f)
            bar.update(int(done.sum()))
            waiting = np.concatenate([now[~done], waiting[room:]])
    # Atoms that moved further than the skin since the last lists were made feel other neighbours.
    periodic = [i for i, s in enumerate(relaxed) if s.pbc.any()]
    if periodic:
        exact = potential.compute([relaxed[i] for i in periodic])
        energy[periodic] = exact["energy"]
        for i, forces in zip(periodic, exact["forces"], strict=True):
            largest[i] = np.linalg.norm(forces[free[i]], axis=1).max(initial=0.0)
    return RelaxationResult(relaxed, energy, largest, steps, largest <= fmax)


def _free_atoms(place: int, structure: Atoms) -> np.ndarray:
    free = np.ones(len(structure), bool)
    for constraint in structure.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ValueError(
                f"structures[{place}] has a {type(constraint).__name__} constraint; batched "
                "relaxation knows FixAtoms only (an ASE calculator as potential knows them all)"
            )
        free[constraint.index] = False
    return free


class _Motion(NamedTuple):
    """State of FIRE: velocities [batch, atoms, 3]; time step, mixing, downhill steps [batch]."""

    velocities: tf.Tensor
    dt: tf.Tensor
    alpha: tf.Tensor
    downhill: tf.Tensor


def _at_rest(count: int, atoms: int) -> _Motion:
    return _Motion(
        velocities=np.zeros([count, atoms, 3]),
        dt=np.full(count, DT_START),
        alpha=np.full(count, ALPHA_START),
        downhill=np.zeros(count, np.int32),
    )


class _Fire:
    """FIRE for a batch, compiled into one loop."""

    def __init__(self, potential: Potential) -> None:
        self._potential = potential

    @tf.function(jit_compile=True, reduce_retracing=True, autograph=False)
    def run(
        self,
        batch: StructureBatch,
        motion: _Motion,
        free: tf.Tensor,
        fmax: tf.Tensor,
        budget: tf.Tensor,
    ) -> tuple[tf.Tensor, _Motion, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Takes up to `budget` [batch] steps, each structure stopping where it has converged.

        Returns:
            Positions, motion, energy [batch], largest force [batch], steps taken [batch].
        """

        def evaluate(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            energy, forces = energy_and_forces(self._potential, batch._replace(positions=positions))
            forces = tf.where(free[..., None], forces, tf.zeros_like(forces))
            return energy, forces, tf.sqrt(tf.reduce_max(tf.reduce_sum(forces**2, -1), axis=-1))

        def going(largest: tf.Tensor, taken: tf.Tensor) -> tf.Tensor:
            return (largest > fmax) & (taken < budget)

        def body(
            positions: tf.Tensor,
            motion: _Motion,
            _: tf.Tensor,
            forces: tf.Tensor,
            largest: tf.Tensor,
            taken: tf.Tensor,
        ) -> tuple:
            active = going(largest, taken)
            move, new_motion = _step(motion, forces)
            positions = tf.where(active[:, None, None], positions + move, positions)
            motion = _Motion(
                tf.where(active[:, None, None], new_motion.velocities, motion.velocities),
                *(tf.where(active, n, o) for n, o in zip(new_motion[1:], motion[1:], strict=True)),
            )
            # Those that stand still get the same values again.
            return positions, motion, *evaluate(positions), taken + tf.cast(active, tf.int32)

        state = (batch.positions, motion, *evaluate(batch.positions), tf.zeros_like(budget))
        positions, motion, energy, _, largest, taken = tf.while_loop(
            lambda *s: tf.reduce_any(going(s[4], s[5])), body, state
        )
        return positions, motion, energy, largest, taken


@functools.lru_cache(maxsize=8)
def _fire(potential: Potential) -> _Fire:
    """Returns the one optimiser of a potential, so that no call compiles what another has."""
    return _Fire(potential)


def _step(motion: _Motion, forces: tf.Tensor) -> tuple[tf.Tensor, _Motion]:
    """One FIRE step: returns the move [batch, atoms, 3] and the new motion."""

    def wide(x: tf.Tensor) -> tf.Tensor:
        return x[:, None, None]

    def norm(x: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_sum(x**2, axis=[1, 2]))

    velocities, dt, alpha, downhill = motion
    ahead = tf.reduce_sum(forces * velocities, axis=[1, 2]) > 0
    steered = (
        wide(1.0 - alpha) * velocities
        + wide(alpha * norm(velocities) / tf.maximum(norm(forces), 1e-30)) * forces
    )
    velocities = tf.where(wide(ahead), steered, tf.zeros_like(velocities))
    faster = ahead & (downhill > N_MIN)
    dt = tf.where(faster, tf.minimum(dt * DT_GROW, DT_MAX), tf.where(ahead, dt, dt * DT_SHRINK))
    alpha = tf.where(
        faster, alpha * ALPHA_SHRINK, tf.where(ahead, alpha, tf.constant(ALPHA_START, alpha.dtype))
    )
    downhill = tf.where(ahead, downhill + 1, tf.zeros_like(downhill))
    velocities += wide(dt) * forces
    move = wide(dt) * velocities
    move *= wide(MAX_STEP / tf.maximum(norm(move), MAX_STEP))
    return move, _Motion(velocities, dt, alpha, downhill)
