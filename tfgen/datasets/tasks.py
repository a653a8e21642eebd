"""What a task of a build does: it makes structures, and relaxes them to minima.

A task is a pure function of its arguments, wherever it runs. Nothing here needs TensorFlow until
a batched potential is used, so that processes for ASE calculators start at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from tfgen.datasets.recipe import Relax, Sample
from tfgen.execution.processes import ProcessDiedError, Processes, TimeLimitError
from tfgen.potentials.ase import make_calculator
from tfgen.sampling.initial import initial_structures
from tfgen.sampling.moves import grow, propose
from tfgen.structures.similarity import duplicates

__all__ = ["STATUSES", "Part", "Results", "Source", "Task", "check_apart", "run", "run_apart"]

STATUSES = (
    "converged",
    "not converged",
    "without finite energy or forces",
    "failed in the calculator",
    "crashed the process",
    "over the time limit",
)
"""What became of a structure; places in this list are the `status` of `Results`."""
_CONVERGED, _UNCONVERGED, _NOT_FINITE, _FAILED, _CRASHED, _LATE = range(len(STATUSES))

# Relaxed structures are rattled and relaxed again until they have returned to their energy (within
# RETURNED, eV) RETURNS times in a row, or RATTLES times: forces vanish at saddle points too, but
# few structures stay at one when they are rattled twice.
RETURNED, RETURNS, RATTLES = 0.002, 2, 6
# Of relaxed structures of one task within this distance, Å, one is rattled, and stands for all.
SAME = 0.02


@dataclass(frozen=True)
class Source:
    """Where some of the structures of a task come from.

    Attributes:
        size: number of structures.
        first: for initial structures, the number of the first among those of its composition.
        parents: [p, M, 3], Å, what moves are made from; None for initial structures.
        numbers: [M], of the parents, if their composition is another; None for moves.
    """

    size: int
    first: int = 0
    parents: np.ndarray | None = None
    numbers: np.ndarray | None = None


@dataclass(frozen=True)
class Part:
    """The structures of one composition in a task.

    Attributes:
        formula: as in the recipe.
        numbers: [N], atomic numbers.
        sources: where the structures come from, in their order.
    """

    formula: str
    numbers: np.ndarray
    sources: tuple[Source, ...]

    @property
    def size(self) -> int:
        """Number of structures."""
        return sum(source.size for source in self.sources)


@dataclass(frozen=True)
class Task:
    """Structures that are made and relaxed together.

    Attributes:
        round, place: of the task in the build.
        parts: the structures.
        seed: of the build.
        use: with `round` and `place`, what the random numbers are used for.
        sample, relax: of the recipe.
        moves: of the recipe.
    """

    round: int
    place: int
    parts: tuple[Part, ...]
    seed: int
    use: int
    sample: Sample
    relax: Relax
    moves: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of structures."""
        return sum(part.size for part in self.parts)


class Results(NamedTuple):
    """What became of a part of a task.

    Attributes:
        positions: [size, N, 3], Å, of the minima.
        energy: [size], eV.
        fmax: [size], largest force on an atom, eV/Å.
        status: [size] int8, place in `STATUSES`.
        message: [size] text, what a calculator said that failed; "" otherwise.
        snapshots: [m, N, 3], Å, structures on the way.
        snapshot_energy: [m], eV.
        snapshot_fmax: [m], eV/Å.
    """

    positions: np.ndarray
    energy: np.ndarray
    fmax: np.ndarray
    status: np.ndarray
    message: np.ndarray
    snapshots: np.ndarray
    snapshot_energy: np.ndarray
    snapshot_fmax: np.ndarray


class _State(NamedTuple):
    """Structures after some steps; fields as in `Results`."""

    structures: list[Atoms]
    energy: np.ndarray
    fmax: np.ndarray
    status: np.ndarray
    message: np.ndarray

    def take(self, rows: np.ndarray) -> _State:
        return _State([self.structures[i] for i in rows], *(a[rows] for a in self[1:]))


_Relaxer = Callable[[list[Atoms], int], _State]
"""Takes structures so many steps towards their minima."""


def check_apart(relax: Relax, processes: Processes | None = None) -> str:
    """Says why there cannot be a calculator as the recipe wants it; "" if there can.

    Args:
        relax: of the recipe.
        processes: where to find a process to try it in; None: this process' own.
    """
    try:
        return (processes or _own_processes()).call(_problem, relax, relax.time_limit)
    except (ProcessDiedError, TimeLimitError) as error:
        return f"calculator {relax.potential!r} cannot be made: {error}"


def _problem(relax: Relax) -> str:
    try:
        make_calculator(relax.potential, relax.arguments)
    except ValueError as error:
        return str(error)
    return ""


def run(task: Task) -> list[Results]:
    """Does a task: the results of its parts."""
    rng = np.random.default_rng(
        np.random.SeedSequence(task.seed, spawn_key=(task.use, task.round, task.place))
    )
    structures = [
        Atoms(part.numbers, positions=positions)
        for part in task.parts
        for source in part.sources
        for positions in _made(task, part, source, rng)
    ]
    relaxer = (_in_batches if task.relax.batched else _with_ase)(task.relax)
    state, owner, shots = _minima(relaxer, task.relax, structures, rng)
    results, end = [], 0
    for part in task.parts:
        rows = np.arange(end, end := end + part.size)
        own = state.take(rows)
        seen = shots.take(np.flatnonzero(np.isin(owner, rows)))
        results.append(
            Results(
                _stacked(own.structures, part.numbers),
                *own[1:],
                _stacked(seen.structures, part.numbers),
                seen.energy,
                seen.fmax,
            )
        )
    return results


def _stacked(structures: list[Atoms], numbers: np.ndarray) -> np.ndarray:
    return np.array([s.positions for s in structures]).reshape(-1, len(numbers), 3)


def run_apart(task: Task, processes: Processes | None = None) -> list[Results]:
    """Does a task of one structure in a process of its own, which may die or hang.

    Args:
        task: of one structure.
        processes: where to find that process; None: this process' own.
    """
    try:
        return (processes or _own_processes()).call(run, task, task.relax.time_limit)
    except ProcessDiedError as error:
        return _nothing(task, _CRASHED, str(error))
    except TimeLimitError as error:
        return _nothing(task, _LATE, str(error))


@functools.cache
def _own_processes() -> Processes:
    return Processes()


def _nothing(task: Task, status: int, message: str) -> list[Results]:
    return [
        Results(
            positions=np.full([part.size, len(part.numbers), 3], np.nan),
            energy=np.full(part.size, np.nan),
            fmax=np.full(part.size, np.inf),
            status=np.full(part.size, status, np.int8),
            message=np.full(part.size, message),
            snapshots=np.zeros([0, len(part.numbers), 3]),
            snapshot_energy=np.zeros(0),
            snapshot_fmax=np.zeros(0),
        )
        for part in task.parts
    ]


def _made(task: Task, part: Part, source: Source, rng: np.random.Generator) -> np.ndarray:
    sample = task.sample
    if source.parents is None:
        return initial_structures(
            part.numbers,
            source.size,
            rng,
            kinds=sample.kinds,
            shapes=sample.shapes,
            min_distance=sample.min_distance,
            packing=sample.packing,
            first=source.first,
        )
    if source.numbers is None:
        return propose(
            source.parents,
            part.numbers,
            source.size,
            rng,
            moves=task.moves,
            min_distance=sample.min_distance,
        )
    return grow(
        source.parents,
        source.numbers,
        part.numbers,
        source.size,
        rng,
        min_distance=sample.min_distance,
    )


def _minima(
    relaxer: _Relaxer, settings: Relax, structures: list[Atoms], rng: np.random.Generator
) -> tuple[_State, np.ndarray, _State]:
    """Relaxes structures, then rattles and relaxes them again until they return: off saddle points.

    Returns:
        The minima; for each snapshot, to which structure it belongs; the snapshots.
    """
    state, owner, shots = _descend(relaxer, settings, structures)
    converged = np.flatnonzero(state.status == _CONVERGED)
    # Those that found the same minimum would only find it again.
    leader = np.arange(len(structures))
    leader[converged] = converged[duplicates([state.structures[i] for i in converged], SAME)]
    moving = converged[leader[converged] == converged]
    returns = np.zeros(len(structures), int)
    for _ in range(RATTLES if settings.rattle else 0):
        if len(moving) == 0:
            break
        result = relaxer(
            [_rattle(state.structures[i], settings.rattle, rng) for i in moving],
            settings.max_steps,
        )
        # A minimum stays if a rattled structure does not converge.
        found = result.status == _CONVERGED
        back = np.abs(result.energy - state.energy[moving]) < RETURNED
        returns[moving] = np.where(back, returns[moving] + 1, 0)
        for row in np.flatnonzero(found):
            state.structures[moving[row]] = result.structures[row]
        state.energy[moving[found]] = result.energy[found]
        state.fmax[moving[found]] = result.fmax[found]
        moving = moving[found & (returns[moving] < RETURNS)]
    # A leader has the status of those that follow it.
    return state.take(leader), owner, shots


def _rattle(structure: Atoms, rattle: float, rng: np.random.Generator) -> Atoms:
    displacements = rattle * rng.normal(size=structure.positions.shape)
    return Atoms(structure.numbers, positions=structure.positions + displacements)


def _descend(
    relaxer: _Relaxer, settings: Relax, structures: list[Atoms]
) -> tuple[_State, np.ndarray, _State]:
    """Relaxes, keeping snapshots on the way: returns as `_minima` does."""
    owners, shots, taken = [], [], 0
    for step in settings.snapshots:
        state = relaxer(structures, step - taken)
        structures, taken = state.structures, step
        owners.append(np.flatnonzero(state.status == _UNCONVERGED))
        shots.append(state.take(owners[-1]))
    state = relaxer(structures, settings.max_steps - taken)
    if not shots:
        nobody = np.zeros(0, int)
        return state, nobody, state.take(nobody)
    seen = [atoms for shot in shots for atoms in shot.structures]
    rest = (np.concatenate(parts) for parts in zip(*(shot[1:] for shot in shots), strict=True))
    return state, np.concatenate(owners), _State(seen, *rest)


def _in_batches(settings: Relax) -> _Relaxer:
    from tfgen._tensorflow import load_quietly

    load_quietly()
    from tfgen.relaxation.relax import relax

    potential = _potential(settings.potential)

    def relaxer(structures: list[Atoms], steps: int) -> _State:
        result = relax(structures, potential, fmax=settings.fmax, max_steps=steps)
        finite = np.array([bool(np.isfinite(s.positions).all()) for s in result.structures])
        finite &= np.isfinite(result.energy)
        status = np.where(result.converged, _CONVERGED, _UNCONVERGED)
        return _State(
            structures=list(result.structures),
            energy=np.array(result.energy),
            fmax=np.array(result.fmax),
            status=np.where(finite, status, _NOT_FINITE).astype(np.int8),
            message=np.full(len(structures), ""),
        )

    return relaxer


@functools.cache
def _potential(name: str) -> Any:
    """One object per process, so that what is compiled for it is compiled once."""
    from tfgen.potentials.emt import EMT

    return {"emt": EMT}[name]()


def _with_ase(settings: Relax) -> _Relaxer:
    # A new calculator for each task: what an old one remembers would make results depend on what
    # the process did before.
    calculator = make_calculator(settings.potential, settings.arguments)

    def relaxer(structures: list[Atoms], steps: int) -> _State:
        found = [_one_with_ase(calculator, settings, s, steps) for s in structures]
        relaxed, energy, fmax, status, message = zip(*found, strict=True)
        return _State(
            list(relaxed),
            np.array(energy),
            np.array(fmax),
            np.array(status, np.int8),
            np.array(message),
        )

    return relaxer


def _one_with_ase(
    calculator: Any, settings: Relax, structure: Atoms, steps: int
) -> tuple[Atoms, float, float, int, str]:
    atoms = Atoms(structure.numbers, positions=structure.positions)
    if settings.vacuum:
        atoms.center(vacuum=settings.vacuum)
    atoms.calc = calculator
    energy, largest, status, message = np.nan, np.inf, _UNCONVERGED, ""
    try:
        with BFGS(atoms, logfile=None) as optimizer:
            for _ in optimizer.irun(fmax=settings.fmax, steps=steps):
                energy = float(atoms.get_potential_energy())
                largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
                if not (np.isfinite(energy) and np.isfinite(largest)):
                    status = _NOT_FINITE
                    break
    except Exception as error:  # noqa: BLE001  (calculators raise what they like)
        status, message = _FAILED, " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if status == _UNCONVERGED and largest <= settings.fmax:
        status = _CONVERGED
    relaxed = Atoms(structure.numbers, positions=atoms.positions)
    return relaxed, energy, largest, status, message
