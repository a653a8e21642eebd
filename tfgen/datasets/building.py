"""Builds a data set from a recipe: sample, relax, select, split; resumable, in parallel.

The work is cut into chunks, each a pure function of recipe, seed and its place, so that the data
set is the same whatever the number of workers and of interruptions. Finished chunks wait in the
folder `FILE.h5.partial` until all are there.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen import __version__
from tfgen._files import new_file, require_absent
from tfgen._tensorflow import load_quietly
from tfgen.datasets.recipe import Recipe, Relax, load_recipe
from tfgen.datasets.sampling import pack
from tfgen.datasets.storage import Dataset, assign_splits, provenance
from tfgen.potentials.emt import EMT
from tfgen.properties import ENERGY_PER_ATOM, UNITS, applicable, compute
from tfgen.relaxation import relax
from tfgen.similarity import duplicates
from tfgen.structures import numbers_from_formula
from tfgen.validity import BOND_FACTOR, connected

__all__ = ["build", "partial_folder"]

PARTIAL_VERSION = 1
# Starts in a chunk: enough to fill the relaxation's batches, few enough to lose little.
CHUNK = 800
# Pairs of atoms in a chunk's structures, so that large structures come in smaller chunks.
PAIRS_PER_CHUNK = 2_000_000
# Relaxed structures are kicked until they came back to their energy (within RETURNED, eV) so many
# times in a row, or KICKS times: forces vanish at saddle points too, but few survive two kicks.
RETURNED, RETURNS, KICKS = 0.002, 2, 6

# How the names of everything in a folder of unfinished work begin.
_OWN = ("task.json", ".task-", "chunk-", ".chunk-")

# What the seed is used for, so that no two uses share random numbers.
_SAMPLING, _CHOOSING, _SPLITTING = range(3)


class _Chunk(NamedTuple):
    """One task: the starts from `first` on, `size` of them, of one formula."""

    place: int
    formula: str
    first: int
    size: int


class _Minima(NamedTuple):
    """Everything that came out of the relaxations, in the order of the starts."""

    structures: list[Atoms]
    energy: np.ndarray
    converged: np.ndarray


def build(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> Dataset:
    """Runs a recipe and writes the data set; called again after an interruption, it goes on.

    Starts that do not converge, fall apart (bonds are distances up to `validity.BOND_FACTOR` times
    the sum of covalent radii) or equal a lower minimum are dropped and counted, all before the
    split. The structures come sorted by composition, then by energy.

    Args:
        recipe: what to build; a recipe, the path of its file, or its name in `datasets/`.
        output: the HDF5 file to write.
        seed: of all random choices.
        workers: number of processes; the data set does not depend on it.
        overwrite: replace `output`, and discard what is left of another, interrupted build.
        progress: show a progress bar.

    Returns:
        The data set that was written; `metadata["counts"]` says what became of the starts.

    Raises:
        FileNotFoundError: if there is no such recipe.
        FileExistsError: if the output exists and `overwrite` is false.
        ValueError: if the recipe is not valid, nothing is left (says which filter took how many),
            the interrupted build in `FILE.h5.partial` is another one, or an argument is out of
            its range.
        ChildProcessError: if a worker process dies; what is done is kept.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if seed < 0:
        raise ValueError(f"seed is {seed!r}; a whole number >= 0 is needed")
    if workers < 1:
        raise ValueError(f"workers is {workers!r}; at least 1 is needed")
    output = require_absent(output, overwrite)
    folder = partial_folder(output)
    _prepare(folder, _task(recipe, seed), overwrite)
    chunks = _chunks(recipe)
    missing = [c for c in chunks if _load_chunk(folder, c) is None]
    with tqdm(
        total=sum(c.size for c in chunks),
        initial=sum(c.size for c in chunks) - sum(c.size for c in missing),
        desc=f"relaxing {recipe.name}",
        unit="",
        disable=not progress,
    ) as bar:
        if min(workers, len(missing)) < 2:
            done = _run_here(folder, recipe, seed, missing)
        else:
            done = _run_in_processes(folder, recipe, seed, missing, workers)
        for chunk in done:
            bar.update(chunk.size)
    dataset = _select(recipe, seed, _gather(folder, chunks))
    dataset.save(output, overwrite)
    shutil.rmtree(folder, ignore_errors=True)
    return dataset


def partial_folder(output: str | os.PathLike[str]) -> Path:
    """Where the finished chunks of an unfinished build of `output` wait."""
    output = Path(output)
    return output.with_name(output.name + ".partial")


def _rng(seed: int, *use: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=use))


def _chunks(recipe: Recipe) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    for formula in recipe.sample.formula:
        pairs = len(numbers_from_formula(formula)) ** 2
        size = int(np.clip(PAIRS_PER_CHUNK // pairs, 1, CHUNK))
        for first in range(0, recipe.sample.count, size):
            count = min(size, recipe.sample.count - first)
            chunks.append(_Chunk(len(chunks), formula, first, count))
    return chunks


def _task(recipe: Recipe, seed: int) -> dict[str, Any]:
    return {
        "partial_version": PARTIAL_VERSION,
        "tfgen": __version__,
        "seed": seed,
        "chunk": CHUNK,
        "pairs_per_chunk": PAIRS_PER_CHUNK,
        **recipe.starts(),
    }


def _prepare(folder: Path, task: dict[str, Any], overwrite: bool) -> None:
    """Makes the folder of finished chunks, or checks that the one there belongs to this task."""
    record = folder / "task.json"
    if folder.exists():
        try:
            found = json.loads(record.read_text("utf-8"))
        except (OSError, ValueError):
            found = None
        if found == task:
            return
        # Interrupted at its very start, before the record was there: nothing is lost with it.
        if not overwrite and any(not p.name.startswith(".task-") for p in folder.iterdir()):
            old = found if isinstance(found, dict) else {}
            differing = ", ".join(k for k in task if old.get(k) != task[k])
            raise ValueError(
                f"{str(folder)!r} holds an interrupted build of something else (other: "
                f"{differing}); remove it or use --overwrite"
            )
        foreign = [p.name for p in folder.iterdir() if not p.name.startswith(_OWN)]
        if foreign:
            raise FileExistsError(
                f"{str(folder)!r} holds {foreign[0]!r}, which tfgen has not put there; refusing to "
                "remove the folder"
            )
        shutil.rmtree(folder)
    folder.mkdir()
    with new_file(record) as temporary:
        temporary.write_text(json.dumps(task, indent=1), "utf-8")


def _chunk_file(folder: Path, chunk: _Chunk) -> Path:
    return folder / f"chunk-{chunk.place + 1:05d}.npz"


def _load_chunk(folder: Path, chunk: _Chunk) -> _Minima | None:
    """Reads a finished chunk; None if it is not there or not whole."""
    numbers = numbers_from_formula(chunk.formula)
    try:
        # np.load does not close a file that it finds to be damaged.
        with (
            _chunk_file(folder, chunk).open("rb") as raw,
            np.load(raw, allow_pickle=False) as file,
        ):
            positions, energy, converged = (
                file[name] for name in ("positions", "energy", "converged")
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if positions.shape != (chunk.size, len(numbers), 3) or energy.shape != (chunk.size,):
        return None
    return _Minima([Atoms(numbers, positions=x) for x in positions], energy, converged)


@functools.cache
def _potential(name: str) -> EMT:
    """One object per process, so that what is compiled for it is compiled once."""
    return {"emt": EMT}[name]()


def _work(folder: Path, recipe: Recipe, seed: int, chunk: _Chunk) -> _Chunk:
    """Runs one chunk and writes its result; returns the chunk."""
    numbers = numbers_from_formula(chunk.formula)
    rng = _rng(seed, _SAMPLING, chunk.place)
    sample = recipe.sample
    positions = np.empty([chunk.size, len(numbers), 3])
    # The shapes take turns over all starts of the formula, so that each has its equal share.
    turn = (chunk.first + np.arange(chunk.size)) % len(sample.shapes)
    for place in np.unique(turn):
        rows = turn == place
        positions[rows] = pack(
            numbers,
            int(rows.sum()),
            rng,
            shape=sample.shapes[place],
            min_distance=sample.min_distance,
            packing=sample.packing,
        )
    result = _minima(recipe.relax, numbers, positions, rng)
    with new_file(_chunk_file(folder, chunk), overwrite=True) as temporary:
        np.savez(temporary, positions=result[0], energy=result[1], converged=result[2])
    return chunk


def _minima(
    settings: Relax, numbers: np.ndarray, positions: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relaxes, then kicks and relaxes again until structures come back: off saddle points.

    Returns:
        positions [n, N, 3], Å, energy [n], eV, and converged [n] bool.
    """
    n = len(positions)
    energy, converged, returns = np.full(n, np.nan), np.zeros(n, bool), np.zeros(n, int)
    moving = np.arange(n)
    for kick in (0.0, *[settings.rattle] * (KICKS if settings.rattle else 0)):
        kicked = positions[moving] + kick * rng.normal(size=[len(moving), *positions.shape[1:]])
        result = relax(
            [Atoms(numbers, positions=x) for x in kicked],
            _potential(settings.potential),
            fmax=settings.fmax,
            max_steps=settings.max_steps,
        )
        back = np.abs(result.energy - energy[moving]) < RETURNED
        returns[moving] = np.where(back, returns[moving] + 1, 0)
        # A minimum is not given up for a kick that leads nowhere.
        better = result.converged | ~converged[moving]
        found = moving[better]
        positions[found] = np.array([s.positions for s in result.structures])[better]
        energy[found], converged[found] = result.energy[better], result.converged[better]
        moving = moving[result.converged & (returns[moving] < RETURNS)]
        if len(moving) == 0:
            break
    return positions, energy, converged


def _run_here(folder: Path, recipe: Recipe, seed: int, chunks: list[_Chunk]) -> Iterator[_Chunk]:
    for chunk in chunks:
        yield _work(folder, recipe, seed, chunk)


def _run_in_processes(
    folder: Path, recipe: Recipe, seed: int, chunks: list[_Chunk], workers: int
) -> Iterator[_Chunk]:
    # TensorFlow does not survive a fork.
    executor = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(chunks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        tasks = [executor.submit(_work, folder, recipe, seed, chunk) for chunk in chunks]
        for task in concurrent.futures.as_completed(tasks):
            yield task.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process died (out of memory?); what is done is kept, the same command goes on"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, ends when the parent does, and starts TensorFlow silently."""
    load_quietly()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _gather(folder: Path, chunks: list[_Chunk]) -> _Minima:
    parts = []
    for chunk in chunks:
        part = _load_chunk(folder, chunk)
        if part is None:
            raise OSError(f"{str(_chunk_file(folder, chunk))!r} cannot be read back")
        parts.append(part)
    return _Minima(
        [s for part in parts for s in part.structures],
        np.concatenate([part.energy for part in parts]),
        np.concatenate([part.converged for part in parts]),
    )


def _select(recipe: Recipe, seed: int, minima: _Minima) -> Dataset:
    """Filters the minima, counts what each filter takes, and makes the data set."""
    chosen = recipe.select
    counts = {"sampled": len(minima.structures)}
    finite = np.array([bool(np.isfinite(s.positions).all()) for s in minima.structures])
    good = np.flatnonzero(minima.converged & finite & np.isfinite(minima.energy))
    counts["not converged"] = counts["sampled"] - len(good)
    whole = good[connected([minima.structures[i] for i in good])]
    counts["disconnected"] = len(good) - len(whole)
    # By composition as the recipe lists them, then by energy: of equal ones the lowest stays.
    formulas = [minima.structures[i].get_chemical_formula() for i in whole]
    listed = list(dict.fromkeys(formulas))
    kinds = np.array([listed.index(f) for f in formulas], int)
    order = np.lexsort([minima.energy[whole], kinds])
    rows, kinds = whole[order], kinds[order]
    first = duplicates([minima.structures[i] for i in rows], chosen.duplicate_tolerance)
    unique = first == np.arange(len(rows))
    counts["duplicates"] = int((~unique).sum())
    rows, kinds = rows[unique], kinds[unique]
    if chosen.energy_window is not None:
        per_atom = minima.energy[rows] / [len(minima.structures[i]) for i in rows]
        lowest = np.full(len(listed), np.inf)
        np.minimum.at(lowest, kinds, per_atom)
        inside = per_atom <= lowest[kinds] + chosen.energy_window
        counts["outside the energy window"] = int((~inside).sum())
        rows = rows[inside]
    if chosen.max_count is not None:
        kept = np.sort(_rng(seed, _CHOOSING).permutation(len(rows))[: chosen.max_count])
        counts["above the maximum count"] = len(rows) - len(kept)
        rows = rows[kept]
    counts["kept"] = len(rows)
    if len(rows) == 0:
        taken = ", ".join(f"{count} {stage}" for stage, count in counts.items() if stage != "kept")
        raise ValueError(f"recipe {recipe.name!r} leaves no structures: {taken}")
    structures = [minima.structures[i] for i in rows]
    fractions = recipe.split.train, recipe.split.validation, recipe.split.test
    names = [ENERGY_PER_ATOM, *applicable(structures)]
    return Dataset(
        structures=structures,
        properties=compute(structures, names, minima.energy[rows]),
        units={name: UNITS[name] for name in names},
        split=assign_splits(len(rows), fractions, _rng(seed, _SPLITTING)),
        metadata={
            "name": recipe.name,
            "description": recipe.description,
            "kind": "built",
            "potential": recipe.relax.potential,
            "recipe": recipe.text,
            "seed": seed,
            "counts": counts,
            "thresholds": {
                "bond_factor": BOND_FACTOR,
                "duplicate_tolerance": chosen.duplicate_tolerance,
            },
            **provenance(),
        },
    )
