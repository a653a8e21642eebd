"""What a task of a build does: it makes structures, and relaxes them to minima.

A task is a pure function of its arguments, wherever it runs.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from tfgen._files import new_file
from tfgen.datasets.minima import Relaxed, find_minima, make_relaxer
from tfgen.datasets.recipe import Relax, Sample
from tfgen.datasets.settings import BuildSettings
from tfgen.execution.processes import ProcessDiedError, Processes, TimeLimitError
from tfgen.potentials.ase import AsePotential
from tfgen.sampling.initial import initial_structures
from tfgen.sampling.moves import grow, propose
from tfgen.structures.status import Status

__all__ = [
    "Part",
    "Results",
    "Source",
    "Task",
    "check_apart",
    "load_results",
    "run",
    "run_apart",
    "save_results",
]

# Where tasks run apart by default; no process starts before the first of them.
_PROCESSES = Processes()


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
        settings: of the build.
        log: a file to which what an ASE calculator prints is appended.
    """

    round: int
    place: int
    parts: tuple[Part, ...]
    seed: int
    use: int
    sample: Sample
    relax: Relax
    moves: tuple[str, ...]
    settings: BuildSettings = field(default_factory=BuildSettings)
    log: Path | None = None

    @property
    def size(self) -> int:
        """Number of structures."""
        return sum(part.size for part in self.parts)


class Results(NamedTuple):
    """What a part of a task resulted in.

    Attributes:
        positions: [size, N, 3], Å, of the minima.
        forces: [size, N, 3], eV/Å.
        energy: [size], eV.
        fmax: [size], largest force on an atom, eV/Å.
        status: [size] text, values of `tfgen.structures.status.Status`.
        detail: [size] text, what a calculator said that failed; "" otherwise.
        snapshots: [m, N, 3], Å, structures on the way.
        snapshot_forces: [m, N, 3], eV/Å.
        owner: [m] int, place of the structure in the part that each snapshot comes from.
        snapshot_energy: [m], eV.
        snapshot_fmax: [m], eV/Å.
    """

    positions: np.ndarray
    forces: np.ndarray
    energy: np.ndarray
    fmax: np.ndarray
    status: np.ndarray
    detail: np.ndarray
    snapshots: np.ndarray
    snapshot_forces: np.ndarray
    owner: np.ndarray
    snapshot_energy: np.ndarray
    snapshot_fmax: np.ndarray


def check_apart(relax: Relax, processes: Processes | None = None, *, tries: int = 3) -> str:
    """Says why there cannot be a calculator as the recipe wants it; "" if there can.

    Args:
        relax: of the recipe.
        processes: in which to try it; None: processes that this module keeps.
        tries: as for `Processes.call`.
    """
    try:
        return (processes or _PROCESSES).call(_find_problem, relax, relax.time_limit, tries=tries)
    except (ProcessDiedError, TimeLimitError) as error:
        return f"calculator {relax.potential!r} cannot be made: {error}"


def _find_problem(relax: Relax) -> str:
    try:
        AsePotential.from_path(relax.potential, relax.arguments)
    except ValueError as error:
        return str(error)
    return ""


def run(task: Task) -> list[Results]:
    """Does a task and returns the results of its parts."""
    rng = np.random.default_rng(
        np.random.SeedSequence(task.seed, spawn_key=(task.use, task.round, task.place))
    )
    structures = [
        Atoms(part.numbers, positions=positions)
        for part in task.parts
        for source in part.sources
        for positions in _make(task, part, source, rng)
    ]
    relaxer = make_relaxer(task.relax, task.log)
    found = find_minima(relaxer, task.relax, structures, rng, task.settings)
    results, end = [], 0
    for part in task.parts:
        rows = np.arange(end, end := end + part.size)
        own = found.minima.take(rows)
        here = np.flatnonzero(np.isin(found.owner, rows))
        seen = found.snapshots.take(here)
        results.append(
            Results(
                *_stack(own, part.numbers),
                *own[2:],
                *_stack(seen, part.numbers),
                found.owner[here] - (end - part.size),
                seen.energy,
                seen.fmax,
            )
        )
    return results


def _stack(state: Relaxed, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions and forces, [n, N, 3] each."""
    shape = -1, len(numbers), 3
    positions = np.array([s.positions for s in state.structures])
    return positions.reshape(shape), np.array(state.forces).reshape(shape)


def run_apart(task: Task, processes: Processes | None = None) -> list[Results]:
    """Does a task of one structure in a process of its own, which may die or hang.

    Args:
        task: of one structure.
        processes: in which it runs; None: processes that this module keeps.
    """
    tries = task.settings.tries
    try:
        return (processes or _PROCESSES).call(run, task, task.relax.time_limit, tries=tries)
    except ProcessDiedError as error:
        return _return_nothing(task, Status.CRASHED, str(error))
    except TimeLimitError as error:
        return _return_nothing(task, Status.TIME_LIMIT, str(error))


def _return_nothing(task: Task, status: Status, detail: str) -> list[Results]:
    return [
        Results(
            positions=np.full([part.size, len(part.numbers), 3], np.nan),
            forces=np.full([part.size, len(part.numbers), 3], np.nan),
            energy=np.full(part.size, np.nan),
            fmax=np.full(part.size, np.inf),
            status=np.full(part.size, status),
            detail=np.full(part.size, detail),
            snapshots=np.zeros([0, len(part.numbers), 3]),
            snapshot_forces=np.zeros([0, len(part.numbers), 3]),
            owner=np.zeros(0, int),
            snapshot_energy=np.zeros(0),
            snapshot_fmax=np.zeros(0),
        )
        for part in task.parts
    ]


def _make(task: Task, part: Part, source: Source, rng: np.random.Generator) -> np.ndarray:
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


def _path_of(folder: Path, task: Task) -> Path:
    return folder / f"chunk-{task.round:03d}-{task.place + 1:06d}.npz"


def save_results(folder: Path, task: Task, results: Sequence[Results]) -> None:
    """Writes the results of a task into the folder of a build."""
    arrays = {f"{k}_{name}": a for k, r in enumerate(results) for name, a in r._asdict().items()}
    with new_file(_path_of(folder, task), overwrite=True) as temporary:
        np.savez(temporary, **arrays)


def load_results(folder: Path, task: Task) -> list[Results] | None:
    """Reads the results of a task; None if they are not there or not whole."""
    try:
        # np.load does not close a file that it finds to be damaged.
        with (
            _path_of(folder, task).open("rb") as raw,
            np.load(raw, allow_pickle=False) as file,
        ):
            results = [
                Results(*(file[f"{k}_{name}"] for name in Results._fields))
                for k in range(len(task.parts))
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    fit = all(
        result.positions.shape == (part.size, len(part.numbers), 3)
        for part, result in zip(task.parts, results, strict=True)
    )
    return results if fit else None
